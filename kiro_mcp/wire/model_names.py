"""What a caller writes for a model -> the id that the service knows, and what else it asks for.

Callers bring names from other programs: with dashes for dots, with dates, with a window in
brackets, with the prefixes of gateways, and with suffixes that are no part of a name but wishes
(`-thinking`, `-agentic`, `-chat`, an effort). A name that is still unknown is sent as it is, with
a warning: new models must not need a new release. No name is ever mapped to another model in
silence.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kiro_mcp.chat import ChatRequest, Effort, ModelInfo
from kiro_mcp.errors import quoted
from kiro_mcp.wire.json_values import clean_text
from kiro_mcp.wire.model_fields import EFFORTS
from kiro_mcp.wire.models_catalog import BUILTIN_MODELS, HIDDEN_MODELS, known_model

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
_WISH: Final = re.compile(
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
    bare, words = _split_wishes(_SEPARATORS.sub("-", wanted).strip("-"))
    normal = normalised_name(bare)
    wishes = _as_choice(name, words)
    if found := offered.get(bare.lower()) or offered.get(normal):
        return replace(wishes, model=found)
    if newest := _newest(normal, models):
        warning = f"{quoted(wanted)} names no version; {newest.id} is used."
        return replace(wishes, model=newest, warnings=(warning,))
    if normal.startswith("claude-"):
        warning = _unknown(normal, offered)
        return replace(wishes, model=known_model(normal), is_listed=False, warnings=(warning,))
    # Nothing is known of such names, not even that their endings are wishes.
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


def _split_wishes(name: str) -> tuple[str, Sequence[str]]:
    """Take the endings that are no part of a name off it."""
    words: list[str] = []
    while ending := _WISH.search(name):
        words.append((ending["word"] or "").lower())
        name = name[: ending.start()]
    return name, words


def _as_choice(name: str, words: Sequence[str]) -> ModelChoice:
    """Read wishes; the model is still to be found."""
    named = [level for level in EFFORTS if level in words]
    thinking: Effort = THINKING_EFFORT if "thinking" in words else ""
    return ModelChoice(
        model_requested=name,
        model=known_model(DEFAULT_NAME),
        effort=named[-1] if named else thinking,
        writes_in_chunks="agentic" in words,
        allows_tools="chat" not in words,
    )


def _newest(name: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    """Find the newest model of a family that is named without a number."""
    family = _FAMILY.fullmatch(name)
    if not name or family is None:
        return None
    beginning = f"claude-{family['family'] or 'sonnet'}-"
    members = [model for model in models if model.id.startswith(beginning)]
    return max(members, key=lambda model: _number(model.id), default=None)


def _number(model_id: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", model_id))


def _unknown(model_id: str, offered: Mapping[str, ModelInfo]) -> str:
    close = difflib.get_close_matches(model_id.lower(), offered, n=1)
    hint = f" Did you mean {offered[close[0]].id}?" if close else ""
    return f"{quoted(model_id)} is not in the list of models and is sent as it is.{hint}"
