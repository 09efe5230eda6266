"""Answers by a schema."""

import json
from typing import Any

import pytest

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.schema_check import check_slowly
from kiro_mcp.wire.typed_answers import (
    TypedAnswer,
    best_answer,
    json_candidates,
    open_schema,
    repair_prompt,
    typed_instruction,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["n"],
}


def read_typed_answer(text: str, schema: dict[str, Any]) -> TypedAnswer:
    values = json_candidates(text)
    return best_answer(values, check_slowly(schema, values, name="$"))


def test_the_model_is_told_the_schema() -> None:
    assert typed_instruction({"title": "Größe"}).endswith('\n{"title":"Größe"}')


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1}',
        ' \n{"n": 1}\n',
        '```json\n{"n": 1}\n```',
        'Here it is:\n```\n{"n": 1}\n```\nDone.',
        '```json\n{"n": "x"}\n```\nor rather\n```json\n{"n": 1}\n```',
        'The answer [1] is {"n": 1}, I think.',
        'The answer [so to speak] is {"n": 1}.',
        'With {braces} and {"n": of any kind}, or {} and [0]: {"n": 1}',
        'First {"n": 7}, no: {"n": 1}. Done [1].',
        "{" * 500 + '{"n": 1}',
        '{"n": ' * 500 + '? {"n": 1}',
        'A long one: {"tags": ["' + "x" * 5000 + '"], "n": "y"}; a good one: {"n": 1}',
    ],
)
def test_a_valid_value_is_found_anywhere_in_the_answer(text: str) -> None:
    """Observed: models wrap JSON in words and fences, whatever the prompt says."""
    assert read_typed_answer(text, SCHEMA) == TypedAnswer(data={"n": 1}, violations=())


def test_a_long_value_in_prose_is_found_whole() -> None:
    """It is read in growing pieces; a value inside of it is not the answer."""
    value = {"n": 1, "tags": ["x" * length for length in (5, 50, 500, 5_000)], "inner": {"n": 2}}
    text = f"Here it is: {json.dumps(value)}. Done."
    assert read_typed_answer(text, SCHEMA).data == value


def test_a_fence_inside_the_value_does_not_end_it() -> None:
    """Code is a common value."""
    text = '```json\n{"n": 1, "tags": ["```py\\nx\\n```"]}\n```'
    assert read_typed_answer(text, SCHEMA).data == {"n": 1, "tags": ["```py\nx\n```"]}


def test_violations_name_their_paths() -> None:
    """The model needs to know where."""
    answer = read_typed_answer('{"n": "x", "tags": ["a", 2]}', SCHEMA)
    assert answer.data == {"n": "x", "tags": ["a", 2]}
    assert answer.violations == (
        '$.n: "x" is not of type "integer"',
        '$.tags[1]: 2 is not of type "string"',
    )
    prompt = repair_prompt(answer.violations)
    assert '- $.tags[1]: 2 is not of type "string"\n' in prompt


@pytest.mark.parametrize("text", ['```\n{"n": "x"}\n```\n```\n[]\n```', 'In {} and []: {"n": "x"}'])
def test_of_several_invalid_values_the_largest_is_reported(text: str) -> None:
    """It is the most likely answer."""
    assert read_typed_answer(text, SCHEMA).data == {"n": "x"}


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "So:\n```\n{}\n``` it is"])
def test_a_fenced_value_of_any_kind_is_found(fence: str) -> None:
    """Observed: models put texts and numbers in fences, too."""
    assert read_typed_answer(fence.replace("{}", '"x"'), {"type": "string"}).data == "x"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```\n" + " " * 1_000_000, id="fence-and-blanks"),
        pytest.param("[" * 1_000_000, id="brackets"),
        pytest.param("{x " * 300_000, id="braces-in-prose"),
        pytest.param("[1," * 300_000, id="lists-cut-off"),
        pytest.param('["' * 500_000, id="quotes"),
        pytest.param('["\\"' * 250_000, id="escaped-quotes"),
        pytest.param('{"a": 1} ' * 100_000, id="many-values"),
        pytest.param("```" * 300_000, id="fences"),
    ],
)
def test_values_are_found_in_linear_time(text: str) -> None:
    """If it were quadratic, each of these would take many minutes."""
    assert len(json_candidates(text)) <= 100


@pytest.mark.parametrize(
    "text", ["", "No.", '{"n": 1', '```json\n{"tags": [{"n": 1}, {"n"\n```', "[{"]
)
def test_an_answer_without_a_whole_value_says_so(text: str) -> None:
    """A part of a cut-off value must not count as the whole."""
    answer = read_typed_answer(text, SCHEMA)
    assert answer.data is None
    assert answer.violations == ("$: the answer has no JSON value.",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('"a\\u0000b"', "a\0b", id="nul"),
        pytest.param(str(10**400), 10**400, id="large"),
        pytest.param('"\\ud83d\\ude00 \\ud83d"', "😀 \ufffd", id="half-a-character"),
        pytest.param("[null, -0.0, 1.0]", [None, -0.0, 1.0], id="numbers"),
    ],
)
def test_data_is_exactly_the_answers_value(text: str, value: object) -> None:
    """The caller may want values that the service does not take."""
    assert repr(read_typed_answer(text, {"title": "x"}).data) == repr(value)


@pytest.mark.parametrize("text", ["NaN", '{"n": [1, 1e400]}', "[" * 300 + "]" * 300])
def test_a_value_that_cannot_be_returned_is_an_error(text: str) -> None:
    """Null would be a different answer."""
    answer = read_typed_answer(text, {"title": "x"})
    assert answer == TypedAnswer(data=None, violations=("$: the answer has no JSON value.",))


def test_a_part_of_a_value_is_not_an_answer() -> None:
    """Whether the value itself is valid or not."""
    answer = read_typed_answer('Here: {"tags": ["a"]}', {"type": "array"})
    assert (answer.data, len(answer.violations)) == ({"tags": ["a"]}, 1)


def test_any_json_value_can_be_asked_for() -> None:
    """JSON Schema: the root need not be an object."""
    assert read_typed_answer("[1, 2]", {"type": "array"}).violations == ()
    assert read_typed_answer("3", {"type": "string"}).violations


@pytest.mark.parametrize(
    "given",
    [
        SCHEMA,
        {"name": "answer", "strict": True, "schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        {"type": "json_schema", "name": "answer", "schema": SCHEMA},
    ],
)
def test_a_schema_is_unwrapped(given: dict[str, Any]) -> None:
    """OpenAI: its clients send a schema with its name beside it."""
    assert open_schema(given, "output_schema") == SCHEMA


@pytest.mark.parametrize("schema", [{"colour": "string"}, {"title": "x"}, {"schema": {"a": 1}}])
def test_a_schema_that_checks_nothing_is_refused(schema: dict[str, Any]) -> None:
    """Before the question is sent and paid for."""
    with pytest.raises(InvalidRequest, match=f"checks anything: '{next(iter(schema))}'") as caught:
        open_schema(schema, "output_schema")
    assert caught.value.next_step
