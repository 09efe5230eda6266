"""Files that hold secrets: replaced as a whole or not at all, and locked across processes.

A new text goes into a temporary file in the same folder, readable by its owner alone, reaches the
disk, and only then takes the old one's name. A reader finds the old text or the new one. Blocking:
read and replace in a thread.

A lock is a file that the operating system holds until its holder ends. It cannot go stale: when a
process is killed, the system lets go of it. The file itself stays; removing it would let two
processes hold two files of one name.
"""

import os
import stat
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.errors import ServiceUnavailable
from kiro_mcp.regular_files import read_regular_file

MAX_BYTES: Final = 4 * 1024 * 1024
"""How much of a file is read. A login is under 10 KiB."""

_REPLACE_TRIES: Final = 20
_REPLACE_PAUSE_SECONDS: Final = 0.025
"""On Windows a file that another program has open cannot be replaced for that moment."""


def read_text(path: Path) -> str:
    """Read a small file.

    Raises:
        OSError: It cannot be read, or it is not a regular file.
        ValueError: It is not UTF-8, or larger than any login.
    """
    data = read_regular_file(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return data.decode("utf-8-sig")


def replace_text(
    path: Path,
    text: str,
    *,
    mode: int = 0o600,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write a file so that it is there whole, with its mode, before this returns.

    Links are followed.

    Raises:
        OSError: It cannot be written; the old one is as it was.
    """
    target = path.resolve()
    handle, temporary = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        _replace(temporary, target, sleep)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _replace(temporary: str, target: Path, sleep: Callable[[float], None]) -> None:
    for tries_left in reversed(range(_REPLACE_TRIES)):
        try:
            Path(temporary).replace(target)
        except PermissionError:
            if sys.platform != "win32" or not tries_left:
                raise
            sleep(_REPLACE_PAUSE_SECONDS)
        else:
            return


def _sync_folder(folder: Path) -> None:
    """Make the new name outlive a power cut, where the system knows such a thing."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # A folder that may be written and not read; the file itself is on disk.
    try:
        os.fsync(handle)
    except OSError:
        pass  # Some network file systems cannot.
    finally:
        os.close(handle)


def warning_about(folder: Path) -> str:
    """Say why a folder is not safe for secrets; "" if it is safe or does not exist yet."""
    try:
        found = folder.stat()
    except OSError:
        return ""
    if sys.platform == "win32":
        return ""  # Its modes say nothing of that.
    if found.st_uid not in (os.geteuid(), 0):
        return f"{folder}, which holds logins, belongs to another user"
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        return f"other users can write to {folder}, which holds logins (mode {mode:o})"
    return ""


def can_replace(path: Path) -> bool:
    """Whether a file could be replaced: its folder, not the file, decides that."""
    target = path.resolve()
    return os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)


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
