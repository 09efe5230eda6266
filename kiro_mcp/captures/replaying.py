"""Writes a capture's frames and replies as text, and reads its responses again. Pure.

The texts can be compared: equal replies have equal texts. Estimates are omitted, because redaction
changes them. A replay reads a response with the recorded options, without the network. If a change
of the decoder or of the engine changes the result, the replay of an old capture shows that.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, assert_never, cast

from kiro_mcp.captures.folder import FRAMES_HEADING, REPLY_HEADING, Exchange, ReadingFacts
from kiro_mcp.captures.redacting import redacted_text, split_frames
from kiro_mcp.chat import Fault, Reply, TextPart, ThinkingPart, ToolSpec, ToolUse
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.errors import AnswerBroken, ErrorCode, KiroError
from kiro_mcp.wire.eventstream import Frame, FrameDecoder
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions

CHUNK_BYTES: Final = 64 * 1024
"""How many bytes a replay reads at once."""

_SHOWN_REST_BYTES: Final = 256
"""How many bytes are shown if they are neither frames nor text."""


def outcome_text(outcome: Reply | KiroError) -> str:
    """Return a reply as text: its properties, then its parts in order; or why there is no reply."""
    if isinstance(outcome, KiroError):
        return f"{REPLY_HEADING}\nerror: {outcome.code}: {outcome}\n"
    reply = outcome
    usage, fault = reply.usage, reply.fault
    if isinstance(fault, Fault):
        fault = " ".join(filter(None, (fault.name, fault.reason, fault.message)))
    elif fault is not None:
        fault = f"{fault.code}: {fault}"
    facts = {
        "raw_stop_reason": reply.raw_stop_reason,
        "truncated": reply.truncation_reason,
        "fault": fault,
        "model": reply.model_id,
        "credits": usage.credits,
        "context_percent": usage.context_percent,
        "tokens": "" if usage.is_estimated else f"{usage.input_tokens}, {usage.output_tokens}",
    }
    lines = [
        REPLY_HEADING,
        f"stop_reason: {reply.stop_reason}",
        *(f"{name}: {value}" for name, value in facts.items() if value not in ("", None)),
        *(f"warning: {warning}" for warning in reply.warnings),
        *(f"link: {link.url} {link.title}" for link in reply.links),
        *(f"reference: {one.repository} {one.license_name}" for one in reply.references),
        *(f"ignored: {count} {kind}" for kind, count in reply.ignored_events.items()),
        "",
    ]
    for part in reply.parts:
        match part:
            case TextPart():
                lines.append(f"--- text\n{part.text}")
            case ThinkingPart():
                marks = " signed" * bool(part.signature) + " unclosed" * part.is_unclosed
                lines.append(f"--- thinking{marks}\n{part.text or part.redacted}")
            case ToolUse():
                arguments = part.raw
                if part.state == "complete":
                    arguments = json.dumps(part.arguments, ensure_ascii=False, indent=2)
                lines.append(f"--- tool use {part.name} {part.id} {part.state}\n{arguments}")
                lines += (f"schema error: {error}" for error in part.schema_errors)
            case _:
                assert_never(part)
    return "\n".join(lines) + "\n"


def frames_text(data: bytes, decoder: FrameDecoder | None = None) -> Iterator[str]:
    """Yield the lines for the bytes of a response: one per frame, then the other bytes."""
    yield FRAMES_HEADING
    decoder = decoder or FrameDecoder()
    frames, rest = split_frames(data, decoder)
    offset = 0
    for raw, frame in frames:
        payload = frame.payload.decode(errors="replace")
        if "\n" in payload:
            payload = payload.replace("\\", "\\\\").replace("\n", "\\n")
        yield f"{offset:>8}  {_kind(frame)}  {payload}"
        offset += len(raw)
    if decoder.fault is not None and offset:
        yield f"{offset:>8}  fault  {decoder.fault.message}"
    if not rest:
        return
    if (text := _as_text(rest)) is not None:
        yield from text.splitlines()
        return
    shown = rest[:_SHOWN_REST_BYTES]
    yield f"{offset:>8}  {len(rest)} bytes that are not a whole frame"
    yield from (f"{' ' * 10}{shown[at : at + 32].hex(' ')}" for at in range(0, len(shown), 32))


def _kind(frame: Frame) -> str:
    headers = frame.headers
    names = (headers.get(name, "") for name in (":event-type", ":exception-type", ":error-code"))
    kind, name = headers.get(":message-type", ""), next(filter(None, names), "")
    words = (name,) if kind == "event" else (kind, name, headers.get(":error-message", ""))
    return " ".join(str(word) for word in words if word)


def _as_text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if any(character < " " and not character.isspace() for character in text) else text


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
    # Ids that are not in the bytes were created when the answer was first read: use them again.
    made_ids = (one for one in facts.tool_use_ids if one.encode() not in exchange.raw)
    options = replace(
        ReplyOptions(**dict(reading)),
        tools=[
            ToolSpec(name=tool.name, description="", input_schema=tool.input_schema)
            for tool in reading.tools
        ],
        new_tool_use_id=lambda: next(made_ids, "tooluse_replayed"),
    )
    builder = ReplyBuilder(options)
    for start in range(0, len(exchange.raw), CHUNK_BYTES):
        builder.feed(exchange.raw[start : start + CHUNK_BYTES])
    if (fault := facts.fault) is None:
        return builder.close(None)
    code = cast("ErrorCode", fault.code)  # It is only shown.
    return builder.close(AnswerBroken(fault.message, next_step=fault.next_step, code=code))


def as_recorded(outcome: Reply | KiroError) -> str:
    """Write an outcome as a capture records it."""
    return redacted_text(outcome_text(outcome)).encode(errors="backslashreplace").decode()
