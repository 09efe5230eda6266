"""Turns a caller's JSON Schema for a tool into one that the service accepts.

The steps, each on a copy of the schema:

1. References are inlined, because the service refuses `$ref`. Where a schema contains itself, the
   inner one keeps only its type. Definitions that refer to each other can multiply without limit,
   so the result is limited in depth and size.
2. Everything that the service or JSON Schema 2020-12 refuses is left out: nulls, boolean schemas,
   keywords of older drafts, invalid values of keywords.
3. The root becomes an object with properties. The properties in its `oneOf`, `anyOf` and `allOf`
   are merged into it.
4. Properties get names that the service accepts.

A change never makes a schema stricter: arguments are later checked against the caller's own schema.
Sources of truth: the refusals that users of the service report, and JSON Schema.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.json_values import json_text, object_member, object_members, plain_json

# --- a schema as a tree -------------------------------------------------------------------
# Whether a member is a keyword depends on where it is: `properties` maps names to schemas, and a
# property may be named `$ref` or `items`. Callers still write older drafts, so they are read, too.

_SCHEMA_MAPS: Final = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
_SCHEMA_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS: Final = frozenset(
    {
        *("items", "additionalItems", "unevaluatedItems", "contains", "propertyNames"),
        *("additionalProperties", "unevaluatedProperties", "not", "if", "then", "else"),
    }
)
_SCHEMA_KEYWORDS: Final = _SCHEMA_MAPS | _SCHEMA_LISTS | _SCHEMAS
"""The keywords that contain schemas. All others contain data."""


def _map_subschemas(node: JsonObject, change: Callable[[JsonValue], JsonValue]) -> JsonObject:
    """Return a copy of a schema with each schema directly inside it changed; None leaves it out."""
    changed: JsonObject = {}
    for name, member in node.items():
        inner: JsonValue = member
        if name in _SCHEMA_MAPS and isinstance(member, dict):
            found = {key: change(schema) for key, schema in member.items()}
            inner = {key: schema for key, schema in found.items() if schema is not None}
        elif (name in _SCHEMA_LISTS or name == "items") and isinstance(member, list):
            inner = [schema for item in member if (schema := change(item)) is not None]
        elif name in _SCHEMAS and member is not None:
            inner = change(member)
        if inner is not None or name not in _SCHEMA_KEYWORDS:
            changed[name] = inner
    return changed


# --- references ---------------------------------------------------------------------------

MAX_SCHEMA_DEPTH: Final = 32
"""How deep schemas may nest. A deeper schema allows anything."""

MAX_NODES: Final = 4_000
"""How many schemas one tool may have after inlining. Further schemas allow anything."""

MAX_REFERRED_NODES: Final = 5_000
"""How many schemas references may add, for all tools of a call together."""

MAX_HOPS: Final = 64
"""How many references may lead to one schema."""

MAX_REFERENCE_CHARACTERS: Final = 1_000
"""How long a reference may be. A longer one is treated as if it had no target."""

MAX_PATTERN_CHARACTERS: Final = 4_000
"""How many characters of regular expressions are checked, for all tools of a call together (40 ms).
Further expressions are left out."""

_RESOLVED: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "$defs", "definitions"})
"""Keywords without meaning after inlining."""


@dataclass(slots=True)
class SchemaBudget:
    """The limits that the schemas of all tools of a call share."""

    nodes: int = MAX_REFERRED_NODES
    """How many schemas references may still add. Further schemas allow anything."""
    pattern_characters: int = MAX_PATTERN_CHARACTERS
    patterns: dict[str, bool] = field(default_factory=dict[str, bool])
    """The texts that were checked, and whether each is a regular expression."""


def inline_references(schema: JsonObject, budget: SchemaBudget | None = None) -> JsonObject:
    """Return a copy of the schema without references, within the limits."""
    budget = budget or SchemaBudget()
    count = 0

    def inline(node: JsonValue, around: frozenset[str], depth: int) -> JsonValue:
        """Inline the references in one schema; `around` holds the references that led to it."""
        nonlocal count
        if not isinstance(node, dict):
            return {"type": "null"} if node is None else node
        count += 1
        budget.nodes -= len(around) > 1
        if count > MAX_NODES or depth > MAX_SCHEMA_DEPTH or budget.nodes < 0:
            return _type_alone(node)
        while isinstance(reference := node.get("$ref"), str):
            # A schema's own members win over those of its target.
            own = _without_resolved(node)
            target = local_target(schema, reference)
            if reference in around or len(around) > MAX_HOPS:
                node = {**_type_alone(target), **own}
                break
            around |= {reference}
            node = {**target, **own}
        resolved = _without_resolved(node)
        return _map_subschemas(resolved, lambda inner: inline(inner, around, depth + 1))

    inlined = inline(schema, frozenset({"#"}), 0)
    return inlined if isinstance(inlined, dict) else {}


def local_target(root: JsonObject, reference: str) -> JsonObject:
    """Return the target of a reference within a schema; {} if it has none."""
    if len(reference) > MAX_REFERENCE_CHARACTERS:
        return {}
    start, *steps = reference.split("/")
    found: JsonValue = root if start == "#" else None
    for step in steps:
        step = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and len(step) < 9:
            found = found[int(step)] if int(step) < len(found) else None
        else:
            found = None
    return found if isinstance(found, dict) else {}


def _without_resolved(node: JsonObject) -> JsonObject:
    return {name: member for name, member in node.items() if name not in _RESOLVED}


def _type_alone(node: JsonObject) -> JsonObject:
    kind = node.get("type")
    return {"type": kind} if isinstance(kind, str) else {}


# --- the root -----------------------------------------------------------------------------

COMBINATORS: Final = ("allOf", "anyOf", "oneOf")

_VALUE: Final = "value"
"""The property that contains the value of a schema that is not for an object."""


def _object_root(schema: JsonObject) -> JsonObject:
    """Return a clean schema as one whose root is for an object."""
    if not _is_object(schema):
        return {"type": "object", "properties": {_VALUE: schema}, "required": [_VALUE]}
    properties, needed = _members(schema)
    rest = {name: member for name, member in schema.items() if name not in COMBINATORS}
    root: JsonObject = {**rest, "type": "object", "properties": properties}
    root.pop("required", None)
    required: list[JsonValue] = [name for name in dict.fromkeys(needed) if name in properties]
    return {**root, "required": required} if required else root


def _is_object(schema: JsonObject) -> bool:
    """Whether a schema is, or may be, for an object."""
    kinds = schema.get("type")
    if kinds is not None:
        return kinds == "object" or (isinstance(kinds, list) and "object" in kinds)
    if "properties" in schema:
        return True
    return all(
        any(map(_is_object, alternatives))
        for name in COMBINATORS
        if (alternatives := object_members(schema, name))
    )


def _members(schema: JsonObject) -> tuple[JsonObject, list[str]]:
    """Return the properties of a schema and of its combinators, and the required ones.

    All schemas of `allOf` apply. Of `anyOf` and `oneOf` only one has to apply: a property of any of
    them is allowed, and it is required only if all of them require it.
    """
    properties, required = object_member(schema, "properties"), _texts(schema.get("required"))
    for name in COMBINATORS:
        pieces = [_members(one) for one in object_members(schema, name) if _is_object(one)]
        if pieces and name != "allOf":
            needed = set(pieces[0][1]).intersection(*(one for _, one in pieces))
            either = _joined([one for one, _ in pieces], "anyOf")
            pieces = [(either, [one for one in pieces[0][1] if one in needed])]
        if pieces:
            properties = _joined([properties, *(one for one, _ in pieces)], "allOf")
            required = [*required, *(one for _, names in pieces for one in names)]
    return properties, required


def _joined(pieces: Sequence[JsonObject], combinator: str) -> JsonObject:
    """Join the properties of all pieces. Different schemas of one name are combined."""
    variants: dict[str, dict[str, JsonValue]] = {}
    for properties in pieces:
        for name, schema in properties.items():
            variants.setdefault(name, {})[json_text(schema)] = schema
    return {
        name: next(iter(kinds.values())) if len(kinds) == 1 else {combinator: [*kinds.values()]}
        for name, kinds in variants.items()
    }


def _texts(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


# --- names of properties ------------------------------------------------------------------
# The service accepts 1 to 64 letters, digits, `_`, `.` and `-`, at any depth. Real tools have
# `$filter`, `items[]` and names in other scripts. The name that is sent instead depends only on the
# old one: so one map serves a whole tool, and the new name is the same in each call. The reader of
# the answer gets the map, so that callers see their own names.

LEGAL_PROPERTY_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""The property names that the service accepts."""

