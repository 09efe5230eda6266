"""The bytes of an answer into deltas, as they come, and one reply at its end.

The response side of the protocol, put together::

    bytes ─ eventstream ─▶ frames ─ events ─▶ events ─┬─ speech ───▶ parts ─┬─▶ deltas
                                                      ├─ tool_use ─▶        │
                                                      ├─ usage, notes ──────┤
                                                      └─ ending ────────────┴─▶ Reply

`kiro_mcp.client.client` feeds it. What came is never lost: whatever ends an answer, the
reply holds all before that, and says that it is truncated and why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypedDict
from uuid import uuid4

from kiro_mcp.chat import (
    Delta,
    Fault,
    Refusal,
    Reply,
    ThinkingPart,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.errors import AnswerBroken, FrameError, KiroError
from kiro_mcp.wire.ending import Ending, stop_reason_of, truncation_reason_of
from kiro_mcp.wire.event_types import (
    ContextUsage,
    Event,
    Failed,
    Metering,
    Reasoning,
    Several,
    Sign,
    Stop,
    Text,
    TokenCounts,
    ToolUseFragment,
)
from kiro_mcp.wire.events import read_event
from kiro_mcp.wire.eventstream import (
    MAX_HEADERS_BYTES,
    MAX_PAYLOAD_BYTES,
    FrameDecoder,
)
from kiro_mcp.wire.foreign_body import ForeignBody, is_foreign
from kiro_mcp.wire.limits import (
    MAX_ANSWER_BYTES,
    MAX_PARTS,
    MAX_TEXT_CHARACTERS,
    AnswerLimitError,
)
from kiro_mcp.wire.notes import Notes
from kiro_mcp.wire.parts import PartsBuilder, ReplyPart, ThinkingHandling
from kiro_mcp.wire.speech import Speech
from kiro_mcp.wire.text_tool_calls import find_calls
from kiro_mcp.wire.tool_use import ToolUseAssembler
from kiro_mcp.wire.usage import UsageMeter


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
