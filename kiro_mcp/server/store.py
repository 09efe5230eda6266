"""Conversations and finished answers, saved so that a later call can continue them.

A SQLite database, used by one thread. A turn is what the caller added and what the model answered.
Both are written in one transaction before the answer is returned. The tables::

    conversations   id, owner, updated_at
    histories       conversation_id, turn (from 1), origin
    turns           conversation_id, turn, created_at, model, system, tools, messages, answer
    long_texts      conversation_id, turn, number, text
    answers         id, created_at, result, owner, undelivered

A turn is stored once, under the conversation in which it was made (its origin). `histories` lists
the turns of a conversation: its own, and those that it shares with the conversation from which it
was forked. A turn is deleted with the last history that has it. The tools, messages and answer of a
turn are JSON. A long text in them, such as an image, is a row of `long_texts` instead, because
escaping megabytes would delay all other threads. Owners are described in `kiro_mcp.server.owners`.
A conversation whose `updated_at` is 0 is being deleted. `undelivered` is the `question_id` of
`kiro_mcp.server.jobs` until a caller has received the answer; then it is empty.

A conversation only grows at its end. If two clients continue the same conversation at once, the
second one finds a turn at the position of its own. It gets a new conversation that shares the
earlier turns, so turns are never mixed.

Several servers may use the database at once, because a user may have several clients. The thread
never waits for a lock: while another process has it, the caller waits on the event loop and tries
again, and others can read meanwhile. If the disk is slow, only the thread waits, and the caller
gives up in time. Between calls the thread deletes, in small parts, what is too old or too much.

    a method ─▶ _run ─▶ queue ─▶ _work ─▶ _in_transaction ─▶ SQL      forget_some, when it is due
"""

import asyncio
import json
import logging
import sqlite3
import stat
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread

