"""Turns in any order -> a conversation as the service takes it: user, assistant, …, user.

Each step is a function from turns to turns that says what it changed. A step changes nothing that
is right already. `kiro_mcp.wire.request` runs them in this order:

* `clean_turns`: text and values that can be sent.
* Turns: whose parts they are, one turn after the other, the user first and last.
* Tool uses and results in pairs: each use is answered once, in the turn after it. The service
  refuses ids of other forms, ids that stand for two uses, and (by most observations) uses without
  results and results without uses.
* Images: beside the tool results that they came in, few enough, and with a line that tells them
  apart.

Source of truth: the invariants that the service's official clients keep; not each version of the
service enforces each of them. What has to be filled in is filled with white space at most: the
model imitates readable fillers ("Continue"), and then ends its turn.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Final, TypeAlias

from kiro_mcp.chat import (
    ImagePart,
    JsonObject,
    Message,
    Part,
    Repair,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
    counted,
)
from kiro_mcp.wire.images import MAX_IMAGES
from kiro_mcp.wire.json_values import (
    clean_text,
    has_null,
    json_text,
    object_without_nulls,
    plain_json,
)

Turns: TypeAlias = Sequence[Message]
Repaired: TypeAlias = tuple[Turns, list[Repair]]
Step: TypeAlias = Callable[[Turns], Repaired]

TRUNCATION_NOTICE: Final = (
    "[Notice from the client program, not from the user: your last answer was cut off by a limit"
    " of the service. What is above is all of it that arrived. Do not repeat it; go on from"
    " there, in smaller pieces if it was long.]"
)
"""Goes before the turn after an answer that was cut off."""

LEGAL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the service takes as the id of a tool use."""

NO_RESULT: Final = "No result of this tool use was recorded."
CUT_OFF: Final = (
    "The arguments of this tool use were cut off before they were complete, so it was not run."
    " Ask again, with less in one tool use."
)


def run_steps(turns: Turns, steps: Sequence[Step]) -> Repaired:
    """Apply the steps in order and gather their repairs."""
    repairs: list[Repair] = []
    for step in steps:
        turns, changes = step(turns)
        repairs += changes
    return turns, repairs


# --- what can be sent ---------------------------------------------------------------------


def clean_turns(turns: Turns) -> Repaired:
    """Make every text and value one that can be sent.

    A library's user may have made anything by hand; what came through `kiro_mcp.wire.messages` is
    clean already. Half surrogate pairs, NUL characters and nulls are removed.
    """
    changed: list[Message] = []
    count = 0
    for turn in turns:
        parts = tuple(map(_clean_part, turn.parts))
        count += sum(new != old for new, old in zip(parts, turn.parts, strict=True))
        changed.append(turn.with_parts(parts))
    return changed, counted("unsendable_value", count, "part(s) held what cannot be sent")


def _clean_part(part: Part) -> Part:
    match part:
        case TextPart():
            text = clean_text(part.text)
            return part if text is part.text else replace(part, text=text)
        case ThinkingPart():
            return replace(
                part,
                text=clean_text(part.text),
                signature=clean_text(part.signature),
                redacted=clean_text(part.redacted),
            )
        case ToolUse():
            arguments = object_without_nulls(_plain_object(part.arguments))
            name = clean_text(part.name)
            return replace(part, id=clean_text(part.id), name=name, arguments=arguments)
        case ToolResult():
            data = None if part.data is None else _plain_object(part.data)
            text = clean_text(part.text)
            if data is not None and has_null(data):
                # As text it stays as it is; the service takes no null in data.
                text, data = "\n".join(filter(None, (text, json_text(data)))), None
            name = clean_text(part.name)
            return replace(part, id=clean_text(part.id), name=name, text=text, data=data)
        case ImagePart():
            return part


def _plain_object(value: JsonObject) -> JsonObject:
    plain = plain_json(value)
    return plain if isinstance(plain, dict) else {}


# --- turns --------------------------------------------------------------------------------


def drop_unsigned_thinking(turns: Turns) -> Repaired:
    """Leave out reasoning without a signature: the service takes back only its own."""
    kept = [
        turn.with_parts(
            part
            for part in turn.parts
            if not isinstance(part, ThinkingPart) or part.signature or part.redacted
        )
        for turn in turns
    ]
    count = _part_count(turns) - _part_count(kept)
    return kept, counted("unsigned_reasoning", count, "unsigned block(s) of reasoning left out")


