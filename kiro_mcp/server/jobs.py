"""Jobs: answers in progress, and the calls that wait for them.

A job runs in a task of the server, and the call that started it waits for it. If the call's waiting
time ends first, the call returns the text so far and the job goes on: it is then *detached*, and
any call can collect its result by its id. Cancelling a call cancels its job, unless another call
waits for the job or the job is detached.

Clients give up on a call after 5 to 60 seconds and tell their model to try again. So a cancellation
because of a timeout detaches the job instead of ending it, and a later call with the same arguments
joins the job. Thus the service is asked and paid only once.

While a call waits, its client gets progress notifications. They keep it from giving up and show a
person that the answer grows. MCP has no streamed results, but a caller that puts
`"kiro-mcp/stream": true` beside its `progressToken` in the call's `_meta` also gets the text, in
the `_meta` of the notifications::

    "kiro-mcp/stream": {"offset": 120, "text": "the text since the last notification"}

`offset` is the number of characters (Unicode code points) before this text. It is 0 again if the
model answers a second time because its answer broke an `output_schema`. The notifications contain
no thinking, and may miss the last characters. The result always has the whole text.
"""

import hashlib
import logging
import math
import os
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

import anyio
import anyio.to_thread
import mcp_types as types
from anyio.abc import TaskGroup

from kiro_mcp.chat import AccessToken, Reply
from kiro_mcp.client.http import Recorder
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.server.arguments import AskArguments
from kiro_mcp.server.attachments import MAX_PATH_CHARACTERS, reader_threads
from kiro_mcp.server.call import CallId
from kiro_mcp.server.results import defect
from kiro_mcp.settings import Settings
from kiro_mcp.wire.json_values import is_larger

logger = logging.getLogger(__name__)

SendProgress: TypeAlias = Callable[[int, str, dict[str, Any]], Awaitable[None]]
"""Sends a progress value, a message and, if there is any, the text since the last notification."""

MAX_REMEMBERED: Final = 100
"""How many finished jobs stay in memory. The store on disk has all their results."""

MAX_DETACHED: Final = 100
"""How many jobs of one credential may run while no call waits for them."""

MAX_DETACHED_SECONDS: Final = 60 * 60.0
"""How long a job may run while no call waits for it."""

JOIN_AFTER_SECONDS: Final = 3.0
"""A call joins a running job with the same question only if it begins this much later.

Calls that begin closer together each want an answer of their own.
"""

ABANDONED_SECONDS: Final = 0.1
"""How long a cancelled call's job runs on: the SDK ends the call before it tells the reason."""

