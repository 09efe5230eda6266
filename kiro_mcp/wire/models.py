"""The models: which there are, what a caller may write for them, and which fields they take.

* The snapshot (a published dump of the live list, and probes, 2026) serves when nobody is signed
  in. The live list is always preferred: it depends on plan, region and time. A listed price is the
  vendor's list price, for orientation; Kiro bills credits by the rate multiplier.
* Callers bring names from other programs: with dashes for dots, with dates, with a window in
  brackets, with the prefixes of gateways, and with endings that ask for something (`-thinking`,
  `-agentic`, `-chat`, an effort). An unknown name is sent as it is, with a warning: new models must
  not need a new release. No name is ever mapped to another model in silence.
* The service checks `additionalModelRequestFields` strictly against the schema in its list of
  models, and refuses the whole of it for models without a schema. `read_model_fields` looks for
  an effort wherever the schema nests it, for the ways to think, and for the range of `max_tokens`.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

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
    positive_integer,
)
from kiro_mcp.wire.schema import COMBINATORS, inline_references

# --- efforts and fields -------------------------------------------------------------------

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
"""The efforts that callers are told of, from the least to the most."""

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
    """Return the offered effort for a wanted one: itself, or the nearest, of two the lesser.

    Returns:
        None where nothing is offered, or where the wanted word is neither offered nor known.
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
    """Read a model's schema; None where it offers nothing that this package can ask for."""
    plain = plain_json(schema)
    root = inline_references(plain) if isinstance(plain, dict) else {}
    path, efforts, default = next(_find_efforts(root), ((), (), ""))
    thinking = list(_named(root, "thinking"))
    length = next(_named(root, "max_tokens"), None)
    fields = ModelFields(
        effort_path=path,
        efforts=efforts,
        default_effort=default,
        thinking_types=_choices_of_members(thinking, "type"),
        thinking_displays=_choices_of_members(thinking, "display"),
        max_tokens=None
        if length is None
        else (
            positive_integer(length.get("minimum")) or 1,
            positive_integer(length.get("maximum")),
        ),
    )
    return None if fields == ModelFields() else fields


def _find_efforts(
    schema: JsonObject, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[Effort, ...], Effort]]:
    """Yield the path, the words and the default of each effort in a schema."""
    for name, inner in _properties(schema):
        if name == "effort":
            offered = list(dict.fromkeys(_choices(inner)))
            known = [level for level in _LEAST_FIRST if level in offered]
            efforts = (*known, *(level for level in offered if level not in known))
            default = inner.get("default")
            if efforts:
                yield (*path, name), efforts, default if isinstance(default, str) else ""
        yield from _find_efforts(inner, (*path, name))


def _choices_of_members(schemas: Sequence[JsonObject], name: str) -> tuple[str, ...]:
    members = (member for schema in schemas for member in _named(schema, name))
    return tuple(dict.fromkeys(choice for member in members for choice in _choices(member)))


def _named(schema: JsonObject, wanted: str) -> Iterator[JsonObject]:
    return (inner for name, inner in _properties(schema) if name == wanted)


def _choices(schema: JsonObject) -> Iterator[str]:
    """Yield the texts that a schema allows, whichever way it says so."""
    enum = schema.get("enum")
    offered = [*(enum if isinstance(enum, list) else ()), schema.get("const")]
    yield from (item for item in offered if isinstance(item, str))
    for piece in _pieces(schema):
        yield from _choices(piece)


