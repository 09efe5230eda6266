"""Joins fragments of tool uses to whole tool uses.

`kiro_mcp.wire.reply` passes in the `ToolUseFragment`s of one answer. Only the id tells tool uses
apart: their fragments may interleave, and two calls of one tool with the same arguments are two
calls.

    first fragment ── open ── last fragment ──────────────────── complete | truncated | invalid
                        └──── end of the answer ─ close() ────── the same, but complete only
                                                                 if the answer itself is

Source of truth: the service's streams as observed. There the first fragment has no arguments, and
the last one has only the mark that it is the last. A tool use without arguments may be a single
fragment without that mark.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, cast

from kiro_mcp.chat import JsonObject, ToolUse
from kiro_mcp.errors import quoted
from kiro_mcp.wire.arguments import Arguments, parse_arguments
from kiro_mcp.wire.events import MAX_INPUT_CHARACTERS, MAX_TOOL_USES, ToolUseFragment, over_limit
from kiro_mcp.wire.json_values import mend_surrogates
from kiro_mcp.wire.schema import rename_members, with_legal_names
from kiro_mcp.wire.schema_check import SchemaCheck, UnusableSchemaError
from kiro_mcp.wire.text_tool_calls import find_calls

_CUT_OFF: Final = Arguments(value=None, state="truncated")


@dataclass(slots=True)
class _OpenToolUse:
    """A tool use whose last fragment has not arrived."""

    name: str = ""
    pieces: list[str] = field(default_factory=list[str])
    characters: int = 0
    fragments: int = 0
    """How many fragments arrived after another tool use with the same id had ended."""
    is_snapshot: bool = False
    """Whether the only piece holds all of the arguments so far."""


class ToolUseAssembler:
    """Gathers the fragments of one answer's tool uses.

    Args:
        aliases: The caller's name of a tool, by the name under which it was sent.
        schemas: The schema of a tool's arguments, by the caller's name.
        property_names: The caller's name of each renamed property, by the name under which it was
            sent, for each tool by the caller's name.
        new_id: Returns the ids of calls in the text.
    """

    def __init__(
        self,
        aliases: Mapping[str, str],
        schemas: Mapping[str, JsonObject],
        property_names: Mapping[str, Mapping[str, str]],
        new_id: Callable[[], str],
    ) -> None:
        self.input_characters = 0
        """The size of all arguments so far."""
        self.warnings: list[str] = []
        """What was left out or changed, one sentence each."""
        self.late_fragments = 0
        """How many fragments of tool uses that had ended were left out."""
        self._aliases = aliases
        self._property_names = property_names
        self._schemas = schemas
        self._new_id = new_id
        self._checks: dict[str, SchemaCheck | None] = {}
        self._open: dict[str, _OpenToolUse] = {}
        self._ended: dict[str, list[JsonObject]] = {}
        """The arguments of the complete tool uses, by the id in the stream."""
        self._late: dict[str, _OpenToolUse] = {}
        self._text_calls: set[tuple[str, str]] = set()

    def add(self, fragment: ToolUseFragment) -> ToolUse | None:
        """Take a fragment; return the tool use if this was its last one.

        Raises:
            AnswerBroken: The answer has too many tool uses or too long arguments.
        """
        if fragment.id in self._ended:
            return self._add_late(fragment)
        self._add_to(self._open.get(fragment.id) or self._begin(fragment.id), fragment)
        return self._end(fragment.id, is_whole=True) if fragment.is_last else None

    def _add_to(self, tool_use: _OpenToolUse, fragment: ToolUseFragment) -> None:
        tool_use.name = tool_use.name or fragment.name
        if fragment.input and not fragment.input.isspace():
            # What follows a snapshot replaces it.
            if fragment.is_snapshot or tool_use.is_snapshot:
                self.input_characters -= tool_use.characters
                tool_use.pieces.clear()
                tool_use.characters = 0
            tool_use.is_snapshot = fragment.is_snapshot
        if fragment.input:
            tool_use.pieces.append(fragment.input)
            tool_use.characters += len(fragment.input)
            self.input_characters += len(fragment.input)
        if self.input_characters > MAX_INPUT_CHARACTERS:
            raise over_limit(f"{MAX_INPUT_CHARACTERS} characters of tool input")

    def _add_late(self, fragment: ToolUseFragment) -> ToolUse | None:
        """Take a fragment of a tool use that has ended; return another call with the same id.

        A whole call whose arguments differ from the first call's is a second call. A repetition of
        the first call, or a mere piece, is left out and counted.
        """
        late = self._late.get(fragment.id)
        if late is None and not fragment.input and not fragment.is_last:
            late = self._late[fragment.id] = _OpenToolUse()
        self.late_fragments += 1
        if late is None:
            return None
        self._add_to(late, fragment)
        late.fragments += 1
        if not fragment.is_last:
            return None
        del self._late[fragment.id]
        arguments = parse_arguments(late.pieces)
        known = self._ended[fragment.id]
        if arguments.value is None or arguments.value in known:
            return None
        self.late_fragments -= late.fragments
        new_id = f"{fragment.id}_{len(known) + 1}"
        while new_id in self._open or new_id in self._ended:
            new_id += "_"
        self._begin(new_id)
        self._open[new_id] = late
        known.append(arguments.value)
        self.warnings.append(
            f"Two different tool uses came with the id {fragment.id!r:.80}: one has a new id."
        )
        return self._end(new_id, is_whole=True)

    def close(self, *, is_answer_whole: bool) -> list[ToolUse]:
        """End the tool uses whose last fragment did not arrive, and return them.

        Args:
            is_answer_whole: Whether the answer is complete. If it is not, the arguments may not be
                complete either: they count as truncated, even if they look complete.
        """
        ended = [self._end(id_, is_whole=is_answer_whole) for id_ in list(self._open)]
        return [tool_use for tool_use in ended if tool_use]

    def find_in_text(self, text: str, start: int) -> list[str | ToolUse]:
        """Return text from `start` on with the calls that the model wrote into it as tool uses.

        A call that the text had before is left out.
        """
        schemas = {
            name: with_legal_names(schema)[0] if name in self._property_names else schema
            for name, schema in self._schemas.items()
        }
        sent = {alias: schemas[name] for alias, name in self._aliases.items() if name in schemas}
        segments: list[str | ToolUse] = []
        for segment in find_calls(text, {**schemas, **sent}, start):
            if isinstance(segment, str):
                segments.append(segment)
                continue
            name = self._aliases.get(segment.name, segment.name)
            content = (name, json.dumps(segment.arguments, sort_keys=True))
            if content in self._text_calls:
                self.warnings.append(
                    f"A call of {quoted(name)} was in the text twice; it was taken once."
                )
                continue
            self._text_calls.add(content)
            self.input_characters += len(content[1])
            segments.append(self._finish(replace(segment, id=self._new_id(), name=name)))
        return segments

    def _finish(self, tool_use: ToolUse) -> ToolUse:
        """Give a complete tool use the caller's names, and the violations of its tool's schema."""
        name = tool_use.name
        if names := self._property_names.get(name):
            arguments = cast("JsonObject", rename_members(tool_use.arguments, names))
            tool_use = replace(tool_use, arguments=arguments, text="")
        if name not in self._schemas:
            return tool_use
        if name not in self._checks:
            try:
                self._checks[name] = SchemaCheck(self._schemas[name])
            except UnusableSchemaError as error:
                self._checks[name] = None
                self.warnings.append(f"The schema of {name!r:.80} is not checked: {error}.")
        check = self._checks[name]
        if check is None:
            return tool_use
        errors = check.errors(tool_use.arguments)
        return replace(tool_use, schema_errors=errors or (), is_unchecked=errors is None)

    def _begin(self, tool_use_id: str) -> _OpenToolUse:
        if len(self._open) + len(self._ended) >= MAX_TOOL_USES:
            raise over_limit(f"{MAX_TOOL_USES} tool uses")
        tool_use = self._open[tool_use_id] = _OpenToolUse()
        return tool_use

    def _end(self, tool_use_id: str, *, is_whole: bool) -> ToolUse | None:
        fragments = self._open.pop(tool_use_id)
        self._ended[tool_use_id] = []
        name = self._aliases.get(fragments.name, fragments.name)
        if not name:
            self.warnings.append(
                f"The tool use {quoted(tool_use_id)} has no tool name and was left out."
            )
            return None
        arguments = parse_arguments(fragments.pieces) if is_whole else _CUT_OFF
        if arguments.value is None:
            raw = mend_surrogates("".join(fragments.pieces))
            return ToolUse(id=tool_use_id, name=name, arguments={}, state=arguments.state, raw=raw)
        self._ended[tool_use_id].append(arguments.value)
        tool_use = ToolUse(
            id=tool_use_id,
            name=name,
            arguments=arguments.value,
            is_repaired=arguments.is_repaired,
            text=arguments.text,
        )
        return self._finish(tool_use)
