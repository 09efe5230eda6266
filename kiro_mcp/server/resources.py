"""Conversations and finished answers as MCP resources.

kiro://conversations         the latest conversations, as JSON
kiro://conversations/{id}    one conversation, its turns as Markdown
kiro://answers/{id}          one finished answer, as JSON
"""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError

from kiro_mcp.chat import Part, TextPart, ToolResult, ToolUse
from kiro_mcp.errors import KiroError, quoted

if TYPE_CHECKING:
    from kiro_mcp.server.engine import Engine

CONVERSATIONS: Final = "kiro://conversations"
ANSWERS: Final = "kiro://answers"

LISTED: Final = (
    types.Resource(
        uri=CONVERSATIONS,
        name="conversations",
        title="Conversations with Claude",
        description="The latest conversations: id, last use, number of turns.",
        mime_type="application/json",
    ),
)
TEMPLATES: Final = (
    types.ResourceTemplate(
        uri_template=f"{CONVERSATIONS}/{{id}}",
        name="conversation",
        title="A conversation with Claude",
        description="One conversation, turn by turn.",
        mime_type="text/markdown",
    ),
    types.ResourceTemplate(
        uri_template=f"{ANSWERS}/{{id}}",
        name="answer",
        title="An answer of Claude",
        description="One finished answer, by its answer_id, as ask_claude returned it.",
        mime_type="application/json",
    ),
)


async def read_resource(engine: "Engine", uri: str) -> types.ReadResourceResult:
    """Return a resource.

    Raises:
        MCPError: The caller has no such resource, or the store cannot be read.
    """
    kind, _, name = uri.removeprefix("kiro://").partition("/")
    why, text, mime_type = f"Unknown resource {quoted(uri)}.", "", "application/json"
    try:
        if uri == CONVERSATIONS:
            text = await _listing(engine)
        elif kind == "conversations" and name:
            text, mime_type = await _conversation(engine, name), "text/markdown"
        elif kind == "answers":
            saved = await engine.conversations.answer(name, owner=engine.owner)
            text = (saved or b"").decode(errors="replace")
    except KiroError as error:
        why = str(error)
    if not text:
        # MCP 2026-07-28 requires the URI in the data.
        raise MCPError(code=types.INVALID_PARAMS, message=why, data={"uri": uri})
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.ReadResourceResult(contents=[contents])


async def _listing(engine: "Engine") -> str:
    return json.dumps(
        [
            {
                "id": item.id,
                "uri": f"{CONVERSATIONS}/{item.id}",
                "updated_at": datetime.fromtimestamp(item.updated_at, UTC).isoformat(),
                "turns": item.turn_count,
            }
            for item in await engine.conversations.listed(owner=engine.owner)
        ]
    )


async def _conversation(engine: "Engine", name: str) -> str:
    conversation = await engine.conversations.load(name, owner=engine.owner)
    lines: list[str] = []
    for number, turn in enumerate(conversation.turns, start=1):
        lines.append(f"# Turn {number} ({turn.model})")
        for message in (*turn.messages, turn.answer):
            parts = filter(None, map(_part_as_text, message.parts))
            lines.append(f"**{message.role}**: " + "\n\n".join(parts))
    return "\n\n".join(lines)


def _part_as_text(part: Part) -> str:
    match part:
        case TextPart():
            return part.text
        case ToolUse():
            return f"[asks for {part.name} {json.dumps(part.arguments, ensure_ascii=False)}]"
        case ToolResult():
            return f"[{'error' if part.is_error else 'result'}: {part.text}]"
        case _:
            return ""
