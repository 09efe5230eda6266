"""The parsed JSON of a request, read without trust: what is missing or misshapen reads as empty.

Whether something is missing or misshapen is for `kiro_mcp.emulator.validation` to say; here a
body of any shape can be looked into. Source of truth: the service's published request model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

USER_MESSAGE: Final = "userInputMessage"
ASSISTANT_MESSAGE: Final = "assistantResponseMessage"


def members(value: object) -> Mapping[str, object]:
    """The members of a JSON object; none of anything else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """The items of a JSON array; none of anything else."""
    return cast("list[object]", value) if isinstance(value, list) else []


def text(value: object) -> str:
    """A JSON string; "" for anything else."""
    return value if isinstance(value, str) else ""


def walk(value: object, where: str) -> Iterator[tuple[str, object]]:
    """Every value inside `value`, itself first, with its place; no depth is too deep."""
    waiting = [(where, value)]
    while waiting:
        place, current = waiting.pop()
        yield place, current
        waiting += [(f"{place}.{name}", inner) for name, inner in members(current).items()]
        waiting += [(f"{place}[{index}]", inner) for index, inner in enumerate(items(current))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of the conversation."""

    where: str
    role: Literal["user", "assistant"]
    message: Mapping[str, object]

    @property
    def content(self) -> str:
        """Its text."""
        return text(self.message.get("content"))

    @property
    def context(self) -> Mapping[str, object]:
        """What a user message carries besides its text."""
        return members(self.message.get("userInputMessageContext"))

    @property
    def tool_uses(self) -> Sequence[Mapping[str, object]]:
        """The tool uses of an assistant message."""
        return [members(use) for use in items(self.message.get("toolUses"))]

    @property
    def tool_results(self) -> Sequence[Mapping[str, object]]:
        """The tool results of a user message."""
        return [members(result) for result in items(self.context.get("toolResults"))]

    @property
    def images(self) -> Sequence[Mapping[str, object]]:
        """The images of a user message."""
        return [members(image) for image in items(self.message.get("images"))]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The `conversationState` of a body."""

    body: object

    @property
    def state(self) -> Mapping[str, object]:
        """All of it."""
        return members(members(self.body).get("conversationState"))

    @property
    def current(self) -> Turn:
        """The message to be answered."""
        return _read_turn(self.state.get("currentMessage"), "$.conversationState.currentMessage")

    @property
    def history(self) -> Sequence[Turn]:
        """The messages before it."""
        return [
            _read_turn(message, f"$.conversationState.history[{index}]")
            for index, message in enumerate(items(self.state.get("history")))
        ]

    @property
    def turns(self) -> Sequence[Turn]:
        """Every message, in order."""
        return [*self.history, self.current]

    @property
    def tool_specs(self) -> Sequence[Mapping[str, object]]:
        """The tools declared with the current message."""
        declared = items(self.current.context.get("tools"))
        return [members(members(tool).get("toolSpecification")) for tool in declared]


def _read_turn(value: object, where: str) -> Turn:
    union = members(value)
    if ASSISTANT_MESSAGE in union:
        where = f"{where}.{ASSISTANT_MESSAGE}"
        return Turn(where=where, role="assistant", message=members(union[ASSISTANT_MESSAGE]))
    where = f"{where}.{USER_MESSAGE}"
    return Turn(where=where, role="user", message=members(union.get(USER_MESSAGE)))
