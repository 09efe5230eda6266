"""How the model and the effort of a call are chosen from the service's list of models."""

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.emulator.catalogue import CATALOGUE
from tests.support.mcp import ask, code, connected, sent, words

NEW_MODEL = {
    "modelId": "claude-opus-9",
    "additionalModelRequestFieldsSchema": {
        "type": "object",
        "properties": {
            "output_config": {
                "type": "object",
                "properties": {"effort": {"type": "string", "enum": ["low", "high", "ultra"]}},
            }
        },
    },
}


async def test_effort_off_costs_what_it_says(emulator: RunningEmulator) -> None:
    """The service takes a default, often `high`, where nothing is sent, and bills it."""
    came = {}
    async with connected(emulator) as client:
        for model in ("claude-opus-5", "gpt-5.6-sol", "claude-sonnet-5.5", "claude-sonnet-4.5"):
            answer = await ask(client, prompt="hi", model=model, effort="Off")
            fields = sent(emulator).get("additionalModelRequestFields")
            came[model] = (fields, bool(answer.get("warnings")))
    assert came == {
        "claude-opus-5": ({"thinking": {"type": "disabled"}}, False),
        "gpt-5.6-sol": ({"reasoning": {"effort": "none"}}, False),
        "claude-sonnet-5.5": ({"output_config": {"effort": "low"}}, True),
        "claude-sonnet-4.5": (None, False),
    }


async def test_an_effort_is_read_in_any_case_and_by_its_other_names(
    emulator: RunningEmulator,
) -> None:
    """Other APIs write `none` and `minimal`."""
    async with connected(emulator) as client:
        efforts: list[str] = []
        for word in ("HIGH", "minimal", "none"):
            await ask(client, prompt="hi", model="gpt-5.6-sol", effort=word)
            efforts.append(sent(emulator)["additionalModelRequestFields"]["reasoning"]["effort"])
    assert efforts == ["high", "low", "none"]


async def test_a_model_and_an_effort_that_only_the_service_knows_are_used(
    emulator: RunningEmulator,
) -> None:
    """A new model or effort must not need a new release of this package."""
    emulator.state.catalogue = (*CATALOGUE, NEW_MODEL)
    async with connected(emulator) as client:
        answer = await ask(client, prompt="hi", model="claude-opus-9", effort="Ultra")
        assert not answer.get("warnings")
        assert sent(emulator)["additionalModelRequestFields"]["output_config"] == {
            "effort": "ultra"
        }
        other = await ask(client, prompt="hi", model="claude-opus-5", effort="ultra")
        assert "claude-opus-5 has no effort 'ultra'" in " ".join(other["warnings"])
    async with connected(emulator, KIRO_MCP_THINKING="ULTRA") as client:
        await ask(client, prompt="hi", model="claude-opus-9")
        assert sent(emulator)["additionalModelRequestFields"]["output_config"] == {
            "effort": "ultra"
        }


async def test_an_effort_that_no_model_has_is_refused_by_the_name_of_what_gave_it(
    emulator: RunningEmulator,
) -> None:
    """A model can correct its call, and a person a setting, only if it is named."""
    async with connected(emulator) as client:
        refused = await client.call_tool("ask_claude", {"prompt": "hi", "effort": "x" * 200})
        assert code(refused) == "invalid_request"
        assert f"argument 'effort' is '{'x' * 80}'" in words(refused)
        assert "x" * 81 not in words(refused)
    async with connected(emulator, KIRO_MCP_THINKING="very") as client:
        refused = await client.call_tool("ask_claude", {"prompt": "hi"})
        assert code(refused) == "invalid_request"
        assert "setting KIRO_MCP_THINKING is 'very'" in words(refused)
        assert not (
            await client.call_tool("ask_claude", {"prompt": "hi", "effort": "low"})
        ).is_error


async def test_a_model_of_the_settings_that_is_not_listed_is_named_with_its_setting(
    emulator: RunningEmulator,
) -> None:
    """The reader of the warning did not write the name."""
    emulator.state.catalogue = CATALOGUE[:3]
    async with connected(emulator, KIRO_MCP_MODEL="claude-sonnet-4.5") as client:
        listed = (await client.call_tool("list_models", {})).structured_content
        assert listed["default_model"] == "claude-sonnet-4.5"
        assert "KIRO_MCP_MODEL: 'claude-sonnet-4.5'" in listed["warnings"][0]
        refused = await client.call_tool("ask_claude", {"prompt": "hi"})
        assert code(refused) == "model_unavailable"
        assert "KIRO_MCP_MODEL: 'claude-sonnet-4.5'" in words(refused)


async def test_the_services_own_default_model_is_used_where_nobody_names_one(
    emulator: RunningEmulator,
) -> None:
    """Observed: tests/vectors/list-available-models.json."""
    emulator.state.default_model_id = "claude-opus-5"
    async with connected(emulator) as client:
        listed = (await client.call_tool("list_models", {})).structured_content
        assert listed["default_model"] == "claude-opus-5"
        assert (await ask(client, prompt="hi"))["model"] == "claude-opus-5"
        assert (await ask(client, prompt="hi", model="auto"))["model"] == "auto"
    async with connected(emulator, KIRO_MCP_MODEL="claude-haiku-4.5") as client:
        listed = (await client.call_tool("list_models", {})).structured_content
        assert listed["default_model"] == "claude-haiku-4.5"


async def test_the_list_tells_rates_of_long_prompts_defaults_and_fallbacks(
    emulator: RunningEmulator,
) -> None:
    """What a call costs, and what to ask if a model refuses, in one look."""
    async with connected(emulator) as client:
        result = await client.call_tool("list_models", {})
    listed = {model["id"]: model for model in result.structured_content["models"]}
    assert listed["claude-haiku-5.5"]["higher_rate"] == {
        "above_tokens": 100_000,
        "rate_multiplier": 0.3,
    }
    assert listed["gpt-5.6-sol"]["higher_rate"]["rate_multiplier"] == 8.8
    assert "higher_rate" not in listed["claude-opus-5"]
    assert listed["claude-opus-4.7"]["default_effort"] == "xhigh"
    assert listed["claude-opus-5"]["refusal_fallbacks"] == ["claude-opus-4.8"]


async def test_reasoning_goes_back_only_to_the_model_that_gave_it(
    emulator: RunningEmulator,
) -> None:
    """Claude's signatures are checked, and another model's would cost a refused request."""
    reasoning: list[bool] = []
    async with connected(emulator) as client:
        first = await ask(client, prompt="/emulate reasoning", model="claude-opus-5")
        for model in ("claude-opus-5", "gpt-5.6-sol"):
            answer = await ask(
                client, prompt="go on", model=model, conversation_id=first["conversation_id"]
            )
            history = sent(emulator)["conversationState"]["history"]
            reasoning.append("reasoningContent" in history[1]["assistantResponseMessage"])
    assert reasoning == [True, False]
    assert "foreign_reasoning" in [repair["rule"] for repair in answer["repairs"]]
