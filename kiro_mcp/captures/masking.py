"""The bytes of an answer, with its secrets masked: a stream in, the same stream out. Pure.

A model's text comes in pieces of a few letters, so that a secret in it is spread over many
frames, and each frame has a checksum. The pieces are therefore read as the one text that they
are, and a frame with a part of a secret is made anew. Frames are handed on at once, but for
those in which a secret may be going on::

    {"content":"the key is "}  {"content":"ksk_01"}  {"content":"23456"}  {"content":"7, ok?"}
    handed on                  held ───────────────────────────────────▶  known to be over

What is no frame, such as the body of a refusal, keeps its length: letters give way to stars.
Identities are masked in all but the words of an answer, which are the user's to look at.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final, TypeAlias, cast

from kiro_mcp.captures.left_out import abridged, without_identities
from kiro_mcp.redaction import HIDDEN, beginning_of_secret, redact, redact_json, secret_spans
from kiro_mcp.wire.eventstream import (
    MAX_HEADERS_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameDecoder,
    encode_frame,
)

MAX_HELD_BYTES: Final = 64 * 1024
"""How many bytes of frames are held back at most. What goes on beyond is masked as it comes."""

MAX_UNFRAMED_BYTES: Final = 1024 * 1024
"""How much is kept of what is no frame. The engine itself reads less of it."""

CONTEXT_CHARACTERS: Final = 256
"""How much of what was handed on is remembered: a name in it can make the next text a secret."""

MAX_CONTEXTS: Final = 64
"""For how many texts that is remembered; each tool use of an answer has one."""

_PROBE: Final = "AAAA.A.A"
"""With this after it, a text that ends just before a secret or in one ends in a longer one."""

_BEGINNING: Final = re.compile(r"\b(?:ao?|k(?:sk?)?|ey?)\Z")
"""The first letters of what is known by its shape."""

_PIECES: Final = {
    "assistantResponseEvent": "content",
    "reasoningContentEvent": "text",
    "toolUseEvent": "input",
}
"""The events that carry pieces of a longer text, and the member that does."""

Source: TypeAlias = tuple[str, str]
"""A text of the answer: the event whose frames have pieces of it, and the id of a tool use."""
Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A frame that has not been handed on."""

    raw: bytes
    frame: Frame
    members: dict[str, Any] | None
    """Its payload, without the piece of a text; None where that is no JSON object."""
    source: Source | None
    """Which text it has a piece of; None for none."""
    piece: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """A text of the answer, as far as it is known: its remembered end, and what is held."""

    source: Source
    indexes: Sequence[int]
    """Which of the held frames have its pieces."""
    joined: str
    bounds: Sequence[int]
    """Where in it the first piece begins, and where each ends."""
    secrets: Sequence[Span]
    """Where its secrets are; of one that may be going on, the end is beyond its own."""

    def ranges(self, held: int) -> Iterator[tuple[int, int]]:
        """Yield the first and the last frame of each secret; `held`, where the last is to come."""
        secrets = [*self.secrets, *_beginning(self.joined)]
        for start, end in secrets:
            if self.bounds[0] <= start < len(self.joined):
                first = self.indexes[bisect_right(self.bounds, start) - 1]
                is_over = end <= len(self.joined)
                yield first, self.indexes[bisect_left(self.bounds, end) - 1] if is_over else held


