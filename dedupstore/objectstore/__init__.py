"""Object stores: where a repository's objects lie. See `base` for the contract, `url` to open one."""
