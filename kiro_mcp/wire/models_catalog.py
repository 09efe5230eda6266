"""The models: what is known of each, from the service's list or from a snapshot of it.

The snapshot (a published dump of the live list, and probes, 2026) serves when nobody is signed
in. The live list is always preferred: it depends on plan, region and time. A model's listed
price is its vendor's list price, for orientation; Kiro bills credits by the rate multiplier.
What a caller may write for a model's id is in `kiro_mcp.wire.model_names`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from kiro_mcp.chat import (
    Effort,
    HigherRate,
    ListPrice,
    ModelFields,
    ModelInfo,
    ThinkingSupport,
)
from kiro_mcp.wire.members import finite_number, positive_integer
from kiro_mcp.wire.model_fields import EFFORTS, read_model_fields

_K: Final = 1_000
_M: Final = 1_000_000

_SONNET: Final = ListPrice(input_per_million=3.0, output_per_million=15.0)
_HAIKU: Final = ListPrice(input_per_million=0.8, output_per_million=4.0)
_OPUS: Final = ListPrice(input_per_million=15.0, output_per_million=75.0)


def _claude_fields(
    most_tokens: int,
    default_effort: Effort = "high",
    *,
    thinking: tuple[str, ...] = ("adaptive", "disabled"),
    efforts: tuple[Effort, ...] = EFFORTS,
) -> ModelFields:
    return ModelFields(
        effort_path=("output_config", "effort"),
        efforts=efforts,
        default_effort=default_effort,
        thinking_types=thinking,
        thinking_displays=("summarized", "omitted"),
        max_tokens=(1_024, most_tokens),
    )


_FIVE: Final = _claude_fields(128 * _K)
_FOUR_SIX: Final = _claude_fields(64 * _K, efforts=("low", "medium", "high", "max"))
_GPT: Final = ModelFields(effort_path=("reasoning", "effort"), efforts=("none", *EFFORTS))


def _known(
    model_id: str,
    name: str,
    tokens: tuple[int | None, int | None],
    rate: float | None,
    *aliases: str,
    above: tuple[int, float] | None = None,
    price: ListPrice | None = None,
    thinks: ModelFields | ThinkingSupport = "none",
    sees_images: bool | None = True,
    on_refusal: str = "",
) -> ModelInfo:
    """Write down a model.

    Args:
        model_id: Its id.
        name: Its name for people.
        tokens: The most tokens in and out.
        rate: Its rate multiplier.
        aliases: Other names that callers use.
        above: From how many tokens of the prompt on which other rate holds.
        price: Its vendor's list price.
        thinks: How it is asked to think.
        sees_images: Whether it reads images; None where that is not known.
        on_refusal: The model to ask if this one refuses.
    """
    fields = thinks if isinstance(thinks, ModelFields) else None
    return ModelInfo(
        id=model_id,
        name=name,
        aliases=aliases,
        context_window=tokens[0],
        max_output_tokens=tokens[1],
        rate_multiplier=rate,
        higher_rate=HigherRate(above_tokens=above[0], rate_multiplier=above[1]) if above else None,
        list_price=price,
        input_types=() if sees_images is None else ("TEXT", "IMAGE") if sees_images else ("TEXT",),
        thinking="native" if isinstance(thinks, ModelFields) else thinks,
        effort_levels=fields.efforts if fields else (),
        fields=fields,
        refusal_fallbacks=(on_refusal,) if on_refusal else (),
    )


BUILTIN_MODELS: Final[tuple[ModelInfo, ...]] = (
    _known("auto", "Auto", (_M, 64 * _K), 1.0),
    _known(
        "claude-opus-5.5",
        "Claude Opus 5.5",
        (_M, 128 * _K),
        2.0,
        "claude-opus-5-5",
        thinks=_claude_fields(128 * _K, "medium", thinking=("adaptive",)),
    ),
    _known(
        "claude-opus-5",
        "Claude Opus 5",
        (_M, 128 * _K),
        2.2,
        thinks=_FIVE,
        on_refusal="claude-opus-4.8",
    ),
    _known(
        "claude-opus-4.8", "Claude Opus 4.8", (_M, 128 * _K), 2.2, "claude-opus-4-8", thinks=_FIVE
    ),
    _known(
        "claude-opus-4.7",
        "Claude Opus 4.7",
        (_M, 128 * _K),
        2.2,
        "claude-opus-4-7",
        thinks=_claude_fields(128 * _K, "xhigh"),
    ),
    _known(
        "claude-opus-4.6",
        "Claude Opus 4.6",
        (_M, 64 * _K),
        2.2,
        "claude-opus-4-6",
        thinks=_FOUR_SIX,
    ),
    _known(
        "claude-opus-4.5",
        "Claude Opus 4.5",
        (200 * _K, 64 * _K),
        2.2,
        "claude-opus-4-5",
        "claude-opus-4-5-20251101",
        price=_OPUS,
        thinks="tags",
    ),
    _known(
        "claude-sonnet-5.5",
        "Claude Sonnet 5.5",
        (_M, 128 * _K),
        1.3,
        "claude-sonnet-5-5",
        thinks=_claude_fields(128 * _K, thinking=("adaptive", "between_tools")),
        on_refusal="claude-sonnet-5",
    ),
    _known("claude-sonnet-5", "Claude Sonnet 5", (_M, 128 * _K), 1.3, thinks=_FIVE),
    _known(
        "claude-sonnet-4.6",
        "Claude Sonnet 4.6",
        (_M, 64 * _K),
        1.3,
        "claude-sonnet-4-6",
        thinks=_FOUR_SIX,
    ),
    _known(
        "claude-sonnet-4.5",
        "Claude Sonnet 4.5",
        (200 * _K, 64 * _K),
        1.3,
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        price=_SONNET,
        thinks="tags",
    ),
    _known(
        "claude-sonnet-4",
        "Claude Sonnet 4",
        (200 * _K, None),
        1.3,
        "claude-sonnet-4-20250514",
        price=_SONNET,
        thinks="tags",
    ),
    # Whether it takes an effort is not published; the service's own list says.
    _known(
        "claude-haiku-5.5",
        "Claude Haiku 5.5",
        (_M, None),
        0.06,
        "claude-haiku-5-5",
        above=(100 * _K, 0.3),
    ),
    _known(
        "claude-haiku-4.5",
        "Claude Haiku 4.5",
        (200 * _K, 64 * _K),
        0.4,
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        price=_HAIKU,
    ),
    # Only enterprise accounts in us-east-1 have it; nothing else is known.
    _known(
        "claude-fable-5.1",
        "Claude Fable 5.1",
        (None, None),
        None,
        "claude-fable-5-1",
        sees_images=None,
    ),
    _known("gpt-5.6-sol", "GPT-5.6 Sol", (_M, 128 * _K), 4.4, above=(272 * _K, 8.8), thinks=_GPT),
    _known(
        "gpt-5.6-terra", "GPT-5.6 Terra", (_M, 128 * _K), 2.2, above=(272 * _K, 4.4), thinks=_GPT
    ),
    _known("gpt-5.6-luna", "GPT-5.6 Luna", (_M, 128 * _K), 1.1, above=(272 * _K, 2.2), thinks=_GPT),
    _known("kimi-k3", "Kimi K3", (None, None), None, sees_images=None),
    _known("deepseek-3.2", "DeepSeek 3.2", (164 * _K, None), 0.25, sees_images=False),
    _known("minimax-m2.5", "MiniMax M2.5", (196 * _K, None), 0.25, sees_images=False),
    _known("minimax-m2.1", "MiniMax M2.1", (196 * _K, None), 0.15, sees_images=False),
    _known("glm-5", "GLM-5", (200 * _K, None), 0.5, sees_images=False),
    _known("qwen3-coder-next", "Qwen3 Coder Next", (256 * _K, None), 0.05, sees_images=False),
)

HIDDEN_MODELS: Final[tuple[ModelInfo, ...]] = (
    _known(
        "CLAUDE_3_7_SONNET_20250219_V1_0",
        "Claude 3.7 Sonnet",
        (200 * _K, None),
        None,
        "claude-3.7-sonnet",
        "claude-3-7-sonnet",
        "claude-3-7-sonnet-20250219",
        price=_SONNET,
        thinks="tags",
    ),
)
"""Models that the service no longer lists but that clients still ask for by their old ids."""

_SNAPSHOT: Final[Mapping[str, ModelInfo]] = {
    model.id: model for model in (*BUILTIN_MODELS, *HIDDEN_MODELS)
}


def known_model(model_id: str) -> ModelInfo:
    """Return what the snapshot knows of a model, which may be nothing but its id."""
    return _SNAPSHOT.get(model_id) or ModelInfo(id=model_id, name=model_id, input_types=())


def models_from_page(page: Mapping[str, object]) -> tuple[tuple[ModelInfo, ...], str]:
    """Read one page of the service's list.

    Every member but `modelId` may be missing; entries without one are left out. What the page
    does not say is filled in from the snapshot where the id is in it; but a model without a
    schema takes no extra fields, whatever the snapshot says.

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


