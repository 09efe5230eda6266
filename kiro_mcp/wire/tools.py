"""Turns tools as callers declare them into tool specs that the service accepts.

`read_tool_specs` reads the forms of MCP, Anthropic and OpenAI. `sendable_tools` makes names,
descriptions and schemas legal, and declares tools that only the history uses: the service refuses a
tool use whose tool is not declared.

The service takes a letter, then up to 63 letters, digits, `_` and `-` as a name. MCP clients join
server and tool into longer names, with dots and slashes. So names are mapped once for a request.
The reader of the answer maps them back: a caller sees only its own names.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from kiro_mcp.chat import JsonObject, JsonValue, Repair, ToolSpec
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.wire.json_values import (
    clean_text,
    first_word,
    json_text,
    object_member,
    parse_object,
    plain_json,
    word_member,
)
from kiro_mcp.wire.messages import CUSTOM_INPUT
from kiro_mcp.wire.schema import SchemaBudget, sendable_schema

DESCRIPTION_MAX_BYTES: Final = 10_000
"""The longest description, in UTF-8. The official client cuts at 10,004."""

_POINTER: Final = "\n[The rest is in the system prompt, under the name of this tool.]"

_STUB_DESCRIPTION: Final = (
    "Used earlier in this conversation. It is not available any more: do not use it."
)
MAX_NAMED: Final = 10
"""How many renamed properties of one tool a repair lists."""

_SCHEMA_KEYS: Final = ("inputSchema", "input_schema", "parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentTools:
    """The tools of one request, in the form that is sent."""

    specs: tuple[ToolSpec, ...]
    names: Mapping[str, str]
    """The sent name of each of the caller's names."""
    property_names: Mapping[str, Mapping[str, str]]
    """For each caller's name of a tool with renamed properties: the caller's name of each, by the
    name that is sent."""
    long_descriptions: tuple[tuple[str, str], ...]
    """Sent name and whole description of the tools whose description was cut."""
    repairs: tuple[Repair, ...]
    caller_names: Mapping[str, str]
    """The caller's name of each tool, by the name that is sent."""


_NO_TOOLS: Final = SentTools(
    specs=(), names={}, property_names={}, long_descriptions=(), repairs=(), caller_names={}
)


def read_tool_specs(given: Sequence[object]) -> tuple[tuple[ToolSpec, ...], tuple[Repair, ...]]:
    """Read declarations of tools in any of the three forms.

    Tools that a provider runs itself have no schema and cannot be offered: they are left out.

    Raises:
        InvalidRequest: A tool has no name, or a schema that is not an object.
    """
    specs: list[ToolSpec] = []
    repairs: list[Repair] = []
    for index, item in enumerate(given):
        plain, location = plain_json(item), f"tools[{index}]"
        kind = word_member(plain, "type") if isinstance(plain, dict) else ""
        has_schema = isinstance(plain, dict) and any(key in plain for key in _SCHEMA_KEYS)
        if has_schema or kind in ("", "function", "custom"):
            specs.append(_read_spec(plain, location))
            continue
        detail = (
            f"{location} is of the type {quoted(kind)}, which no caller can run; it was left out."
        )
        repairs.append(Repair(rule="no_tool", detail=detail))
    return tuple(specs), tuple(repairs)


def _read_spec(item: JsonValue, location: str) -> ToolSpec:
    members = item if isinstance(item, dict) else {}
    inner = (members.get(key) for key in ("function", "custom"))
    declared = next((value for value in inner if isinstance(value, dict)), members)
    name = word_member(declared, "name")
    if not name:
        shown = item if isinstance(item, str) else json_text(item)
        raise InvalidRequest(
            f"{location} has no name: {quoted(shown)} (tool_name).",
            next_step="Give each tool as {name, description, inputSchema}.",
        )
    description = first_word([declared], ("description", "title"))
    key, schema = next(
        ((key, declared[key]) for key in _SCHEMA_KEYS if declared.get(key) is not None), ("", None)
    )
    if isinstance(schema, str) and schema.strip():
        with suppress(ValueError):  # The error below quotes it.
            schema = plain_json(parse_object(schema.encode()))
    if isinstance(schema, dict):
        return ToolSpec(name=name, description=description, input_schema=schema)
    if schema is not None and schema != "":
        shown = schema if isinstance(schema, str) else json_text(schema)
        raise InvalidRequest(
            f"{location}.{key} is not a JSON object: {quoted(shown)} (tool_schema).",
            next_step="Give a JSON Schema with type object.",
        )
    if members.get("type") == "custom":
        return _custom_spec(name, description, declared.get("format"))
    return ToolSpec(name=name, description=description, input_schema={})


def _custom_spec(name: str, description: str, text_format: JsonValue) -> ToolSpec:
    """Turn a custom tool of OpenAI, which takes a text, into a tool with one text property.

    A grammar for the text goes into the description: the service cannot enforce one.
    """
    members = text_format if isinstance(text_format, dict) else {}
    grammar = object_member(members, "grammar") or members
    definition = word_member(grammar, "definition")
    if definition:
        syntax = word_member(grammar, "syntax")
        rule = f"The input must match this grammar ({syntax}):\n{definition}"
        description = "\n\n".join(filter(None, (description, rule)))
    text: JsonObject = {
        "type": "string",
        "description": "The whole input of the tool, as plain text.",
    }
    properties: JsonObject = {CUSTOM_INPUT: text}
    schema: JsonObject = {"type": "object", "properties": properties, "required": [CUSTOM_INPUT]}
    return ToolSpec(name=name, description=description, input_schema=schema)


