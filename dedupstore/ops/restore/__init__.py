"""Restoring: snapshot → files in a folder."""
