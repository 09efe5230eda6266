"""The list of models, from the service's pages and from the snapshot."""

import pytest

from kiro_mcp.protocol.models_catalog import BUILTIN_MODELS, default_model, models_from_page

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
    assert (model.thinking, model.effort_levels) == ("native", ("low", "high"))


def test_what_a_page_does_not_say_comes_from_the_snapshot() -> None:
    """Observed: every member but the id may be missing."""
    (model,), token = models_from_page({"models": [{"modelId": "claude-sonnet-4.5"}]})
    assert model == next(known for known in BUILTIN_MODELS if known.id == "claude-sonnet-4.5")
    assert token == ""


def test_an_unknown_model_without_details_is_still_listed() -> None:
    """Ours: new models must not need a release."""
    (model,), _ = models_from_page({"models": [{"modelId": "x", "tokenLimits": None}]})
    assert (model.id, model.name, model.context_window, model.thinking) == ("x", "x", None, "none")


@pytest.mark.parametrize(
    "page", [{}, {"models": None}, {"models": ["x", {}, {"modelId": ""}, {"modelId": 3}]}]
)
def test_a_page_of_nonsense_lists_nothing(page: dict[str, object]) -> None:
    """Ours."""
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
    """Ours."""
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


def test_the_snapshot_lists_each_model_once() -> None:
    """Ours."""
    ids = [model.id for model in BUILTIN_MODELS]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "auto"
