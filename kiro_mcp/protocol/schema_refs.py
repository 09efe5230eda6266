"""A JSON Schema with references -> the same schema with what they refer to in their place.

The service takes no `$ref`. A reference to something that contains it would never end: where it
comes round again, only the type of what it refers to is left. Definitions that refer to each
other can multiply without limit, so the result is bounded in depth and in size.
"""

from typing import Final
from urllib.parse import unquote

from kiro_mcp.models import JsonObject, JsonValue
from kiro_mcp.protocol.schema_nodes import map_subschemas

MAX_DEPTH: Final = 32
"""How deep schemas may nest; what is deeper allows anything."""

MAX_NODES: Final = 4_000
"""How many schemas may come of inlining, in all; what comes after allows anything."""

MAX_REFERENCE_CHARACTERS: Final = 1_000
"""How long a reference may be; a longer one refers to nothing."""

_RESOLVED: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "$defs", "definitions"})
"""Keywords that mean nothing once references are inlined."""


def inline_references(schema: JsonObject) -> JsonObject:
    """Return a copy of the schema without references. The schema itself is not changed."""
    inlined = _Inliner(schema).inline(schema, frozenset({"#"}), 0)
    return inlined if isinstance(inlined, dict) else {}


class _Inliner:
    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._nodes = 0

    def inline(self, node: JsonValue, around: frozenset[str], depth: int) -> JsonValue:
        """Inline the references in one schema; `around` are those that it came by."""
        if not isinstance(node, dict):
            return {"type": "null"} if node is None else node
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            return _type_alone(node)
        resolved, around = self._resolved(node, around)
        return map_subschemas(resolved, lambda inner: self.inline(inner, around, depth + 1))

    def _resolved(
        self, node: JsonObject, around: frozenset[str]
    ) -> tuple[JsonObject, frozenset[str]]:
        """Put what a schema refers to in its place; its own members stand above that's."""
        while isinstance(reference := node.get("$ref"), str):
            own = _without_resolved(node)
            target = local_target(self._root, reference)
            if reference in around:
                return {**_type_alone(target), **own}, around
            around = around | {reference}
            node = {**target, **own}
        return _without_resolved(node), around


def local_target(root: JsonObject, reference: str) -> JsonObject:
    """Return the schema that a reference within a schema points to; {} for none."""
    if len(reference) > MAX_REFERENCE_CHARACTERS:
        return {}
    start, *steps = reference.split("/")
    found: JsonValue = root if start == "#" else None
    for step in steps:
        found = _member(found, unquote(step).replace("~1", "/").replace("~0", "~"))
    return found if isinstance(found, dict) else {}


def _member(value: JsonValue, step: str) -> JsonValue:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and len(step) < 9:
        return value[int(step)] if int(step) < len(value) else None
    return None


def _without_resolved(node: JsonObject) -> JsonObject:
    return {name: member for name, member in node.items() if name not in _RESOLVED}


def _type_alone(node: JsonObject) -> JsonObject:
    kind = node.get("type")
    return {"type": kind} if isinstance(kind, str) else {}
