"""Files of this host: their layout, the membership, and the keys. No event loop and no broker."""