def drop_foreign_thinking(turns: Turns, *, model_id: str) -> Repaired:
    """Leave out reasoning of another model: this model would refuse its signature."""
    kept = [
        turn.with_parts(part for part in turn.parts if not isinstance(part, ThinkingPart))
        if turn.model not in ("", model_id)
        else turn
        for turn in turns
    ]
    count = _part_count(turns) - _part_count(kept)
    what = "block(s) of another model's reasoning left out"
    return kept, counted("foreign_reasoning", count, what)


def split_by_role(turns: Turns) -> Repaired:
    """Give each part to the role that may say it, as turns of their own.

    Tool uses and reasoning are the assistant's; tool results and images are the user's.
    """
    split: list[Message] = []
    moved = 0
    for turn in turns:
        if all(_role_of(part, turn.role) == turn.role for part in turn.parts):
            split.append(turn)
            continue
        for role, run in groupby(turn.parts, key=partial(_role_of, speaker=turn.role)):
            parts = tuple(run)
            moved += len(parts) if role != turn.role else 0
            split.append(Message(role=role, parts=parts))
        is_truncated = turn.is_truncated and split[-1].role == "assistant"
        split[-1] = replace(split[-1], is_truncated=is_truncated)
    return split, counted("misplaced_part", moved, "part(s) moved to the role that may say them")


def _role_of(part: Part, speaker: Role) -> Role:
    if isinstance(part, ToolUse | ThinkingPart):
        return "assistant"
    return "user" if isinstance(part, ToolResult | ImagePart) else speaker


def merge_turns(turns: Turns) -> Repaired:
    """Join turns of one role that follow each other."""
    merged: list[Message] = []
    for role, group in groupby(turns, key=_role_of_turn):
        same = list(group)
        parts = tuple(part for turn in same for part in turn.parts)
        merged.append(Message(role=role, parts=parts, is_truncated=same[-1].is_truncated))
    count = len(turns) - len(merged)
    return merged, counted("merged_turns", count, "turn(s) joined to the one before")


def _role_of_turn(turn: Message) -> Role:
    return turn.role


def start_with_user(turns: Turns) -> Repaired:
    """Put an empty turn of the user before an assistant that speaks first."""
    if turns[0].role == "user":
        return turns, []
    detail = "The assistant spoke first; an empty user turn was put before."
    return [Message(role="user", parts=()), *turns], [Repair(rule="user_first", detail=detail)]


def end_with_user(turns: Turns) -> Repaired:
    """Put an empty turn of the user after an assistant that speaks last."""
    if turns[-1].role == "user":
        return turns, []
    detail = "The assistant spoke last; an empty user turn was put after it."
    return [*turns, Message(role="user", parts=())], [Repair(rule="user_last", detail=detail)]


def keep_one_reasoning(turns: Turns) -> Repaired:
    """Keep the first block of reasoning of a turn: the service has room for one."""
    kept: list[Message] = []
    for turn in turns:
        parts: list[Part] = []
        has_one = False
        for part in turn.parts:
            if not (has_one and isinstance(part, ThinkingPart)):
                parts.append(part)
            has_one = has_one or isinstance(part, ThinkingPart)
        kept.append(turn.with_parts(parts))
    count = _part_count(turns) - _part_count(kept)
    return kept, counted("one_reasoning", count, "further block(s) of reasoning left out")


def tell_of_truncation(turns: Turns) -> Repaired:
    """Tell the model, before each turn after an answer that was cut off, that it was.

    Before each, not only the last: the history must not change under the service's cache.
    """
    notice = TextPart(text=TRUNCATION_NOTICE)
    told = [
        turn.with_parts((notice, *turn.parts)) if index and turns[index - 1].is_truncated else turn
        for index, turn in enumerate(turns)
    ]
    count = _part_count(told) - _part_count(turns)
    return told, counted("truncation_notice", count, "notice(s) of a cut-off answer added")


def trim_oldest(turns: Turns, sizes: Sequence[int], *, excess_bytes: int) -> Repaired:
    """Leave out the oldest pairs of turns, as few as will do; the last turn always stays.

    Only if the user has set a limit: what a model has been told should not vanish unasked. Turns go
    in pairs of user and assistant, so that the first one left is the user's; results whose tool use
    went become text.

    Args:
        turns: The repaired turns, the user's first and last.
        sizes: How many bytes each turn but the last takes.
        excess_bytes: By how many bytes all of it is too large.
    """
    count = 0
    while excess_bytes > 0 and count < len(sizes):
        excess_bytes -= sizes[count] + sizes[count + 1]
        count += 2
    kept, repairs = orphans_to_text(turns[count:])
    detail = f"{count} oldest turns were left out to keep the request under the set limit."
    return kept, [Repair(rule="trimmed_history", detail=detail), *repairs]


