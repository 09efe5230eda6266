"""What the writers of the three APIs share.

An answer is a sequence of items: text, thinking and tool calls. `Writer.write` takes its events and
calls the methods of its subclass, which return what a stream gets:

    TextDelta, TextDelta, ToolUseDelta   ->   begin_item, add, add, end_text, write_call

Thinking that is shown ends with a `ThinkingPart`: the whole block with its signature. A tool call
that was cut off is left out; the end of the response says that it is incomplete.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from pydantic_core import PydanticSerializationError, to_json

from kiro_mcp.chat import (
    JsonObject,
    JsonValue,
    Reply,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
    ToolUse,
    ToolUseDelta,
)
from kiro_mcp.wire.json_values import json_text

Event: TypeAlias = TextDelta | ThinkingDelta | ThinkingPart | ToolUseDelta
"""A piece of an answer."""

Kind: TypeAlias = Literal["", "text", "thinking", "redacted"]


class Writer:
    """Writes one answer, whole or as a stream. Base of the writers of the APIs."""

    keep_alive = b": keep-alive\n\n"
    """What a stream gets while the model thinks."""

    def __init__(self, *, shows_thinking: bool = True) -> None:
        self._shows_thinking = shows_thinking
        self._open: Kind = ""
        """The item that is being written; "" for none."""
        self._pieces: list[str] = []
        """Its text so far."""

    # --- for the caller ---

    def begin(self) -> bytes:
        """Return how a stream begins."""
        raise NotImplementedError

    def write(self, event: Event) -> bytes:
        """Return what a stream gets for an event."""
        match event:
            case TextDelta():
                return self._add("text", event.text)
            case ThinkingDelta() if self._shows_thinking:
                return self._add("thinking", event.text)
            case ThinkingPart() if self._shows_thinking:
                begun = self._begin("redacted" if event.redacted else "thinking")
                return begun + self._end(event)
            case ToolUseDelta() if event.tool_use.state != "truncated":
                return self.close() + self._write_call(event.tool_use)
            case _:
                return b""

    def end(self, reply: Reply) -> bytes:
        """Return how a stream ends."""
        raise NotImplementedError

    def fail(self, error: JsonObject) -> bytes:
        """Return how a stream ends that broke off."""
        raise NotImplementedError

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the answer that was written as one object."""
        raise NotImplementedError

    # --- for subclasses ---

    def _begin_item(self, kind: Kind) -> bytes:
        """Begin an item that comes in pieces."""
        raise NotImplementedError

    def _add_piece(self, kind: Kind, text: str) -> bytes:
        """Add a piece to the item that has begun."""
        raise NotImplementedError

    def _end_text(self, text: str) -> bytes:
        """End a text."""
        raise NotImplementedError

    def _end_thinking(self, part: ThinkingPart) -> bytes:
        """End a block of thinking."""
        raise NotImplementedError

    def _write_call(self, tool_use: ToolUse) -> bytes:
        """Write a tool call, which comes as a whole."""
        raise NotImplementedError

    def close(self) -> bytes:
        """End the item that has begun, if there is one."""
        if self._open == "thinking":
            return self._end(ThinkingPart(text=""))
        if self._open != "text":
            return b""
        text = "".join(self._pieces)
        ending = self._end_text(text)
        self._open, self._pieces = "", []
        return ending

    def _add(self, kind: Kind, text: str) -> bytes:
        begun = self._begin(kind)
        self._pieces.append(text)
        return begun + self._add_piece(kind, text)

    def _begin(self, kind: Kind) -> bytes:
        if self._open == kind:
            return b""
        closing = self.close()
        self._open = kind
        return closing + self._begin_item(kind)

    def _end(self, part: ThinkingPart) -> bytes:
        ending = self._end_thinking(replace(part, text=part.text or "".join(self._pieces)))
        self._open, self._pieces = "", []
        return ending


def json_bytes(value: Any) -> bytes:
    """Write a value as compact JSON; half a surrogate pair becomes a question mark."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json_text(value).encode(errors="replace")


def arguments_text(tool_use: ToolUse) -> str:
    """Return the arguments of a call as JSON: byte for byte as the model wrote them, if it can be.

    Arguments that are not JSON are returned as they came.
    """
    return tool_use.text or tool_use.raw or json_text(tool_use.arguments)


def thinking_block(part: ThinkingPart) -> JsonObject:
    """Return a block of thinking as Anthropic has it."""
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def refusal_text(reply: Reply) -> str:
    """Return why the service refused to answer."""
    return (reply.refusal and reply.refusal.explanation) or "The service refused to answer."


def custom_tools(tools: Sequence[JsonValue]) -> frozenset[str]:
    """Return the names of the tools that take text in the place of JSON."""
    names: list[JsonValue] = []
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == "custom":
            inner = tool.get("custom")
            names.append(inner.get("name") if isinstance(inner, dict) else tool.get("name"))
    return frozenset(name for name in names if isinstance(name, str))
