"""What callers write for models."""

import pytest

from kiro_mcp.chat import ChatRequest, Effort, Message, ModelInfo
from kiro_mcp.wire.models import BUILTIN_MODELS, HIDDEN_MODELS, normalised_name, resolve_model

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
    assert (choice.model.id, choice.model_requested, choice.warnings) == (model_id, name, ())


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
def test_endings_are_wishes_and_never_sent(
    name: str, effort: Effort, in_chunks: bool, tools: bool
) -> None:
    """Other clients of the service made these endings up; it knows none of them."""
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
        ("claude-opus-6-20270101-thinking", "claude-opus-6", "Did you mean claude-opus-"),
    ],
)
def test_an_unknown_name_is_sent_as_it_is_with_a_warning(name: str, sent: str, hint: str) -> None:
    """A new model needs no new release, and none is replaced in silence."""
    choice = resolve_model(name)
    assert choice.model.id == sent
    (warning,) = choice.warnings
    assert repr(sent) in warning
    assert hint in warning
    assert ("Did you mean" in warning) == bool(hint)


def test_an_unknown_name_of_claude_still_has_its_wishes() -> None:
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
def test_a_family_alone_is_its_newest_model_and_said(name: str, model_id: str) -> None:
    """A name without a version is no mistake, but the choice is told."""
    choice = resolve_model(name)
    assert choice.model.id == model_id
    assert model_id in choice.warnings[0]


def test_a_family_that_is_not_offered_is_unknown() -> None:
    choice = resolve_model("opus", [ModelInfo(id="auto", name="Auto")])
    assert choice.model.id == "opus"
    assert choice.warnings


def test_the_users_own_names_stand_above_all() -> None:
    """A setting."""
    aliases = {"fast": "claude-haiku-4-5", "auto": "claude-opus-4.6-high"}
    assert resolve_model("fast", aliases=aliases).model.id == HAIKU
    assert resolve_model(" fast\n", aliases=aliases).model.id == HAIKU
    choice = resolve_model("auto", aliases=aliases)
    assert (choice.model.id, choice.effort) == ("claude-opus-4.6", "high")
    assert choice.model_requested == "auto"


def test_the_models_of_the_account_stand_above_the_built_in_ones() -> None:
    """What is listed is what can be had."""
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


def test_a_model_that_nobody_knows_may_read_images() -> None:
    """What is not known is not refused."""
    assert resolve_model("unknown-x").model.input_types == ()


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("claude-3-7-sonnet", "claude-3.7-sonnet"),
        ("claude-3-5-sonnet-20241022", "claude-3.5-sonnet"),
        ("Claude-Sonnet-4-5-20250929", "claude-sonnet-4.5"),
        ("qwen3-coder-next", "qwen3-coder-next"),
    ],
)
def test_names_are_normalised(name: str, normal: str) -> None:
    """The spelling of the service's own ids."""
    assert normalised_name(name) == normal


def test_a_choice_is_applied_to_a_request_whose_own_wishes_stand() -> None:
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
