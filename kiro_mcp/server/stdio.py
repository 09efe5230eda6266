"""MCP over standard input and output, and an end to it that always comes.

The SDK's own runner hangs on SIGINT until its input closes, dies of SIGTERM without cleaning
up, and stays for ever when only its output is closed. This one ends within half a second of
any of: end of input, SIGINT, SIGTERM, a reader that went away; and always cleans up first.

While it serves, nothing but JSON-RPC reaches the wire: file descriptor 1 is stderr, and so is
`sys.stdout`, so that a stray `print` that is never flushed is not drained onto the wire when the
process ends.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import anyio
import anyio.to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from kiro_mcp.server.app import Deferred
from kiro_mcp.server.lines import LineReader, LineWriter

_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_CLOSED_OUTPUT = 0


async def serve_stdio(server: Server[Deferred]) -> int:
    """Serve until the client leaves or a signal comes; return the exit code of the process."""
    exit_code = 0

    def end(code: int) -> None:
        nonlocal exit_code
        exit_code = code
        tasks.cancel_scope.cancel()

    wire_in = _take(0, instead=os.open(os.devnull, os.O_RDONLY))
    wire_out = _take(1, instead=_stderr())
    sys.stdout = sys.stderr
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_on_signal, end)
        tasks.start_soon(_end_on_closed_output, wire_out, end)
        with suppress(BrokenPipeError):
            async with stdio_server(
                stdin=cast("anyio.AsyncFile[str]", LineReader(wire_in)),
                stdout=cast("anyio.AsyncFile[str]", LineWriter(wire_out)),
            ) as streams:
                await server.run(*streams, server.create_initialization_options())
        tasks.cancel_scope.cancel()
    return exit_code


def _take(fd: int, *, instead: int) -> int:
    """Return a private duplicate of a standard descriptor, and put something else in its place.

    So no library and no child process can eat the client's messages, or write among ours.
    """
    private = os.dup(fd)
    os.dup2(instead, fd)
    os.close(instead)
    return private


def _stderr() -> int:
    try:
        return os.dup(2)
    except OSError:  # Started without one.
        return os.open(os.devnull, os.O_WRONLY)


async def _end_on_signal(end: Callable[[int], None]) -> None:
    if sys.platform == "win32":
        return  # There are no signal handlers in event loops there; the default one ends us.
    with anyio.open_signal_receiver(*_EXIT_CODES) as signals:
        async for number in signals:
            end(_EXIT_CODES[number])


async def _end_on_closed_output(wire_out: int, end: Callable[[int], None]) -> None:
    """Notice a reader that went away at once, and not at the next answer, which may never be."""
    if not hasattr(select, "poll"):
        return  # Windows: the next write tells.
    await anyio.to_thread.run_sync(_wait_until_closed, wire_out, abandon_on_cancel=True)
    end(_CLOSED_OUTPUT)


def _wait_until_closed(fd: int) -> None:
    watched = select.poll()
    watched.register(fd, 0)  # Errors and hang-ups are reported without being asked for.
    watched.poll()