_ILLEGAL_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_BEGINNING_CHARACTERS: Final = 40
_DIGEST_CHARACTERS: Final = 8


def with_legal_names(schema: JsonObject) -> tuple[JsonObject, Mapping[str, str]]:
    """Rename the properties of a schema whose names the service refuses.

    Returns:
        The schema, and the caller's name of each renamed property, by the sent name.
    """
    names: dict[str, str] = {}

    def legal(name: str) -> str:
        if LEGAL_PROPERTY_NAME.fullmatch(name):
            return name
        plain = _ILLEGAL_CHARACTERS.sub("_", name).strip("_")[:_BEGINNING_CHARACTERS] or "property"
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
        sent = f"{plain}_{digest[:_DIGEST_CHARACTERS]}"
        names[sent] = name
        return sent

    def legal_names(given: list[JsonValue]) -> list[JsonValue]:
        return [legal(name) for name in given if isinstance(name, str)]

    def renamed(node: JsonValue) -> JsonValue:
        if not isinstance(node, dict):
            return node
        changed = _map_subschemas(node, renamed)
        for keyword in ("properties", "dependentSchemas", "dependentRequired"):
            if isinstance(members := changed.get(keyword), dict):
                changed[keyword] = {legal(name): member for name, member in members.items()}
        if isinstance(required := changed.get("required"), list):
            changed["required"] = legal_names(required)
        if isinstance(dependent := changed.get("dependentRequired"), dict):
            changed["dependentRequired"] = {
                name: legal_names(needed)
                for name, needed in dependent.items()
                if isinstance(needed, list)
            }
        if changed.get("properties", {}) != node.get("properties", {}):
            changed.pop("propertyNames", None)  # It was written for the old names.
        return changed

    root = renamed(schema)
    return (root if names and isinstance(root, dict) else schema), names


