"""A call that repeats an earlier one after a client gave up is not asked and paid again."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import mcp_types as types
import pytest
from anyio import fail_after
from hypothesis import given
from hypothesis import strategies as st
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from kiro_mcp.chat import Message, TextPart
from kiro_mcp.emulator import EMULATOR_API_KEY, Pause, RunningEmulator, Send, frames
from kiro_mcp.emulator.state import GENERATE
from kiro_mcp.server.app import build_server
from kiro_mcp.server.arguments import AskArguments, read_arguments
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.jobs import (
    JOIN_AFTER_SECONDS,
    Job,
    Jobs,
    question_id,
    says_timed_out,
    settings_text,
)
from kiro_mcp.server.store import ConversationStore, Position, Turn
from kiro_mcp.settings import Settings
from tests.support.http import WebServer, against, answer, serving_http
from tests.support.mcp import ask, connected
from tests.support.stdio import COMMAND, StdioServer, environment, started

TEST_SECONDS = 30

AT_ONCE = 0.0
"""How much later a repeated call begins in tests that have no three seconds."""

TYPESCRIPT_TIMEOUT = "McpError: MCP error -32001: Request timed out"


def told(seconds: float, text: str = "It ended.") -> tuple[Any, ...]:
    """Return an answer that takes some time."""
    return (
        Send(frames.text("Once. ")),
        Pause(seconds),
        Send(frames.text(text)),
        Send(frames.ending("END_TURN")),
    )


def asked(emulator: RunningEmulator) -> int:
    """Return how many answers the service was asked for."""
    return len(emulator.state.requests_to(GENERATE))


@asynccontextmanager
async def joining_at_once(
    emulator: RunningEmulator, *, mode: str = "2026-07-28"
) -> AsyncGenerator[Client]:
    """Connect a client to a server whose calls join an earlier one at once."""
    settings = Settings.load(against(emulator, KIRO_MCP_MAX_RETRIES="0"))
    server = build_server(lambda: Engine(settings, join_after_seconds=AT_ONCE))
    with fail_after(TEST_SECONDS):
        async with Client(server, mode=mode) as client:
            yield client


def warns(structured: dict[str, Any], words: str) -> bool:
    return any(words in warning for warning in structured.get("warnings", []))


async def kept(client: Client, count: int = 1) -> None:
    """Wait until the store has so many conversations."""
    while True:
        result = await client.read_resource("kiro://conversations")
        text = result.contents[0]
        assert isinstance(text, types.TextResourceContents)
        if len(json.loads(text.text)) >= count:
            return


# --- a call that is still running ---------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_repeat_of_a_call_that_timed_out_in_the_sdk_joins_it(
    mode: str, emulator: RunningEmulator
) -> None:
    """The Python SDK cancels at its read timeout, and says so."""
    emulator.state.enqueue(told(1.0))
    async with joining_at_once(emulator, mode=mode) as client:
        with pytest.raises(MCPError, match=r"(?i)timed out"):
            await client.call_tool("ask_claude", {"prompt": "Tell."}, read_timeout_seconds=0.3)
        second = await ask(client, prompt="Tell.")
    assert second["text"] == "Once. It ended."
    assert asked(emulator) == 1  # On a slow machine the first call may end before it asks.


async def test_the_repeat_over_stdio_joins_a_call_that_timed_out_in_the_sdk(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The same with the real process and its three seconds."""
    emulator.state.enqueue(told(5))
    environ = environment(**against(emulator, KIRO_MCP_HOME=str(tmp_path)))
    command = StdioServerParameters(command=COMMAND[0], args=list(COMMAND[1:]), env=environ)
    with fail_after(TEST_SECONDS):
        async with Client(command) as client:
            # The first call loads the server, which takes a part of the client's patience.
            limit = JOIN_AFTER_SECONDS + 0.2
            with pytest.raises(MCPError, match=r"(?i)timed out"):
                await client.call_tool(
                    "ask_claude", {"prompt": "Tell."}, read_timeout_seconds=limit
                )
            second = await ask(client, prompt="Tell.", wait_seconds=20)
    assert second["text"] == "Once. It ended."
    assert asked(emulator) == 1  # On a slow machine the first call may end before it asks.


