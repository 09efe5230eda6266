"""The settings of one emulator and its records: the object that tests and users work with.

Settings may be changed at any time; they apply from the next request on.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import anyio

from kiro_mcp.emulator.accounts import Accounts
from kiro_mcp.emulator.catalogue import CATALOGUE, DEFAULT_MODEL_ID, Model
from kiro_mcp.emulator.request import Call, WireForm
from kiro_mcp.emulator.script_files import ScriptFile
from kiro_mcp.emulator.scripts import (
    BUILT_IN,
    DEFAULT_WINDOW_TOKENS,
    Prompt,
    Script,
    tokens_sent,
    whole_answer,
)

GENERATE: Final = "GenerateAssistantResponse"
"""The operation that answers prompts, in all its forms."""

MAX_RECORDED_REQUESTS: Final = 512
"""Only the latest requests are kept: an emulator may run for days."""

MAX_RECORDED_BODY_BYTES: Final = 1024 * 1024
"""A larger body is recorded as None, so that the records stay small."""

MAX_REMEMBERED_PROMPTS: Final = 512
"""How many different prompts are counted before the counts are reset."""

MAX_INPUT_BYTES: Final = 4_047_768
"""The largest body, without its images, that the service was observed to accept (2026-04)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request, as the emulator received it."""

    operation: str
    """Such as `GenerateAssistantResponse`, independent of its address and form."""
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case. Not in the repr: they hold the bearer."""
    body: object = field(repr=False)
    """The parsed JSON; None if there was none, or if it was too large to record."""
    size_bytes: int
    """The size of the body."""
    is_rpc: bool
    """Whether it was addressed by `X-Amz-Target`."""

    @property
    def is_kas(self) -> bool:
        """Whether it was addressed to Kiro's own newer service."""
        return self.headers.get("x-amz-target", "").startswith("Kiro")

    @property
    def form(self) -> WireForm:
        """The form of a prompt."""
        if not self.is_rpc:
            return WireForm.REST
        return (
            WireForm.KAS
            if self.is_kas
            else WireForm(self.headers["x-amz-target"].partition(".")[2])
        )

    @property
    def members(self) -> Mapping[str, object]:
        """The members of the body; none if it is not an object."""
        body = self.body
        return cast("dict[str, object]", body) if isinstance(body, dict) else {}

    def text(self, name: str) -> str:
        """Return a text member of the body; "" if there is none."""
        value = self.members.get(name)
        return value if isinstance(value, str) else ""

    @property
    def prompt(self) -> str:
        """The last user text of a prompt; "" if there is none."""
        text: Any = self.body
        try:
            for name in ("conversationState", "currentMessage", "userInputMessage", "content"):
                text = text[name]
        except (LookupError, TypeError):
            return ""
        return text.strip() if isinstance(text, str) else ""


@dataclass(slots=True, kw_only=True)
class EmulatorState:
    """The settings and the records of one emulator."""

    scripts: dict[str, Script] = field(default_factory=dict[str, Script])
    """Your own scripts by name; a script with the name of a built-in one replaces it."""
    script_files: list[ScriptFile] = field(default_factory=list[ScriptFile])
    """Scripts from files. They are tried before any other script."""
    chunk_bytes: int = 128
    """How many bytes of a stream are written at once; so few that frames are split."""
    accounts: Accounts = field(default_factory=Accounts)
    """Tokens, identities and logins."""
    catalogue: tuple[Model, ...] = CATALOGUE
    """The models, as the service lists them, in two pages."""
    default_model_id: str = DEFAULT_MODEL_ID
    """The model that the list names as the default, if it is in the catalogue."""
    max_input_bytes: int = MAX_INPUT_BYTES
    retry_after_seconds: int = 1
    """The wait that `throttle` and `busy` ask for."""
    now: Callable[[], float] = time.time
    """The time, in seconds since the epoch."""
    on_request: Callable[[SeenRequest], None] | None = None
    """Called with each request, also with one that no operation answers."""

    requests: deque[SeenRequest] = field(
        default_factory=lambda: deque[SeenRequest](maxlen=MAX_RECORDED_REQUESTS), init=False
    )
    """The latest requests, oldest first."""
    prompts: int = field(default=0, init=False)
    """The number of prompts received."""
    open_streams: int = field(default=0, init=False)
    """The number of answers that are being played now."""
    disconnects: int = field(default=0, init=False)
    """The number of clients that disconnected before their answer was complete."""

    _queues: dict[str, deque[Script]] = field(default_factory=dict[str, deque[Script]], init=False)
    _times: Counter[int] = field(default_factory=Counter[int], init=False)
    _serial: int = field(default=0, init=False)
    _changed: anyio.Event = field(default_factory=anyio.Event, init=False)

    def enqueue(self, *scripts: Script, operation: str = GENERATE) -> None:
        """Play these scripts to the next calls of an operation; () is the usual answer.

        A prompt that breaks a rule gets its refusal and takes no script. Calls of other operations
        are not checked.
        """
        self._queues.setdefault(operation, deque()).extend(scripts)

    def requests_to(self, operation: str) -> list[SeenRequest]:
        """Return the recorded requests of one operation, oldest first."""
        return [request for request in self.requests if request.operation == operation]

    async def until(self, condition: Callable[["EmulatorState"], bool]) -> None:
        """Wait until the condition is true of this state."""
        while not condition(self):
            await self._changed.wait()

    def record(self, request: SeenRequest) -> None:
        """Record a request."""
        self.requests.append(request)
        self.prompts += request.operation == GENERATE
        if self.on_request:
            self.on_request(request)
        self._announce()

    def stream_opened(self) -> None:
        """Record that an answer begins."""
        self.open_streams += 1
        self._announce()

    def stream_closed(self, *, by_client: bool) -> None:
        """Record that an answer has ended, and whether its client disconnected before that."""
        self.open_streams -= 1
        self.disconnects += by_client
        self._announce()

    def client_left_early(self) -> None:
        """Record that a client disconnected before its request was complete."""
        self.disconnects += 1
        self._announce()

    def take_queued(self, operation: str) -> Script:
        """Return the next script enqueued for an operation, or an empty one."""
        queue = self._queues.get(operation)
        return queue.popleft() if queue else ()

    def script_for(self, call: Call) -> Script:
        """Return the answer to a valid prompt."""
        if queued := self.take_queued(GENERATE):
            return queued
        said = call.current.content.strip()
        if len(self._times) >= MAX_REMEMBERED_PROMPTS:
            self._times.clear()
        self._times[hash(said)] += 1
        parts = [part for one in call.current.context.tool_results for part in one.content]
        limits: Mapping[str, int] = (call.model or {}).get("tokenLimits", {})
        prompt = Prompt(
            said=said,
            returned=" ".join(part.text or "" for part in parts).strip(),
            tools=call.tools,
            model_id=call.current.model_id,
            tokens=tokens_sent(call),
            window_tokens=limits.get("maxInputTokens", DEFAULT_WINDOW_TOKENS),
            serial=self._serial,
            times=self._times[hash(said)],
            retry_after_seconds=self.retry_after_seconds,
        )
        for file in self.script_files:
            if script := file.script_for(prompt):
                return script
        name = prompt.name or "text"
        if name in self.scripts:
            return self.scripts[name]
        if name in BUILT_IN:
            return BUILT_IN[name](prompt)
        known = ", ".join([*BUILT_IN, *self.scripts, *(file.name for file in self.script_files)])
        return whole_answer(prompt, f"The emulator has no script {name!r}. It has: {known}.")

    def next_id(self) -> int:
        """Return a number that no other request of this emulator has."""
        self._serial += 1
        return self._serial

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
