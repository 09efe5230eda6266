"""The models: their list, the names that callers use for them, and the fields that they take.

* The snapshot (a published dump of the live list, and probes, 2026) is used when nobody is signed
  in. The live list is always preferred: it depends on plan, region and time. A listed price is the
  vendor's list price, for orientation; Kiro bills credits by the rate multiplier.
* Callers bring names from other programs: with dashes for dots, with dates, with a window in
  brackets, with the prefixes of gateways, and with endings that ask for something (`-thinking`,
  `-agentic`, `-chat`, an effort). An unknown name is sent as it is, with a warning, so that a new
  model needs no new release. No name is replaced by another model in silence.
* The service checks `additionalModelRequestFields` strictly against the schema in its list of
  models, and refuses all fields for models without a schema. `read_model_fields` looks for
  an effort wherever the schema nests it, for the ways to think, and for the range of `max_tokens`.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kiro_mcp.chat import (
    ChatRequest,
    Effort,
    HigherRate,
    JsonObject,
    ListPrice,
    ModelFields,
    ModelInfo,
    ThinkingSupport,
)
from kiro_mcp.errors import quoted
from kiro_mcp.wire.json_values import (
    clean_text,
    number_member,
    object_member,
    object_members,
    plain_json,
    positive_member,
    word_member,
)
from kiro_mcp.wire.schema import COMBINATORS, inline_references

# --- efforts and fields -------------------------------------------------------------------

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
"""The efforts that callers are offered, from the least to the most."""

_LEAST_FIRST: Final = ("none", "minimal", *EFFORTS)
"""Every word that the service's models are known to list."""


def read_effort(word: str) -> Effort:
    """Read an effort as callers write it: in any case, `none` for `off`."""
    effort = word.strip().lower()
    return "off" if effort == "none" else effort


def is_known_effort(effort: Effort) -> bool:
    """Whether an effort means something for every model, even one that does not list it."""
    return effort in ("", "off", *_LEAST_FIRST)


def nearest_effort(wanted: Effort, offered: Sequence[Effort]) -> Effort | None:
    """Return the wanted effort if it is offered, else the nearest one, or the lower of two.

    Returns:
        None if nothing is offered, or if the wanted word is neither offered nor known.
    """
    if same := next((level for level in offered if level.lower() == wanted), None):
        return same
    known = [level for level in offered if level in _LEAST_FIRST and level != "none"]
    if wanted not in _LEAST_FIRST:
        return None
    rank = _LEAST_FIRST.index
    return min(
        known, key=lambda level: (abs(rank(level) - rank(wanted)), rank(level)), default=None
    )


def read_model_fields(schema: object) -> ModelFields | None:
    """Read a model's schema; None if it offers nothing that this package can ask for."""
    plain = plain_json(schema)
    properties = list(_properties(inline_references(plain) if isinstance(plain, dict) else {}))

    def choices(*wanted: str) -> tuple[str, ...]:
        found = (
            choice for path, inner in properties if path == wanted for choice in _choices(inner)
        )
        return tuple(dict.fromkeys(found))

    fields = ModelFields(
        thinking_types=choices("thinking", "type"), thinking_displays=choices("thinking", "display")
    )
    for path, inner in properties:
        offered = dict.fromkeys(_choices(inner)) if path[-1] == "effort" else {}
        if offered and not fields.efforts:
            known = [level for level in _LEAST_FIRST if level in offered]
            fields = replace(
                fields,
                effort_path=path,
                efforts=(*known, *(level for level in offered if level not in known)),
                default_effort=word_member(inner, "default"),
            )
        if path == ("max_tokens",) and fields.max_tokens is None:
            least, most = positive_member(inner, "minimum"), positive_member(inner, "maximum")
            fields = replace(fields, max_tokens=(least or 1, most))
    return None if fields == ModelFields() else fields


def _properties(
    schema: JsonObject, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], JsonObject]]:
    """Yield the path and the schema of each property, at any depth and in any alternative."""
    for name, inner in object_member(schema, "properties").items():
        if isinstance(inner, dict):
            yield (*path, name), inner
            yield from _properties(inner, (*path, name))
    for combinator in COMBINATORS:
        for piece in object_members(schema, combinator):
            yield from _properties(piece, path)


