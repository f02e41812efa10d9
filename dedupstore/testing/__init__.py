"""What tests of this package, and of plug-ins for it, are built from. Nothing in dedupstore imports it."""
