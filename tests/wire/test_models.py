"""The list of models, from the service's pages and from the snapshot."""

import json
from pathlib import Path
from typing import Any

import pytest

from kiro_mcp.chat import ChatRequest, Effort, Message, ModelFields, ModelInfo
from kiro_mcp.wire.models import (
    BUILTIN_MODELS,
    HIDDEN_MODELS,
    default_model,
    known_model,
    models_from_page,
    read_model_fields,
    resolve_model,
)

CAPTURED: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "list-available-models.json").read_text("utf-8")
)["body"]

EFFORT_SCHEMA = {
    "type": "object",
    "properties": {
        "max_tokens": {"type": "integer"},
        "output_config": {
            "type": "object",
            "properties": {"effort": {"type": "string", "enum": ["low", "high", "other"]}},
        },
    },
}


def test_every_member_of_an_entry_is_read() -> None:
    """The service's published shape."""
    entry = {
        "modelId": "new-model",
        "modelName": "New Model",
        "rateMultiplier": 1.5,
        "tokenLimits": {"maxInputTokens": 200000, "maxOutputTokens": 64000},
        "supportedInputTypes": ["TEXT", "IMAGE"],
        "additionalModelRequestFieldsSchema": EFFORT_SCHEMA,
    }
    (model,), token = models_from_page({"models": [entry], "nextToken": "t"})
    assert token == "t"
    assert (model.id, model.name, model.rate_multiplier) == ("new-model", "New Model", 1.5)
    assert (model.context_window, model.max_output_tokens) == (200000, 64000)
    assert model.input_types == ("TEXT", "IMAGE")
    assert (model.thinking, model.effort_levels) == ("native", ("low", "high", "other"))
    assert model.fields == ModelFields(
        effort_path=("output_config", "effort"),
        efforts=("low", "high", "other"),
        max_tokens=(1, None),
    )


def test_a_model_names_what_to_ask_if_it_refuses() -> None:
    """Observed: tests/vectors/list-available-models.json."""
    listed = {model.id: model.refusal_fallbacks for model in models_from_page(CAPTURED)[0]}
    assert listed == {
        "claude-sonnet-5.5": ("claude-sonnet-5",),
        "claude-opus-5": ("claude-opus-4.8",),
        "claude-haiku-4.5": (),
    }
    odd = {"modelId": "x", "refusalFallbackModels": [None, {}, {"modelId": 3}, {"modelId": "y"}]}
    assert models_from_page({"models": [odd]})[0][0].refusal_fallbacks == ("y",)


def test_what_a_page_does_not_say_comes_from_the_snapshot() -> None:
    """Observed: every member but the id may be missing."""
    (model,), token = models_from_page({"models": [{"modelId": "claude-sonnet-4.5"}]})
    assert model == next(known for known in BUILTIN_MODELS if known.id == "claude-sonnet-4.5")
    assert token == ""


def test_a_listed_model_without_a_schema_takes_no_fields_whatever_the_snapshot_says() -> None:
    """Observed: the service refuses extra fields for models that publish no schema."""
    (model,), _ = models_from_page({"models": [{"modelId": "claude-opus-5"}]})
    assert (model.thinking, model.effort_levels, model.fields) == ("none", (), None)
    assert model.context_window == 1_000_000


def test_an_unknown_model_without_details_is_still_listed() -> None:
    """New models must not need a release."""
    (model,), _ = models_from_page({"models": [{"modelId": "x", "tokenLimits": None}]})
    assert (model.id, model.name, model.context_window, model.thinking) == ("x", "x", None, "none")


@pytest.mark.parametrize("nonsense", [True, "9", float("inf"), float("nan"), 10**400])
def test_a_figure_that_is_not_a_positive_number_counts_as_missing(nonsense: object) -> None:
    """JSON readers take `1e999`, but it cannot be written as JSON again."""
    limits = {"maxInputTokens": nonsense, "maxOutputTokens": nonsense}
    entry = {"modelId": "auto", "tokenLimits": limits, "rateMultiplier": nonsense}
    (model,), _ = models_from_page({"models": [entry]})
    known = known_model("auto")
    assert (model.context_window, model.max_output_tokens) == (1_000_000, 64_000)
    assert (model.rate_multiplier, known.rate_multiplier) == (1.0, 1.0)


