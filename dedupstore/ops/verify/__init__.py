"""Verifying that everything that was promised is still there, and right."""
