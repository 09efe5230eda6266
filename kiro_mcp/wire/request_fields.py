"""Effort and length of an answer -> what carries them: a model's own fields, tags, or nothing.

Newer models take `additionalModelRequestFields`, which the service checks strictly against the
schema that it publishes for the model; what is out of range is brought into it, with a warning.
Older ones think when tags at the front of the prompt say so, and answer in tags of the same
name. The rest can be asked for neither. Source of truth: the service's list of models, and
the tags as other clients of the service send them (2025 to 2026).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import Effort, JsonObject, JsonValue, ModelFields, ModelInfo
from kiro_mcp.wire.models import nearest_effort

THINKING_BUDGET: Final = 4_000
"""How many tokens a model that is asked by tags may think for at medium effort."""

_BUDGET_FACTORS: Final[dict[Effort, float]] = {
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


def _ask_to_think(model: ModelInfo, effort: Effort, budget: int) -> Wishes:
    if effort == "":
        return Wishes(fields={})
    if model.thinking == "native":
        own = model.fields or ModelFields()
        return _turn_off(model.id, own) if effort == "off" else _ask_natively(model.id, own, effort)
    if effort == "off":
        return Wishes(fields={})
    level = nearest_effort(effort, tuple(_BUDGET_FACTORS)) if model.thinking == "tags" else None
    if level is not None:
        return Wishes(fields={}, tags=_tags(round(budget * _BUDGET_FACTORS[level])))
    warning = f"{model.id} cannot be asked for the effort {effort!r:.80}; it was left out."
    return Wishes(fields={}, warnings=(warning,))


def _turn_off(model_id: str, own: ModelFields) -> Wishes:
    """Ask for no thinking, or for the least that the model can be asked for.

    Sending nothing would not do: the service then takes the model's default, often `high`.
    """
    if "disabled" in own.thinking_types:
        return Wishes(fields={"thinking": {"type": "disabled"}})
    if not own.efforts:
        return Wishes(fields={}, warnings=(f"The thinking of {model_id} cannot be turned off.",))
    least = own.efforts[0]
    warning = f"The thinking of {model_id} cannot be turned off; its lowest effort is {least!r}."
    return Wishes(
        fields=_nested(own.effort_path, least), warnings=() if least == "none" else (warning,)
    )


def _ask_natively(model_id: str, own: ModelFields, effort: Effort) -> Wishes:
    level = nearest_effort(effort, own.efforts)
    if level is None and own.efforts:
        warning = f"{model_id} has no effort {effort!r:.80}; it was left out."
        return Wishes(fields={}, warnings=(warning,))
    warning = f"{model_id} has no effort {effort!r:.80}; {level!r} was asked for."
    return Wishes(
        fields={**_thinking_member(own), **_nested(own.effort_path, level)},
        warnings=() if level is None or level.lower() == effort else (warning,),
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
