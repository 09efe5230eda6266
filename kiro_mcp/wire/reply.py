"""Turns the bytes of an answer into deltas while they arrive, and into one reply at the end.

The whole response side::

    bytes ─ eventstream ─▶ frames ─ events ─▶ events ─┬─ text, thinking ─▶ _Parts ─┬─▶ deltas
                                                      ├─ tool_use ───────▶         │
                                                      └─ cost, stop reason, notes ─┴─▶ Reply

`kiro_mcp.client.client` feeds it. Nothing received is lost: if an answer ends early, the reply
contains everything that arrived, and says that it is truncated and why.

The service does not always send a stop reason: some accounts never get one. But every complete
answer has at least one of three late events: a stop reason, the cost, or the use of the context
window. Source of truth: the service's streams as observed.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias
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
from kiro_mcp.wire import events
from kiro_mcp.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES, FrameDecoder
from kiro_mcp.wire.json_values import SurrogateJoiner
from kiro_mcp.wire.text_tool_calls import CallWatch
from kiro_mcp.wire.thinking import (
    CLOSING_TAG,
    OPENING_TAG,
    Piece,
    PieceKind,
    State,
    ThinkingExtractor,
)
from kiro_mcp.wire.tool_use import ToolUseAssembler

ThinkingHandling = Literal["separate", "remove", "inline", "strip_tags"]
"""`separate`: thinking beside the text. `remove`: no thinking. `inline`: thinking in the text,
between `<thinking>` and `</thinking>`. `strip_tags`: thinking in the text, without tags."""

ReplyPart: TypeAlias = TextPart | ThinkingPart | ToolUse

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
    "MAX_TURN_REQUESTS": "truncated",
}
"""Keyed by the service's word; only the first two have been observed, and the last is kiro-cli's.
A word that begins with `MALFORMED` also means `truncated`."""

_TOO_LONG: Final[dict[StopReason, str]] = {
    "max_tokens": "The answer reached the limit of its length.",
    "context_window_exceeded": "The conversation filled the model's context window.",
}

FULL_PERCENT: Final = 100.0

_CAMEL_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _random_id() -> str:
    """Return a new id of a tool use, in the form of the service's ids."""
    return f"tooluse_{uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyOptions:
    """How an answer is read. A capture stores it, so that a replay reads the same way."""

    prompt_characters: int = 0
    """The size of the prompt, to estimate its tokens."""
    context_window_tokens: int = 0
    """The size of the model's context window; 0 if it is not known. If it is known, the estimate
    uses the service's percentage."""
    thinking: ThinkingHandling = "separate"
    """Where the model's thinking goes."""
    tools: Sequence[ToolSpec] = ()
    """The caller's tools. Their schemas check the arguments of tool uses."""
    caller_names: Mapping[str, str] = field(default_factory=dict[str, str])
    """The caller's name of each tool that was sent under another name, by the sent name."""
    property_names: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )
    """The same for the properties of tools, by the caller's name of the tool."""
    reads_text_calls: bool = False
    """Whether calls that the model wrote into its text become tool uses. Then the text from the
    first possible call on comes only at the end."""
    new_tool_use_id: Callable[[], str] = _random_id
    """Returns an id for such a tool use. A capture does not store it."""
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    """The largest payload of a frame."""
    max_headers_bytes: int = MAX_HEADERS_BYTES
    """The largest block of headers of a frame."""


DEFAULT_OPTIONS: Final = ReplyOptions()


