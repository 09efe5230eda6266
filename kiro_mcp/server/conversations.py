"""Conversations and finished answers, kept so that a later call can go on with them.

A SQLite database, used by one thread. A turn is what the caller added and what the model
answered; both are on disk, in one transaction, before the answer is returned. The tables are in
`kiro_mcp.server.store_file`.

A conversation only ever grows at its end. If two clients continue the same conversation at once,
the second one finds a turn where its own should go. It gets a conversation of its own that shares
the turns before: turns are never mixed.

The thread never waits for a lock: while another process has it, the caller waits on the event
loop and tries again, and others can read meanwhile. If the disk is slow, only the thread waits,
and the caller gives up in time. Between calls the thread deletes, in small parts, what is too old
or too much.
"""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

import anyio

from kiro_mcp.chat import Message, ToolSpec
from kiro_mcp.errors import InternalFault, InvalidRequest
from kiro_mcp.server.records import (
    UnreadableRecordError,
    json_of,
    message_of,
    record_of,
    records_of_tools,
    tools_of,
)
from kiro_mcp.server.store_file import (
    NewerStoreError,
    forget_some,
    identity,
    is_busy,
    open_database,
    transaction,
    used_bytes,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_SECONDS: Final = 5.0
"""How long a call waits for a store that another process has locked, or for a slow disk."""

ENDING_SECONDS: Final = 0.15
"""The same while the server ends, which must be gone within half a second."""

FORGET_EVERY_SECONDS: Final = 3600.0
"""How often the store looks for what is too old."""

MAX_ROWS: Final = 100_000
"""How many turns and answers are kept together; the oldest go first."""

MAX_BYTES: Final = 1024 * 1024 * 1024
"""How much is kept on disk."""

MAX_BYTES_IN_MEMORY: Final = 256 * 1024 * 1024

MAX_LISTED: Final = 100
"""How many conversations a listing names: the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one call added to a conversation."""

    model: str
    system: str
    tools: tuple[ToolSpec, ...]
    messages: tuple[Message, ...]
    """What the caller added: a prompt, tool results, or a whole history."""
    answer: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation up to some turn."""

    id: str
    turns: tuple[Turn, ...]
    """Those that can be read."""
    last_turn: int = 0
    """The number of the last turn, where those that cannot be read count, too."""
    warnings: tuple[str, ...] = ()
    """What could not be read."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a later call sends of it, oldest first.

        What was refused is left out: sent again, it would be refused again.
        """
        messages: list[Message] = []
        for turn in self.turns:
            messages += turn.messages
            if not turn.answer.is_refusal:
                messages.append(replace(turn.answer, model=turn.model))
                continue
            while messages and messages[-1].role == "user":
                messages.pop()  # What was asked. A history that came before it stays.
        return tuple(messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A conversation as a listing names it."""

    id: str
    updated_at: float
    """Seconds since the epoch."""
    turn_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a turn stands."""

    conversation_id: str
    turn: int
    """From 1."""


_FIRST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.1
"""How long to wait before a locked store is tried again: doubled each time, up to this."""

_BATCH_PAUSE_SECONDS: Final = 0.02
"""How long the thread leaves the store to others between two parts of its cleaning."""

_MAX_QUOTED: Final = 80
"""Characters of an id that a message shows."""


class _LockedError(Exception):
    """Another process is using the database just now."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """Something to do in the store's thread, for one caller."""

    work: Callable[[sqlite3.Connection], Any]
    writes: bool
    result: Future[Any]


class ConversationStore:
    """The store. Opened at its first use; every method works in the store's thread.

    Each method raises `InternalFault` if the database cannot be used. Each takes the owner that
    the call acts for, and finds nothing that belongs to somebody else.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        lifetime_seconds: float,
        now: Callable[[], float],
        new_id: Callable[[], str],
        forget_every_seconds: float = FORGET_EVERY_SECONDS,
        max_rows: int = MAX_ROWS,
        max_bytes: int | None = None,
    ) -> None:
        """Prepare a store; nothing is opened or written yet.

        Args:
            path: The database; None keeps everything in memory.
            lifetime_seconds: What was not used for so long is forgotten.
            now: The time, in seconds since the epoch.
            new_id: Makes the ids of conversations, UUIDs.
            forget_every_seconds: How often to delete what is forgotten.
            max_rows: How many turns and answers are kept together.
            max_bytes: How large the database may be; None for a default.
        """
        self._path = path
        self._lifetime_seconds = lifetime_seconds
        self._now = now
        self._new_id = new_id
        self._forget_every_seconds = forget_every_seconds
        self._max_rows = max_rows
        self._max_bytes = max_bytes or (MAX_BYTES if path else MAX_BYTES_IN_MEMORY)
        self._patience_seconds = PATIENCE_SECONDS
        self._waiting: set[anyio.CancelScope] = set()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_closed: Future[None] = Future()
        self._is_closed.set_running_or_notify_cancel()  # From here on nobody can cancel it.
        # The rest belongs to the thread.
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._left_open: list[sqlite3.Connection] = []
        self._next_forgetting = time.monotonic()
        self._writes_until_check = 0

    async def load(self, conversation_id: str, *, owner: str, up_to_turn: int = 0) -> Conversation:
        """Return a conversation, whole or up to a turn.

        Raises:
            InvalidRequest: `not_found`: the owner has no such conversation, or it no such turn.
        """
        _require_id("conversation_id", conversation_id)
        return await self._run(
            lambda db: self._load(db, conversation_id, owner, up_to_turn), writes=False
        )

    async def append(
        self,
        position: Position,
        turn: Turn,
        *,
        owner: str,
        forked_from: str = "",
        answer_id: str = "",
        result: str = "",
        undelivered: str = "",
    ) -> Position:
        """Write a turn, and the answer that it ends with; return where the turn stands.

        If another call has continued the conversation meanwhile, the turn gets a conversation of
        its own, and the answer is not written: its result names the position, which is another.

        Args:
            position: Where the turn should stand.
            turn: The turn.
            owner: Whose it is.
            forked_from: The conversation whose turns before `position.turn` it continues; "" for
                the conversation itself.
            answer_id: The id of the answer; "" saves the turn alone.
            result: The answer's result, as JSON.
            undelivered: The id of the question, if nobody waits for the answer any more.

        Raises:
            InternalFault: Also if the turns before were forgotten since they were loaded; then
                only the answer is saved.
        """

        def work(db: sqlite3.Connection) -> Position | None:
            stands = self._append(db, position, turn, owner, forked_from)
            if answer_id and stands in (position, None):
                _put_answer(db, answer_id, owner, self._now(), result, undelivered)
            return stands

        if (stands := await self._run(work, writes=True)) is None:
            source = forked_from or position.conversation_id
            raise InternalFault(
                f"The conversation {source!r} was forgotten while its answer was on its way.",
                next_step="Start a new one: leave conversation_id empty.",
            )
        return stands

    async def listed(self, *, owner: str) -> tuple[Listed, ...]:
        """Return the owner's latest conversations, the last used first."""
        return await self._run(lambda db: _listed(db, owner, self._oldest_kept()), writes=False)

    async def save_answer(
        self, answer_id: str, result: str, *, owner: str, undelivered: str = ""
    ) -> None:
        """Write a finished answer, such as a failure, as JSON under its id."""
        await self._run(
            lambda db: _put_answer(db, answer_id, owner, self._now(), result, undelivered),
            writes=True,
        )

    async def answer(self, answer_id: str, *, owner: str) -> bytes | None:
        """Return a finished answer's JSON, or None if the owner has none under the id."""
        _require_id("answer_id", answer_id)
        return await self._run(
            lambda db: _answer(db, answer_id, owner, self._oldest_kept()), writes=False
        )

    async def mark_undelivered(self, answer_id: str, question: str, *, owner: str) -> None:
        """Note that no caller has got an answer to this question; with "", that one has."""
        await self._run(
            lambda db: db.execute(
                "UPDATE answers SET undelivered = ? WHERE id = ? AND owner = ?",
                (question, answer_id, owner),
            ),
            writes=True,
        )

    async def take_undelivered(
        self, question: str, *, owner: str, within_seconds: float
    ) -> tuple[str, bytes] | None:
        """Return the id and the JSON of an answer that no caller has got, and mark it delivered.

        Of several answers to the question, callers get the oldest first.
        """
        oldest = max(self._now() - within_seconds, self._oldest_kept())

        def find(db: sqlite3.Connection) -> tuple[str, bytes] | None:
            return db.execute(
                "SELECT id, CAST(result AS BLOB) FROM answers WHERE undelivered = ?"
                " AND undelivered <> '' AND owner = ? AND created_at >= ?"
                " ORDER BY created_at LIMIT 1",
                (question, owner, oldest),
            ).fetchone()

        def take(db: sqlite3.Connection) -> tuple[str, bytes] | None:
            if (found := find(db)) is not None:
                db.execute("UPDATE answers SET undelivered = '' WHERE id = ?", (found[0],))
            return found

        # Most calls find nothing, and must not wait for the write lock.
        if await self._run(find, writes=False) is None:
            return None
        return await self._run(take, writes=True)

    def end_soon(self) -> None:
        """Shorten all waits for the store, because the server is ending."""
        self._patience_seconds = ENDING_SECONDS
        deadline = anyio.current_time() + ENDING_SECONDS
        for scope in self._waiting:
            scope.deadline = min(scope.deadline, deadline)

    async def aclose(self) -> None:
        """Close the database. A disk that does not answer in time is left alone."""
        self.end_soon()
        if self._thread is not None:
            self._jobs.put(None)
            with anyio.move_on_after(ENDING_SECONDS):
                await asyncio.wrap_future(self._is_closed)

    async def _run(self, work: Callable[[sqlite3.Connection], Result], *, writes: bool) -> Result:
        """Do something in the thread, in a transaction.

        The caller never waits longer than its patience. What the thread has begun by then, it
        finishes.
        """
        pause = _FIRST_PAUSE_SECONDS
        reason = "did not answer in time"
        with anyio.move_on_after(self._patience_seconds) as scope:
            self._waiting.add(scope)
            try:
                while True:
                    result: Future[Result] = Future()
                    self._submit(_Job(work=work, writes=writes, result=result))
                    try:
                        return await asyncio.wrap_future(result)
                    except _LockedError:
                        reason = "is locked by another program"
                    await anyio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            finally:
                self._waiting.discard(scope)
        raise InternalFault(
            f"{self._name} {reason}.",
            next_step="Try again later, name another folder in KIRO_MCP_HOME, or set"
            " KIRO_MCP_STORE=memory where this server is configured.",
        )

    def _submit(self, job: _Job) -> None:
        if self._thread is None:
            # A daemon: a disk that does not answer must not keep the process from ending.
            self._thread = Thread(target=self._work, name="conversations", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    @property
    def _name(self) -> str:
        return f"The store of conversations ({self._path or 'in memory'})"

    # --- in the store's thread ------------------------------------------------------------

    def _work(self) -> None:
        """Do one job after the other, and the cleaning when it is due, until the store closes."""
        while True:
            if (wait := self._next_forgetting - time.monotonic()) <= 0 and self._connection:
                self._forget_some(self._connection)
                continue
            try:
                job = self._jobs.get(timeout=wait if self._connection else None)
            except Empty:
                continue
            if job is None:
                break
            if job.result.set_running_or_notify_cancel():
                self._do(job)
        with suppress(sqlite3.Error):
            self._close()
        self._is_closed.set_result(None)

    def _do(self, job: _Job) -> None:
        try:
            result = self._in_transaction(job)
        except Exception as error:
            job.result.set_exception(error)
            return
        job.result.set_result(result)
        if job.writes and self._connection:
            self._writes_until_check -= 1
            with suppress(sqlite3.Error):
                if self._writes_until_check < 0 or used_bytes(self._connection) > self._max_bytes:
                    self._next_forgetting = min(self._next_forgetting, time.monotonic())

    def _in_transaction(self, job: _Job) -> Any:
        try:
            with transaction(self._opened(), writes=job.writes) as db:
                return job.work(db)
        except NewerStoreError as error:
            self._close()
            raise InternalFault(
                f"{self._name} is left alone: {error}.",
                next_step="Update kiro-mcp, or name another folder in KIRO_MCP_HOME.",
            ) from error
        except (sqlite3.Error, OSError, ValueError) as error:  # Python reads damaged text, too.
            if is_busy(error):
                raise _LockedError from error
            if self._path:
                self._close()  # Whoever mends or moves the file need not restart the server.
            raise InternalFault(
                f"{self._name} failed: {error}.",
                next_step=f"{_cure(error)}, or set KIRO_MCP_STORE=memory where this server is"
                " configured.",
            ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != identity(self._path):
            self._close()  # It was moved or deleted: what is kept there nobody would find.
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file = identity(self._path)
            self._next_forgetting = time.monotonic()
        return self._connection

    def _forget_some(self, db: sqlite3.Connection) -> None:
        """Delete a small part of what is too old or too much, and say when to go on."""
        pause = self._forget_every_seconds
        try:
            if self._file == identity(self._path) and forget_some(
                db,
                before=self._oldest_kept(),
                max_rows=self._max_rows,
                max_bytes=self._max_bytes,
            ):
                pause = _BATCH_PAUSE_SECONDS
            else:
                self._writes_until_check = self._max_rows // 100
        except Exception as error:  # One failed job must not end the thread.
            if is_busy(error):
                pause = _LONGEST_PAUSE_SECONDS
            else:
                logger.warning("%s could not forget what is old: %s", self._name, error)
        self._next_forgetting = time.monotonic() + pause

    def _oldest_kept(self) -> float:
        # Above 0, which is the age of what is being deleted, also if nothing ever gets too old.
        return max(self._now() - self._lifetime_seconds, 1.0)

    def _load(
        self, db: sqlite3.Connection, conversation_id: str, owner: str, up_to_turn: int
    ) -> Conversation:
        (last_turn,) = db.execute(
            "SELECT count(*) FROM conversations JOIN histories ON conversation_id = id"
            " WHERE id = ? AND owner = ? AND updated_at >= ?",
            (conversation_id, owner, self._oldest_kept()),
        ).fetchone()
        if not last_turn:
            raise InvalidRequest(
                f"There is no conversation {_quoted(conversation_id)}; it may have been too long"
                " unused.",
                next_step="Start a new one: leave conversation_id empty.",
                code="not_found",
            )
        if up_to_turn > last_turn:
            raise InvalidRequest(
                f"The conversation has no turn {up_to_turn}; its last one is {last_turn}.",
                next_step="Give a turn that it has, or 0 for the last.",
                code="not_found",
            )
        # As bytes, because SQLite refuses a whole result if one text in it is damaged.
        rows = db.execute(
            "SELECT histories.turn, CAST(model AS BLOB), CAST(system AS BLOB),"
            " CAST(tools AS BLOB), CAST(messages AS BLOB), CAST(answer AS BLOB)"
            " FROM histories LEFT JOIN turns"
            " ON turns.conversation_id = origin AND turns.turn = histories.turn"
            " WHERE histories.conversation_id = ? AND histories.turn <= ? ORDER BY histories.turn",
            (conversation_id, up_to_turn or last_turn),
        )
        turns: list[Turn] = []
        warnings: list[str] = []
        for number, *row in rows:
            try:
                turns.append(_turn_of(row))
            except UnreadableRecordError:
                warnings.append(
                    f"Turn {number} of the conversation {conversation_id!r} is damaged in"
                    f" {self._path or 'memory'}, so it was left out."
                )
        if not turns:
            raise InternalFault(
                " ".join(warnings), next_step="Start a new one: leave conversation_id empty."
            )
        return Conversation(
            id=conversation_id,
            turns=tuple(turns),
            last_turn=up_to_turn or last_turn,
            warnings=tuple(warnings),
        )

    def _append(
        self, db: sqlite3.Connection, position: Position, turn: Turn, owner: str, forked_from: str
    ) -> Position | None:
        """Write a turn; return where it stands, or None if the turns before are gone."""
        source = forked_from or position.conversation_id
        target = position.conversation_id
        is_taken = (
            target == source
            and db.execute(
                "SELECT 1 FROM histories WHERE conversation_id = ? AND turn = ?",
                (target, position.turn),
            ).fetchone()
        )
        if is_taken:
            target = self._new_id()
        if position.turn > 1:
            (turns_before,) = db.execute(
                "SELECT count(*) FROM conversations JOIN histories ON conversation_id = id"
                " WHERE id = ? AND owner = ? AND updated_at > 0 AND turn < ?",
                (source, owner, position.turn),
            ).fetchone()
            if turns_before < position.turn - 1:
                return None
        if target != source:
            db.execute(
                "INSERT INTO histories SELECT ?, turn, origin FROM histories"
                " WHERE conversation_id = ? AND turn < ?",
                (target, source, position.turn),
            )
        db.execute(
            "INSERT INTO conversations VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at",
            (target, owner, self._now()),
        )
        db.execute("INSERT INTO histories VALUES (?, ?, ?)", (target, position.turn, target))
        db.execute(
            "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (target, position.turn, self._now(), *_row_of(turn)),
        )
        return Position(conversation_id=target, turn=position.turn)

    def _close(self) -> None:
        if self._connection is None:
            return
        if identity(self._path) in (self._file, None):
            self._connection.close()
        else:  # SQLite would delete the log of the file that has its name by now.
            self._left_open.append(self._connection)
        self._connection = None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…")


def _require_id(name: str, value: str) -> None:
    """Refuse what no id of ours can be: a database, and UTF-8, can hold no half character.

    Raises:
        InvalidRequest: It has half of a surrogate pair, or the sign that stands for one.
    """
    if any("\ud800" <= character <= "\udfff" or character == "\ufffd" for character in value):
        raise InvalidRequest(
            f"{name} is {_quoted(value)}, which has half a character.",
            next_step=f"Give the {name} exactly as ask_claude returned it.",
        )


def _cure(error: Exception) -> str:
    # A store that is sound, but full or not to be written, must not be given up.
    is_of_its_place = isinstance(error, sqlite3.OperationalError | OSError)
    if is_of_its_place and getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
        return "See that its folder can be written and has room, name another one in KIRO_MCP_HOME"
    return "Move it away"


def _listed(db: sqlite3.Connection, owner: str, oldest_kept: float) -> tuple[Listed, ...]:
    rows = db.execute(
        "SELECT id, updated_at, (SELECT count(*) FROM histories WHERE conversation_id = id)"
        " FROM conversations WHERE owner = ? AND updated_at >= ?"
        " ORDER BY updated_at DESC, id LIMIT ?",
        (owner, oldest_kept, MAX_LISTED),
    )
    return tuple(Listed(id=id_, updated_at=at, turn_count=count) for id_, at, count in rows)


def _put_answer(
    db: sqlite3.Connection,
    answer_id: str,
    owner: str,
    now: float,
    result: str,
    undelivered: str,
) -> None:
    db.execute(
        "INSERT OR REPLACE INTO answers (id, owner, created_at, result, undelivered)"
        " VALUES (?, ?, ?, ?, ?)",
        (answer_id, owner, now, result, undelivered),
    )


def _answer(db: sqlite3.Connection, answer_id: str, owner: str, oldest_kept: float) -> bytes | None:
    row = db.execute(
        "SELECT CAST(result AS BLOB) FROM answers WHERE id = ? AND owner = ? AND created_at >= ?",
        (answer_id, owner, oldest_kept),
    ).fetchone()
    return row[0] if row else None


def _row_of(turn: Turn) -> Sequence[str]:
    return (
        turn.model,
        turn.system,
        json.dumps(records_of_tools(turn.tools)),
        json_of(turn.messages),
        json.dumps(record_of(turn.answer)),
    )


def _turn_of(row: Sequence[bytes]) -> Turn:
    """Read a row back.

    Raises:
        UnreadableRecordError: It is damaged, or missing.
    """
    try:
        model, system, tools, messages, answer = row
        return Turn(
            model=model.decode(),
            system=system.decode(),
            tools=tools_of(json.loads(tools)),
            messages=tuple(message_of(record) for record in json.loads(messages)),
            answer=message_of(json.loads(answer)),
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableRecordError(str(error)) from error