async def test_the_repeat_over_http_joins_a_call_that_timed_out_in_the_sdk(
    emulator: RunningEmulator,
) -> None:
    """A session of Streamable HTTP, whose client says why it cancels."""
    emulator.state.enqueue(told(1.5))
    with fail_after(TEST_SECONDS):
        async with (
            serving_http(against(emulator), join_after_seconds=AT_ONCE) as server,
            Client(server.url, mode="legacy") as client,
        ):
            with pytest.raises(MCPError, match=r"(?i)timed out"):
                await client.call_tool("ask_claude", {"prompt": "Tell."}, read_timeout_seconds=0.5)
            second = await ask(client, prompt="Tell.")
    assert warns(second, "still running")
    assert asked(emulator) == 1


async def post_call(server: WebServer, **arguments: Any) -> httpx.Response:
    return await server.post("tools/call", {"name": "ask_claude", "arguments": arguments})


@pytest.mark.parametrize(
    ("reason", "goes_on"),
    [(TYPESCRIPT_TIMEOUT, True), ("AbortError: This operation was aborted", False), (None, False)],
)
async def test_a_cancellation_ends_the_answer_unless_its_reason_is_a_timeout(
    reason: str | None, goes_on: bool, emulator: RunningEmulator
) -> None:
    """What the TypeScript SDK sends at its timeout, and when a person presses Esc."""
    emulator.state.enqueue(told(1.0 if goes_on else 60))
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), join_after_seconds=AT_ONCE) as server:
            await server.initialize()
            request = server.request(
                "tools/call", {"name": "ask_claude", "arguments": {"prompt": "Tell."}}
            )
            cancelled = {"requestId": json.loads(request.content)["id"], "reason": reason}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.client.send, request)
                await emulator.state.until(lambda state: state.open_streams == 1)
                await server.notify("notifications/cancelled", cancelled)
            if goes_on:
                second = await server.call("ask_claude", prompt="Tell.")
                assert warns(second["structuredContent"], "still running")
            else:
                await emulator.state.until(lambda state: state.open_streams == 0)
    assert asked(emulator) == 1


async def test_a_cancellation_that_may_be_a_timeout_leaves_time_to_repeat_the_call(
    emulator: RunningEmulator,
) -> None:
    """Codex gives one reason for both. Its model repeats the call after a moment."""
    emulator.state.enqueue(told(2.0))
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), join_after_seconds=AT_ONCE) as server:
            await server.initialize()
            request = server.request(
                "tools/call", {"name": "ask_claude", "arguments": {"prompt": "Tell."}}
            )
            request_id = json.loads(request.content)["id"]
            cancelled = {"requestId": request_id, "reason": "MCP request cancelled by caller"}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.client.send, request)
                await emulator.state.until(lambda state: state.open_streams == 1)
                await server.notify("notifications/cancelled", cancelled)
            await server.call("ask_claude", prompt="/emulate slow 0.5")  # A model's next thought.
            second = await server.call("ask_claude", prompt="Tell.")
    assert warns(second["structuredContent"], "still running")
    assert asked(emulator) == 2


async def test_calls_made_side_by_side_are_asked_each(emulator: RunningEmulator) -> None:
    """A caller that asks the same twice at once wants two answers."""
    emulator.state.enqueue(told(0.3, "A."))
    emulator.state.enqueue(told(0.3, "B."))
    texts: set[str] = set()

    async def call(client: Client) -> None:
        result = await ask(client, prompt="Tell.")
        assert not warns(result, "earlier call")
        texts.add(result["text"])

    async with connected(emulator) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(call, client)
        tasks.start_soon(call, client)
    assert texts == {"Once. A.", "Once. B."}


async def test_the_repeat_of_a_call_that_was_given_up_in_silence_joins_it(
    emulator: RunningEmulator,
) -> None:
    """Older Python clients do not cancel, so the first call's answer is still written."""
    emulator.state.enqueue(told(0.5))
    second: dict[str, Any] = {}
    async with joining_at_once(emulator) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "ask_claude", {"prompt": "Tell."})
            await emulator.state.until(lambda state: state.open_streams == 1)
            second = await ask(client, prompt="Tell.")
        third = await ask(client, prompt="Tell.")
    assert warns(second, "still running")
    assert not warns(third, "earlier call"), "an answer that was delivered counts once"
    assert asked(emulator) == 2


async def test_cancelling_the_repeat_ends_the_answer(emulator: RunningEmulator) -> None:
    """A person who presses Esc sees only the repeated call."""
    emulator.state.enqueue(told(60))
    async with joining_at_once(emulator) as client:
        with pytest.raises(MCPError):
            await client.call_tool("ask_claude", {"prompt": "Tell."}, read_timeout_seconds=0.3)
        joined = anyio.Event()

        async def note(progress: float, total: float | None, message: str | None) -> None:
            joined.set()

        async def repeat() -> None:
            await client.call_tool("ask_claude", {"prompt": "Tell."}, progress_callback=note)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(repeat)
            await joined.wait()
            await emulator.state.until(lambda state: state.open_streams == 1)
            tasks.cancel_scope.cancel()
        await emulator.state.until(lambda state: state.open_streams == 0)
    assert asked(emulator) == 1


