"""JSON and text in both directions: from callers, and from the service and its models.

* A caller's values become JSON that can be sent: plain types, clean text, limited depth. Later
  steps see only JSON. The caller's own objects are never changed.
* The service may leave out any member, or send null for it. The `..._member` readers return a value
  of a known type. `text_member` raises an error, because an answer needs that text.
* Text may be cut in the middle of a surrogate pair, and half a pair cannot be encoded. If the other
  half follows, the two are joined. Otherwise the half is removed from a caller's text, and replaced
  by U+FFFD in the service's text.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

from pydantic_core import from_json, to_json

from kiro_mcp.chat import JsonObject, JsonValue

# --- text that can be encoded -------------------------------------------------------------

_FIRST_HIGH, _LAST_HIGH = "\ud800", "\udbff"

_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
"""A pair, or a lone half."""


def clean_text(text: str) -> str:
    """Return `text` without NUL characters and without halves of surrogate pairs.

    Two halves of one pair are joined into their character.
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    return _join_surrogates(text, instead="")


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


class SurrogateJoiner:
    """Makes each piece of a stream of text encodable. Joins halves across pieces."""

    def __init__(self) -> None:
        self.half = ""
        """The first half at the end of the text so far, which waits for the second."""

    def feed(self, text: str) -> str:
        """Return the text so far."""
        if not self.half and text.isascii():
            return text
        text = self.half + text
        self.half = ""
        if text and _FIRST_HIGH <= text[-1] <= _LAST_HIGH:
            text, self.half = text[:-1], text[-1]
        return mend_surrogates(text)

    def close(self) -> str:
        """Return U+FFFD if a first half is still waiting. More text may follow."""
        half, self.half = self.half, ""
        return "\ufffd" if half else ""


# --- values that can be sent --------------------------------------------------------------

MAX_SENT_DEPTH: Final = 96
"""How deep a value may nest. A deeper value is sent as its JSON text."""

_CHARACTERS_PER_PART: Final = 64

_MAX_INTEGER_BITS: Final = 1024
"""The largest integer: most JSON readers hold no larger one, and Python does not write one."""


def plain_json(value: object, *, levels: int = MAX_SENT_DEPTH) -> JsonValue:
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


def is_larger(value: object, limit: int) -> bool:
    """Whether a value has more parts than a limit; 64 characters of a text count as one more."""
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
    return count + len(waiting) > limit


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
        document = parse_json(payload)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("is not JSON") from error
    if not isinstance(document, dict):
        raise UnreadableError("is not a JSON object")
    return document


def parse_json(text: str | bytes) -> JsonValue:
    """Parse JSON. Lone halves of surrogate pairs and infinite numbers stay in it.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It nests too deeply.
    """
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
