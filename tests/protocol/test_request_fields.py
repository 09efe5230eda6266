"""How effort and length are asked of a model."""

import pytest

from kiro_mcp.models import Effort, EffortLevel, JsonObject, ModelFields, ModelInfo
from kiro_mcp.protocol.model_fields import EFFORTS
from kiro_mcp.protocol.models_catalog import known_model
from kiro_mcp.protocol.request_fields import Wishes, ask_model, nearest_effort

OPUS_5, OPUS_46 = known_model("claude-opus-5"), known_model("claude-opus-4.6")
TAGS, GPT, NONE = known_model("claude-sonnet-4.5"), known_model("gpt-5.6-sol"), known_model("auto")


def ask(model: ModelInfo, effort: Effort = "", max_tokens: int = 0) -> Wishes:
    return ask_model(model, effort=effort, max_tokens=max_tokens)


@pytest.mark.parametrize("model", [OPUS_5, TAGS, GPT, NONE])
def test_nothing_is_sent_that_nobody_asked_for(model: ModelInfo) -> None:
    """Ours."""
    assert ask(model) == Wishes(fields={})


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_model_with_a_schema_is_asked_by_its_fields_alone(effort: EffortLevel) -> None:
    """The service's list of models (2026): Claude from 4.6 on."""
    assert ask(OPUS_5, effort, 32_000) == Wishes(
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
    ],
)
def test_an_effort_becomes_the_nearest_that_is_offered(
    wanted: EffortLevel, offered: tuple[EffortLevel, ...], nearest: EffortLevel | None
) -> None:
    """Ours: of two that are as near, the cheaper."""
    assert nearest_effort(wanted, offered) == nearest


def test_an_effort_that_is_changed_is_said() -> None:
    """Observed: Claude 4.6 knows no xhigh, and the service refuses what is not listed."""
    wishes = ask(OPUS_46, "xhigh")
    assert wishes.fields["output_config"] == {"effort": "high"}
    assert wishes.warnings == ("claude-opus-4.6 knows no effort 'xhigh'; 'high' was asked for.",)


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
    effort: EffortLevel, budget: int, length: int
) -> None:
    """Observed: Claude 4.5 and older think where these tags begin the prompt."""
    wishes = ask_model(TAGS, effort=effort, max_tokens=0, thinking_budget=budget)
    assert wishes == Wishes(
        fields={},
        tags="<thinking_mode>enabled</thinking_mode>"
        f"<max_thinking_length>{length}</max_thinking_length>",
    )


def test_a_model_that_cannot_be_asked_is_asked_nothing_and_that_is_said() -> None:
    """Observed: such models refuse extra fields, and take tags for text."""
    wishes = ask(NONE, "high", 5_000)
    assert (wishes.fields, wishes.tags) == ({}, "")
    assert len(wishes.warnings) == 2
    assert "'high'" in wishes.warnings[0]


def test_thinking_can_be_turned_off_where_the_model_says_so() -> None:
    """Ours, by the model's own schema."""
    fields = ModelFields(thinking_types=("adaptive", "disabled"))
    willing = ModelInfo(id="m", name="M", thinking="native", fields=fields)
    assert ask(willing, "off") == Wishes(fields={"thinking": {"type": "disabled"}})
    assert ask(OPUS_5, "off").fields == {}
    assert "cannot be turned off" in ask(OPUS_5, "off").warnings[0]
    assert ask(TAGS, "off") == ask(NONE, "off") == Wishes(fields={})


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
    assert ask(model, "high") == Wishes(fields=expected)


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
    """Ours."""
    model = ModelInfo(id="m", name="M", fields=ModelFields(max_tokens=(1, None)))
    assert ask(model, max_tokens=10**9) == Wishes(fields={"max_tokens": 10**9})
