"""The answer of a captured exchange, read again: bytes in, a reply or an error out. Pure.

It goes the way that the answer went when it came, without the network: so a change of the
decoder or the engine shows in how an old capture is read.
"""

from collections.abc import Callable
from typing import cast

from kiro_mcp.captures.folder import Exchange
from kiro_mcp.captures.left_out import without_identities
from kiro_mcp.captures.manifest import ErrorFacts, ReadingFacts
from kiro_mcp.captures.rendering import error_text, reply_text
from kiro_mcp.chat import Reply, ToolSpec
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.errors import AnswerBroken, ErrorCode, KiroError
from kiro_mcp.redaction import HIDDEN, redact
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions

CHUNK_BYTES = 64 * 1024
"""How many bytes are read at once."""


def replayed(exchange: Exchange) -> Reply | KiroError:
    """Read the answer of an exchange again. Never raises.

    Args:
        exchange: One with an answer: its `is_answer`.
    """
    facts = exchange.facts
    if facts.status != 200:
        fault = fault_from_response(facts.status or 0, facts.response_headers, exchange.raw)
        return classify(fault)
    builder = ReplyBuilder(
        **_options(facts.reading or ReadingFacts()),
        new_tool_use_id=_ids_as_they_were(exchange),
    )
    for start in range(0, len(exchange.raw), CHUNK_BYTES):
        builder.feed(exchange.raw[start : start + CHUNK_BYTES])
    return builder.close(_fault(facts.fault))


def as_recorded(outcome: Reply | KiroError) -> str:
    """Write an outcome as a capture has it."""
    text = reply_text(outcome) if isinstance(outcome, Reply) else error_text(outcome)
    return without_identities(redact(text)).encode(errors="backslashreplace").decode()


def is_comparable(exchange: Exchange) -> bool:
    """Whether what is read now must equal what was recorded."""
    return exchange.recorded is not None and exchange.facts.is_whole


def has_masks(exchange: Exchange) -> bool:
    """Whether secrets were masked in the answer, which can make it read otherwise."""
    return HIDDEN.encode() in exchange.raw


def _options(reading: ReadingFacts) -> ReplyOptions:
    tools = [
        ToolSpec(name=tool.name, description="", input_schema=tool.input_schema)
        for tool in reading.tools
    ]
    return ReplyOptions(
        prompt_characters=reading.prompt_characters,
        context_window_tokens=reading.context_window_tokens,
        thinking=reading.thinking,
        tools=tools,
        caller_names=reading.caller_names,
        property_names=reading.property_names,
        reads_text_calls=reading.reads_text_calls,
        max_payload_bytes=reading.max_payload_bytes,
        max_headers_bytes=reading.max_headers_bytes,
    )


def _ids_as_they_were(exchange: Exchange) -> Callable[[], str]:
    """Make the ids that were made when the answer came: those that its bytes do not have."""
    made = (one for one in exchange.facts.tool_use_ids if one.encode() not in exchange.raw)
    return lambda: next(made, "tooluse_replayed")


def _fault(facts: ErrorFacts | None) -> KiroError | None:
    if facts is None:
        return None
    code = cast("ErrorCode", facts.code)  # It is only shown.
    return AnswerBroken(facts.message, next_step=facts.next_step, code=code)
