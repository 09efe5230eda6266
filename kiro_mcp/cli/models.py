"""`kiro-mcp models`: the models as a table."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from kiro_mcp.cli.session import connected, failed, run_command

PIPE_WIDTH = 1000
"""A pipe has no width to fit into: nothing may be cut off there."""


def run_models(*, offline: bool) -> int:
    """List the models and return the exit code."""

    async def command() -> int:
        async with connected(offline=offline) as client:
            result = await client.call_tool("list_models")
        if result.is_error:
            return failed(result)
        _print_table(result.structured_content)
        return 0

    return run_command(command)


def _print_table(listed: dict[str, Any]) -> None:
    table = Table("model", "context", "output", "rate", "thinking", box=None, pad_edge=False)
    for model in listed["models"]:
        table.add_row(
            model["id"],
            _tokens(model["context_window"]),
            _tokens(model["max_output_tokens"]),
            "" if model["rate_multiplier"] is None else f"{model['rate_multiplier']:g}",
            ", ".join(model["effort_levels"]) or model["thinking"],
        )
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)
    print(f"default {listed['default_model']} · {listed['source']} list", file=sys.stderr)
    for warning in listed["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)


def _tokens(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1_000_000:g}M" if count >= 1_000_000 else f"{count / 1000:g}K"
