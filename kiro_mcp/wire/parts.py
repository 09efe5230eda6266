"""Pieces of text and thinking, and tool uses, into the parts of a reply and its deltas.

Fed by `kiro_mcp.wire.speech` and `kiro_mcp.wire.reply`. Parts stand in the order in
which they began. Text that adjoins is one part; a tool use keeps the place of its first
fragment while text goes on around it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal, TypeAlias

from kiro_mcp.chat import (
    Delta,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolUse,
    ToolUseDelta,
)
from kiro_mcp.wire.text_tool_calls import CallWatch
from kiro_mcp.wire.thinking import CLOSING_TAG, OPENING_TAG, Piece, PieceKind

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
