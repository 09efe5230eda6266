"""A command run on a terminal of its own, typed to and read as a person would."""

import fcntl
import os
import re
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from subprocess import PIPE
from types import MappingProxyType

import anyio
import anyio.lowlevel
from anyio.abc import Process

from tests.support.stdio import COMMAND, environment

CTRL_C = b"\x03"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"

_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)  # Ctrl-C becomes a signal only for whom the terminal is.
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """The process, and all that it wrote to its terminal."""

    def __init__(self, process: Process, fd: int) -> None:
        self.process = process
        self.seen = ""
        self._fd = fd

    @property
    def words(self) -> str:
        """What it wrote, without what steers a terminal, and with plain ends of lines."""
        return re.sub(r" *\r\n", "\n", _ESCAPES.sub("", self.seen))

    async def until(self, words: str) -> None:
        """Read until it has written this."""
        while words not in self.words:
            assert await self._read(), f"{words!r} never came: {self.seen!r}"

    async def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._fd, keys)
        await anyio.lowlevel.checkpoint()

    async def end(self) -> int:
        """Read to the end and return the exit code."""
        while await self._read():
            pass
        return await self.process.wait()

    async def _read(self) -> bool:
        await anyio.wait_readable(self._fd)
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # So Linux says that nobody has the terminal open any more.
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@asynccontextmanager
async def on_terminal(
    *arguments: str,
    stdout: bool = True,
    columns: int = 100,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> AsyncGenerator[Screen]:
    """Run a command on a terminal, and make sure that it is gone in the end.

    Args:
        *arguments: The command's.
        stdout: Whether its standard output is the terminal, too; else it is a pipe.
        columns: The width of the terminal.
        environ: Environment variables.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = await anyio.open_process(
        [sys.executable, "-c", _TAKE_TERMINAL, *COMMAND[1:], *arguments],
        stdin=theirs,
        stdout=theirs if stdout else PIPE,
        stderr=theirs,
        start_new_session=True,
        env=environment(**{"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "", **environ}),
    )
    os.close(theirs)
    async with process:
        try:
            yield Screen(process, ours)
        finally:
            if process.returncode is None:
                process.kill()
            os.close(ours)
