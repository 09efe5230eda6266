"""A tool's JSON Schema as callers write it -> one that the service takes.

References are inlined, the root becomes an object's, and what the service or JSON Schema 2020-12
does not take is left out: nulls, boolean schemas, keywords of older drafts, values that a keyword
must not have. Properties get names that the service takes (`kiro_mcp.wire.property_names`).
A change allows more rather than less than before: arguments are checked against the caller's own
schema later.
Source of truth: the refusals that users of the service report, and JSON Schema 2020-12. The
caller's object is never changed.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.json_values import json_text, plain_json
from kiro_mcp.wire.property_names import with_legal_names
from kiro_mcp.wire.schema_nodes import is_schema_keyword, map_subschemas
from kiro_mcp.wire.schema_refs import ReferenceBudget, inline_references
from kiro_mcp.wire.schema_root import COMBINATORS, object_root

_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array"})
"""Every type but null: what may be null may as well be left out."""

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
"""What a keyword's value must be; one with another value is left out."""

MAX_PATTERN_CHARACTERS: Final = 4_000
"""How much of regular expressions is checked, for all tools of a call together (40 ms). What comes
after is left out."""

MAX_NOTED: Final = 10
"""How many keywords that were left out are named for one tool."""

_NAMED_GROUP: Final = re.compile(r"\(\?<(?![=!])")
_UNICODE_CLASS: Final = re.compile(r"\\[pP]\{[^{}]*\}|\\u\{[0-9a-fA-F]+\}|\\c[A-Za-z]")

_MAY_BE_BOOLEAN: Final = ("additionalProperties", "unevaluatedProperties")

_LEFT_OUT: Final = frozenset(
    {"nullable", "id", "additionalItems", "dependencies", "contentSchema"}
    | {"not", "if", "then", "else"}
)
"""Keywords of older drafts, one that checks nothing, and those that would forbid more if what is
in them allows more."""

_ANNOTATIONS: Final = frozenset({"title", "description", "default", "examples"})


@dataclass(slots=True)
class SchemaBudget:
    """What the schemas of all tools of a call may still take."""

    references: ReferenceBudget = field(default_factory=ReferenceBudget)
    pattern_characters: int = MAX_PATTERN_CHARACTERS
    patterns: dict[str, bool] = field(default_factory=dict[str, bool])
    """Which texts were checked, and whether they are regular expressions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSchema:
    """A schema that the service takes, and what was changed in it."""

    schema: JsonObject
    property_names: Mapping[str, str]
    """The caller's name of each renamed property, by the name that is sent."""
    dropped: tuple[str, ...]
    """The keywords whose value JSON Schema forbids, each with that value."""


def sendable_schema(schema: object, budget: SchemaBudget | None = None) -> SentSchema:
    """Make a schema that the service takes for a tool's input, out of anything at all.

    Args:
        schema: What a caller gave.
        budget: What the schemas of all tools of a call share.
    """
    budget = budget or SchemaBudget()
    plain = plain_json(schema)
    inlined = inline_references(plain, budget.references) if isinstance(plain, dict) else {}
    cleaner = _Cleaner(budget)
    root, names = with_legal_names(object_root(cleaner.cleaned(inlined)))
    return SentSchema(
        schema=root, property_names=names, dropped=tuple(dict.fromkeys(cleaner.dropped))
    )


def sanitised_schema(schema: object) -> JsonObject:
    """Return a schema that the service takes for a tool's input, made of anything at all."""
    return sendable_schema(schema).schema


class _Cleaner:
    """Cleans one tool's schema, and notes which keywords had a value that JSON Schema forbids."""

    def __init__(self, budget: SchemaBudget) -> None:
        self.dropped: list[str] = []
        self._budget = budget

    def _clean(self, node: JsonValue) -> JsonValue:
        """Clean one schema inside another; None leaves it out."""
        if node is False:
            return None
        return self.cleaned(node) if isinstance(node, dict) else {}

    def cleaned(self, node: JsonObject) -> JsonObject:
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
            name: _options(name, member) if is_schema_keyword(name) else _data(member)
            for name, member in known.items()
            if name not in booleans
        }
        cleaned = {**map_subschemas(schemas, self._clean), **booleans}
        return _without_idle_combinators(_without_idle_keywords(cleaned))

    def _takes(self, keyword: str, member: JsonValue) -> bool:
        """Whether a keyword may have a value; notes the value if JSON Schema forbids it."""
        if member is None or keyword.startswith("$") or keyword in _LEFT_OUT:
            return False
        kinds = _KEYWORD_TYPES.get(keyword)
        if kinds is None:
            return True
        is_of_type = isinstance(member, kinds) and (kinds is bool or not isinstance(member, bool))
        if is_of_type and self._is_legal(keyword, member):
            return True
        if len(self.dropped) < MAX_NOTED:
            self.dropped.append(f"{keyword} {json_text(member):.40}")
        return False

    def _is_legal(self, keyword: str, member: Any) -> bool:
        """Whether JSON Schema allows a value that is of the keyword's type."""
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

    JSON Schema has those of ECMAScript, so what only they have is first written in Python's way.
    """
    if "(?P" in value:  # Python's own.
        return False
    pattern = _UNICODE_CLASS.sub("x", _NAMED_GROUP.sub("(?P<", value))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of sets that a later Python will read otherwise.
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _modern(node: JsonObject) -> JsonObject:
    """Write what older drafts write in another way as JSON Schema 2020-12 does."""
    modern = {**node}
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if node.get(exclusive) is True and inclusive in node:
            modern[exclusive] = modern.pop(inclusive)
    if isinstance(node.get("items"), list):
        modern["prefixItems"] = modern.pop("items")
    return modern


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
    checked: JsonObject = {
        **node,
        "type": _kind(node.get("type")),
        "required": _required(node),
        "dependentRequired": _dependent(node.get("dependentRequired")),
    }
    return {name: member for name, member in checked.items() if member or name not in _CHECKED}


_CHECKED: Final = frozenset({"type", "required", "enum", "prefixItems", "dependentRequired"})


def _kind(kind: JsonValue) -> JsonValue:
    kinds = kind if isinstance(kind, list) else [kind]
    known: list[JsonValue] = [item for item in kinds if isinstance(item, str) and item in _TYPES]
    return known[0] if len(known) == 1 else known


def _required(node: JsonObject) -> JsonValue:
    given, properties = node.get("required"), node.get("properties")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    known = properties if isinstance(properties, dict) else names
    return [name for name in dict.fromkeys(names) if name in known]


def _dependent(given: JsonValue) -> JsonValue:
    if not isinstance(given, dict):
        return {}
    lists = {name: names for name, names in given.items() if isinstance(names, list)}
    return {
        name: list[JsonValue](dict.fromkeys(item for item in names if isinstance(item, str)))
        for name, names in lists.items()
    }


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