def test_a_model_may_cost_nothing() -> None:
    (model,), _ = models_from_page({"models": [{"modelId": "auto", "rateMultiplier": 0}]})
    assert model.rate_multiplier == 0


@pytest.mark.parametrize(
    "page", [{}, {"models": None}, {"models": ["x", {}, {"modelId": ""}, {"modelId": 3}]}]
)
def test_a_page_of_nonsense_lists_nothing(page: dict[str, object]) -> None:
    assert models_from_page(page) == ((), "")


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"properties": []},
        {"properties": {"effort": "x"}},
        {"properties": {"effort": {"enum": None}}},
    ],
)
def test_a_schema_without_efforts_offers_none(schema: object) -> None:
    entry = {"modelId": "x", "additionalModelRequestFieldsSchema": schema}
    (model,), _ = models_from_page({"models": [entry]})
    assert (model.thinking, model.effort_levels) == ("none", ())


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({"defaultModel": {"modelId": "auto"}}, "auto"),
        ({"defaultModelId": "auto"}, "auto"),
        ({"defaultModel": None}, ""),
        ({"defaultModel": {"modelId": 3}}, ""),
    ],
)
def test_the_default_model_is_read_in_both_forms(page: dict[str, object], expected: str) -> None:
    """Observed: the service uses both."""
    assert default_model(page) == expected


def test_prices_windows_and_thinking_of_the_first_models_are_listed() -> None:
    """The vendor's list prices, and what these models can do."""
    listed = {model.id: model for model in BUILTIN_MODELS}
    for model_id, price, thinking in (
        ("claude-sonnet-4.5", (3.0, 15.0), "tags"),
        ("claude-haiku-4.5", (0.8, 4.0), "none"),
        ("claude-opus-4.5", (15.0, 75.0), "tags"),
    ):
        model = listed[model_id]
        assert model.list_price
        assert (model.list_price.input_per_million, model.list_price.output_per_million) == price
        assert (model.context_window, model.thinking) == (200_000, thinking)
        assert "IMAGE" in model.input_types


@pytest.mark.parametrize("model", [*BUILTIN_MODELS, *HIDDEN_MODELS], ids=lambda model: model.id)
def test_each_model_of_the_snapshot_is_described(model: ModelInfo) -> None:
    """Without a login it is the only list."""
    assert model.name
    if model.id in ("claude-fable-5.1", "kimi-k3"):  # Nothing else of them is published.
        assert (model.context_window, model.rate_multiplier, model.input_types) == (None, None, ())
        return
    assert model.context_window
    assert 100_000 <= model.context_window <= 1_000_000
    if model.max_output_tokens:
        assert 64_000 <= model.max_output_tokens <= 128_000
    if model.fields and model.fields.max_tokens:
        least, most = model.fields.max_tokens
        assert (least, most) == (1_024, model.max_output_tokens or 64_000)
    assert "TEXT" in model.input_types
    assert model.effort_levels == (model.fields.efforts if model.fields else ())


def test_some_models_have_a_higher_rate_for_long_prompts() -> None:
    """The vendor's announcements: haiku-5.5 above 100K tokens, GPT-5.6 doubled above 272K."""
    rates = {
        model.id: (model.rate_multiplier, higher.above_tokens, higher.rate_multiplier)
        for model in BUILTIN_MODELS
        if (higher := model.higher_rate)
    }
    assert rates == {
        "claude-haiku-5.5": (0.06, 100_000, 0.3),
        "gpt-5.6-sol": (4.4, 272_000, 8.8),
        "gpt-5.6-terra": (2.2, 272_000, 4.4),
        "gpt-5.6-luna": (1.1, 272_000, 2.2),
    }


def test_the_higher_rate_is_known_only_with_its_own_base_rate() -> None:
    """The service's list names one rate; with another base rate nobody knows the other."""
    same, other = (
        models_from_page({"models": [{"modelId": "gpt-5.6-sol", "rateMultiplier": rate}]})[0][0]
        for rate in (4.4, 3.0)
    )
    assert same.higher_rate == known_model("gpt-5.6-sol").higher_rate
    assert other.higher_rate is None


