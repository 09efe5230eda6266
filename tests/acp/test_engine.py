"""The engine kiro-cli behind the tools, on the stand-in of the vendor's program."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client

from kiro_mcp.acp.client import AcpClient
from kiro_mcp.acp.session import Limits
from kiro_mcp.chat import ChatRequest, Message, TextPart, ToolResult, ToolSpec, ToolUse
from kiro_mcp.errors import ServiceUnavailable
from kiro_mcp.settings import Settings
from tests.acp.test_program import gone
from tests.support.kiro_cli import stand_in
from tests.support.mcp import ask, code, connected, words
from tests.support.stdio import environment, started

pytestmark = pytest.mark.anyio

DIALECTS = ("v2", "v3")


@asynccontextmanager
async def asking(
    dialect: str, tmp_path: Path, *scenes: str, scale: float = 1.0, **variables: str
) -> AsyncGenerator[Client]:
    """Connect to a server with this engine; at the end none of its processes may be left."""
    log = tmp_path / "log"
    environ: dict[str, Any] = {
        "KIRO_MCP_ENGINE": "kiro-cli",
        "KIRO_MCP_KIRO_CLI": stand_in(
            *scenes, dialect=dialect, options=f"--log {log} --scale {scale}"
        ),
        "KIRO_MCP_STORE": "memory",
        "HOME": str(tmp_path),
        **variables,
    }
    async with connected(**environ) as client:
        yield client
    pids = [json.loads(line).get("pid") for line in log.read_text().splitlines()]
    for pid in filter(None, pids):
        await gone(pid)


async def return_noon(client: Client, first: Mapping[str, Any]) -> dict[str, Any]:
    """Return "Noon." as the result of each tool call of an answer; return the next answer."""
    results = [{"id": call["id"], "content": "Noon."} for call in first["tool_calls"]]
    conversation = first["conversation_id"]
    return await ask(client, conversation_id=conversation, tool_results=results)


async def until_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the program has dropped a tool call, which only the log says."""
    while "dropped a tool call" not in caplog.text:  # noqa: ASYNC110
        await anyio.sleep(0.01)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_comes_from_a_pure_model(dialect: str, tmp_path: Path) -> None:
    async with asking(dialect, tmp_path) as client:
        found = await ask(client, prompt="/emulate session", system="Be brief.")
    session = json.loads(found["text"])
    assert (session["engine"], session["system"], session["tools"]) == (dialect, "Be brief.", [])
    assert session["agent"].startswith("kiro_mcp")
    assert found["usage"]["credits"] > 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_conversation_goes_on_in_the_same_session(dialect: str, tmp_path: Path) -> None:
    async with asking(dialect, tmp_path) as client:
        first = await ask(client, prompt="Hello")
        second = await ask(
            client, prompt="/emulate session", conversation_id=first["conversation_id"]
        )
    session = json.loads(second["text"])
    assert (session["turns"], session["texts"]) == (2, ["/emulate session"])
    assert not any("as text" in warning for warning in second.get("warnings", ()))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_history_of_the_caller_goes_as_text_and_says_so(
    dialect: str, tmp_path: Path
) -> None:
    messages = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]
    async with asking(dialect, tmp_path) as client:
        found = await ask(client, messages=messages, prompt="/emulate session")
    record, last = json.loads(found["text"])["texts"]
    assert "[user]\nOne\n[assistant]\nTwo\n" in record
    assert last == "/emulate session"
    assert any("as text" in warning for warning in found["warnings"])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_dry_run_shows_the_lines_that_would_go_out(dialect: str, tmp_path: Path) -> None:
    async with asking(dialect, tmp_path) as client:
        await ask(client, prompt="Hi")  # Which dialect the program speaks is known from here on.
        found = await ask(client, prompt="my secret", system="my own", dry_run=True)
    payload = found["payload"]
    assert payload["command"][:2] == ["kiro-cli", "acp"]
    assert f"--agent-engine {dialect}" in " ".join(payload["command"])
    methods = [line["method"] for line in payload["lines"]]
    assert methods == ["initialize", "session/new", "session/prompt"]
    assert payload["lines"][0]["params"]["protocolVersion"] == 1
    if dialect == "v2":  # The user's own steering, servers and powers stay out.
        settings = payload["files"]["settings/cli.json"]
        assert settings == {"chat.disableInheritingDefaultResources": True}
    else:
        opened = json.dumps(payload["lines"][1]["params"])
        assert '"includeMcpJson": false' in opened
        assert '"includePowers": false' in opened
    assert payload["lines"][-1]["params"]["prompt"] == [{"type": "text", "text": "<9 characters>"}]
    assert not {"my secret", "my own"} & set(json.dumps(payload).split('"'))


