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
    try:
        if uri == CONVERSATIONS:
            return _contents(uri, "application/json", await _listing(engine))
        if kind == "conversations" and name:
            return _contents(uri, "text/markdown", await _conversation(engine, name))
        if kind == "answers" and (
            kept := await engine.conversations.answer(name, owner=engine.owner)
        ):
            return _contents(uri, "application/json", kept.decode(errors="replace"))
    except KiroError as error:
        raise _refusal(str(error), uri) from error
    raise _refusal(f"Unknown resource {quoted(uri)}.", uri)


def _refusal(message: str, uri: str) -> MCPError:
    # MCP 2026-07-28 requires the URI in the data.
    return MCPError(code=types.INVALID_PARAMS, message=message, data={"uri": uri})


def _contents(uri: str, mime_type: str, text: str) -> types.ReadResourceResult:
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.ReadResourceResult(contents=[contents])


async def _listing(engine: "Engine") -> str:
    listed = await engine.conversations.listed(owner=engine.owner)
    return json.dumps(
        [
            {
                "id": item.id,
                "uri": f"{CONVERSATIONS}/{item.id}",
                "updated_at": datetime.fromtimestamp(item.updated_at, UTC).isoformat(),
                "turns": item.turn_count,
            }
            for item in listed
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
