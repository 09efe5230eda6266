"""Conversations and finished answers, kept so that a later call can go on with them.

A SQLite database, written in a worker thread. A turn is what the caller added and what the
model answered; both are on disk, in one transaction, before the answer is returned. Its tables
are in `kiro_mcp.server.store_file`.

A conversation only ever grows at its end. Whoever finds that another call has put a turn where
its own should go, because two clients continued the same conversation at once, gets a
conversation of its own that shares the turns before: turns are never mixed.
"""

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import anyio
import anyio.to_thread

from kiro_mcp.errors import InternalFault, InvalidRequest
from kiro_mcp.models import Message, ToolSpec
from kiro_mcp.server.records import (
    UnreadableRecordError,
    message_of,
    record_of,
    records_of_tools,
    tools_of,
)
from kiro_mcp.server.store_file import identity, open_database, transaction

Result = TypeVar("Result")

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

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a later call sends of it, oldest first.

        What was refused is left out: sent again, it would be refused again.
        """
        messages: list[Message] = []
        for turn in self.turns:
            messages += turn.messages
            if not turn.answer.is_refusal:
                messages.append(turn.answer)
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
class Place:
    """Where a turn came to stand."""

    conversation_id: str
    turn: int


@dataclass(slots=True, eq=False)
class _Job:
    """Something to do in the worker thread, for one of its callers."""

    work: Callable[[sqlite3.Connection], Any]
    is_wanted: bool = True
    is_done: bool = False
    result: Any = None
    error: Exception | None = None


class ConversationStore:
    """The store. Opened at its first use; every method works in a worker thread.

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
    ) -> None:
        """Prepare a store; nothing is opened or written yet.

        Args:
            path: The database; None keeps everything in memory.
            lifetime_seconds: What was not used for so long is forgotten.
            now: The time, in seconds since the epoch.
            new_id: Makes the ids of conversations, UUIDs.
        """
        self._path = path
        self._lifetime_seconds = lifetime_seconds
        self._now = now
        self._new_id = new_id
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._left_open: list[sqlite3.Connection] = []
        self._jobs: deque[_Job] = deque()
        self._worker = anyio.Lock(fast_acquire=True)

    async def load(self, conversation_id: str, *, owner: str, up_to_turn: int = 0) -> Conversation:
        """Return a conversation, whole or up to a turn.

        Raises:
            InvalidRequest: `not_found`: there is no such conversation, or no such turn.
        """
        return await self._run(lambda db: _load(db, conversation_id, owner, up_to_turn))

    async def append(
        self,
        place: Place,
        turn: Turn,
        *,
        owner: str,
        forked_from: str = "",
        answer_id: str = "",
        result_at: Callable[[Place], str] = lambda _: "",
    ) -> Place:
        """Write a turn, and the answer that it ends with; return where the turn came to stand.

        Args:
            place: Where it should stand.
            turn: The turn.
            owner: Whose it is.
            forked_from: The conversation whose turns before `place.turn` it continues; "" for
                the conversation itself.
            answer_id: The id of the answer; "" keeps the turn alone.
            result_at: Makes the answer's result, as JSON, once its place is known.
        """

        def work(db: sqlite3.Connection) -> Place:
            stands = self._append(db, place, turn, owner, forked_from)
            if answer_id:
                _put_answer(db, answer_id, owner, self._now(), result_at(stands))
            return stands

        return await self._run(work)

    async def listed(self, *, owner: str) -> tuple[Listed, ...]:
        """Return the owner's latest conversations, the last used first."""
        return await self._run(lambda db: _listed(db, owner))

    async def keep_answer(self, answer_id: str, result: str, *, owner: str) -> None:
        """Write a finished answer that is no turn, such as a failure, as JSON under its id."""
        await self._run(lambda db: _put_answer(db, answer_id, owner, self._now(), result))

    async def answer(self, answer_id: str, *, owner: str) -> str | None:
        """Return a finished answer, or None if the owner has none under the id."""
        return await self._run(lambda db: _answer(db, answer_id, owner))

    async def aclose(self) -> None:
        """Close the database."""
        async with self._worker:
            await anyio.to_thread.run_sync(self._close)

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        job = _Job(work)
        self._jobs.append(job)
        try:
            # One thread at a time, which does all that is waiting: a trip there costs about as
            # much as what is done there.
            async with self._worker:
                if not job.is_done:
                    await anyio.to_thread.run_sync(self._do_all_waiting)
        finally:
            job.is_wanted = False  # Cancelled, it may not have been begun.
        if job.error is not None:
            raise job.error
        return cast("Result", job.result)

    # --- in the worker thread -------------------------------------------------------------

    def _do_all_waiting(self) -> None:
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            if not job.is_wanted:
                continue
            try:
                job.result = self._in_transaction(job.work)
            except Exception as error:
                job.error = error
            job.is_done = True

    def _in_transaction(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            with transaction(self._opened()) as db:
                return work(db)
        except (sqlite3.Error, OSError, ValueError) as error:  # Python reads damaged text, too.
            if self._path:
                self._close()  # Whoever mends or moves the file need not restart the server.
            raise InternalFault(
                f"The store of conversations ({self._path or 'in memory'}) failed: {error}.",
                next_step=f"{_cure(error)}, or set KIRO_MCP_STORE=memory where this server is"
                " configured.",
            ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != identity(self._path):
            self._close()  # It was moved or deleted: what is kept there nobody would find.
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file = identity(self._path)
            with transaction(self._connection) as db:
                _forget(db, before=self._now() - self._lifetime_seconds)
        return self._connection

    def _append(
        self, db: sqlite3.Connection, place: Place, turn: Turn, owner: str, forked_from: str
    ) -> Place:
        source = forked_from or place.conversation_id
        target = place.conversation_id
        values = (place.turn, self._now(), *_row_of(turn), owner)
        if not _put_turn(db, target, values):
            target = self._new_id()
            _put_turn(db, target, values)
        if target != source:
            _copy_turns(db, source, target, place.turn, now=self._now())
        return Place(conversation_id=target, turn=place.turn)

    def _close(self) -> None:
        if self._connection is None:
            return
        if identity(self._path) in (self._file, None):
            self._connection.close()
        else:  # SQLite would delete the log of the file that has its name by now.
            self._left_open.append(self._connection)
        self._connection = None


def _cure(error: Exception) -> str:
    # A store that is sound, but locked, full or not to be written, must not be given up.
    is_of_its_place = isinstance(error, sqlite3.OperationalError | OSError)
    if is_of_its_place and getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
        return "See that its folder can be written and has room, name another one in KIRO_MCP_HOME"
    return "Move it away"


def _forget(db: sqlite3.Connection, *, before: float) -> None:
    db.execute(
        "DELETE FROM turns WHERE conversation_id IN (SELECT conversation_id FROM turns"
        " GROUP BY conversation_id HAVING max(created_at) < ?)",
        (before,),
    )
    db.execute("DELETE FROM answers WHERE created_at < ?", (before,))


def _load(
    db: sqlite3.Connection, conversation_id: str, owner: str, up_to_turn: int
) -> Conversation:
    rows = db.execute(
        "SELECT model, system, tools, messages, answer FROM turns"
        " WHERE conversation_id = ? AND owner = ? ORDER BY turn",
        (conversation_id, owner),
    ).fetchall()
    if not rows:
        raise InvalidRequest(
            f"There is no conversation {conversation_id!r}; it may have been too long unused.",
            next_step="Start a new one: leave conversation_id empty.",
            code="not_found",
        )
    if up_to_turn > len(rows):
        raise InvalidRequest(
            f"The conversation has no turn {up_to_turn}; its last one is {len(rows)}.",
            next_step="Give a turn that it has, or 0 for the last.",
            code="not_found",
        )
    turns = tuple(_turn_of(row) for row in rows[: up_to_turn or None])
    return Conversation(id=conversation_id, turns=turns)


def _listed(db: sqlite3.Connection, owner: str) -> tuple[Listed, ...]:
    rows = db.execute(
        "SELECT conversation_id, max(created_at) AS updated_at, count(*) FROM turns"
        " WHERE owner = ?"
        " GROUP BY conversation_id ORDER BY updated_at DESC, conversation_id LIMIT ?",
        (owner, MAX_LISTED),
    )
    return tuple(Listed(id=id_, updated_at=at, turn_count=count) for id_, at, count in rows)


def _put_answer(
    db: sqlite3.Connection, answer_id: str, owner: str, now: float, result: str
) -> None:
    db.execute(
        "INSERT OR REPLACE INTO answers (id, owner, created_at, result) VALUES (?, ?, ?, ?)",
        (answer_id, owner, now, result),
    )


def _answer(db: sqlite3.Connection, answer_id: str, owner: str) -> str | None:
    row = db.execute(
        "SELECT result FROM answers WHERE id = ? AND owner = ?", (answer_id, owner)
    ).fetchone()
    return row[0] if row else None


def _put_turn(db: sqlite3.Connection, conversation_id: str, values: Sequence[Any]) -> bool:
    """Write a turn; return whether its place was free."""
    row = (conversation_id, *values)
    return db.execute("INSERT OR IGNORE INTO turns VALUES (?,?,?,?,?,?,?,?,?)", row).rowcount == 1


def _copy_turns(
    db: sqlite3.Connection, source: str, target: str, before: int, *, now: float
) -> None:
    db.execute(
        "INSERT INTO turns SELECT ?, turn, ?, model, system, tools, messages, answer, owner"
        " FROM turns WHERE conversation_id = ? AND turn < ?",
        (target, now, source, before),
    )


def _row_of(turn: Turn) -> Sequence[str]:
    messages = [record_of(message) for message in turn.messages]
    return (
        turn.model,
        turn.system,
        json.dumps(records_of_tools(turn.tools)),
        json.dumps(messages),
        json.dumps(record_of(turn.answer)),
    )


def _turn_of(row: Sequence[Any]) -> Turn:
    model, system, tools, messages, answer = row
    try:
        return Turn(
            model=model,
            system=system,
            tools=tools_of(json.loads(tools)),
            messages=tuple(message_of(record) for record in json.loads(messages)),
            answer=message_of(json.loads(answer)),
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableRecordError(str(error)) from error
