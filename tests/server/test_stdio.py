"""The server as a process on stdio: every revision, and a prompt end."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import fail_after
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from kiro_mcp._version import __version__
from kiro_mcp.client.schema_checks import CHECK_SECONDS
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator, Send, frames
from tests.support.mcp import SLOW_TO_CHECK, assert_describes_the_server
from tests.support.stdio import COMMAND, PROMPTLY_SECONDS, StdioServer, environment, started

START_SECONDS = 20
"""How long a process may take to start on a busy machine; it takes under one second."""


def against(emulator: RunningEmulator, **variables: str) -> dict[str, str]:
    return environment(
        KIRO_MCP_ENDPOINT_URL=emulator.url, KIRO_API_KEY=EMULATOR_API_KEY, **variables
    )


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_each_legacy_revision_is_negotiated_and_answers_calls(
    version: str, emulator: RunningEmulator
) -> None:
    """The MCP specification's lifecycle: the server answers in the client's revision."""
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            hello = (await server.initialize(version))["result"]
            assert hello["protocolVersion"] == version
            assert hello["serverInfo"]["name"] == "kiro-mcp"
            assert hello["serverInfo"]["version"] == __version__
            assert hello["instructions"]
            listed = (await server.request("tools/list"))["result"]["tools"]
            assert [tool["name"] for tool in listed] == ["ask_claude", "list_models", "login"]
            answer = await server.call("ask_claude", prompt="Say hello")
            assert not answer.get("isError")
            assert answer["content"][0]["text"]


async def test_an_unknown_revision_is_answered_with_the_newest_legacy_one() -> None:
    """The MCP specification's lifecycle."""
    with fail_after(START_SECONDS):
        async with started() as server:
            hello = await server.initialize("1999-01-01")
            assert hello["result"]["protocolVersion"] == "2025-11-25"


async def test_the_stateless_revision_is_served_without_a_handshake(
    emulator: RunningEmulator,
) -> None:
    """MCP 2026-07-28."""
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            assert_describes_the_server((await server.request_modern("server/discover"))["result"])
            listed = (await server.request_modern("tools/list"))["result"]
            assert [tool["name"] for tool in listed["tools"]] == [
                "ask_claude",
                "list_models",
                "login",
            ]
            assert (listed["ttlMs"], listed["cacheScope"]) == (3_600_000, "public")
            called = await server.request_modern(
                "tools/call", name="ask_claude", arguments={"prompt": "Say hello"}
            )
            assert called["result"]["structuredContent"]["text"]


@pytest.mark.parametrize("first", ["legacy", "modern"])
async def test_the_first_request_decides_the_era_and_the_other_one_is_refused(first: str) -> None:
    """The SDK serves one client in one era per process. The process stays usable."""
    with fail_after(START_SECONDS):
        async with started() as server:
            if first == "legacy":
                await server.initialize()
                refused = await server.request_modern("tools/list")
                listed = await server.request("tools/list")
            else:
                await server.request_modern("server/discover")
                refused = await server.initialize()
                listed = await server.request_modern("tools/list")
    assert refused["error"]["code"] == {"legacy": -32600, "modern": -32022}[first]
    assert len(listed["result"]["tools"]) == 3


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdks_own_client_lists_and_calls_the_tools(
    mode: str, emulator: RunningEmulator
) -> None:
    """Most Python clients are built on it."""
    parameters = StdioServerParameters(
        command=COMMAND[0], args=list(COMMAND[1:]), env=against(emulator)
    )
    with fail_after(START_SECONDS):
        async with Client(parameters, mode=mode) as client:
            listed = await client.list_tools()
            assert len(listed.tools) == 3
            answer = await client.call_tool("ask_claude", {"prompt": "Say hello"})
            assert "Say hello" in answer.structured_content["text"]
            assert not (await client.call_tool("list_models", {})).is_error
            assert not (await client.call_tool("login", {})).is_error


