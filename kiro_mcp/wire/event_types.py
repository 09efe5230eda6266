"""What the service can say in an answer, one class for each kind of event.

Made by `kiro_mcp.wire.events` from frames, gathered by `kiro_mcp.wire.reply`.

They are not frozen and not keyword-only, unlike the values that leave this package: one is
made for each frame, and freezing alone takes as long as reading the frame's JSON.
"""

from dataclasses import dataclass
from typing import TypeAlias

from kiro_mcp.chat import CodeReference, Fault, Refusal, WebLink


@dataclass(slots=True)
class Text:
    """The next piece of the answer. May hold half of a surrogate pair."""

    text: str
    model_id: str = ""
    """The model that speaks, as the service calls it; "" where it does not say."""


@dataclass(slots=True)
class Reasoning:
    """The next piece of the model's reasoning; any of the three may be missing."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    """A whole block of encrypted reasoning, as base64."""


@dataclass(slots=True)
class ToolUseFragment:
    """A piece of a tool use."""

    id: str
    name: str
    input: str
    """The next piece of the JSON of the arguments, cut anywhere; "" where there is none."""
    is_last: bool = False
    is_snapshot: bool = False
    """Whether `input` is not a piece but all of the arguments so far."""


@dataclass(slots=True)
class Stop:
    """Why the model stopped, in the service's own words."""

    reason: str
    refusal: Refusal | None = None
    """What the service says about a refusal."""


@dataclass(slots=True)
class TokenCounts:
    """Exact counts of tokens. A service that does not count sends zeros."""

    uncached_input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(slots=True)
class Metering:
    """What the call cost; None where the service charges in some other unit."""

    credits: float | None


@dataclass(slots=True)
class ContextUsage:
    """How full the context window is, in percent, 0 to 100 and over."""

    percent: float | None


@dataclass(slots=True)
class References:
    """Licensed code that the text before resembles."""

    references: tuple[CodeReference, ...]


@dataclass(slots=True)
class Links:
    """Pages that the service names beside its answer."""

    links: tuple[WebLink, ...]


@dataclass(slots=True)
class ConversationNamed:
    """The service's id of the conversation."""

    conversation_id: str


@dataclass(slots=True)
class Failed:
    """The service ends its answer with an error."""

    fault: Fault


@dataclass(slots=True)
class Ignored:
    """An event that carries nothing for a caller, or that nobody knows yet."""

    event_type: str


@dataclass(slots=True)
class Malformed:
    """An event that cannot be read."""

    event_type: str
    problem: str
    """What is wrong with it, as the end of a sentence."""


@dataclass(slots=True)
class Several:
    """Events that came in one frame, in their order."""

    events: tuple["Event", ...]


Note: TypeAlias = References | Links | ConversationNamed | Ignored | Malformed
"""What stands beside the answer."""
Sign: TypeAlias = Stop | TokenCounts | Metering | ContextUsage | Failed | Note
"""What the service says about the answer."""
Event: TypeAlias = Text | Reasoning | ToolUseFragment | Sign | Several
