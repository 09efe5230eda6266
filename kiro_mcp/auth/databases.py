"""kiro-cli's database, read and, only when the user said so, written. Blocking: use a thread.

It is another program's: opened read-only, and with its write-ahead log, which holds the newest.
SQLite makes a file beside the database to read that log; where it cannot, a copy is read.

An update touches one existing row, if that still holds the refresh token that was spent, and keeps
every member that is unknown here.
"""

import errno
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

from kiro_mcp.auth.credential_files import parse_object, text_of
from kiro_mcp.auth.kiro_cli_db import STATE_KEYS, TOKEN_KEYS, Rows, registration_key
from kiro_mcp.auth.renewal import merged
from kiro_mcp.auth.tokens import Credential
from kiro_mcp.regular_files import read_regular_file

BUSY_SECONDS: Final = 2.0
"""How long another program's write is waited for; kiro-cli's take milliseconds."""

MAX_COPIED_BYTES: Final = 256 * 1024 * 1024
"""The largest database that is copied to be read; kiro-cli keeps conversations in it, too."""

_BUSY_CODES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_KEYS: Final = (*TOKEN_KEYS, *(key for key in map(registration_key, TOKEN_KEYS) if key))


def read_rows(path: Path) -> tuple[Rows, Rows]:
    """Read the rows of sign-in: `auth_kv` and `state`.

    Raises:
        BlockingIOError: Another program writes to it for too long.
        OSError: It cannot be opened or read.
    """
    try:
        return _rows_of(path, "mode=ro")
    except (BlockingIOError, FileNotFoundError, IsADirectoryError):
        raise
    except OSError:
        log = path.with_name(f"{path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            return _rows_of(path, "mode=ro&immutable=1")
        if path.stat().st_size + log.stat().st_size > MAX_COPIED_BYTES:
            raise
        with tempfile.TemporaryDirectory(prefix="kiro-mcp-") as folder:  # Only we can enter it.
            copy = Path(folder, path.name)
            for source in (path, log):
                shutil.copyfile(source, copy.with_name(source.name))
            return _rows_of(copy, "mode=rw")


def _rows_of(path: Path, how: str) -> tuple[Rows, Rows]:
    with _opened(path, how) as database:
        return (
            _select(database, "SELECT key, value FROM auth_kv WHERE key IN ({})", _KEYS),
            _select(database, "SELECT key, value FROM state WHERE key IN ({})", STATE_KEYS),
        )


def _select(database: sqlite3.Connection, statement: str, keys: Sequence[str]) -> Rows:
    marks = ", ".join("?" * len(keys))
    try:
        found = database.execute(statement.format(marks), keys).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return {}
        raise
    rows = cast("list[tuple[str, object]]", found)
    return {key: value for key, value in rows if isinstance(value, str | bytes)}


def can_update(path: Path) -> bool:
    """Whether a row could be updated: a writer needs the folder too, for its journal."""
    target = path.resolve()
    if not (os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
        return False
    try:
        with _opened(target, "mode=rw") as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except OSError:
        return False
    return True


def update_row(path: Path, renewed: Credential, *, spent_refresh_token: str) -> bool:
    """Put a renewed login into its row, if that still holds the refresh token that was spent.

    Returns:
        Whether it did; if not, another program was there first.

    Raises:
        OSError: It cannot be written.
    """
    with _opened(path.resolve(), "mode=rw") as database:
        database.execute("BEGIN IMMEDIATE")
        document = _document(database, renewed.key)
        if document is None or text_of(document, "refresh_token") != spent_refresh_token:
            database.rollback()
            return False
        text = json.dumps(merged(document, renewed), separators=(",", ":"))
        done = database.execute("UPDATE auth_kv SET value = ? WHERE key = ?", (text, renewed.key))
        database.commit()
        return done.rowcount == 1


def _document(database: sqlite3.Connection, key: str) -> Mapping[str, object] | None:
    row = cast(
        "tuple[str | bytes] | None",
        database.execute("SELECT value FROM auth_kv WHERE key = ?", (key,)).fetchone(),
    )
    try:
        return parse_object(row[0]) if row else None
    except ValueError:
        return None


@contextmanager
def _opened(path: Path, how: str) -> Generator[sqlite3.Connection]:
    """Open a database that is there already; translate its errors."""
    read_regular_file(path, 0)  # SQLite would wait for a writer if this is a pipe.
    address = f"file:{quote(str(path))}?{how}"
    try:
        with closing(
            sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        ) as database:
            yield database
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY_CODES:
            raise BlockingIOError(errno.EAGAIN, f"{error}") from error
        raise OSError(f"{error}") from error
