"""The command line: one file per command, each a function over `client`."""
