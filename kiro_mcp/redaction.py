"""Hides secrets in logs, errors and captures. No I/O.

It finds a secret in three ways: by its value, by its shape, or by the name before it::

    values given to `remember_secret`  also in the spelling of URLs and JSON
    aoa… aor… ksk_… eyJ….….…          by shape, anywhere in a text
    "refreshToken": "…"  device_code=…  Authorization: Bearer …    by name, with any value

The first way is needed because services and libraries quote what they receive. AWS, for example,
answers a malformed Authorization header with the header itself. So each object that holds a secret
(settings, credentials, tokens) calls `remember_secret` when it is created. The list is global,
because an error can be raised anywhere, and its text may contain any secret in use.

Observed: access and refresh tokens begin with `aoa` and `aor` and contain one colon; API keys
begin with `ksk_`; the tokens of an organisation's own sign-in are JWTs (RFC 7519).
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, cast
from urllib.parse import quote, quote_plus

HIDDEN: Final = "[redacted]"

WINDOW_CHARACTERS: Final = 32 * 1024
"""How much of a text is searched at once. During a search no other thread can run."""
OVERLAP_CHARACTERS: Final = 4 * 1024
"""How much of a window is searched again with the next one: a secret may begin there."""

Span: TypeAlias = tuple[int, int]

_NAMES: Final = "|".join(
    (
        r"(?:access|refresh|id|session|bearer)[_-]?token",
        r"client[_-]?secret",
        r"device[_-]?code",
        r"code[_-]?verifier",
        r"api[_-]?key",
        r"(?:kiro_(?:mcp_)?)?http[_-]?token",
        r"password",
    )
)
_SHAPES: Final = (
    # Access and refresh tokens, and API keys.
    re.compile(r"\bao[ar][A-Za-z0-9+/_=.-]{8,}(?::[A-Za-z0-9+/_=.-]+)*"),
    re.compile(r"\bksk_[A-Za-z0-9_-]+"),
)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{4,}+(?P<rest>(?:\.[A-Za-z0-9_-]*+){2,4})?")
"""A match with a `rest` is a JWT, signed or encrypted. A match without it is text that only begins
like a JWT: the search skips it, so that many such beginnings do not make it quadratic."""
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
    \b(?:Bearer | Basic(?=\s+\S*(?-i:[0-9=]|[a-z][A-Z])))    # not "a basic understanding"
    \s+(?P<secret>[A-Za-z0-9+/_=.:~-]{6,})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MASKED_FROM: Final = 16
"""The shortest secret whose last four characters are shown. They would be too much of a shorter
one."""

MIN_SECRET_CHARACTERS: Final = 6
"""The shortest secret that is remembered. A shorter one could be part of an ordinary word."""
MAX_REMEMBERED: Final = 256
"""How many lasting secrets are remembered, and how many passing ones."""
_HEAD_CHARACTERS: Final = 16
"""How many characters identify a long secret, because a quotation of it may be cut off."""

_HINTS: Final = ("token", "secret", "code", "key", "password")
"""Each of the names contains one of these. To look for these first is ten times faster."""


_lasting: Final[dict[str, tuple[str, ...]]] = {}
_passing: Final[dict[str, tuple[str, ...]]] = {}
"""The secrets in use, each with its spellings. The secrets of settings last as long as the
process. Tokens change, so the one that was used longest ago is forgotten first."""


def remember_secret(secret: str, *, is_lasting: bool = False) -> None:
    """Hide a secret from now on, also where a service or a library quotes it.

    Args:
        secret: The secret.
        is_lasting: Whether it is in use as long as the process runs.
    """
    known = _lasting if is_lasting else _passing
    spellings = known.pop(secret, None)
    if spellings is None:
        if len(secret) < MIN_SECRET_CHARACTERS:
            return
        written = json.dumps(secret)[1:-1]
        raw = secret.encode(errors="surrogatepass")  # The environment may hold any bytes.
        found = (secret, quote(raw), quote(raw, safe=""), quote_plus(raw), written)
        spellings = tuple(dict.fromkeys((*found, written.replace("/", "\\/"))))
    known[secret] = spellings
    if len(known) > MAX_REMEMBERED:
        known.pop(next(iter(known)), None)


def forget_secrets() -> None:
    """Forget all remembered secrets."""
    _lasting.clear()
    _passing.clear()


def redact(text: str) -> str:
    """Return the text with each secret replaced by `[redacted]`."""
    return replace_spans(text, secret_spans(text))


def redact_values(text: str) -> str:
    """Return the text without the secrets that are known by value or by shape.

    For our own sentences, which may name a setting without a secret: "api_key: it must be …".
    """
    return replace_spans(text, spans_in_windows(text, _value_spans))


def replace_spans(
    text: str, spans: list[Span], replacement: Callable[[int], str] = lambda _length: HIDDEN
) -> str:
    """Return the text with a replacement, made from the length, for each span."""
    pieces: list[str] = []
    end = 0
    for start, stop in spans:
        pieces += (text[end:start], replacement(stop - start))
        end = stop
    return "".join((*pieces, text[end:]))


def secret_spans(text: str) -> list[Span]:
    """Return the starts and ends of all secrets, in order and without overlaps."""
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
        if start and found and found[0][0] == 0:  # Probably the end of a word that began before.
            del found[0]
        if start + size >= len(text):
            return _merge([*spans, *((start + first, start + last) for first, last in found)])
        # A secret at the end of the window may continue, so it is searched again with more text.
        is_open = bool(found) and found[-1][1] == size
        known = found[:-1] if is_open else found
        step = (found[-1][0] if is_open else size) - OVERLAP_CHARACTERS
        if step <= 0:
            size *= 2
            continue
        spans += [(start + first, start + last) for first, last in known]
        start, size = start + step, WINDOW_CHARACTERS
    return _merge(spans)


def _literal_spans(text: str) -> Iterator[Span]:
    spellings = [*_lasting.values(), *_passing.values()]
    for literal in itertools.chain.from_iterable(spellings):
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
    return _merge(spans)


def _spans(text: str) -> list[Span]:
    spans = _value_spans(text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        spans += [match.span("secret") for match in _QUOTED.finditer(text)]
        spans += [
            match.span("secret")
            for match in _BARE.finditer(text)
            if not match["secret"].startswith(HIDDEN[:-1])
        ]
    return _merge(spans)


def redact_json(value: Any, clean: Callable[[str], str] = redact) -> Any:
    """Return a JSON value with each secret replaced: texts by `clean`, members by name."""
    match value:
        case str():
            return clean(value)
        case list():
            return [redact_json(item, clean) for item in cast("list[Any]", value)]
        case dict():
            members = cast("dict[str, Any]", value)
            return {
                redact(name): HIDDEN if _is_secret(name, inner) else redact_json(inner, clean)
                for name, inner in members.items()
            }
        case _:
            return value


def _is_secret(name: str, value: Any) -> bool:
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return is_plain and value != "" and _NAME.fullmatch(name) is not None


def _merge(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif start < stop:
            merged.append((start, stop))
    return merged


def mask(secret: str) -> str:
    """Return the kind and the last four characters of a secret: enough to recognize it."""
    kind = secret[:4] if secret.startswith("ksk_") else ""
    return f"{kind}…{secret[-4:]}" if len(secret) >= _MASKED_FROM else "…"


def mask_address(address: str) -> str:
    """Return the first letter and the domain of an e-mail address: enough to recognize it."""
    name, at, domain = address.partition("@")
    return f"{name[:1]}…@{domain}" if at and name else "…"