class StreamMask:
    """Masks one answer. Whole frames come out; what it still holds in the end, `close` gives.

    Args:
        max_payload_bytes: The largest payload of a frame.
        max_headers_bytes: The largest block of headers of a frame.
    """

    def __init__(
        self,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        max_headers_bytes: int = MAX_HEADERS_BYTES,
    ) -> None:
        self._decoder = FrameDecoder(max_payload_bytes, max_headers_bytes)
        self._undecoded = bytearray()
        self._held: list[_Held] = []
        self._before: dict[Source, str] = {}
        self._clean: dict[str, Any] = {}

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those that can be handed on."""
        self._take(data)
        is_full = sum(len(one.raw) for one in self._held) > MAX_HELD_BYTES
        texts = self._texts(probe=_PROBE)
        return self._released(texts, len(self._held) if is_full else self._count_safe(texts))

    def close(self) -> bytes:
        """Return the rest."""
        frames = self._released(self._texts(probe=""), len(self._held))
        rest = self._undecoded[:MAX_UNFRAMED_BYTES].decode("latin-1")
        self._undecoded.clear()
        return frames + _starred(rest).encode("latin-1")

    def _take(self, data: bytes) -> None:
        if self._decoder.fault is not None and len(self._undecoded) > MAX_UNFRAMED_BYTES:
            return
        self._undecoded += data
        start = 0
        for frame in self._decoder.feed(data):
            end = start + int.from_bytes(self._undecoded[start : start + 4], "big")
            self._held.append(_read(bytes(self._undecoded[start:end]), frame))
            start = end
        del self._undecoded[:start]

    def _texts(self, *, probe: str) -> list[_Text]:
        """Return the texts that the held frames have pieces of."""
        indexes: dict[Source, list[int]] = {}
        for index, one in enumerate(self._held):
            if one.source is not None:
                indexes.setdefault(one.source, []).append(index)
        return [self._text(source, found, probe) for source, found in indexes.items()]

    def _text(self, source: Source, indexes: Sequence[int], probe: str) -> _Text:
        before = self._before.get(source, "")
        pieces = [self._held[index].piece for index in indexes]
        joined = "".join((before, *pieces))
        return _Text(
            source=source,
            indexes=indexes,
            joined=joined,
            bounds=list(accumulate(map(len, pieces), initial=len(before))),
            secrets=secret_spans(joined + probe),
        )

    def _count_safe(self, texts: Sequence[_Text]) -> int:
        """Count the held frames that can be handed on without taking a secret apart."""
        count = len(self._held)
        ranges = [found for text in texts for found in text.ranges(count)]
        for first, last in sorted(ranges, key=lambda found: found[1], reverse=True):
            if first < count <= last:
                count = first
        return count

    def _released(self, texts: Sequence[_Text], count: int) -> bytes:
        pieces = [one.piece for one in self._held]
        for text in texts:
            for index, (start, end) in zip(text.indexes, pairwise(text.bounds), strict=True):
                pieces[index] = _cut_out(text.joined, text.secrets, start, end)
            self._remember(text, count)
        released = [self._written(self._held[index], pieces[index]) for index in range(count)]
        del self._held[:count]
        return b"".join(released)

    def _remember(self, text: _Text, count: int) -> None:
        """Keep of what is handed on what decides whether the next piece is a secret."""
        end = text.bounds[bisect_left(text.indexes, count)]
        start = next((start for start, stop in text.secrets if start < end <= stop), end)
        # Inside a long secret, any of its letters can stand for all of them.
        end = min(end, start + CONTEXT_CHARACTERS)
        self._before.pop(text.source, None)  # The last used is the last to be forgotten.
        self._before[text.source] = text.joined[max(0, start - CONTEXT_CHARACTERS) : end]
        if len(self._before) > MAX_CONTEXTS:
            del self._before[next(iter(self._before))]

    def _written(self, one: _Held, piece: str) -> bytes:
        """Write a frame without its secrets: as it came, if there are none."""
        headers, payload = one.frame.headers, one.frame.payload
        if ":error-message" in headers:
            message = without_identities(redact(str(headers[":error-message"])))
            headers = {**headers, ":error-message": message}
        if one.members is None:
            payload = _starred(payload.decode("latin-1")).encode("latin-1")
        else:
            payload = self._payload(one, one.members, piece)
        is_same = payload == one.frame.payload and headers == one.frame.headers
        return one.raw if is_same else encode_frame(headers, payload)

    def _payload(self, one: _Held, members: dict[str, Any], piece: str) -> bytes:
        # Most frames have the same members but for their piece, so those are looked at once.
        clean = members if members == self._clean else redact_json(abridged(members))
        if clean == members:
            self._clean = members
            if piece == one.piece:
                return one.frame.payload
        if one.source is not None:
            clean = {**clean, _PIECES[one.source[0]]: piece}
        written = json.dumps(clean, ensure_ascii=False, separators=(",", ":"))
        return written.encode(errors="backslashreplace")


def _beginning(text: str) -> Iterator[Span]:
    """Yield where the first letters of a secret may be, at the end of a text."""
    if beginning := _BEGINNING.search(text):
        yield beginning.start(), len(text) + 1
    if (start := beginning_of_secret(text)) is not None:
        yield start, len(text) + 1


def _read(raw: bytes, frame: Frame) -> _Held:
    members, source, piece = _members(frame.payload), None, ""
    event = frame.headers.get(":event-type")
    if members is not None and isinstance(event, str) and event in _PIECES:
        text = members.get(_PIECES[event])
        if isinstance(text, str):
            source, piece = (event, str(members.get("toolUseId", ""))), text
            members[_PIECES[event]] = ""
    return _Held(raw=raw, frame=frame, members=members, source=source, piece=piece)


def _members(payload: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def _cut_out(text: str, spans: Sequence[Span], start: int, end: int) -> str:
    """Return a piece of a text without its secrets, each marked where it begins."""
    kept: list[str] = []
    for secret_start, secret_end in spans:
        if secret_end <= start or secret_start >= end:
            continue
        kept.append(text[start : max(start, secret_start)])
        if secret_start >= start:
            kept.append(HIDDEN)
        start = min(secret_end, end)
    return "".join((*kept, text[start:end]))


def _starred(text: str) -> str:
    pieces: list[str] = []
    kept_to = 0
    for start, end in secret_spans(text):
        pieces += (text[kept_to:start], "*" * (end - start))
        kept_to = end
    return without_identities("".join((*pieces, text[kept_to:])))
