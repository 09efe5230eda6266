"""A capture's bytes and what was made of them, as text for people. Pure.

The texts are made for comparing: equal answers have equal ones. Estimates are left out, because
they change with what is masked.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, assert_never

from kiro_mcp.chat import Fault, Reply, TextPart, ThinkingPart, ToolUse
from kiro_mcp.errors import KiroError
from kiro_mcp.wire.eventstream import (
    MAX_HEADERS_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameDecoder,
)

REPLY_HEADING: Final = "# What kiro-mcp made of it"
FRAMES_HEADING: Final = "# Frames: offset, kind, payload"
"""The first lines of our files; another program's files of the same names begin otherwise."""

_CHUNK_BYTES: Final = 64 * 1024
_SHOWN_REST_BYTES: Final = 256
"""How much is shown of bytes that are no frame and no text."""


def reply_text(reply: Reply) -> str:
    """Write an answer down: what is said about it, then its parts in order."""
    return "\n".join((REPLY_HEADING, *_facts(reply), "", *_parts(reply))) + "\n"


def error_text(error: KiroError) -> str:
    """Write down an exchange without an answer."""
    return f"{REPLY_HEADING}\nerror: {error.code}: {error}\n"


def frames_text(
    data: bytes,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    max_headers_bytes: int = MAX_HEADERS_BYTES,
) -> Iterator[str]:
    """Yield the lines of a stream, a frame each, then what is no frame."""
    yield FRAMES_HEADING
    decoder = FrameDecoder(max_payload_bytes, max_headers_bytes)
    offset = 0
    for start in range(0, len(data), _CHUNK_BYTES):
        for frame in decoder.feed(data[start : start + _CHUNK_BYTES]):
            yield f"{offset:>8}  {_kind(frame)}  {_one_line(frame.payload)}"
            offset += int.from_bytes(data[offset : offset + 4], "big")
    if decoder.fault is not None and offset:
        yield f"{offset:>8}  fault  {decoder.fault.message}"
    yield from _rest(data[offset:], offset)


def reply_json(reply: Reply) -> dict[str, Any]:
    """Return an answer as JSON."""
    return {
        "text": reply.text,
        "thinking": reply.thinking,
        "tool_calls": [
            {"id": use.id, "name": use.name, "arguments": use.arguments, "state": use.state}
            | ({} if use.state == "complete" else {"raw": use.raw})
            for use in reply.tool_uses
        ],
        "stop_reason": reply.stop_reason,
        "raw_stop_reason": reply.raw_stop_reason,
        "truncated": reply.truncated,
        "truncation_reason": reply.truncation_reason,
        "model": reply.model_id,
        "credits": reply.usage.credits,
        "context_percent": reply.usage.context_percent,
        "warnings": list(reply.warnings),
        "ignored_events": dict(reply.ignored_events),
    }


def error_json(error: KiroError) -> dict[str, Any]:
    """Return an error as JSON."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}


# --- an answer ----------------------------------------------------------------------------


def _facts(reply: Reply) -> Iterator[str]:
    yield f"stop_reason: {reply.stop_reason}"
    usage = reply.usage
    named = {
        "raw_stop_reason": reply.raw_stop_reason,
        "truncated": reply.truncation_reason,
        "fault": _fault(reply.fault),
        "model": reply.model_id,
        "credits": usage.credits,
        "context_percent": usage.context_percent,
        "tokens": "" if usage.is_estimated else f"{usage.input_tokens}, {usage.output_tokens}",
    }
    yield from (f"{name}: {value}" for name, value in named.items() if value not in ("", None))
    yield from (f"warning: {warning}" for warning in reply.warnings)
    yield from (f"link: {link.url} {link.title}" for link in reply.links)
    yield from (f"reference: {one.repository} {one.license_name}" for one in reply.references)
    yield from (f"ignored: {count} {kind}" for kind, count in reply.ignored_events.items())


def _fault(fault: Fault | KiroError | None) -> str:
    match fault:
        case None:
            return ""
        case Fault():
            return " ".join(filter(None, (fault.name, fault.reason, fault.message)))
        case KiroError():
            return f"{fault.code}: {fault}"
        case _:
            assert_never(fault)


def _parts(reply: Reply) -> Iterator[str]:
    for part in reply.parts:
        match part:
            case TextPart():
                yield f"--- text\n{part.text}"
            case ThinkingPart():
                marks = (" signed" * bool(part.signature), " unclosed" * part.is_unclosed)
                yield f"--- thinking{''.join(marks)}\n{part.text or part.redacted}"
            case ToolUse():
                yield f"--- tool use {part.name} {part.id} {part.state}\n{_arguments(part)}"
                yield from (f"schema error: {error}" for error in part.schema_errors)
            case _:
                assert_never(part)


def _arguments(use: ToolUse) -> str:
    if use.state != "complete":
        return use.raw
    return json.dumps(use.arguments, ensure_ascii=False, indent=2)


# --- a stream -----------------------------------------------------------------------------


def _kind(frame: Frame) -> str:
    headers = frame.headers
    names = (headers.get(name, "") for name in (":event-type", ":exception-type", ":error-code"))
    kind, name = headers.get(":message-type", ""), next(filter(None, names), "")
    words = (name,) if kind == "event" else (kind, name, headers.get(":error-message", ""))
    return " ".join(str(word) for word in words if word)


def _one_line(data: bytes) -> str:
    text = data.decode(errors="replace")
    return text.replace("\\", "\\\\").replace("\n", "\\n") if "\n" in text else text


def _rest(data: bytes, offset: int) -> Iterator[str]:
    if not data:
        return
    text = _as_text(data)
    if text is not None:
        yield from text.splitlines()
        return
    shown = data[:_SHOWN_REST_BYTES]
    yield f"{offset:>8}  {len(data)} bytes that are no whole frame"
    yield from (f"{' ' * 10}{shown[at : at + 32].hex(' ')}" for at in range(0, len(shown), 32))


def _as_text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if any(character < " " and not character.isspace() for character in text) else text
