"""Real clients of agents, driven on a pseudo-terminal against a stub of their vendor's API."""
