"""Sessions of this host: registration, leases, names, and the messages that each is given."""
