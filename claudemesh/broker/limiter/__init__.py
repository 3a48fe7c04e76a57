"""How much a mesh may send."""
