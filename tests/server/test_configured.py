"""The effect of each setting on what is sent, stored and logged."""

import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after
from anyio.abc import SocketStream

from kiro_mcp.chat import ChatRequest, Message, TextPart
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from kiro_mcp.errors import ServiceUnavailable
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings
from kiro_mcp.wire.history import TRUNCATION_NOTICE
from kiro_mcp.wire.request import WRITE_IN_CHUNKS
from tests.support.logins import Clock
from tests.support.mcp import ask, connected, sent
from tests.support.stdio import environment, started
from tests.support.wire import speaking

TEST_SECONDS = 20
"""How long a test may take on a busy machine; each takes under one second."""

TOOL: dict[str, Any] = {
    "name": "read",
    "description": "Reads a file and returns the whole of it.",
    "inputSchema": {"type": "object"},
}

Use = Callable[[Engine], Awaitable[object]]


def current(emulator: RunningEmulator) -> dict[str, Any]:
    return sent(emulator)["conversationState"]["currentMessage"]["userInputMessage"]


def tools_sent(emulator: RunningEmulator) -> list[dict[str, Any]]:
    context = current(emulator).get("userInputMessageContext", {})
    return [tool["toolSpecification"] for tool in context.get("tools", [])]


# --- what is sent -------------------------------------------------------------------------


async def test_a_long_description_goes_to_the_system_prompt(emulator: RunningEmulator) -> None:
    """The limit is a setting; what is cut off the one place is whole at the other."""
    async with connected(emulator, KIRO_MCP_TOOL_DESCRIPTION_MAX="20") as client:
        await ask(client, prompt="hi", tools=[TOOL])
    (tool,) = tools_sent(emulator)
    assert len(tool["description"].encode()) <= 20
    assert TOOL["description"] in current(emulator)["content"]


async def test_the_budget_of_thinking_goes_to_a_model_that_is_asked_by_tags(
    emulator: RunningEmulator,
) -> None:
    """At medium effort it is the setting's."""
    async with connected(emulator, KIRO_MCP_THINKING_BUDGET="5000") as client:
        await ask(client, prompt="hi", model="claude-sonnet-4.5", effort="medium")
    assert "<max_thinking_length>5000</max_thinking_length>" in current(emulator)["content"]


