"""The frames of an answer: events of the service as values in, bytes of its event stream out.

Every frame carries three text headers in a fixed order and compact JSON with sorted keys.
Source of truth: the service's published event model, and its streams as observed.
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
    """JSON as the service writes it: no spaces, sorted keys, text beyond ASCII as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def event(
    event_type: str, payload: Mapping[str, object], *, content_type: str = "application/json"
) -> bytes:
    """One event frame."""
    headers = {
        ":event-type": event_type,
        ":content-type": content_type,
        ":message-type": "event",
    }
    return encode_frame(headers, compact_json(payload).encode())


def exception(message: str, reason: str, *, exception_type: str = "error") -> bytes:
    """One frame that ends an answer with a modelled error, after HTTP has said 200."""
    headers = {
        ":exception-type": exception_type,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode_frame(headers, compact_json({"message": message, "reason": reason}).encode())


def initial_response() -> bytes:
    """The frame that opens the stream of an RPC call; the service leaves its id empty."""
    return event(
        "initial-response", {"conversationId": ""}, content_type="application/x-amz-json-1.0"
    )


def pieces(text: str, size: int = DELTA_CHARACTERS) -> Iterator[str]:
    """The text in pieces of `size` characters; the last one may be shorter."""
    return (text[start : start + size] for start in range(0, len(text), size))


def text(
    content: str, *, model_id: str = "auto", delta_characters: int = DELTA_CHARACTERS
) -> bytes:
    """Visible text, as several deltas."""
    return b"".join(
        event("assistantResponseEvent", {"content": piece, "modelId": model_id})
        for piece in pieces(content, delta_characters)
    )


def reasoning(content: str) -> bytes:
    """Native reasoning: text deltas, then the signature that makes it replayable."""
    deltas = (event("reasoningContentEvent", {"text": piece}) for piece in pieces(content))
    return b"".join(deltas) + event("reasoningContentEvent", {"signature": sign(content)})


def sign(reasoning_text: str) -> str:
    """The emulator's signature of a reasoning text: what it gives, and what it takes back."""
    return b64encode(hashlib.sha256(b"emulator:" + reasoning_text.encode()).digest()).decode()


def tool_use(tool_use_id: str, name: str, arguments: str) -> bytes:
    """One whole tool use: its start, its JSON arguments in fragments, its stop."""
    stop = {"name": name, "stop": True, "toolUseId": tool_use_id}
    return unfinished_tool_use(tool_use_id, name, arguments) + event("toolUseEvent", stop)


def unfinished_tool_use(tool_use_id: str, name: str, arguments: str) -> bytes:
    """The same without its stop."""
    call = {"name": name, "toolUseId": tool_use_id}
    fragments = (event("toolUseEvent", {**call, "input": piece}) for piece in pieces(arguments))
    return event("toolUseEvent", call) + b"".join(fragments)


def ending(
    stop_reason: str = "",
    *,
    refusal: Mapping[str, str] | None = None,
    context_percent: float = 1.5,
) -> bytes:
    """What closes an answer: the stop reason where there is one, context use, credits."""
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
    """The frame with the last byte of its checksum changed."""
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])
