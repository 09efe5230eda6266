"""Turns in any order -> a conversation as the service takes it: user, assistant, …, user.

Each step is a function from turns to turns and says what it changed; each is the identity on
what is right already. Used by `kiro_mcp.wire.request`, in its order; what tool uses and
their results need is in `kiro_mcp.wire.history`.

Source of truth: the invariants that the service's official clients keep; not each of them is
enforced by each version of the service. What has to be filled in is filled with white space at
most: readable fillers ("Continue") are imitated by the model, which then ends its turn.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Final, TypeAlias, assert_never

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

# --- history -----------------------------------------------------------------------------


Turns: TypeAlias = Sequence[Message]
Repaired: TypeAlias = tuple[Turns, list[Repair]]
Step: TypeAlias = Callable[[Turns], Repaired]

TRUNCATION_NOTICE: Final = (
    "[Notice from the client program, not from the user: your last answer was cut off by a limit"
    " of the service. What is above is all of it that arrived. Do not repeat it; go on from"
    " there, in smaller pieces if it was long.]"
)
"""Goes before the turn after an answer that was cut off."""


def run_steps(turns: Turns, steps: Sequence[Step]) -> Repaired:
    """Apply the steps in order and gather their repairs."""
    repairs: list[Repair] = []
    for step in steps:
        turns, changes = step(turns)
        repairs.extend(changes)
    return turns, repairs


def drop_unsigned_thinking(turns: Turns) -> Repaired:
    """Leave out reasoning without a signature: the service takes back only its own."""
    kept = [
        turn.with_parts([part for part in turn.parts if not _is_unsigned(part)]) for turn in turns
    ]
    count = part_count(turns) - part_count(kept)
    return kept, counted("unsigned_reasoning", count, "unsigned block(s) of reasoning left out")


def drop_foreign_thinking(turns: Turns, *, model_id: str) -> Repaired:
    """Leave out reasoning of another model: this model would refuse its signature."""
    kept = [
        turn.with_parts([part for part in turn.parts if not isinstance(part, ThinkingPart)])
        if turn.model not in ("", model_id)
        else turn
        for turn in turns
    ]
    count = part_count(turns) - part_count(kept)
    return kept, counted(
        "foreign_reasoning", count, "block(s) of another model's reasoning left out"
    )


def _is_unsigned(part: Part) -> bool:
    return isinstance(part, ThinkingPart) and not (part.signature or part.redacted)


def split_by_role(turns: Turns) -> Repaired:
    """Give each part to the role that may say it, as turns of their own.

    Tool uses and reasoning are the assistant's; tool results and images are the user's.
    """
    split = [piece for turn in turns for piece in _pieces(turn)]
    moved = sum(_owner(part, turn.role) != turn.role for turn in turns for part in turn.parts)
    return split, counted("misplaced_part", moved, "part(s) moved to the role that may say them")


def _pieces(turn: Message) -> list[Message]:
    runs = groupby(turn.parts, key=partial(_owner, speaker=turn.role))
    pieces = [Message(role=role, parts=tuple(parts)) for role, parts in runs]
    if not pieces or (len(pieces) == 1 and pieces[0].role == turn.role):
        return [turn]
    last = replace(pieces[-1], is_truncated=turn.is_truncated and pieces[-1].role == "assistant")
    return [*pieces[:-1], last]


def _role(turn: Message) -> Role:
    return turn.role


def _owner(part: Part, speaker: Role) -> Role:
    if isinstance(part, ToolUse | ThinkingPart):
        return "assistant"
    return "user" if isinstance(part, ToolResult | ImagePart) else speaker


def merge_turns(turns: Turns) -> Repaired:
    """Join turns of one role that follow each other."""
    merged: list[Message] = []
    for role, group in groupby(turns, key=_role):
        same = list(group)
        parts = tuple(part for turn in same for part in turn.parts)
        merged.append(Message(role=role, parts=parts, is_truncated=same[-1].is_truncated))
    count = len(turns) - len(merged)
    return merged, counted("merged_turns", count, "turn(s) joined to the one before")


def start_with_user(turns: Turns) -> Repaired:
    """Put an empty turn of the user before an assistant that speaks first."""
    if turns[0].role == "user":
        return turns, []
    added = _said("user_first", "The assistant spoke first; an empty user turn was put before.")
    return [Message(role="user", parts=()), *turns], [added]


def end_with_user(turns: Turns) -> Repaired:
    """Put an empty turn of the user after an assistant that speaks last."""
    if turns[-1].role == "user":
        return turns, []
    added = _said("user_last", "The assistant spoke last; an empty user turn was put after it.")
    return [*turns, Message(role="user", parts=())], [added]


def keep_one_reasoning(turns: Turns) -> Repaired:
    """Keep the first block of reasoning of a turn: the service has room for one."""
    kept = [turn.with_parts(_one_reasoning(turn.parts)) for turn in turns]
    count = part_count(turns) - part_count(kept)
    return kept, counted("one_reasoning", count, "further block(s) of reasoning left out")


def _one_reasoning(parts: Sequence[Part]) -> list[Part]:
    places = [index for index, part in enumerate(parts) if isinstance(part, ThinkingPart)]
    further = set(places[1:])
    return [part for index, part in enumerate(parts) if index not in further]


def tell_of_truncation(turns: Turns) -> Repaired:
    """Tell the model, before each turn after an answer that was cut off, that it was.

    Before each, not only the last: the history must not change under the service's cache.
    """
    told: list[Message] = []
    for index, turn in enumerate(turns):
        is_after_cut = index > 0 and turns[index - 1].is_truncated
        notice = (TextPart(text=TRUNCATION_NOTICE),) if is_after_cut else ()
        told.append(turn.with_parts((*notice, *turn.parts)))
    count = part_count(told) - part_count(turns)
    return told, counted("truncation_notice", count, "notice(s) of a cut-off answer added")


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelledImage(ImagePart):
    """An image of a tool result, on its way out of it. `tell_images_apart` takes the label off."""

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
        before = hoisted[-1].parts if hoisted else ()
        names = {part.id: part.name for part in before if isinstance(part, ToolUse)}
        hoisted.append(turn.with_parts(_hoisted(turn.parts, names)))
    count = part_count(hoisted) - part_count(turns)
    return hoisted, counted("hoisted_image", count, "image(s) put beside their tool results")


def _hoisted(parts: Sequence[Part], names: Mapping[str, str]) -> list[Part]:
    bare: list[Part] = []
    images: list[Part] = []
    number = 0
    for part in parts:
        if not isinstance(part, ToolResult):
            bare.append(part)
            continue
        number += 1
        label = f"tool result {number} ({names.get(part.id, '')}, {part.id})"
        images += label_images(part.images, label)
        bare.append(replace(part, images=()) if part.images else part)
    return [*bare, *images]


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


def forget_old_images(turns: Turns, *, limit: int = MAX_IMAGES) -> Repaired:
    """Leave out the oldest images of the history, so that `limit` are left with the last turn's.

    The last turn keeps all of its own, even if they are too many: its caller gets an error.
    """
    room = max(0, limit - _image_count(turns[-1]))
    kept: list[Message] = []
    for turn in reversed(turns[:-1]):
        count = _image_count(turn)
        kept.append(_without_first_images(turn, count - room))
        room = max(0, room - count)
    turns_kept = [*reversed(kept), turns[-1]]
    count = part_count(turns) - part_count(turns_kept)
    return turns_kept, counted("old_image", count, "image(s) of earlier turns left out")


def forget_all_old_images(turns: Turns) -> Repaired:
    """Leave out all images of the history, for a model that reads text only."""
    return forget_old_images(turns, limit=0)


def _without_first_images(turn: Message, count: int) -> Message:
    if count <= 0:
        return turn
    places = [index for index, part in enumerate(turn.parts) if isinstance(part, ImagePart)]
    first = set(places[:count])
    return turn.with_parts([part for index, part in enumerate(turn.parts) if index not in first])


def _image_count(turn: Message) -> int:
    return sum(isinstance(part, ImagePart) for part in turn.parts)


def part_count(turns: Turns) -> int:
    """Return how many parts there are in all turns."""
    return sum(len(turn.parts) for turn in turns)


def _said(rule: str, detail: str) -> Repair:
    return Repair(rule=rule, detail=detail)


# --- clean_parts -------------------------------------------------------------------------


def clean_turns(turns: Turns) -> Repaired:
    """Make every text and value one that can be sent."""
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
            return _clean_use(part)
        case ToolResult():
            return _clean_result(part)
        case ImagePart():
            return part
        case _:
            assert_never(part)


def _clean_use(use: ToolUse) -> ToolUse:
    return replace(
        use,
        id=clean_text(use.id),
        name=clean_text(use.name),
        arguments=object_without_nulls(_plain_object(use.arguments)),
    )


def _clean_result(result: ToolResult) -> ToolResult:
    data = None if result.data is None else _plain_object(result.data)
    text = clean_text(result.text)
    if data is not None and has_null(data):
        # As text it stays as it is; the service takes no null in data.
        text = "\n".join(filter(None, (text, json_text(data))))
        data = None
    return replace(
        result,
        id=clean_text(result.id),
        name=clean_text(result.name),
        text=text,
        data=data,
    )


def _plain_object(value: JsonObject) -> JsonObject:
    plain = plain_json(value)
    return plain if isinstance(plain, dict) else {}


# --- tool_pairing ------------------------------------------------------------------------


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


# --- trimming ----------------------------------------------------------------------------


def trim_oldest(turns: Turns, sizes: Sequence[int], *, excess_bytes: int) -> Repaired:
    """Leave out the oldest pairs of turns, as few as will do; the last turn always stays.

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
