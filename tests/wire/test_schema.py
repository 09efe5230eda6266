"""Schemas of tools, as the service takes them."""

import copy
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from kiro_mcp.chat import JsonObject, JsonValue, ToolSpec
from kiro_mcp.wire.schema import (
    MAX_NOTED,
    MAX_REFERRED_NODES,
    MAX_SCHEMA_DEPTH,
    inline_references,
    sendable_schema,
)
from kiro_mcp.wire.tools import sendable_tools

EMPTY: dict[str, Any] = {"type": "object", "properties": {}}


def sent(schema: object) -> dict[str, Any]:
    """Return the schema that is sent for a caller's schema."""
    return cast("dict[str, Any]", sendable_schema(schema)[0])


def property_of(schema: Any) -> Any:
    """Return the schema that is sent for a property with this schema."""
    return sent({"type": "object", "properties": {"p": schema}})["properties"].get("p")


def test_a_plain_object_schema_is_sent_as_it_is() -> None:
    """JSON Schema 2020-12: what most tools have."""
    schema = {
        "type": "object",
        "title": "Arguments",
        "properties": {
            "path": {"type": "string", "minLength": 1, "description": "Where."},
            "mode": {"enum": ["r", "w"], "default": "r"},
            "deep": {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    assert sent(schema) == schema


@pytest.mark.parametrize(
    "schema",
    [None, True, False, 3, "x", [], {}, {"type": "object"}, {"type": ["object", "null"]}],
)
def test_a_schema_that_says_nothing_becomes_an_object(schema: object) -> None:
    """Observed: the root is an object with properties."""
    assert sent(schema) == EMPTY


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "array", "items": {"type": "integer"}},
        {"type": ["string", "integer"]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    ],
)
def test_a_root_of_another_type_becomes_the_one_property_of_an_object(
    schema: dict[str, Any],
) -> None:
    """Observed is that the service refuses any other root."""
    assert sent(schema) == {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
    }


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"required": None}, EMPTY),
        ({"properties": None}, EMPTY),
        ({"properties": [1]}, EMPTY),
        ({"required": []}, EMPTY),
        ({"required": "a"}, EMPTY),
        ({"required": ["stray", 3]}, EMPTY),
        ({"$schema": "x", "$id": "y", "$comment": "z", "$anchor": "a", "id": "i"}, EMPTY),
        ({"description": None, "title": 3}, EMPTY),
        ({"additionalProperties": None}, EMPTY),
        ({"additionalProperties": True}, {**EMPTY, "additionalProperties": True}),
        ({"additionalProperties": {}}, {**EMPTY, "additionalProperties": {}}),
        (
            {"properties": {"a": {}}, "required": ["a", "b", "a"]},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
    ],
)
def test_what_the_service_refuses_at_the_root_is_left_out(
    members: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Observed: nulls, and requirements of what is no property, are refused."""
    assert sent({"type": "object", **members}) == expected


INSIDE: dict[str, tuple[Any, Any]] = {
    "nullable-list": ({"type": ["string", "null"]}, {"type": "string"}),
    "types": ({"type": ["string", "integer"]}, {"type": ["string", "integer"]}),
    "null": ({"type": "null"}, {}),
    "unknown-type": ({"type": "any"}, {}),
    "openapi": ({"type": "string", "nullable": True}, {"type": "string"}),
    "pydantic-optional": (
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "P"},
        {"type": "string", "title": "P"},
    ),
    "union-with-null": (
        {"anyOf": [{"type": "string"}, {"type": "integer"}, {"const": None}]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    ),
    "union-with-enum-of-null": (
        {"anyOf": [{"type": "string"}, {"enum": [None]}]},
        {"type": "string"},
    ),
    "union-with-true": ({"anyOf": [True, {"type": "string"}]}, {"anyOf": [{}, {"type": "string"}]}),
    "nothing-but-null": ({"oneOf": [None, {"enum": [None]}]}, {}),
    "enum-with-null": ({"enum": ["a", None]}, {"enum": ["a"]}),
    "enum-of-null": ({"enum": [None]}, {}),
    "enum-of-text": ({"enum": "a"}, {}),
    "const-null": ({"const": None}, {}),
    "true": (True, {}),
    "false": (False, None),
    "no-schema": (None, {}),
    "list": ([1], {}),
    "items-true": ({"items": True}, {"items": {}}),
    "items-false": ({"items": False}, {}),
    "list-where-a-schema-stands": ({"contains": [{"type": "string"}]}, {"contains": {}}),
    "tuple-of-older-drafts": (
        {"items": [{"type": "string"}, True], "additionalItems": False},
        {"prefixItems": [{"type": "string"}, {}]},
    ),
    "bounds-of-older-drafts": (
        {"minimum": 1, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False},
        {"exclusiveMinimum": 1, "maximum": 5},
    ),
    "wrong-types": ({"minimum": True, "minLength": 1.5, "uniqueItems": 1}, {}),
    "boolean-keyword": ({"uniqueItems": True}, {"uniqueItems": True}),
    "not": ({"not": {"type": "null"}}, {}),
    "all-of-one": ({"allOf": [{"type": "string"}]}, {"type": "string"}),
    "all-of-none": ({"allOf": []}, {}),
    "combinator-that-adds": (
        {"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]},
        {"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]},
    ),
    "requirements-of-alternatives": (
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    ),
    "unknown-keyword": (
        {"patternProperties": {"^x": True}, "x-own": {"a": None}},
        {"patternProperties": {"^x": {}}, "x-own": {}},
    ),
    "data-that-looks-like-a-reference": (
        {"default": {"$ref": "#/x", "a": [None, {"$ref": {}}]}},
        {"default": {"a": [{"$ref": {}}]}},
    ),
    "properties-named-like-keywords": (
        {"properties": {"pattern": {"type": "string"}, "items": True, "id": True}},
        {"properties": {"pattern": {"type": "string"}, "items": {}, "id": {}}},
    ),
}


ECMASCRIPT = r"^(?<year>\d{4})(?<=\p{L})\u{1F600}$"
FORBIDDEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"maxLength": -1, "minLength": 0}, {"minLength": 0}),
    ({"multipleOf": 0, "maximum": -1}, {"maximum": -1}),
    ({"pattern": "["}, {}),
    ({"pattern": "(?P<python>a)"}, {}),
    ({"pattern": ECMASCRIPT}, {"pattern": ECMASCRIPT}),
    ({"patternProperties": {"[": {}, "^x-": {}}}, {"patternProperties": {"^x-": {}}}),
    ({"items": []}, {}),
    ({"dependentRequired": {"a": ["b", "b", 3], "c": "d"}}, {"dependentRequired": {"a": ["b"]}}),
]


@pytest.mark.parametrize(("schema", "expected"), FORBIDDEN)
def test_values_that_json_schema_forbids_are_left_out(schema: Any, expected: Any) -> None:
    """JSON Schema 2020-12: the service checks tools by it, and refuses the whole request."""
    assert property_of(schema) == expected


def test_patterns_are_checked_up_to_a_limit_and_left_out_past_it() -> None:
    """Checking 1,000 characters takes up to 10 ms, and all other calls wait."""
    patterns = [f"^{index}{'x' * 90}$" for index in range(100)]
    properties = {f"p{index}": {"pattern": one} for index, one in enumerate(patterns * 2)}
    schema, _, dropped = sendable_schema({"type": "object", "properties": properties})
    kept = [name for name, one in cast("Any", schema["properties"]).items() if one]
    assert 40 <= len(kept) // 2 <= 50
    assert len(dropped) == MAX_NOTED


@pytest.mark.parametrize(("schema", "expected"), INSIDE.values(), ids=INSIDE.keys())
def test_inner_schemas_are_cleaned(schema: Any, expected: Any) -> None:
    """For the service's refusals and JSON Schema 2020-12."""
    assert property_of(schema) == expected


WRONG_VALUES: list[tuple[str, object]] = [
    ("title description pattern format", 3),
    ("minimum maximum multipleOf exclusiveMinimum exclusiveMaximum", "3"),
    ("minLength maxLength minItems maxItems", 1.5),
    ("minProperties maxProperties minContains maxContains", True),
    ("uniqueItems deprecated readOnly writeOnly", 1),
    ("properties patternProperties dependentSchemas", [{"type": "string"}]),
    ("allOf anyOf oneOf prefixItems enum examples", {"a": 1}),
]


@pytest.mark.parametrize(
    ("keyword", "value"), [(word, value) for words, value in WRONG_VALUES for word in words.split()]
)
def test_a_keyword_with_a_wrong_value_is_left_out(keyword: str, value: object) -> None:
    """JSON Schema 2020-12 says what each may have; the service refuses anything else."""
    assert property_of({"type": "object", keyword: value}) == {"type": "object"}


# --- combinators at the root --------------------------------------------------------------


def test_alternatives_at_the_root_are_merged() -> None:
    """Observed: the service refuses combinators at the root."""
    schema = {
        "description": "Either.",
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": "file"}, "path": {"type": "string"}},
                "required": ["kind", "path"],
            },
            {
                "type": "object",
                "properties": {"kind": {"const": "url"}, "path": {"type": "string"}},
                "required": ["kind"],
            },
            {"type": "string"},
        ],
    }
    assert sent(schema) == {
        "description": "Either.",
        "type": "object",
        "properties": {
            "kind": {"anyOf": [{"const": "file"}, {"const": "url"}]},
            "path": {"type": "string"},
        },
        "required": ["kind"],
    }


