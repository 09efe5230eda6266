"""Tool uses and tool results -> pairs: each use answered once, in the turn after it.

Steps like those of `kiro_mcp.wire.history`, for turns that alternate and end with the
user's. Source of truth: the service refuses ids of other forms, ids that stand for two uses,
and (by most observations) uses without results and results without uses.
"""

import hashlib
import re
from collections import deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from kiro_mcp.chat import Message, Part, TextPart, ToolResult, ToolUse
from kiro_mcp.wire.findings import Repair, counted
from kiro_mcp.wire.history import Repaired, Turns, label_images, part_count
from kiro_mcp.wire.json_values import json_text

LEGAL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the service takes as the id of a tool use."""

NO_RESULT: Final = "No result of this tool use was recorded."
CUT_OFF: Final = (
    "The arguments of this tool use were cut off before they were complete, so it was not run."
    " Ask again, with less in one tool use."
)


def legal_id(tool_use_id: str) -> str:
    """Return the id if the service takes it, else a hash of it: the same one each time."""
    if LEGAL_ID.fullmatch(tool_use_id):
        return tool_use_id
    return f"tooluse_{hashlib.sha256(tool_use_id.encode()).hexdigest()[:32]}"


def fill_missing_ids(turns: Turns) -> Repaired:
    """Give ids to tool uses without one, and to results without one those of the uses.

    A result without an id answers the first use, of the tool that it names if it names one, that
    no other result answers.
    """
    filled: list[Message] = []
    for index, turn in enumerate(turns):
        parts = _filled(turn.parts, index, _uses(filled))
        filled.append(turn.with_parts(parts))
    return filled, _repair(turns, filled, "missing_id", "id(s) of tool uses were missing")


def _filled(parts: Sequence[Part], index: int, asked: Sequence[ToolUse]) -> Iterator[Part]:
    given = {part.id for part in parts if isinstance(part, ToolResult)}
    free = [use for use in asked if use.id not in given]
    for position, part in enumerate(parts):
        if isinstance(part, ToolUse) and not part.id:
            yield replace(part, id=f"use_{index}_{position}")
        elif isinstance(part, ToolResult) and not part.id:
            yield replace(part, id=_take_use(free, part.name))
        else:
            yield part


def _take_use(free: list[ToolUse], name: str) -> str:
    """Take the first use of a tool, or the first of all, out of those that are free."""
    index = next((index for index, use in enumerate(free) if use.name == name), 0)
    return free.pop(index).id if free else ""


def make_ids_legal(turns: Turns) -> Repaired:
    """Put hashes in the place of ids that the service does not take, in uses and results."""
    legal = [turn.with_parts(map(_with_legal_id, turn.parts)) for turn in turns]
    return legal, _repair(turns, legal, "illegal_id", "id(s) of tool uses were replaced")


def _with_legal_id(part: Part) -> Part:
    if not isinstance(part, ToolUse | ToolResult) or LEGAL_ID.fullmatch(part.id):
        return part
    return replace(part, id=legal_id(part.id))


def make_ids_unique(turns: Turns) -> Repaired:
    """Let an id stand for one use and one result.

    A use whose id was taken before, in its own turn or an earlier one, gets another id. The
    results in the next turn go to the uses of their id in order; a result too many gets an id
    that nothing asked for. What only repeats the use or the result before is left out.
    """
    unique: list[Message] = []
    seen: set[str] = set()
    waiting: dict[str, deque[str]] = {}
    for turn in turns:
        if turn.role == "assistant":
            waiting = {}
        unique.append(turn.with_parts(_once(turn.parts, seen, waiting)))
    repairs = _repair(turns, unique, "repeated_id", "repeated id(s) of tool uses were renamed")
    dropped = part_count(turns) - part_count(unique)
    what = "repetition(s) of the same tool use or result were left out"
    return unique, [*repairs, *counted("repeated_tool_use", dropped, what)]


def _once(parts: Sequence[Part], seen: set[str], waiting: dict[str, deque[str]]) -> Iterator[Part]:
    """Yield the parts of a turn with ids that stand for one thing each.

    Args:
        parts: The parts of the turn.
        seen: The ids of all uses so far.
        waiting: The new ids of the uses of each given id that wait for their results.
    """
    met: dict[str, set[Hashable]] = {}
    for part in parts:
        if isinstance(part, ToolUse):
            before = met.setdefault(part.id, set())
            said = part.name, part.state, json_text(part.arguments)
            if said in before:
                continue
            before.add(said)
            name = part.id if part.id not in seen else legal_id(f"{part.id}\n{len(seen)}")
            seen.add(name)
            waiting.setdefault(part.id, deque()).append(name)
        elif isinstance(part, ToolResult) and part.id in waiting:
            before = met.setdefault(part.id, set())
            names = waiting[part.id]
            said = part.is_error, part.text, json_text(part.data), part.images
            if not names and said in before:
                continue
            before.add(said)
            name = names.popleft() if names else legal_id(f"{part.id}\nfurther {len(before)}")
        else:
            yield part
            continue
        yield part if name == part.id else replace(part, id=name)


def order_results(turns: Turns) -> Repaired:
    """Put the results of a turn in the order of their uses: models tell images by it."""
    ordered: list[Message] = []
    for turn in turns:
        order = {use.id: position for position, use in enumerate(_uses(ordered))}
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        in_order = iter(sorted(results, key=lambda result: order.get(result.id, len(order))))
        parts = (next(in_order) if isinstance(part, ToolResult) else part for part in turn.parts)
        ordered.append(turn.with_parts(parts))
    count = sum(new is not old for new, old in zip(ordered, turns, strict=True))
    what = "turn(s) had tool results in another order than their tool uses"
    return ordered, counted("result_order", count, what)


def orphans_to_text(turns: Turns) -> Repaired:
    """Turn results into text where the turn before did not ask for them."""
    mended: list[Message] = []
    for turn in turns:
        asked = set(_asked(mended))
        parts = (
            part
            for given in turn.parts
            for part in (_as_parts(given) if _is_orphan(given, asked) else (given,))
        )
        mended.append(turn.with_parts(parts))
    count = _result_count(turns) - _result_count(mended)
    what = "tool result(s) that no tool use asked for became text"
    return mended, counted("orphan_result", count, what)


def _is_orphan(part: Part, asked: Collection[str]) -> bool:
    return isinstance(part, ToolResult) and part.id not in asked


def answer_the_unanswered(turns: Turns) -> Repaired:
    """Answer tool uses that have no result with an error that says so."""
    answered: list[Message] = []
    for turn in turns:
        uses = _uses(answered)
        given = {part.id for part in turn.parts if isinstance(part, ToolResult)}
        missing = [_no_result(use) for use in uses if use.id not in given]
        answered.append(turn.with_parts((*turn.parts, *missing)))
    count = _result_count(answered) - _result_count(turns)
    what = "tool use(s) without a result got one that says so"
    return answered, counted("missing_result", count, what)


def _no_result(use: ToolUse) -> ToolResult:
    text = CUT_OFF if use.state == "truncated" else NO_RESULT
    return ToolResult(id=use.id, text=text, is_error=True)


def tool_uses_to_text(turns: Turns) -> Repaired:
    """Turn all tool uses and results into text, for a model that is to have no tools."""
    told = [
        turn.with_parts(text for part in turn.parts for text in _as_parts(part)) for turn in turns
    ]
    return told, _repair(turns, told, "tools_as_text", "tool use(s) and result(s) became text")


def _as_parts(part: Part) -> Sequence[Part]:
    if isinstance(part, ToolUse):
        return (TextPart(text=f"Tool {part.name} was used with {json_text(part.arguments)}"),)
    if isinstance(part, ToolResult):
        what = "Error" if part.is_error else "Result"
        which = ", ".join(filter(None, (part.name, part.id)))
        text = TextPart(text=f"{what} of a tool ({which}):\n{result_text(part)}")
        return text, *label_images(part.images, f"the result of a tool ({which})")
    return (part,)


def result_text(result: ToolResult) -> str:
    """Return all that a result says, as text."""
    data = "" if result.data is None else json_text(result.data)
    return "\n".join(filter(None, (result.text, data)))


def _uses(turns: Turns) -> Sequence[ToolUse]:
    """The tool uses of the last of the turns."""
    last = turns[-1].parts if turns else ()
    return [part for part in last if isinstance(part, ToolUse)]


def _asked(turns: Turns) -> Sequence[str]:
    return [use.id for use in _uses(turns)]


def _result_count(turns: Turns) -> int:
    return sum(isinstance(part, ToolResult) for turn in turns for part in turn.parts)


def _repair(before: Turns, after: Turns, rule: str, what: str) -> list[Repair]:
    """Say how many tool uses and results are others than before."""
    known = {id(part) for turn in before for part in turn.parts}
    count = sum(id(part) not in known for turn in after for part in turn.parts)
    return counted(rule, count, what)
