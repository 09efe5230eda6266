"""The list of models, from the service's pages and from the snapshot."""

import json
from pathlib import Path
from typing import Any

import pytest

from kiro_mcp.chat import ModelFields, ModelInfo
from kiro_mcp.wire.models import (
    BUILTIN_MODELS,
    HIDDEN_MODELS,
    default_model,
    known_model,
    models_from_page,
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


def test_a_full_entry_is_read_whole() -> None:
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
def test_figures_that_are_none_are_as_if_not_there(nonsense: object) -> None:
    """JSON readers take `1e999`, and what is written from it is no JSON any more."""
    limits = {"maxInputTokens": nonsense, "maxOutputTokens": nonsense}
    entry = {"modelId": "auto", "tokenLimits": limits, "rateMultiplier": nonsense}
    (model,), _ = models_from_page({"models": [entry]})
    known = known_model("auto")
    assert (model.context_window, model.max_output_tokens) == (1_000_000, 64_000)
    assert (model.rate_multiplier, known.rate_multiplier) == (1.0, 1.0)


def test_a_model_that_costs_nothing_is_listed_so() -> None:
    """Nothing is a rate, and no lack of one."""
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
    """Observed: both forms are about."""
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
    """Signed out, it is all there is to choose by."""
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


def test_long_prompts_have_a_rate_of_their_own() -> None:
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


def test_the_rate_of_long_prompts_is_known_only_with_the_base_rate_it_belongs_to() -> None:
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


def test_models_that_are_not_listed_are_known_all_the_same() -> None:
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
