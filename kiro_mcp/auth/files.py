"""Private files: replaced atomically, and locked across processes.

`replace_text` writes the new text to a temporary file in the same folder, readable only by its
owner, waits until it is on disk and then renames it. So readers see either the old text or the new
one. Reading and replacing block: do both in a thread.

A lock is an open file that the operating system locks for one process. If that process is killed,
the system releases the lock, so a lock never outlives its process. The file itself stays: if it
were removed, two processes could each lock a file of the same name.
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
"""How much of a file is read. A login has less than 10 KiB."""

_REPLACE_TRIES: Final = 20
_REPLACE_PAUSE_SECONDS: Final = 0.025
"""Windows cannot replace a file while another program has it open, so the rename is retried."""


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
    """Replace the whole text of a file, on disk when this returns. Links are followed.

    Raises:
        OSError: It cannot be written. The old file is unchanged.
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
    """Write the new name to disk, so that it survives a power cut. Windows cannot do this."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # A folder may be writable and not readable. The file itself is on disk.
    try:
        os.fsync(handle)
    except OSError:
        pass  # Some network file systems do not support this.
    finally:
        os.close(handle)


def warning_about(folder: Path) -> str:
    """Return why a folder is not safe for secrets; "" if it is safe or does not exist yet."""
    try:
        found = folder.stat()
    except OSError:
        return ""
    if sys.platform == "win32":
        return ""  # File modes on Windows do not say who may write.
    if found.st_uid not in (os.geteuid(), 0):
        return f"{folder}, which holds logins, belongs to another user"
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        return f"other users can write to {folder}, which holds logins (mode {mode:o})"
    return ""


def can_replace(path: Path) -> bool:
    """Whether a file could be replaced. This also needs write access to its folder."""
    target = path.resolve()
    return os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)


RETRY_SECONDS: Final = 0.02
"""How long to wait between two tries to lock. A refresh takes a few hundred milliseconds."""

Sleep = Callable[[float], Awaitable[object]]


@asynccontextmanager
async def hold_lock(
    path: Path, *, timeout_seconds: float, sleep: Sleep = anyio.sleep
) -> AsyncGenerator[None]:
    """Hold the lock of a file while the block runs.

    Raises:
        ServiceUnavailable: Another process held the lock for the whole time.
        OSError: The file cannot be created.
    """
    handle = await anyio.to_thread.run_sync(_open, path)
    try:
        with anyio.move_on_after(timeout_seconds) as scope:
            while not _try_lock(handle):
                await sleep(RETRY_SECONDS)
        if scope.cancelled_caught:
            raise ServiceUnavailable(
                f"Another process has been renewing the login for {timeout_seconds:g} seconds.",
                next_step="Call again. If this happens again, end other kiro-mcp processes.",
                code="timeout",
            )
        yield
    finally:
        os.close(handle)  # This also releases the lock.


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
