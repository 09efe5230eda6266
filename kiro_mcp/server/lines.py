"""Lines over file descriptors, without a thread where the system can say that they are ready.

A message in and one out would take three trips to a worker thread otherwise, which is a quarter
of what a short call costs. Pipes and sockets can be waited for; a terminal, a regular file, and
anything on Windows is read and written in a thread. The descriptors stay in blocking mode,
because they may be shared with other processes: nothing is read or written that was not
announced to be possible at once.
"""

import os
import select
import stat
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.client.off_loop import off_loop
from kiro_mcp.server.faststart import CHUNK_BYTES, PIECE_BYTES, Handover, LineSplitter, decode

_LARGE_LINE_BYTES: Final = 256 * 1024


class LineReader:
    """The lines of a file descriptor, decoded; what is no Unicode text becomes U+FFFD.

    A line that the SDK cannot parse is never answered, and half a character is no reason for that.
    """

    def __init__(self, fd: int, handover: Handover | None = None) -> None:
        """Take the descriptor, and what the fast start has read from it before."""
        self._fd = fd
        self._can_wait = can_wait_for(fd)
        self._splitter = handover.splitter if handover else LineSplitter()
        self._lines = handover.lines[::-1] if handover else []
        self._is_ended = False

    def __aiter__(self) -> "LineReader":
        return self

    async def __anext__(self) -> str:
        """Return the next line, and a last one without an end as it is."""
        while not self._lines:
            if self._is_ended:
                raise StopAsyncIteration
            await self._read()
        line = self._lines.pop()
        return await off_loop(lambda: decode(line), is_large=len(line) > _LARGE_LINE_BYTES)

    async def _read(self) -> None:
        if self._can_wait:
            await anyio.wait_readable(self._fd)
            chunk = os.read(self._fd, CHUNK_BYTES)
        else:
            chunk = await anyio.to_thread.run_sync(
                os.read, self._fd, CHUNK_BYTES, abandon_on_cancel=True
            )
        if chunk:
            self._lines = self._splitter.feed(chunk)[::-1]
            return
        self._is_ended = True
        if rest := self._splitter.rest():
            self._lines = [rest]


class LineWriter:
    """Writes text to a file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._can_wait = can_wait_for(fd)
        if self._can_wait:
            self._ready = select.poll()
            self._ready.register(fd, select.POLLOUT)

    async def write(self, text: str) -> None:
        """Write it all.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        left = memoryview(text.encode())
        while left:
            left = left[await self._write_some(left) :]

    async def flush(self) -> None:
        """Do nothing: what was written is on its way."""

    async def _write_some(self, data: memoryview) -> int:
        if not self._can_wait:
            return await anyio.to_thread.run_sync(os.write, self._fd, data)
        if not self._ready.poll(0):
            await anyio.wait_writable(self._fd)
        return os.write(self._fd, data[:PIECE_BYTES])


def can_wait_for(fd: int) -> bool:
    """Say whether an event loop can wait until a file descriptor is ready."""
    if not hasattr(select, "poll"):
        return False  # Windows.
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
