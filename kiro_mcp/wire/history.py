"""Turns any messages into a conversation that the service accepts: user, assistant, …, user.

`repair_history` changes only what is wrong, and reports each change. Its steps, in order:

1. Values: all text and JSON can be sent.
2. Turns: each part belongs to the role that may send it, the roles alternate, the user is first and
   last, and a turn has at most one block of reasoning.
3. Tools: each use has one result, in the next turn. The service refuses malformed ids, ids that two
   uses share, and (by most observations) uses without results and results without uses. For a model
   without tools, all of them become text.
4. Images: they stand beside the tool result that they came in, within the limit, with a line that
   says which is which.

Source of truth: the rules that the service's official clients keep. Not every version of the
service enforces all of them. Gaps are filled with white space at most: the model imitates readable
fillers ("Continue"), and then ends its turn.
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
from kiro_mcp.wire.json_values import clean_text, json_text, plain_json, without_nulls

TRUNCATION_NOTICE: Final = (
    "[Notice from the client program, not from the user: your last answer was cut off by a limit"
    " of the service. What is above is all of it that arrived. Do not repeat it; go on from"
    " there, in smaller pieces if it was long.]"
)
"""Comes before the turn that follows a cut-off answer."""

LEGAL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The ids of tool uses that the service accepts."""

NO_RESULT: Final = "No result of this tool use was recorded."
CUT_OFF: Final = (
    "The arguments of this tool use were cut off before they were complete, so it was not run."
    " Ask again, with less in one tool use."
)

_DETAILS: Final = {
    "unsendable_value": "{} part(s) contained values that cannot be sent.",
    "unsigned_reasoning": "{} unsigned block(s) of reasoning left out.",
    "foreign_reasoning": "{} block(s) of another model's reasoning left out.",
    "misplaced_part": "{} part(s) moved to the role that may send them.",
    "merged_turns": "{} turn(s) joined to the one before.",
    "user_first": "The assistant spoke first; an empty user turn was put before it.",
    "user_last": "The assistant spoke last; an empty user turn was put after it.",
    "one_reasoning": "{} additional block(s) of reasoning left out.",
    "missing_id": "{} id(s) of tool uses were missing.",
    "illegal_id": "{} id(s) of tool uses were replaced.",
    "repeated_id": "{} repeated id(s) of tool uses were renamed.",
    "repeated_tool_use": "{} repetition(s) of the same tool use or result were left out.",
    "orphan_result": "{} tool result(s) without a tool use became text.",
    "missing_result": "{} tool use(s) without a result got a result that says so.",
    "result_order": "{} turn(s) had tool results in another order than their tool uses.",
    "tools_as_text": "{} tool use(s) and result(s) became text.",
    "truncation_notice": "{} notice(s) of a cut-off answer added.",
    "hoisted_image": "{} image(s) put beside their tool results.",
    "old_image": "{} image(s) of earlier turns left out.",
    "image_legend": "{} turn(s) got a line that says which image is which.",
}
"""The text of each repair, by its rule; {} is the number of changes."""


@dataclass(slots=True)
class _Turn:
    """A turn during its repair."""

    role: Role
    parts: list[Part]
    is_truncated: bool = False
    has_reasoning: bool = False


def repair_history(
    messages: Sequence[Message],
    model: ModelInfo,
    *,
    system: str = "",
    allows_tools: bool = True,
    tells_of_truncation: bool = True,
) -> tuple[tuple[Message, ...], list[Repair]]:
    """Return turns that the service accepts, and the changes that were made.

    Args:
        messages: The caller's turns.
        model: The model that reads them.
        system: The system prompt.
        allows_tools: Whether tool uses and results are sent as such; if not, they become text.
        tells_of_truncation: Whether the model is told that an earlier answer was cut off.

    Raises:
        InvalidRequest: All messages and the system prompt are empty.
    """
    counts: Counter[str] = Counter()
    turns = _alternate(messages, model.id, counts)
    is_one_text = len(turns) == 1 and all(isinstance(part, TextPart) for part in turns[0].parts)
    if not is_one_text:  # Most calls are one text, which needs no other repair.
        if allows_tools:
            _pair_tools(turns, counts)
        else:
            for turn in turns:
                counts["tools_as_text"] += sum(
                    isinstance(part, ToolUse | ToolResult) for part in turn.parts
                )
                turn.parts = [text for part in turn.parts for text in _as_text(part)]
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
            # After each one, not only the last: else the service's cache would not match.
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
    """Leave out the oldest pairs of turns, as few as possible. The last turn always stays.

    This happens only if the user has set a limit. Turns are removed in pairs of user and assistant,
    so that the first remaining one is the user's. Results whose tool use was removed become text.

    Args:
        turns: The repaired turns.
        sizes: The size of each turn except the last, in bytes.
        excess_bytes: By how many bytes the request is too large.
    """
    count = 0
    while excess_bytes > 0 and count < len(sizes):
        excess_bytes -= sizes[count] + sizes[count + 1]
        count += 2
    first, *rest = turns[count:]
    orphans = sum(isinstance(part, ToolResult) for part in first.parts)
    first = replace(first, parts=tuple(text for part in first.parts for text in _as_text(part)))
    detail = f"{count} oldest turns were left out to keep the request under the set limit."
    repairs = [Repair(rule="trimmed_history", detail=detail)]
    if orphans:
        detail = _DETAILS["orphan_result"].format(orphans)
        repairs.append(Repair(rule="orphan_result", detail=detail))
    return (first, *rest), repairs


