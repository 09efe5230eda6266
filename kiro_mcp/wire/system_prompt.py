"""What a request says to the model before the conversation -> one system prompt.

The service has no member for it, so `kiro_mcp.wire.payload` puts it before the first user
turn's text. The order is fixed and holds nothing that changes from turn to turn, because the
service caches by prefix.
"""

from typing import Final

from kiro_mcp.chat import ChatRequest
from kiro_mcp.wire.tools import SentTools
from kiro_mcp.wire.typed_answers import typed_instruction

WRITE_IN_CHUNKS: Final = (
    "When you write or change a file with a tool, put at most 350 lines into one tool use: create"
    " the file with its first part, then append or edit part by part. A longer tool use is cut"
    " off before it is complete, and then nothing of it is written."
)
"""For models that run for minutes in one tool use, longer than the service keeps it open."""


def compose_system(request: ChatRequest, tools: SentTools, *, tags: str = "") -> str:
    """Return the whole system prompt, "" if there is nothing to say.

    Args:
        request: What is asked.
        tools: Its tools; those with descriptions too long to send are described here.
        tags: What asks an older model to think.
    """
    pieces = (
        tags,
        request.system,
        WRITE_IN_CHUNKS if request.writes_in_chunks else "",
        *(f"Tool {name}:\n{text}" for name, text in tools.long_descriptions),
        _tool_instruction(request.tool_choice, tools),
        "" if request.output_schema is None else typed_instruction(request.output_schema),
    )
    return "\n\n".join(piece for piece in pieces if piece.strip())


def _tool_instruction(choice: str, tools: SentTools) -> str:
    """Return what asks for a tool use: the service has no member for `tool_choice`."""
    if choice == "required":
        return "In your next answer you must use at least one of your tools."
    name = tools.names.get(choice)
    return f"In your next answer you must use the tool {name}." if name else ""
