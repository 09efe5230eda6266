r"""Separates thinking from text where a model writes its thinking between tags.

A model that the prompt asks to think answers `<thinking>\n…\n</thinking>\n\nanswer`. The text
arrives in pieces that are cut anywhere; `kiro_mcp.wire.reply` passes them in::

    START ─ an opening tag ─▶ OPENED ─▶ INSIDE ─ its closing tag ─▶ CLOSED ─▶ TEXT
      └──── anything else ───────────────────────────────────────────────────▶ ▲

START skips white space. OPENED skips one newline, CLOSED up to two. TEXT is final: a tag that is
not at the very start is only something that the model talks about. So is a closing tag between
quotation marks or backticks. The pieces that come out, joined, equal the text that went in, no
matter how it was cut.

Source of truth: the service's streams as observed; the four spellings are those of its models.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

OPENING_TAG: Final = "<thinking>"
CLOSING_TAG: Final = "</thinking>"
OPENING_TAGS: Final = (OPENING_TAG, "<think>", "<reasoning>", "<thought>")
MAX_LEADING_SPACES: Final = 1024
"""How much white space is held back until it is clear whether a tag follows. Models write two
newlines."""

_NEWLINES_AFTER_OPENING: Final = 1
_NEWLINES_AFTER_CLOSING: Final = 2
_QUOTES: Final = {"`": "`", '"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "«": "»"}


class PieceKind(Enum):
    """What a piece of the text is."""

    TEXT = auto()
    THINKING = auto()
    TAG = auto()
    GAP = auto()
    """White space that belongs to a tag."""


@dataclass(slots=True)  # Not frozen, because one is made for each delta: see kiro_mcp.wire.events.
class Piece:
    """A run of text of one kind."""

    kind: PieceKind
    text: str


class State(Enum):
    """Where in a text its reader is."""

    START = auto()
    """The text may still begin with a tag."""
    OPENED = auto()
    INSIDE = auto()
    CLOSED = auto()
    TEXT = auto()
    """Everything that follows is text, not thinking."""


class ThinkingExtractor:
    """Separates the thinking from the text of one answer, piece by piece."""

    def __init__(self) -> None:
        self.is_unclosed = False
        """Whether the text ended inside a tag."""
        self.state = State.START
        self._leading = ""
        self._held = ""
        self._closing_tag = ""
        self._last_character = ""
        self._newlines_left = _NEWLINES_AFTER_CLOSING

    def feed(self, text: str) -> list[Piece]:
        """Return what is certain now. At most a tag and its white space are held back."""
        pieces: list[Piece] = []
        text = self._held + text
        self._held = ""
        while text:
            match self.state:
                case State.START:
                    text = self._find_opening(text, pieces)
                case State.OPENED:
                    text = self._skip_newlines(text, pieces, State.INSIDE)
                case State.INSIDE:
                    text = self._find_closing(text, pieces)
                case State.CLOSED:
                    text = self._skip_newlines(text, pieces, State.TEXT)
                case State.TEXT:
                    pieces.append(Piece(PieceKind.TEXT, text))
                    break
        return pieces

    def close(self) -> list[Piece]:
        """Return what was held back. Everything that follows is text."""
        held, state = self._leading + self._held, self.state
        self._leading, self._held, self.state = "", "", State.TEXT
        if state is State.INSIDE and held == self._closing_tag:
            return [Piece(PieceKind.TAG, held)]
        self.is_unclosed = state in (State.OPENED, State.INSIDE)
        kind = PieceKind.TEXT if state is State.START else PieceKind.THINKING
        return [Piece(kind, held)] if held else []

    # Each step adds pieces from the beginning of `text` and returns what is left for the next.

    def _find_opening(self, text: str, pieces: list[Piece]) -> str:
        rest = text.lstrip()
        leading = self._leading + text[: len(text) - len(rest)]
        is_possible = len(leading) <= MAX_LEADING_SPACES
        if is_possible and any(tag.startswith(rest) and tag != rest for tag in OPENING_TAGS):
            self._leading, self._held = leading, rest
            return ""
        self._leading = ""
        tag = next((tag for tag in OPENING_TAGS if rest.startswith(tag)), None)
        if tag is None or not is_possible:
            self.state = State.TEXT
            return leading + rest
        if leading:
            pieces.append(Piece(PieceKind.GAP, leading))
        pieces.append(Piece(PieceKind.TAG, tag))
        self.state, self._newlines_left = State.OPENED, _NEWLINES_AFTER_OPENING
        self._closing_tag = f"</{tag[1:]}"
        return rest[len(tag) :]

    def _skip_newlines(self, text: str, pieces: list[Piece], next_state: State) -> str:
        newlines = text[: self._newlines_left]
        newlines = newlines[: len(newlines) - len(newlines.lstrip("\n"))]
        if newlines:
            pieces.append(Piece(PieceKind.GAP, newlines))
        self._newlines_left -= len(newlines)
        if not self._newlines_left or len(newlines) < len(text):
            self.state = next_state
        return text[len(newlines) :]

    def _find_closing(self, text: str, pieces: list[Piece]) -> str:
        position = 0
        while (start := text.find(self._closing_tag, position)) >= 0:
            end = start + len(self._closing_tag)
            quote = _QUOTES.get(text[start - 1] if start else self._last_character)
            if quote and end == len(text):
                return self._hold(text, start, pieces)
            if not quote or text[end] != quote:
                self._add_thinking(text[:start], pieces)
                pieces.append(Piece(PieceKind.TAG, self._closing_tag))
                self.state, self._newlines_left = State.CLOSED, _NEWLINES_AFTER_CLOSING
                return text[end:]
            position = end
        start = text.rfind("<", max(position, len(text) - len(self._closing_tag) + 1))
        is_possible = start >= 0 and self._closing_tag.startswith(text[start:])
        return self._hold(text, start if is_possible else len(text), pieces)

    def _hold(self, text: str, start: int, pieces: list[Piece]) -> str:
        self._add_thinking(text[:start], pieces)
        self._held = text[start:]
        return ""

    def _add_thinking(self, text: str, pieces: list[Piece]) -> None:
        if text:
            pieces.append(Piece(PieceKind.THINKING, text))
            self._last_character = text[-1]
