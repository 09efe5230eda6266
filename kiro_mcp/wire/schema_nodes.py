"""A JSON Schema as a tree: which of its members are schemas, and how to walk them.

A member is a keyword only where the schema says so: `properties` maps names to schemas, and a
property may well be named `$ref` or `items`. Source of truth: JSON Schema 2020-12, and its
older drafts, which callers still write.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from kiro_mcp.chat import JsonObject, JsonValue

Change: TypeAlias = Callable[[JsonValue], JsonValue]
"""What becomes of a schema inside another; None leaves it out."""

_SCHEMA_MAPS: Final = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
_SCHEMA_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS: Final = frozenset(
    {
        "items",
        "additionalItems",
        "additionalProperties",
        "contains",
        "propertyNames",
        "not",
        "if",
        "then",
        "else",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)


def is_schema_keyword(keyword: str) -> bool:
    """Whether a keyword holds schemas; what any other one holds is data."""
    return keyword in _SCHEMAS or keyword in _SCHEMA_LISTS or keyword in _SCHEMA_MAPS


def map_subschemas(node: JsonObject, change: Change) -> JsonObject:
    """Return a copy of a schema with `change` applied to each schema directly inside it."""
    changed: JsonObject = {}
    for name, member in node.items():
        if not is_schema_keyword(name):
            changed[name] = member
        elif (inner := _changed(name, member, change)) is not None:
            changed[name] = inner
    return changed


def _changed(keyword: str, member: JsonValue, change: Change) -> JsonValue:
    if keyword in _SCHEMA_MAPS and isinstance(member, dict):
        changed = {name: change(inner) for name, inner in member.items()}
        return {name: inner for name, inner in changed.items() if inner is not None}
    if (keyword in _SCHEMA_LISTS or keyword == "items") and isinstance(member, list):
        return [inner for item in member if (inner := change(item)) is not None]
    return change(member) if keyword in _SCHEMAS and member is not None else member
