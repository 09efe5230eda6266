"""One process of the program with one conversation.

Its states::

    starting     the process does not run yet
    opening      the program is opening the conversation
    ready        no prompt is open
    generating   a prompt is open, and a call reads its answer
    waiting      the answer ended with tool calls, and the prompt waits for their results
    deferred     the calls were told to go on without results, which will be a new prompt
    ended        it cannot be used any more

The prompt and its response belong to the session, not to the call that sent it: a round of tool
calls ends a call, and the next call goes on with the same prompt. What the program says while it
is not generating is left out.

`Session.run` lives in a task of the client, reads the process and, at the end, stops its whole
process group and removes its private folder.
"""

import glob
import json
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import anyio
import anyio.to_thread
from anyio.abc import Process, TaskGroup

from kiro_mcp.acp.bridge import Bridge, HeldCall, ToolDesk
from kiro_mcp.acp.dialects import INITIALIZE, Dialect, breach_error
from kiro_mcp.acp.errors import RpcError, error_of
from kiro_mcp.acp.program import STOP_SECONDS, Program, start, stop
from kiro_mcp.acp.rpc import Peer
from kiro_mcp.acp.transcript import RESULT_FOLLOWS
from kiro_mcp.chat import JsonObject, JsonValue, ToolResult
from kiro_mcp.errors import KiroError, ServiceUnavailable
from kiro_mcp.wire.events import ContextUsage, Event, Metering, Stop, ToolUseFragment
from kiro_mcp.wire.history import result_text
from kiro_mcp.wire.json_values import json_text, object_member, object_members, word_member

State = Literal["starting", "opening", "ready", "generating", "waiting", "deferred", "ended"]

MAX_EVENTS: Final = 1_000
"""How many events may wait for their reader; then the process has to wait."""

ROUND_SECONDS: Final = 0.15
"""How long no further call must arrive until those that did are a round."""

LATE_USAGE_SECONDS: Final = 0.2
"""How long the figures of an answer are waited for after its end."""

CLOSE_SECONDS: Final = 5.0
"""How long a conversation may take to end in a process that goes on."""

NO_RESULT: Final = "The caller gave no result for this call."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of sessions. Seconds."""

    start_up: float | None = None
    """The time for each request of the start; None for the dialect's."""
    hold: float | None = None
    """How long a call of a tool is held; None for the dialect's."""
    idle: float = 15 * 60.0
    """How long a session may be unused."""
    age: float = 60 * 60.0
    turns: int = 50
    """How many turns a process may have: its memory grows."""


