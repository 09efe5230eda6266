"""The database of `kiro_mcp.server.conversations`: its tables, and how it is opened and kept small.

The tables::

    conversations   id, owner, updated_at
    histories       conversation_id, turn (from 1), origin
    turns           conversation_id, turn, created_at, model, system, tools, messages, answer
    answers         id, created_at, result, owner, undelivered

A turn is stored once, under the conversation that it was made in. `histories` says which turns a
conversation has: its own, whose origin it is, and those that it shares with the conversation that
it was forked from. A turn is deleted with the last history that has it. An owner is one of
`kiro_mcp.server.owners`. A conversation whose `updated_at` is 0 is being deleted. `undelivered` is
the id of the question, as `kiro_mcp.server.jobs` makes it, while no caller has got the answer;
else it is empty.

Several servers, of one user's several clients, may open the database in the same moment. Nothing
here waits for another process: SQLite's "busy" errors reach the caller, who tries again.
"""

import sqlite3
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BATCH_SECONDS: Final = 0.02
"""How long one transaction that deletes may hold the write lock, and delay a call."""

MAX_FREE_PAGES: Final = 1024
"""Pages, of 4 KiB, that are kept for new rows instead of being given back to the disk."""

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
"""How long the write-ahead log may stay after it was copied into the database."""

MAX_COPIED_BYTES: Final = 32 * 1024 * 1024
"""How much may be copied, in one go, to let an older store give back its space."""

_PAGES_A_BATCH: Final = 512

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
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, updated_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX conversations_by_age ON conversations (updated_at);
    CREATE TABLE histories (
        conversation_id TEXT NOT NULL, turn INTEGER NOT NULL, origin TEXT NOT NULL,
        PRIMARY KEY (conversation_id, turn)
    ) WITHOUT ROWID;
    CREATE INDEX histories_by_origin ON histories (origin, turn);
    INSERT INTO conversations
        SELECT conversation_id, '', max(created_at) FROM turns GROUP BY conversation_id;
    INSERT INTO histories SELECT conversation_id, turn, conversation_id FROM turns;
    ALTER TABLE answers ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    CREATE INDEX answers_by_age ON answers (created_at);
    """,
    """
    ALTER TABLE answers ADD COLUMN undelivered TEXT NOT NULL DEFAULT '';
    CREATE INDEX answers_undelivered ON answers (undelivered) WHERE undelivered <> '';
    """,
)
"""Each brings the schema one version further; `PRAGMA user_version` counts them."""

SCHEMA_VERSION: Final = len(_MIGRATIONS)


class NewerStoreError(Exception):
    """The database has a schema that only a newer version of this package knows."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"it was made by a newer version of kiro-mcp (schema {version}; this one knows"
            f" {SCHEMA_VERSION})"
        )


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open the store, and make it where there is none; None is one in memory.

    Raises:
        NewerStoreError: It is left as it is.
        OSError: It cannot be made, or something else has its name.
        sqlite3.Error: It is no store, or it is busy.
    """
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made before SQLite does, so that it is never readable by others.
        path.touch(mode=0o600)
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is not a regular file")
    target = ":memory:" if path is None else str(path)
    db = sqlite3.connect(target, timeout=0, check_same_thread=False, isolation_level=None)
    try:
        if _version(db) < SCHEMA_VERSION:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # Has no effect once there is a table.
        # A write-ahead log lets others read while one writes.
        db.execute("PRAGMA journal_mode = WAL")
        # With the log, this loses nothing to a process that is killed; only to a power failure.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
        if _version(db) < SCHEMA_VERSION:
            _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def is_busy(error: Exception) -> bool:
    """Return whether an error only says that another process is using the database."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # The upper bits say what for.
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of its name; None where there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


@contextmanager
def transaction(db: sqlite3.Connection, *, writes: bool) -> Generator[sqlite3.Connection]:
    """Write all that is written inside, or nothing if something raises.

    Without `writes`, take no lock that would wait for a writer or hold one up.

    Raises:
        NewerStoreError: A newer version has changed the schema since the database was opened.
    """
    db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        _version(db)
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite ends it by itself where, say, the disk is full.
            db.execute("ROLLBACK")
        raise


def used_bytes(db: sqlite3.Connection) -> int:
    """Return the size of what is stored, without the free space in the file."""
    return (_pragma(db, "page_count") - _pragma(db, "freelist_count")) * _pragma(db, "page_size")


def forget_some(db: sqlite3.Connection, *, before: float, max_rows: int, max_bytes: int) -> bool:
    """Do a small part of the cleaning; return whether more is left to do.

    Deletes what was not used since `before`, then the oldest until the store is within its limits,
    then gives free space back.
    """
    deadline = time.monotonic() + BATCH_SECONDS
    with transaction(db, writes=True):
        (rows,) = db.execute(
            "SELECT (SELECT count(*) FROM turns) + (SELECT count(*) FROM answers)"
        ).fetchone()
        while (oldest := db.execute(_OLDEST).fetchone()) is not None:
            is_answer, id_, used_at = oldest
            if used_at >= before and rows <= max_rows and used_bytes(db) <= max_bytes:
                break
            if is_answer:
                rows -= db.execute("DELETE FROM answers WHERE id = ?", (id_,)).rowcount
            else:
                rows -= _forget_last_turn(db, id_)
            if time.monotonic() > deadline:
                return True
    if _pragma(db, "freelist_count") > MAX_FREE_PAGES:
        if _pragma(db, "auto_vacuum"):
            # As a script, because each step gives back one page, and `execute` takes only one.
            db.executescript(f"PRAGMA incremental_vacuum({_PAGES_A_BATCH})")
            return True
        # The store is older than this setting, which only a copy of all that is left can change.
        if used_bytes(db) <= MAX_COPIED_BYTES:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return False


_OLDEST: Final = """
    SELECT is_answer, id, used_at FROM (
        SELECT * FROM (SELECT 0 AS is_answer, id, updated_at AS used_at
            FROM conversations ORDER BY updated_at LIMIT 1)
        UNION ALL
        SELECT * FROM (SELECT 1, id, created_at FROM answers ORDER BY created_at LIMIT 1)
    ) ORDER BY used_at LIMIT 1
"""


def _forget_last_turn(db: sqlite3.Connection, conversation_id: str) -> int:
    """Delete a conversation's last turn, or a conversation that has none; return how many rows."""
    db.execute("UPDATE conversations SET updated_at = 0 WHERE id = ?", (conversation_id,))
    last = db.execute(
        "SELECT turn, origin FROM histories WHERE conversation_id = ? ORDER BY turn DESC LIMIT 1",
        (conversation_id,),
    ).fetchone()
    if last is None:
        db.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
        return 0
    turn, origin = last
    db.execute(
        "DELETE FROM histories WHERE conversation_id = ? AND turn = ?", (conversation_id, turn)
    )
    return db.execute(
        "DELETE FROM turns WHERE conversation_id = ? AND turn = ?"
        " AND NOT EXISTS (SELECT 1 FROM histories WHERE origin = ? AND turn = ?)",
        (origin, turn, origin, turn),
    ).rowcount


def _migrate(db: sqlite3.Connection) -> None:
    with transaction(db, writes=True):
        for number, script in enumerate(_MIGRATIONS[_version(db) :], start=_version(db) + 1):
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


def _version(db: sqlite3.Connection) -> int:
    if (version := _pragma(db, "user_version")) > SCHEMA_VERSION:
        raise NewerStoreError(version)
    return version


def _pragma(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return value
