"""Files: read if they are regular, replaced atomically, and locked across processes.

Opening a named pipe waits until another program writes to it, and reading a device may never end.
A thread that waits like this cannot be cancelled, so everything but a regular file is refused.

`replace_text` writes the new text to a temporary file in the same folder, readable only by its
owner, waits until it is on disk and then renames it. So readers see either the old text or the new
one. Reading and replacing block: do both in a thread.

A lock is an open file that the operating system locks for one process. If that process is killed,
the system releases the lock, so a lock never outlives its process. The file itself stays: if it
were removed, two processes could each lock a file of the same name.
"""

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.errors import ServiceUnavailable

MAX_TEXT_BYTES: Final = 4 * 1024 * 1024
"""How large a file `read_text` reads. A login has less than 10 KiB."""

RETRY_SECONDS: Final = 0.02
"""How long to wait between two tries to lock. A refresh takes a few hundred milliseconds."""

_REPLACE_TRIES: Final = 20
_REPLACE_PAUSE_SECONDS: Final = 0.025
"""Windows cannot replace a file while another program has it open, so the rename is retried."""

_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # A pipe opens at once, whether or not it has a writer.
    | getattr(os, "O_NOCTTY", 0)  # A terminal does not become this process's own.
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

Sleep = Callable[[float], Awaitable[object]]


def read_regular_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file. Links are followed.

    Raises:
        OSError: It cannot be read, or it is not a regular file. `strerror` says which.
    """
    try:
        # Checked before opening, because opening a device or a pipe can have effects; and again
        # after, because the path may name another file by then.
        _require_regular(os.stat(path).st_mode, path)
        descriptor = os.open(path, _FLAGS)
    except ValueError:  # A NUL, or half of a surrogate pair.
        raise OSError(errno.EINVAL, "no file can have this name") from None
    with open(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor).st_mode, path)
        return file.read(limit)


def _require_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)


def read_text(path: Path) -> str:
    """Read a small file.

    Raises:
        OSError: It cannot be read, or it is not a regular file.
        ValueError: It is not UTF-8, or larger than any login.
    """
    data = read_regular_file(path, MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"it is larger than {MAX_TEXT_BYTES} bytes")
    return data.decode("utf-8-sig")


def replace_text(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace the whole text of a file, on disk when this returns. Links are followed.

    Raises:
        OSError: It cannot be written. The old file is unchanged.
    """
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        for tries_left in reversed(range(_REPLACE_TRIES)):
            try:
                temporary.replace(target)
                break
            except PermissionError:
                if sys.platform != "win32" or not tries_left:
                    raise
                time.sleep(_REPLACE_PAUSE_SECONDS)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sys.platform != "win32":
        # Write the new name to disk, too, so that it survives a power cut. This fails if the
        # folder is not readable, and on some network file systems. The file itself is on disk.
        with suppress(OSError):
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


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
