"""The MCP clients that `kiro-mcp install` knows: where they keep servers, how that is edited.

Read top to bottom an installation is: `launch` (which command lasts) → `known` (which file, which
entry) → `documents` (JSON or TOML) → `files` (the only one that writes).
"""
