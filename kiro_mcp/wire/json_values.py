"""What a stranger gives -> JSON that can be sent: plain types, clean text, bounded depth.

The first step of everything that a caller hands in, so that all later ones meet nothing but
JSON and never fail for a form. Half surrogate pairs and NUL characters are taken out: neither
encodes, or is taken by the service. The caller's own objects are read, never changed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Final, cast

from kiro_mcp.chat import JsonObject, JsonValue

MAX_JSON_DEPTH: Final = 96
"""How deep a value may nest; what is deeper becomes its JSON as text."""

_CHARACTERS_PER_PART: Final = 64

_MAX_INTEGER_BITS: Final = 1024
"""Where a whole number exceeds what JSON readers hold, and Python's limit for writing it."""


def clean_text(text: str) -> str:
    """Return `text` without NUL characters and without halves of surrogate pairs.

    Two halves that belong together are joined into the character that they stand for.
    """
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return text


def plain_json(value: object, *, levels: int = MAX_JSON_DEPTH) -> JsonValue:
    """Return a copy of `value` that is JSON throughout.

    What JSON cannot hold becomes null (numbers that are not finite) or text (anything but a
    mapping, sequence, text, number, truth value or null). What is nested too deeply becomes its
    JSON as text, or null where it is too deep even for that.
    """
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _plain_number(value)
    if isinstance(value, dict | list | tuple | Mapping):
        if levels == 0:
            try:
                return clean_text(json.dumps(value, ensure_ascii=False, default=str))
            except (TypeError, ValueError, RecursionError):
                return None
        return _plain_members(cast("Mapping[object, object] | Sequence[object]", value), levels - 1)
    return clean_text(str(value))


def _plain_number(value: float) -> JsonValue:
    if isinstance(value, int):
        return value if value.bit_length() <= _MAX_INTEGER_BITS else None
    return value if math.isfinite(value) else None


def _plain_members(
    value: Mapping[object, object] | Sequence[object], levels: int
) -> JsonObject | list[JsonValue]:
    if isinstance(value, Mapping):
        return {
            clean_text(str(name)): plain_json(member, levels=levels)
            for name, member in value.items()
        }
    return [plain_json(item, levels=levels) for item in value]


def size_up_to(value: object, limit: int) -> int:
    """Count a value's parts, and every 64 characters of its texts.

    What is over the limit is not counted to its end: the answer is only over the limit, too.
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
    """Whether a value has more parts, or more than 64 times as many characters, than a limit."""
    return size_up_to(value, limit) > limit


def without_nulls(value: JsonValue) -> JsonValue:
    """Return a copy without null members and null items; null itself stays."""
    if isinstance(value, dict):
        return object_without_nulls(value)
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def object_without_nulls(value: JsonObject) -> JsonObject:
    """Return a copy of an object without null members, at any depth."""
    return {name: without_nulls(member) for name, member in value.items() if member is not None}


def has_null(value: JsonValue) -> bool:
    """Whether there is a null in it, at any depth."""
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    if isinstance(value, list):
        return any(map(has_null, value))
    return value is None


def json_text(value: JsonValue) -> str:
    """Write a value as compact JSON, text as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
