"""The WebSocket side of a broker: listener, handshake, and one connection from challenge to close."""