def _choices(schema: JsonObject) -> Iterator[str]:
    """Yield the texts that a schema allows: by `enum`, by `const` or by alternatives of these."""
    enum = schema.get("enum")
    offered = [*(enum if isinstance(enum, list) else ()), schema.get("const")]
    yield from (item for item in offered if isinstance(item, str))
    for combinator in COMBINATORS:
        for piece in object_members(schema, combinator):
            yield from _choices(piece)


# --- the catalogue ------------------------------------------------------------------------

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


_FIVE: Final = _claude_fields(128_000)
_OPUS_55: Final = _claude_fields(128_000, "medium", thinking=("adaptive",))
_SONNET_55: Final = _claude_fields(128_000, thinking=("adaptive", "between_tools"))
_FOUR_SEVEN: Final = _claude_fields(128_000, "xhigh")
_FOUR_SIX: Final = _claude_fields(64_000, efforts=("low", "medium", "high", "max"))
_GPT: Final = ModelFields(effort_path=("reasoning", "effort"), efforts=("none", *EFFORTS))


def _model(
    model_id: str,
    tokens: tuple[int, int | None] | None,
    rate: float | None,
    *,
    name: str = "",
    date: str = "",
    aliases: tuple[str, ...] = (),
    above: tuple[int, float] | None = None,
    price: ListPrice | None = None,
    thinks: ModelFields | ThinkingSupport = "none",
    input_types: tuple[str, ...] = ("TEXT", "IMAGE"),
    on_refusal: str = "",
) -> ModelInfo:
    """Return a model of the snapshot.

    Args:
        model_id: Its id, from which its name is made by default.
        tokens: The most thousands of tokens in and out; None if they are not known.
        rate: Its rate multiplier.
        name: Its display name.
        date: The date that Anthropic's API puts after its name.
        aliases: Further names that callers use, besides those with dashes for dots.
        above: Above how many thousands of tokens in the prompt another rate applies, and that rate.
        price: Its vendor's list price.
        thinks: How it is asked to think.
        input_types: What it reads; () if that is not known.
        on_refusal: The model to ask if this one refuses.
    """
    dashed = model_id.replace(".", "-") if model_id.startswith("claude-") else model_id
    names = (dashed, f"{dashed}-{date}" if date else dashed, *aliases)
    window, most_output = tokens or (None, None)
    fields = thinks if isinstance(thinks, ModelFields) else None
    return ModelInfo(
        id=model_id,
        name=name or model_id.replace("-", " ").title(),
        aliases=tuple(dict.fromkeys(alias for alias in names if alias != model_id)),
        context_window=window and window * 1_000,
        max_output_tokens=most_output and most_output * 1_000,
        rate_multiplier=rate,
        higher_rate=above and HigherRate(above_tokens=above[0] * 1_000, rate_multiplier=above[1]),
        list_price=price,
        input_types=input_types,
        thinking="native" if isinstance(thinks, ModelFields) else thinks,
        effort_levels=fields.efforts if fields else (),
        fields=fields,
        refusal_fallbacks=(on_refusal,) if on_refusal else (),
    )


_TEXT_ONLY: Final = ("TEXT",)

