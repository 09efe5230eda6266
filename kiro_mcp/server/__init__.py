"""The MCP side: three tools, what they answer, and how the server is run."""
