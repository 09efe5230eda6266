"""Names of tools as callers have them <-> names that the service takes.

The service takes a letter, then up to 63 letters, digits, `_` and `-`. MCP clients join server
and tool into longer names, with dots and slashes. Names are mapped once for a request and the
map goes to the reply side, so that a caller meets its own names again.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

MAX_NAME_CHARACTERS: Final = 64

LEGAL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What the service takes as the name of a tool."""

_ILLEGAL_CHARACTER: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_CHARACTERS: Final = 8


def sent_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name to one that the service takes, no two to the same.

    A name that is legal is its own; of the others each depends on those before it only, so
    that a tool added at the end changes no other.

    Returns:
        The sent name of each of the caller's names.
    """
    given = list(dict.fromkeys(names))
    taken = {name for name in given if LEGAL_NAME.fullmatch(name)}
    mapped: dict[str, str] = {}
    for name in given:
        mapped[name] = name if name in taken else _free_name(name, taken)
        taken.add(mapped[name])
    return mapped


def callers_names(sent: Mapping[str, str]) -> dict[str, str]:
    """Turn the map around: the caller's name of each sent name."""
    return {sent_name: name for name, sent_name in sent.items()}


def _free_name(name: str, taken: Collection[str]) -> str:
    plain = _ILLEGAL_CHARACTER.sub("_", name)
    plain = plain if plain[:1].isalpha() else f"t_{plain}"
    if len(plain) <= MAX_NAME_CHARACTERS and plain not in taken:
        return plain
    beginning = plain[: MAX_NAME_CHARACTERS - _HASH_CHARACTERS - 1]
    digest = hashlib.sha256(name.encode()).hexdigest()
    return next(
        candidate
        for start in range(len(digest) - _HASH_CHARACTERS)
        if (candidate := f"{beginning}_{digest[start : start + _HASH_CHARACTERS]}") not in taken
    )