# --- tool uses and results ----------------------------------------------------------------


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
        given = {part.id for part in turn.parts if isinstance(part, ToolResult)}
        free = [use for use in _last_uses(filled) if use.id not in given]
        parts: list[Part] = []
        for position, part in enumerate(turn.parts):
            if isinstance(part, ToolUse) and not part.id:
                parts.append(replace(part, id=f"use_{index}_{position}"))
            elif isinstance(part, ToolResult) and not part.id:
                names = [use.name for use in free]
                answered = names.index(part.name) if part.name in names else 0
                parts.append(replace(part, id=free.pop(answered).id if free else ""))
            else:
                parts.append(part)
        filled.append(turn.with_parts(parts))
    return filled, _count_changed(turns, filled, "missing_id", "id(s) of tool uses were missing")


def make_ids_legal(turns: Turns) -> Repaired:
    """Put hashes instead of ids that the service does not take, in uses and results."""
    legal = [
        turn.with_parts(
            replace(part, id=legal_id(part.id))
            if isinstance(part, ToolUse | ToolResult) and not LEGAL_ID.fullmatch(part.id)
            else part
            for part in turn.parts
        )
        for turn in turns
    ]
    return legal, _count_changed(turns, legal, "illegal_id", "id(s) of tool uses were replaced")


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
    what = "repeated id(s) of tool uses were renamed"
    repairs = _count_changed(turns, unique, "repeated_id", what)
    dropped = _part_count(turns) - _part_count(unique)
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
            content = part.name, part.state, json_text(part.arguments)
            if content in before:
                continue
            before.add(content)
            new_id = part.id if part.id not in seen else legal_id(f"{part.id}\n{len(seen)}")
            seen.add(new_id)
            waiting.setdefault(part.id, deque()).append(new_id)
        elif isinstance(part, ToolResult) and part.id in waiting:
            before = met.setdefault(part.id, set())
            new_ids = waiting[part.id]
            content = part.is_error, part.text, json_text(part.data), part.images
            if not new_ids and content in before:
                continue
            before.add(content)
            further = f"{part.id}\nfurther {len(before)}"
            new_id = new_ids.popleft() if new_ids else legal_id(further)
        else:
            yield part
            continue
        yield part if new_id == part.id else replace(part, id=new_id)


def orphans_to_text(turns: Turns) -> Repaired:
    """Turn results into text where the turn before did not ask for them."""
    repaired: list[Message] = []
    for turn in turns:
        asked = {use.id for use in _last_uses(repaired)}
        parts: list[Part] = []
        for part in turn.parts:
            is_orphan = isinstance(part, ToolResult) and part.id not in asked
            parts += _as_text(part) if is_orphan else (part,)
        repaired.append(turn.with_parts(parts))
    count = _result_count(turns) - _result_count(repaired)
    what = "tool result(s) that no tool use asked for became text"
    return repaired, counted("orphan_result", count, what)


def answer_the_unanswered(turns: Turns) -> Repaired:
    """Answer tool uses that have no result with an error that says so."""
    repaired: list[Message] = []
    for turn in turns:
        given = {part.id for part in turn.parts if isinstance(part, ToolResult)}
        missing = [
            ToolResult(
                id=use.id, text=CUT_OFF if use.state == "truncated" else NO_RESULT, is_error=True
            )
            for use in _last_uses(repaired)
            if use.id not in given
        ]
        repaired.append(turn.with_parts((*turn.parts, *missing)))
    count = _result_count(repaired) - _result_count(turns)
    what = "tool use(s) without a result got one that says so"
    return repaired, counted("missing_result", count, what)


def order_results(turns: Turns) -> Repaired:
    """Put the results of a turn in the order of their uses: models tell images by it."""
    ordered: list[Message] = []
    for turn in turns:
        order = {use.id: position for position, use in enumerate(_last_uses(ordered))}
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        in_order = iter(sorted(results, key=lambda result: order.get(result.id, len(order))))
        parts = (next(in_order) if isinstance(part, ToolResult) else part for part in turn.parts)
        ordered.append(turn.with_parts(parts))
    count = sum(new is not old for new, old in zip(ordered, turns, strict=True))
    what = "turn(s) had tool results in another order than their tool uses"
    return ordered, counted("result_order", count, what)


