"""The bytes of an answer into deltas, as they come, and one reply at its end.

The response side of the protocol, put together::

    bytes ─ eventstream ─▶ frames ─ events ─▶ events ─┬─ speech ───▶ parts ─┬─▶ deltas
                                                      ├─ tool_use ─▶        │
                                                      ├─ usage, notes ──────┤
                                                      └─ ending ────────────┴─▶ Reply

`kiro_mcp.client.client` feeds it. What came is never lost: whatever ends an answer, the
reply holds all before that, and says that it is truncated and why.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, Literal, TypeAlias, TypedDict
from uuid import uuid4

from kiro_mcp.chat import (
    BYTES_PER_TOKEN,
    CodeReference,
    Delta,
    Fault,
    Refusal,
    Reply,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolSpec,
    ToolUse,
    ToolUseDelta,
    Usage,
    WebLink,
)
from kiro_mcp.errors import AnswerBroken, FrameError, KiroError, quoted
from kiro_mcp.wire.events import (
    MAX_ANSWER_BYTES,
    MAX_IGNORED_TYPES,
    MAX_LISTED,
    MAX_PARTS,
    MAX_TEXT_CHARACTERS,
    MAX_TYPE_CHARACTERS,
    MAX_WARNINGS,
    AnswerLimitError,
    ContextUsage,
    ConversationNamed,
    Event,
    Failed,
    ForeignBody,
    Ignored,
    Links,
    Metering,
    Note,
    Reasoning,
    References,
    Several,
    Sign,
    Stop,
    Text,
    TokenCounts,
    ToolUseFragment,
    is_foreign,
    read_event,
)
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES, FrameDecoder
from kiro_mcp.wire.json_values import SurrogateJoiner
from kiro_mcp.wire.text_tool_calls import CallWatch, find_calls
from kiro_mcp.wire.thinking import CLOSING_TAG, OPENING_TAG, Piece, PieceKind, ThinkingExtractor
from kiro_mcp.wire.tool_use import ToolUseAssembler

# --- ending ------------------------------------------------------------------------------


_STOP_REASONS: Final[dict[str, StopReason]] = {
    "END_TURN": "end_turn",
    "TOOL_USE": "tool_use",
    "MAX_TOKENS": "max_tokens",
    "STOP_SEQUENCE": "stop_sequence",
    "MODEL_CONTEXT_WINDOW_EXCEEDED": "context_window_exceeded",
    "CONTEXT_WINDOW_EXCEEDED": "context_window_exceeded",
    "CONTENT_FILTERED": "refusal",
    "GUARDRAIL_INTERVENED": "refusal",
    "REFUSAL": "refusal",
    "CANCELLED": "truncated",
    "PAUSE_TURN": "truncated",
}
"""By the service's word. Only the first two have been observed; a word that begins with
`MALFORMED` means `truncated`."""

_TOO_LONG: Final[dict[StopReason, str]] = {
    "max_tokens": "The answer reached the limit of its length.",
    "context_window_exceeded": "The conversation filled the model's context window.",
}

FULL_PERCENT: Final = 100.0

_CAMEL_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the stream of an answer ended."""

    raw_stop_reason: str = ""
    """The service's own word, where it sent one."""
    context_percent: float | None = None
    is_terminated: bool = False
    """Whether any of the late events came."""
    fault: Fault | KiroError | None = None
    """What ended it early."""
    tool_uses: tuple[ToolUse, ...] = ()


def stop_reason_of(ending: Ending) -> StopReason:
    """Say why the model stopped; the first sign in order of trust decides."""
    if ending.fault is not None:
        return "max_tokens" if _is_too_long(ending.fault) else "truncated"
    said = _said(ending)
    if said in (None, "end_turn", "tool_use") and _is_tool_use_cut_off(ending):
        return "truncated"  # Not `tool_use`: a caller must not run a half-made call.
    if said not in (None, "end_turn"):
        return said
    if said is None and _is_window_full(ending):
        return "context_window_exceeded"
    if any(tool_use.state == "complete" for tool_use in ending.tool_uses):
        return "tool_use"
    return "end_turn" if ending.is_terminated else "truncated"


