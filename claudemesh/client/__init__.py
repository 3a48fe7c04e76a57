"""Clients of the daemon's socket and of the broker's HTTP routes."""
