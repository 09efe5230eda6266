"""The MCP clients that `kiro-mcp install` knows, and how it edits their configuration.

An installation runs through: `launch` (which command to start) → `known` (which file, which entry)
→ `documents` (the edit, in JSON or TOML) → `files` (the only module that writes).
"""