# --- an answer that nobody has got --------------------------------------------------------


async def left_running(client: Client, **arguments: Any) -> dict[str, Any]:
    early = await ask(client, wait_seconds=0.05, **arguments)
    assert early["status"] == "running"
    return early


async def test_an_answer_that_was_never_collected_goes_to_one_repeat(
    emulator: RunningEmulator,
) -> None:
    """The second repeat is a new question."""
    emulator.state.enqueue(told(0.3))
    async with connected(emulator) as client:
        early = await left_running(client, prompt="Tell.")
        await kept(client)
        second = await ask(client, prompt="Tell.", wait_seconds=7)
        assert asked(emulator) == 1
        third = await ask(client, prompt="Tell.")
    assert second["conversation_id"] == early["conversation_id"]
    assert second["text"] == "Once. It ended."
    assert warns(second, "reached nobody")
    assert not warns(third, "earlier call")
    assert asked(emulator) == 2


async def test_an_answer_that_was_collected_is_asked_again(emulator: RunningEmulator) -> None:
    """Its caller has the answer, and repeats the question on purpose."""
    for collect_late in (False, True):
        emulator.state.enqueue(told(0.3))
        async with connected(emulator) as client:
            early = await left_running(client, prompt="Tell.")
            if collect_late:
                await kept(client)
            await ask(client, answer_id=early["answer_id"])
            again = await ask(client, prompt="Tell.")
        assert not warns(again, "earlier call")
    assert asked(emulator) == 4


async def test_a_call_that_failed_is_asked_again(emulator: RunningEmulator) -> None:
    """Nothing was paid, and the fault may be over."""
    emulator.state.enqueue((Pause(0.3), Send(frames.exception("busy", "x"))))
    async with connected(emulator) as client:
        early = await left_running(client, prompt="Tell.")
        failed = False
        while not failed:
            result = await client.call_tool(
                "ask_claude", {"answer_id": early["answer_id"], "wait_seconds": 0.05}
            )
            failed = bool(result.is_error)
        again = await ask(client, prompt="Tell.")
    assert not warns(again, "earlier call")
    assert asked(emulator) == 2


async def test_the_repeat_in_a_conversation_gets_the_same_turn(emulator: RunningEmulator) -> None:
    """The conversation has continued, but only by this turn."""
    emulator.state.enqueue(told(0, "First."))
    emulator.state.enqueue(told(0.3, "Second."))
    async with connected(emulator) as client:
        name = (await ask(client, prompt="Begin."))["conversation_id"]
        early = await left_running(client, prompt="Go on.", conversation_id=name)
        while True:
            result = await client.read_resource(f"kiro://conversations/{name}")
            if "Second." in result.model_dump_json():
                break
        second = await ask(client, prompt="Go on.", conversation_id=name)
    assert early["conversation_id"] == second["conversation_id"] == name
    assert second["turn"] == 2
    assert warns(second, "reached nobody")
    assert asked(emulator) == 2


async def test_a_repeat_with_a_file_that_has_changed_is_a_new_question(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The old answer is about the old text."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    emulator.state.enqueue(told(0.3))
    async with connected(emulator, KIRO_MCP_ROOTS=str(tmp_path)) as client:
        await left_running(client, prompt="Read.", files=[str(file)])
        await kept(client)
        file.write_text("a new text")
        again = await ask(client, prompt="Read.", files=[str(file)])
    assert not warns(again, "earlier call")
    assert asked(emulator) == 2


async def test_an_answer_whose_connection_was_lost_goes_to_the_repeat(
    emulator: RunningEmulator,
) -> None:
    """In a session over HTTP, a lost connection does not cancel a call."""
    emulator.state.enqueue(told(0.5))
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            await server.initialize()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: post_call(server, prompt="Tell."))
                await emulator.state.until(lambda state: state.open_streams == 1)
                tasks.cancel_scope.cancel()
            found = 0
            while not found:
                read = await server.post("resources/read", {"uri": "kiro://conversations"})
                text = answer(read)["result"]["contents"][0]["text"]
                found = len(json.loads(text))
            second = await server.call("ask_claude", prompt="Tell.")
    assert second["structuredContent"]["text"] == "Once. It ended."
    assert warns(second["structuredContent"], "reached nobody")
    assert asked(emulator) == 1


