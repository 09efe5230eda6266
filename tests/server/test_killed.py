"""After a server process is killed, the next one has only what is on disk."""

import json
from pathlib import Path

import pytest
from anyio import fail_after

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.server.results import ANSWER_META_KEY
from tests.support.http import against
from tests.support.mcp import sent
from tests.support.stdio import StdioServer, environment, started

TEST_SECONDS = 40


@pytest.mark.parametrize("during", ["idle", "answering"])
async def test_what_was_returned_outlives_a_server_that_is_killed(
    during: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A turn and its answer are on disk before the line that says so is written."""
    environ = environment(**against(emulator, KIRO_MCP_HOME=str(tmp_path)))
    with fail_after(TEST_SECONDS):
        async with started(environ) as server:
            await server.initialize()
            result = await server.call("ask_claude", prompt="One?")
            first, answer_id = result["structuredContent"], result["_meta"][ANSWER_META_KEY]
            name = first["conversation_id"]
            if during == "answering":
                await left_unanswered(server, emulator, name)
            server.process.kill()
            await server.process.wait()
        async with started(environ) as server:
            await server.initialize()
            uri = f"kiro://answers/{answer_id}"
            read = (await server.request("resources/read", {"uri": uri}))["result"]
            again = await server.call("ask_claude", answer_id=answer_id)
            second = await server.call("ask_claude", prompt="Two?", conversation_id=name)
    assert json.loads(read["contents"][0]["text"])["structuredContent"] == first
    assert again["structuredContent"] == first
    assert second["structuredContent"]["conversation_id"] == name
    assert second["structuredContent"]["turn"] == 2
    history = sent(emulator)["conversationState"]["history"]
    assert history[0]["userInputMessage"]["content"] == "One?"
    assert history[1]["assistantResponseMessage"]["content"] == first["text"]
    assert len(history) == 2


async def left_unanswered(server: StdioServer, emulator: RunningEmulator, name: str) -> None:
    """Begin another turn, which never ends."""
    arguments = {"prompt": "/emulate stall", "conversation_id": name}
    await server.post("tools/call", {"name": "ask_claude", "arguments": arguments})
    await emulator.state.until(lambda state: state.open_streams == 1)
