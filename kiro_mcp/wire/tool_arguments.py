"""The text of a tool use's arguments into a JSON object, or into the reason why it is none.

Used by `kiro_mcp.wire.tool_use` and `kiro_mcp.wire.text_tool_calls` once all of the
text is there. Models write this JSON themselves, so it can be wrong. What can be mended
without guessing is mended and marked so; what was cut off is never completed, because a tool
that runs with half of its arguments does harm.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, cast

from pydantic_core import from_json

from kiro_mcp.chat import JsonObject, JsonValue, ToolUseState
from kiro_mcp.wire.surrogates import mend_surrogates

MAX_DEPTH: Final = 180
"""How deep arguments may nest. Clients of MCP read 200 levels, some of which a result takes."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)
"""A JSON string, or what there is of one that the text ends in."""
_TRAILING_COMMA: Final = re.compile(rf"({_STRING.pattern}|[{{\[]\s*,)|,(?=\s*[}}\]])", re.DOTALL)
"""A comma before a closing bracket; or, to be kept, a string or a comma that follows nothing."""
_BLANK: Final = re.compile(r"\s*")
_BRACKET: Final = re.compile(r"[{}\[\]]")
_CLOSING: Final = {"{": "}", "[": "]"}
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What became of the text of a tool use's arguments."""

    value: JsonObject | None
    """The arguments; None unless `state` is `complete`."""
    state: ToolUseState = "complete"
    is_repaired: bool = False


def parse_arguments(fragments: Sequence[str]) -> Arguments:
    """Read arguments from all of their fragments.

    Fragments may be cut anywhere, so they are parsed as one. Blank text means no arguments.
    """
    text = mend_surrogates("".join(fragments))
    if not text or text.isspace():
        return Arguments(value={})
    if (value := _parse(text)) is not None:
        return Arguments(value=value)
    if (value := _last_snapshot(text, fragments)) is not None:
        return Arguments(value=value)
    if (value := _parse_repaired(text)) is not None:
        return Arguments(value=value, is_repaired=True)
    return Arguments(value=None, state="truncated" if _is_cut_off(text) else "invalid")


def plain_object(value: object) -> JsonObject | None:
    """Return `value` if it is a JSON object that can be sent on as UTF-8, else None.

    Halves of surrogate pairs are mended. A number that Python holds as infinite is no JSON, and
    what nests deeper than `MAX_DEPTH` would take the whole result with it.
    """
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        mended = mend_surrogates(text)
        plain = cast("JsonObject", value if mended is text else json.loads(mended))
    except (ValueError, RecursionError):
        return None
    return None if _is_too_deep(plain, text) else plain


def _is_too_deep(value: JsonObject, text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # All but a few: nothing is walked through.
        return False
    level: list[JsonObject | list[JsonValue]] = [value]
    for _ in range(MAX_DEPTH):
        members = (
            member
            for item in level
            for member in (item.values() if isinstance(item, dict) else item)
        )
        level = [member for member in members if isinstance(member, dict | list)]
    return bool(level)


def _parse(text: str) -> JsonObject | None:
    try:
        return plain_object(from_json(text))
    except ValueError:
        return _parse_leniently(text)


def _parse_leniently(text: str) -> JsonObject | None:
    """Parse what the fast parser does not take: half surrogate pairs, deep nesting."""
    try:
        return plain_object(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _parse_repaired(text: str) -> JsonObject | None:
    """Parse with the two repairs that lose nothing.

    Raw control characters in strings are taken for what they are, and a comma before a
    closing bracket is left out.
    """
    without_commas = _TRAILING_COMMA.sub(r"\1", text)
    try:
        return plain_object(json.loads(without_commas, strict=False))
    except (ValueError, RecursionError):
        return None


def _last_snapshot(text: str, fragments: Sequence[str]) -> JsonObject | None:
    """Return the last of several whole objects, each begun by a fragment of its own.

    Not observed: other clients of the service meet senders that repeat the whole of the
    arguments in the last fragment.
    """
    starts = {0, *accumulate(map(len, fragments))}
    value: object = None
    end = 0
    try:
        while end < len(text):
            start = cast("re.Match[str]", _BLANK.match(text, end)).end()
            if start < len(text) and starts.isdisjoint(range(end, start + 1)):
                return None
            value, end = _DECODER.raw_decode(text, start) if start < len(text) else (value, start)
    except (ValueError, RecursionError):
        return None
    return plain_object(value)


def _is_cut_off(text: str) -> bool:
    """Whether the text is an object, or several, that ends before its last bracket."""
    if not text.lstrip().startswith("{"):
        return False
    open_brackets: list[str] = []
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in _CLOSING:
            open_brackets.append(bracket)
        elif not open_brackets or bracket != _CLOSING[open_brackets.pop()]:
            return False
    return bool(open_brackets)
