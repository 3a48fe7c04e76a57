"""The member directory of each mesh: pages of the list, and changes sent to connections."""
