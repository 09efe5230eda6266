"""Reads a client's configuration file, adds or removes our server, and replaces the file.

::

    read ─▶ ConfigFile ─▶ with_server / without_server ─▶ text ─▶ replace
                              (edits)                     (with a backup)

A file is replaced completely or not at all. It keeps its mode, a symbolic link to it stays a link,
and a backup of the old content stays beside it.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from kiro_mcp.cli.clients.edits import CannotEdit, Document, is_object
from kiro_mcp.cli.clients.known import Client
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.files import can_replace, read_regular_file, replace_text

MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest file that is read. Claude Code's file also contains its history: megabytes."""

PRIVATE: Final = 0o600
"""The mode of new files and of backups, which may hold an API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file as it was read."""

    path: Path
    data: bytes | None
    """None if the file does not exist."""
    text: str


def read(path: Path) -> ConfigFile:
    """Read a file; a file that does not exist counts as empty.

    Raises:
        InvalidRequest: The file cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        data = read_regular_file(path, MAX_BYTES + 1)
    except FileNotFoundError:
        return ConfigFile(path=path, data=None, text="")
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be read ({error.strerror}).",
            next_step="Make it a readable file, or name another one with --file.",
        ) from error
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"{path} is larger than {MAX_BYTES} bytes; it was not changed.")
    try:
        return ConfigFile(path=path, data=data, text=data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{path} is not UTF-8 (at byte {error.start}); it was not changed.",
            next_step="Save it as UTF-8 in an editor.",
        ) from error


def replace(before: ConfigFile, text: str, now: datetime) -> Path | None:
    """Replace a file, and return its backup, which is named by the time; None if it is new.

    Raises:
        InvalidRequest: The file cannot be written, or another program has changed it.
    """
    path = before.path
    if read(path).data != before.data:
        raise InvalidRequest(
            f"Another program has just changed {path}; nothing was written.",
            next_step="Run this again.",
        )
    try:
        if before.data is None:
            path.resolve().parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text, mode=PRIVATE)
            return None
        if not can_replace(path):
            raise PermissionError(0, "the file or its folder is write-protected")
        mode = stat.S_IMODE(path.stat().st_mode)
        stem = f"{path.name}.{now:%Y%m%d-%H%M%S}"
        backup = path.with_name(f"{stem}.bak")
        number = 1
        while not _create(backup, before.data):
            number += 1
            backup = path.with_name(f"{stem}-{number}.bak")
        replace_text(path, text, mode=mode)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be written ({error.strerror}).",
            next_step="Make it writable, or make the change that --dry-run shows by hand.",
        ) from error
    return backup


def _create(path: Path, data: bytes) -> bool:
    """Write a new file for its owner only; return False if there is one of this name."""
    try:
        with open(path, "xb", opener=partial(os.open, mode=PRIVATE)) as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


# --- what a configuration holds ------------------------------------------------------------------


def servers(text: str, client: Client) -> Document:
    """Return the servers of a configuration by name.

    Raises:
        Unparsable: The text breaks the rules of its format.
        CannotEdit: The document, or its member for the servers, is not an object.
    """
    found = client.format.read(text).get(client.key, {})
    if not is_object(found):
        raise CannotEdit(f"{client.key!r} is not an object")
    return found


def with_server(text: str, client: Client, name: str, entry: Mapping[str, object]) -> str:
    """Return the configuration with a server.

    In an existing entry, only the members of the new entry change. Other members and other
    variables of the user stay.

    Raises:
        Unparsable, CannotEdit: As `servers`; or the entry cannot be added safely.
    """
    return client.format.merge(text, (client.key, name), dict(entry))


def without_server(text: str, client: Client, name: str) -> str:
    """Return the configuration without a server; unchanged if it has no server of this name.

    Raises:
        Unparsable, CannotEdit: As `with_server`.
    """
    return client.format.remove(text, (client.key, name))
