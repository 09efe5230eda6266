"""Names of properties as a tool's schema has them <-> names that the service takes.

The service takes 1 to 64 letters, digits, `_`, `.` and `-` as the name of a property, at any depth
of a schema. Real tools have `$filter`, `items[]` and names in other scripts. Such a name is sent in
another form, which depends on nothing but the name: so one map serves a whole tool, whatever its
nesting, and the name is the same in each call. The map goes to the reply side, so that a caller
meets its own names again.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.schema_nodes import map_subschemas

LEGAL_PROPERTY_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What the service takes as the name of a property."""

_ILLEGAL_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_BEGINNING_CHARACTERS: Final = 40
_DIGEST_CHARACTERS: Final = 8


def with_legal_names(schema: JsonObject) -> tuple[JsonObject, Mapping[str, str]]:
    """Rename the properties of a schema that the service does not take.

    Returns:
        The schema, and the caller's name of each renamed property, by the name that is sent.
    """
    names: dict[str, str] = {}

    def legal(name: str) -> str:
        if LEGAL_PROPERTY_NAME.fullmatch(name):
            return name
        sent = sent_property_name(name)
        names[sent] = name
        return sent

    def renamed(node: JsonValue) -> JsonValue:
        if not isinstance(node, dict):
            return node
        changed = map_subschemas(node, renamed)
        for keyword in ("properties", "dependentSchemas", "dependentRequired"):
            if isinstance(members := changed.get(keyword), dict):
                changed[keyword] = {legal(name): member for name, member in members.items()}
        if isinstance(required := changed.get("required"), list):
            changed["required"] = [legal(name) for name in required if isinstance(name, str)]
        if isinstance(dependent := changed.get("dependentRequired"), dict):
            changed["dependentRequired"] = {
                name: [legal(item) for item in items if isinstance(item, str)]
                for name, items in dependent.items()
                if isinstance(items, list)
            }
        if changed.get("properties", {}) != node.get("properties", {}):
            changed.pop("propertyNames", None)  # It was meant for the names as they were.
        return changed

    root = renamed(schema)
    return (root if names and isinstance(root, dict) else schema), names


def sent_property_name(name: str) -> str:
    """Return the form in which an illegal name is sent."""
    plain = _ILLEGAL_CHARACTERS.sub("_", name).strip("_")[:_BEGINNING_CHARACTERS] or "property"
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{plain}_{digest[:_DIGEST_CHARACTERS]}"


def rename_members(value: JsonValue, names: Mapping[str, str]) -> JsonValue:
    """Return a value whose members are renamed, at any depth; itself if there are no names."""
    if not names:
        return value
    if isinstance(value, dict):
        return {
            names.get(name, name): rename_members(inner, names) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [rename_members(item, names) for item in value]
    return value
