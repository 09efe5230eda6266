"""The APIs of OpenAI and Anthropic on the engine kiro-cli, on the stand-in of the program."""

import json
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after

from kiro_mcp.emulator import RunningEmulator
from tests.support.api import CHAT, MESSAGES, PATHS, Json, serving_api, stream, streamed_text
from tests.support.kiro_cli import stand_in

TEST_SECONDS = 40
SCHEMA: Json = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}


def on_kiro_cli(dialect: str, home: Path) -> dict[str, Any]:
    """The settings of the engine."""
    return {
        "HOME": str(home),
        "KIRO_MCP_ENGINE": "kiro-cli",
        "KIRO_MCP_KIRO_CLI": stand_in(dialect=dialect),
    }


@pytest.mark.parametrize("dialect", ["v2", "v3"])
async def test_each_api_streams_what_the_program_says(
    dialect: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, **on_kiro_cli(dialect, tmp_path)) as client:
            texts = [streamed_text(path, await stream(client, path, "Hi")) for path in PATHS]
    assert ["You said: Hi" in text for text in texts] == [True] * len(PATHS), texts
    assert not emulator.state.requests


@pytest.mark.parametrize("dialect", ["v2", "v3"])
async def test_a_tool_call_and_its_result_go_through_chat_completions(
    dialect: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    function = {"name": "get_time", "description": "The time.", "parameters": SCHEMA}
    body: Json = {
        "model": "claude-sonnet-4.5",
        "messages": [{"role": "user", "content": "/emulate tool_use"}],
        "tools": [{"type": "function", "function": function}],
    }
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, **on_kiro_cli(dialect, tmp_path)) as client:
            first = (await client.post(CHAT, json=body)).json()["choices"][0]
            (call,) = first["message"]["tool_calls"]
            result = {"role": "tool", "tool_call_id": call["id"], "content": "Noon."}
            body["messages"] += [first["message"], result]
            second = (await client.post(CHAT, json=body)).json()["choices"][0]
    assert (first["finish_reason"], call["function"]["name"]) == ("tool_calls", "get_time")
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert second["finish_reason"] == "stop"
    assert "Noon." in second["message"]["content"]


@pytest.mark.parametrize("dialect", ["v2", "v3"])
async def test_a_tool_call_and_its_result_go_through_messages(
    dialect: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    body: Json = {
        "model": "claude-sonnet-4.5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "/emulate tool_use"}],
        "tools": [{"name": "get_time", "description": "The time.", "input_schema": SCHEMA}],
    }
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, **on_kiro_cli(dialect, tmp_path)) as client:
            first = (await client.post(MESSAGES, json=body)).json()
            (call,) = [block for block in first["content"] if block["type"] == "tool_use"]
            result = {"type": "tool_result", "tool_use_id": call["id"], "content": "Noon."}
            body["messages"] += [
                {"role": "assistant", "content": first["content"]},
                {"role": "user", "content": [result]},
            ]
            second = (await client.post(MESSAGES, json=body)).json()
    assert (first["stop_reason"], call["name"]) == ("tool_use", "get_time")
    assert second["stop_reason"] == "end_turn"
    assert "Noon." in second["content"][-1]["text"]
