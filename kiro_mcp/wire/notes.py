"""What an answer carries beside what the model says: references, links, oddities.

Fed by `kiro_mcp.wire.reply`. Each list has its limit; what does not fit is counted.
"""

from collections import Counter

from kiro_mcp.chat import CodeReference, WebLink
from kiro_mcp.wire.event_types import (
    ConversationNamed,
    Ignored,
    Links,
    Note,
    References,
)
from kiro_mcp.wire.limits import (
    MAX_IGNORED_TYPES,
    MAX_LISTED,
    MAX_TYPE_CHARACTERS,
    MAX_WARNINGS,
)


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
