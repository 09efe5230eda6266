"""`kiro-mcp verify`: asks the service the open questions of docs/protocol.md, within a budget.

::

    questions (name, expected, credits, how to ask) ─▶ rows (fact, expected, seen) ─▶ table, report

The free questions come first. Each prompt goes to the cheapest model that can answer it, once:
nothing is tried again. A question that fails becomes a row, and the next one is asked. Only a
suspended account, used-up credits, a refused login or a throttle end the run, because more
requests could do harm. Rows are made of our own words, the service's names and numbers, never of
its sentences: so no row can name a person or an account.
"""

import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import anyio
import anyio.to_thread
import click
from rich.table import Table

from kiro_mcp._version import __version__
from kiro_mcp.acp.program import Program, dialect_of, find_program
from kiro_mcp.captures.redacting import redacted_json
from kiro_mcp.chat import (
    AccessToken,
    ChatRequest,
    ImagePart,
    Message,
    ModelInfo,
    Reply,
    TextPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.cli.output import FAILED_OUTPUT, USAGE, harmless_json
from kiro_mcp.cli.serve import service_environ, uses_program
from kiro_mcp.cli.session import run_command
from kiro_mcp.cli.terminal import show, tell, tell_error, waiting
from kiro_mcp.client.admission import CallSpending
from kiro_mcp.client.client import MAX_MODEL_PAGES, KiroClient
from kiro_mcp.client.endpoints import (
    LIST_MODELS,
    LIST_MODELS_KAS,
    LIST_PROFILES,
    USAGE_LIMITS,
    EndpointProfile,
)
from kiro_mcp.client.http import MAX_REFUSAL_BYTES, HttpPool, Recorder
from kiro_mcp.errors import AccountBlocked, InvalidRequest, KiroError
from kiro_mcp.files import replace_text
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings
from kiro_mcp.wire.eventstream import FrameDecoder
from kiro_mcp.wire.json_values import (
    JsonObject,
    UnreadableError,
    object_member,
    object_members,
    parse_object,
    word_member,
)
from kiro_mcp.wire.models import models_from_page

MAX_CREDITS: Final = 0.5
"""What a run may cost. After that no question is asked."""

QUESTION_SECONDS: Final = 120.0

PROMPT_CREDITS: Final = 0.05
"""An estimate of what a prompt costs."""

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""How much of an answer is kept to look at its frames."""

_ENDING_CODES: Final = (
    "account_suspended",
    "quota_exhausted",
    "auth_required",
    "auth_expired",
    "rate_limited",
)

_INVOKE_MCP: Final = EndpointProfile(
    host="runtime", target="KiroRuntimeService.InvokeMCP", origin="", form="kas"
)
_CATALOGUE_MEMBERS: Final = frozenset(
    """
    additionalModelRequestFieldsSchema availableOrigins description modelId modelName promptCaching
    provider rateMultiplier rateUnit refusalFallbackModels status supportedInputTypes tokenLimits
    """.split()  # noqa: SIM905 - a list of names is easier to read without quotes
)
_RED_SQUARE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKElEQVR4nO3NsQ0AAAzCMP5/un0CNkuZ41wybXsH"
    "AAAAAAAAAAAAxR4yw/wuPL6QkAAAAABJRU5ErkJggg=="
)
"""A PNG image of 32 by 32 red pixels, in base64."""
_ENDING: Final = ["metadataEvent", "contextUsageEvent", "meteringEvent"]
_IDENTIFIER: Final = re.compile(
    r"arn:[^\s\"',]+|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE
)


Seen: TypeAlias = tuple[str, bool | None]
"""What the service said to a question, and whether the page says so, too; None if no answer would
contradict the page."""

Ask: TypeAlias = Callable[[Any], Awaitable[Seen]]
"""Asks a question of a `Run`, or of the vendor's program."""


class Row(NamedTuple):
    """One line of the table."""

    fact: str
    expected: str
    seen: str
    outcome: str
    """`same`, `different`, `open`, `failed` or `not asked`."""


class _Watcher(Recorder):
    """A recorder that keeps the status and the beginning of each answer, but no headers."""

    def __init__(self) -> None:
        self.status = 0
        self._body = bytearray()

    def sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        self._body.clear()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status

    def received(self, chunk: bytes) -> None:
        self._body += chunk[: MAX_ANSWER_BYTES - len(self._body)]

    def events(self) -> list[str]:
        """Return the names of the answer's events, without repetitions."""
        frames = FrameDecoder().feed(bytes(self._body))
        return list(dict.fromkeys(str(one.headers.get(":event-type")) for one in frames))

    def refusal(self) -> str:
        """Return the status, names and numbers of a refusal, without its sentences."""
        try:
            members = parse_object(bytes(self._body[:MAX_REFUSAL_BYTES]) or b"null")
        except UnreadableError:
            return f"{self.status}, no JSON object"
        shown = ("__type", "reason", "retryAfterMilliseconds")
        facts = [f"{name}={members[name]}"[:120] for name in shown if name in members]
        return ", ".join([str(self.status), *facts, f"members {' '.join(sorted(members))}"])


@dataclass(slots=True, kw_only=True)
class Run:
    """What the questions of one run share."""

    engine: Engine
    clients: Mapping[str, KiroClient]
    """By the endpoint that each one uses."""
    token: AccessToken
    spending: CallSpending = field(default_factory=CallSpending)
    entries: list[JsonObject] = field(default_factory=list[JsonObject])
    """The live list of models."""
    refusals: list[str] = field(default_factory=list[str])

    async def manage(
        self, endpoint: EndpointProfile, members: Mapping[str, str | bool] | None = None
    ) -> JsonObject:
        """Ask an operation that costs nothing."""
        return await self.engine.tokens.management.ask(endpoint, self.token, members)

    async def list_entries(self, endpoint: EndpointProfile) -> list[JsonObject]:
        """Return the service's list of models as it is."""
        entries: list[JsonObject] = []
        members: dict[str, str | bool] = {}
        for _ in range(MAX_MODEL_PAGES):
            page = await self.manage(endpoint, members)
            entries += object_members(page, "models")
            members["nextToken"] = word_member(page, "nextToken")
            if not members["nextToken"]:
                break
        return entries

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the live list of models."""
        return models_from_page({"models": self.entries})[0]

    def cheapest(self, fits: Callable[[ModelInfo], bool]) -> ModelInfo:
        """Return the cheapest listed model that fits.

        Raises:
            InvalidRequest: None does.
        """
        models = [one for one in self.models() if one.id != "auto" and fits(one)]
        if not models:
            raise InvalidRequest("The service lists no model for this question.")
        return min(models, key=lambda one: one.rate_multiplier or 1.0)

    async def prompt(self, endpoint: str, request: ChatRequest) -> tuple[Reply, list[str], float]:
        """Send a prompt; return its reply, the names of its events and its credits."""
        watcher, before = _Watcher(), self.spending.credits
        client = self.clients[endpoint]
        try:
            async with client.stream(request, spending=self.spending, recorder=watcher) as answer:
                async for _ in answer:
                    pass
                reply = answer.reply
        except KiroError:
            if watcher.status not in (0, 200):
                self.refusals.append(watcher.refusal())
            raise
        if reply.usage.credits is None:
            self.spending.credits += PROMPT_CREDITS
        return reply, watcher.events(), self.spending.credits - before


class Question(NamedTuple):
    """One open question."""

    name: str
    expected: str
    credits: float
    """About what it costs; 0 for a free one."""
    ask: Ask


# --- the questions --------------------------------------------------------------------------------


async def _login(run: Run) -> Seen:
    credential = (await run.engine.tokens.resolution()).credential
    kind = credential.kind if credential else "none"
    profile = "with" if run.token.profile_arn else "without"
    header = run.token.token_type or "no TokenType"
    return f"{kind}, {header}, {profile} a profile, {run.token.region}", None


def _lists_at(endpoint: EndpointProfile) -> Ask:
    async def ask(run: Run) -> Seen:
        entries = await run.list_entries(endpoint)
        run.entries = run.entries or entries
        return f"{len(entries)} models", bool(entries)

    return ask


async def _members(run: Run) -> Seen:
    names = {name for entry in run.entries for name in entry}
    unknown = sorted(names - _CATALOGUE_MEMBERS)
    missing = sorted(_CATALOGUE_MEMBERS - names)
    said = f"new: {' '.join(unknown) or 'none'}; missing: {' '.join(missing) or 'none'}"
    return said, not unknown


async def _efforts(run: Run) -> Seen:
    models = [(one, one.fields) for one in run.models() if one.fields]
    always = sorted(
        one.id
        for one, fields in models
        if "disabled" not in fields.thinking_types and "none" not in fields.efforts
    )
    efforts = " ".join(dict.fromkeys(effort for one, _ in models for effort in one.effort_levels))
    text = f"{' '.join(always) or 'none'}; efforts: {efforts or 'none'}"
    return text, set(always) <= {"claude-sonnet-5.5", "claude-opus-5.5"}


async def _usage(run: Run) -> Seen:
    answer = await run.manage(USAGE_LIMITS)
    return f"members {' '.join(sorted(answer))}", "usageBreakdownList" in answer


async def _profiles(run: Run) -> Seen:
    try:
        profiles = object_members(await run.manage(LIST_PROFILES), "profiles")
    except AccountBlocked as error:
        if error.status != 403 or error.code != "forbidden":
            raise
        return "refused: forbidden, 403", None
    return f"{len(profiles)} on the first page", None


async def _web_search(run: Run) -> Seen:
    call = {"jsonrpc": "2.0", "id": "1", "method": "tools/list"}
    answer = await run.manage(_INVOKE_MCP, call)
    tools = object_members(object_member(answer, "result"), "tools")
    names = [str(tool.get("name")) for tool in tools]
    text = f"members {' '.join(sorted(answer))}; tools: {' '.join(names) or 'none'}"
    return text, "web_search" in names


def _user(text: str) -> Message:
    return Message(role="user", parts=(TextPart(text=text),))


def _request(model: ModelInfo, *messages: Message) -> ChatRequest:
    return ChatRequest(messages=messages or (_SHORT,), model=model.id, model_info=model)


_SHORT: Final = _user("Reply with the single word OK.")


def _answers_at(endpoint: str) -> Ask:
    async def ask(run: Run) -> Seen:
        request = _request(run.cheapest(lambda _: True))
        reply, events, credits = await run.prompt(endpoint, request)
        moved = ", in the newer form" if run.clients[endpoint].notes else ""
        tokens = "no" if reply.usage.is_estimated else "with"
        stop = reply.raw_stop_reason or "no stopReason"
        text = f"{' '.join(events)}; {stop}; {tokens} token counts; {credits:.4g} credits{moved}"
        return text, events[-len(_ENDING) :] == _ENDING and not moved

    return ask


async def _off(run: Run) -> Seen:
    model = run.cheapest(lambda one: bool(one.fields and "disabled" in one.fields.thinking_types))
    _, events, credits = await run.prompt("runtime", replace(_request(model), effort="off"))
    thinks = "reasoningContentEvent" in events
    text = f"{model.id} {'thinks' if thinks else 'does not think'}; {credits:.4g} credits"
    return text, not thinks


async def _image(run: Run) -> Seen:
    call = ToolUse(id="tooluse_1", name="look", arguments={})
    red = ImagePart(format="png", data=_RED_SQUARE)
    result = ToolResult(id=call.id, text="A picture.", images=(red,))
    request = _request(
        run.cheapest(lambda one: "IMAGE" in one.input_types),
        _user("Look, then name the colour in one English word."),
        Message(role="assistant", parts=(call,)),
        Message(role="user", parts=(result,)),
    )
    schema: JsonObject = {"type": "object", "properties": {}}
    tool = ToolSpec(name=call.name, description="Look at the picture.", input_schema=schema)
    reply, _, credits = await run.prompt("runtime", replace(request, tools=(tool,)))
    sees = "red" in reply.text.lower()
    return f"{'red' if sees else 'another answer'}; {credits:.4g} credits", sees


async def _cache(run: Run) -> Seen:
    model = run.cheapest(lambda one: one.id.startswith("gpt"))
    lines = "\n".join(f"Line {number}: nothing to do here." for number in range(200))
    request = _request(model, _user(f"{lines}\nReply with the single word OK."))
    request = replace(request, conversation_id=run.engine.new_id())
    _, _, first = await run.prompt("runtime", request)
    _, _, second = await run.prompt("runtime", request)
    return f"{model.id}: {first:.4g}, then {second:.4g} credits", second < first


async def _refusals(run: Run) -> Seen:
    return "; ".join(run.refusals) or "none met", None


QUESTIONS: Final = (
    Question("token and profile", "as the login's kind says", 0, _login),
    Question("list of models", "answered in the older form", 0, _lists_at(LIST_MODELS)),
    Question("list of models, kas", "answered in the newer form", 0, _lists_at(LIST_MODELS_KAS)),
    Question("members of a model", "only known ones", 0, _members),
    Question("models that always think", "claude-sonnet-5.5 claude-opus-5.5 at most", 0, _efforts),
    Question("usage", "has usageBreakdownList", 0, _usage),
    Question("profiles", "none for API keys and Builder IDs", 0, _profiles),
    Question("web search (InvokeMCP)", "lists web_search", 0, _web_search),
    Question("prompt", f"ends {' '.join(_ENDING)}", PROMPT_CREDITS, _answers_at("runtime")),
    Question("prompt, kas", f"ends {' '.join(_ENDING)}", PROMPT_CREDITS, _answers_at("kas")),
    Question("effort off", "does not think", PROMPT_CREDITS, _off),
    Question("image of a tool result", "red", PROMPT_CREDITS, _image),
    Question("GPT's cache by conversationId", "the second costs less", 2 * PROMPT_CREDITS, _cache),
    Question("refusals", "__type, message, reason", 0, _refusals),
)


async def _version(program: Program) -> Seen:
    return await program.version() or "does not say", None


async def _flags(program: Program) -> Seen:
    found = await program.flags()
    return f"{dialect_of(found)}: {' '.join(sorted(found))}", None


async def _signed_in(program: Program) -> Seen:
    return "yes" if await program.is_signed_in() else "no", None


PROGRAM_QUESTIONS: Final = (
    Question("program: version", "2.13 or later", 0, _version),
    Question("program: flags of acp", "v3 with --auth-method, else v2", 0, _flags),
    Question("program: signed in", "yes", 0, _signed_in),
)


# --- the command ----------------------------------------------------------------------------------


def run_verify(*, yes: bool, dry_run: bool, out: str, offline: bool) -> int:
    """Ask the questions, print what was seen, and return the exit code."""
    questions = PROGRAM_QUESTIONS if uses_program(os.environ) else QUESTIONS + PROGRAM_QUESTIONS
    total = sum(one.credits for one in questions)
    if dry_run:
        plan = [(one.name, one.expected, f"{one.credits:g}") for one in questions]
        show(_table(("question", "expected", "credits"), plan))
        cost = f"About {total:g} credits; it stops at {MAX_CREDITS:g}." if total else "No credits."
        tell(f"{cost} Nothing was sent.")
        return 0
    if total and not offline:
        tell(f"This costs about {total:g} credits of your plan. It stops at {MAX_CREDITS:g}.")
        if not yes and not sys.stdin.isatty():
            tell("Nothing was sent. Add --yes to agree.")
            return USAGE
        if not yes and not click.confirm("Ask the service?", err=True):
            return 0

    async def command() -> int:
        with waiting("asking the service"):
            async with service_environ(offline=offline) as environ:
                rows, spent, fault = await verify(environ, offline=offline)
        show(_table(("fact", "expected", "seen", ""), rows))
        tell(f"{spent:.4g} credits were used.")
        if out:
            report = {"kiro_mcp": __version__, "credits": spent, "offline": offline}
            text = harmless_json({**report, "rows": [row._asdict() for row in rows]})
            try:
                await anyio.to_thread.run_sync(replace_text, Path(out), f"{text}\n")
            except OSError as error:
                tell(f"error: {out} cannot be written ({error.strerror}).")
                return FAILED_OUTPUT
            tell(f"{out} has no tokens, accounts or ids: you can share it.")
        return tell_error(fault) if fault else 0

    return run_command(command)


async def verify(
    environ: Mapping[str, str], *, offline: bool
) -> tuple[list[Row], float, KiroError | None]:
    """Ask all questions; return the rows, the credits, and the error that ended the run, if any."""
    rows: list[Row] = []
    try:
        settings = Settings.load(environ)
        if uses_program(environ) or not offline:
            rows += await _ask_program(settings, environ)
        if uses_program(environ):
            return rows, 0.0, None
        async with (
            aclosing(HttpPool.of(settings)) as pool,
            Engine(settings, environ=environ) as engine,
        ):
            once = {"KIRO_MCP_MAX_RETRIES": "0", "KIRO_MCP_FIRST_TOKEN_MAX_RETRIES": "0"}
            limit = {"KIRO_MCP_MAX_CREDITS_PER_CALL": f"{MAX_CREDITS}"}
            clients = {
                name: KiroClient(
                    engine.tokens,
                    Settings.load({**environ, **once, **limit, "KIRO_MCP_ENDPOINTS": name}),
                    state_folder=engine.home,
                    http=pool,
                )
                for name in ("runtime", "kas")
            }
            token = await engine.tokens.access_token()
            run = Run(engine=engine, clients=clients, token=token)
            fault = await _ask_all(run, rows)
            return rows, run.spending.credits, fault
    except KiroError as error:
        return rows, 0.0, error


async def _ask_program(settings: Settings, environ: Mapping[str, str]) -> list[Row]:
    """Ask the vendor's program; no rows if there is none and the engine needs none."""
    try:
        program = find_program(settings.kiro_cli, environ)
    except InvalidRequest:
        if uses_program(environ):
            raise
        return []
    return [(await _ask(one, program))[0] for one in PROGRAM_QUESTIONS]


async def _ask_all(run: Run, rows: list[Row]) -> KiroError | None:
    """Ask one question after the other; return the error that ended this, if any."""
    end: KiroError | None = None
    for one in QUESTIONS:
        is_over = run.spending.credits + one.credits > MAX_CREDITS
        if one.ask is not _refusals and (end or (one.credits and is_over)):
            why = f"ended by {end.code}" if end else f"the limit of {MAX_CREDITS:g} credits"
            rows.append(Row(one.name, one.expected, why, "not asked"))
            continue
        row, error = await _ask(one, run)
        rows.append(row)
        # Suspicious activity is a 429; more requests have led to suspensions.
        is_blocked = isinstance(error, AccountBlocked) and error.status == 429
        if error and (error.code in _ENDING_CODES or is_blocked):
            end = error
    return end


async def _ask(question: Question, subject: Run | Program) -> tuple[Row, KiroError | None]:
    """Ask one question; return its row, and the error of a call that failed."""
    outcome, fault = "failed", None
    try:
        with anyio.fail_after(QUESTION_SECONDS):
            text, is_expected = await question.ask(subject)
        outcome = {True: "same", False: "different", None: "open"}[is_expected]
    except TimeoutError:
        text = f"no answer within {QUESTION_SECONDS:g} s"
    except KiroError as error:
        facts = (error.code, str(error.status or ""), error.reason)
        text, fault = ", ".join(fact for fact in facts if fact), error
    except Exception as error:  # The service may send anything.
        text = type(error).__name__
    clean = _IDENTIFIER.sub("[id]", str(redacted_json(text)))
    return Row(question.name, question.expected, clean, outcome), fault


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
