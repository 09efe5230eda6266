"""Answers that outlive the call that asked for them.

Every answer is worked on in a task of the server, not of the call. The call waits for it; when
its patience ends it returns what there is and leaves the answer to go on, to be collected by its
id, by one caller or by several. A call that is cancelled cancels its answer, unless another call
waits for it or it was left to go on before. If the client cancelled because of a timeout, the
answer goes on: the model is going to repeat the call, which then joins the answer.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import mcp_types as types
from anyio.abc import TaskGroup

from kiro_mcp.chat import Reply
from kiro_mcp.client.http import Recorder
from kiro_mcp.server.owners import OWN
from kiro_mcp.server.progress import TAIL_CHARACTERS, ProgressReporter
from kiro_mcp.server.repeats import CallId
from kiro_mcp.server.results import defect

logger = logging.getLogger(__name__)

MAX_REMEMBERED: Final = 100
"""How many finished answers are held in memory; the store on disk has them all."""

MAX_DETACHED: Final = 100
"""How many answers of one credential may go on without anybody waiting for them."""

MAX_DETACHED_SECONDS: Final = 60 * 60.0
"""How long an answer may go on without anybody waiting for it."""

JOIN_AFTER_SECONDS: Final = 3.0
"""How much later a call must begin to join a running answer to the same question.

Calls that begin closer together are meant to get an answer each.
"""

ABANDONED_SECONDS: Final = 0.1
"""How long a cancelled call's answer goes on: the SDK ends the call before it says why."""


