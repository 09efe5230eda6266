"""Asks the model a question that came over one of the APIs, whichever it was.

The modules of the APIs read a request into a `Question`, and write what comes back here:
`ask` hands over each event when it arrives, and returns the whole reply.

Two kinds of questions need more than passing events on:

* Stop sequences: the service knows none. The text is searched here, and the answer is cut there.
* A schema: the answer has to be JSON and nothing else. It is collected first, checked, and asked
  for once more if it breaks the schema.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from kiro_mcp.api.writing import Event
from kiro_mcp.chat import (
    ChatRequest,
    JsonObject,
    JsonValue,
    Reply,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolUse,
    ToolUseDelta,
)
from kiro_mcp.client.admission import CallSpending
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.client.schema_checks import Answer, ask_by_schema, read_schema
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.server.engine import Engine
from kiro_mcp.wire.json_values import is_larger, json_text
from kiro_mcp.wire.messages import read_messages
from kiro_mcp.wire.models import ModelChoice
from kiro_mcp.wire.request import history_head
from kiro_mcp.wire.tools import read_tool_specs

Emit: TypeAlias = Callable[[Event], Awaitable[None]]

MAX_STOP_SEQUENCES: Final = 64
MAX_STOP_CHARACTERS: Final = 1000
"""How long a stop sequence may be."""

_ONE_CALL: Final = "Call at most one tool at a time."

_SYSTEM_ROLES: Final = ("system", "developer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request of any of the APIs, read as far as the APIs differ."""

    model: str
    """The name as the program wrote it."""
    messages: Sequence[JsonValue]
    """The messages in the shape of their API."""
    system: JsonValue = ""
    tools: Sequence[JsonValue] = ()
    tool_choice: str = ""
    """"" for no wish, `none`, `required`, or the name of a tool."""
    allows_several_calls: bool = True
    effort: str = ""
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    schema: JsonObject | None = None
    """What the answer has to be valid against; then it is JSON alone."""
    is_streamed: bool = False


async def ask(question: Question, engine: Engine, emit: Emit, *, caller: str = "") -> Reply:
    """Ask, pass on each event as soon as it arrives, and return the reply.

    Args:
        question: The question.
        engine: The account that asks.
        emit: Takes the events. While it waits, nothing is read from the service.
        caller: Who asks. While all slots are taken, callers take turns.

    Raises:
        KiroError: The service gave neither an answer nor a part of one.
    """
    request = await read_request(question, engine)
    if request.output_schema is not None:
        reply = await _typed_reply(request, engine, caller)
        for event in events_of(reply):
            await emit(event)
        return reply
    stops = StopSequences(question.stop)
    blocks = 0
    is_thinking = False
    async with engine.client.stream(request, caller=caller) as stream:
        async for delta in stream:
            if is_thinking and not isinstance(delta, ThinkingDelta):
                blocks = await _emit_thinking(stream.so_far, blocks, emit)
            is_thinking = isinstance(delta, ThinkingDelta)
            if not isinstance(delta, TextDelta):
                if isinstance(delta, ToolUseDelta) and (held := stops.rest()):
                    await emit(TextDelta(held))
                await emit(delta)
                continue
            if text := stops.feed(delta.text):
                await emit(TextDelta(text))
            if stops.found:
                reply = _cut(stream.cut(), stops.characters)
                return replace(reply, raw_stop_reason=stops.found)
        reply = stream.reply
    if held := stops.rest():
        await emit(TextDelta(held))
    await _emit_thinking(reply, blocks, emit)
    return reply


def events_of(reply: Reply) -> Iterator[Event]:
    """Return the events of a whole reply."""
    for part in reply.parts:
        match part:
            case TextPart():
                yield TextDelta(part.text)
            case ThinkingPart():
                if part.text:
                    yield ThinkingDelta(part.text)
                yield part
            case ToolUse():
                yield ToolUseDelta(part)


async def read_request(question: Question, engine: Engine) -> ChatRequest:
    """Make a request of a question.

    Raises:
        InvalidRequest: It asks for something that cannot be had.
    """
    given = [list(question.messages), list(question.tools), question.system]
    schema = None
    if question.schema:
        schema = await read_schema(question.schema, "The schema of the answer")
    model = await _model(question.model, engine)

    def read() -> ChatRequest:
        messages = _with_late_system_marked(question.messages)
        chat = read_messages(messages, system=question.system)
        tools, _ = read_tool_specs(question.tools)
        if not chat.messages:
            raise InvalidRequest("There are no messages.", next_step="Send at least one.")
        names = [tool.name for tool in tools]
        choice = question.tool_choice
        if choice not in ("", "none", "required", *names) or (choice == "required" and not names):
            raise InvalidRequest(
                f"tool_choice asks for {quoted(choice)}, which is not among the tools.",
                next_step="Name one of the tools, or leave tool_choice out.",
            )
        system = chat.system
        if tools and not question.allows_several_calls:
            system = f"{system}\n\n{_ONE_CALL}".strip()
        return ChatRequest(
            messages=chat.messages,
            model=model.model.id,
            model_info=model.model,
            history_head=history_head(chat.messages, chat.system),
            system=system,
            tools=tools,
            allows_tools=model.allows_tools and choice != "none",
            tool_choice="" if choice == "none" else choice,
            effort=question.effort or model.effort or engine.settings.thinking,
            max_tokens=question.max_tokens,
            output_schema=schema,
            writes_in_chunks=model.writes_in_chunks,
        )

    return await off_loop(read, is_large=is_larger(given, SMALL))


