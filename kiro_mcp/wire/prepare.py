"""`ChatRequest` -> the same, repaired: everything about a payload but its spelling.

Between the values that a caller's words became (`messages`, `tool_specs`, `model_names`) and
`kiro_mcp.wire.payload`, which writes them down for an endpoint. Nothing here depends on the
endpoint.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, cast

from kiro_mcp.chat import (
    ChatRequest,
    JsonObject,
    Message,
    ModelInfo,
    TextPart,
    ThinkingPart,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire import history
from kiro_mcp.wire.findings import Repair
from kiro_mcp.wire.history import Repaired, Step, Turns, clean_turns, run_steps
from kiro_mcp.wire.json_values import clean_text
from kiro_mcp.wire.models import resolve_model
from kiro_mcp.wire.property_names import rename_members
from kiro_mcp.wire.request_fields import (
    THINKING_BUDGET,
    THINKING_MODE_TAG,
    Wishes,
    ask_model,
)
from kiro_mcp.wire.system_prompt import compose_system
from kiro_mcp.wire.tools import (
    DESCRIPTION_MAX_BYTES,
    SentTools,
    callers_names,
    clean_spec,
    sendable_tools,
)

LEGAL_CONVERSATION_ID: Final = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
"""What the service takes as the id of a conversation: a UUID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadOptions:
    """What the user may have otherwise, for all requests alike."""

    description_max_bytes: int = DESCRIPTION_MAX_BYTES
    """Where the description of a tool is cut; the whole then goes to the system prompt."""
    thinking_budget: int = THINKING_BUDGET
    """Tokens for thinking at medium effort, for models that are asked by tags."""
    max_payload_bytes: int = 0
    """Over which the oldest turns are left out; 0 never leaves any out."""
    tells_of_truncation: bool = True
    """Whether the model is told of an answer of its own that was cut off."""


DEFAULT_OPTIONS: Final = PayloadOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as it can be sent, in this package's words."""

    model: ModelInfo
    conversation_id: str
    """A UUID, or ""."""
    turns: tuple[Message, ...]
    """User and assistant in turn, the user first and last."""
    system: str
    tools: tuple[ToolSpec, ...]
    fields: JsonObject
    """The model's own fields."""
    tool_names: Mapping[str, str]
    """The caller's name of each tool, by the name that is sent."""
    property_names: Mapping[str, Mapping[str, str]]
    """The same for the renamed properties of tools, by the caller's name of the tool."""
    repairs: tuple[Repair, ...]
    warnings: tuple[str, ...]


def prepare(request: ChatRequest, options: PayloadOptions = DEFAULT_OPTIONS) -> Prepared:
    """Repair a request, and say what was repaired.

    Raises:
        InvalidRequest: No message says anything.
    """
    request, model, model_warnings = _with_model(request)
    if (system := clean_text(request.system)) is not request.system:
        request = replace(request, system=system)
    wishes = _wishes(request, model, options)
    turns, repairs = _repaired_turns(request, model, options)
    conversation_id, id_repairs = _conversation_id(request.conversation_id)
    tools = _tools(request, turns, options)
    return Prepared(
        model=model,
        conversation_id=conversation_id,
        turns=tuple(_with_sent_names(turns, tools)),
        system=compose_system(request, tools, tags=_new_tags(wishes.tags, request)),
        tools=tools.specs,
        fields=wishes.fields,
        tool_names=callers_names(tools.names),
        property_names=tools.property_names,
        repairs=(*id_repairs, *repairs, *tools.repairs),
        warnings=(*model_warnings, *wishes.warnings),
    )


def _with_model(request: ChatRequest) -> tuple[ChatRequest, ModelInfo, tuple[str, ...]]:
    if request.model_info is not None:
        return request, request.model_info, ()
    choice = resolve_model(request.model)
    return choice.applied_to(request), choice.model, choice.warnings


def _wishes(request: ChatRequest, model: ModelInfo, options: PayloadOptions) -> Wishes:
    return ask_model(
        model,
        effort=request.effort,
        max_tokens=request.max_tokens,
        thinking_budget=options.thinking_budget,
    )


