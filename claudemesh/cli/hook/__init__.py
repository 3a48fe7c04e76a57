"""`claudemesh hook`: commands that the hooks of agents' clients run."""
