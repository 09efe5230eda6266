"""Removes secrets and identities from the data of a capture. Pure.

* Headers: of a request, only the values of known headers are shown; of a response, all but cookies
  and the like.
* JSON: secrets are replaced, names in e-mail addresses and account numbers become stars, and
  long base64, such as a picture, becomes its length.
* The bytes of a response: a model's text comes in pieces of a few letters, so a secret in it is
  spread over many frames, and each frame has a checksum. So the pieces are joined, the secrets are
  found in the whole text, and the frames with parts of one are encoded again. All other frames
  stay as they were received. In bytes that are not a frame, such as the body of a refusal, secrets
  become stars, so that the length stays the same. Identities in the text of an answer stay,
  because the user has to decide about those.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from kiro_mcp.redaction import (
    HIDDEN,
    Span,
    redact,
    redact_json,
    replace_spans,
    secret_spans,
    spans_in_windows,
)
from kiro_mcp.wire.eventstream import Frame, FrameDecoder, encode_frame

MIN_BASE64_CHARACTERS: Final = 1024
"""Shorter base64 is kept."""
MAX_UNFRAMED_BYTES: Final = 1024 * 1024
"""The limit of bytes that are not frames. The engine itself reads fewer."""
TAIL_CHARACTERS: Final = 256
"""How many characters are hidden at the end of a cut text: a secret may begin there."""

_SHOWN_REQUEST_HEADERS: Final = frozenset(
    (
        "accept",
        "accept-encoding",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "content-type",
        "tokentype",
        "user-agent",
        "x-amz-target",
        "x-amzn-codewhisperer-optout",
        "x-amzn-kiro-client-attribution",
        "x-amzn-kiro-agent-mode",
        "x-amzn-kiro-profile-arn",
        "x-kiro-attempt",
    )
)
"""Our own headers. Other headers are the bearer token, or come from KIRO_MCP_EXTRA_HEADERS and may
contain a proxy's password."""

_SECRET_HEADER_WORDS: Final = ("auth", "cookie", "key", "password", "secret", "token")

_BASE64: Final = re.compile(r"(?P<head>data:[^,]{0,100},)?[A-Za-z0-9+/_\s-]++=*+\s*+")
_IDENTITY: Final = re.compile(
    r"""
    (?<![\w.%+-]) [\w.%+-]{1,64} (?=@[A-Za-z0-9.-]{1,250}\.[A-Za-z]{2})    # me@example.com
    | (?<=:) [0-9]{12} (?=:)                                              # arn:…:111122223333:…
    """,
    re.VERBOSE,
)

_PIECES: Final = {
    "assistantResponseEvent": "content",
    "reasoningContentEvent": "text",
    "toolUseEvent": "input",
}
"""The events that carry pieces of a longer text, and the member with the piece."""

_RUN: Final = re.compile(rb"\x00+|\x01+")
"""Characters of a text that are all shown, or all hidden."""

_CUT_JWT: Final = "AAAA.A.A"
"""Completes a JWT that was cut, so that it is recognized."""


def shown_request_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request; the values of unknown headers are hidden."""
    return {
        name: redact(value) if name.lower() in _SHOWN_REQUEST_HEADERS else HIDDEN
        for name, value in headers.items()
    }


def shown_response_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a response; cookies and the like are hidden."""
    return {
        name: HIDDEN
        if any(word in name.lower() for word in _SECRET_HEADER_WORDS)
        else redact(value)
        for name, value in headers.items()
    }


def redacted_text(text: str) -> str:
    """Return a text without secrets; identities become stars."""
    return _without_identities(redact(text))


def redacted_json(value: Any) -> Any:
    """Return a JSON value without secrets and long base64; identities become stars."""
    return redact_json(value, lambda text: redacted_text(_abridged(text)))


def _abridged(text: str) -> str:
    if len(text) >= MIN_BASE64_CHARACTERS and " " not in text[:MIN_BASE64_CHARACTERS]:
        found = _BASE64.fullmatch(text)
        if found is not None:
            return f"{found['head'] or ''}[{len(text)} characters]"
    return text


# --- the bytes of a response --------------------------------------------------------------


