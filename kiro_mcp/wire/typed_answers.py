"""Finds the value in an answer's text that should be valid against a JSON Schema.

The service has no member for a schema, so the system prompt gives it to the model. The value is
searched in the text of the answer. If it is not valid, one more turn tells the model why. These are
the pure parts; `kiro_mcp.client.schema_checks` sends the requests and checks the values.
"""

import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.arguments import plain_object
from kiro_mcp.wire.json_values import json_text

MAX_CANDIDATES: Final = 100
"""How many values of an answer are checked, from the end."""

_CHECKING: Final = frozenset(
    """
    $ref $dynamicRef $recursiveRef additionalItems additionalProperties allOf anyOf const contains
    dependencies dependentRequired dependentSchemas else enum exclusiveMaximum exclusiveMinimum
    if items maxContains maxItems maxLength maxProperties maximum minContains minItems minLength
    minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems properties
    propertyNames required then type unevaluatedItems unevaluatedProperties uniqueItems
    """.split()  # noqa: SIM905 - a list of names is easier to read without quotes
)
_WRAPPERS: Final = ("schema", "json_schema")
"""The members in which OpenAI's clients send a schema, beside its name and `strict`."""
_BRACKET: Final = re.compile(r"[{\[]")
_DECODER: Final = json.JSONDecoder()
_FIRST_WINDOW: Final = 64
_MARGIN: Final = 16
"""An error this close to the end of a window may be caused only by the cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedAnswer:
    """The value of an answer, and its violations of the schema."""

    data: JsonValue
    """The value, valid or not; null if the answer has none."""
    violations: tuple[str, ...]
    """Each as a JSON path and what is wrong there; () if the value is valid."""


def typed_instruction(schema: JsonObject) -> str:
    """Return the instruction in the system prompt to answer by a schema."""
    return (
        "Answer with one JSON value and nothing else: no words before or after it, no code fence."
        f" It must be valid against this JSON Schema:\n{json_text(schema)}"
    )


def repair_prompt(violations: Sequence[str]) -> str:
    """Return the turn that asks a model to correct its answer."""
    listed = "\n".join(f"- {violation}" for violation in violations)
    return (
        "Your answer is not valid against the JSON Schema that you were given:\n"
        f"{listed}\n"
        "Answer again with the whole corrected JSON value and nothing else."
    )


def open_schema(given: JsonObject, name: str) -> JsonObject:
    """Return a caller's schema, without OpenAI's wrapper around it.

    Args:
        given: The schema, or OpenAI's object around one.
        name: What the caller calls it, for the error.

    Raises:
        InvalidRequest: It has no keyword that checks anything.
    """
    schema = given
    while _CHECKING.isdisjoint(schema) or schema.get("type") == "json_schema":
        wrapped = map(schema.get, _WRAPPERS)
        inner = next((one for one in wrapped if isinstance(one, dict)), None)
        if inner is None:
            names = ", ".join(given)
            raise InvalidRequest(
                f"{name} has no keyword of JSON Schema that checks anything: {names!r:.80}.",
                next_step='Give a JSON Schema, such as {"type": "object", "properties": {…}}.',
            )
        schema = inner
    return schema


def json_candidates(text: str) -> list[JsonValue]:
    """Return the values that may be the answer, in order: the whole text, or values in it.

    Parts of another value are left out: a part of a cut-off answer must not count as the whole.
    """
    return _parsed([text]) or _in_prose(text) or _parsed(_fenced(text))


def best_answer(
    candidates: Sequence[JsonValue], violations: Sequence[tuple[str, ...]]
) -> TypedAnswer:
    """Return the last valid value, or the largest one if none is valid.

    Args:
        candidates: The values of an answer.
        violations: The violations of each value; () for a valid one.
    """
    read = list(zip(candidates, violations, strict=True))
    valid = [value for value, found in read if not found]
    if valid:
        return TypedAnswer(data=valid[-1], violations=())
    nothing: tuple[JsonValue, tuple[str, ...]] = None, ("$: the answer has no JSON value.",)
    data, found = max(read, key=lambda each: len(json_text(each[0])), default=nothing)
    return TypedAnswer(data=data, violations=found)


def _parsed(texts: Sequence[str]) -> list[JsonValue]:
    values: list[JsonValue] = []
    for text in texts:
        try:
            values += _plain(json.loads(text))
        except (ValueError, RecursionError):
            continue
    return values


def _fenced(text: str) -> list[str]:
    """Return the text between each two code fences, without the word after the first."""
    return [block.partition("\n")[2] for block in text.split("```")[1:-1:2]][-MAX_CANDIDATES:]


def _in_prose(text: str) -> list[JsonValue]:
    """Find whole objects and lists, in linear time: text before an error is not read again."""
    found: deque[JsonValue] = deque(maxlen=MAX_CANDIDATES)
    position, size = 0, _FIRST_WINDOW
    while bracket := _BRACKET.search(text, position):
        start = bracket.start()
        window = text[start : start + size]
        is_rest = start + size >= len(text)
        try:
            value, length = _DECODER.raw_decode(window)
        except json.JSONDecodeError as error:
            is_cut = error.pos >= len(window) - _MARGIN or error.msg.startswith("Unterminated")
            if is_cut and not is_rest:
                position, size = start, size * 4
                continue
            length = max(error.pos, 1)
        except RecursionError:
            break
        else:
            found.extend(_plain(value))
        position, size = start + length, _FIRST_WINDOW
    return list(found)


def _plain(value: JsonValue) -> list[JsonValue]:
    """Return the value as the caller gets it; [] if it cannot be sent as JSON."""
    plain = plain_object({"value": value})
    return [] if plain is None else [plain["value"]]