async def test_an_answer_goes_to_no_other_credential(emulator: RunningEmulator) -> None:
    """Ann's answer goes only to Ann, even if Bob asks the same."""
    ann, bob = "ksk_ann00000000000000000000000000000", "ksk_bob00000000000000000000000000000"
    for key in (ann, bob):
        emulator.state.accounts.add_api_key(key)
    emulator.state.enqueue(told(0.3))

    async def call(server: WebServer, key: str, **arguments: Any) -> dict[str, Any]:
        headers = {"X-Kiro-Api-Key": key}
        response = await server.post_modern(
            "tools/call", headers, name="ask_claude", arguments=arguments
        )
        return answer(response)["result"]["structuredContent"]

    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), join_after_seconds=AT_ONCE) as server:
            await call(server, ann, prompt="Tell.", wait_seconds=0.05)
            while emulator.state.open_streams:
                await anyio.lowlevel.checkpoint()
            others = await call(server, bob, prompt="Tell.")
            own = await call(server, ann, prompt="Tell.")
    assert not warns(others, "earlier call")
    assert warns(own, "earlier call")
    assert asked(emulator) == 2


async def kept_over_stdio(server: StdioServer) -> None:
    found = 0
    while not found:
        read = await server.request("resources/read", {"uri": "kiro://conversations"})
        found = len(json.loads(read["result"]["contents"][0]["text"]))