BUILTIN_MODELS: Final[tuple[ModelInfo, ...]] = (
    _model("auto", (1_000, 64), 1.0),
    _model("claude-opus-5.5", (1_000, 128), 2.0, thinks=_OPUS_55),
    _model("claude-opus-5", (1_000, 128), 2.2, thinks=_FIVE, on_refusal="claude-opus-4.8"),
    _model("claude-opus-4.8", (1_000, 128), 2.2, thinks=_FIVE),
    _model("claude-opus-4.7", (1_000, 128), 2.2, thinks=_FOUR_SEVEN),
    _model("claude-opus-4.6", (1_000, 64), 2.2, thinks=_FOUR_SIX),
    _model("claude-opus-4.5", (200, 64), 2.2, date="20251101", price=_OPUS, thinks="tags"),
    _model("claude-sonnet-5.5", (1_000, 128), 1.3, thinks=_SONNET_55, on_refusal="claude-sonnet-5"),
    _model("claude-sonnet-5", (1_000, 128), 1.3, thinks=_FIVE),
    _model("claude-sonnet-4.6", (1_000, 64), 1.3, thinks=_FOUR_SIX),
    _model("claude-sonnet-4.5", (200, 64), 1.3, date="20250929", price=_SONNET, thinks="tags"),
    _model("claude-sonnet-4", (200, None), 1.3, date="20250514", price=_SONNET, thinks="tags"),
    # Whether it takes an effort is not published; the service's own list says.
    _model("claude-haiku-5.5", (1_000, None), 0.06, above=(100, 0.3)),
    _model("claude-haiku-4.5", (200, 64), 0.4, date="20251001", price=_HAIKU),
    # Only enterprise accounts in us-east-1 have it; nothing else is known.
    _model("claude-fable-5.1", None, None, input_types=()),
    _model("gpt-5.6-sol", (1_000, 128), 4.4, name="GPT-5.6 Sol", above=(272, 8.8), thinks=_GPT),
    _model("gpt-5.6-terra", (1_000, 128), 2.2, name="GPT-5.6 Terra", above=(272, 4.4), thinks=_GPT),
    _model("gpt-5.6-luna", (1_000, 128), 1.1, name="GPT-5.6 Luna", above=(272, 2.2), thinks=_GPT),
    _model("kimi-k3", None, None, input_types=()),
    _model("deepseek-3.2", (164, None), 0.25, name="DeepSeek 3.2", input_types=_TEXT_ONLY),
    _model("minimax-m2.5", (196, None), 0.25, name="MiniMax M2.5", input_types=_TEXT_ONLY),
    _model("minimax-m2.1", (196, None), 0.15, name="MiniMax M2.1", input_types=_TEXT_ONLY),
    _model("glm-5", (200, None), 0.5, name="GLM-5", input_types=_TEXT_ONLY),
    _model("qwen3-coder-next", (256, None), 0.05, input_types=_TEXT_ONLY),
)

HIDDEN_MODELS: Final[tuple[ModelInfo, ...]] = (
    _model(
        "CLAUDE_3_7_SONNET_20250219_V1_0",
        (200, None),
        None,
        name="Claude 3.7 Sonnet",
        aliases=("claude-3.7-sonnet", "claude-3-7-sonnet", "claude-3-7-sonnet-20250219"),
        price=_SONNET,
        thinks="tags",
    ),
)
"""Models that the service no longer lists but that clients still ask for by their old ids."""

_SNAPSHOT: Final[Mapping[str, ModelInfo]] = {
    model.id: model for model in (*BUILTIN_MODELS, *HIDDEN_MODELS)
}


def known_model(model_id: str) -> ModelInfo:
    """Return what the snapshot says about a model: at least its id."""
    return _SNAPSHOT.get(model_id) or ModelInfo(id=model_id, name=model_id, input_types=())


def models_from_page(page: dict[str, Any]) -> tuple[tuple[ModelInfo, ...], str]:
    """Read one page of the service's list.

    Every member but `modelId` may be missing; entries without one are left out. The snapshot fills
    in what the page does not say, with one exception: a model without a schema takes no extra
    fields, whatever the snapshot says.

    Returns:
        The models in the service's order, and the token of the next page ("" on the last).
    """
    models = [
        _read_model(entry)
        for entry in object_members(page, "models")
        if word_member(entry, "modelId")
    ]
    return tuple(models), word_member(page, "nextToken")


def default_model(page: dict[str, Any]) -> str:
    """Return the id of the service's default model in a page, or "" (both forms are read)."""
    return (
        word_member(object_member(page, "defaultModel"), "modelId")
        or word_member(page, "defaultModel")
        or word_member(page, "defaultModelId")
    )


