"""Claude for any MCP client, through the user's own Kiro subscription."""

__version__ = "0.1.0"