def sendable_tools(
    specs: Sequence[ToolSpec],
    used_names: Sequence[str],
    *,
    description_max_bytes: int = DESCRIPTION_MAX_BYTES,
) -> SentTools:
    """Make tools that the service accepts.

    Args:
        specs: The caller's tools; the first one counts if two have the same name.
        used_names: The names of the tool uses in the history.
        description_max_bytes: Where a description is cut.
    """
    if not specs and not used_names:
        return _NO_TOOLS
    declared: dict[str, ToolSpec] = {}
    for spec in specs:
        if (name := clean_text(spec.name)) not in declared:
            declared[name] = ToolSpec(
                name=name,
                description=clean_text(spec.description),
                input_schema=cast("JsonObject", plain_json(spec.input_schema)),
            )
    repairs: list[Repair] = []
    if repeated := len(specs) - len(declared):
        detail = f"{repeated} tool(s) declared again: left out."
        repairs.append(Repair(rule="repeated_tool", detail=detail))
    if stubs := [name for name in dict.fromkeys(used_names) if name not in declared]:
        detail = f"{len(stubs)} tool(s) that only the history uses: declared."
        repairs.append(Repair(rule="stub_tool", detail=detail))
    for name in stubs:
        schema: JsonObject = {"type": "object", "properties": {}}
        declared[name] = ToolSpec(name=name, description=_STUB_DESCRIPTION, input_schema=schema)
    names = sent_names(declared)
    sent: list[ToolSpec] = []
    property_names: dict[str, Mapping[str, str]] = {}
    long_descriptions: list[tuple[str, str]] = []
    budget = SchemaBudget()
    for spec in declared.values():
        name = names[spec.name]
        schema, properties, dropped = sendable_schema(spec.input_schema, budget)
        stand_in = f"Tool: {name}"
        whole = spec.description if spec.description.strip() else stand_in
        shortened = _shorten(whole, description_max_bytes)
        description = shortened if shortened.strip() else stand_in
        sent.append(ToolSpec(name=name, description=description, input_schema=schema))
        if properties:
            property_names[spec.name] = properties
        if description != whole:
            long_descriptions.append((name, whole))
        changes = _changes(spec, sent[-1], whole, properties, dropped)
        repairs += [Repair(rule=rule, detail=detail) for rule, detail in changes]
    return SentTools(
        specs=tuple(sent),
        names=names,
        property_names=property_names,
        long_descriptions=tuple(long_descriptions),
        repairs=tuple(repairs),
        caller_names={sent: name for name, sent in names.items()},
    )


def _changes(
    given: ToolSpec,
    sent: ToolSpec,
    description: str,
    property_names: Mapping[str, str],
    dropped: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """Say how a sent tool differs from the given one; `description` is the uncut description."""
    tool = quoted(given.name)
    if sent.name != given.name:
        yield "tool_name", f"The tool {tool} is sent as {quoted(sent.name)}."
    if description != given.description:
        detail = f"The tool {tool} has no description; its name is sent instead."
        yield "empty_description", detail
    if sent.description != description:
        detail = f"The description of {tool} is cut; the whole is in the system prompt."
        yield "long_description", detail
    if sent.input_schema != given.input_schema:
        yield "tool_schema", f"The schema of {tool} was changed to one that the service takes."
    if dropped:
        yield "schema_keyword", f"Left out of the schema of {tool}: {', '.join(dropped)}."
    if renamed := list(property_names.items()):
        shown = ", ".join(f"{quoted(name)} as {other!r}" for other, name in renamed[:MAX_NAMED])
        more = f" and {len(renamed) - MAX_NAMED} more" if len(renamed) > MAX_NAMED else ""
        yield "property_name", f"Properties of {tool} are sent under other names: {shown}{more}."


def _shorten(text: str, max_bytes: int) -> str:
    """Cut a text to a size, and say where the rest is if there is room for that."""
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    room = max_bytes - len(_POINTER.encode())
    cut, pointer = (room, _POINTER) if room > 0 else (max_bytes, "")
    return encoded[:cut].decode("utf-8", "ignore") + pointer


# --- names --------------------------------------------------------------------------------

MAX_NAME_CHARACTERS: Final = 64

LEGAL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What the service accepts as the name of a tool."""

_ILLEGAL_CHARACTER: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_CHARACTERS: Final = 8


def sent_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name to one that the service accepts, all of them different.

    A legal name stays the same. Any other name depends only on the names before it, so adding a
    tool at the end changes no other name.

    Returns:
        The sent name of each of the caller's names.
    """
    given = list(dict.fromkeys(names))
    taken = {name for name in given if LEGAL_NAME.fullmatch(name)}
    mapped: dict[str, str] = {}
    for name in given:
        mapped[name] = name if name in taken else _free_name(name, taken)
        taken.add(mapped[name])
    return mapped


def _free_name(name: str, taken: Collection[str]) -> str:
    plain = _ILLEGAL_CHARACTER.sub("_", name)
    plain = plain if plain[:1].isalpha() else f"t_{plain}"
    if len(plain) <= MAX_NAME_CHARACTERS and plain not in taken:
        return plain
    beginning = plain[: MAX_NAME_CHARACTERS - _HASH_CHARACTERS - 1]
    digest = hashlib.sha256(name.encode()).hexdigest()
    return next(
        candidate
        for start in range(len(digest) - _HASH_CHARACTERS)
        if (candidate := f"{beginning}_{digest[start : start + _HASH_CHARACTERS]}") not in taken
    )