@dataclass(slots=True, kw_only=True, eq=False)
class RunningAnswer:
    """An answer that is being worked on, or has just been finished."""

    id: str
    conversation_id: str
    model: str
    turn: int = 1
    """Which turn of the conversation it is to be."""
    owner: str = OWN
    """Whose it is; nobody else can find it."""
    recorder: Recorder | None = None
    """What notes its requests, where calls are captured."""
    result: types.CallToolResult | None = None
    """The finished result; None while it is worked on."""
    partial: Reply | None = None
    """What is kept of it where it is cancelled: its first whole answer, or the part that came."""
    caller: str = ""
    """Which client asked, as far as that can be told."""
    why_cancelled: str = "The call was cancelled before its answer was complete."
    """What the part that came says if the answer is cancelled."""
    is_detached: bool = False
    """Whether it goes on without anybody waiting."""
    question: str = ""
    """What is equal for calls that ask the same; "" for an answer that no other call joins."""
    began_at: float = 0.0
    """When its call began, on the event loop's clock."""
    joined: int = 0
    """How many repeated calls have joined it."""
    is_whole: bool = False
    """Whether it came to its end, and is kept."""
    is_delivered: bool = False
    """Whether a caller has got its result."""
    marked_undelivered: str = ""
    """What the store says in `undelivered`, once it is kept."""
    calls: list[CallId] = field(default_factory=list[CallId])
    """The calls that wait for it."""
    left_by: CallId | None = None
    """The last call that was cancelled while it waited."""
    _pieces: list[str] = field(default_factory=list[str])
    _characters: int = 0
    _tail: str = ""
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _ended: anyio.Event = field(default_factory=anyio.Event)
    _changed: anyio.Event | None = None
    """There while somebody waits for it."""

    @property
    def watchers(self) -> int:
        """How many calls wait for it."""
        return len(self.calls)

    @property
    def text(self) -> str:
        """The text until now."""
        return "".join(self._pieces)

    @property
    def pieces(self) -> Sequence[str]:
        """The text until now in pieces. It only grows; a second answer begins another list."""
        return self._pieces

    @property
    def characters(self) -> int:
        """How much has come until now, thinking included."""
        return self._characters

    @property
    def tail(self) -> str:
        """The end of the text until now, as much as progress shows."""
        return self._tail

    def take(self, text: str, *, is_thinking: bool = False) -> None:
        """Note what has come."""
        self._characters += len(text)
        if not is_thinking:
            self._pieces.append(text)
            self._tail = (self._tail + text)[-TAIL_CHARACTERS:]
        self._announce()

    def begin_anew(self) -> None:
        """Forget the text until now: the model answers a second time."""
        self._pieces = []
        self._tail = ""

    def finish(self, result: types.CallToolResult) -> None:
        """Note the result, for everybody who waits."""
        self.result = result
        self._announce()

    async def changed(self) -> None:
        """Wait until something has come."""
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def cancel(self, why: str = "") -> None:
        """Stop working on it; say why, if its caller did not end it."""
        self.why_cancelled = why or self.why_cancelled
        self._scope.cancel()

    async def work(
        self, make: Callable[["RunningAnswer"], Awaitable[types.CallToolResult]]
    ) -> None:
        """Make the result, unless cancelled. A defect is a result, too: it must end no others."""
        try:
            with self._scope:
                self.finish(await make(self))
        except Exception:
            logger.exception("the answer %s failed", self.id)
            self.finish(defect("ask_claude"))
        finally:
            self._ended.set()
            self._announce()

    @property
    def is_ending(self) -> bool:
        """Whether it has been cancelled."""
        return self._scope.cancel_called

    @property
    def is_unfinished(self) -> bool:
        """Whether it is still worked on."""
        return not self._ended.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it came to its end without a result."""
        return self.result is None and self._ended.is_set()

    async def ended(self) -> None:
        """Wait until nothing works on it any more."""
        await self._ended.wait()

    def _announce(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class Answers:
    """The answers of one server, by their ids."""

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
        self._answers: OrderedDict[str, RunningAnswer] = OrderedDict()

    @property
    def is_busy(self) -> bool:
        """Whether any answer is still worked on."""
        return any(answer.is_unfinished for answer in self._answers.values())

    def get(self, answer_id: str, *, owner: str) -> RunningAnswer | None:
        """Return an owner's answer that is running or has just finished, unless cancelled."""
        answer = self._answers.get(answer_id)
        if answer is None or answer.is_cancelled or answer.owner != owner:
            return None
        return answer

    def unfinished_in(self, conversation_id: str, *, owner: str) -> RunningAnswer | None:
        """Return an answer that is still running in this conversation of an owner, if any."""
        for answer in self._answers.values():
            is_theirs = answer.owner == owner and answer.conversation_id == conversation_id
            if is_theirs and answer.is_unfinished:
                return answer
        return None

    def to_join(self, question: str, *, owner: str, began_at: float) -> RunningAnswer | None:
        """Return a running answer that a call with the same question joins, if there is one.

        It is one that began long enough before, or that its client has given up because of a
        timeout. Of several, the one that the fewest calls have joined.
        """
        candidates = [
            answer
            for answer in self._answers.values()
            if question
            and (answer.question, answer.owner) == (question, owner)
            and answer.is_unfinished
            and not answer.is_ending
            and (
                abs(began_at - answer.began_at) >= self._join_after_seconds
                or (answer.is_detached and not answer.watchers)
            )
        ]
        return min(candidates, key=lambda answer: answer.joined, default=None)

    def start(
        self,
        answer: RunningAnswer,
        make: Callable[[RunningAnswer], Awaitable[types.CallToolResult]],
    ) -> None:
        """Begin to work on an answer."""
        self._answers[answer.id] = answer
        self._forget_oldest()
        self._tasks.start_soon(answer.work, make)

    async def collect(
        self,
        answer: RunningAnswer,
        *,
        wait_seconds: float,
        progress: ProgressReporter,
        call: CallId = ("", ""),
    ) -> types.CallToolResult | None:
        """Wait for a result, reporting progress; None when patience ends before the answer.

        Cancelled, it cancels the answer, if nobody else waits, it was not left to go on, and the
        client does not say that it has timed out.
        """
        answer.calls.append(call)
        try:
            with anyio.move_on_after(wait_seconds if wait_seconds > 0 else math.inf):
                await _watch(answer, progress)
            if answer.is_unfinished and not answer.is_detached:
                self._detach(answer)
            return answer.result
        finally:
            answer.calls.remove(call)
            if answer.is_unfinished and not answer.watchers and not answer.is_detached:
                answer.left_by = call
                self._tasks.start_soon(self._end_abandoned, answer)

    def has_timed_out(self, call: CallId) -> None:
        """Leave the answer of a call to go on: its client has cancelled because of a timeout."""
        for answer in self._answers.values():
            is_last = [call] == (answer.calls or [answer.left_by])
            if is_last and answer.is_unfinished and not answer.is_detached:
                self._detach(answer)

    async def stop(self) -> None:
        """Cancel what is worked on, and wait until what had come of it is kept."""
        running = [answer for answer in self._answers.values() if answer.is_unfinished]
        for answer in running:
            answer.cancel("The server ended before the answer was complete.")
        for answer in running:
            await answer.ended()

    def _detach(self, answer: RunningAnswer) -> None:
        answer.is_detached = True
        self._tasks.start_soon(self._end_uncollected, answer)
        self._end_oldest_detached(latest=answer)

    async def _end_abandoned(self, answer: RunningAnswer) -> None:
        with anyio.move_on_after(ABANDONED_SECONDS):
            await answer.ended()
        if answer.is_unfinished and not answer.watchers and not answer.is_detached:
            answer.cancel()

    async def _end_uncollected(self, answer: RunningAnswer) -> None:
        """End a detached answer that nobody waits for when its time is over."""
        while answer.is_unfinished:
            with anyio.move_on_after(self._max_detached_seconds):
                await answer.ended()
            if answer.is_unfinished and not answer.watchers:
                answer.cancel("Nobody collected the answer: it went on for as long as it may.")
                return

    def _end_oldest_detached(self, *, latest: RunningAnswer) -> None:
        detached = [
            answer
            for answer in self._answers.values()
            if answer.is_unfinished
            and answer.is_detached
            and (answer is latest or not answer.watchers)
        ]
        for answer in detached[: -self._max_detached]:
            answer.cancel("Too many answers were left to go on: the oldest was ended.")

    def _forget_oldest(self) -> None:
        if len(self._answers) <= MAX_REMEMBERED:
            return
        finished = (key for key, answer in self._answers.items() if not answer.is_unfinished)
        if (oldest := next(finished, None)) is not None:
            del self._answers[oldest]


async def _watch(answer: RunningAnswer, progress: ProgressReporter) -> None:
    """Report until there is a result: on what comes, but not too often, and in silence."""
    while answer.is_unfinished:
        reported = answer.characters
        await progress.report(characters=reported, tail=answer.tail)
        with anyio.move_on_after(progress.seconds_until_due):
            await answer.ended()
        if answer.is_unfinished and answer.characters == reported:
            with anyio.move_on_after(progress.seconds_until_heartbeat):
                await answer.changed()