def test_the_snapshot_agrees_with_what_the_service_lists() -> None:
    """Observed: tests/vectors/list-available-models.json."""
    for listed in models_from_page(CAPTURED)[0]:
        known = known_model(listed.id)
        assert known.fields == listed.fields
        assert known.rate_multiplier == listed.rate_multiplier
        assert known.context_window == listed.context_window
        assert known.max_output_tokens == listed.max_output_tokens
        assert known.refusal_fallbacks == listed.refusal_fallbacks
    assert default_model(CAPTURED) == "auto"


def test_unlisted_models_are_known_by_their_old_ids() -> None:
    """Observed: older ids still work for some accounts."""
    assert not {model.id for model in HIDDEN_MODELS} & {model.id for model in BUILTIN_MODELS}
    assert known_model(HIDDEN_MODELS[0].id).name == "Claude 3.7 Sonnet"
    assert known_model("unheard-of").fields is None


def test_the_snapshot_lists_each_model_once() -> None:
    ids = [model.id for model in BUILTIN_MODELS]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "auto"
    aliases = [alias for model in BUILTIN_MODELS for alias in model.aliases]
    assert len({*ids, *aliases}) == len(ids) + len(aliases)


# --- the fields of a model ----------------------------------------------------------------


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def choice(*values: object) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def test_the_fields_of_claude_are_read() -> None:
    """The service's list of models (2026)."""
    schema = record(
        thinking=record(type=choice("adaptive", "disabled"), display=choice("summarized")),
        output_config=record(effort={**choice("low", "medium", "high", "max"), "default": "high"}),
        max_tokens={"type": "integer", "minimum": 1024, "maximum": 64000},
    )
    assert read_model_fields(schema) == ModelFields(
        effort_path=("output_config", "effort"),
        efforts=("low", "medium", "high", "max"),
        default_effort="high",
        thinking_types=("adaptive", "disabled"),
        thinking_displays=("summarized",),
        max_tokens=(1024, 64000),
    )


def test_the_fields_of_gpt_are_read() -> None:
    """The service's list of models (2026)."""
    schema = record(reasoning=record(effort=choice("xhigh", "unheard of", "low", "none")))
    assert read_model_fields(schema) == ModelFields(
        effort_path=("reasoning", "effort"), efforts=("none", "low", "xhigh", "unheard of")
    )


def test_choices_are_read_however_they_are_written() -> None:
    """JSON Schema: references, alternatives and constants."""
    adaptive = record(type={"const": "adaptive"}, display={"$ref": "#/$defs/display"})
    schema = {
        **record(
            thinking={"oneOf": [adaptive, record(type={"const": "disabled"})]},
            output_config={"allOf": [record(effort={"anyOf": [choice("low"), choice("high")]})]},
            max_tokens={"type": "integer"},
        ),
        "$defs": {"display": choice("summarized", "omitted")},
    }
    assert read_model_fields(schema) == ModelFields(
        effort_path=("output_config", "effort"),
        efforts=("low", "high"),
        thinking_types=("adaptive", "disabled"),
        thinking_displays=("summarized", "omitted"),
        max_tokens=(1, None),
    )


def test_the_first_of_several_efforts_and_limits_counts() -> None:
    """Alternatives can give one member two schemas."""
    first = record(effort=choice("low", "high"), max_tokens={"maximum": 9})
    second = record(effort=choice("medium"), max_tokens={"maximum": 7})
    assert read_model_fields({"anyOf": [record(effort={}), first, second]}) == ModelFields(
        effort_path=("effort",), efforts=("low", "high"), max_tokens=(1, 9)
    )


@pytest.mark.parametrize("nonsense", [0, -1, True, "9", None, float("inf"), 10**400])
def test_a_bound_that_is_not_a_positive_number_counts_as_missing(nonsense: object) -> None:
    """A limit of nothing would let a model say nothing."""
    schema = record(max_tokens={"minimum": nonsense, "maximum": nonsense})
    assert read_model_fields(schema) == ModelFields(max_tokens=(1, None))