def _new_tags(tags: str, request: ChatRequest) -> str:
    """Leave out tags where the caller has put such tags into the prompt."""
    last = (part.text for part in request.messages[-1].parts if isinstance(part, TextPart))
    has_own = any(THINKING_MODE_TAG in text for text in (request.system, *last))
    return "" if has_own else tags


def _repaired_turns(request: ChatRequest, model: ModelInfo, options: PayloadOptions) -> Repaired:
    turns, repairs = clean_turns(request.messages)
    _require_something(turns, request.system)
    if _is_one_text(turns):  # Most calls; the others have nothing to do there.
        return turns, repairs
    turns, more = run_steps(turns, _steps(request, model, options))
    _require_something(turns, request.system)  # All there was may have been old images.
    return turns, [*repairs, *more]


def _require_something(turns: Turns, system: str) -> None:
    says_something = system.strip() or any(
        part.text.strip() if isinstance(part, TextPart) else not isinstance(part, ThinkingPart)
        for turn in turns
        for part in turn.parts
    )
    if not turns or not says_something:
        raise InvalidRequest(
            "There is nothing to answer: no message says anything.", next_step="Give a prompt."
        )


def _is_one_text(turns: Turns) -> bool:
    return (
        len(turns) == 1
        and turns[0].role == "user"
        and all(isinstance(part, TextPart) for part in turns[0].parts)
    )


def _steps(request: ChatRequest, model: ModelInfo, options: PayloadOptions) -> Sequence[Step]:
    """The steps of repair, in the order in which each may rely on those before it."""
    return (
        history.drop_unsigned_thinking,
        partial(history.drop_foreign_thinking, model_id=model.id),
        history.split_by_role,
        history.merge_turns,
        history.start_with_user,
        history.end_with_user,
        history.keep_one_reasoning,
        *(_PAIRING if request.allows_tools else (history.tool_uses_to_text,)),
        *((history.tell_of_truncation,) if options.tells_of_truncation else ()),
        history.hoist_images,
        history.forget_old_images if sees_images(model) else history.forget_all_old_images,
        history.tell_images_apart,
    )


_PAIRING: Final[Sequence[Step]] = (
    history.fill_missing_ids,
    history.make_ids_legal,
    history.make_ids_unique,
    history.orphans_to_text,
    history.answer_the_unanswered,
    history.order_results,
)


def sees_images(model: ModelInfo) -> bool:
    """Whether a model looks at images, as far as is known."""
    return not model.input_types or "IMAGE" in model.input_types


def _tools(request: ChatRequest, turns: Turns, options: PayloadOptions) -> SentTools:
    used = [part.name for turn in turns for part in turn.parts if isinstance(part, ToolUse)]
    specs = [clean_spec(spec) for spec in request.tools] if request.allows_tools else []
    return sendable_tools(specs, used, description_max_bytes=options.description_max_bytes)


def _with_sent_names(turns: Turns, tools: SentTools) -> Sequence[Message]:
    """Name tools and their properties in the history as they are declared."""
    sent = {
        tool: {name: other for other, name in names.items()}
        for tool, names in tools.property_names.items()
    }

    def renamed(use: ToolUse) -> ToolUse:
        arguments = rename_members(use.arguments, sent.get(use.name, {}))
        return replace(use, name=tools.names[use.name], arguments=cast("JsonObject", arguments))

    return [
        turn.with_parts(renamed(part) if isinstance(part, ToolUse) else part for part in turn.parts)
        for turn in turns
    ]


def _conversation_id(given: str) -> tuple[str, Sequence[Repair]]:
    """Return a UUID, always the same one for the same id; "" stays."""
    if not given or LEGAL_CONVERSATION_ID.fullmatch(given):
        return given, ()
    derived = str(uuid.uuid5(uuid.NAMESPACE_OID, clean_text(given)))
    detail = "The conversation's id is no UUID; one was derived from it."
    return derived, (Repair(rule="conversation_id", detail=detail),)
