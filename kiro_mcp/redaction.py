"""The one redactor: no secret leaves through a log, an error or a capture. Pure.

Two nets, because a secret is known either by its own shape or by the name beside it::

    aoa… aor… ksk_… eyJ….….…          by shape, wherever they stand
    "refreshToken": "…"  device_code=…  Authorization: Bearer …    by name, whatever they hold

Observed: access and refresh tokens begin with `aoa` and `aor` and hold one colon; API keys begin
with `ksk_`; the tokens of an organisation's own sign-in are JWTs (RFC 7519).
"""

import re
from typing import Any, Final, cast

HIDDEN: Final = "[redacted]"

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
_SHAPES: Final = re.compile(
    r"""
    \bao[ar][A-Za-z0-9+/_=.-]{8,}(?::[A-Za-z0-9+/_=.-]+)*    # access and refresh tokens
    | \bksk_[A-Za-z0-9_-]+                                   # API keys
    | \beyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){2,4}        # JWT, signed or encrypted
    """,
    re.VERBOSE,
)
_NAME: Final = re.compile(_NAMES, re.IGNORECASE)
_QUOTED: Final = re.compile(
    rf"""(?:{_NAMES})\\*["']?\s*[:=]\s*(\\*)(["'])(?P<secret>(?:(?!\1\2).)*)""",
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


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Return where secrets are, as starts and ends in order, without overlaps."""
    spans = [match.span() for match in _SHAPES.finditer(text)]
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


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
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