# --- values and turns ---------------------------------------------------------------------


def _alternate(messages: Sequence[Message], model_id: str, counts: Counter[str]) -> list[_Turn]:
    """Return alternating turns of user and assistant, with each part clean and in the right role.

    Reasoning that the service would refuse is left out: it accepts only blocks that it signed, of
    the same model, and one per turn.
    """
    turns: list[_Turn] = []
    for message in messages:
        entries: list[tuple[Role, Part | None]] = []
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
            entries.append((role, part))
        speaker: Role | None = None
        for role, part in entries or [(message.role, None)]:
            if role != speaker:
                speaker = role
                if turns and turns[-1].role == role:
                    counts["merged_turns"] += 1
                    turns[-1].is_truncated = False
                else:
                    turns.append(_Turn(role, []))
            turn = turns[-1]
            if isinstance(part, ThinkingPart) and turn.has_reasoning:
                counts["one_reasoning"] += 1
            elif part is not None:
                turn.has_reasoning = turn.has_reasoning or isinstance(part, ThinkingPart)
                turn.parts.append(part)
        turns[-1].is_truncated = message.is_truncated and turns[-1].role == "assistant"
    if not turns or turns[0].role != "user":
        turns.insert(0, _Turn("user", []))
        counts["user_first"] += 1
    if turns[-1].role != "user":
        turns.append(_Turn("user", []))
        counts["user_last"] += 1
    return turns


def _clean_part(part: Part) -> Part:
    """Return a part that can be sent: without half surrogate pairs, NUL characters and nulls.

    Parts from `kiro_mcp.wire.messages` are already clean. Users of this library may pass others.
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
            arguments = cast("JsonObject", without_nulls(plain_json(part.arguments)))
            name = clean_text(part.name)
            return replace(part, id=clean_text(part.id), name=name, arguments=arguments)
        case ToolResult():
            data = cast("JsonObject | None", plain_json(part.data))
            text = clean_text(part.text)
            if data != without_nulls(data):
                # The service refuses null in data, but not in text.
                text, data = "\n".join(filter(None, (text, json_text(data)))), None
            name = clean_text(part.name)
            return replace(part, id=clean_text(part.id), name=name, text=text, data=data)
        case ImagePart():
            return part


# --- tool uses and results ----------------------------------------------------------------


def legal_id(tool_use_id: str) -> str:
    """Return the id if the service accepts it, else a hash of it, always the same one."""
    if LEGAL_ID.fullmatch(tool_use_id):
        return tool_use_id
    return f"tooluse_{hashlib.sha256(tool_use_id.encode()).hexdigest()[:32]}"


def _pair_tools(turns: Sequence[_Turn], counts: Counter[str]) -> None:
    """Give each tool use a unique id and one result, in the next turn."""
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
    """Give each use in a turn an id that is unique in the whole history.

    A use that repeats another one of its turn is left out: one library keeps each call twice.

    Returns:
        The uses, each with the id that the caller's results refer to.
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
    """Give each of `uses` one result in this turn, in the order of the uses.

    A result without an id belongs to the first use without a result; if the result names a tool, to
    the first such use of that tool. Several results of one id belong to the uses of that id, in
    order. A result without a use becomes text, unless it repeats another one. A use without a
    result gets an error.
    """
    waiting: dict[str, deque[str]] = {}
    for given_id, use in uses:
        waiting.setdefault(given_id, deque()).append(use.id)
    named = {legal_id(part.id) for part in turn.parts if isinstance(part, ToolResult) and part.id}
    unnamed = [(given_id, use.name) for given_id, use in uses if given_id not in named]
    by_name: dict[str, deque[int]] = {}
    for position, (_, name) in enumerate(unnamed):
        by_name.setdefault(name, deque()).append(position)
    taken: set[int] = set()
    first_free = 0
    met: set[Hashable] = set()
    parts: list[Part] = []
    results: dict[str, ToolResult] = {}
    for part in turn.parts:
        if not isinstance(part, ToolResult):
            parts.append(part)
            continue
        if not part.id and len(taken) < len(unnamed):
            of_tool = by_name.get(part.name, deque())
            while of_tool and of_tool[0] in taken:
                of_tool.popleft()
            while first_free in taken:
                first_free += 1
            position = of_tool[0] if of_tool else first_free
            taken.add(position)
            use_id = unnamed[position][0]
            counts["missing_id"] += 1
        else:
            use_id = legal_id(part.id)
        content = use_id, part.is_error, part.text, json_text(part.data), part.images
        if waiting.get(use_id):
            own_id = waiting[use_id].popleft()
            if own_id != part.id:
                counts["illegal_id"] += part.id not in ("", use_id)
                counts["repeated_id"] += own_id != use_id
                part = replace(part, id=own_id)
            results[own_id] = part
            parts.append(part)
        elif use_id in waiting and content in met:
            counts["repeated_tool_use"] += 1
        else:
            parts += _as_text(part)
            counts["orphan_result"] += 1
        met.add(content)
    for _, use in uses:
        if use.id not in results:
            counts["missing_result"] += 1
            text = CUT_OFF if use.state == "truncated" else NO_RESULT
            results[use.id] = ToolResult(id=use.id, text=text, is_error=True)
            parts.append(results[use.id])
    # Models identify the images of results by their order.
    order = [use.id for _, use in uses]
    counts["result_order"] += list(results) != order
    in_order = map(results.__getitem__, order)
    turn.parts = [next(in_order) if isinstance(part, ToolResult) else part for part in parts]


