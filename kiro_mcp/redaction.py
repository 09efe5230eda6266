"""The one redactor: no secret leaves through a log, an error or a capture. No I/O.

Three nets, because a secret is known by itself, by its shape, or by the name beside it::

    what `remember_secret` was given   as it is, and as URLs and JSON write it
    aoa… aor… ksk_… eyJ….….…          by shape, wherever they stand
    "refreshToken": "…"  device_code=…  Authorization: Bearer …    by name, whatever they hold

The first net matters because services and libraries quote what they were sent: AWS, for example,
answers a malformed Authorization header with the header itself. So each value that holds a secret
(settings, credentials, tokens) remembers it here when it is made. The list belongs to the process:
an error can be raised anywhere, and each one must know every secret in use.

Observed: access and refresh tokens begin with `aoa` and `aor` and hold one colon; API keys begin
with `ksk_`; the tokens of an organisation's own sign-in are JWTs (RFC 7519).
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, cast
from urllib.parse import quote, quote_plus

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

MIN_SECRET_CHARACTERS: Final = 6
"""Shorter ones are not remembered: hiding them would hide parts of ordinary words."""
MAX_REMEMBERED: Final = 256
"""How many secrets are remembered, of those that stay and of those that change, each."""
_HEAD_CHARACTERS: Final = 16
"""So much of a long secret is enough to know it by: what quotes one may have cut it off."""

_HINTS: Final = ("token", "secret", "code", "key", "password")
"""Every name holds one of these. Looking for them first is ten times as quick."""


_lasting: Final[dict[str, tuple[str, ...]]] = {}
_passing: Final[dict[str, tuple[str, ...]]] = {}
"""The secrets in use, each with its spellings. Those of settings last as long as the process;
tokens come and go, and the one that was used longest ago is forgotten first."""


def remember_secret(secret: str, *, is_lasting: bool = False) -> None:
    """Hide a secret from now on, wherever it is quoted."""
    known = _lasting if is_lasting else _passing
    spellings = known.pop(secret, None)
    if spellings is None:
        if len(secret) < MIN_SECRET_CHARACTERS:
            return
        written = json.dumps(secret)[1:-1]
        found = (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), written)
        spellings = tuple(dict.fromkeys((*found, written.replace("/", "\\/"))))
    known[secret] = spellings
    if len(known) > MAX_REMEMBERED:
        known.pop(next(iter(known)), None)


def forget_secrets() -> None:
    """Hide no remembered secret any more."""
    _lasting.clear()
    _passing.clear()


def redact(text: str) -> str:
    """Return the text with every secret in it replaced by a mark."""
    return _hidden(text, secret_spans(text))


def redact_values(text: str) -> str:
    """Return the text without the secrets that are known by themselves or by their shape.

    For sentences of our own, which may name a setting and go on: "api_key: it must be …".
    """
    return _hidden(text, spans_in_windows(text, _value_spans))


def _hidden(text: str, spans: list[Span]) -> str:
    pieces: list[str] = []
    end = 0
    for start, stop in spans:
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


def beginning_of_secret(text: str) -> int | None:
    """Return where a remembered secret may begin at the end of a text, to go on behind it."""
    found = [
        start
        for literal in _literals()
        for start in _ends_like(text, literal)
        if literal.startswith(text[start:])
    ]
    return min(found, default=None)


def _ends_like(text: str, literal: str) -> Iterator[int]:
    start = text.find(literal[0], max(0, len(text) - len(literal) + 1))
    while start >= 0:
        yield start
        start = text.find(literal[0], start + 1)


def _literals() -> Iterator[str]:
    for known in (_lasting, _passing):
        for spellings in tuple(known.values()):
            yield from spellings


def _literal_spans(text: str) -> Iterator[Span]:
    for literal in _literals():
        head = literal[:_HEAD_CHARACTERS] if len(literal) >= 2 * _HEAD_CHARACTERS else literal
        start = text.find(head)
        while start >= 0:
            end = start + len(head)
            if text.startswith(literal, start):
                end = start + len(literal)
            while end < len(text) and text[end : end + 1] == literal[end - start : end - start + 1]:
                end += 1
            yield start, end
            start = text.find(head, end)


def _value_spans(text: str) -> list[Span]:
    spans = [*_literal_spans(text)]
    spans += [match.span() for shape in _SHAPES for match in shape.finditer(text)]
    spans += [match.span() for match in _JWT.finditer(text) if match["rest"] is not None]
    spans += [match.span("secret") for match in _SCHEME.finditer(text)]
    return _merged(spans)


def _spans(text: str) -> list[Span]:
    spans = _value_spans(text)
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
