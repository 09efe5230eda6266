"""One process of the program with one conversation.

::

    starting ─▶ ready ─▶ generating ─┬─▶ ready               the turn has ended
                  ▲          ▲       └─▶ waiting ─┬─▶ generating   the results came in time
                  └──────────┼── deferred ◀───────┘          the calls were told to go on without
                             └─────┘                         results, which then are a new prompt

and from everywhere to *ended*. The prompt and its response belong to the session, not to the call
that sent it: a round of tool calls ends a call, and the next call goes on with the same prompt.

`Session.run` lives in a task of the client, reads the process and, at the end, stops its whole
process group and removes its private folder.
"""

import glob
import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio
import anyio.to_thread
from anyio.abc import Process, TaskGroup

from kiro_mcp.acp.bridge import Bridge, HeldCall, ToolDesk
from kiro_mcp.acp.dialects import (
    INITIALIZE,
    OWN_KINDS,
    V2,
    V3,
    Breach,
    Broken,
    Dialect,
    Hint,
    Note,
    Opened,
    Options,
    Seen,
    ToolSeen,
    ToolServer,
    breach_error,
)
from kiro_mcp.acp.errors import RpcError, error_of
from kiro_mcp.acp.program import STOP_SECONDS, Program, start, stop
from kiro_mcp.acp.rpc import Peer
from kiro_mcp.acp.transcript import RESULT_FOLLOWS, SessionSpec
from kiro_mcp.chat import JsonObject, JsonValue, ToolResult
from kiro_mcp.errors import KiroError, ServiceUnavailable
from kiro_mcp.wire.history import result_text
from kiro_mcp.wire.json_values import object_member, object_members, word_member

logger = logging.getLogger(__name__)

State = Literal["starting", "ready", "generating", "waiting", "deferred", "ended"]

MAX_EVENTS: Final = 1_000
"""How many events may wait for their reader; then the process has to wait."""

ROUND_SECONDS: Final = 0.15
"""How long no further call must arrive until those that did are a round."""

NO_RESULT: Final = "The caller gave no result for this call."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of sessions. Seconds."""

    processes: int = 2
    """How many processes may be alive at once."""
    start_up: float | None = None
    """The time for each request of the start; None for the dialect's."""
    hold: float | None = None
    """How long a call of a tool is held; None for the dialect's."""
    idle: float = 15 * 60.0
    """How long a session may be unused."""
    age: float = 60 * 60.0
    turns: int = 50
    """How many turns a process may have: its memory grows."""
    late_usage: float = 0.2
    """How long the cost of an answer is waited for after its end."""
    stop: float = STOP_SECONDS
    """How long a process may take to end, before each signal."""
    retry: float = 1.5
    """The pause before an empty refusal is asked again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The prompt was answered; the program's word for why it ended."""

    stop_reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """A round of tool calls."""

    calls: tuple[HeldCall, ...]


SessionEvent: TypeAlias = Seen | Finished | Round


