"""Frames of the service's answers, as the tests write them."""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, AnyStr
from zlib import crc32

from kiro_mcp.wire.eventstream import HeaderValue, encode_frame


def json_bytes(value: object) -> bytes:
    """JSON as the service writes it: compact, keys sorted, text beyond ASCII as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def frame(headers: Mapping[str, HeaderValue], payload: object) -> bytes:
    """A valid frame; a payload that is not bytes becomes JSON."""
    return encode_frame(headers, payload if isinstance(payload, bytes) else json_bytes(payload))


def event(event_type: str, payload: object) -> bytes:
    """A valid frame with the three headers that the service sends."""
    headers = {
        ":event-type": event_type,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return frame(headers, payload)


def raw_frame(raw_headers: bytes, payload: bytes = b"", **lengths: int) -> bytes:
    """A frame from a block of headers as bytes, with both checksums right.

    `total_length` and `headers_length` may be given to be wrong.
    """
    total_length = lengths.get("total_length", len(raw_headers) + len(payload) + 16)
    headers_length = lengths.get("headers_length", len(raw_headers))
    prelude = struct.pack(">II", total_length, headers_length)
    content = prelude + struct.pack(">I", crc32(prelude)) + raw_headers + payload
    return content + struct.pack(">I", crc32(content))


def text(content: str, **members: Any) -> bytes:
    """A piece of the answer."""
    return event("assistantResponseEvent", {"content": content, **members})


def tool(tool_use_id: str, name: str = "lire", **members: Any) -> bytes:
    """A fragment of a tool use."""
    return event("toolUseEvent", {"name": name, "toolUseId": tool_use_id, **members})


def reasoning(content: str = "", **members: Any) -> bytes:
    """A piece of thinking."""
    shown = {"text": content} if content else {}
    return event("reasoningContentEvent", {**shown, **members})


def metadata(**members: Any) -> bytes:
    """The event that says why the model stopped."""
    return event("metadataEvent", members)


def exception(name: str, **members: Any) -> bytes:
    """An error inside an answer."""
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return frame(headers, members)


CONTEXT = event("contextUsageEvent", {"contextUsagePercentage": 2.5})
METERING = event("meteringEvent", {"unit": "credit", "unitPlural": "credits", "usage": 0.02})
END = CONTEXT + METERING
"""The figures that end an answer."""


def chunks(data: AnyStr, size: int) -> Iterator[AnyStr]:
    """The data in chunks of `size`; the last one may be shorter."""
    return (data[start : start + size] for start in range(0, len(data), size))


def cut(data: AnyStr, positions: Sequence[int]) -> list[AnyStr]:
    """The data cut at any number of positions, which wrap around their length."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
