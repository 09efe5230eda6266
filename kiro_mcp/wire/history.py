"""Turns in any order -> a conversation as the service takes it: user, assistant, …, user.

Each step is a function from turns to turns and says what it changed; each is the identity on
what is right already. Used by `kiro_mcp.wire.prepare`, in its order; what tool uses and
their results need is in `kiro_mcp.wire.tool_pairing`.

Source of truth: the invariants that the service's official clients keep; not each of them is
enforced by each version of the service. What has to be filled in is filled with white space at
most: readable fillers ("Continue") are imitated by the model, which then ends its turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Final, TypeAlias

from kiro_mcp.chat import (
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.wire.findings import Repair, counted
from kiro_mcp.wire.images import MAX_IMAGES

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
