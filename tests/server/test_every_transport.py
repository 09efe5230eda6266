"""The rules for every transport and era, checked with raw messages."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
from anyio import fail_after

from kiro_mcp.emulator import (
    EmulatorState,
    Pause,
    RunningEmulator,
    Script,
    Send,
    Until,
    frames,
    running,
)
from kiro_mcp.emulator.request import Call
from tests.support.mcp import assert_valid, extras
from tests.support.peers import Era, Peer, Transport, peer

TEST_SECONDS = 40
"""How long a test may take on a busy machine; most take about one second."""

AT_ONCE = 64
MAX_CONCURRENCY = 4
HARD_WORDS = 'grüß 🙂 \u2028 \u2029 \u0085 \r\n \x7f \\ " 你好 </data> data: {} end'
TOOL = {
    "name": "read",
    "description": "Read a file.",
    "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}},
}
KINDS = (
    "text",
    "thinking",
    "reasoning",
    "split_tags",
    "tool_use",
    "parallel_tools",
    "truncated_tool",
    "reset",
    "bad_crc",
    "exception",
    "slow 0.1",
    "long 3000",
)
"""The scripts of the emulator that give something to return."""

EVERYWHERE = pytest.mark.parametrize(
    ("transport", "era"),
    [(transport, era) for transport in ("stdio", "http") for era in ("legacy", "modern")],
)


class WatchfulState(EmulatorState):
    """An emulator that echoes a prompt's last word, and knows how many it ever answered at once.

    Its first answers wait for one another: on a busy machine they would end one by one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most_streams = 0

    def stream_opened(self) -> None:
        super().stream_opened()
        self.most_streams = max(self.most_streams, self.open_streams)

    def script_for(self, call: Call) -> Script:
        last_word = call.current.content.split()[-1]
        say = Send(frames.text(last_word) + frames.ending("END_TURN"))
        return (Until(MAX_CONCURRENCY), Pause(0.01), say)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run the module in one event loop, so that its tests can share servers."""
    return "asyncio"


@pytest.fixture(scope="module", params=["stdio", "http"])
def transport(request: pytest.FixtureRequest) -> Transport:
    return request.param


@pytest.fixture(scope="module", params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


@pytest.fixture(scope="module")
async def shared(transport: Transport, era: Era) -> AsyncGenerator[tuple[Peer, RunningEmulator]]:
    """Start one server, and its emulator, for all tests: a process takes seconds to start."""
    async with running() as emulator, peer(transport, era, emulator) as server:
        yield server, emulator


@pytest.fixture
async def server(shared: tuple[Peer, RunningEmulator]) -> AsyncGenerator[Peer]:
    with fail_after(TEST_SECONDS):
        yield shared[0]


async def test_the_list_of_tools_is_the_same_each_time(server: Peer) -> None:
    """A client caches the list, and a model's prompt cache depends on it."""
    first, second = [(await server.ask("tools/list"))["result"] for _ in range(2)]
    assert [tool["name"] for tool in first["tools"]] == ["ask_claude", "list_models", "login"]
    assert json.dumps(first) == json.dumps(second)


async def test_each_kind_of_answer_is_valid_and_complete_in_both_halves(server: Peer) -> None:
    """Observed: clients show their model one half, the other, both, or only the first block."""
    for kind in KINDS:
        result = await server.call("ask_claude", prompt=f"/emulate {kind}", tools=[TOOL])
        structured = result["structuredContent"]
        assert_valid("ask_claude", structured)
        facts = extras([block["text"] for block in result["content"]], structured["text"])
        assert facts.get("tool_calls", []) == structured["tool_calls"], kind
        assert facts.get("truncated", False) is structured["truncated"], kind
        assert facts.get("warnings") == structured.get("warnings"), kind
        assert facts["conversation_id"] == structured["conversation_id"]
        assert structured["text"] or structured["tool_calls"]


async def test_the_other_tools_results_are_valid_too(server: Peer) -> None:
    for tool in ("list_models", "login"):
        result = await server.call(tool)
        assert_valid(tool, result["structuredContent"])
        (block,) = result["content"]
        assert all(name in block["text"] for name in result["structuredContent"])


