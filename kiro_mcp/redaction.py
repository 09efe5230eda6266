"""The one redactor: no secret leaves through a log, an error or a capture. Pure.

Two nets, because a secret is known either by its own shape or by the name beside it::

    aoa… aor… ksk_… eyJ….….…          by shape, wherever they stand
    "refreshToken": "…"  device_code=…  Authorization: Bearer …    by name, whatever they hold

Observed: access and refresh tokens begin with `aoa` and `aor` and hold one colon; API keys begin
with `ksk_`; the tokens of an organisation's own sign-in are JWTs (RFC 7519).
"""

import re
from typing import Final

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
_QUOTED: Final = re.compile(
    rf"""((?:{_NAMES})\\*["']?\s*[:=]\s*)(\\*)(["'])((?:(?!\2\3).)*)(?:\2\3)?""",
    re.IGNORECASE | re.DOTALL,
)
_BARE: Final = re.compile(rf"""((?:{_NAMES})\s*[:=]\s*)([^\s"'\\&,;}}\]]+)""", re.IGNORECASE)
_SCHEME: Final = re.compile(r"\b(Bearer|Basic)(\s+)[A-Za-z0-9+/_=.:~-]{6,}", re.IGNORECASE)
_MASKED_FROM: Final = 16
"""Shorter secrets are not shown at all: four characters of one would be most of it."""


def redact(text: str) -> str:
    """Return the text with every secret in it replaced by a mark."""
    text = _SHAPES.sub(HIDDEN, text)
    text = _SCHEME.sub(rf"\1\2{HIDDEN}", text)
    text = _QUOTED.sub(rf"\1\2\3{HIDDEN}\2\3", text)
    return _BARE.sub(_hide_bare, text)


def _hide_bare(match: re.Match[str]) -> str:
    return match[0] if match[2].startswith(HIDDEN[:-1]) else f"{match[1]}{HIDDEN}"


def mask(secret: str) -> str:
    """Show enough of a secret to tell two apart: its kind and its last four characters."""
    kind = secret[:4] if secret.startswith("ksk_") else ""
    return f"{kind}…{secret[-4:]}" if len(secret) >= _MASKED_FROM else "…"


def mask_address(address: str) -> str:
    """Show enough of an e-mail address to tell two apart: its first letter and its domain."""
    name, at, domain = address.partition("@")
    return f"{name[:1]}…@{domain}" if at and name else "…"
