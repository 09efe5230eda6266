"""Tools with property names that the service does not accept."""

import json
from typing import Any

from kiro_mcp.emulator import RunningEmulator, Send, frames
from tests.support.mcp import ask, connected, sent

LONG = "a property that " + "goes on and " * 6
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "$filter": {"type": "string", "maxLength": -1, "pattern": "["},
        "plain": {"type": "number", "multipleOf": 0},
        "items[]": {
            "type": "array",
            "items": {"$ref": "#/$defs/company"},
        },
        LONG: {"anyOf": [{"$ref": "#/$defs/company"}, {"type": "string"}]},
    },
    "required": ["$filter", "plain"],
    "additionalProperties": False,
    "$defs": {
        "company": {
            "type": "object",
            "properties": {"会社ID": {"type": "integer"}, "会社名": {"type": "string"}},
            "required": ["会社ID"],
            "additionalProperties": False,
        }
    },
}
TOOL = {"name": "find", "description": "Find.", "inputSchema": SCHEMA}
ARGUMENTS = {
    "$filter": "x",
    "plain": 1,
    "items[]": [{"会社ID": 1, "会社名": "ä"}, {"会社ID": 2}],
    LONG: {"会社ID": 3},
}


def sent_schema(emulator: RunningEmulator) -> dict[str, Any]:
    message = sent(emulator)["conversationState"]["currentMessage"]["userInputMessage"]
    (tool,) = message["userInputMessageContext"]["tools"]
    return tool["toolSpecification"]["inputSchema"]["json"]


def sent_name(schema: dict[str, Any], name: str) -> str:
    """Return what stands in the place of a property that is `name` in the caller's schema."""
    index = list(SCHEMA["properties"]).index(name)
    return list(schema["properties"])[index]


async def test_properties_are_renamed_for_the_service_and_named_back_in_calls(
    emulator: RunningEmulator,
) -> None:
    """The service refuses a whole request for one such name; the emulator does, too."""
    history = [
        {"role": "user", "content": "Find it."},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t0", "name": "find", "input": ARGUMENTS}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t0", "content": "Nothing."}],
        },
    ]
    async with connected(emulator) as client:
        first = await ask(client, messages=history, tools=[TOOL])
        schema = sent_schema(emulator)
        used = sent(emulator)["conversationState"]["history"][1]["assistantResponseMessage"]
        as_sent = used["toolUses"][0]["input"]
        assert as_sent.keys() == schema["properties"].keys()
        company = schema["properties"][sent_name(schema, "items[]")]["items"]
        assert as_sent[sent_name(schema, "items[]")][1].keys() == {company["required"][0]}
        assert schema["required"] == [sent_name(schema, "$filter"), "plain"]

        call = frames.tool_use("t1", "find", json.dumps(as_sent)) + frames.ending("TOOL_USE")
        emulator.state.enqueue((Send(call),))
        answer = await ask(client, messages=history, tools=[TOOL])
        (made,) = answer["tool_calls"]
        assert made["arguments"] == ARGUMENTS
        await ask(
            client,
            conversation_id=answer["conversation_id"],
            tool_results=[{"id": "t1", "content": "Found."}],
        )
        history_sent = sent(emulator)["conversationState"]["history"]
        again = history_sent[-1]["assistantResponseMessage"]["toolUses"][0]["input"]
        assert again == as_sent
    repairs = {repair["rule"]: repair["detail"] for repair in first["repairs"]}
    assert "'$filter' as" in repairs["property_name"]
    for left_out in ("maxLength -1", "multipleOf 0", 'pattern "["'):
        assert left_out in repairs["schema_keyword"]


async def test_a_dry_run_says_what_is_renamed(emulator: RunningEmulator) -> None:
    """A dry run shows the names that are sent."""
    async with connected(emulator) as client:
        result = await ask(client, prompt="x", tools=[TOOL], dry_run=True)
    assert not result.get("findings")
    assert "property_name" in [repair["rule"] for repair in result["repairs"]]
