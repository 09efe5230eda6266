"""Reads chats of any shape into a system prompt and `Message`s.

This is the way in for the `messages` and `tool_results` of a caller: the shapes of Anthropic,
OpenAI (Chat Completions, Responses) and MCP, also mixed in one list. What is not understood is
sent as its JSON, and `repairs` say so; only an unknown role and media that the service does not
take are errors. `kiro_mcp.wire.history` makes a conversation of the turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from kiro_mcp.chat import (
    Finding,
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
from kiro_mcp.errors import quoted
from kiro_mcp.wire.content import (
    ContentReader,
    Members,
    first_text,
    is_assistants,
    is_result,
    kind_of,
)
from kiro_mcp.wire.json_values import json_text, plain_json

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
"""Begins a line that one client puts into the system prompt and changes with each request: it
means nothing to the model and would keep the service from caching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What was read of a caller's messages."""

    messages: tuple[Message, ...]
    system: str
    """The system prompt, its pieces joined by a blank line."""
    repairs: tuple[Repair, ...]


@dataclass(slots=True)
class _Read:
    """A message, and whether it is only a piece of a turn, as OpenAI sends each tool result."""

    message: Message
    is_piece: bool = False


def read_messages(given: Sequence[object], *, system: object = "") -> Chat:
    """Read a whole conversation.

    Args:
        given: The messages as the caller has them, oldest first.
        system: A system prompt beside them: text, or a list of text blocks.

    Raises:
        InvalidRequest: A role is unknown, or there are media that the service does not take.
    """
    reader = ContentReader()
    systems: list[str] = []
    read: list[_Read] = []
    _add_system(reader.parts(plain_json(system), "system"), systems, read)
    for index, item in enumerate(given):
        plain, location = plain_json(item), f"messages[{index}]"
        if not isinstance(plain, dict):
            if parts := reader.parts(plain, location):
                read.append(_Read(Message(role="user", parts=tuple(parts))))
        else:
            _read_message(reader, plain, location, systems, read)
    return Chat(
        messages=tuple(_joined(read)),
        system="\n\n".join(systems),
        repairs=reader.repairs,
    )


def read_tool_results(
    given: Sequence[object],
) -> tuple[tuple[ToolResult, ...], tuple[Repair, ...]]:
    """Read results that stand by themselves, such as `{id, content, is_error}`.

    Media that the service does not take are left out; the model and the repairs say so.
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


def _add_system(parts: Sequence[Part], systems: list[str], read: list[_Read]) -> None:
    """Add texts to the system prompt; what else is there, such as images, is the user's."""
    others: list[Part] = []
    for part in parts:
        if not isinstance(part, TextPart):
            others.append(part)
            continue
        text = part.text
        if text.startswith(_VOLATILE_HEADER):
            text = text.partition("\n")[2]
        if text.strip():
            systems.append(text)
    if others:
        read.append(_Read(Message(role="user", parts=tuple(others))))


def _joined(read: Sequence[_Read]) -> list[Message]:
    """Join the pieces of a turn to it. Whole messages of one role are left as they came."""
    messages: list[Message] = []
    was_piece = False
    for item in read:
        before = messages[-1] if messages else None
        if before and before.role == item.message.role and (was_piece or item.is_piece):
            parts = (*before.parts, *item.message.parts)
            messages[-1] = replace(before, parts=parts, is_truncated=item.message.is_truncated)
        else:
            messages.append(item.message)
        was_piece = item.is_piece
    return messages


def _read_message(
    reader: ContentReader, item: JsonObject, location: str, systems: list[str], read: list[_Read]
) -> None:
    message = Members(item, location)
    inner = item.get("message")
    if isinstance(inner, dict) and "role" in inner:  # An envelope, such as a choice of OpenAI's.
        message.value("message")
        reader.note_unused(message)
        _read_message(reader, inner, f"{location}.message", systems, read)
        return
    speaker = _speaker(item, location)
    if speaker is None:  # A content block, or an item of OpenAI's Responses.
        role: Role = "assistant" if is_assistants(kind_of(item)) else "user"
        parts = reader.parts(item, location)
        read.append(_Read(Message(role=role, parts=tuple(parts)), is_piece=True))
    elif speaker == "tool" and not _holds_results(item.get("content")):
        result = reader.tool_result(item, location)
        read.append(_Read(Message(role="user", parts=(result,)), is_piece=True))
    elif speaker == "system":
        _add_system(_message_parts(reader, message), systems, read)
    else:
        is_assistant = speaker == "assistant"
        whole = Message(
            role="assistant" if is_assistant else "user",
            parts=tuple(_message_parts(reader, message)),
            is_truncated=is_assistant and _is_cut_off(item),
        )
        read.append(_Read(whole))


def _speaker(item: JsonObject, location: str) -> _Speaker | None:
    """Return who speaks, by the role or the type of a message; None if it is a bare block.

    Raises:
        InvalidRequest: The role is none that anybody knows.
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
        raise Finding(
            rule="unknown_role",
            location=f"{location}.role",
            cause=f"is {quoted(shown)}, which is not a known role",
            cure="Use user, assistant, system, developer or tool.",
        ).as_error()
    return speaker


def _holds_results(content: JsonValue) -> bool:
    items = content if isinstance(content, list) else [content]
    return bool(items) and all(map(is_result, items))


def _message_parts(reader: ContentReader, message: Members) -> list[Part]:
    """Return what a message says: its reasoning, its content, then its tool uses."""
    location = message.location
    parts: list[Part] = []
    if reasoning := message.text("reasoning_content", "reasoning", "thinking"):
        parts.append(ThinkingPart(text=reasoning))
    for key in _CONTENT_KEYS:
        if content := reader.parts(message.value(key), f"{location}.{key}"):
            parts += content
            break
    if refusal := message.text("refusal"):
        parts.append(TextPart(text=refusal))
    audio = message.inner("audio")
    if audio and (transcript := audio.text("transcript")):
        parts.append(TextPart(text=transcript))
    several, single = message.value("tool_calls"), message.value("function_call")
    for index, call in enumerate(several if isinstance(several, list) else [several]):
        parts += reader.tool_call(call, f"{location}.tool_calls[{index}]")
    parts += reader.tool_call(single, f"{location}.function_call")
    if not parts and (rest := message.take_rest()):
        reader.note("unknown_content", f"{location} has no known content; it is sent as JSON.")
        parts.append(TextPart(text=json_text(rest)))
    reader.note_unused(message)
    return parts


def _is_cut_off(item: JsonObject) -> bool:
    reasons = {first_text(item, (key,)).lower() for key in ("stop_reason", "finish_reason")}
    return item.get("truncated") is True or not reasons.isdisjoint(_CUT_OFF)
