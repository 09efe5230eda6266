"""What the model says, in two channels, into thinking and text that say nothing twice.

Thinking comes as events of its own, from newer models, or between tags at the start of the
text, from older ones; some answers carry both, with the same words. Its own events win: tags
are then either a copy, which is left out, or something the model quotes, which is text.

Fed by `kiro_mcp.wire.reply` with events; fills `kiro_mcp.wire.parts`.
"""

from kiro_mcp.wire.event_types import Reasoning
from kiro_mcp.wire.parts import PartsBuilder, ThinkingBlock
from kiro_mcp.wire.surrogates import SurrogateJoiner
from kiro_mcp.wire.thinking import (
    CLOSING_TAG,
    OPENING_TAG,
    Piece,
    PieceKind,
    ThinkingExtractor,
)

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