async def test_what_is_wrong_with_a_request_is_reported_and_the_next_one_is_answered(
    server: Peer,
) -> None:
    """JSON-RPC: -32601 for a method, -32602 for parameters; a tool's arguments are its own."""
    faults = [
        await server.ask("tools/call", name="ask_gpt", arguments={}),
        await server.ask("tools/call", name="login", arguments="none"),
        await server.ask("tools/explode"),
    ]
    assert [fault["error"]["code"] for fault in faults] == [-32602, -32602, -32601]
    assert "ask_claude" in faults[0]["error"]["message"]
    refused = await server.call("ask_claude", prompt={"text": "a" * 80 + "secret document"})
    assert refused["isError"]
    assert "prompt must be text" in refused["content"][0]["text"]
    assert "secret" not in json.dumps(refused)
    assert (await server.call("login"))["structuredContent"]["state"] == "signed_in"


async def test_an_id_with_half_a_character_is_refused_and_harms_nothing(server: Peer) -> None:
    """JSON can hold half of a surrogate pair; neither a database nor UTF-8 can."""
    first = (await server.call("ask_claude", prompt="One?"))["structuredContent"]
    half = first["conversation_id"] + "\ud83d"
    for arguments in ({"prompt": "x", "conversation_id": half}, {"answer_id": half}):
        answer = await server.ask("tools/call", name="ask_claude", arguments=arguments)
        if "error" in answer:  # The SDK itself refuses it, over HTTP from a client of before 2026.
            assert answer["error"]["code"] == -32700
            continue
        refused = answer["result"]
        assert refused["isError"]
        assert refused["_meta"]["kiro-mcp/error"]["code"] == "invalid_request"
        assert next(reversed(arguments)) in refused["content"][0]["text"]
    name = first["conversation_id"]
    second = await server.call("ask_claude", prompt="Two?", conversation_id=name)
    assert second["structuredContent"]["turn"] == 2


async def test_progress_is_sent_to_those_who_ask_and_to_nobody_else(server: Peer) -> None:
    """The MCP specification: the value increases, and nothing comes after the result."""
    call: dict[str, Any] = {"name": "ask_claude", "arguments": {"prompt": "/emulate slow 0.6"}}
    came = await server.exchange("tools/call", **call, _meta={"progressToken": "mine"})
    notes = [message["params"] for message in came[:-1]]
    assert {note["progressToken"] for note in notes} == {"mine"}
    values = [note["progress"] for note in notes]
    assert values == sorted(set(values))
    assert notes[0]["message"].startswith("0 characters")
    assert 2 <= len(notes) <= 8
    assert len(await server.exchange("tools/call", **call)) == 1
    assert len(await server.exchange("tools/list")) == 1


async def test_text_of_every_script_arrives_unchanged_in_both_directions(
    server: Peer, shared: tuple[Peer, RunningEmulator]
) -> None:
    """JSON-RPC over lines and in events: what breaks a line must not break a message."""
    _, emulator = shared
    emulator.state.enqueue((Send(frames.text(HARD_WORDS) + frames.ending("END_TURN")),))
    result = await server.call("ask_claude", prompt=HARD_WORDS)
    assert result["structuredContent"]["text"] == HARD_WORDS
    assert result["content"][0]["text"].startswith(f"{HARD_WORDS}\n\n{{")
    body = cast("dict[str, Any]", emulator.state.requests[-1].body)
    assert body["conversationState"]["currentMessage"]["userInputMessage"]["content"] == HARD_WORDS


async def test_a_huge_answer_comes_whole(
    server: Peer, shared: tuple[Peer, RunningEmulator]
) -> None:
    """An answer that was paid for is never cut here; clients have limits of their own."""
    _, emulator = shared
    small, emulator.state.chunk_bytes = emulator.state.chunk_bytes, 1024 * 1024
    result = await server.call("ask_claude", prompt="/emulate long 300000")
    emulator.state.chunk_bytes = small
    text = result["structuredContent"]["text"]
    assert len(text) == 300_000
    assert result["content"][0]["text"].startswith(f"{text}\n\n{{")
    assert not result["structuredContent"]["truncated"]


@EVERYWHERE
async def test_many_calls_at_once_get_their_own_answers_within_the_limit_of_requests(
    transport: Transport, era: Era
) -> None:
    """One cancelled answer, or sixty-four, must not disturb another."""
    state = WatchfulState()
    calls = [
        ("tools/call", {"name": "ask_claude", "arguments": {"prompt": f"Say word-{number}"}})
        for number in range(AT_ONCE)
    ]
    limit = str(MAX_CONCURRENCY)
    with fail_after(TEST_SECONDS):
        async with (
            running(state) as emulator,
            peer(transport, era, emulator, KIRO_MCP_MAX_CONCURRENCY=limit) as server,
        ):
            came = await server.exchange_all(calls)
    texts = [messages[-1]["result"]["structuredContent"]["text"] for messages in came]
    assert texts == [f"word-{number}" for number in range(AT_ONCE)]
    assert state.most_streams == MAX_CONCURRENCY


