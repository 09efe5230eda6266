"""The one redactor: no secret leaves through a log, an error or a capture. Pure.

Two nets, because a secret is known either by its own shape or by the name beside it::

    aoa… aor… ksk_… eyJ….….…          by shape, wherever they stand
    "refreshToken": "…"  device_code=…  Authorization: Bearer …    by name, whatever they hold

Observed: access and refresh tokens begin with `aoa` and `aor` and hold one colon; API keys begin
with `ksk_`; the tokens of an organisation's own sign-in are JWTs (RFC 7519).
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

HIDDEN: Final = "[redacted]"

WINDOW_CHARACTERS: Final = 32 * 1024
"""How much of a text is searched at once. A search holds up every other thread of the process."""
OVERLAP_CHARACTERS: Final = 4 * 1024
"""How much of a text is searched again with what follows: a secret may begin there."""

Span: TypeAlias = tuple[int, int]

_NAMES: Final = "|".join(
    (
        r"access[_-]?token",
        r"refresh[_-]?token",
        r"id[_-]?token",
        r"session[_-]?token",
        r"bearer[_-]?token",
        r"client[_-]?secret",
        r"device[_-]?code",
        r"code[_-]?verifier",
        r"api[_-]?key",
        r"(?:kiro_(?:mcp_)?)?http[_-]?token",
        r"password",
    )
)
_SHAPES: Final = (
    re.compile(
        r"\bao[ar][A-Za-z0-9+/_=.-]{8,}(?::[A-Za-z0-9+/_=.-]+)*"
    ),  # access and refresh tokens
    re.compile(r"\bksk_[A-Za-z0-9_-]+"),  # API keys
)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{4,}+(?P<rest>(?:\.[A-Za-z0-9_-]*+){2,4})?")
"""A JWT, signed or encrypted, if it has its `rest`. What only begins like one matches, too, so that
the search goes on behind it: a text of many beginnings is read once and not once for each."""
_NAME: Final = re.compile(_NAMES, re.IGNORECASE)
_QUOTED: Final = re.compile(
    rf"""(?:{_NAMES})\\*["']?\s*[:=]\s*(\\{{0,15}})(["'])(?P<secret>(?:(?!\1\2).)*)""",
    re.IGNORECASE | re.DOTALL,
)
_BARE: Final = re.compile(
    rf"""(?:{_NAMES})\s*[:=]\s*(?P<secret>[^\s"'\\&,;}}\]]+)""", re.IGNORECASE
)
_SCHEME: Final = re.compile(
    r"""
    \b(?:Bearer | Basic(?=\s+\S*(?-i:[0-9=]|[a-z][A-Z])))    # or it is "a basic understanding"
    \s+(?P<secret>[A-Za-z0-9+/_=.:~-]{6,})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MASKED_FROM: Final = 16
"""Shorter secrets are not shown at all: four characters of one would be most of it."""

_HINTS: Final = ("token", "secret", "code", "key", "password")
"""Every name holds one of these. Looking for them first is ten times as quick."""


def redact(text: str) -> str:
    """Return the text with every secret in it replaced by a mark."""
    pieces: list[str] = []
    end = 0
    for start, stop in secret_spans(text):
        pieces += (text[end:start], HIDDEN)
        end = stop
    return "".join((*pieces, text[end:]))


def secret_spans(text: str) -> list[Span]:
    """Return where secrets are, as starts and ends in order, without overlaps."""
    return spans_in_windows(text, _spans)


def spans_in_windows(text: str, find: Callable[[str], list[Span]]) -> list[Span]:
    """Search a text window by window, so that other threads can run in between.

    Args:
        text: Any text.
        find: Returns the spans in one window, in order.
    """
    spans: list[Span] = []
    start, size = 0, WINDOW_CHARACTERS
    while start < len(text):
        found = find(text[start : start + size])
        if start and found and found[0][0] == 0:  # The end of a word only looks like its beginning.
            del found[0]
        if start + size >= len(text):
            return _merged([*spans, *((start + first, start + last) for first, last in found)])
        # What reaches the end of the window may go on behind it, and is searched again with it.
        is_open = bool(found) and found[-1][1] == size
        known = found[:-1] if is_open else found
        step = (found[-1][0] if is_open else size) - OVERLAP_CHARACTERS
        if step <= 0:
            size *= 2
            continue
        spans += [(start + first, start + last) for first, last in known]
        start, size = start + step, WINDOW_CHARACTERS
    return _merged(spans)


def _spans(text: str) -> list[Span]:
    spans = [match.span() for shape in _SHAPES for match in shape.finditer(text)]
    spans += [match.span() for match in _JWT.finditer(text) if match["rest"] is not None]
    spans += [match.span("secret") for match in _SCHEME.finditer(text)]
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        spans += [match.span("secret") for match in _QUOTED.finditer(text)]
        spans += [match.span("secret") for match in _BARE.finditer(text) if not _is_hidden(match)]
    return _merged(spans)


def redact_json(value: Any) -> Any:
    """Return a JSON value with every secret in it replaced: texts by shape, members by name."""
    match value:
        case str():
            return redact(value)
        case list():
            return [redact_json(item) for item in cast("list[Any]", value)]
        case dict():
            members = cast("dict[str, Any]", value)
            return {redact(name): _redacted(name, inner) for name, inner in members.items()}
        case _:
            return value


def _redacted(name: str, value: Any) -> Any:
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    if is_plain and value != "" and _NAME.fullmatch(name):
        return HIDDEN
    return redact_json(value)


def _is_hidden(match: re.Match[str]) -> bool:
    return match["secret"].startswith(HIDDEN[:-1])


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif start < stop:
            merged.append((start, stop))
    return merged


def mask(secret: str) -> str:
    """Show enough of a secret to tell two apart: its kind and its last four characters."""
    kind = secret[:4] if secret.startswith("ksk_") else ""
    return f"{kind}…{secret[-4:]}" if len(secret) >= _MASKED_FROM else "…"


def mask_address(address: str) -> str:
    """Show enough of an e-mail address to tell two apart: its first letter and its domain."""
    name, at, domain = address.partition("@")
    return f"{name[:1]}…@{domain}" if at and name else "…"
