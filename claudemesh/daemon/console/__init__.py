"""The console of a daemon: the files of its web page."""
