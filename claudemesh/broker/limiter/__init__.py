"""Rate limits of meshes and members."""
