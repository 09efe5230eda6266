"""`kiro-mcp models`: prints the models as a table."""

from typing import Any, Final

from rich.table import Table

from kiro_mcp.cli.output import harmless_json
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import say, show, tell, waiting

_LEGEND: Final = (
    "window, output: limits in tokens.",
    "rate: credits that a request costs, as a multiple of a model with rate 1.",
    "efforts: values of --effort. tags: --effort makes the model think in its text. none: it has"
    " no effort to choose.",
    "long prompts: the rate of prompts with more tokens than that.",
)


def run_models(*, as_json: bool, offline: bool) -> int:
    """List the models and return the exit code."""

    async def command() -> int:
        with waiting("asking the service"):
            async with connected(offline=offline) as client:
                result = await client.call_tool("list_models")
        if result.is_error:
            return failed(result)
        if as_json:
            say(harmless_json(result.structured_content))
        else:
            _show(result.structured_content)
        return 0

    return run_command(command)


def _show(listed: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)  # People copy the id.
    for name in ("window", "output", "rate"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("efforts", "input", "long prompts"):
        table.add_column(name, overflow="fold")
    for model in listed["models"]:
        table.add_row(
            model["id"],
            _tokens(model.get("context_window")),
            _tokens(model.get("max_output_tokens")),
            _rate(model.get("rate_multiplier")),
            ", ".join(model.get("effort_levels", [])) or model["thinking"],
            ", ".join(model.get("input_types", [])).lower(),
            _higher_rate(model.get("higher_rate")),
        )
    show(table)
    for line in _LEGEND:
        tell(line, style="dim")
    tell(f"default {listed['default_model']} · {listed['source']} list", style="dim")
    for warning in listed.get("warnings", []):
        tell(f"warning: {warning}")


def _rate(multiplier: float | None) -> str:
    return "" if multiplier is None else f"{multiplier:g}"


def _higher_rate(higher: dict[str, Any] | None) -> str:
    """Write the rate of long prompts: `0.3 above 100K`."""
    if higher is None:
        return ""
    return f"{_rate(higher['rate_multiplier'])} above {_tokens(higher['above_tokens'])}"


def _tokens(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1_000_000:g}M" if count >= 1_000_000 else f"{count / 1000:g}K"
