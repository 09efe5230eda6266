"""`kiro-mcp login` and `logout`: the device flow on a terminal."""

import os
import sys
import tempfile
import webbrowser
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio.to_thread
from rich.panel import Panel
from rich.text import Text

from kiro_mcp.auth.device_flow import DeviceLogin, Method
from kiro_mcp.auth.sign_in import sign_in_status
from kiro_mcp.cli.serve import offline_environ
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import is_terminal, say, show, tell, tell_error, waiting
from kiro_mcp.emulator import running
from kiro_mcp.errors import InternalFault, KiroError
from kiro_mcp.server.engine import Engine

_HOUR_SECONDS = 3600.0
"""Longer than any code is valid, so the login itself ends first and gives the reason."""


def run_login(
    method: Method, *, start_url: str, region: str, opens_browser: bool, offline: bool
) -> int:
    """Sign in and return the exit code."""

    async def command() -> int:
        try:
            async with _engine(offline=offline) as engine:
                login = await engine.sign_in.start(
                    method, start_url=start_url, region=region or engine.settings.region
                )
                await _show(login, opens_browser=opens_browser and not offline)
                with waiting("waiting for you to allow it in the browser"):
                    state = await engine.sign_in.wait(_HOUR_SECONDS)
                if state.state != "done":
                    raise state.error or InternalFault("The login ended without a result.")
                return await _report(engine)
        except KiroError as error:
            return tell_error(error)

    return run_command(command)


def run_logout() -> int:
    """Delete our own login and return the exit code."""

    async def command() -> int:
        async with connected(offline=False) as client:
            result = await client.call_tool("login", {"action": "logout"})
        if result.is_error:
            return failed(result)
        say(result.structured_content["next_step"])
        return 0

    return run_command(command)


@asynccontextmanager
async def _engine(*, offline: bool) -> AsyncGenerator[Engine]:
    """Make an engine for the service, or for an emulator and a temporary store."""
    async with AsyncExitStack() as stack:
        environ: Mapping[str, str] = dict(os.environ)
        if offline:
            emulator = await stack.enter_async_context(running())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kiro-mcp-"))
            environ = {**offline_environ(os.environ, emulator.url), "KIRO_MCP_HOME": folder}
        yield await stack.enter_async_context(Engine.from_environ(environ))


async def _show(login: DeviceLogin, *, opens_browser: bool) -> None:
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
    if opens_browser and _has_browser(os.environ):
        await anyio.to_thread.run_sync(_open_browser, login.verification_url)


def _has_browser(environ: Mapping[str, str]) -> bool:
    """Whether a browser opens in a window, and not as a program in this terminal."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform in ("darwin", "win32") or any(environ.get(name) for name in names)


def _open_browser(url: str) -> None:
    with suppress(webbrowser.Error):  # No browser is installed; the URL has been printed.
        webbrowser.open(url)


async def _report(engine: Engine) -> int:
    """Print who is signed in; return the exit code."""
    found = await sign_in_status(engine.tokens)
    if not found.is_signed_in and found.problem:
        return tell_error(found.problem)
    plan = f", {found.credits.plan}" if found.credits.plan else ""
    say(f"Signed in as {found.account}{plan}.")
    if not found.is_usable:
        tell(f"warning: {found.problem}")
    used = found.credential
    if used and used.origin != "own":
        tell(f"warning: {used.source} is set and is used instead of this login.")
    return 0
