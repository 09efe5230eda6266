"""Answers read from bytes, as the tests want them."""

from collections.abc import Iterable
from typing import Any

from kiro_mcp.chat import (
    Delta,
    Reply,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolUse,
    ToolUseDelta,
)
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions


def read(data: bytes | Iterable[bytes], **options: Any) -> Reply:
    """The reply that the bytes, or the chunks of them, are."""
    return read_all(data, **options)[1]


def read_all(data: bytes | Iterable[bytes], **options: Any) -> tuple[list[Delta], Reply]:
    """All deltas, the last ones included, and the reply."""
    builder = ReplyBuilder(ReplyOptions(**options))
    chunks = [data] if isinstance(data, bytes) else data
    deltas = [delta for chunk in chunks for delta in builder.feed(chunk)]
    reply = builder.close()
    return [*deltas, *builder.last_deltas], reply


def said(deltas: Iterable[Delta]) -> tuple[str, str, list[ToolUse]]:
    """What deltas say, joined: text, thinking and tool uses."""
    text, thinking = list[str](), list[str]()
    tool_uses = list[ToolUse]()
    for delta in deltas:
        match delta:
            case TextDelta():
                text.append(delta.text)
            case ThinkingDelta():
                thinking.append(delta.text)
            case ToolUseDelta():
                tool_uses.append(delta.tool_use)
    return "".join(text), "".join(thinking), tool_uses


def outline(reply: Reply) -> list[str]:
    """The parts in a form that is read at a glance: `text`, `(thinking)`, `name{arguments}`."""
    lines = list[str]()
    for part in reply.parts:
        match part:
            case TextPart():
                lines.append(part.text)
            case ThinkingPart():
                lines.append(f"({part.text})")
            case ToolUse():
                lines.append(f"{part.name}{part.arguments}")
    return lines
