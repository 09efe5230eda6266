"""Reads the arguments of tool uses, which models write as JSON text with mistakes.

Mistakes that can be repaired without guessing are repaired and marked. Arguments that were cut off
are never completed: a tool that runs with half of its arguments does harm.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, cast

from kiro_mcp.chat import JsonObject, JsonValue, ToolUseState
from kiro_mcp.wire.json_values import mend_surrogates, parse_json

MAX_ARGUMENTS_DEPTH: Final = 180
"""How deep arguments may nest. MCP clients read 200 levels, and the result itself needs some."""
MAX_REPAIRED_CHARACTERS: Final = 100_000
"""The longest arguments that are repaired, which takes 12 ms. The service cuts off at 40,000."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)
"""A JSON string; the last one may be cut off."""
_TRAILING_COMMA: Final = re.compile(rf"({_STRING.pattern}|[{{\[]\s*,)|,(?=\s*[}}\]])", re.DOTALL)
"""A comma before a closing bracket. Group 1 is kept: a string, or a comma after no value."""
_BLANK: Final = re.compile(r"\s*")
_BRACKET: Final = re.compile(r"[{}\[\]]")
_CLOSING: Final = {"{": "}", "[": "]"}
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of a tool use, read from their text."""

    value: JsonObject | None
    """The arguments; None unless `state` is `complete`."""
    state: ToolUseState = "complete"
    is_repaired: bool = False
    text: str = field(default="", compare=False, repr=False)
    """The text that they were read from; "" if that is not JSON."""


def parse_arguments(fragments: Sequence[str]) -> Arguments:
    """Read arguments from all of their fragments.

    Fragments may be cut anywhere, so they are joined first. Blank text means no arguments.
    """
    text = mend_surrogates("".join(fragments))
    if not text or text.isspace():
        return Arguments(value={})
    with suppress(ValueError, RecursionError):
        if (value := plain_object(parse_json(text))) is not None:
            return Arguments(value=value, text=text)
    if (value := _last_snapshot(text, fragments)) is not None:
        return Arguments(value=value)
    # Two repairs lose nothing: raw control characters in strings are accepted, and a comma before a
    # closing bracket is removed.
    if len(text) <= MAX_REPAIRED_CHARACTERS:
        repaired = _TRAILING_COMMA.sub(r"\1", text)
        with suppress(ValueError, RecursionError):
            if (value := plain_object(json.loads(repaired, strict=False))) is not None:
                return Arguments(value=value, is_repaired=True)
    return Arguments(value=None, state="truncated" if _is_cut_off(text) else "invalid")


def plain_object(value: object) -> JsonObject | None:
    """Return `value` if it is a JSON object that can be written as UTF-8, else None.

    Halves of surrogate pairs are repaired. Infinite numbers are not JSON, and clients cannot read
    values that nest deeper than `MAX_ARGUMENTS_DEPTH`.
    """
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        mended = mend_surrogates(text)
        plain = cast("JsonObject", value if mended is text else json.loads(mended))
    except (ValueError, RecursionError):
        return None
    if text.count("[") + text.count("{") <= MAX_ARGUMENTS_DEPTH:  # Enough for nearly all arguments.
        return plain
    level: list[JsonValue] = [plain]
    for _ in range(MAX_ARGUMENTS_DEPTH):
        level = [
            member
            for item in level
            if isinstance(item, dict | list)
            for member in (item.values() if isinstance(item, dict) else item)
        ]
    return None if any(isinstance(item, dict | list) for item in level) else plain


def _last_snapshot(text: str, fragments: Sequence[str]) -> JsonObject | None:
    """Return the last of several whole objects, each of which begins with its own fragment.

    Not observed by us: other clients of the service report that the last fragment can repeat all
    of the arguments.
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
    """Whether the text is an object without its end; whole objects may precede it."""
    if not text.lstrip().startswith("{"):
        return False
    open_brackets: list[str] = []
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in _CLOSING:
            open_brackets.append(bracket)
        elif not open_brackets or bracket != _CLOSING[open_brackets.pop()]:
            return False
    return bool(open_brackets)
