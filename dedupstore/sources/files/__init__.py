"""Files of this machine, with all that a file system keeps about them."""
