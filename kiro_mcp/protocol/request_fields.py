"""Effort and length of an answer -> what carries them: a model's own fields, tags, or nothing.

Newer models take `additionalModelRequestFields`, which the service checks strictly against the
schema that it publishes for the model; what is out of range is brought into it, with a warning.
Older ones think when tags at the front of the prompt say so, and answer in tags of the same
name. The rest can be asked for neither. Source of truth: the service's list of models, and
the tags as other clients of the service send them (2025 to 2026).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kiro_mcp.models import Effort, EffortLevel, JsonObject, JsonValue, ModelFields, ModelInfo
from kiro_mcp.protocol.model_fields import EFFORTS

THINKING_BUDGET: Final = 4_000
"""How many tokens a model that is asked by tags may think for at medium effort."""

_BUDGET_FACTORS: Final[dict[EffortLevel, float]] = {
    "low": 0.5,
    "medium": 1,
    "high": 2,
    "xhigh": 3,
    "max": 4,
}
_LEAST_BUDGET: Final = 1_024
_MOST_BUDGET: Final = 24_576
"""Between which the service's models think by tags; other clients keep to the same."""

THINKING_MODE_TAG: Final = "<thinking_mode>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How effort and length are asked of one model."""

    fields: JsonObject
    """The model's own fields; {} sends none."""
    tags: str = ""
    """What goes in front of the system prompt."""
    warnings: tuple[str, ...] = ()


def ask_model(
    model: ModelInfo, *, effort: Effort, max_tokens: int, thinking_budget: int = THINKING_BUDGET
) -> Wishes:
    """Say how a model is asked to think, and to keep to a length.

    Args:
        model: What is known of the model.
        effort: How hard it is to think; "" leaves that to the service.
        max_tokens: The longest answer; 0 leaves that to the service.
        thinking_budget: How many tokens medium effort stands for, where tags ask for it.
    """
    thinking = _ask_to_think(model, effort, thinking_budget)
    length = _ask_for_length(model, max_tokens)
    return Wishes(
        fields={**thinking.fields, **length.fields},
        tags=thinking.tags,
        warnings=(*thinking.warnings, *length.warnings),
    )


def nearest_effort(wanted: EffortLevel, offered: Sequence[EffortLevel]) -> EffortLevel | None:
    """Return the offered effort that is nearest, of two the lesser; None if there is none."""
    rank = EFFORTS.index(wanted)
    return min(offered, key=lambda level: abs(EFFORTS.index(level) - rank), default=None)


def _ask_to_think(model: ModelInfo, effort: Effort, budget: int) -> Wishes:
    if effort == "":
        return Wishes(fields={})
    if model.thinking == "native":
        return _ask_natively(model.id, model.fields or ModelFields(), effort)
    if effort == "off":
        return Wishes(fields={})
    if model.thinking == "tags":
        return Wishes(fields={}, tags=_tags(round(budget * _BUDGET_FACTORS[effort])))
    warning = f"{model.id} cannot be asked to think; the effort {effort!r} was left out."
    return Wishes(fields={}, warnings=(warning,))


def _ask_natively(model_id: str, own: ModelFields, effort: EffortLevel | Literal["off"]) -> Wishes:
    if effort == "off":
        if "disabled" in own.thinking_types:
            return Wishes(fields={"thinking": {"type": "disabled"}})
        return Wishes(fields={}, warnings=(f"The thinking of {model_id} cannot be turned off.",))
    level = nearest_effort(effort, own.efforts)
    warning = f"{model_id} knows no effort {effort!r}; {level!r} was asked for."
    return Wishes(
        fields={**_thinking_member(own), **_nested(own.effort_path, level)},
        warnings=() if level in (effort, None) else (warning,),
    )


def _thinking_member(own: ModelFields) -> JsonObject:
    if "adaptive" not in own.thinking_types:
        return {}
    thinking: JsonObject = {"type": "adaptive"}
    if "summarized" in own.thinking_displays:
        thinking["display"] = "summarized"
    return {"thinking": thinking}


def _nested(path: Sequence[str], value: JsonValue) -> JsonObject:
    """Put a value under the last of several names, each inside the one before."""
    if value is None or not path:
        return {}
    for name in reversed(path[1:]):
        value = {name: value}
    return {path[0]: value}


def _tags(budget: int) -> str:
    length = min(max(budget, _LEAST_BUDGET), _MOST_BUDGET)
    return (
        f"{THINKING_MODE_TAG}enabled</thinking_mode>"
        f"<max_thinking_length>{length}</max_thinking_length>"
    )


def _ask_for_length(model: ModelInfo, wanted: int) -> Wishes:
    if wanted <= 0:
        return Wishes(fields={})
    if model.fields is None or model.fields.max_tokens is None:
        return Wishes(fields={}, warnings=(f"{model.id} takes no max_tokens; it was left out.",))
    least, most = model.fields.max_tokens
    length = max(least, wanted if most is None else min(wanted, most))
    warning = f"max_tokens {wanted} is not in the range of {model.id}; {length} was asked for."
    return Wishes(fields={"max_tokens": length}, warnings=() if length == wanted else (warning,))