@pytest.mark.parametrize(
    "schema",
    [
        None,
        "x",
        {},
        {"properties": []},
        record(temperature={"type": "number"}),
        record(effort="x"),
        record(effort={"enum": None}),
        {"allOf": "x"},
    ],
)
def test_a_schema_without_known_fields_gives_none(schema: object) -> None:
    assert read_model_fields(schema) is None


# --- the names that callers use for models ------------------------------------------------


OPUS, SONNET = "claude-opus-4.5", "claude-sonnet-4.5"
SONNET_4, HAIKU = "claude-sonnet-4", "claude-haiku-4.5"

# The names that an older gateway for the same service knew, every one of them.
OLDER = {
    "amazonq-auto": "auto",
    "amazonq-claude-opus-4-5": OPUS,
    "amazonq-claude-sonnet-4-5": SONNET,
    "amazonq-claude-sonnet-4-5-20250929": SONNET,
    "amazonq-claude-sonnet-4": SONNET_4,
    "amazonq-claude-sonnet-4-20250514": SONNET_4,
    "amazonq-claude-haiku-4-5": HAIKU,
    "kiro-claude-opus-4-5": OPUS,
    "kiro-claude-sonnet-4-5": SONNET,
    "kiro-claude-sonnet-4-5-20250929": SONNET,
    "kiro-claude-sonnet-4": SONNET_4,
    "kiro-claude-sonnet-4-20250514": SONNET_4,
    "kiro-claude-haiku-4-5": HAIKU,
    "kiro-auto": "auto",
    "claude-opus-4-5": OPUS,
    "claude-opus-4.5": OPUS,
    "claude-haiku-4-5": HAIKU,
    "claude-haiku-4.5": HAIKU,
    "claude-sonnet-4-5": SONNET,
    "claude-sonnet-4-5-20250929": SONNET,
    "claude-sonnet-4.5": SONNET,
    "claude-sonnet-4": SONNET_4,
    "claude-sonnet-4-20250514": SONNET_4,
    "auto": "auto",
    "claude-opus-4.5-agentic": OPUS,
    "claude-sonnet-4.5-agentic": SONNET,
    "claude-sonnet-4-agentic": SONNET_4,
    "claude-haiku-4.5-agentic": HAIKU,
    "kiro-claude-opus-4-5-agentic": OPUS,
    "kiro-claude-sonnet-4-5-agentic": SONNET,
    "kiro-claude-sonnet-4-agentic": SONNET_4,
    "kiro-claude-haiku-4-5-agentic": HAIKU,
}

