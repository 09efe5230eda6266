"""Parts of a message -> the same parts with text and values that can be sent.

The first step of history repair: it meets what a library's user made by hand, and what came
through `kiro_mcp.wire.messages` clean already. Half surrogate pairs, NUL characters and nulls
go; a stored tool use that was kept as broken JSON is poison for every later turn otherwise.
"""

from dataclasses import replace
from typing import assert_never

from kiro_mcp.chat import (
    ImagePart,
    JsonObject,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.wire.findings import counted
from kiro_mcp.wire.history import Repaired, Turns
from kiro_mcp.wire.json_values import (
    clean_text,
    has_null,
    json_text,
    object_without_nulls,
    plain_json,
)


def clean_turns(turns: Turns) -> Repaired:
    """Make every text and value one that can be sent."""
    changed: list[Message] = []
    count = 0
    for turn in turns:
        parts = tuple(map(_clean_part, turn.parts))
        count += sum(new != old for new, old in zip(parts, turn.parts, strict=True))
        changed.append(turn.with_parts(parts))
    return changed, counted("unsendable_value", count, "part(s) held what cannot be sent")


def _clean_part(part: Part) -> Part:
    match part:
        case TextPart():
            text = clean_text(part.text)
            return part if text is part.text else replace(part, text=text)
        case ThinkingPart():
            return replace(
                part,
                text=clean_text(part.text),
                signature=clean_text(part.signature),
                redacted=clean_text(part.redacted),
            )
        case ToolUse():
            return _clean_use(part)
        case ToolResult():
            return _clean_result(part)
        case ImagePart():
            return part
        case _:
            assert_never(part)


def _clean_use(use: ToolUse) -> ToolUse:
    return replace(
        use,
        id=clean_text(use.id),
        name=clean_text(use.name),
        arguments=object_without_nulls(_plain_object(use.arguments)),
    )


def _clean_result(result: ToolResult) -> ToolResult:
    data = None if result.data is None else _plain_object(result.data)
    text = clean_text(result.text)
    if data is not None and has_null(data):
        # As text it stays as it is; the service takes no null in data.
        text = "\n".join(filter(None, (text, json_text(data))))
        data = None
    return replace(
        result,
        id=clean_text(result.id),
        name=clean_text(result.name),
        text=text,
        data=data,
    )


def _plain_object(value: JsonObject) -> JsonObject:
    plain = plain_json(value)
    return plain if isinstance(plain, dict) else {}
