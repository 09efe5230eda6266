"""Encodes the events of an answer as frames of the service's event stream.

Every frame has three text headers in a fixed order and compact JSON with sorted keys. Source of
truth: the service's published event model and observed streams.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Final

from kiro_mcp.wire.eventstream import encode_frame

DELTA_CHARACTERS: Final = 24
"""The length of one text delta; the service's own are 1 to 40 bytes."""


def compact_json(value: object) -> str:
    """Write JSON as the service does: no spaces, sorted keys, non-ASCII text not escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def event(event_type: str, payload: Mapping[str, object]) -> bytes:
    """Return one event frame."""
    headers = {":event-type": event_type, ":content-type": "application/json"}
    return _frame(headers, "event", payload)


def exception(message: str, reason: str, *, exception_type: str = "error") -> bytes:
    """Return a frame that ends an answer with an error, after the HTTP status 200."""
    headers = {":exception-type": exception_type, ":content-type": "application/json"}
    return _frame(headers, "exception", {"message": message, "reason": reason})


def _frame(headers: Mapping[str, str], message_type: str, payload: Mapping[str, object]) -> bytes:
    return encode_frame({**headers, ":message-type": message_type}, compact_json(payload).encode())


def initial_response() -> bytes:
    """Return the first frame of an RPC answer; the service leaves its id empty."""
    headers = {":event-type": "initial-response", ":content-type": "application/x-amz-json-1.0"}
    return _frame(headers, "event", {"conversationId": ""})


def pieces(text: str, size: int = DELTA_CHARACTERS) -> Iterator[str]:
    """Split a text into pieces of `size` characters; the last one may be shorter."""
    return (text[start : start + size] for start in range(0, len(text), size))


def text(
    content: str, *, model_id: str = "auto", delta_characters: int = DELTA_CHARACTERS
) -> bytes:
    """Return visible text as several deltas."""
    return b"".join(
        event("assistantResponseEvent", {"content": piece, "modelId": model_id})
        for piece in pieces(content, delta_characters)
    )


def reasoning(content: str) -> bytes:
    """Return native reasoning: text deltas, then the signature that clients send back with it."""
    deltas = (event("reasoningContentEvent", {"text": piece}) for piece in pieces(content))
    return b"".join(deltas) + event("reasoningContentEvent", {"signature": sign(content)})


def sign(reasoning_text: str) -> str:
    """Return the signature of a reasoning text, which the emulator sends and later accepts."""
    return b64encode(hashlib.sha256(b"emulator:" + reasoning_text.encode()).digest()).decode()


def tool_use(tool_use_id: str, name: str, arguments: str) -> bytes:
    """Return a complete tool use: its start, its JSON arguments in fragments, its stop."""
    stop = {"name": name, "stop": True, "toolUseId": tool_use_id}
    return unfinished_tool_use(tool_use_id, name, arguments) + event("toolUseEvent", stop)


def unfinished_tool_use(tool_use_id: str, name: str, arguments: str) -> bytes:
    """Return a tool use without its stop."""
    call = {"name": name, "toolUseId": tool_use_id}
    fragments = (event("toolUseEvent", {**call, "input": piece}) for piece in pieces(arguments))
    return event("toolUseEvent", call) + b"".join(fragments)


def ending(
    stop_reason: str = "",
    *,
    refusal: Mapping[str, str] | None = None,
    context_percent: float = 1.5,
) -> bytes:
    """Return the last frames of an answer: a stop reason, if given, context use and credits."""
    metadata: dict[str, object] = {"stopReason": stop_reason} if stop_reason else {}
    if refusal is not None:
        metadata["stopDetails"] = {"refusal": dict(refusal)}
    stop = event("metadataEvent", metadata) if metadata else b""
    return (
        stop
        + event("contextUsageEvent", {"contextUsagePercentage": context_percent})
        + event("meteringEvent", {"unit": "credit", "unitPlural": "credits", "usage": 0.0148})
    )


def with_bad_checksum(frame: bytes) -> bytes:
    """Return the frame with a wrong last byte in its checksum."""
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])