from kiro_mcp.chat import (
    ImagePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.errors import InternalFault, InvalidRequest, quoted

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Work: TypeAlias = Callable[[sqlite3.Connection], Result]
"""The work of a method, which runs in a transaction in the store's thread."""

PATIENCE_SECONDS: Final = 5.0
"""How long a call waits for a store that another process has locked, or for a slow disk."""

ENDING_SECONDS: Final = 0.15
"""The same while the server ends, which must be gone within half a second."""

FORGET_EVERY_SECONDS: Final = 3600.0
"""How often the store deletes what is too old."""

MAX_ROWS: Final = 100_000
"""How many turns and answers are kept together; the oldest go first."""

MAX_BYTES: Final = 1024 * 1024 * 1024
"""How much is kept on disk."""

MAX_BYTES_IN_MEMORY: Final = 256 * 1024 * 1024

MAX_LISTED: Final = 100
"""How many conversations a listing has: the latest ones."""


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
    """The turns that can be read."""
    last_turn: int = 0
    """The number of the last turn. Turns that cannot be read count, too."""
    warnings: tuple[str, ...] = ()
    """Which turns could not be read."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that a later call sends, oldest first.

        A refused question is left out, because it would be refused again.
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


class Listed(NamedTuple):
    """A conversation in a listing."""

    id: str
    updated_at: float
    """Seconds since the epoch."""
    turn_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a turn."""

    conversation_id: str
    turn: int
    """From 1."""


_START_ANEW: Final = "Start a new one: leave conversation_id empty."

_FIRST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.1
"""How long to wait before a locked store is tried again. The wait doubles up to this."""

_BATCH_PAUSE_SECONDS: Final = 0.02
"""How long the thread leaves the store to others between two deletions."""


class ConversationStore:
    """The store. It is opened at its first use. Every method works in the store's thread.

    Each method raises `InternalFault` if the database cannot be used. Each takes the owner for whom
    the call acts, and finds nothing that belongs to somebody else.
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
            lifetime_seconds: Conversations and answers not used for this time are deleted.
            now: The time, in seconds since the epoch.
            new_id: Makes the ids of conversations, UUIDs.
            forget_every_seconds: How often to delete what is too old.
            max_rows: How many turns and answers together are kept.
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
        self._jobs: SimpleQueue[tuple[Work[Any], bool, asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread: Thread | None = None
        # The rest belongs to the thread.
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._left_open: list[sqlite3.Connection] = []
        self._next_forgetting = time.monotonic()
        self._writes_until_check = 0

    async def load(self, conversation_id: str, *, owner: str, up_to_turn: int = 0) -> Conversation:
        """Return a conversation, whole or up to a turn.

        Raises:
            InvalidRequest: `not_found`: the owner has no such conversation, or it has no such turn.
        """
        _require_id("conversation_id", conversation_id)

        def work(db: sqlite3.Connection) -> Conversation:
            last_turn = _count_turns(db, conversation_id, owner, since=self._oldest_kept())
            if not last_turn:
                raise InvalidRequest(
                    f"Unknown conversation {quoted(conversation_id)}: it may have been too long"
                    " unused.",
                    next_step=_START_ANEW,
                    code="not_found",
                )
            if up_to_turn > last_turn:
                raise InvalidRequest(
                    f"The conversation has no turn {up_to_turn}; its last one is {last_turn}.",
                    next_step="Give a turn that it has, or 0 for the last.",
                    code="not_found",
                )
            last = up_to_turn or last_turn
            found = list(_read_turns(db, conversation_id, last))
            turns = tuple(turn for _, turn in found if turn)
            warnings = tuple(
                f"Turn {number} of the conversation {conversation_id!r} is damaged in"
                f" {self._path or 'memory'}, so it was left out."
                for number, turn in found
                if not turn
            )
            if not turns:
                raise InternalFault(" ".join(warnings), next_step=_START_ANEW)
            return Conversation(id=conversation_id, turns=turns, last_turn=last, warnings=warnings)

        return await self._run(work, writes=False)

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
        """Write a turn and the answer that ends it; return the position of the turn.

        If another call has continued the conversation meanwhile, the turn gets a new conversation.
        Then the answer is not written, because its result names the wrong position.

        Args:
            position: The intended position of the turn.
            turn: The turn.
            owner: Its owner.
            forked_from: The conversation whose turns before `position.turn` it continues; "" for
                the conversation itself.
            answer_id: The id of the answer; "" saves the turn alone.
            result: The answer's result, as JSON.
            undelivered: The id of the question, if nobody waits for the answer any more.

        Raises:
            InternalFault: Also if the earlier turns were deleted after they were loaded. Then only
                the answer is saved.
        """
        source = forked_from or position.conversation_id
        number = position.turn

        def work(db: sqlite3.Connection) -> Position | None:
            target = position.conversation_id
            is_taken = (
                target == source
                and db.execute(
                    "SELECT 1 FROM histories WHERE conversation_id = ? AND turn = ?",
                    (target, number),
                ).fetchone()
            )
            if is_taken:
                target = self._new_id()
            if answer_id and not is_taken:
                self._put_answer(db, answer_id, result, owner, undelivered)
            if number > 1 and _count_turns(db, source, owner) < number - 1:
                return None
            if target != source:
                db.execute(
                    "INSERT INTO histories SELECT ?, turn, origin FROM histories"
                    " WHERE conversation_id = ? AND turn < ?",
                    (target, source, number),
                )
            now = self._now()
            db.execute(
                "INSERT INTO conversations VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at",
                (target, owner, now),
            )
            db.execute("INSERT INTO histories VALUES (?, ?, ?)", (target, number, target))
            row, long_texts = _row_of(turn)
            db.execute(
                "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (target, number, now, *row)
            )
            db.executemany(
                "INSERT INTO long_texts VALUES (?, ?, ?, ?)",
                (
                    (target, number, text_number, text.encode(errors="surrogatepass"))
                    for text_number, text in enumerate(long_texts)
                ),
            )
            return Position(conversation_id=target, turn=number)

        if (stands := await self._run(work, writes=True)) is None:
            raise InternalFault(
                f"The conversation {source!r} was forgotten while its answer was on its way.",
                next_step=_START_ANEW,
            )
        return stands

    async def listed(self, *, owner: str) -> tuple[Listed, ...]:
        """Return the owner's latest conversations, the last used first."""

        def work(db: sqlite3.Connection) -> tuple[Listed, ...]:
            rows = db.execute(
                "SELECT id, updated_at,"
                " (SELECT count(*) FROM histories WHERE conversation_id = id)"
                " FROM conversations WHERE owner = ? AND updated_at >= ?"
                " ORDER BY updated_at DESC, id LIMIT ?",
                (owner, self._oldest_kept(), MAX_LISTED),
            )
            return tuple(map(Listed._make, rows))

        return await self._run(work, writes=False)

    async def save_answer(
        self, answer_id: str, result: str, *, owner: str, undelivered: str = ""
    ) -> None:
        """Write a finished answer, such as a failure, as JSON under its id."""
        await self._run(
            lambda db: self._put_answer(db, answer_id, result, owner, undelivered),
            writes=True,
        )

    async def answer(self, answer_id: str, *, owner: str) -> bytes | None:
        """Return a finished answer's JSON, or None if the owner has none under the id."""
        _require_id("answer_id", answer_id)
        row = await self._run(
            lambda db: db.execute(
                "SELECT CAST(result AS BLOB) FROM answers"
                " WHERE id = ? AND owner = ? AND created_at >= ?",
                (answer_id, owner, self._oldest_kept()),
            ).fetchone(),
            writes=False,
        )
        return row[0] if row else None

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
                join = partial(self._thread.join, ENDING_SECONDS)
                await anyio.to_thread.run_sync(join, abandon_on_cancel=True)

    async def _run(self, work: Work[Result], *, writes: bool) -> Result:
        """Do something in the thread, in a transaction.

        The caller never waits longer than its patience. The thread finishes what it has begun.
        """
        if self._thread is None:
            # A daemon: a disk that does not answer must not keep the process from ending.
            self._thread = Thread(target=self._work, name="conversations", daemon=True)
            self._thread.start()
        pause = _FIRST_PAUSE_SECONDS
        reason = "did not answer in time"
        with anyio.move_on_after(self._patience_seconds) as scope:
            self._waiting.add(scope)
            try:
                while True:
                    # Not one of `concurrent.futures`, whose locks would cost 30 us a call.
                    result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
                    self._jobs.put((work, writes, result))
                    try:
                        return await result
                    except sqlite3.OperationalError:  # Only if another process has the lock.
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

    @property
    def _name(self) -> str:
        return f"The store of conversations ({self._path or 'in memory'})"

    # --- in the store's thread ------------------------------------------------------------

    def _work(self) -> None:
        """Do one job after the other, and delete when it is due, until the store closes."""
        while True:
            wait = None
            if self._connection:
                wait = self._next_forgetting - time.monotonic()
                if wait <= 0:
                    self._forget_some(self._connection)
                    continue
            try:
                job = self._jobs.get(timeout=wait)
            except Empty:
                continue
            if job is None:
                break
            work, writes, result = job
            if result.cancelled():
                continue
            try:
                done = partial(result.set_result, self._in_transaction(work, writes=writes))
            except Exception as error:
                done = partial(result.set_exception, error)
            with suppress(RuntimeError):  # The event loop has closed meanwhile.
                result.get_loop().call_soon_threadsafe(_unless_cancelled, result, done)
            if writes and self._connection:
                self._writes_until_check -= 1
                with suppress(sqlite3.Error):
                    is_due = self._writes_until_check < 0
                    if is_due or used_bytes(self._connection) > self._max_bytes:
                        self._next_forgetting = min(self._next_forgetting, time.monotonic())
        with suppress(sqlite3.Error):
            self._close()

    def _in_transaction(self, work: Work[Result], *, writes: bool) -> Result:
        try:
            with transaction(self._opened(), writes=writes) as db:
                return work(db)
        except NewerStoreError as error:
            self._close()
            raise InternalFault(
                f"{self._name} is left alone: {error}.",
                next_step="Update kiro-mcp, or name another folder in KIRO_MCP_HOME.",
            ) from error
        except (sqlite3.Error, OSError, ValueError) as error:  # Python reads damaged text, too.
            if is_busy(error):
                raise
            # A store that is sound, but full or not to be written, must not be given up.
            cure = "Move it away"
            is_of_its_place = isinstance(error, sqlite3.OperationalError | OSError)
            if is_of_its_place and getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
                cure = (
                    "See that its folder can be written and has room, name another one in"
                    " KIRO_MCP_HOME"
                )
            if self._path:
                self._close()  # A person who repairs or moves the file need not restart the server.
            raise InternalFault(
                f"{self._name} failed: {error}.",
                next_step=f"{cure}, or set KIRO_MCP_STORE=memory where this server is configured.",
            ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != identity(self._path):
            self._close()  # It was moved or deleted: nobody would find what is saved there.
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file = identity(self._path)
            self._next_forgetting = time.monotonic()
        return self._connection

    def _forget_some(self, db: sqlite3.Connection) -> None:
        """Delete a small part of what is too old or too much, and say when to go on."""
        pause = self._forget_every_seconds
        try:
            is_ours = self._file == identity(self._path)
            limits = (self._oldest_kept(), self._max_rows, self._max_bytes)
            if is_ours and forget_some(db, *limits):
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
        # Never 0, because 0 marks rows that are being deleted.
        return max(self._now() - self._lifetime_seconds, 1.0)

    def _put_answer(
        self, db: sqlite3.Connection, answer_id: str, result: str, owner: str, undelivered: str
    ) -> None:
        row = (answer_id, self._now(), result, owner, undelivered)
        db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)

    def _close(self) -> None:
        if self._connection is None:
            return
        if identity(self._path) in (self._file, None):
            self._connection.close()
        else:  # Closing would delete the log of another file, which has its name by now.
            self._left_open.append(self._connection)
        self._connection = None


def _count_turns(
    db: sqlite3.Connection, conversation_id: str, owner: str, since: float = 1.0
) -> int:
    """Count the turns of an owner's conversation; 0 if it is being deleted, or older."""
    (count,) = db.execute(
        "SELECT count(*) FROM conversations JOIN histories ON conversation_id = id"
        " WHERE id = ? AND owner = ? AND updated_at >= ?",
        (conversation_id, owner, since),
    ).fetchone()
    return count


def _unless_cancelled(result: asyncio.Future[Any], done: Callable[[], None]) -> None:
    if not result.cancelled():  # Its caller may have given up.
        done()


def _require_id(name: str, value: str) -> None:
    """Refuse half a character, which neither a database nor UTF-8 can hold.

    Raises:
        InvalidRequest: The id has half of a surrogate pair, or the character that replaces one.
    """
    if any("\ud800" <= character <= "\udfff" or character == "\ufffd" for character in value):
        raise InvalidRequest(
            f"{name} is {quoted(value)}, which has half a character.",
            next_step=f"Give the {name} exactly as ask_claude returned it.",
        )


# --- turns as rows, and back ------------------------------------------------------------------
#
# Each part is stored with its kind, because several kinds have the same members.

LONG_CHARACTERS: Final = 64 * 1024
"""A text of at least this length is stored as it is, outside its turn's JSON."""

_KINDS: Final[Mapping[str, type[Any]]] = {
    "text": TextPart,
    "thinking": ThinkingPart,
    "tool_use": ToolUse,
    "tool_result": ToolResult,
    "image": ImagePart,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_MEMBERS: Final = {
    kind: tuple(field.name for field in fields(kind) if field.compare)
    for kind in (*_NAMES, ToolSpec)
} | {Message: ("role", "parts", "is_truncated", "is_refusal")}
"""The members that are stored. The text of a tool use's arguments is not."""

_OBJECTS: Final = {(ToolUse, "arguments"), (ToolResult, "data"), (ToolSpec, "input_schema")}
"""Members with a JSON object of a caller or a model, in which `long` means nothing."""


def _row_of(turn: Turn) -> tuple[Sequence[str], Sequence[str]]:
    """Return the columns of a turn, and its long texts: `{"long": 0}` stands for the first."""
    long_texts: list[str] = []

    def write(value: Any) -> dict[str, Any]:
        # Not `asdict`, which copies all that is inside, such as megabytes of arguments.
        record = {name: getattr(value, name) for name in _MEMBERS[type(value)]}
        for name, member in record.items():
            if isinstance(member, str) and len(member) >= LONG_CHARACTERS:
                record[name] = {"long": len(long_texts)}
                long_texts.append(member)
        return {"kind": _NAMES[type(value)], **record} if type(value) in _NAMES else record

    tools, messages, answer = (
        json.dumps(value, default=write) for value in (turn.tools, turn.messages, turn.answer)
    )
    return (turn.model, turn.system, tools, messages, answer), long_texts


def _read_turns(
    db: sqlite3.Connection, conversation_id: str, last: int
) -> Generator[tuple[int, Turn | None]]:
    """Yield the numbers and turns of a history, None for one that is damaged or missing."""
    long_texts: dict[int, dict[int, bytes]] = {}
    for turn, number, text in db.execute(
        "SELECT histories.turn, number, CAST(text AS BLOB) FROM histories JOIN long_texts"
        " ON long_texts.conversation_id = origin AND long_texts.turn = histories.turn"
        " WHERE histories.conversation_id = ? AND histories.turn <= ?",
        (conversation_id, last),
    ):
        long_texts.setdefault(turn, {})[number] = text
    # As bytes, because SQLite refuses a whole result if one text in it is damaged.
    for turn, *row in db.execute(
        "SELECT histories.turn, CAST(model AS BLOB), CAST(system AS BLOB),"
        " CAST(tools AS BLOB), CAST(messages AS BLOB), CAST(answer AS BLOB)"
        " FROM histories LEFT JOIN turns"
        " ON turns.conversation_id = origin AND turns.turn = histories.turn"
        " WHERE histories.conversation_id = ? AND histories.turn <= ? ORDER BY histories.turn",
        (conversation_id, last),
    ):
        try:
            yield turn, _turn_of(row, long_texts.get(turn, {}))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            yield turn, None


def _turn_of(row: Sequence[bytes], long_texts: Mapping[int, bytes]) -> Turn:
    def read(record: Mapping[str, Any], kind: type[Any]) -> Any:
        members = {name: member for name, member in record.items() if name != "kind"}
        for name, member in members.items():
            if isinstance(member, dict) and (kind, name) not in _OBJECTS:
                long = cast("dict[str, int]", member)["long"]
                members[name] = long_texts[long].decode(errors="surrogatepass")
        if kind is Message:
            members["parts"] = tuple(read(part, _KINDS[part["kind"]]) for part in members["parts"])
        if kind is ToolResult:
            members["images"] = tuple(read(image, ImagePart) for image in members["images"])
        if kind is ToolUse:
            members["schema_errors"] = tuple(members["schema_errors"])
        return kind(**members)

    tools, messages, answer = map(json.loads, row[2:])
    return Turn(
        model=row[0].decode(),
        system=row[1].decode(),
        tools=tuple(read(tool, ToolSpec) for tool in tools),
        messages=tuple(read(message, Message) for message in messages),
        answer=read(answer, Message),
    )


# --- the database: how it is opened and kept small -----------------------------------------

BATCH_SECONDS: Final = 0.02
"""How long one deletion may hold the write lock, and delay a call."""

MAX_FREE_PAGES: Final = 1024
"""How many pages of 4 KiB are kept for new rows instead of being given back to the disk."""

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
"""The size to which the write-ahead log is cut after it was copied into the database."""

MAX_COPIED_BYTES: Final = 32 * 1024 * 1024
"""The largest older store that is copied, in one step, so that it gives back its space."""

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
    """
    CREATE TABLE long_texts (
        conversation_id TEXT NOT NULL, turn INTEGER NOT NULL, number INTEGER NOT NULL,
        text BLOB NOT NULL, PRIMARY KEY (conversation_id, turn, number),
        FOREIGN KEY (conversation_id, turn) REFERENCES turns ON DELETE CASCADE
    );
    """,
)
"""Each one updates the schema by one version. `PRAGMA user_version` counts them."""

SCHEMA_VERSION: Final = len(_MIGRATIONS)


class NewerStoreError(Exception):
    """The database has a schema that only a newer version of this package knows."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"it was made by a newer version of kiro-mcp (schema {version}; this one knows"
            f" {SCHEMA_VERSION})"
        )


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open the store and create it if it is missing; None opens a store in memory.

    Raises:
        NewerStoreError: It is left as it is.
        OSError: It cannot be made, or something else has its name.
        sqlite3.Error: The file is not a store, or another program is using it.
    """
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Created before SQLite does so, so that others can never read it.
        path.touch(mode=0o600)
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is not a regular file")
    target = ":memory:" if path is None else str(path)
    db = sqlite3.connect(target, timeout=0, check_same_thread=False, isolation_level=None)
    try:
        is_old = _version(db) < SCHEMA_VERSION
        if is_old:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # Has no effect once there is a table.
        # A write-ahead log lets others read while one writes.
        db.execute("PRAGMA journal_mode = WAL")
        # With the log, nothing is lost if the process is killed, only in a power failure.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
        db.execute("PRAGMA foreign_keys = ON")
        if is_old:
            with transaction(db, writes=True):
                # Another process may have been faster.
                for number, script in enumerate(_MIGRATIONS[_version(db) :], _version(db) + 1):
                    for statement in filter(str.strip, script.split(";")):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {number}")
    except BaseException:
        db.close()
        raise
    return db


def is_busy(error: Exception) -> bool:
    """Return whether an error only says that another process is using the database."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # The upper bits are details.
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def identity(path: Path | None) -> tuple[int, int] | None:
    """Return what identifies a file under any name; None if it is missing."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


@contextmanager
def transaction(db: sqlite3.Connection, *, writes: bool) -> Generator[sqlite3.Connection]:
    """Write everything that the block writes, or nothing if it raises.

    Without `writes`, take no lock, so that readers and writers do not wait for each other.

    Raises:
        NewerStoreError: A newer version has changed the schema since the database was opened.
    """
    db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        _version(db)
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite ends it by itself if, for example, the disk is full.
            db.execute("ROLLBACK")
        raise


def used_bytes(db: sqlite3.Connection) -> int:
    """Return the size of what is stored, without the free space in the file."""
    return (_pragma(db, "page_count") - _pragma(db, "freelist_count")) * _pragma(db, "page_size")


def forget_some(db: sqlite3.Connection, before: float, max_rows: int, max_bytes: int) -> bool:
    """Delete a small part of what is too old or too much; return whether more is left to do.

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
    """Delete a conversation's last turn, or an empty conversation; return the number of rows."""
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


def _version(db: sqlite3.Connection) -> int:
    if (version := _pragma(db, "user_version")) > SCHEMA_VERSION:
        raise NewerStoreError(version)
    return version


def _pragma(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return value
