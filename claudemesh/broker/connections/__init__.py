"""The open connections of this broker: their registry, admission, and outbound queues."""