async def test_an_undelivered_answer_outlives_a_server_that_is_killed(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Some clients start their server again when a call has timed out."""
    emulator.state.enqueue(told(0.5))
    environ = environment(**against(emulator, KIRO_MCP_HOME=str(tmp_path)))
    with fail_after(TEST_SECONDS):
        async with started(environ) as server:
            await server.initialize()
            sent = await server.post(
                "tools/call", {"name": "ask_claude", "arguments": {"prompt": "A secret word?"}}
            )
            await emulator.state.until(lambda state: state.open_streams == 1)
            cancelled = {"requestId": sent, "reason": TYPESCRIPT_TIMEOUT}
            await server.send(
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}
            )
            await kept_over_stdio(server)
            server.process.kill()
            await server.process.wait()
        async with started(environ) as server:
            await server.initialize()
            second = await server.call("ask_claude", prompt="A secret word?", wait_seconds=9)
    assert second["structuredContent"]["text"] == "Once. It ended."
    assert warns(second["structuredContent"], "reached nobody")
    assert asked(emulator) == 1


# --- the setting --------------------------------------------------------------------------


async def test_a_setting_says_how_long_a_call_waits(emulator: RunningEmulator) -> None:
    """The argument comes before it."""
    emulator.state.enqueue(told(0.4))
    async with connected(emulator, KIRO_MCP_WAIT_SECONDS="0.05") as client:
        early = await ask(client, prompt="Tell.")
        late = await ask(client, answer_id=early["answer_id"], wait_seconds=0)
    assert early["status"] == "running"
    assert late["status"] == "completed"


# --- the rule -----------------------------------------------------------------------------


async def _never(_: Job) -> types.CallToolResult:
    await anyio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize(
    ("question", "seconds_later", "joins"),
    [
        ("q", 3, True),
        ("q", 60, True),
        ("q", 2.9, False),
        ("q", 0, False),
        ("q", -3, True),
        ("another", 60, False),
        ("", 60, False),
    ],
)
async def test_a_call_joins_a_running_one_with_the_same_question_that_began_long_before(
    question: str, seconds_later: float, joins: bool
) -> None:
    """Of two calls, the later one may be the first to be compared."""
    running = Job(id="1", conversation_id="", model="auto", question="q", began_at=100)
    asks_nothing = Job(id="2", conversation_id="", model="auto")
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(tasks)
        jobs.start(running, _never)
        jobs.start(asks_nothing, _never)
        found = jobs.to_join(question, began_at=100 + seconds_later)
        assert (found is running) == joins
        assert found in (running, None)
        running.cancel()
        assert jobs.to_join("q", began_at=200) is None
        tasks.cancel_scope.cancel()


async def test_a_call_that_its_client_has_given_up_is_joined_at_once() -> None:
    given_up = Job(id="1", conversation_id="", model="auto", question="q", began_at=100)
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(tasks)
        jobs.start(given_up, _never)
        assert jobs.to_join("q", began_at=101) is None
        given_up.is_detached = True
        assert jobs.to_join("q", began_at=101) is given_up
        tasks.cancel_scope.cancel()


async def test_an_undelivered_answer_is_found_by_question_owner_and_age_and_once() -> None:
    """Each of several repeats gets an answer of its own."""
    now = 1000.0
    store = ConversationStore(
        None, lifetime_seconds=1e6, now=lambda: now, new_id=lambda: "new conversation"
    )
    turn = Turn(
        model="auto",
        system="",
        tools=(),
        messages=(Message(role="user", parts=(TextPart(text="?"),)),),
        answer=Message(role="assistant", parts=(TextPart(text="!"),)),
    )

    async def keep(answer_id: str, question: str) -> None:
        await store.append(
            Position(conversation_id=answer_id, turn=1),
            turn,
            owner="ann",
            answer_id=answer_id,
            undelivered=question,
            result=answer_id,
        )

    async def take(question: str, owner: str = "ann") -> str:
        taken = await store.take_undelivered(question, owner=owner, within_seconds=600)
        return taken[1].decode() if taken else ""

    with fail_after(TEST_SECONDS):
        await keep("first", "q")
        now += 1
        await keep("second", "q")
        await keep("delivered", "")
        assert not await take("q", owner="bob")
        assert not await take("another")
        assert not await take("")
        assert [await take("q"), await take("q"), await take("q")] == ["first", "second", ""]
        await store.mark_undelivered("second", "q", owner="bob")
        assert not await take("q")
        await store.mark_undelivered("second", "q", owner="ann")
        now += 601
        assert not await take("q")
        now -= 2
        assert await take("q") == "second"
        await store.aclose()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
QUESTIONS = st.fixed_dictionaries(
    {"prompt": st.text()},
    optional={
        "system": st.text(),
        "model": st.sampled_from(["", "auto", "sonnet"]),
        "conversation_id": st.sampled_from(["", "a", "b"]),
        "from_turn": st.integers(0, 2),
        "messages": st.lists(st.dictionaries(st.text(), JSON, max_size=2), max_size=2),
        "max_tokens": st.integers(0, 2),
        "output_schema": st.dictionaries(st.text(), JSON, max_size=2),
    },
)


def turned(value: Any) -> Any:
    """Return an equal value whose objects have their members in another order."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: turned(members[name]) for name in reversed(members)}
    if isinstance(value, list):
        return [turned(item) for item in cast("list[Any]", value)]
    return value


def identify(arguments: dict[str, Any], secret: bytes = b"secret", **environ: str) -> str:
    read = read_arguments(AskArguments, "ask_claude", arguments)
    return anyio.run(question_id, read, settings_text(Settings.load(environ)), secret)


@given(one=QUESTIONS, other=QUESTIONS, seconds=st.integers(0, 100))
def test_questions_are_the_same_if_their_arguments_are(
    one: dict[str, Any], other: dict[str, Any], seconds: int
) -> None:
    """The wait and the order of members do not make it another question."""
    first, second = (read_arguments(AskArguments, "ask_claude", given) for given in (one, other))
    assert (identify(one) == identify(other)) == (
        first.model_dump_json() == second.model_dump_json() or first == second
    )
    assert identify(one) == identify({**turned(one), "wait_seconds": seconds})
    assert identify(one) != identify(one, b"another secret")
    assert identify(one) != identify(one, KIRO_API_KEY=EMULATOR_API_KEY)
    assert identify(one) != identify(one, KIRO_MCP_MODEL="sonnet")
    assert identify(one) != identify(one, KIRO_CREDS_FILE="/not-utf-8/\udcf6"), "a valid path"
    assert not identify({**one, "dry_run": True})
    assert not identify({"answer_id": "a"})


@pytest.mark.parametrize(
    ("reason", "is_timeout"),
    [
        (TYPESCRIPT_TIMEOUT, True),
        ("McpError: MCP error -32001: Maximum total timeout exceeded", True),
        ("Error: MCP error -2: Request timed out", True),
        ("TimeoutError: The operation was aborted due to timeout", True),
        ("timed out after 5.0s", True),
        ("request timeout", True),
        ("maximum total timeout exceeded", True),
        ("context deadline exceeded", True),
        ("context canceled", False),
        ("caller cancelled", False),
        ("AbortError: This operation was aborted", False),
        ("User requested cancellation", False),
        ("", False),
        (None, False),
        ({"timeout": 1}, False),
    ],
)
def test_a_reason_says_whether_the_client_has_timed_out(reason: object, is_timeout: bool) -> None:
    """What the SDKs of TypeScript, Python, Rust and Go write."""
    assert says_timed_out(reason) == is_timeout