@pytest.mark.parametrize("prompt", ["", "/emulate stall"], ids=["idle", "answering"])
async def test_end_of_input_ends_the_server_and_what_it_is_doing(
    prompt: str, emulator: RunningEmulator
) -> None:
    """This is how clients stop a server."""
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            await server.initialize()
            if prompt:
                await ask_without_waiting(server, prompt)
                await emulator.state.until(lambda state: state.open_streams == 1)
            await server.stdin.aclose()
            assert await ended(server) == 0
            await emulator.state.until(lambda state: state.open_streams == 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_server(number: signal.Signals, code: int) -> None:
    """The shell's convention: 128 and the number of the signal."""
    with fail_after(START_SECONDS):
        async with started() as server:
            await server.initialize()
            server.process.send_signal(number)
            assert await ended(server) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_in_the_middle_of_an_answer_closes_the_connection_to_the_service(
    number: signal.Signals, emulator: RunningEmulator
) -> None:
    """Cleanup always runs, so nothing continues to cost credits."""
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            await server.initialize()
            await ask_without_waiting(server, "/emulate stall")
            await emulator.state.until(lambda state: state.open_streams == 1)
            server.process.send_signal(number)
            await ended(server)
            await emulator.state.until(lambda state: state.open_streams == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for a process's children")
@pytest.mark.parametrize("ending", ["SIGTERM", "end of input", "cancellation"])
async def test_the_process_that_checks_an_answer_ends_with_whoever_waits_for_it(
    ending: str, emulator: RunningEmulator
) -> None:
    emulator.state.enqueue((Send(frames.text('{"sum": 4}') + frames.ending("END_TURN")),))
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            await server.initialize()
            arguments = {"prompt": "2 + 2", "output_schema": SLOW_TO_CHECK}
            call = {"name": "ask_claude", "arguments": arguments}
            request_id = await server.post("tools/call", call)
            while not (children := await anyio.to_thread.run_sync(_children, server.process.pid)):
                pass
            checking = os.pidfd_open(children[0])
            try:
                if ending == "SIGTERM":
                    server.process.send_signal(signal.SIGTERM)
                elif ending == "end of input":
                    assert server.process.stdin
                    await server.process.stdin.aclose()
                else:
                    await server.cancel(request_id)
                with fail_after(CHECK_SECONDS - 1):  # Then it would end by itself.
                    await anyio.wait_readable(checking)  # It is readable when the process ends.
            finally:
                os.close(checking)


def _children(pid: int) -> list[int]:
    """The processes that a process has started, by any of its threads."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


async def test_a_client_that_stops_reading_ends_the_server() -> None:
    """The SDK's own runner would never end, because its input is still open."""
    with fail_after(START_SECONDS):
        async with started() as server:
            await server.initialize()
            await server.stdout.aclose()
            assert await ended(server) == 0


async def test_cancelling_a_call_closes_its_connection_to_the_service_alone(
    emulator: RunningEmulator,
) -> None:
    """The MCP specification: a cancelled request is not answered. It must cost nothing more."""
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            await server.initialize()
            cancelled = await ask_without_waiting(server, "/emulate stall")
            await emulator.state.until(lambda state: state.open_streams == 1)
            others = {await ask_without_waiting(server, "/emulate slow 0.5") for _ in range(3)}
            await emulator.state.until(lambda state: state.open_streams == 4)
            await server.cancel(cancelled)
            with fail_after(PROMPTLY_SECONDS):
                await emulator.state.until(lambda state: state.disconnects == 1)
            answers = [await server.receive() for _ in others]
            assert {answer["id"] for answer in answers} == others
            assert all(not answer["result"].get("isError") for answer in answers)
            assert (await server.call("login"))["structuredContent"]["state"] == "signed_in"


async def test_cancelling_finished_or_unknown_calls_and_half_characters_harm_nothing(
    emulator: RunningEmulator,
) -> None:
    """A cancellation may come too late. JavaScript cuts text between the halves of an emoji."""
    with fail_after(START_SECONDS):
        async with started(against(emulator)) as server:
            await server.initialize()
            over = await ask_without_waiting(server, "Say hello")
            assert (await server.receive())["id"] == over
            for request_id in (over, 999, "never", None, [1]):
                await server.cancel(request_id)
            result = await server.call("ask_claude", prompt="Half \ud83d, whole 😀")
    assert "Half \ufffd, whole 😀" in result["structuredContent"]["text"]


async def test_nothing_but_json_rpc_reaches_stdout() -> None:
    """A stray line breaks the client, and one that is never flushed is drained at exit."""
    stray = (
        "import os, sys, atexit; sys.argv = ['kiro-mcp'];"
        "atexit.register(print, 'at exit');"
        "from kiro_mcp.server import tools, login;"
        "act = login._act;"
        "login._act = lambda *given: (print('never flushed'), print('flushed', flush=True),"
        " os.system('echo from a child'), os.write(1, b'raw'), act(*given))[-1];"
        "from kiro_mcp.__main__ import main; main()"
    )
    with fail_after(START_SECONDS):
        async with started(environment(HOME=""), (sys.executable, "-c", stray)) as server:
            await server.initialize()
            status = await server.call("login", action="status")
            assert status["structuredContent"]["state"] == "signed_out"
            await server.stdin.aclose()
            assert await server.rest_of_stdout() == b""
            assert "never flushed" in server.stderr


@pytest.mark.parametrize(
    "nonsense", [b"\xff\xfe\n", b"x" * 8_388_608 + b"\n"], ids=["no-utf-8", "8-MiB"]
)
async def test_a_line_that_is_not_a_message_does_not_end_the_session(nonsense: bytes) -> None:
    with fail_after(START_SECONDS):
        async with started() as server:
            await server.initialize()
            await server.send_bytes(b"\n" + nonsense)
            assert (await server.receive())["error"]["code"] == -32700
            assert (await server.request("ping"))["result"] == {}


async def test_long_lines_are_answered_as_short_ones_are() -> None:
    """They are read in another way, which takes a fifth of the time."""
    long = "x" * 100_000
    ping: dict[str, Any] = {"jsonrpc": "2.0", "method": "ping", "params": {"_meta": {"x": long}}}
    async with started() as server:
        await server.initialize()
        with fail_after(PROMPTLY_SECONDS):
            await server.send({**ping, "id": "long"})
            assert (await server.receive())["id"] == "long"
            for refused in ({**ping, "id": None}, {"id": 1, "x": long}, [long], long):
                await server.send_bytes(json.dumps(refused).encode() + b"\n")
                assert (await server.receive())["error"]["code"] == -32600
            await server.send_bytes(f'{{"x": "{long}\n'.encode())
            assert (await server.receive())["error"]["code"] == -32700
            assert (await server.request("ping"))["result"] == {}


async def test_before_the_first_call_nothing_is_sent_and_nothing_written(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A server that is only configured must cost nothing and touch nothing."""
    with fail_after(START_SECONDS):
        async with started(against(emulator, HOME=str(tmp_path), TMPDIR=str(tmp_path))) as server:
            await server.initialize()
            await server.request("tools/list")
            await server.stdin.aclose()
            await ended(server)
    assert not emulator.state.requests
    assert list(tmp_path.iterdir()) == []


async def test_a_setting_that_cannot_be_used_is_an_error_of_each_call() -> None:
    """A server that does not start says nothing to the person in the chat."""
    with fail_after(START_SECONDS):
        async with started(environment(KIRO_MCP_CONNECT_TIMEOUT="soon")) as server:
            await server.initialize()
            answer = await server.call("ask_claude", prompt="hi")
            assert answer["isError"]
            assert "KIRO_MCP_CONNECT_TIMEOUT" in answer["content"][0]["text"]


async def test_a_session_leaves_no_warning_behind(emulator: RunningEmulator) -> None:
    """No warning about deprecated parts of the SDK or about open files."""
    command = (sys.executable, "-W", "error", *COMMAND[1:])
    with fail_after(START_SECONDS):
        async with started(against(emulator), command) as server:
            await server.initialize()
            assert not (await server.call("ask_claude", prompt="Say hello")).get("isError")
            for tool in ("list_models", "login"):
                assert not (await server.call(tool)).get("isError")
            await server.request("resources/read", {"uri": "kiro://conversations"})
            await server.stdin.aclose()
            assert await server.process.wait() == 0
            assert server.stderr == ""


async def ask_without_waiting(server: StdioServer, prompt: str) -> int:
    """Send a call and return its id."""
    call = {"name": "ask_claude", "arguments": {"prompt": prompt}}
    return await server.post("tools/call", call)


async def ended(server: StdioServer) -> int:
    """Wait until the process has ended, at most for the time that it may take."""
    with anyio.fail_after(PROMPTLY_SECONDS):
        return await server.process.wait()


async def test_buffered_spans_are_exported_at_the_end(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The SDK of OpenTelemetry does so in an exit handler, which this end does not run."""
    spans = tmp_path / "spans"
    command = (sys.executable, "-m", "tests.support.traced", str(spans))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with fail_after(START_SECONDS):
        async with started(against(emulator), command) as server:
            await server.initialize()
            call = {"name": "ask_claude", "arguments": {"prompt": "Say hello"}}
            meta = {"traceparent": f"00-{trace}-{parent}-01"}
            answer = await server.request("tools/call", {**call, "_meta": meta})
            assert not answer["result"].get("isError")
            assert not spans.read_text("utf-8")
            await server.stdin.aclose()
            assert await server.process.wait() == 0
    told = [json.loads(line) for line in spans.read_text("utf-8").splitlines()]
    by_name = {span["name"]: span for span in told}
    asked, chat = by_name["tools/call ask_claude"], by_name["chat auto"]
    assert asked["parent_id"] == f"0x{parent}"
    assert chat["parent_id"] == asked["context"]["span_id"]
    assert chat["context"]["trace_id"] == f"0x{trace}"


async def test_a_collector_that_never_answers_does_not_delay_the_end(
    emulator: RunningEmulator,
) -> None:
    """A client that quits does not wait for telemetry."""
    command = (sys.executable, "-m", "tests.support.traced", "-")
    with fail_after(START_SECONDS):
        async with started(against(emulator), command) as server:
            await server.initialize()
            assert not (await server.call("ask_claude", prompt="Say hello")).get("isError")
            await server.stdin.aclose()
            assert await server.process.wait() == 0
