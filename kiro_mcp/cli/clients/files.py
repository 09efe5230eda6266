"""Reads and replaces clients' configuration files: the only module here that touches the disk.

A file is replaced completely or not at all. It keeps its mode, a symbolic link to it stays a link,
and a backup of the old content stays beside it.
"""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from kiro_mcp.auth.machine import Machine
from kiro_mcp.cli.clients.known import Client
from kiro_mcp.cli.clients.launch import Running, source_of
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.files import can_replace, read_regular_file, replace_text

MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest file that is read. Claude Code's file also contains its history: megabytes."""

NEW_FILE_MODE: Final = 0o600
"""A new file may come to hold an API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file as it was read."""

    path: Path
    data: bytes | None
    """None if the file does not exist."""
    text: str


def user_file(client: Client, machine: Machine) -> Path:
    """Return the path of the user's configuration of a client on this machine.

    Raises:
        InvalidRequest: HOME is not set.
    """
    if machine.home is None:
        raise InvalidRequest(
            "HOME is not set, so the client's configuration cannot be found.",
            next_step="Set it, or name the file with --file.",
        )
    usual = client.file(machine.home, machine)
    folder = _packaged_folder(client, machine)
    return folder / usual.name if folder else usual


def is_installed(client: Client, machine: Machine) -> bool:
    """Whether a folder of the client shows that it was used on this machine."""
    if machine.home is None:
        return False
    is_used = client.folder(machine.home, machine).is_dir()
    return is_used or _packaged_folder(client, machine) is not None


def _packaged_folder(client: Client, machine: Machine) -> Path | None:
    if machine.platform != "win32" or not client.packaged or machine.home is None:
        return None
    local = machine.environ.get("LOCALAPPDATA") or machine.home / "AppData" / "Local"
    return next(iter(sorted(Path(local).glob(client.packaged))), None)


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


def write(before: ConfigFile, text: str, now: datetime) -> Path | None:
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
        backup = _backup(path, before.data, now)
        replace_text(target, text, mode=mode)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be written ({error.strerror}).",
            next_step="Make it writable, or make the change that --dry-run shows by hand.",
        ) from error
    return backup


def _backup(path: Path, data: bytes, now: datetime) -> Path:
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


def running() -> Running:
    """Describe how this process was started."""
    return Running(
        argv0=os.path.abspath(sys.argv[0]),
        executable=sys.executable,
        platform=sys.platform,
        environ=os.environ,
        exists=os.path.isfile,
        find=lambda name: _programs(name, os.environ.get("PATH", os.defpath)),
        source=source(),
    )


def source() -> str | None:
    """Return the source that this copy was installed from: `Running.source`."""
    try:
        found = source_of(distribution("kiro-mcp").read_text("direct_url.json") or "")
    except PackageNotFoundError:  # It runs from a checkout that is not installed.
        checkout = Path(__file__).parents[3]
        found = str(checkout) if (checkout / "pyproject.toml").is_file() else None
    is_path = bool(found) and "://" not in (found or "")
    return found if not is_path or os.path.exists(found or "") else None


def _programs(name: str, path: str) -> Iterator[str]:
    for folder in path.split(os.pathsep):
        if os.path.isabs(folder) and (found := shutil.which(name, path=folder)):
            yield found
