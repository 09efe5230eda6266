"""Parses lines of JSON with tens of megabytes in a thread, while other threads run.

A parser in C lets no other thread run until it is done, and neither does a regular expression. So
long texts, such as images, are cut out first, and the rest goes to the parser that blocks others
least. Escapes of lone surrogates, which strict parsers refuse, are replaced.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, cast

from pydantic_core import from_json

from kiro_mcp.wire.json_values import mend_surrogates

MAX_COMMAS: Final = 20_000
"""How many commas and escapes JSON may have to be parsed in one go, which then takes 20 ms. The
commas tell how many values there are; long texts cost little."""
LONG_TEXT: Final = 256 * 1024
"""Texts with more characters are cut out before large JSON is parsed."""

_MARKS: Final = tuple(b"cut%d:" % number for number in range(10))
"""Beginnings of the marks that replace long texts. The one used does not occur in the JSON."""
_MARK: Final = re.compile(r"cut\d:\d+\.")
_WINDOW_CHARACTERS: Final = 1024 * 1024
"""How much is searched at once."""
_ESCAPE: Final = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""An escape in JSON: of a whole pair, of a lone half, or of anything else."""


def cut_long_texts(
    line: bytes | bytearray, long_text: int = LONG_TEXT
) -> tuple[bytes | bytearray, dict[str, str]]:
    """Replace long texts in JSON by marks; return the JSON, and the texts by mark.

    Only texts without escapes are cut out. Control characters in them are accepted, although JSON
    forbids them.
    """
    pieces: list[bytes] = []
    cut: list[str] = []
    done = end = 0
    for _ in range(MAX_COMMAS):
        start = line.find(b'"', end)
        end = line.find(b'"', start + 1) if start >= 0 else -1
        while end > 0 and _is_escaped(line, end):
            end = line.find(b'"', end + 1)
        if end < 0:
            break
        if end - start > long_text and line.find(b"\\", start, end) < 0:
            pieces.append(bytes(line[done : start + 1]))
            cut.append(line[start + 1 : end].decode(errors="replace"))
            done = end
        end += 1
    pieces.append(bytes(line[done:]))
    rest = b"".join(pieces)
    mark = next((mark for mark in _MARKS if mark not in rest), b"")
    if not cut or not mark:
        return line, {}
    marks = [b"%s%d." % (mark, number) for number in range(len(cut))]
    marked = b"".join(piece + after for piece, after in zip(pieces, [*marks, b""], strict=True))
    return marked, {one.decode(): text for one, text in zip(marks, cut, strict=True)}


def _is_escaped(line: bytes | bytearray, position: int) -> bool:
    """Whether an odd number of backslashes stands before a position."""
    before = position
    while line[before - 1] == 0x5C:
        before -= 1
    return (position - before) % 2 == 1


def load_large_json(text: str, cut: Mapping[str, str] | None = None) -> Any:
    """Parse large JSON. Halves of surrogate pairs become U+FFFD.

    Args:
        text: The JSON.
        cut: The texts that `cut_long_texts` replaced by marks, by their marks.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It nests too deeply.
    """
    if not cut:
        return _parse(text)
    marks = 0

    def put_back(found: str) -> str:
        nonlocal marks
        marks += found in cut
        return cut.get(found, found)

    value = _map_texts(_parse(text), put_back)
    if marks > len(cut):  # A text became a mark when its escapes were read.
        return _parse(_MARK.sub(lambda mark: cut.get(mark[0], mark[0]), text))
    return value


def _parse(text: str) -> Any:
    # The fastest parser is slow with escapes, such as 4 MB of emoji as JavaScript's ASCII.
    if text.count(",") + text.count("\\") <= MAX_COMMAS:
        with suppress(ValueError):  # Half surrogate pairs, deep nesting.
            return from_json(text)
    # This one calls a Python function for each number and object, and other threads run meanwhile.
    # Only a list that contains just texts and lists blocks them, by about 10 ms per megabyte.
    value = json.loads(
        text,
        object_hook=lambda members: members,
        parse_int=lambda digits: int(digits),
        parse_float=lambda digits: float(digits),
    )
    return _map_texts(value, mend_surrogates) if "\\ud" in text or "\\uD" in text else value


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of parsed JSON with each text changed, the names of members included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(item, change) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {change(name): _map_texts(member, change) for name, member in members.items()}
    return value


def mend_escaped_surrogates(json_text: str) -> str:
    """Replace escapes of lone halves by that of U+FFFD: strict parsers refuse JSON with them.

    JavaScript writes such escapes for text that was cut in the middle of a character.
    """
    start = json_text.find("\\")  # A line with only images has none, and this is fast.
    while start >= 0:
        window = json_text[start : start + _WINDOW_CHARACTERS]
        if "\\ud" in window or "\\uD" in window:
            return _ESCAPE.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], json_text)
        # The next window begins with the last two letters of this one.
        after = start + _WINDOW_CHARACTERS - 2
        start = json_text.find("\\", after) if after < len(json_text) else -1
    return json_text