def test_all_parts_at_the_root_are_merged_at_any_depth() -> None:
    """Observed: the service refuses combinators at the root."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "allOf": [
            {"properties": {"a": {"minLength": 1}, "b": {}}, "required": ["b"]},
            {"anyOf": [{"properties": {"c": {}}}, {"properties": {"d": {}}}]},
        ],
    }
    assert sent(schema) == {
        "type": "object",
        "properties": {
            "a": {"allOf": [{"type": "string"}, {"minLength": 1}]},
            "b": {},
            "c": {},
            "d": {},
        },
        "required": ["a", "b"],
    }


# --- references ---------------------------------------------------------------------------


def test_references_are_inlined() -> None:
    """Observed: the service takes no references."""
    schema = {
        "type": "object",
        "$defs": {"Path": {"type": "string", "description": "A path."}},
        "definitions": {"old/name~": {"type": "integer"}},
        "properties": {
            "a": {"$ref": "#/$defs/Path", "description": "Mine."},
            "b": {"type": "array", "items": {"$ref": "#/definitions/old~1name~0"}},
            "c": {"$ref": "#/properties/b/items"},
            "d": {"anyOf": [{"$ref": "#/$defs/Path"}, {"type": "null"}]},
            "e": {"$ref": "#/properties/d/anyOf/0"},
        },
    }
    path = {"type": "string", "description": "A path."}
    assert sent(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "string", "description": "Mine."},
            "b": {"type": "array", "items": {"type": "integer"}},
            "c": {"type": "integer"},
            "d": path,
            "e": path,
        },
    }


HOLDERS: list[tuple[str, Callable[[JsonValue], JsonValue]]] = [
    ("items contains propertyNames additionalItems unevaluatedItems", lambda inner: inner),
    ("additionalProperties unevaluatedProperties not if then else", lambda inner: inner),
    ("items allOf anyOf oneOf prefixItems", lambda inner: [True, inner]),
    ("properties patternProperties dependentSchemas", lambda inner: {"a": True, "b": inner}),
]


@pytest.mark.parametrize(
    ("keyword", "holding"),
    [(word, holding) for words, holding in HOLDERS for word in words.split()],
)
def test_references_are_found_in_whatever_holds_schemas(
    keyword: str, holding: Callable[[JsonValue], JsonValue]
) -> None:
    """JSON Schema 2020-12 and its older drafts: the keywords that apply subschemas."""
    text: JsonObject = {"type": "string"}
    schema: JsonObject = {keyword: holding({"$ref": "#/$defs/x"}), "$defs": {"x": text}}
    assert inline_references(schema) == {keyword: holding(text)}


@pytest.mark.parametrize("keyword", ["$dynamicRef", "$recursiveRef", "$defs", "definitions"])
def test_definitions_are_left_out(keyword: str) -> None:
    """JSON Schema 2020-12 and its older drafts."""
    schema: JsonObject = {"type": "object", "properties": {"a": {keyword: "#x", "title": "A"}}}
    expected: JsonObject = {"type": "object", "properties": {"a": {"title": "A"}}}
    assert inline_references({**schema, keyword: {"x": {}}}) == expected


def test_a_schema_that_contains_itself_without_a_type_allows_anything() -> None:
    schema: JsonObject = {"properties": {"p": {"$ref": "#"}}}
    assert inline_references(schema) == {"properties": {"p": {}}}


@pytest.mark.parametrize("keyword", ["default", "const", "enum", "examples", "x-own"])
def test_a_reference_in_data_is_left_alone(keyword: str) -> None:
    """JSON Schema 2020-12: a member is a reference only where a schema may stand."""
    schema: dict[str, Any] = {keyword: [{"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "string"}}}
    assert inline_references(schema) == {keyword: [{"$ref": "#/$defs/x"}]}


def test_a_schema_that_contains_itself_ends_with_its_type() -> None:
    """Its type is all that is left there."""
    node: dict[str, Any] = {
        "type": "object",
        "properties": {
            "next": {"$ref": "#/$defs/Node"},
            "all": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
        "required": ["next"],
    }
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    assert sent(schema) == {
        "type": "object",
        "properties": {
            "next": {"type": "object"},
            "all": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["next"],
    }
    loop: dict[str, Any] = {
        "properties": {"p": {"$ref": "#"}, "q": {"$ref": "#/$defs/x"}},
        "$defs": {"x": {}},
    }
    assert sent({"type": "object", **loop}) == {
        "type": "object",
        "properties": {"p": {"type": "object"}, "q": {}},
    }


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.com/x",
        "other.json",
        "#/no/where",
        "#/$defs/a/9",
        "#anchor",
        "#/type/0",
        "#/$defs/n/0",
        3,
    ],
)
def test_a_reference_without_a_target_allows_anything(reference: object) -> None:
    """Nothing is ever fetched."""
    schema: dict[str, Any] = {
        "type": "object",
        "$defs": {"a": [], "n": 3},
        "properties": {"p": {"$ref": reference, "title": "P"}},
    }
    assert sent(schema)["properties"] == {"p": {"title": "P"}}


def test_definitions_that_multiply_are_bounded() -> None:
    """A few hundred bytes of schema must not become gigabytes."""
    names = [f"d{index}" for index in range(30)]
    definitions = {
        name: {
            "type": "object",
            "properties": {key: {"$ref": f"#/$defs/{after}"} for key in "abcd"},
        }
        for name, after in zip(names, [*names[1:], "end"], strict=True)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": definitions}
    assert len(json.dumps(sent(schema))) < 500_000


def test_a_schema_may_nest_no_deeper_than_the_limit() -> None:
    schema: dict[str, Any] = {"type": "string", "title": "bottom"}
    for _ in range(MAX_SCHEMA_DEPTH + 5):
        schema = {"type": "array", "items": schema}
    inlined = json.dumps(inline_references(schema))
    assert inlined.count("array") == MAX_SCHEMA_DEPTH + 2
    assert "bottom" not in inlined


def test_the_callers_schema_is_not_changed() -> None:
    """Callers keep what they hand over."""
    schema = {
        "anyOf": [{"$ref": "#/$defs/a"}, None],
        "$defs": {"a": {"type": ["object", "null"], "required": None}},
    }
    before = copy.deepcopy(schema)
    sent(schema)
    assert schema == before


def test_the_references_of_all_tools_share_one_limit() -> None:
    """A hundred small tools must not become gigabytes, either."""
    both = {
        f"a{n}": {"properties": {side: {"$ref": f"#/$defs/a{n + 1}"} for side in "xy"}}
        for n in range(18)
    }
    schema: dict[str, Any] = {"type": "object", "$ref": "#/$defs/a0", "$defs": both}
    tools = [ToolSpec(name=f"t{n}", description="x", input_schema=schema) for n in range(100)]
    schemas = [spec.input_schema for spec in sendable_tools(tools, []).specs]
    assert len(schemas) == 100
    assert json.dumps(schemas).count('"properties"') < MAX_REFERRED_NODES


def test_a_long_chain_of_references_ends() -> None:
    """What is behind it may be anything."""
    chain: dict[str, Any] = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(100_000)}
    schema: dict[str, Any] = {"properties": {"p": {"$ref": "#/$defs/a0"}}, "$defs": chain}
    assert inline_references(schema) == {"properties": {"p": {}}}
