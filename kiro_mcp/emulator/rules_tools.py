"""What the service asks of tools: their declarations, the uses of them and the results.

A rule yields where a call breaks it, and how. `kiro_mcp.emulator.validation` lists them all with
what the service answers. Source of truth: the service's behaviour as published and observed;
where observations differ, the stricter one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

from kiro_mcp.emulator.body import items, members, text, walk
from kiro_mcp.emulator.call import Call
from kiro_mcp.emulator.shapes import Finding

MAX_DESCRIPTION_BYTES: Final = 10_240
"""The longest description of a tool, in UTF-8."""

_TOOL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TOOL_USE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PROPERTY_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAPS_OF_SCHEMAS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_SCHEMAS: Final = frozenset(
    {"items", "prefixItems", "additionalProperties", "contains", "allOf", "anyOf", "oneOf", "not"}
    | {"if", "then", "else", "unevaluatedItems", "unevaluatedProperties", "propertyNames"}
)
_ROOT_COMBINATORS: Final = ("oneOf", "anyOf", "allOf")


def tools_are_current(call: Call) -> Iterator[Finding]:
    """Tools are declared with the current message only."""
    for turn in call.conversation.history:
        if "tools" in turn.context:
            yield turn.where, "declares tools in the history"


def tool_names_fit(call: Call) -> Iterator[Finding]:
    """A letter, then up to 63 letters, digits, `_` and `-`; each name once."""
    names = [text(spec.get("name")) for spec in call.conversation.tool_specs]
    for name in names:
        if _TOOL_NAME.fullmatch(name) is None:
            yield "$.conversationState.currentMessage", f"{name!r} is no name of a tool"
    for name in _repeated(names):
        yield "$.conversationState.currentMessage", f"declares the tool {name!r} twice"


def tool_descriptions_fit(call: Call) -> Iterator[Finding]:
    """Every tool is described, at a length the service takes."""
    for spec in call.conversation.tool_specs:
        description, name = text(spec.get("description")), text(spec.get("name"))
        if not description.strip():
            yield "$.conversationState.currentMessage", f"the tool {name!r} has no description"
        if len(description.encode(errors="surrogatepass")) > MAX_DESCRIPTION_BYTES:
            yield "$.conversationState.currentMessage", f"the description of {name!r} is too long"


def tool_schemas_fit(call: Call) -> Iterator[Finding]:
    """The schema of a tool is a plain object schema, without combinators at its root."""
    for spec in call.conversation.tool_specs:
        where = f"the schema of {text(spec.get('name'))!r}"
        schema = members(members(spec.get("inputSchema")).get("json"))
        if schema.get("type") != "object":
            yield where, "its root is no object"
        for name in _ROOT_COMBINATORS:
            if name in schema:
                yield where, f"has {name} at its root"
        if not isinstance(schema.get("properties", {}), dict):
            yield where, "its properties are no object"
        if not isinstance(schema.get("required", []), list):
            yield where, "its required members are no array"


def property_names_fit(call: Call) -> Iterator[Finding]:
    """A property's name is 1 to 64 letters, digits, `_`, `.` and `-`, at any depth."""
    for spec in call.conversation.tool_specs:
        for name in _property_names(members(spec.get("inputSchema")).get("json")):
            if _PROPERTY_NAME.fullmatch(name) is None:
                where = f"the schema of {text(spec.get('name'))!r}"
                yield where, f"{name!r} is not a name of a property"


def _property_names(schema: object) -> Iterator[str]:
    for keyword, member in members(schema).items():
        if keyword == "properties":
            yield from members(member)
        if keyword in _MAPS_OF_SCHEMAS:
            inner = list(members(member).values())
        elif keyword in _SCHEMAS:
            inner = [*items(member), member]
        else:
            continue
        for one in inner:
            yield from _property_names(one)


def tool_schemas_are_valid(call: Call) -> Iterator[Finding]:
    """The schema of a tool is valid by JSON Schema 2020-12, its patterns included."""
    for spec in call.conversation.tool_specs:
        schema = members(members(spec.get("inputSchema")).get("json"))
        for error in _meta_schema().iter_errors(schema):
            where = f"the schema of {text(spec.get('name'))!r}"
            yield where, f"JSON schema is invalid: {error.message[:80]}"


@cache
def _meta_schema() -> Any:
    import jsonschema_rs  # Here, because few emulators are asked for tools.

    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    return jsonschema_rs.Draft202012Validator(meta, validate_formats=True)


def tool_schemas_stand_alone(call: Call) -> Iterator[Finding]:
    """The schema of a tool refers to nothing."""
    for spec in call.conversation.tool_specs:
        for where, value in walk(spec.get("inputSchema"), f"the schema of {spec.get('name')!r}"):
            if isinstance(members(value).get("$ref"), str):
                yield where, "is a reference"


def tool_uses_fit(call: Call) -> Iterator[Finding]:
    """Ids of 1 to 64 letters, digits, `_` and `-`; arguments that are a JSON object."""
    for turn in call.conversation.turns:
        for use in turn.tool_uses:
            if not isinstance(use.get("input"), dict):
                yield turn.where, "the input of a tool use is no object"
        for tool_use_id in [*_ids(turn.tool_uses), *_ids(turn.tool_results)]:
            if _TOOL_USE_ID.fullmatch(tool_use_id) is None:
                yield turn.where, f"{tool_use_id!r} is no id of a tool use"


def tool_uses_are_declared(call: Call) -> Iterator[Finding]:
    """A tool that the history uses is declared now."""
    declared = {text(spec.get("name")) for spec in call.conversation.tool_specs}
    for turn in call.conversation.history:
        for use in turn.tool_uses:
            if text(use.get("name")) not in declared:
                yield turn.where, f"uses the tool {use.get('name')!r}, which is not declared"


def tool_use_ids_are_unique(call: Call) -> Iterator[Finding]:
    """An id stands for one use in the whole conversation, and is answered once."""
    turns = call.conversation.turns
    uses = [tool_use_id for turn in turns for tool_use_id in _ids(turn.tool_uses)]
    for tool_use_id in _repeated(uses):
        yield "$.conversationState", f"the id {tool_use_id!r} stands for two tool uses"
    for turn in turns:
        for tool_use_id in _repeated(_ids(turn.tool_results)):
            yield turn.where, f"has two results for {tool_use_id!r}"


def tool_uses_are_answered(call: Call) -> Iterator[Finding]:
    """The message after a tool use brings its result."""
    for turn, after in pairwise(call.conversation.turns):
        for tool_use_id in sorted({*_ids(turn.tool_uses)} - {*_ids(after.tool_results)}):
            yield after.where, f"lacks the result for {tool_use_id!r}"


def tool_results_are_asked_for(call: Call) -> Iterator[Finding]:
    """A result answers a tool use of the message before it."""
    asked = set[str]()
    for turn in call.conversation.turns:
        for tool_use_id in sorted({*_ids(turn.tool_results)} - asked):
            yield turn.where, f"nothing asked for the result {tool_use_id!r}"
        asked = {*_ids(turn.tool_uses)}


def _ids(uses_or_results: Sequence[Mapping[str, object]]) -> list[str]:
    return [text(entry.get("toolUseId")) for entry in uses_or_results]


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]
