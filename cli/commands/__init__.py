"""One module a command, imported only when that command runs; ``app.COMMANDS`` is the table."""
