"""MCP over standard input and output, and an end to it that always comes.

The SDK's own runner hangs on SIGINT until its input closes, dies of SIGTERM without cleaning
up, and stays for ever when only its output is closed. This one ends within half a second of
any of: end of input, SIGINT, SIGTERM, a reader that went away; and always cleans up first.

While it serves, nothing but JSON-RPC reaches the wire: the SDK moves file descriptor 1 to
stderr, and `sys.stdout` is stderr here, so that a stray `print` that is never flushed is not
drained onto the wire when the process ends.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import cast

import anyio
import anyio.to_thread
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from kiro_mcp.server.app import Deferred

MAX_LINE_BYTES = 192 * 1024 * 1024
"""The longest message that is read: ten images of 10 MB in base64, and room for the rest."""

_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_CLOSED_OUTPUT = 0


class LineReader:
    """Lines of standard input, read in a thread that cancellation leaves behind."""

    def __init__(self, buffer: BufferedReader) -> None:
        self._buffer = buffer

    def __aiter__(self) -> "LineReader":
        return self

    async def __anext__(self) -> str:
        """Return the next line, decoded; bytes that are not UTF-8 become U+FFFD."""
        line = await anyio.to_thread.run_sync(self._readline, abandon_on_cancel=True)
        if not line:
            raise StopAsyncIteration
        return line.decode("utf-8", errors="replace")

    def _readline(self) -> bytes:
        line = self._buffer.readline(MAX_LINE_BYTES)
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            return line
        # Too long to be a message of ours: drop the rest of it; the SDK drops this part.
        while line and not line.endswith(b"\n"):
            line = self._buffer.readline(MAX_LINE_BYTES)
        return b"\n"


async def serve_stdio(server: Server[Deferred]) -> int:
    """Serve until the client leaves or a signal comes; return the exit code of the process."""
    exit_code = 0

    def end(code: int) -> None:
        nonlocal exit_code
        exit_code = code
        tasks.cancel_scope.cancel()

    wire_out = os.dup(1)
    wire_in = _take_stdin()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_on_signal, end)
        tasks.start_soon(_end_on_closed_output, wire_out, end)
        with suppress(BrokenPipeError):
            async with stdio_server(stdin=cast("anyio.AsyncFile[str]", wire_in)) as streams:
                sys.stdout = sys.stderr  # Only now: the SDK takes the wire from sys.stdout.
                await server.run(*streams, server.create_initialization_options())
        tasks.cancel_scope.cancel()
    return exit_code


def _take_stdin() -> LineReader:
    """Read from a private duplicate; what is left as standard input is at its end.

    So a child process, or a library that reads standard input, cannot eat the client's messages.
    """
    private = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return LineReader(os.fdopen(private, "rb"))


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
