"""Servers: what is stored, over protocols that other people's programs speak."""
