"""Reads the members of a request, which come from programs and may be anything."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.wire.json_values import json_text

Refused: TypeAlias = Sequence[tuple[str, Sequence[JsonValue], str]]
"""Members that would mislead if they were ignored: the name of each, the values that ask for
nothing, and what to do instead."""

_JSON_OBJECT: Final[JsonObject] = {"type": "object"}


def wrong(name: str, value: JsonValue, wanted: str) -> InvalidRequest:
    """Return the error for a member that cannot be read."""
    shown = value if isinstance(value, str) else json_text(value)
    return InvalidRequest(f"{name} is {quoted(shown)}.", next_step=f"Send {wanted}.")


def text_of(body: JsonObject, name: str) -> str:
    """Return a text; "" if it is missing or null."""
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    raise wrong(name, value, "a text")


def list_of(body: JsonObject, name: str) -> list[JsonValue]:
    """Return a list; [] if it is missing or null."""
    value = body.get(name)
    if value is None or isinstance(value, list):
        return value or []
    raise wrong(name, value, "a list")


def object_of(body: JsonObject, name: str) -> JsonObject:
    """Return an object; {} if it is missing or null."""
    value = body.get(name)
    if value is None or isinstance(value, dict):
        return value or {}
    raise wrong(name, value, "an object")


def count_of(body: JsonObject, *names: str) -> int:
    """Return the first number that is there; 0 if there is none."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise wrong(name, value, "a whole number from 1")
        return value
    return 0


def flag_of(body: JsonObject, name: str, *, default: bool = False) -> bool:
    """Return a flag."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    raise wrong(name, value, "true or false")


def stops_of(body: JsonObject, name: str) -> tuple[str, ...]:
    """Return the stop sequences: a text or a list of texts."""
    value = body.get(name)
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise wrong(name, value, "a text or a list of texts")
    return tuple(item for item in items if isinstance(item, str))


def refuse(body: JsonObject, refused: Refused) -> None:
    """Refuse what cannot be done and would mislead if it were ignored.

    Raises:
        InvalidRequest: The body asks for it.
    """
    for name, harmless, instead in refused:
        value = body.get(name)
        if value is not None and value not in harmless:
            shown = value if isinstance(value, str) else json_text(value)
            raise InvalidRequest(
                f"{name} is {quoted(shown)}, which this server cannot do.", next_step=instead
            )


# --- what OpenAI's two APIs have in common ---------------------------------------------------


def read_effort(word: str) -> str:
    """Read OpenAI's word for an effort; `minimal` is the least that every model has."""
    lower = word.strip().lower()
    return {"none": "off", "minimal": "low"}.get(lower, lower)


def read_tool_choice(given: JsonValue) -> str:
    """Read OpenAI's `tool_choice`, also with the function's name around or inside."""
    if given in (None, "auto"):
        return ""
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        inner = given.get("function") or given.get("custom") or given
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str) and name:
            return name
        allowed = given.get("allowed_tools") or given
        if given.get("type") == "allowed_tools" and isinstance(allowed, dict):
            return "required" if allowed.get("mode") == "required" else ""
    raise wrong("tool_choice", given, "auto, none, required or the name of a tool")


def read_format(given: JsonObject, name: str) -> JsonObject | None:
    """Return the schema that an answer must fit; None for plain text."""
    kind = given.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return _JSON_OBJECT
    inner = given.get("json_schema", given)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind == "json_schema" and isinstance(schema, dict):
        return schema
    raise wrong(name, given, "text, json_object, or json_schema with a schema")