def _read_model(entry: JsonObject) -> ModelInfo:
    model_id = word_member(entry, "modelId")
    known = known_model(model_id)
    limits = object_member(entry, "tokenLimits")
    fields = read_model_fields(entry.get("additionalModelRequestFieldsSchema"))
    listed_rate = number_member(entry, "rateMultiplier")
    rate = known.rate_multiplier if listed_rate is None else listed_rate
    input_types = entry.get("supportedInputTypes")
    listed_types = input_types if isinstance(input_types, list) else []
    fallbacks = [
        word_member(one, "modelId") for one in object_members(entry, "refusalFallbackModels")
    ]
    thinking: ThinkingSupport = "none" if known.thinking == "native" else known.thinking
    if fields and (fields.efforts or fields.thinking_types):
        thinking = "native"
    return ModelInfo(
        id=model_id,
        name=word_member(entry, "modelName") or known.name,
        aliases=known.aliases,
        context_window=positive_member(limits, "maxInputTokens") or known.context_window,
        max_output_tokens=positive_member(limits, "maxOutputTokens") or known.max_output_tokens,
        rate_multiplier=rate,
        # The list has no rate for long prompts. The known one belongs to the known base rate.
        higher_rate=known.higher_rate if rate == known.rate_multiplier else None,
        list_price=known.list_price,
        input_types=tuple(one for one in listed_types if isinstance(one, str)) or known.input_types,
        thinking=thinking,
        effort_levels=fields.efforts if fields else (),
        fields=fields,
        refusal_fallbacks=tuple(filter(None, fallbacks)) or known.refusal_fallbacks,
    )


# --- names --------------------------------------------------------------------------------

THINKING_EFFORT: Final[Effort] = "medium"
"""What `-thinking` asks for if the name has no effort."""

DEFAULT_NAME: Final = "auto"
"""The model for an empty name."""

MAX_NAME_CHARACTERS: Final = 256
"""A longer name is not compared with others."""

