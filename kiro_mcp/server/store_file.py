"""The database of `kiro_mcp.server.conversations`: its tables, and how it is opened.

The tables::

    turns     conversation_id, turn (from 1), created_at, model, system, tools, messages, answer,
              owner
    answers   id, created_at, result, owner

The owners are those of `kiro_mcp.server.owners`.

Several servers, of one user's several clients, may open it in the same moment.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BUSY_SECONDS: Final = 5.0
"""How long to wait for another server process that is writing."""

MAX_TURNS_TO_WAIT: Final = 100
"""How many others may be just then at the same. Without a log the store works as well."""

_MIGRATIONS: Final = (
    """
    CREATE TABLE turns (
        conversation_id TEXT NOT NULL, turn INTEGER NOT NULL, created_at REAL NOT NULL,
        model TEXT NOT NULL, system TEXT NOT NULL, tools TEXT NOT NULL, messages TEXT NOT NULL,
        answer TEXT NOT NULL, PRIMARY KEY (conversation_id, turn)
    );
    CREATE TABLE answers (id TEXT PRIMARY KEY, created_at REAL NOT NULL, result TEXT NOT NULL);
    """,
    """
    ALTER TABLE turns ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE answers ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    """,
)
"""Each brings the schema one version further; `PRAGMA user_version` counts them."""


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open the store, and make it where there is none; None is one in memory.

    Raises:
        sqlite3.Error: It is no store, or other servers write for too long.
    """
    if path is None:
        target = ":memory:"
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made before SQLite does, so that it is never readable by others.
        path.touch(mode=0o600)
        target = str(path)
    db = sqlite3.connect(
        target, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
    )
    try:
        _use_log(db)
        # With the log, this loses nothing to a process that is killed; only to a power failure.
        db.execute("PRAGMA synchronous = NORMAL")
        _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of its name; None where there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def _use_log(db: sqlite3.Connection) -> None:
    """Write to a log, which lets others read meanwhile.

    SQLite does not wait for other servers at the change to it, as it does at all else: several
    that make the store in the same moment would lose all but one of their first answers.
    """
    for _ in range(MAX_TURNS_TO_WAIT):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            db.execute("BEGIN EXCLUSIVE")  # Waits, or fails for what it really is.
            db.execute("COMMIT")


def _migrate(db: sqlite3.Connection) -> None:
    with transaction(db):
        (version,) = db.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """Write all that is written inside, or nothing where something raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
