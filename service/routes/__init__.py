"""The HTTP routes, a thin file a concern."""
