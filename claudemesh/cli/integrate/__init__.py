"""`claudemesh integrate`: the configuration of agents' clients, written and restored."""