UNCLEAR_SECONDS: Final = 15.0
"""How long it runs on if the reason can mean a timeout as well as a person who stopped the call.

After a timeout the model repeats its call within seconds. Otherwise 15 seconds cost little.
"""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One answer in progress, or one that has just finished."""

    id: str
    """The answer's id."""
    conversation_id: str
    model: str
    turn: int = 1
    """The expected number of the answer's turn in the conversation."""
    caller: str = ""
    """The client that asked, as far as it is known."""
    question: str = ""
    """The result of `question_id` for the call; "" for a job that no other call joins."""
    began_at: float = 0.0
    """When its call began, on the event loop's clock."""
    token: AccessToken | None = None
    """The token for its first request, which its call has already looked up."""
    recorder: Recorder | None = None
    """Records its requests, if calls are captured."""

    pieces: list[str] = field(default_factory=list[str])
    """The text so far. The list only grows; a second answer begins another list."""
    characters: int = 0
    """The length of the answer so far, including thinking."""
    partial: Reply | None = None
    """The reply to save if the job is cancelled: its first whole answer, or a partial one."""
    result: types.CallToolResult | None = None
    why_cancelled: str = "The call was cancelled before its answer was complete."

    calls: list[CallId] = field(default_factory=list[CallId])
    """The calls that wait for it."""
    left_by: CallId | None = None
    """The last call that was cancelled while it waited."""
    is_detached: bool = False
    """Whether it runs on even if no call waits for it."""
    may_be_repeated: bool = False
    """Whether its client has cancelled for a reason that may be a timeout."""
    join_count: int = 0
    """How many repeated calls have joined it."""

    is_saved_whole: bool = False
    """Whether the store has its complete answer."""
    is_delivered: bool = False
    """Whether a caller has received its result."""
    undelivered: str = ""
    """As in the store: its question until a caller has received its result, then ""."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    _changed: anyio.Event | None = None
    """Set when the answer grows or ends; None while nobody waits for that."""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self.ended.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it ended without a result."""
        return self.result is None and not self.is_running

    def add(self, text: str, *, is_thinking: bool = False) -> None:
        """Add a piece of the answer."""
        self.characters += len(text)
        if not is_thinking:
            self.pieces.append(text)
        self._announce()

    async def changed(self) -> None:
        """Wait until the answer grows or the job ends."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def cancel(self, why: str = "") -> None:
        """Stop the job. `why` is the reason, unless its caller cancelled it."""
        self.why_cancelled = why or self.why_cancelled
        self.scope.cancel()

    def end(self) -> None:
        """Tell all that wait for it that it has ended."""
        self.ended.set()
        self._announce()
        self.pieces = []  # The result has the text.

    def _announce(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class Jobs:
    """The jobs of one credential, by the ids of their answers."""

    def __init__(
        self,
        tasks: TaskGroup,
        *,
        max_detached: int = MAX_DETACHED,
        max_detached_seconds: float = MAX_DETACHED_SECONDS,
        join_after_seconds: float = JOIN_AFTER_SECONDS,
    ) -> None:
        self._tasks = tasks
        self._join_after_seconds = join_after_seconds
        self._max_detached = max_detached
        self._max_detached_seconds = max_detached_seconds
        self._running: dict[str, Job] = {}
        self._finished: OrderedDict[str, Job] = OrderedDict()

    @property
    def running(self) -> list[Job]:
        """The jobs that are running, the oldest first."""
        return list(self._running.values())

    def get(self, answer_id: str) -> Job | None:
        """Return a running or recently finished job, unless it was cancelled."""
        job = self._running.get(answer_id) or self._finished.get(answer_id)
        return None if job is None or job.is_cancelled else job

    def to_join(self, question: str, *, began_at: float) -> Job | None:
        """Return the running job that a call with the same question joins, if there is one.

        A job can be joined if it began long enough before the call, or if its client has cancelled
        it for a reason that is or may be a timeout. Of several, the least joined one is returned.
        """
        if not question:
            return None
        candidates = [
            job
            for job in self._running.values()
            if job.question == question
            and not job.scope.cancel_called
            and (
                abs(began_at - job.began_at) >= self._join_after_seconds
                or ((job.is_detached or job.may_be_repeated) and not job.calls)
            )
        ]
        return min(candidates, key=lambda job: job.join_count, default=None)

    def start(self, job: Job, make: Callable[[Job], Awaitable[types.CallToolResult]]) -> None:
        """Start a job in a task of the server. `make` returns its result."""
        self._running[job.id] = job
        self._tasks.start_soon(self._work, job, make)

    async def _work(self, job: Job, make: Callable[[Job], Awaitable[types.CallToolResult]]) -> None:
        """Set a job's result, unless cancelled. An unexpected error must not end other jobs."""
        try:
            with job.scope:
                job.result = await make(job)
        except Exception:
            logger.exception("the answer %s failed", job.id)
            job.result = defect("ask_claude")
        finally:
            job.end()
            self._finished[job.id] = self._running.pop(job.id)
            if len(self._finished) > MAX_REMEMBERED:
                self._finished.popitem(last=False)

    async def wait(
        self,
        job: Job,
        call: CallId,
        send: SendProgress,
        *,
        patience_seconds: float,
        streams_text: bool = False,
    ) -> types.CallToolResult | None:
        """Return a job's result; None if the time is over or the job is cancelled.

        If the wait is cancelled, the job is cancelled, too, unless another call waits for it, it is
        detached, or the client's reason, which follows in a moment, is a timeout.

        Args:
            job: The job.
            call: The call that waits.
            send: Sends progress to that call.
            patience_seconds: How long to wait; 0 for no limit.
            streams_text: Whether the call gets the text while it arrives.
        """
        job.calls.append(call)
        try:
            with anyio.move_on_after(patience_seconds if patience_seconds > 0 else math.inf):
                await report_progress(job, send, streams_text=streams_text)
            if job.is_running and not job.is_detached:
                self._detach(job)
            return job.result
        finally:
            job.calls.remove(call)
            if job.is_running and not job.calls and not job.is_detached:
                job.left_by = call
                self._tasks.start_soon(self._cancel_abandoned, job)

    def note_cancellation(self, call: CallId, reason: object) -> None:
        """Let the job of a cancelled call run on if the reason is, or may be, a timeout."""
        for job in self.running:
            if [call] == (job.calls or [job.left_by]) and not job.is_detached:
                job.may_be_repeated = isinstance(reason, str) and _UNCLEAR in reason
                if says_timed_out(reason):
                    self._detach(job)

    async def stop(self) -> None:
        """Cancel all jobs, and wait until their partial answers are saved."""
        running = self.running
        for job in running:
            job.cancel("The server ended before the answer was complete.")
        for job in running:
            await job.ended.wait()

    def _detach(self, job: Job) -> None:
        job.is_detached = True
        self._tasks.start_soon(self._cancel_uncollected, job)
        detached = [
            other
            for other in self.running
            if other.is_detached and (other is job or not other.calls)
        ]
        for oldest in detached[: -self._max_detached]:
            oldest.cancel("Too many answers ran without a waiting call: the oldest was ended.")

    async def _cancel_abandoned(self, job: Job) -> None:
        with anyio.move_on_after(ABANDONED_SECONDS):
            await job.ended.wait()
        if job.may_be_repeated:
            with anyio.move_on_after(UNCLEAR_SECONDS):
                await job.ended.wait()
        if job.is_running and not job.calls and not job.is_detached:
            job.cancel()

    async def _cancel_uncollected(self, job: Job) -> None:
        """Cancel a detached job when its time is over and no call waits for it."""
        while job.is_running:
            with anyio.move_on_after(self._max_detached_seconds):
                await job.ended.wait()
            if job.is_running and not job.calls:
                job.cancel("Nobody collected the answer, and its time is over.")
                return