OTHERS = {
    # Names of other programs that speak to the service.
    "claude-opus-4-5-20251101": OPUS,
    "claude-sonnet-4-5-20250514": SONNET,
    "claude-sonnet-4-5-20250514-thinking": SONNET,
    "claude-haiku-4-5-20250514": HAIKU,
    "claude-opus-4-5-20250514": OPUS,
    "claude-3-7-sonnet-20250219": "CLAUDE_3_7_SONNET_20250219_V1_0",
    "claude-3.7-sonnet": "CLAUDE_3_7_SONNET_20250219_V1_0",
    # The service's own older ids.
    "CLAUDE_3_7_SONNET_20250219_V1_0": "CLAUDE_3_7_SONNET_20250219_V1_0",
    "CLAUDE_SONNET_4_20250514_V1_0": SONNET_4,
    "CLAUDE_SONNET_4_5_20250929_V1_0": SONNET,
    "CLAUDE_OPUS_4_5_20251101_V1_0": OPUS,
    "claude-sonnet-4.5-1m": SONNET,
    "claude-opus-4.6-1m": "claude-opus-4.6",
    # What people and other APIs write.
    "claude-opus-4-6[1m]": "claude-opus-4.6",
    "claude-sonnet-4.6[200k]": "claude-sonnet-4.6",
    "claude-4.5-opus-high": OPUS,
    "claude-4-sonnet": SONNET_4,
    "claude-sonnet-4-0": SONNET_4,
    "claude-sonnet-5": "claude-sonnet-5",
    "Claude-Opus-4.5": OPUS,
    " claude-opus-4.5 ": OPUS,
    "opus-4.5": OPUS,
    "anthropic/claude-sonnet-4.5": SONNET,
    "anthropic.claude-sonnet-4-5-20250929-v1:0": SONNET,
    "claude-opus-4-5@20251101": OPUS,
    "claude-opus-4-5-latest": OPUS,
    "claude-opus-4-8-thinking-agentic": "claude-opus-4.8",
    # Names for people, Bedrock's, Vertex's, OpenRouter's and LiteLLM's.
    "Claude Sonnet 4.5": SONNET,
    "claude sonnet 4.5 (thinking)": SONNET,
    "Sonnet 4.5": SONNET,
    "4.5 Sonnet": SONNET,
    "GPT-5.6 Sol": "gpt-5.6-sol",
    "GLM 5": "glm-5",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0": SONNET,
    "global.anthropic.claude-opus-4-5-20251101-v1:0": OPUS,
    "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0": HAIKU,
    "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-20250514-v1:0": SONNET_4,
    "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-opus-4-6-v1": (
        "claude-opus-4.6"
    ),
    "vertex_ai/claude-sonnet-4-5@20250929": SONNET,
    "anthropic/claude-sonnet-4.5:thinking": SONNET,
    "openrouter/anthropic/claude-opus-4.5:beta": OPUS,
    "anthropic/claude-3.7-sonnet:thinking": "CLAUDE_3_7_SONNET_20250219_V1_0",
    "openai/gpt-5.6-sol:nitro": "gpt-5.6-sol",
    "moonshotai/kimi-k3:free": "kimi-k3",
    "gpt-5.6-sol": "gpt-5.6-sol",
    "gpt-5-6-sol": "gpt-5.6-sol",
    "minimax-m2-5": "minimax-m2.5",
    "": "auto",
}


@pytest.mark.parametrize(("name", "model_id"), [*OLDER.items(), *OTHERS.items()])
def test_every_known_name_finds_its_model(name: str, model_id: str) -> None:
    """The names that other clients and APIs use for the service's models."""
    choice = resolve_model(name)
    assert (choice.model.id, choice.warnings) == (model_id, ())


def test_every_model_and_alias_finds_itself() -> None:
    for model in (*BUILTIN_MODELS, *HIDDEN_MODELS):
        for name in (model.id, *model.aliases):
            assert resolve_model(name).model == model


@pytest.mark.parametrize(
    ("name", "effort", "in_chunks", "tools"),
    [
        ("claude-opus-4.6", "", False, True),
        ("claude-opus-4.6-thinking", "medium", False, True),
        ("claude-opus-4.6-high", "high", False, True),
        ("claude-opus-4.6-XHIGH", "xhigh", False, True),
        ("claude-opus-4.6-max-thinking", "max", False, True),
        ("claude-opus-4.6-thinking-low", "low", False, True),
        ("claude-opus-4.6-agentic", "", True, True),
        ("claude-opus-4.6-chat", "", False, False),
        ("claude-opus-4-6-thinking-agentic[1m]", "medium", True, True),
        ("anthropic/claude-opus-4.6:thinking", "medium", False, True),
        ("Claude Opus 4.6 Thinking", "medium", False, True),
        ("Claude Opus 4.6 (high)", "high", False, True),
    ],
)
def test_an_ending_asks_for_something_and_is_never_sent(
    name: str, effort: Effort, in_chunks: bool, tools: bool
) -> None:
    """Other clients of the service invented these endings; the service does not know them."""
    choice = resolve_model(name)
    assert choice.model.id == "claude-opus-4.6"
    assert (choice.effort, choice.writes_in_chunks, choice.allows_tools) == (
        effort,
        in_chunks,
        tools,
    )