def truncation_reason_of(ending: Ending) -> str:
    """Say in a sentence why the answer is incomplete; "" for one that is whole."""
    if ending.fault is not None:
        return _describe(ending.fault)
    if cut_off := [use.name for use in ending.tool_uses if use.state == "truncated"]:
        return f"The arguments of the tool use {quoted(cut_off[0])} were cut off."
    if not ending.is_terminated:
        return "The stream ended without a sign that the answer was complete."
    stop_reason = stop_reason_of(ending)
    if stop_reason == "truncated":
        return f"The service stopped the answer: {ending.raw_stop_reason}."
    return _TOO_LONG.get(stop_reason, "")


def _said(ending: Ending) -> StopReason | None:
    """Return the service's own reason; None where it gave none, or one that nobody knows."""
    word = _CAMEL_BOUNDARY.sub("_", ending.raw_stop_reason.strip())
    word = word.upper().replace("-", "_").replace(" ", "_")
    return "truncated" if word.startswith("MALFORMED") else _STOP_REASONS.get(word)


def _is_tool_use_cut_off(ending: Ending) -> bool:
    return any(tool_use.state == "truncated" for tool_use in ending.tool_uses)


def _is_window_full(ending: Ending) -> bool:
    return ending.context_percent is not None and ending.context_percent >= FULL_PERCENT


def _is_too_long(fault: Fault | KiroError) -> bool:
    return isinstance(fault, Fault) and fault.name == "ContentLengthExceededException"


def _describe(fault: Fault | KiroError) -> str:
    if isinstance(fault, KiroError):
        return fault.message
    words = ": ".join(filter(None, (fault.name or "an error", fault.message or fault.reason)))
    return f"The service ended its answer with {words}"


# --- usage -------------------------------------------------------------------------------


