"""Arguments against the schema of their tool."""

import json
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from kiro_mcp.chat import JsonObject
from kiro_mcp.wire.schema_check import (
    MAX_SCHEMA_ERRORS,
    MAX_SENTENCE_CHARACTERS,
    SchemaCheck,
    UnusableSchemaError,
    check_slowly,
)


def errors(schema: JsonObject, value: Any) -> tuple[str, ...]:
    """Return what is found without haste, and see that haste finds the same or nothing."""
    (found,) = check_slowly(schema, [value], name="arguments")
    assert SchemaCheck(schema).errors(value) in (found, None)
    return found


def test_each_violation_says_where_it_is() -> None:
    """The model corrects its call by it."""
    schema: JsonObject = {
        "required": ["a"],
        "properties": {"b": {"items": {"type": "string"}}},
    }
    assert errors(schema, {"a": 1, "b": ["x"]}) == ()
    assert errors(schema, {"b": ["x", 2]}) == (
        'arguments: "a" is a required property',
        'arguments.b[1]: 2 is not of type "string"',
    )


def test_violations_are_few_and_short() -> None:
    """A thousand wrong items give the same error, and a value may be a whole file."""
    schema: JsonObject = {"additionalProperties": {"type": "integer"}}
    found = errors(schema, {str(number): "x" * 1000 for number in range(MAX_SCHEMA_ERRORS + 1)})
    assert [len(sentence) for sentence in found] == [MAX_SENTENCE_CHARACTERS] * MAX_SCHEMA_ERRORS


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"required": "x" * 1000},
        {"$ref": "#/nowhere"},
        {"$ref": "x" * 1000},
        {"pattern": "("},
    ],
)
def test_the_reason_for_an_unusable_schema_is_one_short_line(schema: JsonObject) -> None:
    """It ends a sentence. The library's own words are pages."""
    with pytest.raises(UnusableSchemaError) as caught:
        check_slowly(schema, [{"a": 1}], name="arguments")
    (line,) = str(caught.value).splitlines()
    assert 0 < len(line) <= 100


def test_a_schema_with_a_reference_of_megabytes_is_unusable() -> None:
    with pytest.raises(UnusableSchemaError, match="a reference has more than 1000 characters"):
        SchemaCheck({"allOf": [{"$ref": "#/" + "a/" * 500_000}]})


def test_nothing_outside_a_schema_is_ever_fetched(tmp_path: Path) -> None:
    """A stranger's schema must not make this program open files and addresses."""
    outside = tmp_path / "outside.json"
    outside.write_text('{"type": "string"}', "utf-8")
    schema: JsonObject = {"properties": {"a": {"$ref": outside.as_uri()}}}
    with pytest.raises(UnusableSchemaError):
        check_slowly(schema, [{"a": 1}], name="arguments")


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        pytest.param({"pattern": r"^(?!x)\w+$"}, "a", "xa", id="lookahead"),
        pytest.param({"pattern": r"^(a|b)\1$"}, "aa", "ab", id="back-reference"),
        pytest.param({"pattern": r"^\p{L}{1,200}$"}, "äß", "1", id="large-pattern"),
        pytest.param({"properties": {"a": {"$ref": "#"}}, "type": "object"}, {"a": {}}, {"a": 1}),
        pytest.param({"$schema": "https://example.com/mine", "type": "string"}, "a", 1),
        pytest.param(
            {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}, "", 1
        ),
    ],
)
def test_every_kind_of_keyword_is_checked(schema: JsonObject, valid: Any, invalid: Any) -> None:
    """JSON Schema: patterns are ECMA-262, and a schema may refer to itself."""
    assert errors(schema, valid) == ()
    assert errors(schema, invalid)


def doubled(levels: int, keyword: str) -> JsonObject:
    """Return a schema whose every level refers to the next one twice."""
    definitions: dict[str, Any] = {
        f"a{level}": {keyword: [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": {**definitions, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def nested(levels: int) -> JsonObject:
    return {"items": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(doubled(40, "allOf"), 3, id="all-of-two-references"),
        pytest.param(doubled(40, "anyOf"), 3, id="any-of-two-references"),
        pytest.param({"properties": {"x": {"allOf": [{"$ref": "#"}] * 2}}}, {}, id="recursive"),
        pytest.param({"unevaluatedProperties": False}, {}, id="unevaluated"),
        pytest.param(nested(100), [], id="deep"),
        pytest.param({"enum": list(range(10_000))}, 1, id="large-schema"),
        pytest.param({"allOf": [{"pattern": f"a{n}"} for n in range(9)]}, 1, id="many-patterns"),
        pytest.param({"pattern": r"(\p{L}{50}){50}"}, "a", id="large-pattern"),
        pytest.param({"pattern": "(a|b)" * 1_000}, "a", id="long-pattern"),
        pytest.param({"items": {"type": "integer"}}, [1] * 100_000, id="large-value"),
        pytest.param({"type": "object"}, "x" * 10_000_000, id="long-text"),
        pytest.param({"items": {"type": "integer"}}, [""] * 2_000, id="many-violations"),
    ],
)
def test_a_slow_check_is_left_to_a_process_of_its_own(schema: JsonObject, value: Any) -> None:
    """The library blocks the whole process, and some of these would take hours."""
    assert SchemaCheck(schema).errors(value) is None


def test_nested_quantifiers_take_linear_time() -> None:
    """A backtracking engine would never end."""
    assert errors({"pattern": "^([a-zA-Z0-9]+)+@x$"}, "a" * 10_000)


def test_the_process_of_a_check_speaks_json() -> None:
    """Schemas and values are JSON."""
    command = [sys.executable, "-m", "kiro_mcp.client.schema_process"]
    asked: dict[str, Any] = {"schema": {"type": "string"}, "values": ["ä", 1], "name": "$"}
    done = run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"errors": [[], ['$: 1 is not of type "string"']]}
    asked = {"schema": {"type": "objekt"}, "values": [], "name": "$"}
    done = run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    assert "objekt" in json.loads(done.stdout)["unusable"]
