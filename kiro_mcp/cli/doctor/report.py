"""What `kiro-mcp doctor` found, as a terminal's table, as a pipe's lines, or as JSON. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from rich.table import Table
from rich.text import Text

from kiro_mcp.cli.doctor.checks import Check, exit_code_of
from kiro_mcp.cli.harmless import harmless_json
from kiro_mcp.redaction import redact

_NAME_WIDTH: Final = 24
_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def redacted(check: Check) -> Check:
    """Return a check that may be shown: whatever it says, nothing secret."""
    return replace(
        check,
        found=redact(check.found),
        cure=redact(check.cure),
        details=tuple(redact(detail) for detail in check.details),
    )


def as_json(checks: Sequence[Check]) -> str:
    """Return the checks for programs."""
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
    return harmless_json(report)


def as_lines(checks: Sequence[Check]) -> Iterator[str]:
    """Yield the lines for a pipe."""
    for check in checks:
        yield f"{check.outcome:<8} {check.name}: {check.found}"
        yield from (f"{'':<8}   {detail}" for detail in check.details)
        if check.cure:
            yield f"{'':<8}   → {check.cure}"


def as_table(checks: Sequence[Check]) -> Table:
    """Return the table for a terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in checks:
        said = Text(check.found)
        for detail in check.details:
            said.append(f"\n{detail}", style="dim")
        if check.cure:
            said.append(f"\n→ {check.cure}")
        table.add_row(Text(check.outcome, style=_STYLES[check.outcome]), check.name, said)
    return table
