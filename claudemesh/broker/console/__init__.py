"""The console of a broker: the files of its web page."""
