"""A tool's JSON Schema as callers write it -> one that the service takes.

References are inlined, the root becomes an object's, and what the service or JSON Schema 2020-12
does not know is left out: nulls, boolean schemas, keywords of older drafts. A change allows more
rather than less than before: arguments are checked against the caller's own schema later.
Source of truth: the refusals that users of the service report, and JSON Schema 2020-12. The
caller's object is never changed.
"""

from collections.abc import Mapping
from typing import Final

from kiro_mcp.models import JsonObject, JsonValue
from kiro_mcp.protocol.json_values import plain_json
from kiro_mcp.protocol.schema_nodes import is_schema_keyword, map_subschemas
from kiro_mcp.protocol.schema_refs import ReferenceBudget, inline_references
from kiro_mcp.protocol.schema_root import COMBINATORS, object_root

_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array"})
"""Every type but null: what may be null may as well be left out."""

_KEYWORD_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("title", "description", "pattern", "format"), str),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), (int, float)),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), int),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), int),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), bool),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), dict),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems", "enum", "examples"), list),
}
"""What a keyword's value must be; one with another value is left out."""

_MAY_BE_BOOLEAN: Final = ("additionalProperties", "unevaluatedProperties")

_LEFT_OUT: Final = frozenset({"nullable", "id", "additionalItems", "not", "if", "then", "else"})
"""Keywords of older drafts, and those that would forbid more if what is in them allows more."""

_ANNOTATIONS: Final = frozenset({"title", "description", "default", "examples"})


def sanitised_schema(schema: object, budget: ReferenceBudget | None = None) -> JsonObject:
    """Return a schema that the service takes for a tool's input, made of anything at all.

    Args:
        schema: What a caller gave.
        budget: What the references of all tools of a call share.
    """
    plain = plain_json(schema)
    inlined = inline_references(plain, budget) if isinstance(plain, dict) else {}
    return object_root(_cleaned(inlined))


def _clean(node: JsonValue) -> JsonValue:
    """Clean one schema inside another; None leaves it out."""
    if node is False:
        return None
    return _cleaned(node) if isinstance(node, dict) else {}


def _cleaned(node: JsonObject) -> JsonObject:
    known = {name: member for name, member in _modern(node).items() if _is_known(name, member)}
    booleans = {name: known[name] for name in _MAY_BE_BOOLEAN if isinstance(known.get(name), bool)}
    schemas = {
        name: _options(name, member) if is_schema_keyword(name) else _data(member)
        for name, member in known.items()
        if name not in booleans
    }
    cleaned = {**map_subschemas(schemas, _clean), **booleans}
    return _without_idle_combinators(_without_idle_keywords(cleaned))


def _modern(node: JsonObject) -> JsonObject:
    """Write what older drafts write in another way as JSON Schema 2020-12 does."""
    modern = {**node}
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if node.get(exclusive) is True and inclusive in node:
            modern[exclusive] = modern.pop(inclusive)
    if isinstance(node.get("items"), list):
        modern["prefixItems"] = modern.pop("items")
    return modern


def _is_known(keyword: str, member: JsonValue) -> bool:
    if member is None or keyword.startswith("$") or keyword in _LEFT_OUT:
        return False
    kinds = _KEYWORD_TYPES.get(keyword)
    if kinds is None:
        return True
    return isinstance(member, kinds) and (kinds is bool or not isinstance(member, bool))


def _options(keyword: str, member: JsonValue) -> JsonValue:
    """Leave null out of what a value may be, as clients write what is optional."""
    if keyword not in ("anyOf", "oneOf") or not isinstance(member, list):
        return member
    return [option for option in member if not _is_null(option)]


def _is_null(option: JsonValue) -> bool:
    if not isinstance(option, dict):
        return False
    is_constant = "const" in option and option["const"] is None
    return is_constant or option.get("type") in ("null", ["null"]) or option.get("enum") == [None]


def _data(value: JsonValue) -> JsonValue:
    """Return data without nulls, and without what would look like a reference."""
    if isinstance(value, dict):
        return {
            name: _data(member)
            for name, member in value.items()
            if member is not None and not (name == "$ref" and isinstance(member, str))
        }
    if isinstance(value, list):
        return [_data(item) for item in value if item is not None]
    return value


def _without_idle_keywords(node: JsonObject) -> JsonObject:
    """Leave out types, choices and requirements that say nothing that can be met."""
    checked = {**node, "type": _kind(node.get("type")), "required": _required(node)}
    return {name: member for name, member in checked.items() if member or name not in _CHECKED}


_CHECKED: Final = frozenset({"type", "required", "enum"})


def _kind(kind: JsonValue) -> JsonValue:
    kinds = kind if isinstance(kind, list) else [kind]
    known: list[JsonValue] = [item for item in kinds if isinstance(item, str) and item in _TYPES]
    return known[0] if len(known) == 1 else known


def _required(node: JsonObject) -> JsonValue:
    given, properties = node.get("required"), node.get("properties")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    known = properties if isinstance(properties, dict) else names
    return [name for name in dict.fromkeys(names) if name in known]


def _without_idle_combinators(node: JsonObject) -> JsonObject:
    """Take a combinator of nothing out, and that of one schema into its parent."""
    for keyword in COMBINATORS:
        pieces = node.get(keyword)
        if not isinstance(pieces, list) or len(pieces) > 1:
            continue
        rest = {name: member for name, member in node.items() if name != keyword}
        only: JsonValue = pieces[0] if pieces else {}
        if isinstance(only, dict) and not (only.keys() & rest.keys()) - _ANNOTATIONS:
            node = {**only, **rest}
    return node
