"""Where the things to back up come from: files, commands; each kind a package of its own."""
