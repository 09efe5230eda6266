"""MCP over Streamable HTTP and legacy SSE."""