# --- progress -----------------------------------------------------------------------------

MIN_INTERVAL_SECONDS: Final = 0.25
"""The shortest time between two notifications."""

STREAM_INTERVAL_SECONDS: Final = 0.05
"""The same for notifications with text: short enough to look smooth."""

HEARTBEAT_SECONDS: Final = 9.0
"""The longest time between two. Clients that expect progress give up after ten seconds or more."""

TAIL_CHARACTERS: Final = 80
"""How many of the last characters of the text a notification shows."""


async def report_progress(
    job: Job,
    send: SendProgress,
    *,
    streams_text: bool = False,
    now: Callable[[], float] = anyio.current_time,
) -> None:
    """Report the progress of a job to one waiting call until the job ends.

    It reports at once, then when the answer grows, but not too often, and after some silence in any
    case. The progress value always grows, as MCP requires.
    """
    interval_seconds = STREAM_INTERVAL_SECONDS if streams_text else MIN_INTERVAL_SECONDS
    began_at, progress = now(), 0
    pieces, sent_pieces, sent_characters = job.pieces, 0, 0
    while job.is_running:
        characters, reported_at = job.characters, now()
        elapsed = reported_at - began_at
        progress = max(progress + 1, round(elapsed * 1000))
        tail = "".join(job.pieces[-TAIL_CHARACTERS:])[-TAIL_CHARACTERS:]  # No piece is empty.
        shown = f": …{' '.join(tail.split())}" if tail.strip() else ""
        message = f"{characters} characters, {elapsed:.1f} s, answer {job.id}{shown}"
        if pieces is not job.pieces:  # A second answer has begun.
            pieces, sent_pieces, sent_characters = job.pieces, 0, 0
        text = "".join(pieces[sent_pieces:])
        piece: dict[str, Any] = {"offset": sent_characters, "text": text} if text else {}
        sent_pieces, sent_characters = len(pieces), sent_characters + len(text)
        await send(progress, message, piece)
        with anyio.move_on_after(reported_at + interval_seconds - now()):
            await job.ended.wait()
        if job.is_running and job.characters == characters:
            with anyio.move_on_after(reported_at + HEARTBEAT_SECONDS - now()):
                await job.changed()


