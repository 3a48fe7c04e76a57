"""The WebSocket to the broker."""