class ReplyBuilder:
    """Reads one answer.

    Feed it the body of a successful HTTP response until `fault` is set or the body ends. Then close
    it, and read the deltas that only `close` could complete from `last_deltas`.
    """

    def __init__(self, options: ReplyOptions = DEFAULT_OPTIONS) -> None:
        self.fault: Fault | KiroError | None = None
        """The reason why the answer ended early. After it all further data is ignored."""
        self.has_begun = False
        """Whether anything from the model has arrived, even if no delta contains it yet."""
        self.last_deltas: tuple[Delta, ...] = ()
        """The last deltas, which only the end of the answer completes. `close` sets them."""
        self._options = options
        self._decoder = FrameDecoder(options.max_payload_bytes, options.max_headers_bytes)
        self._foreign_body: events.ForeignBody | None = None
        self._head: bytes | None = b""
        self._received_bytes = 0
        self._parts = _Parts(options.thinking, holds_calls=options.reads_text_calls)
        self._tool_uses = ToolUseAssembler(
            options.caller_names,
            {tool.name: tool.input_schema for tool in reversed(options.tools)},
            options.property_names,
            options.new_tool_use_id,
        )
        self._spoken_characters = 0
        self._model_id = ""
        self._raw_stop_reason = ""
        self._refusal: Refusal | None = None
        self._has_late_event = False
        self._is_metered = False
        self._credits: float | None = None
        self._context_percent: float | None = None
        self._counts = events.TokenCounts()
        self._references: list[CodeReference] = []
        self._links: list[WebLink] = []
        self._ignored_events: Counter[str] = Counter()
        self._warnings: list[str] = []
        self._further_warnings = 0
        self._reply: Reply | None = None

    @property
    def credits(self) -> float:
        """The cost so far."""
        return self._credits or 0.0

    def snapshot(self) -> Reply:
        """Return the reply so far, without ending the answer.

        It lacks unfinished tool uses. Text that may become a tool use at the end is still text.
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
        """Add the next bytes of the body; return the deltas that they complete.

        Never raises: errors in the bytes or of the service are in `fault`.
        """
        if self.fault is not None or self._reply is not None:
            return []
        try:
            self._received_bytes += len(data)
            if self._received_bytes > events.MAX_ANSWER_BYTES:
                raise events.over_limit(f"{events.MAX_ANSWER_BYTES} bytes")
            if self._head is not None:  # It is not known yet whether the body is an event stream.
                data = self._head + data
                is_foreign = events.looks_foreign(data)
                self._head = data if is_foreign is None else None
                if is_foreign is None:
                    return []
                if is_foreign:
                    self._foreign_body = events.ForeignBody()
            if self._foreign_body is not None:
                self.fault = self._foreign_body.feed(data)
                return []
            for frame in self._decoder.feed(data):
                self._handle(events.read_event(frame))
                if self.fault is not None:
                    break
            else:
                self.fault = self._decoder.fault
        except AnswerBroken as error:
            self.fault = error.with_traceback(None)  # It would keep this object alive.
        return self._parts.take_deltas()

    def add(self, event: events.Event) -> list[Delta]:
        """Take an event that came by another way than a stream; return the deltas of it."""
        if self.fault is not None or self._reply is not None:
            return []
        try:
            self._handle(event)
        except AnswerBroken as error:
            self.fault = error.with_traceback(None)
        return self._parts.take_deltas()

    def close(self, fault: Fault | KiroError | None = None) -> Reply:
        """End the answer and return everything that arrived. Never raises.

        Args:
            fault: An external reason for the end, such as a broken connection; None if the body
                ended. A fault in the body takes precedence.
        """
        if self._reply is not None:
            return self._reply
        if self.fault is None and self._foreign_body is not None:
            self.fault = self._foreign_body.close()
        self.fault = self.fault or fault
        if self.fault is None:
            try:
                self._decoder.feed(self._head or b"")
                self._decoder.close()
            except FrameError as error:
                self.fault = error.with_traceback(None)  # It would keep this object alive.
        is_whole = not self._truncation_reason(())
        self._parts.close()
        # The cost is the last event of each complete answer. Without it, a tool use that has begun
        # but not ended may be incomplete.
        for tool_use in self._tool_uses.close(is_answer_whole=is_whole and self._is_metered):
            self._parts.end_tool_use(tool_use)
        # If the answer broke off, the next event may have been a tool use, and then the text would
        # not be a call.
        self._parts.release(self._tool_uses.find_in_text if is_whole else None)
        self.last_deltas = tuple(self._parts.take_deltas())
        self._reply = self._compose()
        return self._reply

    # --- bytes and events -----------------------------------------------------------------

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.Text():
                if event.model_id:
                    self._model_id = event.model_id
                if event.text:
                    self._count_spoken(event.text)
                    self._parts.add_text(event.text)
            case events.Reasoning():
                self._count_spoken(event.text)
                # Only thinking and tool uses can begin many parts, and tool uses have a limit.
                if len(self._parts.blocks) > events.MAX_PARTS:
                    raise events.over_limit(f"{events.MAX_PARTS} parts")
                self._parts.add_reasoning(event)
            case events.ToolUseFragment():
                self.has_begun = True
                self._parts.begin_tool_use(event.id)
                if (tool_use := self._tool_uses.add(event)) is not None:
                    self._parts.begin_tool_use(tool_use.id)  # A second call of one id has a new id.
                    self._parts.end_tool_use(tool_use)
            case events.Several():
                for inner in event.events:
                    self._handle(inner)
            case events.Stop():
                self._has_late_event = True
                self._raw_stop_reason = event.reason or self._raw_stop_reason
                self._refusal = event.refusal or self._refusal
            case events.Metering():
                self._has_late_event = self._is_metered = True
                if event.credits is not None:
                    self._credits = (self._credits or 0.0) + event.credits
            case events.ContextUsage():
                self._has_late_event = True
                if event.percent is not None:
                    self._context_percent = event.percent
            case events.TokenCounts():  # Zeros mean that the service has not counted.
                self._counts = event if event != events.TokenCounts() else self._counts
            case Fault():
                self.fault = event
            case events.Citations():
                self._references += event.references[: events.MAX_LISTED - len(self._references)]
                self._links += event.links[: events.MAX_LISTED - len(self._links)]
            case events.Ignored():
                name = event.event_type[: events.MAX_TYPE_CHARACTERS]
                has_room = len(self._ignored_events) < events.MAX_IGNORED_TYPES
                if not has_room and name not in self._ignored_events:
                    name = "others"
                self._ignored_events[name] += 1
            case events.Malformed():
                if len(self._warnings) < events.MAX_WARNINGS:
                    name = event.event_type[: events.MAX_TYPE_CHARACTERS]
                    self._warnings.append(f"An event {name!r} was left out: it {event.problem}.")
                else:
                    self._further_warnings += 1

    def _count_spoken(self, text: str) -> None:
        self.has_begun = True
        self._spoken_characters += len(text)
        if self._spoken_characters > events.MAX_TEXT_CHARACTERS:
            raise events.over_limit(f"{events.MAX_TEXT_CHARACTERS} characters of text")

    # --- the end --------------------------------------------------------------------------

    def _compose(self) -> Reply:
        parts = self._parts.parts()
        tool_uses = [part for part in parts if isinstance(part, ToolUse)]
        warnings = list(self._warnings)
        if self._further_warnings:
            warnings.append(f"Further warnings: {self._further_warnings}.")
        warnings += self._tool_uses.warnings
        if late := self._tool_uses.late_fragments:
            warnings.append(f"{late} fragment(s) of tool uses that had ended were left out.")
        if parts and all(isinstance(part, ThinkingPart) for part in parts):
            warnings.append("The answer is thinking only, without any text.")
        if repaired := [f"{use.name!r:.80}" for use in tool_uses if use.is_repaired]:
            names = ", ".join(repaired[:10])
            warnings.append(
                f"The JSON of the arguments was not valid and was repaired, for: {names}."
            )
        truncation_reason = self._truncation_reason(tool_uses)
        return Reply(
            parts=parts,
            stop_reason=self._stop_reason(tool_uses),
            raw_stop_reason=self._raw_stop_reason,
            refusal=self._refusal,
            truncated=bool(truncation_reason),
            truncation_reason=truncation_reason,
            fault=self.fault,
            usage=self._usage(parts),
            model_id=self._model_id,
            references=tuple(self._references),
            links=tuple(self._links),
            warnings=tuple(warnings),
            ignored_events=dict(self._ignored_events),
        )

    def _stop_reason(self, tool_uses: Sequence[ToolUse]) -> StopReason:
        """Return why the model stopped, according to the most reliable sign."""
        if self.fault is not None:
            name = self.fault.name if isinstance(self.fault, Fault) else ""
            return "max_tokens" if name == "ContentLengthExceededException" else "truncated"
        word = _CAMEL_BOUNDARY.sub("_", self._raw_stop_reason.strip())
        word = word.upper().replace("-", "_").replace(" ", "_")
        sent = "truncated" if word.startswith("MALFORMED") else _STOP_REASONS.get(word)
        is_cut_off = any(tool_use.state == "truncated" for tool_use in tool_uses)
        if sent in (None, "end_turn", "tool_use") and is_cut_off:
            return "truncated"  # Not `tool_use`: a caller must not run an incomplete call.
        if sent not in (None, "end_turn"):
            return sent
        if sent is None and (self._context_percent or 0) >= FULL_PERCENT:
            return "context_window_exceeded"
        if any(tool_use.state == "complete" for tool_use in tool_uses):
            return "tool_use"
        return "end_turn" if self._has_late_event else "truncated"

    def _truncation_reason(self, tool_uses: Sequence[ToolUse]) -> str:
        """Return a sentence why the answer is incomplete; "" if it is complete."""
        if isinstance(self.fault, KiroError):
            return self.fault.message
        if self.fault is not None:
            name, words = self.fault.name or "an error", self.fault.message or self.fault.reason
            said = ": ".join(filter(None, (name, words)))
            return f"The service ended its answer with {said}"
        if cut_off := [use.name for use in tool_uses if use.state == "truncated"]:
            return f"The arguments of the tool use {quoted(cut_off[0])} were cut off."
        if not self._has_late_event:
            return "The stream ended without a sign that the answer was complete."
        stop_reason = self._stop_reason(tool_uses)
        if stop_reason == "truncated":
            return f"The service stopped the answer: {self._raw_stop_reason}."
        return _TOO_LONG.get(stop_reason, "")

    def _usage(self, parts: Sequence[ReplyPart]) -> Usage:
        """Return the service's numbers, with estimates for missing ones.

        The service sends the cost and how full the context window is. Its event model also has
        exact counts of tokens, but no observed answer had them.
        """
        shown = (part.text for part in parts if not isinstance(part, ToolUse))
        unshown = self._parts.hidden_characters + self._tool_uses.input_characters
        output_bytes = unshown + sum(len(text.encode()) for text in shown)
        counts = self._counts
        output_tokens = counts.output or -(-output_bytes // BYTES_PER_TOKEN)
        input_tokens = counts.uncached_input + counts.cache_read + counts.cache_write
        # The percentage includes the answer. It often refers to another window size than the one in
        # the service's list, so this is an estimate.
        window_tokens = (self._context_percent or 0) * self._options.context_window_tokens / 100
        estimate = round(window_tokens) - output_tokens
        if estimate <= 0:
            estimate = -(-self._options.prompt_characters // BYTES_PER_TOKEN)
        return Usage(
            input_tokens=input_tokens or estimate,
            output_tokens=output_tokens,
            cache_read_tokens=counts.cache_read,
            cache_write_tokens=counts.cache_write,
            is_estimated=not (input_tokens and (counts.output or not output_bytes)),
            context_percent=self._context_percent,
            credits=self._credits,
        )


# --- the parts of the reply ---------------------------------------------------------------

_Target = Literal["text", "thinking"]
_TARGETS: Final[dict[ThinkingHandling, dict[PieceKind, _Target]]] = {
    "separate": {PieceKind.THINKING: "thinking"},
    "remove": {},
    "inline": dict.fromkeys(PieceKind, "text"),
    "strip_tags": {PieceKind.THINKING: "text", PieceKind.GAP: "text"},
}
"""Where a piece of each kind goes, except for text. Pieces of other kinds are left out."""


@dataclass(slots=True)
class _TextRun:
    is_answer: bool
    """Whether it is the answer's text, rather than thinking that is shown in the text."""
    pieces: list[str] = field(default_factory=list[str])
    shown_characters: int = 0
    """How many of its characters have been sent as deltas."""


