"""A caller's JSON Schema for a tool, made into what the service accepts."""
