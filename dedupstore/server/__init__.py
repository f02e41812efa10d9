"""A snapshot served over the MongoDB wire protocol, read-only."""
