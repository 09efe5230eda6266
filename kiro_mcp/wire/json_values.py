"""JSON and text in both directions: from callers, and from the service and its models.

* A caller's values become JSON that can be sent: plain types, clean text, limited depth. Later
  steps see only JSON. The caller's own objects are never changed.
* The service may leave out any member, or send null for it. The `..._member` readers return a value
  of a known type. `text_member` raises an error, because an answer needs that text.
* Text may be cut in the middle of a surrogate pair, and half a pair cannot be encoded. If the other
  half follows, the two are joined. Otherwise the half is removed from a caller's text, and replaced
  by U+FFFD in the service's text.
* Models write the arguments of tools as JSON text, and make mistakes. Mistakes that can be repaired
  without guessing are repaired and marked. Arguments that were cut off are never completed: a tool
  that runs with half of its arguments does harm.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from kiro_mcp.chat import JsonObject, JsonValue, ToolUseState

# --- values that can be sent --------------------------------------------------------------

MAX_JSON_DEPTH: Final = 96
"""How deep a value may nest. A deeper value is sent as its JSON text."""

_CHARACTERS_PER_PART: Final = 64

_MAX_INTEGER_BITS: Final = 1024
"""The largest integer: most JSON readers hold no larger one, and Python does not write one."""


def clean_text(text: str) -> str:
    """Return `text` without NUL characters and without halves of surrogate pairs.

    Two halves of one pair are joined into their character.
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    return _join_surrogates(text, instead="")


MAX_COMMAS: Final = 20_000
"""How many commas and escapes JSON may have to be parsed in one go, which then takes 20 ms. The
commas tell how many values there are; long texts cost little."""


_MARKS: Final = tuple(b"cut%d:" % number for number in range(10))
"""Beginnings of the marks that replace long texts. The one used does not occur in the JSON."""

_MARK: Final = re.compile(r"cut\d:\d+\.")

LONG_TEXT: Final = 256 * 1024
"""Texts with more characters are cut out before large JSON is parsed."""


def load_large_json(text: str, cut: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Parse large JSON in a thread, while others run. Halves of surrogate pairs become U+FFFD.

    A parser in C lets no other thread run until it is done. JSON with few values goes to the
    fastest parser. JSON with many goes to the standard library's, which calls a Python function
    for each number and object, and other threads run meanwhile. Only a list that contains just
    texts and lists blocks them, by about 10 ms per megabyte.

    Args:
        text: The JSON.
        cut: The texts that `cut_long_texts` replaced by marks, by their marks.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It nests too deeply.
    """
    if not cut:
        return _parse_large(text)
    marks = 0

    def put_back(found: str) -> str:
        nonlocal marks
        marks += found in cut
        return cut.get(found, found)

    value = _map_texts(_parse_large(text), put_back)
    if marks > len(cut):  # A text became a mark when its escapes were read.
        return _parse_large(_MARK.sub(lambda mark: cut.get(mark[0], mark[0]), text))
    return value


def _parse_large(text: str) -> Any:
    # The fastest parser is slow with escapes, such as 4 MB of emoji as JavaScript's ASCII.
    if text.count(",") + text.count("\\") <= MAX_COMMAS:
        with suppress(ValueError):  # Half surrogate pairs, deep nesting.
            return from_json(text)
    value = json.loads(
        text,
        object_hook=lambda members: members,
        parse_int=lambda digits: int(digits),
        parse_float=lambda digits: float(digits),
    )
    return _map_texts(value, mend_surrogates) if "\\ud" in text or "\\uD" in text else value


def cut_long_texts(
    line: bytes | bytearray, long_text: int = LONG_TEXT
) -> tuple[bytes | bytearray, dict[str, str]]:
    """Replace long texts in JSON, such as images, by marks; return the JSON, and the texts by mark.

    Parsing tens of megabytes at once would block other threads. Only texts without escapes are cut
    out. Control characters in them are accepted, although JSON forbids them.
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


def plain_json(value: object, *, levels: int = MAX_JSON_DEPTH) -> JsonValue:
    """Return a copy of `value` that contains only JSON.

    Numbers that JSON cannot hold become null, and other objects become text. A value that is nested
    too deeply becomes its JSON text, or null if it is too deep even for that.
    """
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _MAX_INTEGER_BITS else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list | tuple | Mapping):
        return clean_text(str(value))
    if levels == 0:
        try:
            return clean_text(json.dumps(value, ensure_ascii=False, default=str))
        except (TypeError, ValueError, RecursionError):
            return None
    if isinstance(value, Mapping):
        return {
            clean_text(str(name)): plain_json(member, levels=levels - 1)
            for name, member in cast("Mapping[object, object]", value).items()
        }
    return [plain_json(item, levels=levels - 1) for item in cast("Sequence[object]", value)]


