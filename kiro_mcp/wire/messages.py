"""Reads chats of any shape into a system prompt and `Message`s.

A caller's `messages` and `tool_results` may have the shapes of Anthropic, OpenAI (Chat Completions,
Responses) and MCP, also mixed in one list. Content that is not understood is sent as JSON, and
`repairs` say so. Only an unknown role and media that the service does not accept are errors.
`kiro_mcp.wire.history` makes a conversation from the messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from kiro_mcp.chat import (
    JsonObject,
    JsonValue,
    Message,
    Part,
    Repair,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
)
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.wire.content import (
    ContentReader,
    Members,
    is_assistants,
    is_result,
    kind_of,
)
from kiro_mcp.wire.json_values import json_text, plain_json, word_member

_Speaker: TypeAlias = Literal["user", "assistant", "system", "tool"]

_SPEAKERS: Final[dict[str, _Speaker]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}

_CONTENT_KEYS: Final = ("content", "parts", "text", "message")

_CUT_OFF: Final = frozenset({"max_tokens", "length", "truncated"})
"""Stop reasons of an answer that was not complete."""

_VOLATILE_HEADER: Final = "x-anthropic-billing-header"
"""The start of a line that one client puts into the system prompt and changes with each request.
The line means nothing to the model and would keep the service from caching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What was read from a caller's messages."""

    messages: tuple[Message, ...]
    system: str
    """The system prompt, its pieces joined by a blank line."""
    repairs: tuple[Repair, ...]


def read_messages(given: Sequence[object], *, system: object = "") -> Chat:
    """Read a whole conversation.

    Args:
        given: The messages as the caller has them, oldest first.
        system: A system prompt beside them: text, or a list of text blocks.

    Raises:
        InvalidRequest: A role is unknown, or the service does not accept a kind of media.
    """
    reader = _ChatReader()
    reader.add_system(reader.content.parts(plain_json(system), "system"))
    for index, item in enumerate(given):
        reader.read(plain_json(item), f"messages[{index}]")
    return Chat(
        messages=tuple(reader.messages),
        system="\n\n".join(reader.systems),
        repairs=reader.content.repairs,
    )


def read_tool_results(
    given: Sequence[object],
) -> tuple[tuple[ToolResult, ...], tuple[Repair, ...]]:
    """Read tool results that are given apart from messages, such as `{id, content, is_error}`.

    Media that the service does not accept are left out. The model is told, and `repairs` say so.
    """
    reader = ContentReader()
    plain = (plain_json(item) for item in given)
    results = [
        reader.tool_result(
            item if isinstance(item, dict) else {"content": item}, f"tool_results[{index}]"
        )
        for index, item in enumerate(plain)
    ]
    return tuple(results), reader.repairs


class _ChatReader:
    """Reads one message after the other.

    OpenAI sends pieces of a turn, such as each tool result, as separate messages. A piece is joined
    to the message before it if both have the same role. Two whole messages are not joined.
    """

    def __init__(self) -> None:
        self.content = ContentReader()
        self.messages: list[Message] = []
        self.systems: list[str] = []
        self._was_piece = False

    def read(self, item: JsonValue, location: str) -> None:
        if not isinstance(item, dict):
            if parts := self.content.parts(item, location):
                self._add("user", parts)
            return
        message = Members(item, location)
        inner = item.get("message")
        # An envelope, such as a choice of OpenAI's.
        if isinstance(inner, dict) and "role" in inner:
            message.value("message")
            self.content.note_unused(message)
            self.read(inner, f"{location}.message")
            return
        speaker = _speaker(item, location)
        if speaker is None:  # A content block, or an item of OpenAI's Responses.
            role: Role = "assistant" if is_assistants(kind_of(item)) else "user"
            self._add(role, self.content.parts(item, location), is_piece=True)
        elif speaker == "tool" and not _holds_results(item.get("content")):
            self._add("user", [self.content.tool_result(item, location)], is_piece=True)
        elif speaker == "system":
            self.add_system(self._parts(message))
        elif speaker == "assistant":
            reasons = {word_member(item, key).lower() for key in ("stop_reason", "finish_reason")}
            is_cut_off = item.get("truncated") is True or not reasons.isdisjoint(_CUT_OFF)
            self._add("assistant", self._parts(message), is_truncated=is_cut_off)
        else:
            self._add("user", self._parts(message))

    def add_system(self, parts: Sequence[Part]) -> None:
        """Add texts to the system prompt; other parts, such as images, become the user's."""
        for part in parts:
            if isinstance(part, TextPart):
                text = part.text
                if text.startswith(_VOLATILE_HEADER):
                    text = text.partition("\n")[2]
                if text.strip():
                    self.systems.append(text)
        if others := [part for part in parts if not isinstance(part, TextPart)]:
            self._add("user", others)

    def _add(
        self,
        role: Role,
        parts: Sequence[Part],
        *,
        is_piece: bool = False,
        is_truncated: bool = False,
    ) -> None:
        before = self.messages[-1] if self.messages else None
        if before and before.role == role and (is_piece or self._was_piece):
            joined = (*before.parts, *parts)
            self.messages[-1] = replace(before, parts=joined, is_truncated=is_truncated)
        else:
            self.messages.append(Message(role=role, parts=tuple(parts), is_truncated=is_truncated))
        self._was_piece = is_piece

    def _parts(self, message: Members) -> list[Part]:
        """Return the parts of a message: its reasoning, its content, then its tool uses."""
        location, content = message.location, self.content
        parts: list[Part] = []
        if reasoning := message.text("reasoning_content", "reasoning", "thinking"):
            parts.append(ThinkingPart(text=reasoning))
        for key in _CONTENT_KEYS:
            if found := content.parts(message.value(key), f"{location}.{key}"):
                parts += found
                break
        if refusal := message.text("refusal"):
            parts.append(TextPart(text=refusal))
        audio = message.inner("audio")
        if audio and (transcript := audio.text("transcript")):
            parts.append(TextPart(text=transcript))
        several, single = message.value("tool_calls"), message.value("function_call")
        for index, call in enumerate(several if isinstance(several, list) else [several]):
            parts += content.tool_call(call, f"{location}.tool_calls[{index}]")
        parts += content.tool_call(single, f"{location}.function_call")
        if not parts and (rest := message.take_rest()):
            content.note("unknown_content", f"{location} has no known content; it is sent as JSON.")
            parts.append(TextPart(text=json_text(rest)))
        content.note_unused(message)
        return parts


def _speaker(item: JsonObject, location: str) -> _Speaker | None:
    """Return a message's speaker, from its role or its type; None for a bare content block.

    Raises:
        InvalidRequest: The role is unknown.
    """
    role, kind = item.get("role"), item.get("type")
    has_content = any(key in item for key in _CONTENT_KEYS)
    if role in (None, ""):
        if kind in (None, "message"):
            return "user" if has_content and "text" not in item else None
        return _SPEAKERS.get(kind_of(item)) if has_content else None
    speaker = _SPEAKERS.get(role.strip().lower()) if isinstance(role, str) else None
    if speaker is None:
        shown = role if isinstance(role, str) else json_text(role)
        raise InvalidRequest(
            f"{location}.role is {quoted(shown)}, which is not a known role (unknown_role).",
            next_step="Use user, assistant, system, developer or tool.",
        )
    return speaker


def _holds_results(content: JsonValue) -> bool:
    items = content if isinstance(content, list) else [content]
    return bool(items) and all(map(is_result, items))
