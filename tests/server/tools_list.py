"""What `tools/list` answers, kept as a file: `python -m tests.server.tools_list` writes it anew."""

import json
from pathlib import Path
from typing import Any

import mcp_types as types

from kiro_mcp.server.tools import declarations

FILE = Path(__file__).with_suffix(".json")


def listed() -> dict[str, Any]:
    """Return the result as it goes over the wire."""
    return types.ListToolsResult(tools=declarations()).model_dump(
        mode="json", by_alias=True, exclude_none=True, include={"tools"}
    )


def text() -> str:
    """Return it as the file has it, so that a change reads well in a diff."""
    return json.dumps(listed(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_bytes(text().encode())