def redacted_stream(
    data: bytes, decoder: FrameDecoder | None = None, *, is_cut: bool = False
) -> bytes:
    """Return the bytes of a response without secrets.

    If it is cut, because more bytes were received, a secret may begin at its end. The decoder must
    be new; the default one has the usual limits.
    """
    frames, rest = split_frames(data, decoder or FrameDecoder())
    documents = [_object(frame.payload) for _, frame in frames]
    texts: dict[tuple[str, str], list[int]] = {}
    """Which frames carry each text, by the member with its pieces and the id of a tool use."""
    for index, document in enumerate(documents):
        member = _PIECES.get(str(frames[index][1].headers.get(":event-type")), "")
        if member and isinstance(document.get(member), str):
            texts.setdefault((member, str(document.get("toolUseId", ""))), []).append(index)
    pieces: dict[int, dict[str, str]] = {}
    """The member with the piece of a frame, without secrets."""
    for (member, _), indices in texts.items():
        cleaned = _redacted_pieces([documents[index][member] for index in indices], is_cut=is_cut)
        pieces |= {index: {member: piece} for index, piece in zip(indices, cleaned, strict=True)}
    written: list[bytes] = []
    known_clean: dict[str, Any] = {}
    for index, (raw, frame) in enumerate(frames):
        headers, payload, document = frame.headers, frame.payload, documents[index]
        if ":error-message" in headers:
            headers = {**headers, ":error-message": redacted_text(str(headers[":error-message"]))}
        if document:
            # Apart from the piece, most frames have the same members, which are searched once.
            piece = pieces.get(index, {})
            members = document | dict.fromkeys(piece, "")
            clean = members if members == known_clean else redacted_json(members)
            if clean == members:
                known_clean = members
            clean = clean | piece
            if clean != document:
                text = json.dumps(clean, ensure_ascii=False, separators=(",", ":"))
                payload = text.encode(errors="backslashreplace")
        else:
            payload = _starred(payload)
        is_same = payload == frame.payload and headers == frame.headers
        written.append(raw if is_same else encode_frame(headers, payload))
    if not (is_cut and frames):  # If it is cut, the rest is only the beginning of a frame.
        written.append(_starred(rest)[:MAX_UNFRAMED_BYTES])
    return b"".join(written)


def split_frames(data: bytes, decoder: FrameDecoder) -> tuple[list[tuple[bytes, Frame]], bytes]:
    """Return the frames of a response, each with its bytes, and the bytes that follow them."""
    frames: list[tuple[bytes, Frame]] = []
    start = 0
    for frame in decoder.feed(data):
        end = start + int.from_bytes(data[start : start + 4], "big")
        frames.append((data[start:end], frame))
        start = end
    return frames, data[start:]


def _object(payload: bytes) -> dict[str, Any]:
    """Parse a payload; an empty object if it is not a JSON object."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


def _redacted_pieces(pieces: Sequence[str], *, is_cut: bool) -> Iterator[str]:
    """Yield the pieces of a text without its secrets, which are marked where each one began."""
    joined = "".join(pieces)
    spans = secret_spans(joined + _CUT_JWT if is_cut else joined)
    if is_cut:
        spans = [*spans, (max(0, len(joined) - TAIL_CHARACTERS), len(joined))]
    is_hidden = bytearray(len(joined))
    for start, end in spans:
        is_hidden[start:end] = b"\1" * len(is_hidden[start:end])
    end = 0
    for piece in pieces:
        start, end = end, end + len(piece)
        shown: list[str] = []
        for run in _RUN.finditer(is_hidden, start, end):
            if not is_hidden[run.start()]:
                shown.append(joined[run.start() : run.end()])
            elif run.start() == 0 or not is_hidden[run.start() - 1]:  # Else it began before.
                shown.append(HIDDEN)
        yield "".join(shown)


# --- texts --------------------------------------------------------------------------------


def _starred(data: bytes) -> bytes:
    """Return bytes of the same length, with stars for secrets and identities."""
    text = data.decode("latin-1")
    return _without_identities(_with_stars(text, secret_spans(text))).encode("latin-1")


def _without_identities(text: str) -> str:
    def identities(window: str) -> list[Span]:
        return [match.span() for match in _IDENTITY.finditer(window)]

    return _with_stars(text, spans_in_windows(text, identities))


def _with_stars(text: str, spans: list[Span]) -> str:
    return replace_spans(text, spans, lambda length: "*" * length)
