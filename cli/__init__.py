"""The command line of dedupstore: it parses, asks the library, and shows. Installed as ``dstore_cli``."""
