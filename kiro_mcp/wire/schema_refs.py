"""A JSON Schema with references -> the same schema with what they refer to in their place.

The service takes no `$ref`. A reference to something that contains it would never end: where it
comes round again, only the type of what it refers to is left. Definitions that refer to each
other can multiply without limit, so the result is bounded in depth and in size.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.schema_nodes import map_subschemas

MAX_DEPTH: Final = 32
"""How deep schemas may nest; what is deeper allows anything."""

MAX_NODES: Final = 4_000
"""How many schemas may come of inlining, in all; what comes after allows anything."""

MAX_REFERRED_NODES: Final = 10_000
"""How many schemas references may bring in, for all tools of a call together."""

MAX_HOPS: Final = 64
"""How many references may lead to one schema."""

MAX_REFERENCE_CHARACTERS: Final = 1_000
"""How long a reference may be; a longer one refers to nothing."""

_RESOLVED: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "$defs", "definitions"})
"""Keywords that mean nothing once references are inlined."""


@dataclass(slots=True)
class ReferenceBudget:
    """How many schemas references may still bring in. What comes after allows anything."""

    nodes: int = MAX_REFERRED_NODES


def inline_references(schema: JsonObject, budget: ReferenceBudget | None = None) -> JsonObject:
    """Return a copy of the schema without references. The schema itself is not changed.

    Args:
        schema: A schema.
        budget: What several schemas share; by default this one is alone.
    """
    inliner = _Inliner(schema, budget or ReferenceBudget())
    inlined = inliner.inline(schema, frozenset({"#"}), 0)
    return inlined if isinstance(inlined, dict) else {}


class _Inliner:
    def __init__(self, root: JsonObject, budget: ReferenceBudget) -> None:
        self._root = root
        self._budget = budget
        self._nodes = 0

    def inline(self, node: JsonValue, around: frozenset[str], depth: int) -> JsonValue:
        """Inline the references in one schema; `around` are those that it came by."""
        if not isinstance(node, dict):
            return {"type": "null"} if node is None else node
        self._nodes += 1
        if len(around) > 1:
            self._budget.nodes -= 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH or self._budget.nodes < 0:
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
            if reference in around or len(around) > MAX_HOPS:
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