PAGES: dict[str, Any] = {"elicitation": {"url": {}}}
FORGED = ("", "forged", "v1.", "v1." + "A" * 80, 5, {"state": "signed_in"})


def signed_out(home: Path) -> dict[str, str]:
    return {"KIRO_API_KEY": "", "KIRO_MCP_HOME": str(home), "KIRO_MCP_HTTP_LOGIN": "true"}


async def test_a_request_state_that_the_server_did_not_issue_is_refused(server: Peer) -> None:
    """MCP 2026-07-28: a server must not trust what a client sends back."""
    requests: list[tuple[str, dict[str, Any]]] = [
        ("tools/call", {"name": "login", "arguments": {}}),
        ("tools/call", {"name": "ask_claude", "arguments": {"prompt": "x"}}),
        ("prompts/get", {"name": "second-opinion"}),
        ("resources/read", {"uri": "kiro://conversations"}),
    ]
    for method, params in requests:
        for forged in FORGED:
            answer = await server.ask(method, **params, requestState=forged)
            assert answer["error"]["code"] == -32602, (method, forged)
        assert "result" in await server.ask(method, **params)


@EVERYWHERE
@pytest.mark.parametrize("elicitation", [{}, {"form": {}}], ids=["bare", "form"])
async def test_a_client_that_cannot_show_pages_is_given_the_link_as_text(
    transport: Transport,
    era: Era,
    elicitation: dict[str, Any],
    emulator: RunningEmulator,
    tmp_path: Path,
) -> None:
    """MCP: nothing may be asked of a client that it did not declare."""
    emulator.state.accounts.pending_polls = 10_000
    can = {"elicitation": elicitation}
    with fail_after(TEST_SECONDS):
        async with peer(transport, era, emulator, can, **signed_out(tmp_path)) as server:
            [answer] = await server.exchange("tools/call", name="login", arguments={})
    shown = answer["result"]
    assert shown["structuredContent"]["state"] == "pending"
    link = shown["structuredContent"]["verification_url"]
    assert all(link in json.dumps(half) for half in (shown["content"], shown["structuredContent"]))


@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_a_newer_client_that_shows_pages_is_asked_by_the_result(
    transport: Transport, action: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """MCP 2026-07-28: the result is the question, and the same call again brings the reply."""
    emulator.state.accounts.pending_polls = 0
    call: dict[str, Any] = {"name": "login", "arguments": {"action": "start"}}
    with fail_after(TEST_SECONDS):
        async with peer(transport, "modern", emulator, PAGES, **signed_out(tmp_path)) as server:
            asked = (await server.ask("tools/call", **call))["result"]
            [(name, question)] = asked["inputRequests"].items()
            reply = {"inputResponses": {name: {"action": action}}}
            told = (await server.ask("tools/call", **call, **reply))["result"]
    assert asked["resultType"] == "input_required"
    assert "requestState" not in asked
    assert question["method"] == "elicitation/create"
    assert question["params"]["mode"] == "url"
    assert question["params"]["url"].startswith("https://")
    assert told["resultType"] == "complete"
    state = {"accept": "signed_in", "decline": "signed_out"}[action]
    assert told["structuredContent"]["state"] == state


async def test_a_page_is_pushed_to_an_older_client_that_shows_pages(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """MCP 2025-11-25: the server asks while the call waits, and says when the page is done."""
    emulator.state.accounts.pending_polls = 0
    with fail_after(TEST_SECONDS):
        async with peer("stdio", "legacy", emulator, PAGES, **signed_out(tmp_path)) as server:
            stdio: Any = server
            called = await stdio.server.post("tools/call", {"name": "login", "arguments": {}})
            asked = await stdio.server.receive()
            await stdio.server.send(
                {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
            )
            done, told = await stdio.server.receive(), await stdio.server.receive()
    assert (asked["method"], asked["params"]["mode"]) == ("elicitation/create", "url")
    assert done["method"] == "notifications/elicitation/complete"
    assert done["params"]["elicitationId"] == asked["params"]["elicitationId"]
    assert told["id"] == called
    assert told["result"]["structuredContent"]["state"] == "signed_in"
