"""The root of a tool's schema -> an object with properties, and no combinators beside them.

The service refuses a tool whose schema is no object, or has `oneOf`, `anyOf` or `allOf` at its
root. What these say of the properties is merged into them: whatever any alternative allows is
allowed, and required is what all of them require.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.json_values import json_text

COMBINATORS: Final = ("allOf", "anyOf", "oneOf")

VALUE_PROPERTY: Final = "value"
"""What holds the whole, where a schema is no object's."""


def object_root(schema: JsonObject) -> JsonObject:
    """Return a schema that is an object's at its root.

    Args:
        schema: A schema without references; booleans and nulls are no schemas in it.
    """
    if not _is_object(schema):
        value: JsonObject = {VALUE_PROPERTY: schema}
        return {"type": "object", "properties": value, "required": [VALUE_PROPERTY]}
    merged = _members(schema)
    rest = {name: member for name, member in schema.items() if name not in COMBINATORS}
    root: JsonObject = {**rest, "type": "object", "properties": merged.properties}
    root.pop("required", None)
    required: list[JsonValue] = [
        name for name in dict.fromkeys(merged.required) if name in merged.properties
    ]
    return {**root, "required": required} if required else root


@dataclass(frozen=True, slots=True, kw_only=True)
class _Members:
    properties: JsonObject
    required: Sequence[str]


def _is_object(schema: JsonObject) -> bool:
    """Whether a schema is, or may be, an object's."""
    kinds = schema.get("type")
    if kinds is not None:
        return kinds == "object" or (isinstance(kinds, list) and "object" in kinds)
    if "properties" in schema:
        return True
    return all(
        any(map(_is_object, alternatives))
        for name in COMBINATORS
        if (alternatives := _schemas(schema, name))
    )


def _members(schema: JsonObject) -> _Members:
    """Gather what a schema and its combinators say of an object's members."""
    properties = schema.get("properties")
    found = _Members(
        properties=properties if isinstance(properties, dict) else {},
        required=_texts(schema.get("required")),
    )
    for name in COMBINATORS:
        pieces = [_members(piece) for piece in _schemas(schema, name) if _is_object(piece)]
        if pieces and name == "allOf":
            found = _all_of([found, *pieces])
        elif pieces:
            found = _all_of([found, _any_of(pieces)])
    return found


def _all_of(pieces: Sequence[_Members]) -> _Members:
    required = [name for piece in pieces for name in piece.required]
    return _Members(properties=_joined(pieces, "allOf"), required=required)


def _any_of(pieces: Sequence[_Members]) -> _Members:
    common = set[str](pieces[0].required).intersection(*(piece.required for piece in pieces))
    required = [name for name in pieces[0].required if name in common]
    return _Members(properties=_joined(pieces, "anyOf"), required=required)


def _joined(pieces: Sequence[_Members], combinator: str) -> JsonObject:
    """Join the properties of all pieces; of one name, the different schemas are combined."""
    variants: dict[str, dict[str, JsonValue]] = {}
    for piece in pieces:
        for name, schema in piece.properties.items():
            variants.setdefault(name, {})[json_text(schema)] = schema
    return {name: _combined(list(kinds.values()), combinator) for name, kinds in variants.items()}


def _combined(schemas: list[JsonValue], combinator: str) -> JsonValue:
    return schemas[0] if len(schemas) == 1 else {combinator: schemas}


def _schemas(schema: JsonObject, keyword: str) -> list[JsonObject]:
    given = schema.get(keyword)
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def _texts(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