@pytest.mark.parametrize(("limit", "is_trimmed"), [("0", False), ("3000", True)])
async def test_the_oldest_turns_are_left_out_over_a_size(
    limit: str, is_trimmed: bool, emulator: RunningEmulator
) -> None:
    """Off unless it is set, and said."""
    turn = [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y" * 500}]
    async with connected(emulator, KIRO_MCP_MAX_PAYLOAD_BYTES=limit) as client:
        answer = await ask(client, messages=turn * 5, prompt="hi")
    rules = [repair["rule"] for repair in answer.get("repairs", ())]
    assert (rules == ["trimmed_history"]) is is_trimmed
    assert (len(json.dumps(sent(emulator))) < 4000) is is_trimmed


@pytest.mark.parametrize("recovers", [True, False])
async def test_the_next_turn_tells_of_an_answer_that_was_cut_off_unless_that_is_off(
    recovers: bool, emulator: RunningEmulator
) -> None:
    """The model cannot know that its answer did not arrive."""
    setting = {"KIRO_MCP_TRUNCATION_RECOVERY": str(recovers).lower()}
    async with connected(emulator, **setting) as client:
        first = await ask(client, prompt="/emulate reset")
        assert first["truncated"]
        await ask(client, prompt="Go on.", conversation_id=first["conversation_id"])
    content = current(emulator)["content"]
    assert (TRUNCATION_NOTICE in content) is recovers
    assert content.endswith("Go on.")


async def test_endings_of_a_models_name_change_the_request(emulator: RunningEmulator) -> None:
    """Names of other gateways: `-agentic` asks for small writes, `-chat` for no tools."""
    async with connected(emulator) as client:
        for ending, is_told, tools in (("", False, 1), ("-agentic", True, 1), ("-chat", False, 0)):
            name = f"claude-sonnet-4-5{ending}"
            answer = await ask(client, prompt="hi", model=name, tools=[TOOL])
            assert (answer["model"], answer["model_requested"]) == ("claude-sonnet-4.5", name)
            assert (WRITE_IN_CHUNKS in current(emulator)["content"]) is is_told
            assert len(tools_sent(emulator)) == tools


async def test_a_new_conversation_has_an_id_of_its_own(emulator: RunningEmulator) -> None:
    """The service takes a UUID for it."""
    ids: list[str] = []
    async with connected(emulator) as client:
        for _ in range(2):
            ids.append((await ask(client, prompt="hi"))["conversation_id"])
            assert sent(emulator)["conversationState"]["conversationId"] == ids[-1]
    assert ids[0] != ids[1]
    assert [str(uuid.UUID(one)) for one in ids] == ids


# --- what is kept and said ----------------------------------------------------------------


async def test_a_list_of_models_is_kept_for_as_long_as_is_set(emulator: RunningEmulator) -> None:
    clock = Clock()
    environ = {
        "KIRO_MCP_ENDPOINT_URL": emulator.url,
        "KIRO_API_KEY": EMULATOR_API_KEY,
        "KIRO_MCP_MODEL_CACHE_TTL": "100",
    }
    sources: list[str] = []
    with fail_after(TEST_SECONDS):
        async with Engine(Settings.load(environ), environ=environ, now=clock) as engine:
            for seconds in (0, 99, 1, 99):
                clock.advance(seconds)
                sources.append((await engine.catalogue(refresh=False)).source)
    assert sources == ["live", "cache", "live", "cache"]


async def test_a_model_is_listed_with_what_it_can_do_and_its_vendors_price() -> None:
    """Credits are by the multiplier; the price is for orientation, and named so."""
    async with connected() as client:
        result = await client.call_tool("list_models", {})
    listed = {model["id"]: model for model in result.structured_content["models"]}
    opus = listed["claude-opus-4.5"]
    assert opus["context_window"] == 200_000
    assert opus["list_price"] == {"input_per_million": 15.0, "output_per_million": 75.0}
    assert opus["rate_multiplier"]
    assert "IMAGE" in opus["input_types"]
    assert (opus["thinking"], listed["claude-haiku-4.5"]["thinking"]) == ("tags", "none")
    assert {"auto", "claude-sonnet-4.5", "claude-sonnet-4", "claude-haiku-4.5"} <= set(listed)


@pytest.mark.parametrize(("level", "is_said"), [("WARNING", True), ("ERROR", False)])
async def test_the_log_says_what_its_level_lets_through(level: str, is_said: bool) -> None:
    """On stderr, and by default what a person should know."""
    environ = environment(HOME="", KIRO_MCP_MODLE="x", KIRO_MCP_LOG_LEVEL=level)
    with fail_after(TEST_SECONDS):
        async with started(environ) as server:
            await server.initialize()
            await server.call("login", action="status")
            await server.stdin.aclose()
            await server.process.wait()
            assert ("Did you mean KIRO_MCP_MODEL?" in server.stderr) is is_said


# --- the way out --------------------------------------------------------------------------


async def _prompt(engine: Engine) -> object:
    message = Message(role="user", parts=(TextPart(text="hi"),))
    return await engine.client.ask(ChatRequest(messages=(message,)))


async def _models(engine: Engine) -> object:
    return await engine.client.list_models()


async def _sign_in(engine: Engine) -> object:
    return await engine.sign_in.start("builder_id")


async def _refresh(engine: Engine) -> object:
    token = await engine.tokens.access_token()
    return await engine.tokens.renew(token)


@pytest.mark.parametrize("variable", ["KIRO_MCP_PROXY_URL", "VPN_PROXY_URL"])
@pytest.mark.parametrize(
    ("use", "host"),
    [
        (_prompt, "runtime.us-east-1.kiro.dev"),
        (_models, "management.us-east-1.kiro.dev"),
        (_sign_in, "oidc.us-east-1.amazonaws.com"),
        (_refresh, "prod.us-east-1.auth.desktop.kiro.dev"),
    ],
    ids=["prompt", "models", "sign-in", "refresh"],
)
async def test_everything_goes_out_through_the_proxy_that_is_set(
    use: Use, host: str, variable: str, tmp_path: Path
) -> None:
    """RFC 9110, section 9.3.6: a tunnel is asked for by the host's name; here it is refused."""
    asked: list[bytes] = []

    async def proxy(client: SocketStream) -> None:
        async with client:
            asked.append(await client.receive())
            await client.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    with fail_after(TEST_SECONDS):
        async with speaking(proxy) as url:
            environ = {
                "HOME": str(tmp_path),
                "KIRO_ACCESS_TOKEN": "invented",
                "KIRO_REFRESH_TOKEN": "invented",
                "KIRO_MCP_MAX_RETRIES": "0",
                variable: url.removeprefix("http://"),
            }
            async with Engine(Settings.load(environ), environ=environ) as engine:
                with pytest.raises(ServiceUnavailable):
                    await use(engine)
    assert asked
    assert all(one.startswith(f"CONNECT {host}:443 ".encode()) for one in asked)
