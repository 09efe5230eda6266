"""`kiro-mcp status`: shows who is signed in, with which credential and why, and the credits."""

import math
import sys
from collections.abc import Iterator
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from kiro_mcp.cli.output import SIGN_IN, harmless_json
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import is_terminal, say, show, tell, waiting
from kiro_mcp.errors import name_login_command

_NAME_COLUMNS: Final = 12
_BAR_COLUMNS: Final = 30
_WARNING_SHARE: Final = 0.9
"""From this share of used credits on, the bar is red."""


def run_status(*, as_json: bool, offline: bool) -> int:
    """Print the status and return the exit code: 0 signed in, 3 not."""

    async def command() -> int:
        with waiting("asking the service"):
            async with connected(offline=offline) as client:
                result = await client.call_tool("login", {"action": "status"})
        if result.is_error:
            return failed(result)
        status = result.structured_content
        if as_json:
            say(harmless_json(status))
        else:
            _print(status)
        return 0 if status["state"] == "signed_in" else SIGN_IN

    return run_command(command)


def _print(status: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, min_width=_NAME_COLUMNS)
    table.add_column(overflow="fold")  # Between words, where it is too long for a line.
    for name, value in _rows(status):
        table.add_row(name, Text(value))
        if name == "credits used" and is_terminal(sys.stdout):
            table.add_row("", _bar(status["credits"]))
    show(table)
    for warning in status.get("warnings", []):
        tell(f"warning: {warning}")


def _rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("state", "method", "account", "source", "expires_at", "region", "profile_arn"):
        if status.get(name):
            yield name.replace("_", " "), str(status[name])
    for index, source in enumerate(status.get("looked_at", [])):
        yield "" if index else "looked at", source
    if credits := status.get("credits"):
        yield "plan", credits.get("plan", "")
        yield "credits used", f"{_amount(credits.get('used'))} of {_amount(credits.get('limit'))}"
        yield "resets at", credits.get("resets_at", "")
    if status["state"] != "signed_in":
        yield "next", name_login_command(status["next_step"])


def _bar(credits: dict[str, Any]) -> Text:
    used, limit = credits.get("used", 0.0), credits.get("limit", 0.0)
    share = min(1.0, used / limit) if limit else 0.0
    full = math.ceil(share * _BAR_COLUMNS)
    bar = Text().append("█" * full, style="red" if share >= _WARNING_SHARE else "green")
    return bar.append("░" * (_BAR_COLUMNS - full)).append(f" {share:.0%}")


def _amount(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"