@pytest.mark.parametrize(
    ("name", "sent", "hint"),
    [
        ("unknown-x", "unknown-x", ""),
        ("some-model-high", "some-model-high", ""),
        ("Gpt-5.6-Sal", "Gpt-5.6-Sal", "Did you mean gpt-5.6-sol?"),
        ("claude-opus-4-9", "claude-opus-4.9", "Did you mean claude-opus-4."),
        (
            "claude-3-5-sonnet-20241022",
            "claude-3.5-sonnet",
            "Did you mean CLAUDE_3_7_SONNET_20250219_V1_0?",
        ),
        ("claude-opus-6-20270101-thinking", "claude-opus-6", "Did you mean claude-opus-"),
    ],
)
def test_an_unknown_name_is_sent_as_it_is_with_a_warning(name: str, sent: str, hint: str) -> None:
    """A new model needs no new release."""
    choice = resolve_model(name)
    assert choice.model.id == sent
    (warning,) = choice.warnings
    assert repr(sent) in warning
    assert hint in warning
    assert ("Did you mean" in warning) == bool(hint)


def test_the_endings_of_an_unknown_claude_model_count() -> None:
    assert resolve_model("claude-opus-9-high-chat").effort == "high"
    assert not resolve_model("claude-opus-9-high-chat").allows_tools
    assert resolve_model("other-model-chat").allows_tools


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("opus", "claude-opus-5.5"),
        ("claude-sonnet", "claude-sonnet-5.5"),
        ("claude-haiku-latest", "claude-haiku-5.5"),
        ("claude", "claude-sonnet-5.5"),
    ],
)
def test_a_family_name_means_its_newest_model_with_a_warning(name: str, model_id: str) -> None:
    """The caller learns which version was chosen."""
    choice = resolve_model(name)
    assert choice.model.id == model_id
    assert model_id in choice.warnings[0]


def test_a_family_that_is_not_offered_is_unknown() -> None:
    choice = resolve_model("opus", [ModelInfo(id="auto", name="Auto")])
    assert choice.model.id == "opus"
    assert choice.warnings


def test_an_alias_of_the_user_wins_over_every_other_name() -> None:
    aliases = {"fast": "claude-haiku-4-5", "auto": "claude-opus-4.6-high"}
    assert resolve_model("fast", aliases=aliases).model.id == HAIKU
    assert resolve_model(" fast\n", aliases=aliases).model.id == HAIKU
    choice = resolve_model("auto", aliases=aliases)
    assert (choice.model.id, choice.effort) == ("claude-opus-4.6", "high")


def test_the_models_of_the_account_win_over_the_built_in_ones() -> None:
    """The account can use only these."""
    models = [
        ModelInfo(id="claude-opus-4.5-thinking", name="New"),
        ModelInfo(id="claude-opus-4.5", name="Listed"),
    ]
    assert resolve_model("claude-opus-4.5-thinking", models).effort == ""
    assert resolve_model("claude-opus-4-5", models).model.name == "Listed"
    unlisted = resolve_model("claude-sonnet-4.5", models)
    assert unlisted.model.context_window == 200_000
    assert unlisted.warnings


def test_a_name_that_two_listed_models_share_is_sent_as_it_is() -> None:
    """No name is ever mapped to another model by guessing."""
    models = [ModelInfo(id="x-1", name="Frontier"), ModelInfo(id="x-2", name="Frontier")]
    assert resolve_model("frontier", models).model.id == "frontier"
    assert resolve_model("frontier", models[:1]).model.id == "x-1"
    assert resolve_model("vendor/x-3:free", models).model.id == "vendor/x-3:free"


def test_an_unknown_model_may_read_images() -> None:
    """What is not known is not refused."""
    assert resolve_model("unknown-x").model.input_types == ()


def test_a_request_keeps_its_own_effort_when_a_choice_is_applied() -> None:
    """An argument says more than an ending."""
    request = ChatRequest(messages=(Message(role="user", parts=()),), conversation_id="")
    applied = resolve_model("claude-opus-4.6-high-agentic-chat").applied_to(request)
    assert (applied.model, applied.effort) == ("claude-opus-4.6", "high")
    assert applied.model_info == resolve_model("claude-opus-4.6").model
    assert applied.writes_in_chunks
    assert not applied.allows_tools
    asked = ChatRequest(messages=(), conversation_id="", effort="off", writes_in_chunks=True)
    again = resolve_model("claude-opus-4.6-high").applied_to(asked)
    assert again.effort == "off"
    assert again.writes_in_chunks
