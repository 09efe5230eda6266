"""The models: what is known of each, from the service's list or from a snapshot of it.

The snapshot (a published dump of the live list, and probes, 2026) serves when nobody is signed
in. The live list is always preferred: it depends on plan, region and time. A model's listed
price is its vendor's list price, for orientation; Kiro bills credits by the rate multiplier.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from kiro_mcp.models import EffortLevel, ListPrice, ModelInfo, ThinkingSupport

_ALL_EFFORTS: tuple[EffortLevel, ...] = ("low", "medium", "high", "xhigh", "max")
_EFFORTS_WITHOUT_XHIGH: tuple[EffortLevel, ...] = ("low", "medium", "high", "max")

_K = 1_000
_M = 1_000_000


def _claude(
    model_id: str,
    name: str,
    window: int,
    output: int | None,
    rate: float,
    *,
    efforts: tuple[EffortLevel, ...] = (),
    price: ListPrice | None = None,
) -> ModelInfo:
    return ModelInfo(
        id=model_id,
        name=name,
        context_window=window,
        max_output_tokens=output,
        rate_multiplier=rate,
        list_price=price,
        input_types=("TEXT", "IMAGE"),
        thinking="native" if efforts else "tags",
        effort_levels=efforts,
    )


_SONNET = ListPrice(input_per_million=3.0, output_per_million=15.0)
_HAIKU = ListPrice(input_per_million=0.8, output_per_million=4.0)
_OPUS = ListPrice(input_per_million=15.0, output_per_million=75.0)

BUILTIN_MODELS: tuple[ModelInfo, ...] = (
    ModelInfo(
        id="auto",
        name="Auto",
        context_window=_M,
        max_output_tokens=64 * _K,
        rate_multiplier=1.0,
        input_types=("TEXT", "IMAGE"),
        thinking="none",
    ),
    _claude("claude-opus-5", "Claude Opus 5", _M, 128 * _K, 2.2, efforts=_ALL_EFFORTS),
    _claude("claude-opus-4.8", "Claude Opus 4.8", _M, 128 * _K, 2.2, efforts=_ALL_EFFORTS),
    _claude("claude-opus-4.7", "Claude Opus 4.7", _M, 128 * _K, 2.2, efforts=_ALL_EFFORTS),
    _claude("claude-opus-4.6", "Claude Opus 4.6", _M, 64 * _K, 2.2, efforts=_EFFORTS_WITHOUT_XHIGH),
    _claude("claude-opus-4.5", "Claude Opus 4.5", 200 * _K, 64 * _K, 2.2, price=_OPUS),
    _claude("claude-sonnet-5", "Claude Sonnet 5", _M, None, 1.3, efforts=_ALL_EFFORTS),
    _claude(
        "claude-sonnet-4.6", "Claude Sonnet 4.6", _M, 64 * _K, 1.3, efforts=_EFFORTS_WITHOUT_XHIGH
    ),
    _claude("claude-sonnet-4.5", "Claude Sonnet 4.5", 200 * _K, 64 * _K, 1.3, price=_SONNET),
    _claude("claude-sonnet-4", "Claude Sonnet 4", 200 * _K, None, 1.3, price=_SONNET),
    _claude("claude-haiku-4.5", "Claude Haiku 4.5", 200 * _K, None, 0.4, price=_HAIKU),
)


def models_from_page(page: Mapping[str, object]) -> tuple[tuple[ModelInfo, ...], str]:
    """Read one page of the service's list.

    Every member but `modelId` may be missing; entries without one are left out. What the page
    does not say is filled in from the snapshot where the id is in it.

    Returns:
        The models in the service's order, and the token of the next page ("" on the last).
    """
    entries = page.get("models")
    listed = cast("list[object]", entries) if isinstance(entries, list) else []
    models = tuple(model for entry in listed if (model := _model(entry)) is not None)
    token = page.get("nextToken")
    return models, token if isinstance(token, str) else ""


def default_model(page: Mapping[str, object]) -> str:
    """Return the id of the service's default model in a page, or "" (both forms are read)."""
    default = page.get("defaultModel")
    if isinstance(default, dict):
        default = cast("dict[str, object]", default).get("modelId")
    default = default or page.get("defaultModelId")
    return default if isinstance(default, str) else ""


_SNAPSHOT: Mapping[str, ModelInfo] = {model.id: model for model in BUILTIN_MODELS}


def _model(entry: object) -> ModelInfo | None:
    if not isinstance(entry, dict):
        return None
    members = cast("dict[str, object]", entry)
    model_id = members.get("modelId")
    if not isinstance(model_id, str) or not model_id:
        return None
    known = _SNAPSHOT.get(model_id, ModelInfo(id=model_id, name=model_id))
    raw_limits = members.get("tokenLimits")
    limits = cast("dict[str, object]", raw_limits) if isinstance(raw_limits, dict) else {}
    efforts = _effort_levels(members.get("additionalModelRequestFieldsSchema"))
    thinking: ThinkingSupport = "native" if efforts else known.thinking
    return ModelInfo(
        id=model_id,
        name=_text(members.get("modelName")) or known.name,
        context_window=_count(limits.get("maxInputTokens")) or known.context_window,
        max_output_tokens=_count(limits.get("maxOutputTokens")) or known.max_output_tokens,
        rate_multiplier=_number(members.get("rateMultiplier"), known.rate_multiplier),
        list_price=known.list_price,
        input_types=_texts(members.get("supportedInputTypes")) or known.input_types,
        thinking=thinking,
        effort_levels=efforts or known.effort_levels,
    )


def _effort_levels(schema: object) -> tuple[EffortLevel, ...]:
    """Find the efforts in a model's published schema, wherever it nests them."""
    if not isinstance(schema, dict):
        return ()
    members = cast("dict[str, object]", schema)
    properties = members.get("properties")
    if not isinstance(properties, dict):
        return ()
    for name, inner in cast("dict[str, object]", properties).items():
        if name == "effort" and isinstance(inner, dict):
            offered = cast("dict[str, object]", inner).get("enum")
            return tuple(level for level in _ALL_EFFORTS if level in _texts(offered))
        if levels := _effort_levels(inner):
            return levels
    return ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    items = cast("Sequence[object]", value) if isinstance(value, list) else ()
    return tuple(item for item in items if isinstance(item, str))


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and value > 0 else None


def _number(value: object, default: float | None) -> float | None:
    return float(value) if isinstance(value, int | float) else default
