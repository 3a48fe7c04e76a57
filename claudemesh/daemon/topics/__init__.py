"""Topics and queues of the mesh, and this host's subscriptions."""
