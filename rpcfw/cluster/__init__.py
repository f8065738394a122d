"""A fleet as one handler: nodes found by a registry, watched by heartbeats, and one of them picked for each call."""
