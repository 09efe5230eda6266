"""`AcpClient`: the second engine, with the methods of `kiro_mcp.client.client.KiroClient`.

A request finds its session, or gets a new one::

    tool results ── their calls are held ───────────▶ the same prompt goes on
                 └─ they were told to go on without ─▶ a prompt with the results
    a new turn ──── a session has had all the earlier turns ─▶ a prompt with the new message
    anything else ─ another session, or another process ─────▶ a prompt with the whole
                                                               conversation as text

At most `MAX_PROCESSES` processes are alive; an idle one makes room, then the one that has waited
longest for tool results. The process of a call that is cancelled or fails is ended in the
background.
"""

import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from kiro_mcp.acp.bridge import Bridge
from kiro_mcp.acp.dialects import INITIALIZE, SERVER, V2, V3, Dialect
from kiro_mcp.acp.errors import STALE_HISTORY
from kiro_mcp.acp.program import LOGIN_STEP, Program, dialect_of, find_program
from kiro_mcp.acp.session import Limits, Session
from kiro_mcp.acp.transcript import (
    SessionSpec,
    conversation_key,
    results_of,
    split_new,
    write_conversation,
    write_late_results,
    write_message,
)
from kiro_mcp.chat import (
    BYTES_PER_TOKEN,
    AccessToken,
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonValue,
    Message,
    Reply,
    TextPart,
    ToolResult,
)
from kiro_mcp.client.admission import Budget, CallSpending, FairSlots, Holds
from kiro_mcp.client.answer import ModelAnswer
from kiro_mcp.client.client import THINKING_TIMEOUT_FACTOR, ModelClient, ModelList
from kiro_mcp.client.http import Recorder
from kiro_mcp.client.off_loop import is_large, off_loop
from kiro_mcp.client.telemetry import Telemetry
from kiro_mcp.errors import (
    AnswerBroken,
    InternalFault,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.settings import Settings
from kiro_mcp.wire.events import Metering, Stop, Text
from kiro_mcp.wire.json_values import json_bytes
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions
from kiro_mcp.wire.request import (
    DEFAULT_OPTIONS,
    TOKENS_PER_IMAGE,
    Payload,
    Prepared,
    compose_system,
    prepare,
)

logger = logging.getLogger(__name__)

SUBJECT: Final = "kiro-cli"

CLOSING_SECONDS: Final = 0.1
"""How long a process may take to end, before each signal, when the server ends."""

MAX_PROCESSES: Final = 2
"""How many processes may be alive at once."""

RETRY_SECONDS: Final = 1.5
"""The pause before a request is sent again that was refused without a word."""

MAX_LOST: Final = 1_000
"""How many ids of calls are remembered whose session has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request as it goes to the program."""

    request: ChatRequest
    prepared: Prepared
    spec: SessionSpec
    note: list[JsonObject]
    """Instructions for this turn only, as blocks in front of the message."""
    warnings: tuple[str, ...]


class AcpAnswer(ModelAnswer):
    """The answer to a prompt, or the round of tool calls that its prompt waits for."""

    def __init__(
        self,
        session: Session,
        builder: ReplyBuilder,
        payload: Payload,
        *,
        first_token_seconds: float,
        idle_seconds: float,
    ) -> None:
        super().__init__(builder, payload)
        self.session = session
        self._first_token_seconds = first_token_seconds
        self._idle_seconds = idle_seconds
        self._metering: Metering | None = None

    def _require_reason(self) -> None:
        if isinstance(self.reply.fault, KiroError):
            raise self.reply.fault
        is_refusal = self.reply.stop_reason == "refusal" and self.reply.refusal is not None
        if not is_refusal and self.reply.stop_reason != "max_tokens":
            raise AnswerBroken(
                "kiro-cli sent an empty answer.",
                next_step="Call again, or ask in other words.",
                code="empty_response",
                reason=self.reply.raw_stop_reason,
            )

    async def _read(self) -> None:
        """Read the next event of the session. At the end or at a fault, build the reply."""
        seconds, what = self._first_token_seconds, "did not start to answer within"
        setting = "KIRO_MCP_FIRST_TOKEN_TIMEOUT"
        if self._builder.has_begun:
            seconds, what = self._idle_seconds, "sent nothing for"
            setting = "KIRO_MCP_STREAM_READ_TIMEOUT"
        try:
            with anyio.fail_after(seconds):
                event = await self.session.next()
        except TimeoutError:
            silence = ServiceUnavailable(
                f"kiro-cli {what} {seconds:g} seconds.",
                next_step=f"Call again, or raise {setting}.",
                code="timeout",
            )
            self.cut(silence)
        except KiroError as error:
            self.cut(error)
        else:
            if isinstance(event, Metering):
                self._metering = event  # The last one counts.
            else:
                self._pending.extend(self._builder.add(event))
            if isinstance(event, Stop) or self._builder.fault is not None:
                self.cut()

    def cut(self, fault: KiroError | None = None) -> Reply:
        """End the answer and return the part that has arrived."""
        if self._reply is None:
            if self._metering:
                self._builder.add(self._metering)
            reply = self._builder.close(fault)
            notes = self.session.dialect.notes
            self._reply = replace(reply, warnings=(*notes, *reply.warnings))
            notes.clear()
            self._pending.extend(self._builder.last_deltas)
        return self._reply


class AcpClient(ModelClient):
    """Asks the vendor's program. `run_in` must be called before it is used.

    Args:
        settings: All settings.
        environ: The environment, which says where the program is and what it gets of it.
        state_folder: Where to save the credits of a day; None to keep them in memory.
        now: Returns the time.
        telemetry: Makes the spans and metrics of calls.
        limits: The limits of sessions.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        state_folder: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        telemetry: Telemetry | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.sessions: list[Session] = []
        """The sessions whose processes are not yet gone."""
        self._settings = settings
        self._environ = environ
        self._now = now
        self._telemetry = telemetry or Telemetry()
        self._limits = limits or Limits()
        self._budget = Budget(
            per_call=settings.max_credits_per_call,
            per_day=settings.max_credits_per_day,
            folder=state_folder,
            now=now,
        )
        self._holds = Holds(now)
        self._slots = FairSlots(min(settings.max_concurrency, MAX_PROCESSES))
        self._tasks: TaskGroup
        self._checking = anyio.Lock()
        self._starting = anyio.Lock()
        self._program: Program | None = None
        self._flags: frozenset[str] = frozenset()
        self._dialect: type[Dialect] = V3
        self._is_signed_in = False
        self._bridge: Bridge | None = None
        self._lost: deque[str] = deque(maxlen=MAX_LOST)

    def run_in(self, tasks: TaskGroup) -> None:
        """Run the processes in a task group."""
        self._tasks = tasks

    async def aclose(self) -> None:
        """End all processes, and return when they are gone."""
        for session in self.sessions:
            session.stop_seconds = CLOSING_SECONDS
            session.end()
        for session in tuple(self.sessions):
            await session.wait_ended()

    def ask_again(self) -> None:
        """Forget what was remembered of the account: who is signed in, and all holds."""
        self._holds.clear()
        self._is_signed_in = False

    async def check_login(self) -> AccessToken | None:
        """Require that the program is there and somebody is signed in to it. A yes is remembered.

        Raises:
            SignInRequired: Nobody is.
            KiroError: The program is not there, or is too old.
        """
        async with self._checking:
            if self._is_signed_in:
                return None
            if self._program is None:
                program = find_program(
                    self._settings.kiro_cli, self._environ, depth=self._settings.depth
                )
                self._flags = await program.flags()
                self._program = program
            self._dialect = V3 if dialect_of(self._flags) == "v3" else V2
            if not await self._program.is_signed_in():
                if not self._settings.api_key.get_secret_value():
                    raise SignInRequired("Nobody is signed in to kiro-cli.", next_step=LOGIN_STEP)
                self._dialect = V2  # It takes a key; whether V3 does is not known.
            self._is_signed_in = True
        return None

    async def describe(self) -> str:
        """Return the program's version, place and dialect, after `check_login` has found it.

        Raises:
            KiroError: It cannot be run.
        """
        assert self._program
        return await self._program.describe(self._dialect.name)

    async def list_models(self) -> ModelList:
        """Return the models that the program offers.

        Raises:
            KiroError: It gives no list.
        """
        await self.check_login()
        assert self._program
        models, default = await self._program.list_models()
        return ModelList(models=models, default_model=default)

    def draft(self, request: ChatRequest) -> Payload:
        """Return what would be sent for a request in a new session.

        Raises:
            InvalidRequest: The request has no message.
        """
        draft = self._prepare(request)
        blocks = write_conversation(draft.prepared.turns, "<boundary>")
        return self._payload(draft, [*draft.note, *blocks])

    @asynccontextmanager
    async def stream(
        self,
        request: ChatRequest,
        *,
        token: AccessToken | None = None,
        spending: CallSpending | None = None,
        recorder: Recorder | None = None,
        caller: str = "",
    ) -> AsyncGenerator[AcpAnswer]:
        """Send a request and yield its answer once the first delta is there; see `KiroClient`.

        The token is not used: the program has its own login.
        """
        spending = spending or CallSpending()
        async with self._slots.taken_by(caller), AsyncExitStack() as call:
            inference = call.enter_context(self._telemetry.inference(request))
            if hold := self._holds.on(_OWN_LOGIN):
                raise hold[0]
            await self.check_login()
            await self._budget.require_left(spending)
            draft = await off_loop(lambda: self._prepare(request), is_large=is_large(request))
            for finding in draft.prepared.findings:
                raise finding.as_error()
            inference.sends_to(f"stdio://{SUBJECT}")
            retried: set[str] = set()
            while True:
                async with AsyncExitStack() as opened:
                    try:
                        answer = await self._send(draft, opened, spending, recorder)
                        await answer.begin()
                    except KiroError as error:
                        failure = error
                    else:
                        call.push_async_exit(opened.pop_all())
                        break
                if recorder is not None:
                    recorder.failed(failure)
                await self._prepare_next(failure, retried)
            inference.begins(lambda: answer.so_far)
            yield answer

    # --- one attempt ----------------------------------------------------------------------

    async def _send(
        self,
        draft: Draft,
        opened: AsyncExitStack,
        spending: CallSpending,
        recorder: Recorder | None,
    ) -> AcpAnswer:
        """Find the session for a request, and send it; the exit stack ends the answer.

        Raises:
            KiroError: No session could be opened.
        """
        session, blocks, warnings = await self._go_on(draft)
        if session is None:
            session = await self._new_session(draft.spec)
            turns = draft.prepared.turns
            blocks = write_conversation(turns, f"-----{secrets.token_hex(8)}-----")
            if len(turns) > 1:
                warnings.append(
                    f"The {len(turns) - 1} earlier turn(s) went to kiro-cli as text: it cannot be"
                    " given a history."
                )
        try:
            sent = [*draft.note, *blocks] if blocks else []
            payload = await off_loop(
                lambda: self._payload(draft, sent), is_large=is_large(draft.request)
            )
            if sent:
                session.prompt(sent)
        except BaseException:
            self._end(session)
            raise
        model = session.dialect.model or draft.spec.model
        if model != draft.spec.model:
            warnings.append(f"kiro-cli answers with the model {model!r:.80}.")
        payload = replace(
            payload,
            model=replace(payload.model, id=model),
            warnings=(*payload.warnings, *dict.fromkeys((*warnings, *session.dialect.warnings))),
        )
        if recorder is not None:
            recorder.sent("ACP", f"stdio://{SUBJECT}", {}, payload.encoded)
        seconds = self._settings.first_token_timeout_seconds
        if draft.spec.effort:
            seconds *= THINKING_TIMEOUT_FACTOR
        options = ReplyOptions(
            prompt_characters=payload.estimated_tokens * BYTES_PER_TOKEN,
            context_window_tokens=draft.prepared.model.context_window or 0,
            thinking=self._settings.thinking_handling,
            tools=draft.request.tools,
            caller_names=draft.prepared.tools.caller_names,
            property_names=draft.prepared.tools.property_names,
            reads_text_calls=self._settings.text_tool_calls,
        )
        builder = ReplyBuilder(options)
        builder.add(Text("", model))
        answer = AcpAnswer(
            session,
            builder,
            payload,
            first_token_seconds=seconds,
            idle_seconds=self._settings.stream_read_timeout_seconds,
        )
        opened.push_async_callback(self._release, answer, draft, spending, recorder)
        return answer

    async def _release(
        self, answer: AcpAnswer, draft: Draft, spending: CallSpending, recorder: Recorder | None
    ) -> None:
        """Keep the session of a whole answer for the next turn, and end that of any other."""
        session, reply = answer.session, answer.cut()
        is_whole = not reply.truncated and reply.stop_reason != "refusal"
        if is_whole and session.state in ("ready", "waiting", "deferred"):
            said = Message(role="assistant", parts=reply.parts)
            messages = (*draft.request.messages, said)
            session.heard = conversation_key(draft.spec, messages)
            session.is_taken = False
        else:
            self._end(session)
        if recorder is not None:
            recorder.replied(reply)
        await self._budget.add(reply.usage.credits or 0.0, spending)

    async def _prepare_next(self, error: KiroError, retried: set[str]) -> None:
        """Prepare another attempt after a failure; it gets a new session.

        Raises:
            KiroError: No attempt follows: the error itself.
        """
        if isinstance(error, SignInRequired):
            self._is_signed_in = False
        self._holds.add(_OWN_LOGIN, error)
        reason = ""
        if STALE_HISTORY in str(error).lower():
            reason = "history"
        elif error.code == "empty_response" and error.reason == "refusal":
            reason = "refusal"
        elif "--agent-engine" in str(error) and "--auth-method" in self._flags:
            reason, self._dialect = "engine", V3  # This version has no v2 any more.
        if not reason or reason in retried:
            raise error
        retried.add(reason)
        if reason == "refusal":
            await anyio.sleep(RETRY_SECONDS)

    # --- sessions -------------------------------------------------------------------------

    async def _go_on(self, draft: Draft) -> tuple[Session | None, list[JsonObject], list[str]]:
        """Find the session that has had the earlier turns.

        Returns:
            The session (None for a new one), the prompt for it (empty if its prompt goes on), and
            warnings.
        """
        earlier, new = split_new(draft.request.messages)
        if not earlier or not new:
            return None, [], []
        results = results_of(new)
        parts = [part for message in new for part in message.parts]
        known = conversation_key(draft.spec, earlier)
        idle = [one for one in self.sessions if not one.is_taken and not one.is_ended]
        session = next((one for one in idle if one.holds(results.keys())), None) or next(
            (one for one in idle if one.heard == known and not one.is_spent()), None
        )
        if session is None:
            if set(self._lost) & results.keys():
                return None, [], ["A tool call was no longer open in kiro-cli."]
            return None, [], []
        session.is_taken = True
        if session.state == "ready":
            return session, write_message(parts), []
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        has_images = any(
            isinstance(part, ImagePart) or (isinstance(part, ToolResult) and part.images)
            for part in parts
        )
        if not has_images:  # A result of a tool can be text only there.
            try:
                with anyio.move_on_after(self._settings.stream_read_timeout_seconds):
                    if await session.resume(results, "\n".join(texts)):
                        return session, [], []
            except BaseException:
                self._end(session)
                raise
            if session.state == "deferred":
                return session, write_late_results(parts), []
        self._end(session)
        return None, [], ["The open turn in kiro-cli could not go on with the results."]

    async def _new_session(self, spec: SessionSpec) -> Session:
        """Return a session that is ready for its first prompt.

        Raises:
            KiroError: The program cannot be started, or not as it must be.
        """
        dialect = self._dialect(spec, self._flags)
        another = None
        async with self._starting:
            assert self._program
            while len(self.sessions) >= MAX_PROCESSES:
                idle = [one for one in self.sessions if not one.is_taken and not one.is_ended]
                session = min(idle, key=lambda it: (it.state != "ready", it.used_at), default=None)
                if session and self._can_renew(session, spec):
                    session.is_taken, another = True, dialect
                    break
                if session:
                    self._end(session)
                # No more calls run than processes may live, so one of them is unused or ending.
                await next(one for one in self.sessions if one.is_ended).wait_ended()
                await anyio.lowlevel.checkpoint()
            else:
                if spec.tools and self._bridge is None:
                    bridge = Bridge()
                    await self._tasks.start(bridge.run)
                    self._bridge = bridge
                session = Session(
                    program=self._program,
                    dialect=dialect,
                    limits=self._limits,
                    bridge=self._bridge if spec.tools else None,
                )
                self.sessions.append(session)
                self._tasks.start_soon(self._run, session)
        try:
            await session.open(another)
        except BaseException:
            self._end(session)
            raise
        return session

    def _can_renew(self, session: Session, spec: SessionSpec) -> bool:
        """Whether another conversation can begin in a session's process."""
        old = session.dialect
        if session.state != "ready" or session.is_spent() or old.spec.tools or spec.tools:
            return False
        return isinstance(old, self._dialect) and (self._dialect is V3 or old.spec == spec)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:
            logger.exception("A session with kiro-cli failed")
            session.end(InternalFault("The session with kiro-cli failed by a defect."))
        finally:
            self.sessions.remove(session)

    def _end(self, session: Session) -> None:
        if session.desk:
            self._lost.extend(call.id for call in session.desk.calls)
        session.end()

    # --- what is sent ---------------------------------------------------------------------

    def _prepare(self, request: ChatRequest) -> Draft:
        """Repair a request, and say what it asks for in vain.

        Raises:
            InvalidRequest: No message says anything.
        """
        warnings: list[str] = []
        if request.max_tokens:
            warnings.append("kiro-cli takes no max_tokens; it was left out.")
        effort = request.effort
        if effort == "off":
            warnings.append("kiro-cli cannot be told not to think; its default effort is used.")
            effort = ""
        plain = replace(request, max_tokens=0, effort="", tool_choice="", output_schema=None)
        prepared = prepare(plain, DEFAULT_OPTIONS)
        text = compose_system(
            replace(request, system="", writes_in_chunks=False),
            replace(prepared.tools, long_descriptions=()),
        )
        if self._settings.tell_time:
            text = f"The current time is {self._now().isoformat(timespec='seconds')}.\n\n{text}"
        note: JsonObject = {"type": "text", "text": text.strip()}
        spec = SessionSpec(
            system=prepared.system,
            tools=prepared.tools.specs if request.allows_tools else (),
            model=prepared.model.id,
            effort=effort,
        )
        return Draft(
            request=request,
            prepared=prepared,
            spec=spec,
            note=[note] if text.strip() else [],
            warnings=tuple(warnings),
        )

    def _payload(self, draft: Draft, blocks: list[JsonObject]) -> Payload:
        """Return what goes to the program, without the address and bearer of the tools."""
        dialect = self._dialect(draft.spec, self._flags)
        requests: tuple[tuple[str, JsonObject], ...] = (
            ("initialize", INITIALIZE),
            ("session/new", dialect.new_session("<empty folder>", None)),
            ("session/prompt", {"prompt": list[JsonValue](blocks)}),
        )
        body: JsonObject = {
            "command": [SUBJECT, *dialect.arguments()],
            "files": {**dialect.files(None)},
            "lines": [{"method": method, "params": params} for method, params in requests],
            "tools": [
                {"name": f"@{SERVER}/{tool.name}", "inputSchema": tool.input_schema}
                for tool in draft.spec.tools
            ],
        }
        encoded = json_bytes(body)
        images = sum(block.get("type") == "image" for block in blocks)
        text_bytes = sum(len(str(block.get("text", "")).encode()) for block in blocks)
        return Payload(
            body=body,
            encoded=encoded,
            model=draft.prepared.model,
            estimated_tokens=max(1, text_bytes // BYTES_PER_TOKEN) + TOKENS_PER_IMAGE * images,
            tools=draft.prepared.tools,
            repairs=draft.prepared.repairs,
            warnings=(*draft.warnings, *draft.prepared.warnings),
            findings=draft.prepared.findings,
        )


_OWN_LOGIN: Final = AccessToken(value="")
"""Stands for the login of the program where a hold needs a token."""