async def _model(name: str, engine: Engine) -> ModelChoice:
    """Choose the model; the list is fetched if the known one has not got it."""
    choice = engine.choose_model(name)
    if not choice.is_listed:
        await engine.catalogue(refresh=False)
        choice = engine.choose_model(name)
    return choice


def _with_late_system_marked(messages: Sequence[JsonValue]) -> list[JsonValue]:
    """Keep system messages that come after others where they are, as marked text of the user."""
    placed: list[JsonValue] = []
    has_begun = False
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _SYSTEM_ROLES:
            has_begun = True
        elif has_begun:
            content = message.get("content") or ""
            blocks = content if isinstance(content, list) else [content]
            marked = list[JsonValue](["<system>", *blocks, "</system>"])
            placed.append({"role": "user", "content": marked})
            continue
        placed.append(message)
    return placed


async def _emit_thinking(reply: Reply, done: int, emit: Emit) -> int:
    """Hand over the thinking blocks that have ended since; return how many there are now."""
    blocks = [part for part in reply.parts if isinstance(part, ThinkingPart)]
    for block in blocks[done:]:
        await emit(block)
    return len(blocks)


# --- stop sequences -------------------------------------------------------------------------


class StopSequences:
    """Finds the first of several texts in a text that comes in pieces.

    What may be the beginning of a stop sequence is held back until the next piece decides.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Take the stop sequences.

        Raises:
            InvalidRequest: One is empty or too long, or there are too many.
        """
        if len(texts) > MAX_STOP_SEQUENCES:
            raise InvalidRequest(
                f"There are {len(texts)} stop sequences; the limit is {MAX_STOP_SEQUENCES}.",
                next_step="Send fewer.",
            )
        if any(not 0 < len(text) <= MAX_STOP_CHARACTERS for text in texts):
            raise InvalidRequest(
                f"A stop sequence must have 1 to {MAX_STOP_CHARACTERS} characters.",
                next_step="Leave it out or shorten it.",
            )
        self.found = ""
        """The stop sequence that was found."""
        self.characters = 0
        """How many characters of text came before it."""
        self._texts = texts
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that can be handed over."""
        if not self._texts:
            return piece
        text = self._held + piece
        positions = [(text.find(stop), stop) for stop in self._texts]
        hits = [(position, stop) for position, stop in positions if position >= 0]
        if hits:
            position, self.found = min(hits, key=lambda hit: hit[0])
            self._held = ""
        else:
            position = len(text) - self._characters_to_hold(text)
            self._held = text[position:]
        self.characters += position
        return text[:position]

    def rest(self) -> str:
        """Return the text that is held back: nothing follows it any more."""
        held, self._held = self._held, ""
        self.characters += len(held)
        return held

    def _characters_to_hold(self, text: str) -> int:
        """Return how many characters at the end of the text may begin a stop sequence."""
        longest = max(map(len, self._texts))
        for position in range(max(0, len(text) - longest + 1), len(text)):
            end = text[position:]
            if any(stop.startswith(end) for stop in self._texts):
                return len(end)
        return 0


def _cut(reply: Reply, characters: int) -> Reply:
    """Return the reply up to the stop sequence."""
    parts: list[TextPart | ThinkingPart | ToolUse] = []
    for part in reply.parts:
        if isinstance(part, TextPart):
            parts.append(TextPart(text=part.text[:characters]))
            characters -= len(part.text)
            if characters < 0:
                break
        else:
            parts.append(part)
    return replace(
        reply,
        parts=tuple(parts),
        stop_reason="stop_sequence",
        truncated=False,
        truncation_reason="",
        fault=None,
    )


# --- answers by a schema ----------------------------------------------------------------------


async def _typed_reply(request: ChatRequest, engine: Engine, caller: str) -> Reply:
    """Ask for JSON; the text of the reply is JSON alone, if there is JSON in it."""
    spending = CallSpending()

    async def send(request: ChatRequest) -> Answer:
        async with engine.client.stream(request, spending=spending, caller=caller) as stream:
            async for _ in stream:
                pass
            return Answer(reply=stream.reply)

    answer = await ask_by_schema(request, send)
    reply, typed = answer.reply, answer.typed
    if typed is None or (typed.violations and typed.data is None):
        return reply
    text = reply.text.strip()
    try:  # The model's own text is handed over if it is JSON alone, byte for byte.
        json.loads(text)
    except ValueError:
        text = json_text(typed.data)
    others = tuple(part for part in reply.parts if not isinstance(part, TextPart))
    return replace(reply, parts=(*others, TextPart(text=text)))