class UsageMeter:
    """Adds up one answer's figures.

    Args:
        prompt_characters: The size of the prompt, for the estimate.
        context_window_tokens: The size of the model's context window, 0 where it is not
            known. With it, the estimate follows the service's percentage.
    """

    def __init__(self, prompt_characters: int, context_window_tokens: int) -> None:
        self.context_percent: float | None = None
        """How full the context window is, as last said. It counts the prompt and the answer."""
        self.credits: float | None = None
        """What the service has charged so far; None where it has not said."""
        self._prompt_characters = prompt_characters
        self._context_window_tokens = context_window_tokens
        self._counts = TokenCounts()

    def add(self, event: Metering | ContextUsage | TokenCounts) -> None:
        """Take a figure. Credits add up; of the others the last one that says anything counts."""
        match event:
            case Metering(credits=None) | ContextUsage(percent=None):
                pass
            case Metering():
                self.credits = (self.credits or 0.0) + (event.credits or 0.0)
            case ContextUsage():
                self.context_percent = event.percent
            case _:
                self._counts = event if event != TokenCounts() else self._counts

    def usage(self, output_bytes: int) -> Usage:
        """Return the figures.

        Args:
            output_bytes: The size in UTF-8 of all that the model gave, for the estimate.
        """
        counts = self._counts
        input_tokens = counts.uncached_input + counts.cache_read + counts.cache_write
        output_tokens = counts.output or -(-output_bytes // BYTES_PER_TOKEN)
        return Usage(
            input_tokens=input_tokens or self._estimate_input(output_tokens),
            output_tokens=output_tokens,
            cache_read_tokens=counts.cache_read,
            cache_write_tokens=counts.cache_write,
            is_estimated=not (input_tokens and (counts.output or not output_bytes)),
            context_percent=self.context_percent,
            credits=self.credits,
        )

    def _estimate_input(self, output_tokens: int) -> int:
        # The percentage covers the answer too. What it is a percentage of seldom is the
        # window that the service advertises, which is why this stays an estimate.
        window_tokens = (self.context_percent or 0) * self._context_window_tokens / 100
        by_percent = round(window_tokens) - output_tokens
        return by_percent if by_percent > 0 else -(-self._prompt_characters // BYTES_PER_TOKEN)


# --- notes -------------------------------------------------------------------------------


class Notes:
    """Keeps one answer's notes."""

    def __init__(self) -> None:
        self.conversation_id = ""
        """The service's id of the conversation; "" where it names none."""
        self.references: list[CodeReference] = []
        self.links: list[WebLink] = []
        self.ignored_events: Counter[str] = Counter()
        """How often each type came that says nothing to a caller."""
        self._warnings: list[str] = []
        self._further_warnings = 0

    def add(self, event: Note) -> None:
        """Take a note."""
        match event:
            case References():
                self.references += event.references[: MAX_LISTED - len(self.references)]
            case Links():
                self.links += event.links[: MAX_LISTED - len(self.links)]
            case ConversationNamed():
                self.conversation_id = event.conversation_id or self.conversation_id
            case Ignored():
                self._count(event.event_type[:MAX_TYPE_CHARACTERS])
            case _:
                name = event.event_type[:MAX_TYPE_CHARACTERS]
                self.warn(f"An event {name!r} was left out: it {event.problem}.")

    def warn(self, sentence: str) -> None:
        """Keep a sentence about what was odd."""
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(sentence)
        else:
            self._further_warnings += 1

    def warnings(self) -> tuple[str, ...]:
        """Return what was odd, one sentence each."""
        if not self._further_warnings:
            return tuple(self._warnings)
        return (*self._warnings, f"Further warnings: {self._further_warnings}.")

    def _count(self, event_type: str) -> None:
        is_known = event_type in self.ignored_events
        has_room = len(self.ignored_events) < MAX_IGNORED_TYPES
        self.ignored_events[event_type if is_known or has_room else "others"] += 1


# --- parts -------------------------------------------------------------------------------


ThinkingHandling = Literal["separate", "remove", "inline", "strip_tags"]
"""`separate`: thinking apart from the text. `remove`: no thinking. `inline`: thinking in the
text, between `<thinking>` and `</thinking>`. `strip_tags`: thinking in the text, unmarked."""

ReplyPart: TypeAlias = TextPart | ThinkingPart | ToolUse
FindCalls: TypeAlias = Callable[[str, int], Sequence[str | ToolUse]]
"""Splits a text, from a position on, into text and the tool uses in it."""

_Place = Literal["text", "thinking"]
_PLACES: Final[dict[ThinkingHandling, dict[PieceKind, _Place]]] = {
    "separate": {PieceKind.TEXT: "text", PieceKind.THINKING: "thinking"},
    "remove": {PieceKind.TEXT: "text"},
    "inline": dict.fromkeys(PieceKind, "text"),
    "strip_tags": {PieceKind.TEXT: "text", PieceKind.THINKING: "text", PieceKind.GAP: "text"},
}
"""Where a piece of each kind goes; nowhere if its kind is missing."""


@dataclass(slots=True)
class ThinkingBlock:
    """A block of thinking as it grows."""

    is_unclosed: bool = False
    """Whether the answer ended, or a tool use began, before it was closed."""
    is_kept: bool = False
    """Whether it has its place among the parts."""
    pieces: list[str] = field(default_factory=list[str])
    signature: list[str] = field(default_factory=list[str])
    redacted: str = ""

    @property
    def text(self) -> str:
        """What it holds so far."""
        return "".join(self.pieces)

    def part(self) -> ThinkingPart | None:
        """Return it as a part of a reply; None if there is nothing in it."""
        text, signature = self.text, "".join(self.signature)
        if not (text or signature or self.redacted):
            return None
        return ThinkingPart(
            text=text, signature=signature, redacted=self.redacted, is_unclosed=self.is_unclosed
        )


@dataclass(slots=True)
class _TextRun:
    is_answer: bool
    """Whether it is the answer's own text, and not thinking shown in it."""
    pieces: list[str] = field(default_factory=list[str])
    shown_characters: int = 0
    """How much of it has been handed out as deltas."""


@dataclass(slots=True)
class _ToolPlace:
    tool_use: ToolUse | None = None


_Block: TypeAlias = _TextRun | ThinkingBlock | _ToolPlace


class PartsBuilder:
    """Gathers one answer.

    Args:
        handling: What becomes of thinking.
        holds_calls: Whether text that may be a tool call is held back until `settle`.
    """

    def __init__(self, handling: ThinkingHandling, *, holds_calls: bool = False) -> None:
        self.hidden_characters = 0
        """The size of the thinking that is not shown."""
        self._places = _PLACES[handling]
        self._watch = CallWatch() if holds_calls else None
        self._blocks: list[_Block] = []
        self._last_block: _Block | None = None
        self._run = _TextRun(is_answer=True)
        self._tool_places: dict[str, _ToolPlace] = {}
        self._deltas: list[Delta] = []

    @property
    def count(self) -> int:
        """How many parts there are, or nearly: some may turn out empty."""
        return len(self._blocks)

    def has_tool_use(self, tool_use_id: str) -> bool:
        """Whether a tool use has its place."""
        return tool_use_id in self._tool_places

    def take_deltas(self) -> list[Delta]:
        """Return the deltas since the last time."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def add(self, piece: Piece, block: ThinkingBlock) -> None:
        """Add a piece where its kind belongs; `block` is the one that it would be part of."""
        place = self._places.get(piece.kind)
        if place == "thinking":
            self.keep(block)
            self._deltas.append(ThinkingDelta(piece.text))
        elif place == "text":
            self.add_text(_uniform_tag(piece), is_answer=piece.kind is PieceKind.TEXT)
        elif piece.kind is PieceKind.THINKING:
            self.hidden_characters += len(piece.text)

    def add_text(self, text: str, *, is_answer: bool = True) -> None:
        """Add to the reply's text."""
        run = self._run
        if run is not self._last_block or run.is_answer is not is_answer:
            run = self._begin_run(is_answer)
        run.pieces.append(text)
        if self._watch is None:
            self._deltas.append(TextDelta(text))
        else:
            self._show(self._watch.feed(text))

    def keep(self, block: ThinkingBlock) -> None:
        """Give a block of thinking its place, unless it has one or thinking is not kept."""
        if not block.is_kept and self._places.get(PieceKind.THINKING) == "thinking":
            block.is_kept = True
            self._add_block(block)

    def begin_tool_use(self, tool_use_id: str) -> None:
        """Give a tool use its place. What text was held back is no call then."""
        self.release()
        self._tool_places[tool_use_id] = place = _ToolPlace()
        self._add_block(place)

    def end_tool_use(self, tool_use: ToolUse) -> None:
        """Put a tool use in the place that it was given."""
        self._tool_places[tool_use.id].tool_use = tool_use
        self._deltas.append(ToolUseDelta(tool_use))

    def release(self) -> None:
        """Hand out the text that was held back, and hold back no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self._show(watch.release())

    def settle(self, find: FindCalls) -> None:
        """Hand out the text that was held back, with the calls in it as tool uses."""
        if self._watch is None or not self._watch.is_holding:
            self.release()
            return
        self._watch = None
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            self._add_block(block)
            if isinstance(block, _TextRun):
                self._settle_run(block, find)

    def parts(self) -> tuple[ReplyPart, ...]:
        """Return all parts, in order."""
        return tuple(_merged(self._finished_parts()))

    # --- blocks ---------------------------------------------------------------------------

    def _add_block(self, block: _Block) -> None:
        self._blocks.append(block)
        self._last_block = block

    def _begin_run(self, is_answer: bool) -> _TextRun:
        if self._watch is not None and not self._watch.is_holding:
            # The beginning of a call does not go on in another run.
            self._show(self._watch.release())
        self._run = run = _TextRun(is_answer)
        self._add_block(run)
        return run

    def _show(self, text: str) -> None:
        if text:
            self._run.shown_characters += len(text)
            self._deltas.append(TextDelta(text))

    def _settle_run(self, run: _TextRun, find: FindCalls) -> None:
        self._run = run
        text = "".join(run.pieces)
        shown = run.shown_characters
        if shown == len(text):
            return
        run.pieces = [text[:shown]]
        for segment in find(text, shown) if run.is_answer else [text[shown:]]:
            if isinstance(segment, str):
                self.add_text(segment, is_answer=run.is_answer)
            else:
                self.begin_tool_use(segment.id)
                self.end_tool_use(segment)

    def _finished_parts(self) -> Iterator[ReplyPart]:
        for block in self._blocks:
            match block:
                case _TextRun():
                    text = "".join(block.pieces)
                    part = TextPart(text=text) if text else None
                case ThinkingBlock():
                    part = block.part()
                case _:
                    part = block.tool_use
            if part is not None:
                yield part


def _uniform_tag(piece: Piece) -> str:
    """Return a piece's text, with one spelling for all tags."""
    if piece.kind is not PieceKind.TAG:
        return piece.text
    return CLOSING_TAG if piece.text.startswith("</") else OPENING_TAG


def _merged(parts: Iterable[ReplyPart]) -> Iterator[ReplyPart]:
    """Join text parts that adjoin."""
    for is_text, group in groupby(parts, lambda part: isinstance(part, TextPart)):
        if is_text:
            texts = (part.text for part in group if isinstance(part, TextPart))
            yield TextPart(text="".join(texts))
        else:
            yield from group


# --- speech ------------------------------------------------------------------------------


_GAP = Piece(PieceKind.GAP, "\n\n")
"""Between thinking that is shown in the text and what comes after it."""


class Speech:
    """Sorts one answer's text and thinking."""

    def __init__(self, parts: PartsBuilder) -> None:
        self._parts = parts
        self._text_halves = SurrogateJoiner()
        self._thinking_halves = SurrogateJoiner()
        self._extractor = ThinkingExtractor()
        self._tagged = ThinkingBlock()
        self._native: list[ThinkingBlock] = []
        self._is_thinking = False
        self._doubtful: list[Piece] | None = None
        """What came between tags after thinking of its own, until it is known what it is."""

    def add_text(self, text: str) -> None:
        """Take the next piece of the answer's text."""
        text = self._text_halves.feed(text)
        if not text:
            return
        if self._is_thinking:
            self._leave_block()
        if self._extractor.is_done and self._doubtful is None:
            self._parts.add_text(text)
            return
        self._sort(self._extractor.feed(text))

    def add_reasoning(self, reasoning: Reasoning) -> None:
        """Take the next event of thinking."""
        if self._extractor.is_at_start and self._doubtful is None:
            self._doubtful = []
        if reasoning.redacted:
            self._begin_block().redacted = reasoning.redacted
        if reasoning.text:
            block = self._block_for_text()
            self._think(block, self._thinking_halves.feed(reasoning.text))
        if reasoning.signature:
            block = self._native[-1] if self._is_thinking else self._begin_block()
            self._think(block, self._thinking_halves.close())
            block.signature.append(reasoning.signature)

    def pause(self) -> None:
        """End what is being said: a tool use begins, or the answer is over."""
        if text := self._text_halves.close():
            self._sort(self._extractor.feed(text))
        if not self._extractor.is_done:
            self._sort(self._extractor.close())
            self._tagged.is_unclosed = self._extractor.is_unclosed
        if self._doubtful is not None:
            self._resolve_doubt(self._doubtful)
        if self._is_thinking:
            self._end_block()

    def close(self) -> None:
        """End the answer. Thinking between tags that came again as events is left out."""
        self.pause()
        if self._is_copy(self._tagged.text):
            self._tagged.pieces.clear()

    # --- thinking as events ---------------------------------------------------------------

    def _begin_block(self) -> ThinkingBlock:
        if self._is_thinking:
            self._leave_block()
        block = ThinkingBlock()
        self._native.append(block)
        self._parts.keep(block)
        self._is_thinking = True
        return block

    def _block_for_text(self) -> ThinkingBlock:
        block = self._native[-1] if self._is_thinking else None
        # A signature ends its block, and encrypted thinking is a block by itself.
        if block is None or block.signature or block.redacted:
            return self._begin_block()
        return block

    def _think(self, block: ThinkingBlock, text: str) -> None:
        if not text:
            return
        if not block.pieces:
            self._parts.add(Piece(PieceKind.TAG, OPENING_TAG), block)
        block.pieces.append(text)
        self._parts.add(Piece(PieceKind.THINKING, text), block)

    def _leave_block(self) -> None:
        """End the block and keep what is shown next apart from it."""
        self._end_block()
        if self._native[-1].pieces:
            self._parts.add(_GAP, self._native[-1])

    def _end_block(self) -> None:
        block = self._native[-1]
        self._think(block, self._thinking_halves.close())
        if block.pieces:
            self._parts.add(Piece(PieceKind.TAG, CLOSING_TAG), block)
        self._is_thinking = False

    # --- thinking between tags ------------------------------------------------------------

    def _sort(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if self._doubtful is not None and piece.kind is not PieceKind.TEXT:
                self._doubtful.append(piece)
                continue
            if self._doubtful is not None:
                self._resolve_doubt(self._doubtful)
            if piece.kind is PieceKind.THINKING:
                self._tagged.pieces.append(piece.text)
            self._parts.add(piece, self._tagged)

    def _resolve_doubt(self, pieces: list[Piece]) -> None:
        self._doubtful = None
        thinking = "".join(piece.text for piece in pieces if piece.kind is PieceKind.THINKING)
        if pieces and not self._is_copy(thinking):
            self._parts.add_text("".join(piece.text for piece in pieces))

    def _is_copy(self, thinking: str) -> bool:
        """Whether thinking between tags is what came as events, but for white space."""
        blocks = [block.text for block in self._native]
        return _words(thinking) in {_words(text) for text in (*blocks, "".join(blocks))}


def _words(text: str) -> str:
    return " ".join(text.split())


# --- reply -------------------------------------------------------------------------------


class ReplyOptions(TypedDict, total=False):
    """How an answer is read: what `ReplyBuilder` is given, and an answer's replay too."""

    prompt_characters: int
    context_window_tokens: int
    thinking: ThinkingHandling
    tools: Sequence[ToolSpec]
    caller_names: Mapping[str, str]
    property_names: Mapping[str, Mapping[str, str]]
    reads_text_calls: bool
    max_payload_bytes: int
    max_headers_bytes: int


def _random_id() -> str:
    """Make an id for a tool use that the service gave none, in the shape of its own."""
    return f"tooluse_{uuid4().hex}"


class ReplyBuilder:
    """Reads one answer.

    Feed it the body of a successful HTTP answer, stop when `fault` is set or the body ends,
    and close it; what `close` alone could release is then in `last_deltas`.

    Args:
        prompt_characters: The size of the prompt, to estimate its tokens by.
        context_window_tokens: The size of the model's context window, for the same; 0 where
            it is not known.
        thinking: What becomes of the model's thinking.
        tools: The tools that the caller offers; their schemas check what the model asks for.
        caller_names: The caller's name of a tool, by the name under which it was sent, where
            the two differ.
        property_names: The same for the properties of tools, by the caller's name of the tool.
        reads_text_calls: Whether calls that the model wrote into its text become tool uses.
            Text from the first possible call on then comes only at the end.
        new_tool_use_id: Makes the ids of those.
        max_payload_bytes: The largest payload of a frame.
        max_headers_bytes: The largest block of headers of a frame.
    """

    def __init__(
        self,
        *,
        prompt_characters: int = 0,
        context_window_tokens: int = 0,
        thinking: ThinkingHandling = "separate",
        tools: Sequence[ToolSpec] = (),
        caller_names: Mapping[str, str] | None = None,
        property_names: Mapping[str, Mapping[str, str]] | None = None,
        reads_text_calls: bool = False,
        new_tool_use_id: Callable[[], str] = _random_id,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        max_headers_bytes: int = MAX_HEADERS_BYTES,
    ) -> None:
        self.fault: Fault | KiroError | None = None
        """What ended the answer early; once set, all further data is ignored."""
        self.is_foreign = False
        """Whether the body is no event stream, known from its first bytes. What it is, an
        error, is in `fault` as soon as it can be told."""
        self.has_begun = False
        """Whether the model has said anything, be it not yet handed out."""
        self.last_deltas: tuple[Delta, ...] = ()
        """What only the end of the answer released: set by `close`, follows the others."""
        self._decoder = FrameDecoder(max_payload_bytes, max_headers_bytes)
        self._foreign_body = ForeignBody()
        self._head: bytes | None = b""
        self._parts = PartsBuilder(thinking, holds_calls=reads_text_calls)
        self._speech = Speech(self._parts)
        self._tool_uses = ToolUseAssembler(
            caller_names,
            {tool.name: tool.input_schema for tool in reversed(tools)},
            property_names,
        )
        self._meter = UsageMeter(prompt_characters, context_window_tokens)
        self._notes = Notes()
        self._new_tool_use_id = new_tool_use_id
        self._received_bytes = 0
        self._spoken_characters = 0
        self._model_id = ""
        self._raw_stop_reason = ""
        self._refusal: Refusal | None = None
        self._is_terminated = False
        self._is_metered = False
        self._reply: Reply | None = None

    @property
    def conversation_id(self) -> str:
        """The service's id of the conversation; "" where it names none."""
        return self._notes.conversation_id

    @property
    def credits(self) -> float:
        """What the service has charged so far."""
        return self._meter.credits or 0.0

    def snapshot(self) -> Reply:
        """Return what has arrived so far, without ending the answer.

        Tool uses that have not ended, and text that is still held back, are not in it.
        """
        if self._reply is not None:
            return self._reply
        return replace(
            self._compose(),
            stop_reason="truncated",
            truncated=True,
            truncation_reason="The answer has not ended yet.",
        )

    def feed(self, data: bytes) -> list[Delta]:
        """Take the next bytes of the body; return the deltas that they complete.

        Never raises: what is wrong with the bytes, or with the answer, is in `fault`.
        """
        if self.fault is not None or self._reply is not None:
            return []
        try:
            self._take_bytes(data)
        except AnswerLimitError as error:
            self.fault = _too_large(error)
        return self._parts.take_deltas()

    def close(self, fault: Fault | KiroError | None = None) -> Reply:
        """End the answer and return all that arrived of it. Never raises.

        Args:
            fault: What ended it from outside, such as a broken connection; None where the
                body came to its end. What its own bytes say went wrong comes first.
        """
        if self._reply is None:
            self._end_bytes(fault)
            self._end_parts()
            self.last_deltas = tuple(self._parts.take_deltas())
            self._reply = self._compose()
        return self._reply

    # --- bytes ----------------------------------------------------------------------------

    def _take_bytes(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > MAX_ANSWER_BYTES:
            raise AnswerLimitError(f"more than {MAX_ANSWER_BYTES} bytes")
        if self._head is not None:
            data = self._judge(self._head + data)
        if self.is_foreign:
            self.fault = self._foreign_body.feed(data)
        else:
            self._read(data)

    def _judge(self, head: bytes) -> bytes:
        """Return the beginning of the body once it is clear what it is; until then, nothing."""
        verdict = is_foreign(head)
        if verdict is None:
            self._head = head
            return b""
        self.is_foreign, self._head = verdict, None
        return head

    def _read(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self._take(read_event(frame))
            if self.fault is not None:
                return
        self.fault = self.fault or self._decoder.fault

    def _end_bytes(self, fault: Fault | KiroError | None) -> None:
        if self.fault is None and self.is_foreign:
            self.fault = self._foreign_body.close()
        self.fault = self.fault or fault
        if self.fault is None:
            try:
                self._decoder.feed(self._head or b"")
                self._decoder.close()
            except FrameError as error:
                self.fault = error.with_traceback(None)  # or it would keep this object alive

    # --- events ---------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Text():
                self._take_text(event)
            case Reasoning():
                self._take_reasoning(event)
            case ToolUseFragment():
                self._take_tool_use(event)
            case Several():
                for inner in event.events:
                    self._take(inner)
            case _:
                self._take_sign(event)

    def _take_sign(self, event: Sign) -> None:
        """Take what the service says about the answer, and not the model."""
        match event:
            case Metering() | ContextUsage():
                self._is_terminated = True
                self._is_metered = self._is_metered or isinstance(event, Metering)
                self._meter.add(event)
            case TokenCounts():
                self._meter.add(event)
            case Stop():
                self._take_stop(event)
            case Failed():
                self.fault = event.fault
            case _:
                self._notes.add(event)

    def _take_text(self, event: Text) -> None:
        if event.model_id:
            self._model_id = event.model_id
        if event.text:
            self._spend(len(event.text))
            self._speech.add_text(event.text)

    def _take_reasoning(self, event: Reasoning) -> None:
        self._spend(len(event.text))
        # Only thinking and tool uses begin parts without end, and those have a limit.
        if self._parts.count > MAX_PARTS:
            raise AnswerLimitError(f"more than {MAX_PARTS} parts")
        self._speech.add_reasoning(event)

    def _take_tool_use(self, fragment: ToolUseFragment) -> None:
        self.has_begun = True
        if not self._parts.has_tool_use(fragment.id):
            self._speech.pause()
            self._parts.begin_tool_use(fragment.id)
        if (tool_use := self._tool_uses.add(fragment)) is not None:
            if not self._parts.has_tool_use(tool_use.id):  # Another call came with the same id.
                self._speech.pause()
                self._parts.begin_tool_use(tool_use.id)
            self._parts.end_tool_use(tool_use)

    def _take_stop(self, event: Stop) -> None:
        self._is_terminated = True
        self._raw_stop_reason = event.reason or self._raw_stop_reason
        self._refusal = event.refusal or self._refusal

    def _spend(self, characters: int) -> None:
        self.has_begun = True
        self._spoken_characters += characters
        if self._spoken_characters > MAX_TEXT_CHARACTERS:
            raise AnswerLimitError(f"more than {MAX_TEXT_CHARACTERS} characters of text")

    # --- the end --------------------------------------------------------------------------

    def _end_parts(self) -> None:
        is_whole = not truncation_reason_of(self._ending(()))
        self._speech.close()
        # The cost is the last event of each whole answer. Without it, a tool use that was
        # announced and not ended may be half of one.
        for tool_use in self._tool_uses.close(is_answer_whole=is_whole and self._is_metered):
            self._parts.end_tool_use(tool_use)
        if is_whole:
            self._parts.settle(self._find_calls)
        else:
            # A tool use may have been about to come, and would have made the text just text.
            self._parts.release()

    def _find_calls(self, text: str, start: int) -> list[str | ToolUse]:
        segments: list[str | ToolUse] = []
        for segment in find_calls(text, self._tool_uses.schemas_by_any_name(), start):
            if isinstance(segment, str):
                segments.append(segment)
            elif tool_use := self._tool_uses.add_text_call(segment, self._new_tool_use_id()):
                segments.append(tool_use)
        return segments

    def _compose(self) -> Reply:
        parts = self._parts.parts()
        ending = self._ending(parts)
        truncation_reason = truncation_reason_of(ending)
        return Reply(
            parts=parts,
            stop_reason=stop_reason_of(ending),
            raw_stop_reason=self._raw_stop_reason,
            refusal=self._refusal,
            truncated=bool(truncation_reason),
            truncation_reason=truncation_reason,
            fault=self.fault,
            usage=self._meter.usage(self._output_bytes(parts)),
            model_id=self._model_id,
            references=tuple(self._notes.references),
            links=tuple(self._notes.links),
            warnings=(*self._notes.warnings(), *self._tool_uses.warnings, *_remarks(parts)),
            ignored_events=dict(self._notes.ignored_events),
        )

    def _ending(self, parts: Sequence[ReplyPart]) -> Ending:
        return Ending(
            raw_stop_reason=self._raw_stop_reason,
            context_percent=self._meter.context_percent,
            is_terminated=self._is_terminated,
            fault=self.fault,
            tool_uses=tuple(part for part in parts if isinstance(part, ToolUse)),
        )

    def _output_bytes(self, parts: Sequence[ReplyPart]) -> int:
        """Return the size of all that the model gave, shown or not."""
        shown = (part.text for part in parts if not isinstance(part, ToolUse))
        unshown = self._parts.hidden_characters + self._tool_uses.input_characters
        return unshown + sum(len(text.encode()) for text in shown)


def _too_large(error: AnswerLimitError) -> AnswerBroken:
    return AnswerBroken(
        f"The answer was cut off, because it has {error}.",
        next_step="Ask for less at a time.",
    )


def _remarks(parts: Sequence[ReplyPart]) -> Iterator[str]:
    if parts and all(isinstance(part, ThinkingPart) for part in parts):
        yield "The answer is thinking only, without any text."
    uses = (part for part in parts if isinstance(part, ToolUse))
    if mended := [f"{use.name!r:.80}" for use in uses if use.is_repaired]:
        yield f"Arguments that were no valid JSON and were mended, of: {', '.join(mended[:10])}."
