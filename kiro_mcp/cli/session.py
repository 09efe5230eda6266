"""Shared by the commands: an MCP client of our server in this process, signals and exit codes."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from threading import Timer
from typing import Any, Final, cast

import anyio
import mcp_types as types
from mcp.client import Client
from mcp.client.session import MessageHandlerFnT

from kiro_mcp.cli.output import CODES, INTERRUPTED, REFUSED, end_process
from kiro_mcp.cli.serve import run, server_for, service_environ
from kiro_mcp.cli.terminal import StderrHandler, tell, tell_error
from kiro_mcp.errors import KiroError, name_login_command
from kiro_mcp.server.results import ERROR_META_KEY

ENDING_SECONDS: Final = 0.5
"""How long an interrupted command may take to end."""


def run_command(
    command: Callable[[], Awaitable[int]], *, ending_seconds: float = ENDING_SECONDS
) -> int:
    """Run a command, print the error that it raises, and return its exit code.

    Ctrl-C ends it, without a traceback: at once, or after what it has to close, for which it has at
    most `ending_seconds`.
    """
    code = run(partial(_until_signalled, command, ending_seconds), StderrHandler())
    if code == INTERRUPTED:
        tell("Interrupted.")
    return code


async def _until_signalled(command: Callable[[], Awaitable[int]], ending_seconds: float) -> int:
    code = 0

    def end(signalled: int) -> None:
        nonlocal code
        code = signalled
        scope.cancel()
        _end_after(ending_seconds, signalled)  # Cancelled tasks close their connections first.

    with anyio.CancelScope() as scope:
        if sys.platform != "win32":  # There, event loops have no signal handlers.
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell's exit code for a program that a signal ended.
                asyncio.get_running_loop().add_signal_handler(number, end, 128 + number)
        try:
            code = await command()
        except Exception as error:
            # After Ctrl-C, an error only says what was closed.
            if not scope.cancel_called:
                if not isinstance(error, KiroError):
                    raise
                code = tell_error(error)
    if scope.cancel_called:
        _end_after(ENDING_SECONDS, code)
    return code


def _end_after(seconds: float, code: int) -> None:
    """End the process, if it has not ended by then.

    A thread that looks up a host, or that prints to a reader who does not read, cannot be
    cancelled, and the event loop would wait for it.
    """
    last_resort = Timer(seconds, end_process, [code])
    last_resort.daemon = True
    last_resort.start()


@asynccontextmanager
async def connected(
    *, offline: bool, on_message: MessageHandlerFnT | None = None
) -> AsyncGenerator[Client]:
    """Connect a client to our server, which uses the service or an emulator.

    Args:
        offline: Whether to start an emulator and use it.
        on_message: Called with the server's notifications.
    """
    async with (
        service_environ(offline=offline) as environ,
        Client(server_for(environ), mode="2026-07-28", message_handler=on_message) as client,
    ):
        yield client


def failed(result: types.CallToolResult) -> int:
    """Print an error result to stderr and return the exit code for its error code."""
    block = result.content[0]
    assert isinstance(block, types.TextContent)
    tell(name_login_command(block.text))
    facts = cast("dict[str, Any]", (result.meta or {}).get(ERROR_META_KEY, {}))
    return CODES.get(facts.get("code", ""), REFUSED)
