"""What every command shares: a real MCP client on our server in this process, and exit codes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from threading import Timer
from typing import Any, Final, cast

import anyio
import mcp_types as types
from mcp.client import Client
from mcp.client.session import MessageHandlerFnT

from kiro_mcp.cli.output import CODES, INTERRUPTED, REFUSED, TERMINATED
from kiro_mcp.cli.serve import collect_from_here_on, log_to, server_for, service_environ
from kiro_mcp.cli.terminal import TellingHandler, tell
from kiro_mcp.client.telemetry import flush_telemetry
from kiro_mcp.server.results import ERROR_META_KEY

ENDING_SECONDS: Final = 0.5
"""How long the end of an interrupted command may take."""

_SIGNALS: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def run_command(command: Callable[[], Awaitable[int]]) -> int:
    """Run a command to its exit code; Ctrl-C ends it at once, and without a traceback."""
    log_to(TellingHandler(), os.environ)
    collect_from_here_on()
    try:
        code = anyio.run(_until_signalled, command)
    except KeyboardInterrupt:  # Where event loops have no signal handlers, which is Windows.
        code = INTERRUPTED
    finally:
        flush_telemetry()  # The process ends without exit handlers, which would do so.
    if code == INTERRUPTED:
        tell("Interrupted.")
    return code


async def _until_signalled(command: Callable[[], Awaitable[int]]) -> int:
    code = 0

    def end(signalled: int) -> None:
        nonlocal code
        code = signalled
        scope.cancel()
        # What is cancelled closes its connections on its way out. A thread that looks up a host,
        # or prints to nobody who reads, cannot be, and the loop would wait for it.
        last_resort = Timer(ENDING_SECONDS, os._exit, [signalled])
        last_resort.daemon = True
        last_resort.start()

    with anyio.CancelScope() as scope, _signals_to(end):
        code = await command()
    return code


@contextmanager
def _signals_to(end: Callable[[int], None]) -> Generator[None]:
    """Call `end` with the exit code that a signal stands for."""
    if sys.platform == "win32":
        yield  # Event loops have no signal handlers there.
        return
    loop = asyncio.get_running_loop()
    for number, code in _SIGNALS.items():
        loop.add_signal_handler(number, end, code)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def connected(
    *, offline: bool, on_message: MessageHandlerFnT | None = None
) -> AsyncGenerator[Client]:
    """Connect a client to our server, and that to the service or to an emulator of it.

    Args:
        offline: Whether to start an emulator and use that.
        on_message: Called with what the server says besides its answers.
    """
    async with AsyncExitStack() as stack:
        environ = await stack.enter_async_context(service_environ(offline=offline))
        client = Client(server_for(environ), mode="2026-07-28", message_handler=on_message)
        yield await stack.enter_async_context(client)


def failed(result: types.CallToolResult) -> int:
    """Print an error result to stderr and return the exit code that its code has."""
    tell(text_of(result))
    facts = cast("dict[str, Any]", (result.meta or {}).get(ERROR_META_KEY, {}))
    return CODES.get(facts.get("code", ""), REFUSED)


def text_of(result: types.CallToolResult) -> str:
    """Return the first block of a result, which is its text."""
    block = result.content[0]
    assert isinstance(block, types.TextContent)
    return block.text
