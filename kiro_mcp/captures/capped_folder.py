"""A private folder whose files have limits. Blocking: used in one thread."""

import os
from pathlib import Path
from typing import Final

from kiro_mcp.captures.folder import (
    MAX_CALL_BYTES,
    MAX_CAPTURES,
    MAX_FILE_BYTES,
    is_capture_file,
    is_capture_folder,
)

_CREATE: Final = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)


class CappedFolder:
    """One capture's folder, 0700, with files 0600. Past a limit a file is cut.

    Every method raises `OSError` where the system does.

    Args:
        path: The folder; it must not be there.
        max_file_bytes: How large a file may be.
        max_bytes: How large all of them may be together.
    """

    def __init__(
        self, path: Path, *, max_file_bytes: int = MAX_FILE_BYTES, max_bytes: int = MAX_CALL_BYTES
    ) -> None:
        self.path = path
        self.cut_files: list[str] = []
        """The files that reached a limit."""
        self._max_file_bytes = max_file_bytes
        self._bytes_left = max_bytes
        self._sizes: dict[str, int] = {}

    def create(self) -> None:
        """Make the folder, and those above it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)

    def append(self, name: str, data: bytes) -> bool:
        """Add to a file; return whether all of it had room."""
        size = self._sizes.get(name, 0)
        room = min(self._max_file_bytes - size, self._bytes_left)
        kept = data[:room]
        if len(kept) < len(data) and name not in self.cut_files:
            self.cut_files.append(name)
        if kept:
            self._write(name, kept, os.O_APPEND)
            self._sizes[name] = size + len(kept)
            self._bytes_left -= len(kept)
        return len(kept) == len(data)

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file anew, whole whenever it is read. It counts for no limit."""
        self._write(f"{name}.tmp", data, os.O_TRUNC)
        (self.path / f"{name}.tmp").replace(self.path / name)

    def read(self, name: str) -> bytes:
        """Return what is in a file; nothing where there is none."""
        path = self.path / name
        return path.read_bytes() if name in self._sizes else b""

    def remove(self) -> None:
        """Remove it."""
        _remove(self.path)

    def _write(self, name: str, data: bytes, flag: int) -> None:
        handle = os.open(self.path / name, _CREATE | flag, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)


def remove_oldest(folder: Path, *, keep: int = MAX_CAPTURES) -> None:
    """Remove all captures in a folder but the latest. What is no capture is left alone."""
    named = (one for one in folder.iterdir() if is_capture_folder(one.name))
    captures = sorted(one for one in named if one.is_dir() and not one.is_symlink())
    for capture in captures[: max(0, len(captures) - keep)]:
        _remove(capture)


def _remove(folder: Path) -> None:
    """Remove a capture: its own files, and the folder if that leaves it empty."""
    try:
        for file in folder.iterdir():
            if is_capture_file(file.name.removesuffix(".tmp")):
                file.unlink()
        folder.rmdir()
    except OSError:
        pass  # Somebody has put a file of theirs there, or another process is removing it.