@dataclass(slots=True)
class _Thinking:
    is_unclosed: bool = False
    """Whether the answer ended, or a tool use began, before it was closed."""
    pieces: list[str] = field(default_factory=list[str])
    signature: list[str] = field(default_factory=list[str])
    redacted: str = ""

    def as_part(self) -> ThinkingPart | None:
        text, signature = "".join(self.pieces), "".join(self.signature)
        if not (text or signature or self.redacted):
            return None
        return ThinkingPart(
            text=text, signature=signature, redacted=self.redacted, is_unclosed=self.is_unclosed
        )


class _Parts:
    """Sorts the model's output into the parts and the deltas of a reply.

    Parts are in the order in which they began. Adjacent text is one part. A tool use keeps the
    position of its first fragment, even if text follows before its end.

    Newer models send thinking as separate events, older ones between tags at the start of the text.
    Some answers have both, with the same words. Then the events count, and the text between the
    tags is left out if it is a copy; otherwise the model quotes something, and it is text.

    Args:
        handling: Where thinking goes.
        holds_calls: Whether text that may be a tool call is held back until `release`.
    """

    def __init__(self, handling: ThinkingHandling, *, holds_calls: bool) -> None:
        self.hidden_characters = 0
        """The size of the thinking that is not shown."""
        self._targets = _TARGETS[handling]
        self._watch = CallWatch() if holds_calls else None
        self.blocks: list[_TextRun | _Thinking | str] = []
        """In order, some of them empty. A string is the id of a tool use."""
        self._run: _TextRun | None = None
        self._tool_uses: dict[str, ToolUse | None] = {}
        """By id; None until its last fragment has arrived."""
        self._deltas: list[Delta] = []
        self._text_halves = SurrogateJoiner()
        self._thinking_halves = SurrogateJoiner()
        self._extractor = ThinkingExtractor()
        self._tagged = _Thinking()
        self._native: list[_Thinking] = []
        self._open: _Thinking | None = None
        """The block of `_native` that may continue."""
        self._doubtful: list[Piece] | None = None
        """Pieces between tags after thinking events: a copy of the thinking, or text."""

    def take_deltas(self) -> list[Delta]:
        """Return the deltas since the last call."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def add_text(self, text: str) -> None:
        """Add the next piece of the answer's text."""
        text = self._text_halves.feed(text)
        if not text:
            return
        if self._open is not None:
            self._end_thinking(self._open, has_gap=True)
        if self._extractor.state is State.TEXT and self._doubtful is None:
            self._say(text)
        else:
            self._sort(self._extractor.feed(text))

    def add_reasoning(self, reasoning: events.Reasoning) -> None:
        """Add the next event of thinking."""
        if self._extractor.state is State.START and self._doubtful is None:
            self._doubtful = []
        if reasoning.redacted:
            self._begin_thinking().redacted = reasoning.redacted
        if reasoning.text:
            block = self._open
            # A signature ends its block, and encrypted thinking is a block by itself.
            if block is None or block.signature or block.redacted:
                block = self._begin_thinking()
            self._think(block, self._thinking_halves.feed(reasoning.text))
        if reasoning.signature:
            block = self._open or self._begin_thinking()
            self._think(block, self._thinking_halves.close())
            block.signature.append(reasoning.signature)

    def begin_tool_use(self, tool_use_id: str) -> None:
        """Give a new tool use its position, and release the text that was held back."""
        if tool_use_id not in self._tool_uses:
            self._pause()
            self.release()
            self._tool_uses[tool_use_id] = None
            self.blocks.append(tool_use_id)

    def end_tool_use(self, tool_use: ToolUse) -> None:
        """Put a finished tool use into its position."""
        self._tool_uses[tool_use.id] = tool_use
        self._deltas.append(ToolUseDelta(tool_use))

    def close(self) -> None:
        """End the answer. Thinking between tags is left out if it also came as events."""
        self._pause()
        if self._tagged.pieces and self._is_copy("".join(self._tagged.pieces)):
            self._tagged.pieces.clear()

    def release(self, find: Callable[[str, int], Sequence[str | ToolUse]] | None = None) -> None:
        """Release the text that was held back, and stop holding back.

        Args:
            find: Splits a text, from a position on, into text and tool uses; by default, the calls
                in the text stay text.
        """
        watch, self._watch = self._watch, None
        if watch is None:
            return
        if find is None or not watch.is_holding:
            self._show(watch.release())
            return
        blocks, self.blocks = self.blocks, []
        for block in blocks:
            self.blocks.append(block)
            if not isinstance(block, _TextRun):
                continue
            text, shown = "".join(block.pieces), block.shown_characters
            if shown == len(text):
                continue
            self._run, block.pieces = block, [text[:shown]]
            for segment in find(text, shown) if block.is_answer else [text[shown:]]:
                if isinstance(segment, str):
                    self._say(segment, is_answer=block.is_answer)
                else:
                    self.blocks.append(segment.id)
                    self.end_tool_use(segment)

    def parts(self) -> tuple[ReplyPart, ...]:
        """Return all parts in order, with adjacent text joined."""
        parts: list[ReplyPart] = []
        texts: list[str] = []
        for block in self.blocks:
            if isinstance(block, _TextRun):
                texts += block.pieces
                continue
            part = self._tool_uses[block] if isinstance(block, str) else block.as_part()
            if part is None:
                continue
            if text := "".join(texts):
                parts.append(TextPart(text=text))
            texts.clear()
            parts.append(part)
        if text := "".join(texts):
            parts.append(TextPart(text=text))
        return tuple(parts)

    # --- text -----------------------------------------------------------------------------

    def _say(self, text: str, *, is_answer: bool = True) -> None:
        """Add to the reply's text."""
        run = self._run
        if run is None or run is not self.blocks[-1] or run.is_answer is not is_answer:
            if self._watch is not None and not self._watch.is_holding:
                # The beginning of a call cannot continue in another run.
                self._show(self._watch.release())
            self._run = run = _TextRun(is_answer)
            self.blocks.append(run)
        run.pieces.append(text)
        if self._watch is not None:
            self._show(self._watch.feed(text))
        else:
            self._deltas.append(TextDelta(text))

    def _show(self, text: str) -> None:
        if text and self._run is not None:
            self._run.shown_characters += len(text)
            self._deltas.append(TextDelta(text))

    # --- thinking -------------------------------------------------------------------------

    def _begin_thinking(self) -> _Thinking:
        if self._open is not None:
            self._end_thinking(self._open, has_gap=True)
        self._open = block = _Thinking()
        self._native.append(block)
        self._place_thinking(block)
        return block

    def _place_thinking(self, block: _Thinking) -> None:
        if self._targets.get(PieceKind.THINKING) == "thinking":
            self.blocks.append(block)

    def _think(self, block: _Thinking, text: str) -> None:
        if not text:
            return
        if not block.pieces:
            self._add(Piece(PieceKind.TAG, OPENING_TAG))
        block.pieces.append(text)
        self._add(Piece(PieceKind.THINKING, text))

    def _end_thinking(self, block: _Thinking, *, has_gap: bool) -> None:
        self._open = None
        self._think(block, self._thinking_halves.close())
        if block.pieces:
            self._add(Piece(PieceKind.TAG, CLOSING_TAG))
            if has_gap:
                self._add(Piece(PieceKind.GAP, "\n\n"))

    def _pause(self) -> None:
        """End the current text and thinking, because a tool use begins or the answer ends."""
        if self._text_halves.half:
            self._sort(self._extractor.feed(self._text_halves.close()))
        if self._extractor.state is not State.TEXT:
            self._sort(self._extractor.close())
            self._tagged.is_unclosed = self._extractor.is_unclosed
        if self._doubtful is not None:
            self._resolve_doubt()
        if self._open is not None:
            self._end_thinking(self._open, has_gap=False)

    def _sort(self, pieces: list[Piece]) -> None:
        """Add pieces of text that may be thinking between tags."""
        for piece in pieces:
            if piece.kind is PieceKind.TEXT:
                if self._doubtful is not None:
                    self._resolve_doubt()
                self._say(piece.text)
            elif self._doubtful is not None:
                self._doubtful.append(piece)
            else:
                if piece.kind is PieceKind.THINKING:
                    if not self._tagged.pieces:
                        self._place_thinking(self._tagged)
                    self._tagged.pieces.append(piece.text)
                self._add(piece)

    def _resolve_doubt(self) -> None:
        pieces, self._doubtful = self._doubtful or [], None
        thinking = "".join(piece.text for piece in pieces if piece.kind is PieceKind.THINKING)
        if pieces and not self._is_copy(thinking):
            self._say("".join(piece.text for piece in pieces))

    def _is_copy(self, thinking: str) -> bool:
        """Whether thinking between tags is the same as in the events, except for white space."""
        blocks = ["".join(block.pieces) for block in self._native]
        return thinking.split() in [text.split() for text in (*blocks, "".join(blocks))]

    def _add(self, piece: Piece) -> None:
        """Add a piece of thinking, a tag or a gap where its kind belongs."""
        target = self._targets.get(piece.kind)
        if target == "thinking":
            self._deltas.append(ThinkingDelta(piece.text))
        elif target == "text":
            text = piece.text
            if piece.kind is PieceKind.TAG:  # One spelling for all tags.
                text = CLOSING_TAG if text.startswith("</") else OPENING_TAG
            self._say(text, is_answer=False)
        elif piece.kind is PieceKind.THINKING:
            self.hidden_characters += len(piece.text)
