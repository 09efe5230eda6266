"""Files that hold secrets, replaced as a whole or not at all. Blocking: call it in a thread.

A new text goes into a temporary file in the same folder, readable by its owner alone, reaches the
disk, and only then takes the old one's name. Whoever reads meets the old text or the new one.
"""

import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

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
