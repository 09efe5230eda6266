"""Nested calls: an agent that Claude has called may ask Claude again."""

from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.server.app import DEPTH_META_KEY, MAX_DEPTH
from tests.support.http import against
from tests.support.mcp import code, connected
from tests.support.stdio import COMMAND, environment, started

START_SECONDS = 30


@pytest.mark.parametrize(
    ("server_depth", "said", "is_refused"),
    [
        ("", 2, False),
        ("", 3, True),
        ("", "deep", False),
        ("2", 1, False),
        ("1", 3, True),
        ("3", 0, True),
        ("7", 0, True),
    ],
)
async def test_nested_calls_end_at_the_limit_of_depth(
    server_depth: str, said: Any, is_refused: bool, emulator: RunningEmulator
) -> None:
    """Both the server and the call may say how deep they are; the deeper one counts."""
    meta: Any = {DEPTH_META_KEY: said}
    async with connected(emulator, KIRO_MCP_DEPTH=server_depth) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x"}, meta=meta)
    assert result.is_error is is_refused
    assert len(emulator.state.requests) == (0 if is_refused else 1)


async def test_a_server_nested_too_deep_to_ask_still_says_who_is_signed_in(
    emulator: RunningEmulator,
) -> None:
    """Only asking can go on for ever."""
    async with connected(emulator, KIRO_MCP_DEPTH="3") as client:
        for tool in ("login", "list_models"):
            assert not (await client.call_tool(tool, {})).is_error


@pytest.mark.parametrize("depth", ["-1", "deep"])
async def test_an_invalid_depth_is_refused_with_the_name_of_its_setting(depth: str) -> None:
    """Reading it as 0 would remove the guard."""
    async with connected(KIRO_MCP_DEPTH=depth) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x"})
    assert code(result) == "invalid_request"
    assert "KIRO_MCP_DEPTH" in str(result.content)


async def test_agents_that_start_servers_for_each_other_come_to_an_end(
    emulator: RunningEmulator,
) -> None:
    """With real processes: the deepest one that may ask, and the one below it."""
    answers = list[dict[str, Any]]()
    for depth in (MAX_DEPTH - 1, MAX_DEPTH):
        environ = environment(**against(emulator, KIRO_MCP_DEPTH=str(depth)))
        with fail_after(START_SECONDS):
            async with started(environ) as server:
                await server.initialize()
                answers.append(await server.call("ask_claude", prompt="Ask the next one."))
    assert [answer.get("isError", False) for answer in answers] == [False, True]
    assert f"nested {MAX_DEPTH} deep" in answers[-1]["content"][0]["text"]
    assert len(emulator.state.requests) == 1


async def test_the_command_line_has_the_same_limit_of_depth(emulator: RunningEmulator) -> None:
    """An agent may call it as a program."""
    environ = environment(**against(emulator, KIRO_MCP_DEPTH=str(MAX_DEPTH)))
    with fail_after(START_SECONDS):
        done = await anyio.run_process([*COMMAND, "ask", "hi"], env=environ, check=False)
    assert done.returncode == 2
    assert b"nested 3 deep" in done.stderr
    assert not emulator.state.requests
