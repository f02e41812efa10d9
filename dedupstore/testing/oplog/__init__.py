"""Histories of a replica set: what a server's log would hold, and what the server held all along."""
