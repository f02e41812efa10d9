"""The verb that writes collections out again: to a dump folder, an archive or a server."""