def rename_members(value: JsonValue, names: Mapping[str, str]) -> JsonValue:
    """Return a copy with renamed members, at any depth; the value itself if there are no names."""
    if not names:
        return value
    if isinstance(value, dict):
        return {
            names.get(name, name): rename_members(inner, names) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [rename_members(item, names) for item in value]
    return value


# --- cleaning, and all steps together -----------------------------------------------------

_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array"})
"""All types but null, which the service refuses."""

_COUNTS: Final = (
    *("minLength", "maxLength", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "minContains", "maxContains"),
)

_KEYWORD_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("title", "description", "pattern", "format"), str),
    **dict.fromkeys(("contentEncoding", "contentMediaType"), str),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), (int, float)),
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), bool),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), dict),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems", "enum", "examples"), list),
}
"""The type that a keyword's value must have. A keyword with another value is left out."""

MAX_NOTED: Final = 10
"""How many of a tool's dropped keywords are reported."""

_NAMED_GROUP: Final = re.compile(r"\(\?<(?![=!])")
_UNICODE_CLASS: Final = re.compile(r"\\[pP]\{[^{}]*\}|\\u\{[0-9a-fA-F]+\}|\\c[A-Za-z]")

_MAY_BE_BOOLEAN: Final = ("additionalProperties", "unevaluatedProperties")

_LEFT_OUT: Final = frozenset(
    {"nullable", "id", "additionalItems", "dependencies", "contentSchema"}
    | {"not", "if", "then", "else"}
)
"""Keywords of older drafts, one that checks nothing, and those that become stricter if the schemas
in them become less strict."""

_ANNOTATIONS: Final = frozenset({"title", "description", "default", "examples"})


def sendable_schema(
    schema: object, budget: SchemaBudget | None = None
) -> tuple[JsonObject, Mapping[str, str], tuple[str, ...]]:
    """Return a schema that the service accepts for a tool's input.

    Args:
        schema: A caller's schema. It may be anything.
        budget: The limits that the schemas of all tools of a call share.

    Returns:
        The schema; the caller's name of each renamed property, by the sent name; and the dropped
        keywords, each with the value that JSON Schema forbids.
    """
    budget = budget or SchemaBudget()
    plain = plain_json(schema)
    cleaner = _Cleaner(budget)
    inlined = inline_references(plain, budget) if isinstance(plain, dict) else {}
    root, names = with_legal_names(_object_root(cleaner.clean(inlined)))
    return root, names, tuple(dict.fromkeys(cleaner.dropped))


