"""A JSON Schema and an answer's text -> the value that it holds, or where it breaks the schema.

The service has no member for it: the model is told the schema in the system prompt, its text is
parsed and validated here, and what is wrong is told to it in one further turn. Pure pieces; the
loop around them is the caller's.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.models import JsonObject, JsonValue
from kiro_mcp.protocol.json_values import json_text
from kiro_mcp.protocol.schema_check import SchemaCheck, UnusableSchemaError
from kiro_mcp.protocol.tool_arguments import plain_object

_FENCED: Final = re.compile(r"```[^\n`]*\n(?P<inner>.*?)\n?[ \t]*```", re.DOTALL)
_NO_JSON: Final = "$: the answer holds no JSON value."
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedAnswer:
    """What an answer is worth, measured by a schema."""

    data: JsonValue
    """The value, whether or not it is valid; null where there is none."""
    violations: tuple[str, ...]
    """Where it breaks the schema, each as a JSON path and what is wrong there; () if valid."""


def typed_instruction(schema: JsonObject) -> str:
    """Return what the system prompt says to a model that is to answer by a schema."""
    return (
        "Answer with one JSON value and nothing else: no words before or after it, no code fence."
        f" It must be valid against this JSON Schema:\n{json_text(schema)}"
    )


def repair_prompt(violations: Sequence[str]) -> str:
    """Return the turn that asks a model to mend its answer."""
    listed = "\n".join(f"- {violation}" for violation in violations)
    return (
        "Your answer is not valid against the JSON Schema that you were given:\n"
        f"{listed}\n"
        "Answer again with the whole corrected JSON value and nothing else."
    )


def require_usable_schema(schema: JsonObject) -> None:
    """Refuse a schema that no answer can be measured by.

    Raises:
        InvalidRequest: It is no valid JSON Schema, or refers to what it does not hold.
    """
    _violations([None], schema)


def read_typed_answer(text: str, schema: JsonObject) -> TypedAnswer:
    """Find the JSON value in an answer's text, and where it breaks the schema.

    Raises:
        InvalidRequest: The schema cannot be measured by.
    """
    candidates = _candidates(text)
    if not candidates:
        return TypedAnswer(data=None, violations=(_NO_JSON,))
    read = [
        TypedAnswer(data=value, violations=found)
        for value, found in zip(candidates, _violations(candidates, schema), strict=True)
    ]
    return next((answer for answer in read if not answer.violations), read[0])


def _candidates(text: str) -> Sequence[JsonValue]:
    """Find the values that the answer may be: all of it, else what is fenced, else in prose.

    What is inside of another value is none: the rest of an answer that was cut off must not
    pass for the whole.
    """
    whole = _parsed([text])
    fenced = whole or _parsed([match["inner"] for match in _FENCED.finditer(text)])
    return fenced or _in_prose(text)


def _parsed(texts: Sequence[str]) -> list[JsonValue]:
    values: list[JsonValue] = []
    for text in texts:
        try:
            values += _held(json.loads(text))
        except (ValueError, RecursionError):
            continue
    return values


def _in_prose(text: str) -> list[JsonValue]:
    starts = sorted(start for start in (text.find("{"), text.find("[")) if start >= 0)
    values: list[JsonValue] = []
    end = 0
    for start in starts:
        try:
            if start >= end:
                value, end = _DECODER.raw_decode(text, start)
                values += _held(value)
        except (ValueError, RecursionError):
            continue
    return values


def _held(value: JsonValue) -> list[JsonValue]:
    """Return the value as the caller gets it: the model's own, or none if it cannot be that."""
    held = plain_object({"value": value})
    return [] if held is None else [held["value"]]


def _violations(values: Sequence[JsonValue], schema: JsonObject) -> list[tuple[str, ...]]:
    """Say for each value where it breaks the schema."""
    try:
        check = SchemaCheck(schema)
        return [check.errors(value, name="$") for value in values]
    except UnusableSchemaError as error:
        raise InvalidRequest(
            f"output_schema cannot be used: {error}.",
            next_step="Give a valid JSON Schema that refers to nothing outside of itself.",
        ) from error