def _model(entry: object) -> ModelInfo | None:
    if not isinstance(entry, dict):
        return None
    members = cast("dict[str, object]", entry)
    model_id = members.get("modelId")
    if not isinstance(model_id, str) or not model_id:
        return None
    known = known_model(model_id)
    raw_limits = members.get("tokenLimits")
    limits = cast("dict[str, object]", raw_limits) if isinstance(raw_limits, dict) else {}
    fields = read_model_fields(members.get("additionalModelRequestFieldsSchema"))
    listed_rate = finite_number(members.get("rateMultiplier"))
    rate = known.rate_multiplier if listed_rate is None else listed_rate
    return ModelInfo(
        id=model_id,
        name=_text(members.get("modelName")) or known.name,
        aliases=known.aliases,
        context_window=positive_integer(limits.get("maxInputTokens")) or known.context_window,
        max_output_tokens=positive_integer(limits.get("maxOutputTokens"))
        or known.max_output_tokens,
        rate_multiplier=rate,
        # The list has no rate for long prompts. The known one belongs to the known base rate.
        higher_rate=known.higher_rate if rate == known.rate_multiplier else None,
        list_price=known.list_price,
        input_types=_texts(members.get("supportedInputTypes")) or known.input_types,
        thinking=_thinking(fields, known),
        effort_levels=fields.efforts if fields else (),
        fields=fields,
        refusal_fallbacks=tuple(_model_ids(members.get("refusalFallbackModels")))
        or known.refusal_fallbacks,
    )


def _model_ids(entries: object) -> Iterator[str]:
    """Yield the ids in a list of `{"modelId": …}`; anything else in it is skipped."""
    for entry in cast("list[object]", entries) if isinstance(entries, list) else ():
        model_id = (
            cast("dict[str, object]", entry).get("modelId") if isinstance(entry, dict) else ""
        )
        if isinstance(model_id, str) and model_id:
            yield model_id


def _thinking(fields: ModelFields | None, known: ModelInfo) -> ThinkingSupport:
    if fields and (fields.efforts or fields.thinking_types):
        return "native"
    return "none" if known.thinking == "native" else known.thinking


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    items = cast("Sequence[object]", value) if isinstance(value, list) else ()
    return tuple(item for item in items if isinstance(item, str))
