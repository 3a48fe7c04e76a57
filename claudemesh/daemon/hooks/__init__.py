"""Hooks: programs of the user that the daemon runs on events."""