def size_up_to(value: object, limit: int) -> int:
    """Return how many parts a value has; every 64 characters of a text count as one more.

    Counting stops above the limit, and the result is then above it, too.
    """
    count = 0
    waiting = [value]
    while waiting and count + len(waiting) <= limit:
        node = waiting.pop()
        count += 1
        if isinstance(node, str):
            count += len(node) // _CHARACTERS_PER_PART
        elif isinstance(node, list):
            waiting += cast("list[object]", node)
        elif isinstance(node, dict):
            members = cast("dict[object, object]", node)
            waiting += members
            waiting += members.values()
    return count + len(waiting)


def is_larger(value: object, limit: int) -> bool:
    """Whether `size_up_to` of a value is above a limit."""
    return size_up_to(value, limit) > limit


def without_nulls(value: JsonValue) -> JsonValue:
    """Return a copy without null members and null items. Null itself is returned as it is."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def json_text(value: JsonValue) -> str:
    """Return a value as compact JSON, without escapes for characters outside ASCII."""
    return json_bytes(value).decode(errors="surrogatepass")


def json_bytes(value: JsonValue) -> bytes:
    """Return a value as compact JSON in UTF-8."""
    try:
        return to_json(value)
    except ValueError:  # The fast encoder refuses half surrogate pairs and deep nesting.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="surrogatepass")


# --- members of the service's objects -----------------------------------------------------


class UnreadableError(ValueError):
    """A payload or a required member cannot be read. The text ends a sentence that names it."""


def parse_object(payload: bytes) -> JsonObject:
    """Parse a payload; return {} if it is empty.

    Raises:
        UnreadableError: It is not a JSON object.
    """
    if not payload:
        return {}
    try:
        document = _parse(payload)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("is not JSON") from error
    if not isinstance(document, dict):
        raise UnreadableError("is not a JSON object")
    return document


def _parse(text: str | bytes) -> JsonValue:
    try:
        return from_json(text)
    except ValueError:  # The fast parser refuses half surrogate pairs and deep nesting.
        return json.loads(text if isinstance(text, str) else text.decode())


def text_member(members: JsonObject, key: str) -> str:
    """Return a text unchanged; "" if it is missing.

    Raises:
        UnreadableError: It is not text.
    """
    value = members.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnreadableError(f"has something other than text for {key!r}")
    return value


def word_member(members: JsonObject, key: str) -> str:
    """Return a text with its surrogates repaired; "" for anything else."""
    value = members.get(key)
    return mend_surrogates(value) if isinstance(value, str) else ""


def first_word(sources: Iterable[JsonObject], keys: tuple[str, ...]) -> str:
    """Return the first text under one of `keys`, source by source."""
    return next((word for item in sources for key in keys if (word := word_member(item, key))), "")


def number_member(members: JsonObject, key: str) -> float | None:
    """Return a finite number, or None for anything else."""
    value = members.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def positive_member(members: JsonObject, key: str) -> int | None:
    """Return a number without its fraction, or None if that is not 1 or more."""
    whole = int(number_member(members, key) or 0)
    return whole if whole > 0 else None


def count_member(members: JsonObject, key: str) -> int:
    """Return a count; 0 for anything else."""
    return max(0, round(number_member(members, key) or 0))


def object_member(members: JsonObject, key: str) -> JsonObject:
    """Return an object; {} for anything else."""
    value = members.get(key)
    return value if isinstance(value, dict) else {}


def object_members(members: JsonObject, key: str) -> list[JsonObject]:
    """Return the objects in a list, without its other items."""
    value = members.get(key)
    items: list[JsonValue] = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


# --- halves of surrogate pairs ------------------------------------------------------------

_ESCAPE: Final = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""An escape in JSON: of a whole pair, of a lone half, or of anything else."""

_WINDOW_CHARACTERS: Final = 1024 * 1024
"""How much is searched at once, because a search blocks all other threads of the process."""

_FIRST_HIGH, _LAST_HIGH = "\ud800", "\udbff"

_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
"""A pair, or a lone half."""


def mend_surrogates(text: str) -> str:
    """Return `text` with adjacent halves joined and lone ones replaced by U+FFFD."""
    return text if text.isascii() else _join_surrogates(text, instead="\ufffd")


def _join_surrogates(text: str, *, instead: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # One at a time, so that other threads can run in between.
        return _SURROGATES.sub(
            lambda found: (
                found[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")
                if len(found[0]) == 2
                else instead
            ),
            text,
        )
    return text


def mend_escaped_surrogates(json_text: str) -> str:
    """Replace escapes of lone halves by that of U+FFFD: strict parsers refuse JSON with them.

    JavaScript writes such escapes for text that was cut in the middle of a character.
    """
    start = json_text.find("\\")  # A line with only images has none, and this is fast.
    while start >= 0:
        window = json_text[start : start + _WINDOW_CHARACTERS]
        if "\\ud" in window or "\\uD" in window:
            break
        # The next window begins with the last two letters of this one.
        after = start + _WINDOW_CHARACTERS - 2
        start = json_text.find("\\", after) if after < len(json_text) else -1
    if start < 0:
        return json_text
    return _ESCAPE.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], json_text)