_PREFIXES: Final = ("amazonq-", "kiro-")
_PROVIDER: Final = re.compile(r"(?:.*/)?(?:(?:[a-z]+\.)?anthropic\.)?")
"""What gateways put in front: `openrouter/anthropic/`, or `us.anthropic.` on Bedrock."""
_SEPARATORS: Final = re.compile(r"[\s_()]+")
_DATE: Final = re.compile(r"[-@]\d{8}$")
_API_VERSION: Final = re.compile(r"-v\d+(?:[-:]\d+)?$")
_DASHED_NUMBER: Final = re.compile(r"(?<=\d)-(?=\d{1,2}(?:-|$))")
_NUMBER_FIRST: Final = re.compile(r"^(?:claude-)?([4-9](?:\.\d+)?)-(opus|sonnet|haiku)$")
_ENDING: Final = re.compile(
    rf"(?:[-:](?P<word>thinking|agentic|chat|{'|'.join(EFFORTS)}|\d+[mk])|:[a-z]+|\[[^\[\]]*\])$",
    re.IGNORECASE,
)
_FAMILY_NAMES: Final = ("opus-", "sonnet-", "haiku-")
_FAMILY: Final = re.compile(r"(?:claude-?)?(?P<family>opus|sonnet|haiku)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What a caller asks for with the name of a model."""

    model: ModelInfo
    """The model; its `id` is sent."""
    effort: Effort = ""
    """The effort that the name ends with, or the one that `-thinking` means; "" for none."""
    writes_in_chunks: bool = False
    """Whether the name ends with `-agentic`: the model should write long files in several steps."""
    allows_tools: bool = True
    """Whether tools may be used, which `-chat` forbids."""
    is_listed: bool = True
    """Whether the model is in the list."""
    warnings: tuple[str, ...] = ()

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """Return the request for this model. The request's own effort wins over the name's."""
        return replace(
            request,
            model=self.model.id,
            model_info=self.model,
            effort=request.effort or self.effort,
            writes_in_chunks=request.writes_in_chunks or self.writes_in_chunks,
            allows_tools=request.allows_tools and self.allows_tools,
        )


def resolve_model(
    name: str,
    models: Sequence[ModelInfo] = BUILTIN_MODELS,
    *,
    aliases: Mapping[str, str] | None = None,
) -> ModelChoice:
    """Find the model with a name.

    Args:
        name: What the caller wrote.
        models: The models that the account may use.
        aliases: The user's own names; they win over all others.
    """
    given = name.strip() or DEFAULT_NAME
    wanted = clean_text((aliases or {}).get(given, given).strip())
    if exact := next((model for model in models if model.id == wanted), None):
        return ModelChoice(model=exact)
    offered = _by_every_name(models)
    if listed := offered.get(wanted.lower()):
        return ModelChoice(model=listed)
    unlisted = ModelChoice(model=known_model(wanted), is_listed=False)
    if len(wanted) > MAX_NAME_CHARACTERS:
        return replace(unlisted, warnings=(_unknown(wanted, {}),))
    bare = _SEPARATORS.sub("-", wanted).strip("-")
    endings: list[str] = []
    while ending := _ENDING.search(bare):
        endings.append((ending["word"] or "").lower())
        bare = bare[: ending.start()]
    efforts = [level for level in EFFORTS if level in endings]
    choice = replace(
        unlisted,
        effort=efforts[-1] if efforts else THINKING_EFFORT if "thinking" in endings else "",
        writes_in_chunks="agentic" in endings,
        allows_tools="chat" not in endings,
    )
    normal = _normalised(bare)
    if found := offered.get(bare.lower()) or offered.get(normal):
        return replace(choice, model=found, is_listed=True)
    if newest := _newest(normal, models):
        warning = f"{quoted(wanted)} names no version; {newest.id} is used."
        return replace(choice, model=newest, is_listed=True, warnings=(warning,))
    if normal.startswith("claude-"):
        return replace(choice, model=known_model(normal), warnings=(_unknown(normal, offered),))
    # Nothing is known of such a name, not even whether its endings ask for anything.
    return replace(unlisted, warnings=(_unknown(wanted, offered),))


def _normalised(name: str) -> str:
    """Return a name as the service's own ids are written: `claude-opus-4.5`.

    Removes prefixes of gateways, dates and `-latest`; corrects capitals, dashes for dots and the
    order of Claude 3. Any other name is only put in lower case.
    """
    plain = _PROVIDER.sub("", _SEPARATORS.sub("-", name.lower()), count=1)
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    plain = _API_VERSION.sub("", plain).removesuffix("-latest")
    dotted = _DASHED_NUMBER.sub(".", _DATE.sub("", plain)).removesuffix(".0")
    whole = f"claude-{dotted}" if dotted.startswith(_FAMILY_NAMES) else dotted
    return _NUMBER_FIRST.sub(r"claude-\2-\1", whole)


def _by_every_name(models: Sequence[ModelInfo]) -> dict[str, ModelInfo]:
    """Map ids, aliases and display names to models, in lower case.

    Ids win over aliases, and aliases over names. A name that two models share is left out.
    """
    known = (*models, *HIDDEN_MODELS)
    titles = [_SEPARATORS.sub("-", model.name.lower()) for model in models]
    by_title = {
        title: model
        for title, model in zip(titles, models, strict=True)
        if titles.count(title) == 1
    }
    by_alias = {alias.lower(): model for model in reversed(known) for alias in model.aliases}
    return {**by_title, **by_alias, **{model.id.lower(): model for model in reversed(known)}}


def _newest(name: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    """Find the newest model of a family that is named without a version."""
    family = _FAMILY.fullmatch(name)
    if not name or family is None:
        return None
    beginning = f"claude-{family['family'] or 'sonnet'}-"
    members = [model for model in models if model.id.startswith(beginning)]
    return max(
        members,
        key=lambda model: [int(number) for number in re.findall(r"\d+", model.id)],
        default=None,
    )


def _unknown(model_id: str, offered: Mapping[str, ModelInfo]) -> str:
    close = difflib.get_close_matches(model_id.lower(), offered, n=1)
    hint = f" Did you mean {offered[close[0]].id}?" if close else ""
    return f"{quoted(model_id)} is not in the list of models and is sent as it is.{hint}"
