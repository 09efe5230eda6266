"""Turns in any order -> a conversation as the service takes it: user, assistant, …, user.

`repair_history` changes only what is wrong, and says what it changed. Its steps, in order:

1. Values: text and JSON that can be sent.
2. Turns: each part goes to the role that may say it, the roles take turns, the user is first and
   last, and a turn has one block of reasoning at most.
3. Tools: each use has one result, in the turn after it. The service refuses ids of other forms, ids
   that stand for two uses, and (by most observations) uses without results and results without
   uses. For a model without tools, all of them become text.
4. Images: beside the tool results that they came in, few enough, and with a line that tells them
   apart.

Source of truth: the invariants that the service's official clients keep; not each version of the
service enforces each of them. What has to be filled in is filled with white space at most: the
model imitates readable fillers ("Continue"), and then ends its turn.
"""

import hashlib
import re
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, cast

from kiro_mcp.chat import (
    ImagePart,
    JsonObject,
    Message,
    ModelInfo,
    Part,
    Repair,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.images import MAX_IMAGES
from kiro_mcp.wire.json_values import clean_text, has_null, json_text, plain_json, without_nulls

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

_DETAILS: Final = {
    "unsendable_value": "{} part(s) held what cannot be sent.",
    "unsigned_reasoning": "{} unsigned block(s) of reasoning left out.",
    "foreign_reasoning": "{} block(s) of another model's reasoning left out.",
    "misplaced_part": "{} part(s) moved to the role that may say them.",
    "merged_turns": "{} turn(s) joined to the one before.",
    "user_first": "The assistant spoke first; an empty user turn was put before it.",
    "user_last": "The assistant spoke last; an empty user turn was put after it.",
    "one_reasoning": "{} further block(s) of reasoning left out.",
    "missing_id": "{} id(s) of tool uses were missing.",
    "illegal_id": "{} id(s) of tool uses were replaced.",
    "repeated_id": "{} repeated id(s) of tool uses were renamed.",
    "repeated_tool_use": "{} repetition(s) of the same tool use or result were left out.",
    "orphan_result": "{} tool result(s) without a tool use became text.",
    "missing_result": "{} tool use(s) without a result got one that says so.",
    "result_order": "{} turn(s) had tool results in another order than their tool uses.",
    "tools_as_text": "{} tool use(s) and result(s) became text.",
    "truncation_notice": "{} notice(s) of a cut-off answer added.",
    "hoisted_image": "{} image(s) put beside their tool results.",
    "old_image": "{} image(s) of earlier turns left out.",
    "image_legend": "{} turn(s) got a line that tells images apart.",
}
"""What a repair says, by its rule; {} is how many were changed."""


@dataclass(slots=True)
class _Turn:
    """A turn that is being repaired."""

    role: Role
    parts: list[Part]
    is_truncated: bool = False


def repair_history(
    messages: Sequence[Message],
    model: ModelInfo,
    *,
    system: str = "",
    allows_tools: bool = True,
    tells_of_truncation: bool = True,
) -> tuple[tuple[Message, ...], list[Repair]]:
    """Make turns that the service takes, and say what was changed.

    Args:
        messages: The turns as the caller gave them.
        model: The model that reads them.
        system: The system prompt.
        allows_tools: Whether tool uses and results stay what they are; if not, they become text.
        tells_of_truncation: Whether the model is told that an earlier answer was cut off.

    Raises:
        InvalidRequest: Neither a message nor the system prompt says anything.
    """
    counts: Counter[str] = Counter()
    turns = _alternate(messages, model.id, counts)
    is_one_text = len(turns) == 1 and all(isinstance(part, TextPart) for part in turns[0].parts)
    if not is_one_text:  # Most calls are one text, in which the rest has nothing to repair.
        if allows_tools:
            _pair_tools(turns, counts)
        else:
            _tools_to_text(turns, counts)
        sees_images = not model.input_types or "IMAGE" in model.input_types
        _place_images(turns, MAX_IMAGES if sees_images else 0, counts)
    says_something = system.strip() or any(
        part.text.strip() if isinstance(part, TextPart) else not isinstance(part, ThinkingPart)
        for turn in turns
        for part in turn.parts
    )
    if not messages or not says_something:
        raise InvalidRequest(
            "Nothing was asked: all messages are empty.", next_step="Give a prompt."
        )
    if tells_of_truncation:
        for before, turn in pairwise(turns):
            # In each place, not only the last: a history must not change under the service's cache.
            if before.is_truncated:
                turn.parts.insert(0, TextPart(text=TRUNCATION_NOTICE))
                counts["truncation_notice"] += 1
    if not is_one_text:
        _tell_images_apart(turns, counts)
    repaired = tuple(
        Message(role=turn.role, parts=tuple(turn.parts), is_truncated=turn.is_truncated)
        for turn in turns
    )
    repairs = [
        Repair(rule=rule, detail=detail.format(counts[rule]))
        for rule, detail in _DETAILS.items()
        if counts[rule]
    ]
    return repaired, repairs


def trim_oldest(
    turns: Sequence[Message], sizes: Sequence[int], *, excess_bytes: int
) -> tuple[tuple[Message, ...], list[Repair]]:
    """Leave out the oldest pairs of turns, as few as will do; the last turn always stays.

    Only if the user has set a limit: what a model has been told should not vanish unasked. Turns go
    in pairs of user and assistant, so that the first one left is the user's; results whose tool use
    went become text.

    Args:
        turns: The repaired turns.
        sizes: How many bytes each turn but the last takes.
        excess_bytes: By how many bytes all of it is too large.
    """
    count = 0
    while excess_bytes > 0 and count < len(sizes):
        excess_bytes -= sizes[count] + sizes[count + 1]
        count += 2
    first, *rest = turns[count:]
    orphans = sum(isinstance(part, ToolResult) for part in first.parts)
    first = first.with_parts(text for part in first.parts for text in _as_text(part))
    detail = f"{count} oldest turns were left out to keep the request under the set limit."
    repairs = [Repair(rule="trimmed_history", detail=detail)]
    if orphans:
        detail = _DETAILS["orphan_result"].format(orphans)
        repairs.append(Repair(rule="orphan_result", detail=detail))
    return (first, *rest), repairs


# --- values and turns ---------------------------------------------------------------------


def _alternate(messages: Sequence[Message], model_id: str, counts: Counter[str]) -> list[_Turn]:
    """Make turns of user and assistant, each part clean and with the role that may say it.

    Reasoning that the service would refuse is left out: it takes back only what it signed, only for
    the same model, and one block in a turn.
    """
    turns: list[_Turn] = []
    for message in messages:
        run: _Turn | None = None
        for given in message.parts:
            part = _clean_part(given)
            counts["unsendable_value"] += part != given
            role = message.role
            if isinstance(part, ThinkingPart):
                if not (part.signature or part.redacted):
                    counts["unsigned_reasoning"] += 1
                    continue
                if message.model not in ("", model_id):
                    counts["foreign_reasoning"] += 1
                    continue
                role = "assistant"
            elif isinstance(part, ToolUse):
                role = "assistant"
            elif isinstance(part, ToolResult | ImagePart):
                role = "user"
            counts["misplaced_part"] += role != message.role
            if run is None or run.role != role:
                run = _begin_run(turns, role, counts)
            run.parts.append(part)
        run = run or _begin_run(turns, message.role, counts)
        run.is_truncated = message.is_truncated and run.role == "assistant"
    if not turns or turns[0].role != "user":
        turns.insert(0, _Turn("user", []))
        counts["user_first"] += 1
    if turns[-1].role != "user":
        turns.append(_Turn("user", []))
        counts["user_last"] += 1
    for turn in turns:
        reasoning = [part for part in turn.parts if isinstance(part, ThinkingPart)]
        if len(reasoning) > 1:
            counts["one_reasoning"] += len(reasoning) - 1
            kept = turn.parts.index(reasoning[0])
            turn.parts = [
                part
                for index, part in enumerate(turn.parts)
                if index == kept or not isinstance(part, ThinkingPart)
            ]
    return turns


def _begin_run(turns: list[_Turn], role: Role, counts: Counter[str]) -> _Turn:
    """Return the turn for the next parts of a role: a new one, or the last if it has that role."""
    if turns and turns[-1].role == role:
        counts["merged_turns"] += 1
        turns[-1].is_truncated = False
    else:
        turns.append(_Turn(role, []))
    return turns[-1]


def _clean_part(part: Part) -> Part:
    """Make a part fit to send: without half surrogate pairs, NUL characters and nulls.

    A library's user may have made anything by hand; what came through `kiro_mcp.wire.messages` is
    clean already.
    """
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
            arguments = cast("JsonObject", without_nulls(_plain_object(part.arguments)))
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


# --- tool uses and results ----------------------------------------------------------------


def legal_id(tool_use_id: str) -> str:
    """Return the id if the service takes it, else a hash of it: the same one each time."""
    if LEGAL_ID.fullmatch(tool_use_id):
        return tool_use_id
    return f"tooluse_{hashlib.sha256(tool_use_id.encode()).hexdigest()[:32]}"


def _pair_tools(turns: Sequence[_Turn], counts: Counter[str]) -> None:
    """Give each tool use an id of its own and one result, in the turn after it."""
    seen: set[str] = set()
    uses: list[tuple[str, ToolUse]] = []
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            uses = _name_uses(turn, index, seen, counts)
        else:
            _match_results(turn, uses, counts)
            uses = []


def _name_uses(
    turn: _Turn, index: int, seen: set[str], counts: Counter[str]
) -> list[tuple[str, ToolUse]]:
    """Give each use in a turn an id that stands for nothing else in the whole history.

    A use that only repeats another of its turn is left out: a library keeps each call twice.

    Returns:
        The uses, each after the id by which the caller's results know it.
    """
    uses: list[tuple[str, ToolUse]] = []
    met: set[Hashable] = set()
    parts: list[Part] = []
    for position, part in enumerate(turn.parts):
        if not isinstance(part, ToolUse):
            parts.append(part)
            continue
        given_id = legal_id(part.id) if part.id else f"use_{index}_{position}"
        if given_id != part.id:
            counts["illegal_id" if part.id else "missing_id"] += 1
        content = given_id, part.name, part.state, json_text(part.arguments)
        if content in met:
            counts["repeated_tool_use"] += 1
            continue
        met.add(content)
        own_id = given_id
        if given_id in seen:
            own_id = legal_id(f"{given_id}\n{len(seen)}")
            counts["repeated_id"] += 1
        seen.add(own_id)
        use = part if own_id == part.id else replace(part, id=own_id)
        uses.append((given_id, use))
        parts.append(use)
    turn.parts = parts
    return uses


def _match_results(turn: _Turn, uses: Sequence[tuple[str, ToolUse]], counts: Counter[str]) -> None:
    """Give each of `uses` its one result in this turn, in the order of the uses.

    A result without an id answers the first use, of the tool that it names if it names one, that
    no other result answers. Several results of one id go to the uses of that id in order. A result
    without a use becomes text, unless it repeats another. A use without a result gets an error.
    """
    waiting: dict[str, deque[str]] = {}
    for given_id, use in uses:
        waiting.setdefault(given_id, deque()).append(use.id)
    named = {legal_id(part.id) for part in turn.parts if isinstance(part, ToolResult) and part.id}
    free = [(use.name, given_id) for given_id, use in uses if given_id not in named]
    met: set[Hashable] = set()
    parts: list[Part] = []
    for part in turn.parts:
        if not isinstance(part, ToolResult):
            parts.append(part)
            continue
        if not part.id and free:
            names = [name for name, _ in free]
            _, use_id = free.pop(names.index(part.name) if part.name in names else 0)
            counts["missing_id"] += 1
        else:
            use_id = legal_id(part.id)
        content = use_id, part.is_error, part.text, json_text(part.data), part.images
        if waiting.get(use_id):
            own_id = waiting[use_id].popleft()
            if own_id == part.id:
                parts.append(part)
            else:
                counts["illegal_id"] += part.id not in ("", use_id)
                counts["repeated_id"] += own_id != use_id
                parts.append(replace(part, id=own_id))
        elif use_id in waiting and content in met:
            counts["repeated_tool_use"] += 1
        else:
            parts += _as_text(part)
            counts["orphan_result"] += 1
        met.add(content)
    for own_ids in waiting.values():
        counts["missing_result"] += len(own_ids)
    missing = {own_id for own_ids in waiting.values() for own_id in own_ids}
    parts += [
        ToolResult(
            id=use.id, text=CUT_OFF if use.state == "truncated" else NO_RESULT, is_error=True
        )
        for _, use in uses
        if use.id in missing
    ]
    # Models tell the images of results by their order.
    order = {use.id: position for position, (_, use) in enumerate(uses)}
    results = [part for part in parts if isinstance(part, ToolResult)]
    in_order = sorted(results, key=lambda result: order[result.id])
    if any(new is not old for new, old in zip(in_order, results, strict=True)):
        counts["result_order"] += 1
        sorted_results = iter(in_order)
        parts = [next(sorted_results) if isinstance(part, ToolResult) else part for part in parts]
    turn.parts = parts


def _tools_to_text(turns: Sequence[_Turn], counts: Counter[str]) -> None:
    for turn in turns:
        counts["tools_as_text"] += sum(
            isinstance(part, ToolUse | ToolResult) for part in turn.parts
        )
        turn.parts = [text for part in turn.parts for text in _as_text(part)]


def _as_text(part: Part) -> Sequence[Part]:
    """Return a tool use or a result as text, and the images of a result; other parts stay."""
    if isinstance(part, ToolUse):
        return (TextPart(text=f"Tool {part.name} was used with {json_text(part.arguments)}"),)
    if isinstance(part, ToolResult):
        what = "Error" if part.is_error else "Result"
        which = ", ".join(filter(None, (part.name, part.id)))
        text = TextPart(text=f"{what} of a tool ({which}):\n{result_text(part)}")
        return text, *_labelled(part.images, f"the result of a tool ({which})")
    return (part,)


def result_text(result: ToolResult) -> str:
    """Return all that a result says, as text."""
    data = "" if result.data is None else json_text(result.data)
    return "\n".join(filter(None, (result.text, data)))


# --- images -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelledImage(ImagePart):
    """An image of a tool result, on its way out of it. `_tell_images_apart` removes the label."""

    label: str
    """Where it comes from, in words for the model."""


def _labelled(images: Iterable[ImagePart], label: str) -> list[ImagePart]:
    return [_LabelledImage(format=image.format, data=image.data, label=label) for image in images]


def _place_images(turns: Sequence[_Turn], limit: int, counts: Counter[str]) -> None:
    """Move images out of tool results into their turn, and leave out the oldest over the limit.

    The service accepts images in a tool result and drops them in silence. The last turn keeps all
    of its own, even if they are too many: its caller gets an error.
    """
    names: dict[str, str] = {}
    for turn in turns:
        number = 0
        hoisted: list[Part] = []
        for position, part in enumerate(turn.parts):
            if isinstance(part, ToolResult):
                number += 1
                if part.images:
                    label = f"tool result {number} ({names.get(part.id, '')}, {part.id})"
                    hoisted += _labelled(part.images, label)
                    turn.parts[position] = replace(part, images=())
        turn.parts += hoisted
        counts["hoisted_image"] += len(hoisted)
        names = {use.id: use.name for use in turn.parts if isinstance(use, ToolUse)}
    image_counts = [sum(isinstance(part, ImagePart) for part in turn.parts) for turn in turns]
    excess = min(sum(image_counts) - limit, sum(image_counts[:-1]))
    for turn in turns:
        if excess <= 0:
            break
        kept: list[Part] = []
        for part in turn.parts:
            if excess and isinstance(part, ImagePart):
                excess -= 1
                counts["old_image"] += 1
            else:
                kept.append(part)
        turn.parts = kept


def _tell_images_apart(turns: Sequence[_Turn], counts: Counter[str]) -> None:
    """Say at the head of a turn which of its images is which tool result's.

    Only where there are two images or more: the model tells them by their order alone, and
    takes one tool's image for another's.
    """
    for turn in turns:
        images = [part for part in turn.parts if isinstance(part, ImagePart)]
        labels = [part.label if isinstance(part, _LabelledImage) else "" for part in images]
        if not any(labels):
            continue
        turn.parts = [
            ImagePart(format=part.format, data=part.data)
            if isinstance(part, _LabelledImage)
            else part
            for part in turn.parts
        ]
        if len(images) > 1:
            counts["image_legend"] += 1
            each = (
                f"image {number} is {label or 'from the user'}"
                for number, label in enumerate(labels, start=1)
            )
            legend = f"[Notice from the client program: of the images here, {', '.join(each)}.]"
            turn.parts.insert(0, TextPart(text=legend))
