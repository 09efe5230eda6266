"""What `kiro-mcp doctor` prints: a table on a terminal, plain lines in a pipe, or JSON."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kiro_mcp.cli.doctor.checks import Check, exit_code_of, summary
from kiro_mcp.redaction import redact

_NAME_WIDTH: Final = 24
_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def print_report(checks: Sequence[Check], *, as_json: bool, console: Console) -> None:
    """Print the checks; whatever they say, nothing secret."""
    shown = [_redacted(check) for check in checks]
    if as_json:
        print(_json(shown))
    elif console.is_terminal:
        console.print(_table(shown))
        console.print(summary(shown), highlight=False)
    else:
        for check in shown:
            print(_lines(check))
        print(summary(shown))


def _redacted(check: Check) -> Check:
    return replace(
        check,
        found=redact(check.found),
        cure=redact(check.cure),
        details=tuple(redact(detail) for detail in check.details),
    )


def _json(checks: Sequence[Check]) -> str:
    report = {
        "exit_code": exit_code_of(checks),
        "checks": [
            {
                "name": check.name,
                "outcome": check.outcome,
                "found": check.found,
                "cure": check.cure,
                "details": list(check.details),
            }
            for check in checks
        ],
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


def _lines(check: Check) -> str:
    lines = [f"{check.outcome:<8} {check.name}: {check.found}"]
    lines += [f"{'':<8}   {detail}" for detail in check.details]
    if check.cure:
        lines.append(f"{'':<8}   → {check.cure}")
    return "\n".join(lines)


def _table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in checks:
        said = [escape(check.found), *(f"[dim]{escape(detail)}[/]" for detail in check.details)]
        if check.cure:
            said.append(f"→ {escape(check.cure)}")
        style = _STYLES[check.outcome]
        table.add_row(f"[{style}]{check.outcome}[/]", escape(check.name), "\n".join(said))
    return table