# --- repeated calls -----------------------------------------------------------------------

_TIMED_OUT: Final = re.compile(r"time[d ]?[ -]?out|deadline exceeded|-32001", re.IGNORECASE)
"""The reasons that clients give when they cancel because of a timeout.

TypeScript SDK: `McpError: MCP error -32001: Request timed out`, `Maximum total timeout exceeded`;
Python SDK 2: `timed out after 5.0s`; Rust SDK: `request timeout`; Go SDK: `context deadline
exceeded`. Python SDK 1 does not cancel.
"""

_UNCLEAR: Final = "cancelled by caller"
"""The reason that Codex 0.171 gives both after a timeout and when a person stops it."""

_MAX_REASON_CHARACTERS: Final = 1000

_NOT_PART_OF_THE_QUESTION: Final = frozenset({"wait_seconds", "answer_id", "dry_run"})


def says_timed_out(reason: object) -> bool:
    """Return whether the reason of a cancellation says that the client has timed out."""
    return isinstance(reason, str) and bool(_TIMED_OUT.search(reason[:_MAX_REASON_CHARACTERS]))


def settings_text(settings: Settings) -> str:
    """Return all settings as text for `question_id`. It has the API key: never show it."""
    return f"{settings.api_key.get_secret_value()}\n{settings.model_dump()}"


async def question_id(given: AskArguments, settings: str, secret: bytes) -> str:
    """Return a hash that is equal for calls that ask the same; "" for a call that asks nothing.

    The hash is keyed, so that nobody can use the store to test what was asked. It includes
    `settings`, from `settings_text`, because servers with other settings may use the same store.
    For a file it includes path, size and time of the last change.
    """
    if given.dry_run or given.answer_id:
        return ""
    paths = [
        path
        for path in (*given.files, *given.images)
        if isinstance(path, str) and len(path) <= MAX_PATH_CHARACTERS
    ]
    versions: list[list[int]] = []
    if paths:
        versions = await anyio.to_thread.run_sync(
            lambda: [_file_version(path) for path in paths],
            abandon_on_cancel=True,
            limiter=reader_threads(),
        )
    question = [
        settings,
        {
            name: value
            for name in type(given).model_fields
            if (value := getattr(given, name)) and name not in _NOT_PART_OF_THE_QUESTION
        },
        versions,
    ]
    return await off_loop(lambda: _hash(question, secret), is_large=is_larger(question, SMALL))


def _hash(value: object, secret: bytes) -> str:
    digest = hashlib.blake2b(key=secret, digest_size=32)
    # No recursion, because arguments may nest deeply. Each value begins with its kind and size, so
    # that different values never produce the same bytes.
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            digest.update(b"s%d:" % len(data))
            digest.update(data)
        elif isinstance(value, Mapping):
            members = cast("Mapping[str, Any]", value)
            digest.update(b"m%d:" % len(members))
            for name in sorted(members):
                left += (members[name], name)
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            digest.update(b"l%d:" % len(items))
            left += items
        else:
            digest.update(f"{value!r};".encode())
    return digest.hexdigest()


def _file_version(path: str) -> list[int]:
    try:
        found = os.stat(os.path.expanduser(path))
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]
