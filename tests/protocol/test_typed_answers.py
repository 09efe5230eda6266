"""Answers by a schema."""

from typing import Any

import pytest

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.protocol.typed_answers import (
    TypedAnswer,
    read_typed_answer,
    repair_prompt,
    require_usable_schema,
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


def test_the_model_is_told_the_schema() -> None:
    """Ours."""
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
    ],
)
def test_a_valid_value_is_found_wherever_it_stands(text: str) -> None:
    """Observed: models wrap JSON in words and fences, told otherwise or not."""
    assert read_typed_answer(text, SCHEMA) == TypedAnswer(data={"n": 1}, violations=())


def test_a_fence_inside_of_the_value_does_not_end_it() -> None:
    """Ours: code is a common value."""
    text = '```json\n{"n": 1, "tags": ["```py\\nx\\n```"]}\n```'
    assert read_typed_answer(text, SCHEMA).data == {"n": 1, "tags": ["```py\nx\n```"]}


def test_violations_name_their_paths() -> None:
    """Ours: the model needs to know where."""
    answer = read_typed_answer('{"n": "x", "tags": ["a", 2]}', SCHEMA)
    assert answer.data == {"n": "x", "tags": ["a", 2]}
    assert answer.violations == (
        "$.n: 'x' is not of type 'integer'",
        "$.tags[1]: 2 is not of type 'string'",
    )
    prompt = repair_prompt(answer.violations)
    assert "- $.tags[1]: 2 is not of type 'string'\n" in prompt


def test_of_several_invalid_values_the_first_is_reported() -> None:
    """Ours."""
    answer = read_typed_answer('```\n{"n": "x"}\n```\n```\n[]\n```', SCHEMA)
    assert answer.data == {"n": "x"}


@pytest.mark.parametrize(
    "text", ["", "No.", '{"n": 1', '```json\n{"tags": [{"n": 1}, {"n"\n```', "[{"]
)
def test_an_answer_without_a_whole_value_says_so(text: str) -> None:
    """Ours: what is inside of a value that was cut off must not pass for all of it."""
    answer = read_typed_answer(text, SCHEMA)
    assert answer.data is None
    assert answer.violations == ("$: the answer holds no JSON value.",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('"a\\u0000b"', "a\0b", id="nul"),
        pytest.param(str(10**400), 10**400, id="large"),
        pytest.param('"\\ud83d\\ude00 \\ud83d"', "😀 \ufffd", id="half-a-character"),
        pytest.param("[null, -0.0, 1.0]", [None, -0.0, 1.0], id="numbers"),
    ],
)
def test_data_is_what_the_answer_says(text: str, value: object) -> None:
    """Ours: it goes to the caller, who may have asked for what the service would not take."""
    assert repr(read_typed_answer(text, {"title": "x"}).data) == repr(value)


@pytest.mark.parametrize("text", ["NaN", '{"n": [1, 1e400]}', "[" * 300 + "]" * 300])
def test_a_value_that_cannot_be_handed_over_is_none(text: str) -> None:
    """Ours: null in its place would be an answer that nobody gave."""
    answer = read_typed_answer(text, {"title": "x"})
    assert answer == TypedAnswer(data=None, violations=("$: the answer holds no JSON value.",))


def test_what_is_inside_of_a_value_is_no_answer() -> None:
    """Ours: be the value itself an answer or not."""
    answer = read_typed_answer('Here: {"tags": ["a"]}', {"type": "array"})
    assert (answer.data, len(answer.violations)) == ({"tags": ["a"]}, 1)


def test_any_json_value_can_be_asked_for() -> None:
    """JSON Schema: the root need not be an object."""
    assert read_typed_answer("[1, 2]", {"type": "array"}).violations == ()
    assert read_typed_answer("3", {"type": "string"}).violations


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"$ref": "#/nowhere"}, {"$ref": "https://example.com/s.json"}]
)
def test_a_schema_that_cannot_be_measured_by_is_refused(schema: dict[str, Any]) -> None:
    """Ours: before the question is asked, not after it was paid for."""
    with pytest.raises(InvalidRequest, match="output_schema cannot be used") as caught:
        require_usable_schema(schema)
    assert caught.value.next_step


def test_a_good_schema_is_usable() -> None:
    """Ours."""
    require_usable_schema(SCHEMA)
