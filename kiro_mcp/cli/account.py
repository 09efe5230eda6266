"""`kiro-mcp login`, `logout`, `status` and `models`: what concerns the user's account."""

import math
import os
import sys
import webbrowser
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio.to_thread
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kiro_mcp.auth.oidc import DeviceLogin, Method
from kiro_mcp.auth.sign_in import sign_in_status
from kiro_mcp.cli.output import SIGN_IN, harmless_json
from kiro_mcp.cli.serve import service_environ
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import is_terminal, say, show, tell, waiting
from kiro_mcp.errors import InternalFault, name_login_command
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.login import left_to_program

# --- login, logout --------------------------------------------------------------------------------


_HOUR_SECONDS: Final = 3600.0
"""Longer than any code is valid, so the login itself ends first and gives the reason."""


def run_login(
    method: Method, *, start_url: str, region: str, opens_browser: bool, offline: bool
) -> int:
    """Sign in and return the exit code."""

    async def command() -> int:
        async with AsyncExitStack() as stack:
            environ = await stack.enter_async_context(service_environ(offline=offline))
            if offline:  # The emulator's key would be used instead of the new login.
                folder = stack.enter_context(TemporaryDirectory(prefix="kiro-mcp-"))
                environ = {**environ, "KIRO_API_KEY": "", "KIRO_MCP_HOME": folder}
            engine = await stack.enter_async_context(Engine.from_environ(environ))
            if engine.program:
                raise left_to_program("start")
            login = await engine.sign_in.start(
                method, start_url=start_url, region=region or engine.settings.region
            )
            await _show_code(login, opens_browser=opens_browser and not offline)
            with waiting("waiting for you to allow it in the browser"):
                state = await engine.sign_in.wait(_HOUR_SECONDS)
            if state.state != "done":
                raise state.error or InternalFault("The login ended without a result.")
            found = await sign_in_status(engine.tokens)
        if not found.is_signed_in and found.problem:
            raise found.problem
        plan = f", {found.credits.plan}" if found.credits.plan else ""
        say(f"Signed in as {found.account}{plan}.")
        if not found.is_usable:
            tell(f"warning: {found.problem}")
        used = found.resolution.credential
        if used and used.origin != "own":
            tell(f"warning: {used.source} is set and is used instead of this login.")
        return 0

    return run_command(command)


def run_logout() -> int:
    """Delete our own login and return the exit code."""
    return _run_tool("login", {"action": "logout"}, lambda answer: say(answer["next_step"]))


def _run_tool(
    tool: str,
    arguments: dict[str, str],
    show_it: Callable[[dict[str, Any]], None],
    *,
    as_json: bool = False,
    offline: bool = False,
) -> int:
    """Call a tool of our server, show its result, and return the exit code: 3 for no login."""

    async def command() -> int:
        with waiting("asking the service"):
            async with connected(offline=offline) as client:
                result = await client.call_tool(tool, arguments)
        if result.is_error:
            return failed(result)
        answer = result.structured_content
        if as_json:
            say(harmless_json(answer))
        else:
            show_it(answer)
        is_signed_out = arguments.get("action") == "status" and answer["state"] != "signed_in"
        return SIGN_IN if is_signed_out else 0

    return run_command(command)


async def _show_code(login: DeviceLogin, *, opens_browser: bool) -> None:
    if login.plan.is_social:
        tell("Note: this sign-in uses an undocumented service of Kiro.")
    if not is_terminal(sys.stdout):
        say(f"Open  {login.verification_url}")
        say(f"Code  {login.user_code}")
        return
    show(Text("Open  ").append(login.verification_url, style="underline"))
    if login.user_code:
        code = Text(login.user_code, style="bold")
        show(Panel.fit(code, padding=(1, 4), title="the page must show this code"))
    # Without one of these, a browser would be a program in this terminal, and not in a window.
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    has_window = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in names)
    if opens_browser and has_window:
        with suppress(webbrowser.Error):  # No browser is installed; the URL has been printed.
            await anyio.to_thread.run_sync(webbrowser.open, login.verification_url)


# --- status ---------------------------------------------------------------------------------------


_NAME_COLUMNS: Final = 12
_BAR_COLUMNS: Final = 30
_WARNING_SHARE: Final = 0.9
"""From this share of used credits on, the bar is red."""


def run_status(*, as_json: bool, offline: bool) -> int:
    """Print the status and return the exit code: 0 signed in, 3 not."""
    arguments = {"action": "status"}
    return _run_tool("login", arguments, _show_status, as_json=as_json, offline=offline)


def _show_status(status: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, min_width=_NAME_COLUMNS)
    table.add_column(overflow="fold")  # Between words, where it is too long for a line.
    for name in ("state", "method", "account", "source", "expires_at", "region", "profile_arn"):
        if status.get(name):
            table.add_row(name.replace("_", " "), str(status[name]))
    for index, source in enumerate(status.get("looked_at", [])):
        table.add_row("" if index else "looked at", source)
    if credits := status.get("credits"):
        used, limit = credits.get("used"), credits.get("limit")
        table.add_row("plan", credits.get("plan", ""))
        table.add_row("credits used", f"{_number(used, '?')} of {_number(limit, '?')}")
        if is_terminal(sys.stdout):
            share = min(1.0, (used or 0.0) / limit) if limit else 0.0
            full = math.ceil(share * _BAR_COLUMNS)
            bar = Text().append("█" * full, style="red" if share >= _WARNING_SHARE else "green")
            bar.append("░" * (_BAR_COLUMNS - full)).append(f" {share:.0%}")
            table.add_row("", bar)
        table.add_row("resets at", credits.get("resets_at", ""))
    if status["state"] != "signed_in":
        table.add_row("next", name_login_command(status["next_step"]))
    show(table)
    for warning in status.get("warnings", []):
        tell(f"warning: {warning}")


# --- models ---------------------------------------------------------------------------------------


_LEGEND: Final = (
    "window, output: limits in tokens.",
    "rate: credits that a request costs, as a multiple of a model with rate 1.",
    "efforts: values of --effort. tags: --effort makes the model think in its text. none: it has"
    " no effort to choose.",
    "long prompts: the rate of prompts with more tokens than that.",
)


def run_models(*, as_json: bool, offline: bool) -> int:
    """List the models and return the exit code."""
    return _run_tool("list_models", {}, _show_models, as_json=as_json, offline=offline)


def _show_models(listed: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)  # People copy the id.
    for name in ("window", "output", "rate"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("efforts", "input", "long prompts"):
        table.add_column(name, overflow="fold")
    for model in listed["models"]:
        higher = model.get("higher_rate")
        table.add_row(
            model["id"],
            _tokens(model.get("context_window")),
            _tokens(model.get("max_output_tokens")),
            _number(model.get("rate_multiplier")),
            ", ".join(model.get("effort_levels", [])) or model["thinking"],
            ", ".join(model.get("input_types", [])).lower(),
            f"{_number(higher['rate_multiplier'])} above {_tokens(higher['above_tokens'])}"
            if higher
            else "",
        )
    show(table)
    for line in _LEGEND:
        tell(line, style="dim")
    tell(f"default {listed['default_model']} · {listed['source']} list", style="dim")
    for warning in listed.get("warnings", []):
        tell(f"warning: {warning}")


def _number(value: float | None, unknown: str = "") -> str:
    return unknown if value is None else f"{value:g}"


def _tokens(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1_000_000:g}M" if count >= 1_000_000 else f"{count / 1000:g}K"