@dataclass(kw_only=True, eq=False)
class Session:
    """One process and its conversation. Made by the client, which runs `run` in a task."""

    program: Program
    dialect: Dialect
    flags: frozenset[str]
    spec: SessionSpec
    limits: Limits
    bridge: Bridge | None = None
    """Where the caller's tools are served; None if there are none."""
    state: State = "starting"
    is_taken: bool = True
    """Whether a call uses it."""
    fingerprint: str = ""
    """Which conversation it has had."""
    opened: Opened = field(default_factory=lambda: Opened(id=""))
    turns: int = 0
    started_at: float = field(default_factory=anyio.current_time)
    used_at: float = field(default_factory=anyio.current_time)
    hint: str = ""
    """The last notice of the program about a problem of this turn."""
    why_ended: KiroError | None = None
    desk: ToolDesk | None = None

    def __post_init__(self) -> None:
        self._events: deque[SessionEvent] = deque()
        self._has_event = anyio.Event()
        self._has_room = anyio.Event()
        self._end = anyio.Event()
        self._ended = anyio.Event()
        self._is_ready = anyio.Event()
        self._has_changed = anyio.Event()
        self._peer: Peer
        self._tasks: TaskGroup
        self._home: Path
        self._server: ToolServer | None = None
        self._minding: anyio.CancelScope | None = None
        self._minded = anyio.Event()
        self._has_open_prompt = False
        self._handed_over = 0
        """How many of the desk's calls were handed over as rounds."""

    # --- life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Start the process, read it until it ends or `end` is called, and stop it."""
        process: Process | None = None
        home = Path(await anyio.to_thread.run_sync(make_private_folder))
        self._home = home
        try:
            if self.bridge:
                self.desk = ToolDesk(self.spec.tools, self._on_call)
                self._server = self.bridge.open(self.desk)
            files = self.dialect.files(self.spec, self._server)
            await anyio.to_thread.run_sync(_write_files, home, files)
            process = await start(
                (*self.program.command, *self.dialect.arguments(self.spec, self.flags)),
                self._environ(),
                cwd=home / "empty",
            )
            self._peer = Peer(
                process, on_notification=self._on_notification, on_request=self._on_request
            )
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._read)
                self._tasks.start_soon(self._open)
                self._tasks.start_soon(self._collect_rounds)
                self._tasks.start_soon(self._grow_old)
                await self._end.wait()
                if self._has_open_prompt:
                    with anyio.move_on_after(0.1), suppress(KiroError):
                        await self._peer.notify("session/cancel", {"sessionId": self.opened.id})
                self._tasks.cancel_scope.cancel()
        except KiroError as error:
            self.end(error)
        finally:
            self.end()
            with anyio.CancelScope(shield=True):
                if self.bridge and self.desk:
                    self.bridge.close(self.desk)
                if process:
                    await stop(process, seconds=self.limits.stop)
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(home, ignore_errors=True))
            self._ended.set()

    def _why(self) -> KiroError:
        return self.why_ended or ServiceUnavailable(
            "The session with kiro-cli has ended.", next_step="Call again."
        )

    def _environ(self) -> dict[str, str]:
        environ = {**self.program.environ, "KIRO_HOME": str(self._home)}
        if self.dialect.name == "v3":  # Whether V3 can use a key is not known; it has a login.
            environ.pop("KIRO_API_KEY", None)
        return environ

    def end(self, error: KiroError | None = None) -> None:
        """End it; return at once. Who waits for it gets the error."""
        if not self._end.is_set():
            self.why_ended = error
            self._has_open_prompt = self.state == "generating"
            self.state = "ended"
            self._end.set()
            self._is_ready.set()
            self._has_event.set()
            self._has_room.set()

    @property
    def is_ended(self) -> bool:
        """Whether it can no longer be used."""
        return self._end.is_set()

    async def wait_ended(self) -> None:
        """Wait until its process group is gone."""
        await self._ended.wait()

    async def wait_ready(self) -> None:
        """Wait until it can take its first prompt.

        Raises:
            KiroError: It could not be started.
        """
        await self._is_ready.wait()
        if self.is_ended:
            raise self._why()

    async def _read(self) -> None:
        await self._peer.run()
        self.end(self._peer.gone())

    async def _open(self) -> None:
        seconds = self.limits.start_up or self.dialect.start_up_seconds
        try:
            await self._peer.request("initialize", INITIALIZE, seconds=seconds)
            await self._new_session()
        except RpcError as error:
            self.end(error_of(error, self.hint or self._peer.last_words))
        except KiroError as error:
            self.end(error)

    async def _new_session(self) -> None:
        seconds = self.limits.start_up or self.dialect.start_up_seconds
        self.opened = Opened(id="")
        params = self.dialect.new_session(str(self._home / "empty"), self.spec, self._server)
        opened = await self._peer.request("session/new", params, seconds=seconds)
        self.opened = await self.dialect.choose(self._peer, opened, self.spec, self.flags)
        self.state = "ready"
        self._is_ready.set()

    async def renew(self, spec: SessionSpec, dialect: Dialect) -> None:
        """Begin another conversation in the same process.

        Raises:
            KiroError: The program did not open a session.
        """
        method, params = self.dialect.end_session(self.opened.id)
        self.spec, self.dialect, self.fingerprint = spec, dialect, ""
        self.state = "starting"
        try:
            with suppress(RpcError):
                await self._peer.request(method, params, seconds=self.limits.start_up or 5.0)
            await self._new_session()
        except RpcError as error:
            self.end(error_of(error, self._peer.last_words))
            raise self._why() from None
        except KiroError as error:
            self.end(error)
            raise

    async def _grow_old(self) -> None:
        while True:
            idle = self.used_at + self.limits.idle - anyio.current_time()
            if idle <= 0 and not self.is_taken:
                self.end()
                return
            await anyio.sleep(max(idle, 0.05))

    def is_spent(self) -> bool:
        """Whether it should not be used for another turn."""
        age = anyio.current_time() - self.started_at
        return self.is_ended or self.turns >= self.limits.turns or age > self.limits.age

    # --- turns ----------------------------------------------------------------------------

    def prompt(self, blocks: Sequence[JsonObject]) -> list[str]:
        """Send a prompt; `next` then returns its events. Return the notes that came before it.

        Raises:
            KiroError: The session has ended.
        """
        if self.is_ended:
            raise self._why()
        self.state, self.hint, self.fingerprint = "generating", "", ""
        self.turns += 1
        self.used_at = anyio.current_time()
        # What came since the turn before, such as its late usage.
        notes = [event.text for event in self._events if isinstance(event, Note)]
        self._events.clear()
        self._has_room.set()
        self._tasks.start_soon(self._prompt, list[JsonValue](blocks))
        return notes

    async def _prompt(self, blocks: list[JsonValue]) -> None:
        try:
            result = await self._peer.request(
                "session/prompt", {"sessionId": self.opened.id, "prompt": blocks}
            )
            event: SessionEvent = Finished(word_member(result, "stopReason"))
        except RpcError as error:
            event = Broken(error_of(error, self.hint))
        except KiroError as error:
            event = Broken(error)
        await self._emit(event)

    async def next(self) -> SessionEvent:
        """Return the next event of the turn.

        Raises:
            KiroError: The session has ended.
        """
        while not self._events:
            if self.is_ended:
                raise self._why()
            self._has_event = anyio.Event()
            await self._has_event.wait()
        event = self._events.popleft()
        self._has_room.set()
        self.used_at = anyio.current_time()
        return event

    def hand_over(self) -> None:
        """The caller has got a round: mind the held calls until the results come."""
        self._minded = anyio.Event()
        if self.is_ended:
            self._minded.set()
        else:
            self.state = "waiting"
            self._tasks.start_soon(self._mind)

    async def _mind(self) -> None:
        """Read on while the caller runs the tools. What is said meanwhile is left out."""
        hold = self.limits.hold or self.dialect.hold_seconds
        is_deferred = False
        try:
            with anyio.CancelScope() as self._minding:
                while True:
                    with anyio.CancelScope() as holding:
                        if not is_deferred:
                            holding.deadline = anyio.current_time() + hold
                        event = await self.next()
                        if isinstance(event, Finished | Broken):
                            self.state = "ended" if self.is_ended else "deferred"
                            break
                    if holding.cancelled_caught and self.desk:
                        is_deferred = True
                        self.desk.refusal = RESULT_FOLLOWS
                        for call in self.desk.calls:
                            call.resolve(RESULT_FOLLOWS)
        except KiroError:
            pass  # The session has ended.
        finally:
            self._minded.set()

    def holds(self, ids: Collection[str]) -> bool:
        """Whether one of these is the id of a call whose result it waits for."""
        calls = self.desk.calls[: self._handed_over] if self.desk else []
        return self.state in ("waiting", "deferred") and any(call.id in ids for call in calls)

    async def resume(self, results: Mapping[str, ToolResult], extra: str) -> bool:
        """Give the held calls their results; return whether the same prompt goes on.

        If not, the session is ready for a prompt that brings the results, or has ended.
        """
        assert self.desk
        calls = self.desk.calls[: self._handed_over]
        self.used_at = anyio.current_time()
        goes_on = self.state == "waiting" and not any(it.done.is_set() for it in calls)
        if goes_on:
            for call in calls:
                result = results.get(call.id)
                text = result_text(result) if result else NO_RESULT
                if extra and call is calls[-1]:
                    text = f"{text}\n\n[The user adds:] {extra}"
                call.resolve(text, is_error=result.is_error if result else True)
            goes_on = not any(call.is_dropped for call in calls)
        if goes_on and self._minding:
            self._minding.cancel()
        await self._minded.wait()
        del self.desk.calls[: self._handed_over]
        self._handed_over, self.desk.refusal = 0, ""
        self._has_changed.set()  # For the calls that came after the round.
        if goes_on and not self.is_ended:
            self.state = "generating"
        return goes_on and not self.is_ended

    # --- what the program sends -----------------------------------------------------------

    async def _emit(self, event: SessionEvent) -> None:
        while len(self._events) >= MAX_EVENTS and not self.is_ended:
            self._has_room = anyio.Event()
            await self._has_room.wait()
        self._events.append(event)
        self._has_event.set()

    async def _on_notification(self, method: str, params: JsonObject) -> None:
        session_id = word_member(params, "sessionId")
        if self.opened.id and session_id not in ("", self.opened.id):
            return
        for event in self.dialect.read(method, params):
            match event:
                case Breach():
                    self.end(breach_error(event.what))
                case ToolSeen() if not self.spec.tools or event.kind not in OWN_KINDS:
                    self.end(breach_error(f"it used a tool of its own ({event.title[:80]!r})"))
                case ToolSeen():
                    pass
                case Hint():
                    self.hint = event.text
                case Options():
                    model = event.values.get("model") or self.opened.model
                    self.opened = replace(self.opened, model=model)
                case _:
                    await self._emit(event)

    async def _on_request(self, method: str, params: JsonObject) -> JsonObject | None:
        if method != "session/request_permission":
            return None
        options = object_members(params, "options")
        refusing = (
            word_member(option, "optionId")
            for option in options
            if "reject" in f"{word_member(option, 'kind')} {word_member(option, 'optionId')}"
        )
        call = object_member(params, "toolCall")
        if not self.spec.tools:
            self.end(breach_error(f"it wanted to use a tool ({word_member(call, 'title')[:80]!r})"))
        outcome: JsonObject = {"outcome": "selected", "optionId": next(refusing, "reject_once")}
        return {"outcome": outcome}

    def _on_call(self, call: HeldCall) -> None:
        self._has_changed.set()

    async def _collect_rounds(self) -> None:
        """Make a round of the calls that arrive together."""
        while self.desk:
            await self._has_changed.wait()
            while self._has_changed.is_set():
                self._has_changed = anyio.Event()
                with anyio.move_on_after(ROUND_SECONDS):
                    await self._has_changed.wait()
            calls = tuple(self.desk.calls[self._handed_over :])
            if calls and self.state == "generating":
                self._handed_over = len(self.desk.calls)
                await self._emit(Round(calls))


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
                if folder.lstat().st_uid == os.geteuid() and not _is_running(int(pid)):
                    shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp("", f"{prefix}{os.getpid()}-")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _write_files(home: Path, files: Mapping[str, JsonObject]) -> None:
    home.chmod(0o700)
    (home / "empty").mkdir(mode=0o700)
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(content), "utf-8")


def make_dialect(name: Literal["v2", "v3"]) -> Dialect:
    """Make a dialect for one session; in V3 its agent has a name of its own."""
    return V2() if name == "v2" else V3(f"kiro_mcp_{secrets.token_hex(4)}")
