"""Messages as JSON and back, for the store on disk.

Each part carries its kind, because several have the same members. A record that this version
cannot read is an error of its own kind, so that one bad row does not take a store down.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from kiro_mcp.chat import (
    ImagePart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.wire.images import is_base64

_KINDS: Final[Mapping[str, type[Any]]] = {
    "text": TextPart,
    "thinking": ThinkingPart,
    "tool_use": ToolUse,
    "tool_result": ToolResult,
    "image": ImagePart,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_MEMBERS: Final = {
    kind: tuple(field.name for field in fields(kind) if field.compare)
    for kind in (*_KINDS.values(), ToolSpec)
}
"""What is stored: not the text that the arguments of a tool use were read from."""


class UnreadableRecordError(ValueError):
    """A record was written by another version, or is damaged."""


def record_of(message: Message) -> dict[str, Any]:
    """Turn a message into a JSON object."""
    parts = [{"kind": _NAMES[type(part)], **_members_of(part)} for part in message.parts]
    record = {"role": message.role, "parts": parts, "is_truncated": message.is_truncated}
    return {**record, "is_refusal": True} if message.is_refusal else record


def json_of(messages: Sequence[Message]) -> str:
    """Write messages as the JSON of their records.

    One part after the other, because the library lets no other thread run meanwhile; and base64
    as it is, because it has nothing to escape.
    """
    pieces: list[str] = []  # Joined once: each copy of ten images takes tens of milliseconds.
    for message in messages:
        record = json.dumps(record_of(replace(message, parts=())) | {"parts": None})
        head, tail = record.split('"parts": null', 1)
        pieces += (", " if pieces else "[", head, '"parts": [')
        for index, part in enumerate(message.parts):
            pieces += (", " if index else "", *_json_of_part(part))
        pieces += ("]", tail)
    return "".join((*pieces, "]")) if pieces else "[]"


def _json_of_part(part: Part) -> Sequence[str]:
    kind = _NAMES[type(part)]
    if isinstance(part, ImagePart) and is_base64(part.data):
        record = json.dumps({"kind": kind, **_members_of(replace(part, data=""))})
        head, tail = record.split('"data": ""', 1)
        return head, '"data": "', part.data, '"', tail
    return (json.dumps({"kind": kind, **_members_of(part)}),)


def message_of(record: Mapping[str, Any]) -> Message:
    """Turn a JSON object back into the message.

    Raises:
        UnreadableRecordError: It is not one that `record_of` made.
    """
    try:
        return Message(
            role=record["role"],
            parts=tuple(_part_of(part) for part in record["parts"]),
            is_truncated=record["is_truncated"],
            is_refusal=record.get("is_refusal", False),
        )
    except (KeyError, TypeError) as error:
        raise UnreadableRecordError(str(error)) from error


def records_of_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Turn tool specs into JSON objects."""
    return [_members_of(tool) for tool in tools]


def tools_of(records: Sequence[Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """Turn JSON objects back into the tool specs."""
    try:
        return tuple(ToolSpec(**record) for record in records)
    except TypeError as error:
        raise UnreadableRecordError(str(error)) from error


def _members_of(value: Part | ToolSpec) -> dict[str, Any]:
    # Not `asdict`, which copies all that is inside, such as megabytes of arguments.
    members = {name: getattr(value, name) for name in _MEMBERS[type(value)]}
    if isinstance(value, ToolResult):
        members["images"] = [_members_of(image) for image in value.images]
    return members


def _part_of(record: Mapping[str, Any]) -> Part:
    members = dict(record)
    kind = _KINDS[members.pop("kind")]
    if kind is ToolResult:
        members["images"] = tuple(ImagePart(**image) for image in members["images"])
    if kind is ToolUse:
        members["schema_errors"] = tuple(members["schema_errors"])
    return kind(**members)
