"""Backing up: source and repository → snapshot."""
