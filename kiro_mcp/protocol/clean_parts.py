"""Parts of a message -> the same parts with text and values that can be sent.

The first step of history repair: it meets what a library's user made by hand, and what came
through `kiro_mcp.protocol.messages` clean already. Half surrogate pairs, NUL characters and nulls
go; a stored tool use that was kept as broken JSON is poison for every later turn otherwise.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from kiro_mcp.models import (
    ImagePart,
    JsonObject,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.protocol.findings import Repair
from kiro_mcp.protocol.history import Repaired, Turns
from kiro_mcp.protocol.json_values import (
    clean_text,
    has_null,
    json_text,
    object_without_nulls,
    plain_json,
    without_invisible,
)


def clean_turns(turns: Turns) -> Repaired:
    """Make every text and value one that can be sent."""
    return _mapped(turns, _clean_part, "unsendable_value", "part(s) held what cannot be sent")


def strip_invisible(turns: Turns) -> Repaired:
    """Take code points that show nothing out of all texts that the model reads."""
    return _mapped(turns, _visible_part, "invisible_text", "part(s) held invisible characters")


def _mapped(turns: Turns, change: Callable[[Part], Part], rule: str, what: str) -> Repaired:
    changed: list[Message] = []
    count = 0
    for turn in turns:
        parts = tuple(map(change, turn.parts))
        count += sum(new != old for new, old in zip(parts, turn.parts, strict=True))
        changed.append(turn.with_parts(parts))
    return changed, [Repair(rule=rule, detail=f"{count} {what}.")] if count else []


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
    return replace(result, id=clean_text(result.id), text=text, data=data)


def _plain_object(value: JsonObject) -> JsonObject:
    plain = plain_json(value)
    return plain if isinstance(plain, dict) else {}


def _visible_part(part: Part) -> Part:
    if isinstance(part, TextPart | ToolResult):
        return replace(part, text=without_invisible(part.text))
    return part
