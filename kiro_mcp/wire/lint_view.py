"""A payload, read without trust: what is missing or of another type reads as empty.

What the rules of `kiro_mcp.wire.lint` look at. A payload may come from elsewhere, so
nothing here relies on how this package builds one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kiro_mcp.chat import JsonObject, JsonValue, ModelInfo, Role
from kiro_mcp.wire.json_values import object_member, object_members

_MEMBERS: dict[Role, str] = {
    "user": "userInputMessage",
    "assistant": "assistantResponseMessage",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a payload."""

    place: str
    role: Literal["user", "assistant"]
    message: JsonObject
    context: JsonObject
    """What comes with the user's text."""
    tool_uses: Sequence[JsonObject]
    """The assistant's tool uses."""
    tool_results: Sequence[JsonObject]
    """The user's tool results."""
    images: Sequence[JsonObject]
    """The user's images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A payload and what is known of the model that it is for."""

    payload: JsonObject
    model: ModelInfo | None
    state: JsonObject
    """The conversation."""
    history: Sequence[Turn]
    current: Turn
    turns: Sequence[Turn]
    """All messages, oldest first."""
    tool_specs: Sequence[JsonObject]
    """The tools that are declared with the current message."""


def read_payload(payload: JsonObject, model: ModelInfo | None) -> Sent:
    """Look at a payload of any shape."""
    state = object_member(payload, "conversationState")
    history = [
        _turn(message, f"history[{index}]")
        for index, message in enumerate(object_members(state, "history"))
    ]
    current = _turn(object_member(state, "currentMessage"), "currentMessage")
    tools = object_members(current.context, "tools")
    return Sent(
        payload=payload,
        model=model,
        state=state,
        history=history,
        current=current,
        turns=(*history, current),
        tool_specs=[object_member(tool, "toolSpecification") for tool in tools],
    )


def _turn(union: JsonObject, place: str) -> Turn:
    role: Role = "assistant" if _MEMBERS["assistant"] in union else "user"
    member = _MEMBERS[role]
    message = object_member(union, member)
    context = object_member(message, "userInputMessageContext")
    return Turn(
        place=f"{place}.{member}",
        role=role,
        message=message,
        context=context,
        tool_uses=object_members(message, "toolUses"),
        tool_results=object_members(context, "toolResults"),
        images=object_members(message, "images"),
    )


def text_of(members: JsonObject, key: str) -> str:
    """Return a text as it is; "" for anything else."""
    value = members.get(key)
    return value if isinstance(value, str) else ""


def walk(value: JsonValue, place: str) -> Iterator[tuple[str, JsonValue]]:
    """Yield every value inside of `value`, itself first, with its place; to any depth."""
    waiting = [(place, value)]
    while waiting:
        where, current = waiting.pop()
        yield where, current
        if isinstance(current, dict):
            waiting.extend((f"{where}.{name:.80}", inner) for name, inner in current.items())
        elif isinstance(current, list):
            waiting.extend((f"{where}[{index}]", inner) for index, inner in enumerate(current))
