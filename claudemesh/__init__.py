"""claudemesh: a durable, sealed messaging mesh for AI coding sessions, servers and CI jobs."""

__version__ = "0.1.0"
