"""What a capture does without: the bytes of pictures, and who somebody is. Pure.

Pictures are large and private, and letters of base64 can look like a token by chance. Of an
e-mail address and of an account's number each letter becomes a star, so that lengths stay.
"""

import re
from typing import Any, Final, cast

from kiro_mcp.redaction import Span, spans_in_windows

MIN_CHARACTERS: Final = 1024
"""Shorter texts of base64 are left in."""

_BASE64: Final = re.compile(r"(?P<head>data:[^,]{0,100},)?[A-Za-z0-9+/_\s-]++=*+\s*+")
_IDENTITY: Final = re.compile(
    r"""
    (?<![\w.%+-]) [\w.%+-]{1,64} (?=@[A-Za-z0-9.-]{1,250}\.[A-Za-z]{2})    # me@example.com
    | (?<=:) [0-9]{12} (?=:)                                              # arn:…:111122223333:…
    """,
    re.VERBOSE,
)


def without_identities(text: str) -> str:
    """Return a text with the names in e-mail addresses and the accounts in ARNs starred."""
    pieces: list[str] = []
    kept_to = 0
    for start, end in spans_in_windows(text, _identities):
        pieces += (text[kept_to:start], "*" * (end - start))
        kept_to = end
    return "".join((*pieces, text[kept_to:]))


def _identities(text: str) -> list[Span]:
    return [match.span() for match in _IDENTITY.finditer(text)]


def abridged(value: Any) -> Any:
    """Return a JSON value with identities starred and long texts of base64 counted."""
    match value:
        case str():
            return _abridged_text(value)
        case list():
            return [abridged(item) for item in cast("list[Any]", value)]
        case dict():
            members = cast("dict[str, Any]", value)
            return {name: abridged(inner) for name, inner in members.items()}
        case _:
            return value


def _abridged_text(text: str) -> str:
    is_long = len(text) >= MIN_CHARACTERS and " " not in text[:MIN_CHARACTERS]
    if is_long and (found := _BASE64.fullmatch(text)):
        return f"{found['head'] or ''}[{len(text)} characters]"
    return without_identities(text)
