"""Finds tool calls that a model wrote into its text.

Some models sometimes write a call as text instead of making it, in one of two forms::

    [Called read_file with args: {"path": "/a"}]

    <function_calls>                                  the wrapper may be missing, and a
    <invoke name="read_file">                         tag may carry the prefix `antml:`
    <parameter name="path">/a</parameter>
    </invoke>
    </function_calls>

`kiro_mcp.wire.reply` uses this only if its caller asks for it, because such text usually only talks
about a call. It stays text if it is not exactly one of the forms, if it does not name one of the
caller's tools, or if it is in code. Only the call itself is taken out of the text.

Source of truth: the service's answers as observed.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from kiro_mcp.chat import JsonObject, JsonValue, ToolUse
from kiro_mcp.wire.arguments import parse_arguments, plain_object
from kiro_mcp.wire.json_values import object_member

MAX_CANDIDATES: Final = 200
"""How many possible calls are read. Each may take reading to the end of the text."""

_NAME: Final = r"[\w.:/-]{1,128}"
_PREFIX: Final = "antml:"
_BEGINNINGS: Final = (
    "[Called ",
    *(f"<{prefix}{tag}" for prefix in ("", _PREFIX) for tag in ("invoke", "function_calls>")),
)
_LONGEST_BEGINNING: Final = max(map(len, _BEGINNINGS))
_BEGINNING: Final = re.compile("|".join(map(re.escape, _BEGINNINGS)))
_FENCE: Final = r"^[ \t>]*(?P<fence>`{3,}|~{3,})(?=(?P<info>[^\n]*))"
_FENCE_OR_BEGINNING: Final = re.compile(rf"{_FENCE}|{_BEGINNING.pattern}", re.MULTILINE)

_BRACKET_HEAD: Final = re.compile(rf"\[Called (?P<name>{_NAME}) with args:\s*(?={{)")
_BRACKET_TAIL: Final = re.compile(r"\s*\]")
_TAG: Final = rf"\s*<(?P<prefix>{_PREFIX}|)"
_WRAPPER_HEAD: Final = re.compile(rf"{_TAG}function_calls>")
_INVOKE_HEAD: Final = re.compile(rf'{_TAG}invoke\s+name="(?P<name>{_NAME})"\s*>')
_PARAMETER_HEAD: Final = re.compile(rf'{_TAG}parameter\s+name="(?P<name>[^"<>]{{1,128}})"\s*>')
_DECODER: Final = json.JSONDecoder(strict=False)


class _NoCallError(ValueError):
    """The text only looks like the beginning of a call."""


def find_calls(text: str, tools: Mapping[str, JsonObject], start: int = 0) -> list[str | ToolUse]:
    """Return `text` from `start` on, in order, as runs of text and the calls between them.

    The calls have no id, and the tool's name as the model wrote it.

    Args:
        text: A whole run of text; its code fences are counted from its beginning.
        tools: The schema of each tool's arguments, by each of its names.
        start: Where to look for calls.
    """
    segments: list[str | ToolUse] = []
    shown, position, fence, candidates = start, 0, "", 0
    while candidates < MAX_CANDIDATES and (token := _FENCE_OR_BEGINNING.search(text, position)):
        beginning, position = token.span()
        if token["fence"]:
            fence = _fence_after(token["fence"], token["info"], fence)
        elif not fence and beginning >= start and text[beginning - 1 : beginning] != "`":
            candidates += 1
            try:
                calls, position = _read_calls(text, beginning, tools)
            except _NoCallError:
                continue
            segments += [text[shown:beginning], *calls]
            shown = position
    return [segment for segment in (*segments, text[shown:]) if segment]


class CallWatch:
    """Holds back the text of an answer, starting at the first possible call.

    Whether a call in the text counts is known only at the end of the answer.
    """

    def __init__(self) -> None:
        self.is_holding = False
        """Whether all further text is held back."""
        self._held: list[str] = []

    def feed(self, text: str) -> str:
        """Take the next piece of text and return what can be shown now."""
        if self.is_holding:
            self._held.append(text)
            return ""
        text = self.release() + text
        beginning = _BEGINNING.search(text)
        self.is_holding = beginning is not None
        end = beginning.start() if beginning else len(text) - _possible_beginning(text)
        self._held = [text[end:]]
        return text[:end]

    def release(self) -> str:
        """Return the text that was held back, unchanged."""
        held = "".join(self._held)
        self._held.clear()
        return held


def _possible_beginning(text: str) -> int:
    """Return how many characters at the end of `text` may begin a call."""
    start = max(text.rfind("[", -_LONGEST_BEGINNING), text.rfind("<", -_LONGEST_BEGINNING))
    tail = text[start:] if start >= 0 else ""
    return len(tail) if any(beginning.startswith(tail) for beginning in _BEGINNINGS) else 0


def _fence_after(marks: str, info: str, fence: str) -> str:
    """Return the code fence that is open after a line of marks; "" for none.

    Source of truth: https://spec.commonmark.org/0.31.2/#fenced-code-blocks
    """
    if fence:
        is_closing = marks[0] == fence[0] and len(marks) >= len(fence) and not info.strip()
        return "" if is_closing else fence
    return "" if marks[0] == "`" and "`" in info else marks


# --- the two forms ------------------------------------------------------------------------


def _read_calls(
    text: str, position: int, tools: Mapping[str, JsonObject]
) -> tuple[list[ToolUse], int]:
    """Return the calls that begin at `position`, and where they end."""
    if text[position] == "[":
        return _read_bracketed(text, position, tools)
    wrapper = _WRAPPER_HEAD.match(text, position)
    calls: list[ToolUse] = []
    end = wrapper.end() if wrapper else position
    while not calls or (wrapper and _INVOKE_HEAD.match(text, end)):
        call, end = _read_invoke(text, end, tools)
        calls.append(call)
    # A model that stops after its last call may leave the wrapper open.
    if wrapper and text[end:].strip():
        closing = re.compile(rf"\s*</{wrapper['prefix']}function_calls>")
        end = _expect(closing, text, end).end()
    return calls, end


def _read_bracketed(
    text: str, position: int, tools: Mapping[str, JsonObject]
) -> tuple[list[ToolUse], int]:
    head = _expect(_BRACKET_HEAD, text, position)
    try:
        _, end = _DECODER.raw_decode(text, head.end())
    except (ValueError, RecursionError) as error:
        raise _NoCallError from error
    read = parse_arguments([text[head.end() : end]])
    if read.value is None or head["name"] not in tools:
        raise _NoCallError
    call = ToolUse(id="", name=head["name"], arguments=read.value, is_repaired=read.is_repaired)
    return [call], _expect(_BRACKET_TAIL, text, end).end()


def _read_invoke(text: str, position: int, tools: Mapping[str, JsonObject]) -> tuple[ToolUse, int]:
    head = _expect(_INVOKE_HEAD, text, position)
    if head["name"] not in tools:
        raise _NoCallError
    values: dict[str, str] = {}
    end = head.end()
    while parameter := _PARAMETER_HEAD.match(text, end):
        closing_tag = f"</{parameter['prefix']}parameter>"
        value_end = text.find(closing_tag, parameter.end())
        if value_end < 0 or parameter["name"] in values:
            raise _NoCallError
        values[parameter["name"]] = text[parameter.end() : value_end]
        end = value_end + len(closing_tag)
    end = _expect(re.compile(rf"\s*</{head['prefix']}invoke>"), text, end).end()
    known = object_member(tools[head["name"]], "properties")
    arguments = {name: _typed_value(value, known.get(name)) for name, value in values.items()}
    return ToolUse(id="", name=head["name"], arguments=arguments), end


def _typed_value(value: str, schema: JsonValue) -> JsonValue:
    """Read a value as JSON unless its schema is that of a text."""
    if not isinstance(schema, dict) or not schema:
        return value
    kinds = schema.get("type", "")
    if kinds == "string" or (isinstance(kinds, list) and "string" in kinds):
        return value
    try:
        document = plain_object({"value": json.loads(value)})
    except (ValueError, RecursionError):
        document = None
    return value if document is None else document["value"]


def _expect(pattern: re.Pattern[str], text: str, position: int) -> re.Match[str]:
    if match := pattern.match(text, position):
        return match
    raise _NoCallError
