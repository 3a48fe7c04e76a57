"""Presence: leases in the store, the roster of each mesh, and its announcements."""