class _Cleaner:
    """Cleans one tool's schema. Collects the keywords whose value JSON Schema forbids."""

    def __init__(self, budget: SchemaBudget) -> None:
        self.dropped: list[str] = []
        self._budget = budget

    def clean(self, node: JsonObject) -> JsonObject:
        """Return a clean copy of a schema."""
        known = {
            name: member for name, member in _modern(node).items() if self._takes(name, member)
        }
        if isinstance(patterns := known.get("patternProperties"), dict):
            known["patternProperties"] = {
                pattern: inner
                for pattern, inner in patterns.items()
                if self._takes("pattern", pattern)
            }
        booleans = {
            name: known[name] for name in _MAY_BE_BOOLEAN if isinstance(known.get(name), bool)
        }
        schemas = {
            name: _options(name, member) if name in _SCHEMA_KEYWORDS else _data(member)
            for name, member in known.items()
            if name not in booleans
        }
        cleaned = {**_map_subschemas(schemas, self._clean_inner), **booleans}
        return _without_idle_combinators(_without_idle_keywords(cleaned))

    def _clean_inner(self, node: JsonValue) -> JsonValue:
        if isinstance(node, dict):
            return self.clean(node)
        return None if node is False else {}

    def _takes(self, keyword: str, member: JsonValue) -> bool:
        """Whether a keyword is kept. Collects it if JSON Schema forbids its value."""
        if member is None or keyword.startswith("$") or keyword in _LEFT_OUT:
            return False
        if keyword not in _KEYWORD_TYPES or self._is_legal(keyword, member):
            return True
        if len(self.dropped) < MAX_NOTED:
            self.dropped.append(f"{keyword} {json_text(member):.40}")
        return False

    def _is_legal(self, keyword: str, member: Any) -> bool:
        """Whether JSON Schema allows a value for a known keyword."""
        kinds = _KEYWORD_TYPES[keyword]
        is_boolean = isinstance(member, bool)
        if not isinstance(member, kinds) or is_boolean != (kinds is bool):
            return False
        if keyword in _COUNTS:
            return member >= 0
        if keyword == "multipleOf":
            return member > 0
        if keyword != "pattern":
            return True
        known = self._budget.patterns
        if member not in known:
            self._budget.pattern_characters -= len(member)
            known[member] = self._budget.pattern_characters >= 0 and _is_pattern(member)
        return known[member]


def _is_pattern(value: str) -> bool:
    """Whether a text is a regular expression, as far as Python can tell.

    JSON Schema uses those of ECMAScript. Their own forms are first replaced by Python's.
    """
    if "(?P" in value:  # Python's own.
        return False
    pattern = _UNICODE_CLASS.sub("x", _NAMED_GROUP.sub("(?P<", value))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A later Python will read some sets differently.
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _modern(node: JsonObject) -> JsonObject:
    """Replace forms of older drafts by those of JSON Schema 2020-12."""
    modern = {**node}
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if node.get(exclusive) is True and inclusive in node:
            modern[exclusive] = modern.pop(inclusive)
    if isinstance(node.get("items"), list):
        modern["prefixItems"] = modern.pop("items")
    return modern


def _options(keyword: str, member: JsonValue) -> JsonValue:
    """Remove null from `anyOf` and `oneOf`: clients use it to mark optional values."""
    if keyword not in ("anyOf", "oneOf") or not isinstance(member, list):
        return member
    return [option for option in member if not (isinstance(option, dict) and _is_null(option))]


def _is_null(schema: JsonObject) -> bool:
    is_constant = schema.get("const", "") is None or schema.get("enum") == [None]
    return is_constant or schema.get("type") in ("null", ["null"])


def _data(value: JsonValue) -> JsonValue:
    """Return data without nulls and without `$ref` members that look like references."""
    if isinstance(value, dict):
        return {
            name: _data(member)
            for name, member in value.items()
            if member is not None and not (name == "$ref" and isinstance(member, str))
        }
    if isinstance(value, list):
        return [_data(item) for item in value if item is not None]
    return value


_CHECKED: Final = frozenset({"type", "required", "enum", "prefixItems", "dependentRequired"})


def _without_idle_keywords(node: JsonObject) -> JsonObject:
    """Remove types, choices and requirements that are empty, unknown or impossible."""
    kinds = node.get("type")
    known: list[JsonValue] = [
        kind
        for kind in (kinds if isinstance(kinds, list) else [kinds])
        if isinstance(kind, str) and kind in _TYPES
    ]
    names = dict.fromkeys(_texts(node.get("required")))
    properties = node.get("properties")
    required = [name for name in names if not isinstance(properties, dict) or name in properties]
    dependent = {
        name: list[JsonValue](dict.fromkeys(_texts(needed)))
        for name, needed in object_member(node, "dependentRequired").items()
        if isinstance(needed, list)
    }
    checked: JsonObject = {
        **node,
        "type": known[0] if len(known) == 1 else known,
        "required": list[JsonValue](required),
        "dependentRequired": {**dependent},
    }
    return {name: member for name, member in checked.items() if member or name not in _CHECKED}


def _without_idle_combinators(node: JsonObject) -> JsonObject:
    """Remove empty combinators, and merge those of a single schema into their parent."""
    for keyword in COMBINATORS:
        pieces = node.get(keyword)
        if not isinstance(pieces, list) or len(pieces) > 1:
            continue
        rest = {name: member for name, member in node.items() if name != keyword}
        only: JsonValue = pieces[0] if pieces else {}
        if isinstance(only, dict) and not (only.keys() & rest.keys()) - _ANNOTATIONS:
            node = {**only, **rest}
    return node
