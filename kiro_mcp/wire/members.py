"""Bytes of JSON into an object, and an object's members into values of a known type.

The service may leave any member out or send null for it. Where a member has the wrong type,
the readers here differ in one thing: whether an answer can do without it.
"""

import json
import math
from collections.abc import Iterable

from pydantic_core import from_json

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.surrogates import mend_surrogates


class UnreadableError(ValueError):
    """A payload or a member that matters cannot be read; its text ends a sentence about it."""


def parse_object(payload: bytes) -> JsonObject:
    """Parse a payload; an empty one is an object without members.

    Raises:
        UnreadableError: it is anything but a JSON object.
    """
    if not payload:
        return {}
    try:
        document: JsonValue = from_json(payload)
    except ValueError:
        document = _parse_leniently(payload)
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object")
    return document


def _parse_leniently(payload: bytes) -> JsonValue:
    """Parse what the fast parser does not take: half surrogate pairs, deep nesting."""
    try:
        return json.loads(payload.decode())
    except (ValueError, RecursionError) as error:
        raise UnreadableError("is no JSON") from error


def text_member(members: JsonObject, key: str) -> str:
    """Return a text that matters, as it is; a missing one is empty.

    Raises:
        UnreadableError: it is no text.
    """
    value = members.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnreadableError(f"has something other than text for {key!r}")
    return value


def word_member(members: JsonObject, key: str) -> str:
    """Return a text that may as well be missing, made fit for showing."""
    value = members.get(key)
    return mend_surrogates(value) if isinstance(value, str) else ""


def first_word(sources: Iterable[JsonObject], keys: tuple[str, ...]) -> str:
    """Return the first text there is under one of `keys`, source by source."""
    return next((word for item in sources for key in keys if (word := word_member(item, key))), "")


def number_member(members: JsonObject, key: str) -> float | None:
    """Return a finite number, or None for anything else."""
    return finite_number(members.get(key))


def finite_number(value: object) -> float | None:
    """Return a number if it is one that a float holds, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def positive_integer(value: object) -> int | None:
    """Return a number without its fraction, or None for anything that is not 1 or more then."""
    whole = int(finite_number(value) or 0)
    return whole if whole > 0 else None


def count_member(members: JsonObject, key: str) -> int:
    """Return a number of things, 0 for anything that is none."""
    return max(0, round(number_member(members, key) or 0))


def object_member(members: JsonObject, key: str) -> JsonObject:
    """Return an object; empty for anything else."""
    value = members.get(key)
    return value if isinstance(value, dict) else {}


def object_members(members: JsonObject, key: str) -> list[JsonObject]:
    """Return the objects of a list, without whatever else is in it."""
    value = members.get(key)
    items: list[JsonValue] = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]
