"""Reads the response of a captured exchange again: bytes in, a reply or an error out. Pure.

It is read with the recorded options, without the network. If a change of the decoder or of the
engine changes the result, the replay of an old capture shows that.
"""

from typing import cast

from kiro_mcp.captures.folder import Exchange, ReadingFacts
from kiro_mcp.captures.redacting import redacted_text
from kiro_mcp.captures.rendering import error_text, reply_text
from kiro_mcp.chat import Reply, ToolSpec
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.errors import AnswerBroken, ErrorCode, KiroError
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions

CHUNK_BYTES = 64 * 1024
"""How many bytes are read at once."""


def replay(exchange: Exchange) -> Reply | KiroError:
    """Read the response of an exchange again. Never raises.

    Args:
        exchange: An exchange with a response: its `is_answer` is true.
    """
    facts = exchange.facts
    if facts.status != 200:
        fault = fault_from_response(facts.status or 0, facts.response_headers, exchange.raw)
        return classify(fault)
    reading = facts.reading or ReadingFacts()
    tools = [
        ToolSpec(name=tool.name, description="", input_schema=tool.input_schema)
        for tool in reading.tools
    ]
    options = cast("ReplyOptions", {**dict(reading), "tools": tools})
    # Ids that are not in the bytes were created when the answer was first read: use them again.
    made_ids = (one for one in facts.tool_use_ids if one.encode() not in exchange.raw)
    builder = ReplyBuilder(**options, new_tool_use_id=lambda: next(made_ids, "tooluse_replayed"))
    for start in range(0, len(exchange.raw), CHUNK_BYTES):
        builder.feed(exchange.raw[start : start + CHUNK_BYTES])
    if (fault := facts.fault) is None:
        return builder.close(None)
    code = cast("ErrorCode", fault.code)  # It is only shown.
    return builder.close(AnswerBroken(fault.message, next_step=fault.next_step, code=code))


def as_recorded(outcome: Reply | KiroError) -> str:
    """Write an outcome as a capture records it."""
    text = reply_text(outcome) if isinstance(outcome, Reply) else error_text(outcome)
    return redacted_text(text).encode(errors="backslashreplace").decode()
