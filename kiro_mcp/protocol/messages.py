"""Chats of any shape -> a system prompt and `Message`s.

The way in for what a caller hands over as `messages` and `tool_results`: Anthropic, OpenAI
(Chat Completions, Responses) and MCP shapes, also mixed in one list. Nothing is refused for its
form: what cannot be understood is sent as its JSON, and said in `repairs`. Whether the turns
make a conversation is for `kiro_mcp.protocol.history` to see to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiro_mcp.models import (
    JsonObject,
    JsonValue,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
)
from kiro_mcp.protocol.content_blocks import ContentReader, first_text
from kiro_mcp.protocol.findings import Repair
from kiro_mcp.protocol.json_values import json_text, plain_json

_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "human": "user",
    "tool": "user",
    "function": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
_SYSTEM_ROLES: Final = frozenset({"system", "developer"})
_RESULT_ROLES: Final = frozenset({"tool", "function"})

_CALL_TYPES: Final = frozenset({"function_call", "tool_use", "reasoning", "thinking"})
"""Blocks that may stand in the list by themselves, and are then the assistant's."""

_CONTENT_KEYS: Final = ("content", "parts", "text")

_CUT_OFF: Final = frozenset({"max_tokens", "length", "truncated"})
"""Stop reasons of an answer that was not complete."""

_VOLATILE_HEADER: Final = "x-anthropic-billing-header"
"""Begins a line that one client puts into the system prompt, other for each request: it means
nothing to the model and would keep the service from caching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What was read of a caller's messages."""

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
        InvalidRequest: It holds media that the service does not take.
    """
    reader = ContentReader()
    plain = plain_json(list(given))
    systems = [system_text(plain_json(system))]
    read: list[_Read] = []
    for index, item in enumerate(plain if isinstance(plain, list) else ()):
        if isinstance(item, dict) and _word(item, "role") in _SYSTEM_ROLES:
            systems.append(system_text(item.get("content")))
        elif item is not None:
            read.append(_read_item(reader, item, f"messages[{index}]"))
    return Chat(
        messages=tuple(_joined(read)),
        system="\n\n".join(filter(None, systems)),
        repairs=tuple(reader.repairs),
    )


def read_tool_results(
    given: Sequence[object],
) -> tuple[tuple[ToolResult, ...], tuple[Repair, ...]]:
    """Read results that stand by themselves, such as `{id, content, is_error}`.

    Media that the service does not take are left out and said, to the model and in the repairs.
    """
    reader = ContentReader()
    plain = (plain_json(item) for item in given)
    results = [
        reader.tool_result(
            item if isinstance(item, dict) else {"content": item}, f"tool_results[{index}]"
        )
        for index, item in enumerate(plain)
    ]
    return tuple(results), tuple(reader.repairs)


def system_text(content: JsonValue) -> str:
    """Join a system prompt that is text, or blocks of text, by blank lines."""
    pieces = content if isinstance(content, list) else [content]
    texts = (_without_volatile_line(_piece_text(piece)) for piece in pieces)
    return "\n\n".join(text for text in texts if text.strip())


def _piece_text(piece: JsonValue) -> str:
    if isinstance(piece, str):
        return piece
    if piece is None:
        return ""
    text = first_text(piece, ("text",)) if isinstance(piece, dict) else ""
    return text or json_text(piece)


def _without_volatile_line(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(_VOLATILE_HEADER) else text


@dataclass(frozen=True, slots=True)
class _Read:
    """A message, and whether it is but a piece of a turn, as OpenAI sends each tool result."""

    message: Message
    is_piece: bool = False


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


def _read_item(reader: ContentReader, item: JsonValue, place: str) -> _Read:
    if not isinstance(item, dict):
        return _Read(Message(role="user", parts=tuple(reader.parts(item, place))))
    if "role" not in item:
        return _read_bare_block(reader, item, place)
    role = _role(reader, item, place)
    if _word(item, "role") in _RESULT_ROLES:
        result = reader.tool_result(item, place)
        return _Read(Message(role=role, parts=(result,)), is_piece=True)
    message = Message(
        role=role,
        parts=tuple(_message_parts(reader, item, place)),
        is_truncated=role == "assistant" and _is_cut_off(item),
    )
    return _Read(message)


def _read_bare_block(reader: ContentReader, item: JsonObject, place: str) -> _Read:
    """Read a content block, or an item of OpenAI's Responses, that stands for a message."""
    role: Role = "assistant" if _word(item, "type") in _CALL_TYPES else "user"
    is_message = "type" not in item and "content" in item
    parts = reader.parts(item["content"] if is_message else item, place)
    return _Read(Message(role=role, parts=tuple(parts)), is_piece=not is_message)


def _role(reader: ContentReader, item: JsonObject, place: str) -> Role:
    role = _ROLES.get(_word(item, "role"))
    if role is None:
        detail = f"{place} has the role {item['role']!r:.40}; it is sent as the user's."
        reader.repairs.append(Repair(rule="unknown_role", detail=detail))
    return role or "user"


def _message_parts(reader: ContentReader, item: JsonObject, place: str) -> Iterator[Part]:
    """Yield what a message says: its reasoning, its content, then its tool uses."""
    reasoning = first_text(item, ("reasoning_content", "reasoning"))
    if reasoning:
        yield ThinkingPart(text=reasoning)
    key = next((key for key in _CONTENT_KEYS if key in item), "content")
    yield from reader.parts(item.get(key), f"{place}.{key}")
    refusal = first_text(item, ("refusal",))
    if refusal:
        yield TextPart(text=refusal)
    for index, call in enumerate(_calls(item)):
        yield reader.tool_use(call, f"{place}.tool_calls[{index}]")


def _calls(item: JsonObject) -> list[JsonObject]:
    several, single = item.get("tool_calls"), item.get("function_call")
    calls = several if isinstance(several, list) else []
    return [call for call in (*calls, single) if isinstance(call, dict)]


def _is_cut_off(item: JsonObject) -> bool:
    reasons = {_word(item, "stop_reason"), _word(item, "finish_reason")}
    return item.get("truncated") is True or not reasons.isdisjoint(_CUT_OFF)


def _word(item: JsonObject, key: str) -> str:
    """Return a word in lower case; "" for anything else."""
    return first_text(item, (key,)).lower()
