"""`claudemesh mcp`: the tools of a mesh for an agent, over the Model Context Protocol."""
