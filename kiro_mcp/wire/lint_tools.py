"""The rules for tools in a payload: their specs, the uses of them and the results.

A part of `kiro_mcp.wire.lint`, which names the source of truth.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from kiro_mcp.chat import JsonObject
from kiro_mcp.errors import quoted
from kiro_mcp.wire.findings import Finding
from kiro_mcp.wire.history import LEGAL_ID
from kiro_mcp.wire.json_values import object_member, object_members
from kiro_mcp.wire.lint_view import Sent, Turn, text_of, walk
from kiro_mcp.wire.schema_root import COMBINATORS
from kiro_mcp.wire.tools import LEGAL_NAME

MAX_DESCRIPTION_BYTES: Final = 10_240
"""What the service is said to take; callers are cut earlier."""

_TOOLS: Final = "tools"


def tools_are_current(sent: Sent) -> Iterator[Finding]:
    """Tools are declared with the current message only."""
    for turn in sent.history:
        if "tools" in turn.context:
            yield _finding("tools_in_history", turn.place, "declares tools in the history")


def tool_names_fit(sent: Sent) -> Iterator[Finding]:
    """A letter, then up to 63 letters, digits, `_` and `-`; no name twice."""
    names = [text_of(spec, "name") for spec in sent.tool_specs]
    for name in names:
        if not LEGAL_NAME.fullmatch(name):
            yield _finding("tool_name", _TOOLS, f"has the name {quoted(name)}")
    for name in _repeated(names):
        yield _finding("repeated_tool", _TOOLS, f"declares {quoted(name)} twice")


def tool_descriptions_fit(sent: Sent) -> Iterator[Finding]:
    """Every tool has a description, of a length that the service takes."""
    for spec in sent.tool_specs:
        place = f"tools.{text_of(spec, 'name'):.64}.description"
        description = text_of(spec, "description")
        if not description.strip():
            yield _finding("tool_description", place, "is empty")
        if len(description.encode()) > MAX_DESCRIPTION_BYTES:
            yield _finding("tool_description", place, f"is over {MAX_DESCRIPTION_BYTES} bytes")


def tool_schemas_fit(sent: Sent) -> Iterator[Finding]:
    """The schema of a tool is an object's, without combinators at its root or references."""
    for spec in sent.tool_specs:
        schema = object_member(object_member(spec, "inputSchema"), "json")
        place = f"tools.{text_of(spec, 'name'):.64}.inputSchema"
        for cause in (*_root_faults(schema), *_references(schema)):
            yield _finding("tool_schema", place, cause)


def _root_faults(schema: JsonObject) -> Iterator[str]:
    if schema.get("type") != "object":
        yield "is not an object's"
    for keyword in COMBINATORS:
        if keyword in schema:
            yield f"has {keyword} at its root"
    if not isinstance(schema.get("properties", {}), dict):
        yield "has properties that are no object"
    if not isinstance(schema.get("required", []), list):
        yield "has a required that is no list"


def _references(schema: JsonObject) -> Iterator[str]:
    for place, value in walk(schema, "$"):
        if isinstance(value, dict) and isinstance(value.get("$ref"), str):
            yield f"has a reference at {place}"


def tool_uses_fit(sent: Sent) -> Iterator[Finding]:
    """Ids are of 1 to 64 letters, digits, `_` and `-`; arguments are objects."""
    for turn in sent.turns:
        for entry in (*turn.tool_uses, *turn.tool_results):
            if not LEGAL_ID.fullmatch(_id(entry)):
                yield _finding(
                    "tool_use_id", turn.place, f"has the tool-use id {quoted(_id(entry))}"
                )
        for use in turn.tool_uses:
            if not isinstance(use.get("input"), dict):
                yield _finding("tool_use_input", turn.place, f"gives {quoted(_id(use))} no object")


def tool_results_fit(sent: Sent) -> Iterator[Finding]:
    """A result is a list of texts and JSON values, and a success or an error."""
    for turn in sent.turns:
        for result in turn.tool_results:
            content = object_members(result, "content")
            if not content or any(len(entry) != 1 for entry in content):
                yield _finding(
                    "tool_result", turn.place, f"has no content for {quoted(_id(result))}"
                )
            if result.get("status") not in ("success", "error"):
                yield _finding(
                    "tool_result", turn.place, f"has no status for {quoted(_id(result))}"
                )


def tool_uses_are_declared(sent: Sent) -> Iterator[Finding]:
    """What the history uses is declared now."""
    declared = {text_of(spec, "name") for spec in sent.tool_specs}
    for turn in sent.history:
        for use in turn.tool_uses:
            if text_of(use, "name") not in declared:
                name = text_of(use, "name")
                yield _finding("undeclared_tool", turn.place, f"uses {quoted(name)}, not declared")


def tool_use_ids_are_unique(sent: Sent) -> Iterator[Finding]:
    """An id stands for one use in the conversation, and for one result in a turn."""
    for tool_use_id in _repeated([_id(use) for turn in sent.turns for use in turn.tool_uses]):
        yield _finding("repeated_tool_use", "history", f"uses the id {quoted(tool_use_id)} twice")
    for turn in sent.turns:
        for tool_use_id in _repeated([_id(result) for result in turn.tool_results]):
            yield _finding("repeated_result", turn.place, f"answers {quoted(tool_use_id)} twice")


def tool_uses_are_paired(sent: Sent) -> Iterator[Finding]:
    """The turn after a tool use brings its result, and no result comes without a use."""
    first: list[Turn | None] = [None, *sent.turns]
    for before, turn in pairwise(first):
        asked = {_id(use): None for use in before.tool_uses} if before else {}
        given = {_id(result): None for result in turn.tool_results} if turn else {}
        place = turn.place if turn else ""
        for tool_use_id in asked:
            if tool_use_id not in given:
                yield _finding(
                    "missing_result", place, f"lacks the result for {quoted(tool_use_id)}"
                )
        for tool_use_id in given:
            if tool_use_id not in asked:
                yield _finding(
                    "orphan_result", place, f"answers {quoted(tool_use_id)}, never asked"
                )


def _id(entry: JsonObject) -> str:
    return text_of(entry, "toolUseId")


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


_CURES: Final = {
    "tools_in_history": "Declare tools with the current message only.",
    "tool_name": "Use a letter, then up to 63 letters, digits, `_` and `-`.",
    "repeated_tool": "Declare each tool once.",
    "tool_description": "Describe the tool, in fewer bytes.",
    "tool_schema": "Give a plain object schema, without references.",
    "tool_use_id": "Use 1 to 64 letters, digits, `_` and `-`.",
    "tool_use_input": "Send the arguments as a JSON object.",
    "tool_result": "Send a list of texts or JSON values, and success or error.",
    "undeclared_tool": "Declare every tool that the history uses.",
    "repeated_tool_use": "Give each tool use an id of its own.",
    "repeated_result": "Answer each tool use once.",
    "missing_result": "Answer each tool use in the turn after it.",
    "orphan_result": "Send results only for the tool uses of the turn before.",
}


def _finding(rule: str, place: str, cause: str) -> Finding:
    return Finding(rule=rule, place=place, cause=cause, cure=_CURES[rule])


TOOL_RULES: Final[tuple[Callable[[Sent], Iterator[Finding]], ...]] = (
    tools_are_current,
    tool_names_fit,
    tool_descriptions_fit,
    tool_schemas_fit,
    tool_uses_fit,
    tool_results_fit,
    tool_uses_are_declared,
    tool_use_ids_are_unique,
    tool_uses_are_paired,
)
