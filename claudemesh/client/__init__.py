"""What the CLI and programs use: the daemon's socket, the broker's HTTP routes, the files of a membership."""
