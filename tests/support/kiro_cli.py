"""The stand-in for the vendor's program, as a setting."""

import sys


def stand_in(*scenes: str, dialect: str = "v3", options: str = "") -> str:
    """Return the command line of the stand-in, for KIRO_MCP_KIRO_CLI."""
    chosen = "".join(f" --scene {scene}" for scene in scenes)
    program = f"{sys.executable} -m kiro_mcp.emulator.kiro_cli"
    return f"{program} --dialect {dialect}{chosen} {options}".strip()
