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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

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

Source: TypeAlias = tuple[str, str]
"""A text of a response: the event that carries it, and the id of a tool use or ""."""


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


@dataclass(slots=True)
class _Framed:
    """A frame of a response with its parsed payload."""

    raw: bytes
    frame: Frame
    members: dict[str, Any] | None = None
    """The payload without the piece of text; None if the payload is not a JSON object."""
    source: Source | None = None
    """The text that its piece belongs to; None if it has no piece."""
    piece: str = ""
    clean_piece: str = ""


def redacted_stream(
    data: bytes, decoder: FrameDecoder | None = None, *, is_cut: bool = False
) -> bytes:
    """Return the bytes of a response without secrets.

    Args:
        data: The bytes as they were received.
        decoder: A new one; by default with the usual limits.
        is_cut: Whether more bytes were received, so that a secret may begin at the end.
    """
    frames, rest = split_frames(data, decoder or FrameDecoder())
    framed = [_read(raw, frame) for raw, frame in frames]
    _redact_pieces(framed, is_cut=is_cut)
    written: list[bytes] = []
    known_clean: dict[str, Any] = {}
    for one in framed:
        headers, payload = one.frame.headers, one.frame.payload
        if ":error-message" in headers:
            headers = {**headers, ":error-message": redacted_text(str(headers[":error-message"]))}
        if one.members is None:
            payload = _starred(payload)
        else:
            # Apart from the piece, most frames have the same members, which are searched once.
            members = one.members
            clean = members if members == known_clean else redacted_json(members)
            if clean == members:
                known_clean = members
            if clean != members or one.clean_piece != one.piece:
                if one.source is not None:
                    clean = {**clean, _PIECES[one.source[0]]: one.clean_piece}
                text = json.dumps(clean, ensure_ascii=False, separators=(",", ":"))
                payload = text.encode(errors="backslashreplace")
        is_same = payload == one.frame.payload and headers == one.frame.headers
        written.append(one.raw if is_same else encode_frame(headers, payload))
    if not (is_cut and framed):  # If it is cut, the rest is only the beginning of a frame.
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


def _read(raw: bytes, frame: Frame) -> _Framed:
    framed = _Framed(raw, frame)
    try:
        document = json.loads(frame.payload)
    except (ValueError, RecursionError):
        return framed
    if isinstance(document, dict):
        framed.members = members = cast("dict[str, Any]", document)
        event = str(frame.headers.get(":event-type"))
        text = members.get(_PIECES[event]) if event in _PIECES else None
        if isinstance(text, str):
            framed.source = (event, str(members.get("toolUseId", "")))
            framed.piece = framed.clean_piece = text
            members[_PIECES[event]] = ""
    return framed


def _redact_pieces(framed: Sequence[_Framed], *, is_cut: bool) -> None:
    """Remove the secrets of each text from its pieces, and mark where each one began."""
    texts: dict[Source, list[_Framed]] = {}
    for one in framed:
        if one.source is not None:
            texts.setdefault(one.source, []).append(one)
    for pieces in texts.values():
        joined = "".join(one.piece for one in pieces)
        spans = secret_spans(joined + _CUT_JWT if is_cut else joined)
        if is_cut:
            spans = [*spans, (max(0, len(joined) - TAIL_CHARACTERS), len(joined))]
        if not spans:
            continue
        is_hidden = bytearray(len(joined))
        for start, end in spans:
            is_hidden[start:end] = b"\1" * len(is_hidden[start:end])
        start = 0
        for one in pieces:
            end = start + len(one.piece)
            shown: list[str] = []
            for run in _RUN.finditer(is_hidden, start, end):
                if not is_hidden[run.start()]:
                    shown.append(joined[run.start() : run.end()])
                elif run.start() == 0 or not is_hidden[run.start() - 1]:  # Else it began before.
                    shown.append(HIDDEN)
            one.clean_piece = "".join(shown)
            start = end


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
