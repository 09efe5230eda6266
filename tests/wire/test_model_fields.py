"""What a model's published schema lets a request carry."""

from typing import Any

import pytest

from kiro_mcp.chat import ModelFields
from kiro_mcp.wire.models import read_model_fields


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def choice(*values: object) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def test_the_fields_of_claude_are_read() -> None:
    """The service's list of models (2026)."""
    schema = record(
        thinking=record(type=choice("adaptive", "disabled"), display=choice("summarized")),
        output_config=record(effort={**choice("low", "medium", "high", "max"), "default": "high"}),
        max_tokens={"type": "integer", "minimum": 1024, "maximum": 64000},
    )
    assert read_model_fields(schema) == ModelFields(
        effort_path=("output_config", "effort"),
        efforts=("low", "medium", "high", "max"),
        default_effort="high",
        thinking_types=("adaptive", "disabled"),
        thinking_displays=("summarized",),
        max_tokens=(1024, 64000),
    )


def test_the_fields_of_gpt_are_read() -> None:
    """The service's list of models (2026)."""
    schema = record(reasoning=record(effort=choice("xhigh", "unheard of", "low", "none")))
    assert read_model_fields(schema) == ModelFields(
        effort_path=("reasoning", "effort"), efforts=("none", "low", "xhigh", "unheard of")
    )


def test_choices_are_read_however_they_are_written() -> None:
    """JSON Schema: references, alternatives and constants."""
    adaptive = record(type={"const": "adaptive"}, display={"$ref": "#/$defs/display"})
    schema = {
        **record(
            thinking={"oneOf": [adaptive, record(type={"const": "disabled"})]},
            output_config={"allOf": [record(effort={"anyOf": [choice("low"), choice("high")]})]},
            max_tokens={"type": "integer"},
        ),
        "$defs": {"display": choice("summarized", "omitted")},
    }
    assert read_model_fields(schema) == ModelFields(
        effort_path=("output_config", "effort"),
        efforts=("low", "high"),
        thinking_types=("adaptive", "disabled"),
        thinking_displays=("summarized", "omitted"),
        max_tokens=(1, None),
    )


@pytest.mark.parametrize("nonsense", [0, -1, True, "9", None, float("inf"), 10**400])
def test_a_bound_that_is_none_is_as_if_not_there(nonsense: object) -> None:
    """A limit of nothing would let a model say nothing."""
    schema = record(max_tokens={"minimum": nonsense, "maximum": nonsense})
    assert read_model_fields(schema) == ModelFields(max_tokens=(1, None))


@pytest.mark.parametrize(
    "schema",
    [
        None,
        "x",
        {},
        {"properties": []},
        record(temperature={"type": "number"}),
        record(effort="x"),
        record(effort={"enum": None}),
        {"allOf": "x"},
    ],
)
def test_a_schema_of_nothing_that_we_ask_for_is_none(schema: object) -> None:
    assert read_model_fields(schema) is None
