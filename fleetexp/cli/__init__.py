"""The command line: options in, lines and exit codes out. May import everything; nothing imports it."""
