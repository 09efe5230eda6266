"""Arguments against the schema of their tool."""

import warnings
from pathlib import Path

import pytest

from kiro_mcp.models import JsonObject
from kiro_mcp.protocol.schema_check import (
    MAX_SCHEMA_ERRORS,
    MAX_SENTENCE_CHARACTERS,
    SchemaCheck,
    UnusableSchemaError,
)


def test_each_violation_says_where_it_is() -> None:
    """Ours: the model mends its call by it."""
    check = SchemaCheck({"required": ["a"], "properties": {"b": {"items": {"type": "string"}}}})
    assert check.errors({"a": 1, "b": ["x"]}) == ()
    assert check.errors({"b": ["x", 2]}) == (
        "arguments: 'a' is a required property",
        "arguments.b[1]: 2 is not of type 'string'",
    )


def test_violations_are_few_and_short() -> None:
    """Ours: a thousand wrong items say the same thing each time, and one may be a whole file."""
    check = SchemaCheck({"additionalProperties": {"type": "integer"}})
    found = check.errors({str(number): "x" * 1000 for number in range(MAX_SCHEMA_ERRORS + 1)})
    assert [len(sentence) for sentence in found] == [MAX_SENTENCE_CHARACTERS] * MAX_SCHEMA_ERRORS


@pytest.mark.parametrize(
    "schema",
    [{"type": "objekt"}, {"required": "x" * 1000}, {"$ref": "#/nowhere"}, {"$ref": "x" * 1000}],
)
def test_why_a_schema_is_unusable_is_one_short_line(schema: JsonObject) -> None:
    """Ours: it ends a sentence. The validator's own words are pages."""
    with pytest.raises(UnusableSchemaError) as caught:
        SchemaCheck(schema).errors({"a": 1})
    (line,) = str(caught.value).splitlines()
    assert 0 < len(line) <= 100


def test_nothing_outside_of_a_schema_is_ever_fetched(tmp_path: Path) -> None:
    """Ours: a stranger's schema must not make this program open files and addresses."""
    outside = tmp_path / "outside.json"
    outside.write_text('{"type": "string"}', "utf-8")
    check = SchemaCheck({"properties": {"a": {"$ref": outside.as_uri()}}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Else the library's own about fetching would end it.
        with pytest.raises(UnusableSchemaError):
            check.errors({"a": 1})
