"""A lock that other processes see: one file, held by the operating system until its holder ends.

It cannot go stale: when a process is killed, the system lets go of it. The file itself stays;
removing it would let two processes hold two files of one name.
"""

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.errors import ServiceUnavailable

RETRY_SECONDS: Final = 0.02
"""How long a waiter sleeps between two tries; a refresh takes a few hundred milliseconds."""

Sleep = Callable[[float], Awaitable[object]]


@asynccontextmanager
async def locked(
    path: Path, *, timeout_seconds: float, sleep: Sleep = anyio.sleep
) -> AsyncGenerator[None]:
    """Hold the lock of a file while the block runs.

    Raises:
        ServiceUnavailable: Another process has held it for the whole time.
        OSError: The file cannot be made.
    """
    handle = await anyio.to_thread.run_sync(_open, path)
    try:
        with anyio.move_on_after(timeout_seconds) as scope:
            while not _try_lock(handle):
                await sleep(RETRY_SECONDS)
        if scope.cancelled_caught:
            raise ServiceUnavailable(
                f"Another process has been renewing the login for {timeout_seconds:g} seconds.",
                next_step="Call again; if it stays so, end other kiro-mcp processes.",
                code="timeout",
            )
        yield
    finally:
        os.close(handle)  # Lets go of the lock too.


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
