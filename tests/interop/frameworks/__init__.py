"""Agent frameworks that others wrote, as clients of the server."""