class SurrogateJoiner:
    """Makes each piece of a stream of text encodable. Joins halves across pieces."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text so far. A first half at its end waits for the second."""
        if not self._half and text.isascii():
            return text
        text = self._half + text
        self._half = ""
        if text and _FIRST_HIGH <= text[-1] <= _LAST_HIGH:
            text, self._half = text[:-1], text[-1]
        return mend_surrogates(text)

    def close(self) -> str:
        """Return U+FFFD if a first half is still waiting. More text may follow."""
        half, self._half = self._half, ""
        return mend_surrogates(half)


# --- arguments that a model wrote ---------------------------------------------------------

MAX_DEPTH: Final = 180
"""How deep arguments may nest. MCP clients read 200 levels, and the result itself needs some."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)
"""A JSON string; the last one may be cut off."""
MAX_REPAIRED_CHARACTERS: Final = 100_000
"""The longest arguments that are repaired, which takes 12 ms. The service cuts off at 40,000."""

_TRAILING_COMMA: Final = re.compile(rf"({_STRING.pattern}|[{{\[]\s*,)|,(?=\s*[}}\]])", re.DOTALL)
"""A comma before a closing bracket. Group 1 is kept: a string, or a comma after no value."""
_BLANK: Final = re.compile(r"\s*")
_BRACKET: Final = re.compile(r"[{}\[\]]")
_CLOSING: Final = {"{": "}", "[": "]"}
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of a tool use, read from their text."""

    value: JsonObject | None
    """The arguments; None unless `state` is `complete`."""
    state: ToolUseState = "complete"
    is_repaired: bool = False
    text: str = field(default="", compare=False, repr=False)
    """The text that they were read from; "" if that is not JSON."""


def parse_arguments(fragments: Sequence[str]) -> Arguments:
    """Read arguments from all of their fragments.

    Fragments may be cut anywhere, so they are joined first. Blank text means no arguments.
    """
    text = mend_surrogates("".join(fragments))
    if not text or text.isspace():
        return Arguments(value={})
    with suppress(ValueError, RecursionError):
        if (value := plain_object(_parse(text))) is not None:
            return Arguments(value=value, text=text)
    if (value := _last_snapshot(text, fragments)) is not None:
        return Arguments(value=value)
    # Two repairs lose nothing: raw control characters in strings are accepted, and a comma before a
    # closing bracket is removed.
    if len(text) <= MAX_REPAIRED_CHARACTERS:
        repaired = _TRAILING_COMMA.sub(r"\1", text)
        with suppress(ValueError, RecursionError):
            if (value := plain_object(json.loads(repaired, strict=False))) is not None:
                return Arguments(value=value, is_repaired=True)
    return Arguments(value=None, state="truncated" if _is_cut_off(text) else "invalid")


def plain_object(value: object) -> JsonObject | None:
    """Return `value` if it is a JSON object that can be written as UTF-8, else None.

    Halves of surrogate pairs are repaired. Infinite numbers are not JSON, and clients cannot read
    values that nest deeper than `MAX_DEPTH`.
    """
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        mended = mend_surrogates(text)
        plain = cast("JsonObject", value if mended is text else json.loads(mended))
    except (ValueError, RecursionError):
        return None
    return None if _is_too_deep(plain, text) else plain


def _is_too_deep(value: JsonObject, text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # Enough for nearly all arguments.
        return False
    level: list[JsonObject | list[JsonValue]] = [value]
    for _ in range(MAX_DEPTH):
        members = (
            member
            for item in level
            for member in (item.values() if isinstance(item, dict) else item)
        )
        level = [member for member in members if isinstance(member, dict | list)]
    return bool(level)


def _last_snapshot(text: str, fragments: Sequence[str]) -> JsonObject | None:
    """Return the last of several whole objects, each of which begins with its own fragment.

    Not observed by us: other clients of the service report that the last fragment can repeat all
    of the arguments.
    """
    starts = {0, *accumulate(map(len, fragments))}
    value: object = None
    end = 0
    try:
        while end < len(text):
            start = cast("re.Match[str]", _BLANK.match(text, end)).end()
            if start < len(text) and starts.isdisjoint(range(end, start + 1)):
                return None
            value, end = _DECODER.raw_decode(text, start) if start < len(text) else (value, start)
    except (ValueError, RecursionError):
        return None
    return plain_object(value)


def _is_cut_off(text: str) -> bool:
    """Whether the text is an object without its end; whole objects may precede it."""
    if not text.lstrip().startswith("{"):
        return False
    open_brackets: list[str] = []
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in _CLOSING:
            open_brackets.append(bracket)
        elif not open_brackets or bracket != _CLOSING[open_brackets.pop()]:
            return False
    return bool(open_brackets)