@dataclass(kw_only=True, eq=False)
class Session:
    """One process and its conversation. Made by the client, which runs `run` in a task."""

    program: Program
    dialect: Dialect
    limits: Limits
    bridge: Bridge | None
    """Where the caller's tools are served; None if there are none."""
    state: State = "starting"
    is_taken: bool = True
    """Whether a call uses it."""
    heard: list[object] = field(default_factory=list[object])
    """The conversation that it has had; empty while it is not known."""
    turns: int = 0
    used_at: float = field(default_factory=anyio.current_time)
    stop_seconds: float = STOP_SECONDS
    """How long the process may take to end, before each signal."""
    why_ended: KiroError | None = None

    def __post_init__(self) -> None:
        self.desk = ToolDesk(self.dialect.spec.tools, self._on_call) if self.bridge else None
        self._started_at = self.used_at
        self._round: tuple[HeldCall, ...] = ()
        """The calls whose results it waits for."""
        self._events: deque[Event] = deque()
        self._kinds: set[type[Event]] = set()
        """The kinds of the events of this turn."""
        self._changed = anyio.Event()
        self._gone = anyio.Event()
        self._home: Path
        self._peer: Peer
        self._tasks: TaskGroup

    def _change(self) -> None:
        """Tell those who wait that something has changed."""
        self._changed.set()
        self._changed = anyio.Event()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, or the session has ended."""
        while not (is_so() or self.is_ended):
            await self._changed.wait()

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Start the process, read it until it ends or `end` is called, and stop it."""
        process: Process | None = None
        self._home = home = Path(await anyio.to_thread.run_sync(make_private_folder))
        served = ExitStack()
        try:
            if self.bridge and self.desk:
                served.enter_context(self.bridge.serving(self.desk))
            files = self.dialect.files(self.desk)
            await anyio.to_thread.run_sync(_write_files, home, files)
            environ = {**self.program.environ, "KIRO_HOME": str(home)}
            if self.dialect.name == "v3":  # Whether V3 can use a key is not known; it has a login.
                environ.pop("KIRO_API_KEY", None)
            command = (*self.program.command, *self.dialect.arguments())
            process = await start(command, environ, cwd=home / "empty")
            self._peer = Peer(
                process, on_notification=self._on_notification, on_request=self._on_request
            )
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._read)
                self._tasks.start_soon(self._grow_old)
                if not self.is_ended:
                    self.state = "opening"
                    self._change()
                await self._until(lambda: False)
                with anyio.move_on_after(0.1), suppress(KiroError):
                    cancelled: JsonObject = {"sessionId": self.dialect.session_id}
                    await self._peer.notify("session/cancel", cancelled)
                self._tasks.cancel_scope.cancel()
        except KiroError as error:
            self.end(error)
        finally:
            self.end()
            with anyio.CancelScope(shield=True):
                served.close()
                if process:
                    await stop(process, seconds=self.stop_seconds)
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(home, ignore_errors=True))
            self._gone.set()

    def _why(self) -> KiroError:
        return self.why_ended or ServiceUnavailable(
            "The session with kiro-cli has ended.", next_step="Call again."
        )

    def end(self, error: KiroError | None = None) -> None:
        """End it; return at once. Those that wait for it get the first error that ended it."""
        if not self.is_ended:
            self.why_ended = error
            self.state = "ended"
            self._change()

    def _fail(self, error: RpcError | KiroError, hint: str) -> None:
        self.end(error_of(error, hint) if isinstance(error, RpcError) else error)

    @property
    def is_ended(self) -> bool:
        """Whether it can no longer be used."""
        return self.state == "ended"

    async def wait_ended(self) -> None:
        """Wait until its process group is gone."""
        await self._gone.wait()

    async def _read(self) -> None:
        await self._peer.run()
        self.end(self._peer.gone())

    async def open(self, another: Dialect | None = None) -> None:
        """Begin the conversation, or another one in the same process.

        Raises:
            KiroError: The program could not be started, or did not open it.
        """
        await self._until(lambda: self.state != "starting")
        if self.is_ended:
            raise self._why()
        seconds = self.limits.start_up or self.dialect.start_up_seconds
        try:
            if another:
                old: JsonObject = {"sessionId": self.dialect.session_id}
                self.dialect, self.heard, self.state = another, [], "opening"
                with suppress(RpcError):
                    await self._peer.request(another.end_method, old, seconds=CLOSE_SECONDS)
            else:
                await self._peer.request("initialize", INITIALIZE, seconds=seconds)
            wanted = self.dialect.new_session(str(self._home / "empty"), self.desk)
            opened = await self._peer.request("session/new", wanted, seconds=seconds)
            await self.dialect.choose(self._peer, opened)
        except (RpcError, KiroError) as error:
            self._fail(error, self.dialect.hint or self._peer.last_words)
        if self.is_ended:
            raise self._why()
        self.state = "ready"

    async def _grow_old(self) -> None:
        while True:
            idle = self.used_at + self.limits.idle - anyio.current_time()
            if idle <= 0 and not self.is_taken:
                self.end()
                return
            await anyio.sleep(max(idle, 0.05))

    def is_spent(self) -> bool:
        """Whether it should not be used for another turn."""
        age = anyio.current_time() - self._started_at
        return self.is_ended or self.turns >= self.limits.turns or age > self.limits.age

    # --- turns ----------------------------------------------------------------------------

    def prompt(self, blocks: Sequence[JsonObject]) -> None:
        """Send a prompt; `next` then returns its events.

        Raises:
            KiroError: The session has ended.
        """
        if self.is_ended:
            raise self._why()
        self.state, self.heard = "generating", []
        self.turns += 1
        self.used_at = anyio.current_time()
        self.dialect.begin_turn()
        self._events.clear()
        self._kinds.clear()
        self._tasks.start_soon(self._prompt, list[JsonValue](blocks))

    async def _prompt(self, blocks: list[JsonValue]) -> None:
        params: JsonObject = {"sessionId": self.dialect.session_id, "prompt": blocks}
        try:
            result = await self._peer.request("session/prompt", params)
        except (RpcError, KiroError) as error:
            self._fail(error, self.dialect.hint)
            return
        if self.state == "generating":
            with anyio.move_on_after(LATE_USAGE_SECONDS):
                await self._until(lambda: self._kinds >= {Metering, ContextUsage})
            await self._emit(self.dialect.stop(word_member(result, "stopReason")))
        if not self.is_ended:
            self.state = "ready" if self.state == "generating" else "deferred"
            self._change()

    async def next(self) -> Event:
        """Return the next event of the turn. The last one is a `Stop`.

        Raises:
            KiroError: The session has ended.
        """
        await self._until(lambda: bool(self._events))
        if not self._events:
            raise self._why()
        self.used_at = anyio.current_time()
        event = self._events.popleft()
        self._change()
        return event

    async def _emit(self, event: Event) -> None:
        await self._until(lambda: len(self._events) < MAX_EVENTS)
        if not self.is_ended:  # After a breach, nothing more is the model's.
            self._kinds.add(type(event))
            self._events.append(event)
            self._change()

    # --- tools ----------------------------------------------------------------------------

    def _on_call(self) -> None:
        if not self.is_ended:
            self._tasks.start_soon(self._end_round)

    async def _end_round(self) -> None:
        """Hand over the calls that arrived together as a round, and hold them."""
        assert self.desk
        count = len(self.desk.calls)
        await anyio.sleep(ROUND_SECONDS)
        if len(self.desk.calls) != count or self.state != "generating":
            return  # Another call has arrived, or an earlier round still waits for its results.
        self.state = "waiting"
        self._round = calls = tuple(self.desk.calls)
        for call in calls:
            arguments = json_text(call.arguments)
            await self._emit(ToolUseFragment(call.id, call.name, arguments, is_last=True))
        await self._emit(Stop("tool_use"))
        with anyio.move_on_after(self.limits.hold or self.dialect.hold_seconds):
            for call in calls:
                await call.done.wait()
            return
        self.desk.refuse(RESULT_FOLLOWS)

    def holds(self, ids: Collection[str]) -> bool:
        """Whether one of these is the id of a call whose result it waits for."""
        is_waiting = self.state in ("waiting", "deferred")
        return is_waiting and any(call.id in ids for call in self._round)

    async def resume(self, results: Mapping[str, ToolResult], extra: str) -> bool:
        """Give the held calls their results; return whether the same prompt goes on.

        If it does not, the session is deferred or has ended.
        """
        assert self.desk
        calls, self._round = self._round, ()
        self.used_at = anyio.current_time()
        goes_on = self.state == "waiting" and not any(it.done.is_set() for it in calls)
        for call in calls:
            result = results.get(call.id)
            text = result_text(result) if result else NO_RESULT
            if extra and call is calls[-1]:
                text = f"{text}\n\n[The user adds:] {extra}"
            call.resolve(text, is_error=result.is_error if result else True)
        if goes_on and not any(call.is_dropped for call in calls):
            self.state = "generating"
            self._kinds.clear()
        else:
            self.desk.refuse(RESULT_FOLLOWS)
            await self._until(lambda: self.state == "deferred")
        self.desk.calls = [call for call in self.desk.calls if not call.done.is_set()]
        self.desk.refusal = ""
        if self.state == "generating" and self.desk.calls:
            self._on_call()  # For the calls that came after the round.
        return self.state == "generating"

    # --- what the program sends -----------------------------------------------------------

    async def _on_notification(self, method: str, params: JsonObject) -> None:
        ours, session_id = self.dialect.session_id, word_member(params, "sessionId")
        if ours and session_id not in ("", ours):
            return
        try:
            for event in self.dialect.read(method, params):
                if self.state == "generating":  # Else nobody reads it.
                    await self._emit(event)
        except KiroError as error:
            self.end(error)

    async def _on_request(self, method: str, params: JsonObject) -> JsonObject | None:
        if method != "session/request_permission":
            return None
        if not self.dialect.spec.tools:
            title = word_member(object_member(params, "toolCall"), "title")[:80]
            self.end(breach_error(f"it wanted to use a tool ({title!r})"))
        chosen = "reject_once"
        for option in reversed(object_members(params, "options")):
            option_id = word_member(option, "optionId")
            if "reject" in f"{word_member(option, 'kind')} {option_id}":
                chosen = option_id
        return {"outcome": {"outcome": "selected", "optionId": chosen}}


def make_private_folder() -> str:
    """Make the folder of a process, and remove those of servers that were killed.

    The program keeps conversations there in plain text. The folder's name has the host and the
    server's process id, so that a later server can tell whether it is still used. Containers may
    share the folder, but not their host's name.
    """
    prefix = f"kiro-mcp-acp-{socket.gethostname()}-"
    if os.name == "posix":  # On Windows, signal 0 would end the process.
        for folder in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*-*"):
            pid = folder.name.removeprefix(prefix).partition("-")[0]
            with suppress(OSError, ValueError, OverflowError):
                if folder.lstat().st_uid == os.geteuid():
                    try:
                        os.kill(int(pid), 0)
                    except ProcessLookupError:
                        shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp("", f"{prefix}{os.getpid()}-")


def _write_files(home: Path, files: Mapping[str, JsonObject]) -> None:
    home.chmod(0o700)
    (home / "empty").mkdir(mode=0o700)
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(content), "utf-8")