def _as_text(part: Part) -> Sequence[Part]:
    """Return a tool use or result as text, with the images of a result; other parts unchanged."""
    if isinstance(part, ToolUse):
        return (TextPart(text=f"Tool {part.name} was used with {json_text(part.arguments)}"),)
    if isinstance(part, ToolResult):
        what = "Error" if part.is_error else "Result"
        which = ", ".join(filter(None, (part.name, part.id)))
        text = TextPart(text=f"{what} of a tool ({which}):\n{result_text(part)}")
        return text, *_labelled(part.images, f"the result of a tool ({which})")
    return (part,)


def result_text(result: ToolResult) -> str:
    """Return the content of a result as text."""
    data = "" if result.data is None else json_text(result.data)
    return "\n".join(filter(None, (result.text, data)))


# --- images -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelledImage(ImagePart):
    """An image moved out of a tool result. `_tell_images_apart` removes the label."""

    label: str
    """Where it comes from, for the model."""


def _labelled(images: Iterable[ImagePart], label: str) -> list[ImagePart]:
    return [_LabelledImage(format=image.format, data=image.data, label=label) for image in images]


def _place_images(turns: Sequence[_Turn], limit: int, counts: Counter[str]) -> None:
    """Move images from tool results to their turn, and leave out the oldest above the limit.

    The service accepts images in a tool result but silently drops them. The last turn keeps all of
    its images, even if they are too many: then the caller gets an error.
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
    counts["old_image"] = max(0, excess)
    for turn in turns:
        kept: list[Part] = []
        for part in turn.parts:
            if excess > 0 and isinstance(part, ImagePart):
                excess -= 1
            else:
                kept.append(part)
        turn.parts = kept


def _tell_images_apart(turns: Sequence[_Turn], counts: Counter[str]) -> None:
    """Say at the head of a turn which image belongs to which tool result.

    Only if there are at least two images: the model sees only their order, and would take one
    tool's image for another's.
    """
    for turn in turns:
        labels: list[str] = []
        for position, part in enumerate(turn.parts):
            if isinstance(part, _LabelledImage):
                turn.parts[position] = ImagePart(format=part.format, data=part.data)
                labels.append(part.label)
            elif isinstance(part, ImagePart):
                labels.append("")
        if len(labels) > 1 and any(labels):
            counts["image_legend"] += 1
            each = (
                f"image {number} is {label or 'from the user'}"
                for number, label in enumerate(labels, start=1)
            )
            legend = f"[Notice from the client program: of the images here, {', '.join(each)}.]"
            turn.parts.insert(0, TextPart(text=legend))
