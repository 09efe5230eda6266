"""The MCP clients that `kiro-mcp install` knows, and how it edits their configuration.

::

    launch (which command) ─▶ known (which file, which entry) ─▶ config_file (read, replace)
                                                                     │
                                                                   edits (JSON, TOML, YAML)
"""
