"""Reads a client's configuration file, adds or removes our server, and replaces the file.

::

    read ─▶ ConfigFile ─▶ with_server / without_server ─▶ text ─▶ replace
                              (edits)                     (with a backup)

Each edited text is parsed again and compared: it must contain everything that the old text
contained, plus or minus our entry. A file is replaced completely or not at all. It keeps its mode,
a symbolic link to it stays a link, and a backup of the old content stays beside it.
"""

import os
import stat
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kiro_mcp.cli.clients import edits
from kiro_mcp.cli.clients.edits import (
    CannotEdit,
    Document,
    Unparsable,
    as_object,
    is_object,
    value_at,
)
from kiro_mcp.cli.clients.known import Client
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.files import can_replace, read_regular_file, replace_text

MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest file that is read. Claude Code's file also contains its history: megabytes."""

NEW_FILE_MODE: Final = 0o600
"""A new file may come to hold an API key."""

_BYTE_ORDER_MARK: Final = "\ufeff"
"""Editors on Windows put it at the start of a file. Some clients cannot read such a file."""


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
    """Replace a file and return its backup; None if the file is new.

    Args:
        before: The file as it was read. It must not have changed since.
        text: The new content.
        now: The time, for the name of the backup.

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
        target = path.resolve()
        if before.data is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_text(target, text, mode=NEW_FILE_MODE)
            return None
        if not can_replace(target):
            raise PermissionError(0, "the file or its folder is write-protected")
        mode = stat.S_IMODE(target.stat().st_mode)
        backup = _back_up(path, before.data, now)
        replace_text(target, text, mode=mode)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be written ({error.strerror}).",
            next_step="Make it writable, or make the change that --dry-run shows by hand.",
        ) from error
    return backup


def _back_up(path: Path, data: bytes, now: datetime) -> Path:
    """Save the old content beside the file, readable by its owner only: it may hold an API key."""
    stamp = f"{now:%Y%m%d-%H%M%S}"
    for number in range(1, sys.maxsize):
        suffix = f"-{number}" if number > 1 else ""
        backup = path.with_name(f"{path.name}.{stamp}{suffix}.bak")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE)
        except FileExistsError:
            continue
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return backup
    raise AssertionError("some number is always free")


# --- what a configuration holds ------------------------------------------------------------------


def servers(text: str, client: Client) -> Document:
    """Return the servers of a configuration by name.

    Raises:
        Unparsable: The text breaks the rules of its format.
        CannotEdit: The document, or its member for the servers, is not an object.
    """
    document = client.format.read(text.removeprefix(_BYTE_ORDER_MARK))
    found = document.get(client.key, {})
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
    changed = text.removeprefix(_BYTE_ORDER_MARK)
    wanted = client.format.read(changed)
    at = (client.key, name)
    values: list[tuple[edits.Path, object]] = [(at, dict(entry))]
    if is_object(value_at(wanted, at)):
        values = []
        for key, value in entry.items():
            if is_object(value) and is_object(value_at(wanted, (*at, key))):
                values += [((*at, key, inner), one) for inner, one in value.items()]
            else:
                values.append(((*at, key), value))
    for path, value in values:
        changed = client.format.set_value(changed, path, value)
        inside: Any = wanted
        for key in path[:-1]:
            inside = inside.setdefault(key, {})
        inside[path[-1]] = deepcopy(value)
    return _checked(client, changed, wanted)


def without_server(text: str, client: Client, name: str) -> str:
    """Return the configuration without a server; unchanged if it has no server of this name.

    Raises:
        Unparsable, CannotEdit: As `with_server`.
    """
    if name not in servers(text, client):
        return text
    body = text.removeprefix(_BYTE_ORDER_MARK)
    wanted = client.format.read(body)
    del as_object(wanted[client.key])[name]
    return _checked(client, client.format.remove(body, (client.key, name)), wanted)


def _checked(client: Client, changed: str, wanted: Document) -> str:
    """Return the edited text, after a check that it says what it should."""
    try:
        found = client.format.read(changed)
    except Unparsable:
        found = None
    # In TOML and YAML, the table of the servers goes with its last member.
    if found is None or {client.key: {}, **found} != {client.key: {}, **wanted}:
        raise CannotEdit("its layout does not allow a safe change")
    return changed