@pytest.mark.parametrize(("dialect", "gets_key"), [("v2", True), ("v3", False)])
async def test_the_users_key_goes_only_to_a_program_that_is_known_to_use_it(
    dialect: str, gets_key: bool, tmp_path: Path
) -> None:
    async with asking(dialect, tmp_path, KIRO_API_KEY="ksk_invented") as client:
        await ask(client, prompt="Hi")
    starts = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (environ,) = [one["environ"] for one in starts if "--agent-engine" in one.get("args", ())]
    assert ("KIRO_API_KEY" in environ) == gets_key


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_tool_call_is_held_until_its_result_comes(dialect: str, tmp_path: Path) -> None:
    tools: list[dict[str, Any]] = [
        {
            "name": "get time",
            "description": "Tell the time.",
            "inputSchema": {
                "type": "object",
                "properties": {"zone": {"type": "string"}},
                "required": ["zone"],
            },
        }
    ]
    async with asking(dialect, tmp_path) as client:
        first = await ask(client, prompt="/emulate tool_use", tools=tools)
        assert first["stop_reason"] == "tool_use"
        (call,) = first["tool_calls"]
        assert (call["name"], call["state"]) == ("get time", "complete")
        second = await return_noon(client, first)
    assert second["stop_reason"] == "end_turn"
    assert "Noon." in second["text"]
    assert not second.get("warnings")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_call_that_the_program_drops_and_makes_again_gets_its_result(
    dialect: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools = [{"name": "get_time", "description": "The time.", "inputSchema": {"type": "object"}}]
    async with asking(dialect, tmp_path, "retry_call", scale=240) as client:
        first = await ask(client, prompt="/emulate tool_use", tools=tools)
        with anyio.fail_after(20):
            await until_dropped(caplog)
            second = await return_noon(client, first)
    assert len(first["tool_calls"]) == 1
    assert "Noon." in second["text"]
    assert not second.get("warnings")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_program_that_dropped_a_call_may_say_much_before_it_takes_the_results(
    dialect: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two calls is made again, so that its result goes to the prompt that is open."""
    scenes = ("retry_call", "long_after_tools")
    tools = [{"name": "get_time", "description": "The time.", "inputSchema": {"type": "object"}}]
    async with asking(dialect, tmp_path, *scenes, scale=240) as client:
        first = await ask(client, prompt="/emulate parallel_tools 60000", tools=tools)
        with anyio.fail_after(20):
            await until_dropped(caplog)
            second = await return_noon(client, first)
    assert len(first["tool_calls"]) == 2
    assert "Noon." in second["text"]
    assert not second.get("warnings")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("not_logged_in", "auth_required"),
        ("expired", "auth_expired"),
        ("expired_prompt", "auth_expired"),
        ("rate_limited", "rate_limited"),
        ("usage_limit", "quota_exhausted"),
        ("network_error", "network_error"),
        ("exit_0", "upstream_error"),
        ("foreign_tool", "upstream_error"),
        ("permission", "upstream_error"),
        ("refusal_empty", "empty_response"),
        ("invalid_history", "upstream_error"),
    ],
)
async def test_a_failure_of_the_program_has_its_own_code(
    dialect: str, scene: str, expected: str, tmp_path: Path
) -> None:
    async with asking(dialect, tmp_path, scene) as client:
        result = await client.call_tool("ask_claude", {"prompt": "Hi"})
    assert code(result) == expected, words(result)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_nothing_is_sent_for_a_minute_after_too_many_requests(
    dialect: str, tmp_path: Path
) -> None:
    async with asking(dialect, tmp_path, "rate_limited") as client:
        await client.call_tool("ask_claude", {"prompt": "Hi"})
        result = await client.call_tool("ask_claude", {"prompt": "Hi"})
    assert code(result) == "rate_limited"
    assert "Wait for " in words(result)
    assert (tmp_path / "log").read_text().count('"session/prompt"') == 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "scene",
    [
        "bad_lines",
        "full_stderr",
        "id_collision",
        "late_model",
        "late_usage",
        "orphan",
        "unknown_stop",
        "watchdog",
    ],
)
async def test_an_answer_survives_odd_behaviour_of_the_program(
    dialect: str, scene: str, tmp_path: Path
) -> None:
    async with asking(dialect, tmp_path, scene) as client:
        found = await ask(client, prompt="Hi")
    assert found["text"].endswith("You said: Hi")
    assert found["usage"]["credits"] > 0


@pytest.mark.parametrize(
    ("dialect", "scene"),
    [
        ("v2", "agent_not_found"),
        ("v2", "agent_switched"),
        ("v2", "user_servers"),
        ("v3", "user_servers"),
        ("v3", "foreign_tool"),
    ],
)
async def test_a_program_that_is_not_a_pure_model_gives_no_whole_answer(
    dialect: str, scene: str, tmp_path: Path
) -> None:
    """What came before it showed is kept, and marked."""
    async with asking(dialect, tmp_path, scene) as client:
        result = await client.call_tool("ask_claude", {"prompt": "Hi"})
    assert "pure model" in words(result)
    assert result.is_error or (result.structured_content or {})["truncated"]


@pytest.mark.parametrize("scene", ["cancel_ignored", "hang_prompt"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_cancelled_call_leaves_no_process_even_if_the_program_does_not_stop(
    dialect: str, scene: str, tmp_path: Path
) -> None:
    """`asking` waits for the processes to be gone."""
    async with asking(dialect, tmp_path, scene) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "ask_claude", {"prompt": "Hi"})
        log = tmp_path / "log"
        while '"prompt"' not in (log.read_text() if log.exists() else ""):  # noqa: ASYNC110  # a file
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_program_that_crashes_leaves_the_part_that_came(
    dialect: str, tmp_path: Path
) -> None:
    async with asking(dialect, tmp_path, "crash") as client:
        found = await ask(client, prompt="Hi")
    assert found["truncated"] is True
    assert found["text"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_compacted_conversation_gives_a_warning(dialect: str, tmp_path: Path) -> None:
    async with asking(dialect, tmp_path, "compaction") as client:
        found = await ask(client, prompt="Hi")
    assert any("summarised" in warning for warning in found["warnings"])


async def test_text_after_which_v2_stays_silent_ends_the_answer(tmp_path: Path) -> None:
    async with asking("v2", tmp_path, "tools_interrupted") as client:
        result = await client.call_tool("ask_claude", {"prompt": "Hi"})
    assert code(result) == "stream_broken", words(result)


async def test_a_program_without_the_command_is_too_old(tmp_path: Path) -> None:
    async with asking("v2", tmp_path, "old") as client:
        result = await client.call_tool("ask_claude", {"prompt": "Hi"})
    assert "too old" in words(result)


@pytest.mark.parametrize("scene", ["hang_initialize", "hang_session"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_starting_a_program_that_hangs_fails_in_time(
    dialect: str, scene: str, tmp_path: Path
) -> None:
    async with program(dialect, tmp_path, scene, limits=Limits(start_up=0.5)) as client:
        with pytest.raises(ServiceUnavailable, match=r"within 0\.5 seconds"):
            await client.ask(question("Hi"))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_results_that_come_late_are_a_new_prompt(dialect: str, tmp_path: Path) -> None:
    """A held call is told that its result follows, before the program would drop it."""
    tool = ToolSpec(name="get_time", description="The time.", input_schema={"type": "object"})
    async with program(dialect, tmp_path, limits=Limits(hold=0.2)) as client:
        first = await client.ask(question("/emulate tool_use", tool))
        (call,) = [part for part in first.parts if isinstance(part, ToolUse)]
        (session,) = client.sessions
        while session.state != "deferred":  # noqa: ASYNC110  # nothing tells of it
            await anyio.sleep(0.01)
        result = Message(role="user", parts=(ToolResult(id=call.id, text="Noon."),))
        messages = (
            *question("/emulate tool_use").messages,
            Message(role="assistant", parts=first.parts),
            result,
        )
        second = await client.ask(replace(question("", tool), messages=messages))
        assert client.sessions == [session]
    assert first.stop_reason == "tool_use"
    assert "Noon." in second.text


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_third_conversation_ends_the_process_that_waited_longest(
    dialect: str, tmp_path: Path
) -> None:
    """Its results still count: the conversation goes to another process as text."""
    tool = ToolSpec(name="get_time", description="The time.", input_schema={"type": "object"})
    asked = question("/emulate tool_use", tool)
    async with program(dialect, tmp_path, limits=Limits()) as client:
        first = await client.ask(asked)
        await client.ask(asked)
        (oldest, _) = client.sessions
        await client.ask(asked)
        assert len(client.sessions) == 2
        assert oldest.is_ended
        (call,) = [part for part in first.parts if isinstance(part, ToolUse)]
        result = Message(role="user", parts=(ToolResult(id=call.id, text="Noon."),))
        said = Message(role="assistant", parts=first.parts)
        async with client.stream(
            replace(asked, messages=(*asked.messages, said, result))
        ) as answer:
            async for _ in answer:
                pass
        assert len(client.sessions) <= 2
    assert "Noon." in answer.reply.text
    assert any("no longer open" in warning for warning in answer.payload.warnings)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_third_conversation_begins_in_a_process_that_is_there(
    dialect: str, tmp_path: Path
) -> None:
    async with program(dialect, tmp_path, limits=Limits()) as client:
        await client.ask(question("One"))
        await client.ask(question("Two"))
        sessions = list(client.sessions)
        third = await client.ask(question("/emulate session"))
        assert client.sessions == sessions
    assert json.loads(third.text)["turns"] == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_unused_process_ends(dialect: str, tmp_path: Path) -> None:
    async with program(dialect, tmp_path, limits=Limits(idle=0.2)) as client:
        await client.ask(question("Hi"))
        (session,) = client.sessions
        await session.wait_ended()
    assert not session.why_ended


@pytest.mark.parametrize("limits", [Limits(turns=1), Limits(age=0.0)], ids=["turns", "age"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_process_that_was_used_enough_gets_no_further_turn(
    dialect: str, limits: Limits, tmp_path: Path
) -> None:
    async with program(dialect, tmp_path, limits=limits) as client:
        first = await client.ask(question("Hi"))
        (session,) = client.sessions
        said = Message(role="assistant", parts=first.parts)
        again = question("/emulate session").messages
        request = replace(question(""), messages=(*question("Hi").messages, said, *again))
        second = await client.ask(request)
        assert client.sessions != [session]
    assert json.loads(second.text)["turns"] == 1


def question(text: str, *tools: ToolSpec) -> ChatRequest:
    message = Message(role="user", parts=(TextPart(text=text),))
    return ChatRequest(messages=(message,), model="claude-sonnet-4.5", tools=tools)


@asynccontextmanager
async def program(
    dialect: str, home: Path, *scenes: str, limits: Limits
) -> AsyncGenerator[AcpClient]:
    """The engine itself, with limits of its own."""
    environ = {"HOME": str(home), "KIRO_MCP_KIRO_CLI": stand_in(*scenes, dialect=dialect)}
    client = AcpClient(Settings.load(environ), environ, limits=limits)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            client.run_in(tasks)
            try:
                await client.check_login()
                yield client
            finally:
                await client.aclose()
                tasks.cancel_scope.cancel()


async def test_the_next_call_removes_what_a_killed_server_has_left(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "tmp"
    folder.mkdir()
    environ = environment(
        KIRO_MCP_ENGINE="kiro-cli",
        KIRO_MCP_KIRO_CLI=stand_in(options=f"--log {log}"),
        KIRO_MCP_STORE="memory",
        HOME=str(tmp_path),
        TMPDIR=str(folder),
    )
    with anyio.fail_after(40):
        async with started(environ) as server:
            await server.initialize()
            await server.call("ask_claude", prompt="Hi", system="a secret of the caller")
            server.process.kill()
            await server.process.wait()
        for line in log.read_text().splitlines():
            if pid := json.loads(line).get("pid"):
                await gone(pid)
        left = {path.name for path in folder.iterdir()}
        assert left
        async with started(environ) as server:
            await server.initialize()
            await server.call("ask_claude", prompt="Hi")
            assert not left & {path.name for path in folder.iterdir()}