def _properties(schema: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield the properties of a schema and of what it combines."""
    properties = schema.get("properties")
    if isinstance(properties, dict):
        yield from ((name, inner) for name, inner in properties.items() if isinstance(inner, dict))
    for piece in _pieces(schema):
        yield from _properties(piece)


def _pieces(schema: JsonObject) -> Iterator[JsonObject]:
    for name in COMBINATORS:
        pieces = schema.get(name)
        if isinstance(pieces, list):
            yield from (piece for piece in pieces if isinstance(piece, dict))


# --- the catalogue ------------------------------------------------------------------------

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
    plain = cast("JsonObject", page)
    models = [
        _read_model(entry)
        for entry in object_members(plain, "models")
        if isinstance(entry.get("modelId"), str) and entry["modelId"]
    ]
    return tuple(models), _text(page.get("nextToken"))


def default_model(page: Mapping[str, object]) -> str:
    """Return the id of the service's default model in a page, or "" (both forms are read)."""
    default = page.get("defaultModel")
    if isinstance(default, dict):
        default = cast("dict[str, object]", default).get("modelId")
    return _text(default or page.get("defaultModelId"))


def _read_model(entry: JsonObject) -> ModelInfo:
    model_id = _text(entry["modelId"])
    known = known_model(model_id)
    limits = object_member(entry, "tokenLimits")
    fields = read_model_fields(entry.get("additionalModelRequestFieldsSchema"))
    listed_rate = number_member(entry, "rateMultiplier")
    rate = known.rate_multiplier if listed_rate is None else listed_rate
    input_types = entry.get("supportedInputTypes")
    listed_types = input_types if isinstance(input_types, list) else []
    fallbacks = [
        _text(one.get("modelId")) for one in object_members(entry, "refusalFallbackModels")
    ]
    thinking: ThinkingSupport = "none" if known.thinking == "native" else known.thinking
    if fields and (fields.efforts or fields.thinking_types):
        thinking = "native"
    return ModelInfo(
        id=model_id,
        name=_text(entry.get("modelName")) or known.name,
        aliases=known.aliases,
        context_window=positive_integer(limits.get("maxInputTokens")) or known.context_window,
        max_output_tokens=positive_integer(limits.get("maxOutputTokens"))
        or known.max_output_tokens,
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


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# --- names --------------------------------------------------------------------------------

THINKING_EFFORT: Final[Effort] = "medium"
"""What `-thinking` asks for, where no effort is named."""

DEFAULT_NAME: Final = "auto"
"""What an empty name stands for."""

MAX_NAME_CHARACTERS: Final = 256
"""How long a name may be that is compared with others."""

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
    """What a caller asked for by naming a model."""

    model_requested: str
    """The name as the caller wrote it."""
    model: ModelInfo
    """The model that it stands for; its `id` is what is sent."""
    effort: Effort = ""
    """The effort that the name asks for, by `-thinking` or by itself; "" for none."""
    writes_in_chunks: bool = False
    """Whether it ends with `-agentic`: long files are to be written in several tool uses."""
    allows_tools: bool = True
    """Whether tools may be used, which `-chat` forbids."""
    is_listed: bool = True
    """Whether the model is in the list."""
    warnings: tuple[str, ...] = ()

    def applied_to(self, request: ChatRequest) -> ChatRequest:
        """Return the request for this model; an effort that it names itself stands."""
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
    """Find the model that a name stands for.

    Args:
        name: What the caller wrote.
        models: The models that the account may use.
        aliases: The user's own names; they stand above all others.
    """
    given = name.strip() or DEFAULT_NAME
    wanted = clean_text((aliases or {}).get(given, given).strip())
    if exact := next((model for model in models if model.id == wanted), None):
        return ModelChoice(model_requested=name, model=exact)
    offered = _by_every_name(models)
    if listed := offered.get(wanted.lower()):
        return ModelChoice(model_requested=name, model=listed)
    if len(wanted) > MAX_NAME_CHARACTERS:
        warning = _unknown(wanted, {})
        model = known_model(wanted)
        return ModelChoice(model_requested=name, model=model, is_listed=False, warnings=(warning,))
    bare = _SEPARATORS.sub("-", wanted).strip("-")
    endings: list[str] = []
    while ending := _ENDING.search(bare):
        endings.append((ending["word"] or "").lower())
        bare = bare[: ending.start()]
    normal = normalised_name(bare)
    efforts: list[Effort] = [level for level in EFFORTS if level in endings]
    if not efforts and "thinking" in endings:
        efforts = [THINKING_EFFORT]
    choice = ModelChoice(
        model_requested=name,
        model=known_model(DEFAULT_NAME),
        effort=efforts[-1] if efforts else "",
        writes_in_chunks="agentic" in endings,
        allows_tools="chat" not in endings,
    )
    if found := offered.get(bare.lower()) or offered.get(normal):
        return replace(choice, model=found)
    if newest := _newest(normal, models):
        warning = f"{quoted(wanted)} names no version; {newest.id} is used."
        return replace(choice, model=newest, warnings=(warning,))
    if normal.startswith("claude-"):
        warning = _unknown(normal, offered)
        return replace(choice, model=known_model(normal), is_listed=False, warnings=(warning,))
    # Nothing is known of such names, not even whether their endings ask for anything.
    return ModelChoice(
        model_requested=name,
        model=known_model(wanted),
        is_listed=False,
        warnings=(_unknown(wanted, offered),),
    )


def normalised_name(name: str) -> str:
    """Return a name as the service's own ids are written: `claude-opus-4.5`.

    Names for people, the prefixes of gateways, old ids in capitals, dates, `-latest`, dashes for
    dots and the order of Claude 3 come out the same; a name that has none of them is only put in
    lower case.
    """
    plain = _PROVIDER.sub("", _SEPARATORS.sub("-", name.lower()), count=1)
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    plain = _API_VERSION.sub("", plain).removesuffix("-latest")
    dotted = _DASHED_NUMBER.sub(".", _DATE.sub("", plain)).removesuffix(".0")
    whole = f"claude-{dotted}" if dotted.startswith(_FAMILY_NAMES) else dotted
    return _NUMBER_FIRST.sub(r"claude-\2-\1", whole)


def _by_every_name(models: Sequence[ModelInfo]) -> dict[str, ModelInfo]:
    """Map ids, aliases and names for people in lower case.

    An id stands above all aliases, and those above the names, of which only one model may have
    the same.
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
    """Find the newest model of a family that is named without a number."""
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
