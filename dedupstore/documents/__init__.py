"""Collections inside snapshots, and their state at any operation of the log between them."""