def tool_uses_to_text(turns: Turns) -> Repaired:
    """Turn all tool uses and results into text, for a model that is to have no tools."""
    told = [
        turn.with_parts(text for part in turn.parts for text in _as_text(part)) for turn in turns
    ]
    what = "tool use(s) and result(s) became text"
    return told, _count_changed(turns, told, "tools_as_text", what)


def _as_text(part: Part) -> Sequence[Part]:
    """Return a tool use or a result as text, and the images of a result; other parts stay."""
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


def _last_uses(turns: Turns) -> Sequence[ToolUse]:
    """Return the tool uses of the last of the turns."""
    last = turns[-1].parts if turns else ()
    return [part for part in last if isinstance(part, ToolUse)]


def _result_count(turns: Turns) -> int:
    return sum(isinstance(part, ToolResult) for turn in turns for part in turn.parts)


def _part_count(turns: Turns) -> int:
    return sum(len(turn.parts) for turn in turns)


def _count_changed(before: Turns, after: Turns, rule: str, what: str) -> list[Repair]:
    """Say how many parts are others than before."""
    known = {id(part) for turn in before for part in turn.parts}
    count = sum(id(part) not in known for turn in after for part in turn.parts)
    return counted(rule, count, what)


# --- images -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelledImage(ImagePart):
    """An image of a tool result, on its way out of it. `tell_images_apart` removes the label."""

    label: str
    """Where it comes from, in words for the model."""


def label_images(images: Sequence[ImagePart], label: str) -> list[ImagePart]:
    """Remember where images come from until `tell_images_apart` has told the model."""
    return [_LabelledImage(format=image.format, data=image.data, label=label) for image in images]


def hoist_images(turns: Turns) -> Repaired:
    """Move images out of tool results into their turn.

    The service accepts images in a tool result and drops them in silence.
    """
    hoisted: list[Message] = []
    for turn in turns:
        names = {use.id: use.name for use in _last_uses(hoisted)}
        bare: list[Part] = []
        images: list[Part] = []
        number = 0
        for part in turn.parts:
            if isinstance(part, ToolResult):
                number += 1
                label = f"tool result {number} ({names.get(part.id, '')}, {part.id})"
                images += label_images(part.images, label)
                bare.append(replace(part, images=()) if part.images else part)
            else:
                bare.append(part)
        hoisted.append(turn.with_parts((*bare, *images)))
    count = _part_count(hoisted) - _part_count(turns)
    return hoisted, counted("hoisted_image", count, "image(s) put beside their tool results")


def forget_old_images(turns: Turns, *, limit: int = MAX_IMAGES) -> Repaired:
    """Leave out the oldest images of the history, so that `limit` are left with the last turn's.

    The last turn keeps all of its own, even if they are too many: its caller gets an error.
    """
    images = [part for turn in turns for part in turn.parts if isinstance(part, ImagePart)]
    own = sum(isinstance(part, ImagePart) for part in turns[-1].parts)
    excess = min(max(0, len(images) - limit), len(images) - own)
    left_out = excess
    kept: list[Message] = []
    for turn in turns:
        parts: list[Part] = []
        for part in turn.parts:
            if left_out and isinstance(part, ImagePart):
                left_out -= 1
            else:
                parts.append(part)
        kept.append(turn.with_parts(parts))
    return kept, counted("old_image", excess, "image(s) of earlier turns left out")


def tell_images_apart(turns: Turns) -> Repaired:
    """Say at the head of a turn which of its images is which tool result's.

    Only where there are two images or more: the model tells them by their order alone, and
    takes one tool's image for another's.
    """
    told: list[Message] = []
    count = 0
    for turn in turns:
        images = [part for part in turn.parts if isinstance(part, ImagePart)]
        labels = [part.label if isinstance(part, _LabelledImage) else "" for part in images]
        parts = [
            ImagePart(format=part.format, data=part.data)
            if isinstance(part, _LabelledImage)
            else part
            for part in turn.parts
        ]
        if len(images) > 1 and any(labels):
            count += 1
            each = (
                f"image {number} is {label or 'from the user'}"
                for number, label in enumerate(labels, start=1)
            )
            legend = f"[Notice from the client program: of the images here, {', '.join(each)}.]"
            parts.insert(0, TextPart(text=legend))
        told.append(turn.with_parts(parts))
    return told, counted("image_legend", count, "turn(s) got a line that tells images apart")
