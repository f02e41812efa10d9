"""A live MongoDB server: reading collections and the oplog from it, loading them into it."""
