"""`kiro-mcp status`: who is signed in, from where and why, and what is left of the plan."""

import json
import sys
from typing import Any

from rich.console import Console

from kiro_mcp.cli.session import connected, failed, run_command

_SIGNED_OUT = 3


def run_status(*, as_json: bool, offline: bool) -> int:
    """Print the status and return the exit code: 0 signed in, 3 not."""

    async def command() -> int:
        async with connected(offline=offline) as client:
            with Console(stderr=True).status("Asking the service …"):
                result = await client.call_tool("login", {"action": "status"})
        if result.is_error:
            return failed(result)
        status = result.structured_content
        if as_json:
            print(json.dumps(status, indent=2, ensure_ascii=False))
        else:
            _print(status)
        return 0 if status["state"] == "signed_in" else _SIGNED_OUT

    return run_command(command)


def _print(status: dict[str, Any]) -> None:
    for name, value in _rows(status):
        print(f"{name:<14}{value}")
    for place in status.get("looked_at", []):
        print(f"looked at: {place}", file=sys.stderr)
    for warning in status.get("warnings", []):
        print(f"warning: {warning}", file=sys.stderr)


def _rows(status: dict[str, Any]) -> list[tuple[str, str]]:
    names = ("state", "method", "account", "source", "expires_at", "region", "profile_arn")
    rows = [(name.replace("_", " "), str(status[name])) for name in names if status.get(name)]
    if credits := status.get("credits"):
        rows.append(("plan", credits["plan"]))
        rows.append(("credits used", f"{_amount(credits['used'])} of {_amount(credits['limit'])}"))
        rows.append(("resets at", credits["resets_at"]))
    return [*rows, ("next", status["next_step"])]


def _amount(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"
