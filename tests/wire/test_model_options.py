"""How effort and length are asked of a model."""

import pytest

from kiro_mcp.chat import Effort, JsonObject, ModelFields, ModelInfo
from kiro_mcp.wire.models import EFFORTS, known_model, nearest_effort
from kiro_mcp.wire.request import ModelOptions, model_options

OPUS_5, OPUS_46 = known_model("claude-opus-5"), known_model("claude-opus-4.6")
TAGS, GPT, NONE = known_model("claude-sonnet-4.5"), known_model("gpt-5.6-sol"), known_model("auto")


def ask(model: ModelInfo, effort: Effort = "", max_tokens: int = 0) -> ModelOptions:
    return model_options(model, effort=effort, max_tokens=max_tokens)


@pytest.mark.parametrize("model", [OPUS_5, TAGS, GPT, NONE])
def test_no_field_is_sent_without_effort_and_length(model: ModelInfo) -> None:
    assert ask(model) == ModelOptions(fields={})


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_model_with_a_schema_is_asked_by_its_fields_alone(effort: Effort) -> None:
    """The service's list of models (2026): Claude from 4.6 on."""
    assert ask(OPUS_5, effort, 32_000) == ModelOptions(
        fields={
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": effort},
            "max_tokens": 32_000,
        }
    )


def test_gpt_is_asked_to_reason() -> None:
    """The service's list of models (2026): no thinking, and no length."""
    wishes = ask(GPT, "high", 5_000)
    assert wishes.fields == {"reasoning": {"effort": "high"}}
    assert wishes.warnings == ("gpt-5.6-sol takes no max_tokens; it was left out.",)


@pytest.mark.parametrize(
    ("wanted", "offered", "nearest"),
    [
        ("xhigh", ("low", "medium", "high", "max"), "high"),
        ("max", ("low", "medium"), "medium"),
        ("low", ("high", "max"), "high"),
        ("medium", ("low", "high"), "low"),
        ("high", EFFORTS, "high"),
        ("high", (), None),
        ("minimal", EFFORTS, "low"),
        ("low", ("none", "high"), "high"),
        ("ultra", ("low", "Ultra"), "Ultra"),
        ("ultra", EFFORTS, None),
        ("high", ("ultra",), None),
    ],
)
def test_an_effort_becomes_the_nearest_one_that_the_model_has(
    wanted: Effort, offered: tuple[Effort, ...], nearest: Effort | None
) -> None:
    """Of two that are as near, the cheaper."""
    assert nearest_effort(wanted, offered) == nearest


def test_a_changed_effort_gives_a_warning() -> None:
    """Observed: Claude 4.6 knows no xhigh, and the service refuses what is not listed."""
    wishes = ask(OPUS_46, "xhigh")
    assert wishes.fields["output_config"] == {"effort": "high"}
    assert wishes.warnings == ("claude-opus-4.6 has no effort 'xhigh'; 'high' was asked for.",)


@pytest.mark.parametrize(
    ("effort", "budget", "length"),
    [
        ("medium", 4_000, 4_000),
        ("low", 4_000, 2_000),
        ("high", 4_000, 8_000),
        ("max", 4_000, 16_000),
        ("max", 50_000, 24_576),
        ("low", 10, 1_024),
    ],
)
def test_a_model_without_a_schema_is_asked_by_tags_alone(
    effort: Effort, budget: int, length: int
) -> None:
    """Observed: Claude 4.5 and older think where these tags begin the prompt."""
    wishes = model_options(TAGS, effort=effort, max_tokens=0, thinking_budget=budget)
    assert wishes == ModelOptions(
        fields={},
        tags="<thinking_mode>enabled</thinking_mode>"
        f"<max_thinking_length>{length}</max_thinking_length>",
    )


def test_a_model_without_options_gets_none_and_a_warning() -> None:
    """Observed: such models refuse extra fields, and take tags for text."""
    wishes = ask(NONE, "high", 5_000)
    assert (wishes.fields, wishes.tags) == ({}, "")
    assert len(wishes.warnings) == 2
    assert "'high'" in wishes.warnings[0]


@pytest.mark.parametrize(
    ("model_id", "fields", "warning"),
    [
        ("claude-opus-5", {"thinking": {"type": "disabled"}}, ""),
        ("claude-opus-4.6", {"thinking": {"type": "disabled"}}, ""),
        ("gpt-5.6-sol", {"reasoning": {"effort": "none"}}, ""),
        ("claude-sonnet-5.5", {"output_config": {"effort": "low"}}, "cannot be turned off"),
        ("claude-opus-5.5", {"output_config": {"effort": "low"}}, "cannot be turned off"),
        ("claude-sonnet-4.5", {}, ""),
        ("auto", {}, ""),
    ],
)
def test_effort_off_asks_for_the_least_that_the_model_has(
    model_id: str, fields: JsonObject, warning: str
) -> None:
    """The service's list of models: without a word it takes a default, often `high`."""
    wishes = ask(known_model(model_id), "off")
    assert wishes.fields == fields
    assert wishes.tags == ""
    assert warning in "".join(wishes.warnings)
    assert bool(wishes.warnings) == bool(warning)


def test_a_model_that_cannot_think_less_gets_a_warning() -> None:
    """A schema with the one thinking type and no efforts."""
    fields = ModelFields(thinking_types=("adaptive",))
    wishes = ask(ModelInfo(id="m", name="M", thinking="native", fields=fields), "off")
    assert (wishes.fields, wishes.warnings) == ({}, ("The thinking of m cannot be turned off.",))


def test_an_unknown_effort_is_left_out_with_a_warning() -> None:
    """The service refuses what its schema does not list."""
    for model in (OPUS_5, TAGS):
        wishes = ask(model, "ultra")
        assert (wishes.fields, wishes.tags) == ({}, "")
        assert "'ultra'" in wishes.warnings[0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (ModelFields(thinking_types=("adaptive",)), {"thinking": {"type": "adaptive"}}),
        (ModelFields(thinking_types=("enabled",)), {}),
        (
            ModelFields(effort_path=("effort",), efforts=("low", "high")),
            {"effort": "high"},
        ),
        (None, {}),
    ],
)
def test_only_what_the_schema_has_is_sent(fields: ModelFields | None, expected: JsonObject) -> None:
    """Observed: the service refuses a field that is not in the schema."""
    model = ModelInfo(id="m", name="M", thinking="native", fields=fields)
    assert ask(model, "high") == ModelOptions(fields=expected)


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [(1, 1_024), (1_024, 1_024), (128_000, 128_000), (10**9, 128_000), (-5, None)],
)
def test_a_length_is_brought_into_the_models_range(wanted: int, sent: int | None) -> None:
    """Observed: the service refuses what is out of range."""
    wishes = ask(OPUS_5, max_tokens=wanted)
    assert wishes.fields.get("max_tokens") == sent
    assert bool(wishes.warnings) == (sent not in (wanted, None))


def test_a_length_without_an_upper_bound_is_sent_as_it_is() -> None:
    model = ModelInfo(id="m", name="M", fields=ModelFields(max_tokens=(1, None)))
    assert ask(model, max_tokens=10**9) == ModelOptions(fields={"max_tokens": 10**9})
