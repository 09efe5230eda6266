"""The stand-in for the vendor's program, driven by a plain client that reads and writes lines."""

import io
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import anyio
import pytest
from anyio.abc import (
    ByteReceiveStream,
    ByteSendStream,
    ObjectReceiveStream,
    ObjectSendStream,
    Process,
)
from anyio.streams.buffered import BufferedByteReceiveStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kiro_mcp.emulator.acp_server import AcpServer
from kiro_mcp.emulator.kiro_cli import main, read_flags, read_options
from kiro_mcp.web_server import listen, serve

Json: TypeAlias = dict[str, Any]

PROGRAM = [sys.executable, "-m", "kiro_mcp.emulator.kiro_cli"]
V2 = ("acp", "--agent-engine", "v2")
V3 = ("acp", "--agent-engine", "v3", "--auth-method", "cli")
SECONDS = 20


class Ran(NamedTuple):
    """The result of a run."""

    returncode: int
    stdout: str
    stderr: str


def run_program(*words: str) -> Ran:
    """Run the program to its end, in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = main(words)
    return Ran(code, out.getvalue(), errors.getvalue())


class LineClient:
    """Sends requests and collects what comes meanwhile; answers requests with -32601.

    Args:
        stdin: The program's standard input.
        stdout: Its standard output.
    """

    def __init__(
        self,
        stdin: ByteSendStream | ObjectSendStream[bytes],
        stdout: ByteReceiveStream | ObjectReceiveStream[bytes],
    ) -> None:
        self.stdin = stdin
        self.is_over = anyio.Event()
        self.code = 0
        """The program's exit code, once it is over."""
        self._lines = BufferedByteReceiveStream(stdout)
        self._id = 0
        self.session = ""
        self.heard: list[Json] = []
        """Everything that was not the response to a request of this client."""
        self.permission: Json = {"outcome": "selected", "optionId": "reject_once"}

    async def send(self, message: Json) -> None:
        await self.stdin.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def receive(self) -> Json:
        """Return the next message; skip lines that are none."""
        while True:
            line = await self._lines.receive_until(b"\n", 1_000_000)
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and message:
                return cast("Json", message)

    async def start_request(self, method: str, params: Json) -> int:
        self._id += 1
        await self.send({"id": self._id, "method": method, "params": params})
        return self._id

    async def response_to(self, number: int) -> Json:
        """Answer what the program asks until it responds; return the response."""
        while True:
            message = await self.receive()
            if "method" not in message and message.get("id") == number:
                return message
            self.heard.append(message)
            if "id" in message and "method" in message:
                await self._respond(message)

    async def _respond(self, request: Json) -> None:
        answer: Json = {"error": {"code": -32601, "message": "Method not found"}}
        if request["method"] == "session/request_permission":
            answer = {"result": {"outcome": self.permission}}
        await self.send({"id": request["id"], **answer})

    async def request(self, method: str, params: Json) -> Json:
        """Return the response to a request."""
        return await self.response_to(await self.start_request(method, params))

    async def initialize(self) -> Json:
        return await self.request(
            "initialize", {"protocolVersion": 1, "clientCapabilities": {}, "clientInfo": {}}
        )

    async def new_session(self, cwd: Path, **more: object) -> Json:
        """Open a session and return the result of doing so."""
        await self.initialize()
        response = await self.request("session/new", {"cwd": str(cwd), "mcpServers": [], **more})
        self.session = response["result"]["sessionId"]
        return response["result"]

    async def start_prompt(self, text: str) -> int:
        blocks = [{"type": "text", "text": text}]
        return await self.start_request(
            "session/prompt", {"sessionId": self.session, "prompt": blocks}
        )

    async def prompt(self, text: str) -> Json:
        """Return the response to a prompt."""
        return await self.response_to(await self.start_prompt(text))

    async def until(self, find: Callable[[], list[Json]]) -> list[Json]:
        """Read on until something is found; return it."""
        while not (found := find()):
            self.heard.append(await self.receive())
        return found

    def updates(self, kind: str) -> list[Json]:
        return [
            one["params"]["update"]
            for one in self.heard
            if one.get("method") == "session/update"
            and one["params"]["update"]["sessionUpdate"] == kind
        ]

    def text(self, kind: str = "agent_message_chunk") -> str:
        return "".join(one["content"]["text"] for one in self.updates(kind))

    def notices(self, method: str) -> list[Json]:
        return [one["params"] for one in self.heard if one.get("method") == method]

    def infos(self, kind: str) -> list[Json]:
        found = [one["_meta"]["kiro"] for one in self.updates("session_info_update")]
        return [one for one in found if one["kind"] == kind]


@asynccontextmanager
async def client_of(
    words: Sequence[str], *own: str, home: Path = Path("/nowhere")
) -> AsyncGenerator[LineClient]:
    """Run `acp` in this process with its own options and these words while the block runs."""
    given, (_, *rest) = read_options([*own, *words])
    engine, flags = read_flags(given, rest)
    send_in, receive_in = anyio.create_memory_object_stream[bytes](math.inf)
    send_out, receive_out = anyio.create_memory_object_stream[bytes](math.inf)
    client = LineClient(send_in, receive_out)

    def end(code: int) -> None:
        client.code = code

    async def run() -> None:
        write = send_out.send_nowait
        await AcpServer(given, engine, flags, home=home, write=write, end=end).serve(receive_in)
        client.is_over.set()

    with anyio.fail_after(SECONDS), send_in, receive_in, send_out, receive_out:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            with redirect_stderr(io.StringIO()):
                yield client
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def process_of(words: Sequence[str], *own: str) -> AsyncGenerator[tuple[LineClient, Process]]:
    """Run the program as a process while the block runs."""
    with anyio.fail_after(SECONDS):
        async with await anyio.open_process(
            [*PROGRAM, *own, *words], stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield LineClient(process.stdin, process.stdout), process
            finally:
                if process.returncode is None:
                    process.kill()


def write_agent(home: Path, **members: object) -> None:
    """Write the agent file of v2, without tools."""
    (home / "agents").mkdir(parents=True)
    agent: Json = {
        "name": "pure",
        "prompt": "Be brief.",
        "tools": [],
        "allowedTools": [],
        **members,
    }
    (home / "agents" / "pure.json").write_text(json.dumps(agent))


@asynccontextmanager
async def pure_session(engine: str, home: Path, *own: str) -> AsyncGenerator[LineClient]:
    """Open a session with an agent that has no tools."""
    if engine == "v2":
        write_agent(home)
        async with client_of((*V2, "--agent", "pure"), *own, home=home) as client:
            await client.new_session(home)
            yield client
        return
    agent: Json = {"id": "pure", "prompt": "Be brief.", "tools": []}
    async with client_of(V3, *own) as client:
        await client.new_session(home, _meta={"kiro": {"customAgents": [agent]}})
        chosen = await client.request(
            "session/set_mode", {"sessionId": client.session, "modeId": "pure"}
        )
        assert chosen["result"] == {}
        yield client


engines = pytest.mark.parametrize("engine", ["v2", "v3"])


# --- without acp


def test_it_tells_its_version_and_who_is_signed_in() -> None:
    assert run_program("--version").stdout == "kiro-cli 2.28.0\n"
    assert run_program("--dialect", "v2", "--version").stdout == "kiro-cli 2.19.1\n"
    signed_in = run_program("whoami")
    assert (signed_in.returncode, signed_in.stdout) == (0, "Logged in with Builder ID\n")
    nobody = run_program("--scene", "not_logged_in", "whoami")
    assert (nobody.returncode, nobody.stdout) == (1, "Not logged in\n")


def test_only_the_newer_program_has_the_flag_for_the_login() -> None:
    assert "--auth-method" in run_program("acp", "--help").stdout
    assert "--auth-method" not in run_program("--dialect", "v2", "acp", "--help").stdout
    refused = run_program("--dialect", "v2", *V3)
    assert refused.returncode == 2
    assert "unexpected argument '--auth-method'" in refused.stderr


@pytest.mark.parametrize("flag", ["--agent", "--model", "--effort", "--trust-tools"])
def test_v3_refuses_the_flags_of_v2(flag: str) -> None:
    refused = run_program(*V3, flag, "low")

    assert refused.returncode == 2
    assert f"'{flag}' cannot be used" in refused.stderr


def test_an_old_program_has_no_acp_and_a_future_one_no_v2() -> None:
    assert "unrecognized subcommand 'acp'" in run_program("--scene", "old", *V2).stderr
    assert "invalid value 'v2'" in run_program("--scene", "no_v2", *V2).stderr


def test_only_a_signed_in_user_gets_the_list_of_models() -> None:
    words = ("chat", "--list-models", "--format", "json")
    listed = json.loads(run_program(*words).stdout)
    nobody = run_program("--scene", "not_logged_in", *words)

    assert listed["default_model"] == "auto"
    assert listed["models"][1]["context_window_tokens"] == 1_000_000
    assert (nobody.returncode, nobody.stdout) == (1, "")


def test_an_unknown_scene_is_refused_with_the_known_ones() -> None:
    refused = run_program("--scene", "earthquake", "whoami")

    assert refused.returncode == 2
    assert "hang_initialize" in refused.stderr


# --- text


@engines
@pytest.mark.anyio
async def test_a_prompt_is_answered_in_chunks_and_with_its_cost(
    engine: str, tmp_path: Path
) -> None:
    async with pure_session(engine, tmp_path) as client:
        response = await client.prompt("Say hello")
        again = await client.prompt("/emulate reasoning")

    assert response["result"] == again["result"] == {"stopReason": "end_turn"}
    assert client.text().startswith("This is a canned answer of the emulator. You said: Say hello")
    assert client.text("agent_thought_chunk") == "The emulator reasons before it answers."
    if engine == "v2":
        usage = client.notices("_kiro.dev/metadata")[1]
        assert usage["meteringUsage"][0]["value"] == 0.0148
    else:
        order = [one["_meta"]["kiro"]["kind"] for one in client.updates("session_info_update")]
        one_turn = ["turn_start", "turn_completion", "turn_end", "context_usage"]
        assert order[:4] == one_turn
        assert client.infos("turn_completion")[0]["promptTurnSummaries"][0]["usage"] == 0.0148


@engines
@pytest.mark.anyio
async def test_the_agent_of_the_client_counts(engine: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path) as client:
        await client.prompt("/emulate session")

    facts = json.loads(client.text())
    assert facts["engine"] == engine
    assert facts["system"] == "Be brief."
    assert not client.updates("tool_call")


@engines
@pytest.mark.anyio
async def test_a_built_in_agent_uses_its_own_tools(engine: str, tmp_path: Path) -> None:
    async with client_of(V2 if engine == "v2" else V3) as client:
        await client.new_session(tmp_path)
        await client.prompt("Say hello")

    assert client.updates("tool_call")[0]["title"] == "Running: ls"


# --- strict views


@pytest.mark.anyio
async def test_the_version_of_the_protocol_is_an_integer() -> None:
    wrong: Json = {"protocolVersion": "1.0", "clientCapabilities": {}}
    async with client_of(V3) as client:
        refused = await client.request("initialize", wrong)
    async with client_of(V2) as client:
        await client.start_request("initialize", wrong)
        await client.is_over.wait()
        assert client.code == 1

    assert refused["error"]["code"] == -32602


@engines
@pytest.mark.anyio
@pytest.mark.parametrize("params", [{"cwd": "here", "mcpServers": []}, {"cwd": "/"}])
async def test_a_session_needs_an_absolute_folder_and_servers(engine: str, params: Json) -> None:
    async with client_of(V2 if engine == "v2" else V3) as client:
        await client.initialize()
        refused = await client.request("session/new", params)

    assert refused["error"]["code"] == -32602


@pytest.mark.anyio
@pytest.mark.parametrize(
    "server",
    [
        {"name": "caller", "url": "http://127.0.0.1:9/", "headers": []},
        {"name": "caller", "url": "http://127.0.0.1:9/", "type": "http"},
        {"name": "caller", "url": "http://127.0.0.1:9/", "type": "http", "headers": {}},
    ],
)
async def test_an_incomplete_server_ends_the_program_without_a_word(
    tmp_path: Path, server: Json
) -> None:
    async with client_of(V2) as client:
        await client.initialize()
        await client.start_request("session/new", {"cwd": str(tmp_path), "mcpServers": [server]})

        await client.is_over.wait()
        assert client.code == 0


@pytest.mark.anyio
async def test_an_agent_without_a_file_is_reported_and_replaced(tmp_path: Path) -> None:
    async with client_of((*V2, "--agent", "pure"), home=tmp_path) as client:
        opened = await client.new_session(tmp_path)
        (told,) = await client.until(lambda: client.notices("_kiro.dev/agent/not_found"))

    assert opened["modes"]["currentModeId"] == "kiro_default"
    assert (told["requestedAgent"], told["fallbackAgent"]) == ("pure", "kiro_default")


@pytest.mark.anyio
async def test_a_broken_agent_file_is_reported(tmp_path: Path) -> None:
    write_agent(tmp_path)
    (tmp_path / "agents" / "pure.json").write_text("{")
    async with client_of((*V2, "--agent", "pure"), home=tmp_path) as client:
        await client.new_session(tmp_path)

    assert client.notices("_kiro.dev/agent/config_error")


@engines
@pytest.mark.anyio
async def test_a_session_takes_one_prompt_at_a_time(engine: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path) as client:
        first = await client.start_prompt("/emulate stall 600")
        refused = await client.prompt("And this?")
        await client.send({"method": "session/cancel", "params": {"sessionId": client.session}})
        cancelled = await client.response_to(first)
        later = await client.prompt("Say hello")

    assert refused["error"]["data"] == "Prompt already in progress"
    assert cancelled["result"] == {"stopReason": "cancelled"}
    assert later["result"] == {"stopReason": "end_turn"}


@engines
@pytest.mark.anyio
async def test_each_engine_has_its_own_methods(engine: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path) as client:
        session = {"sessionId": client.session}
        model = "claude-opus-4.8"
        option = await client.request(
            "session/set_config_option", {**session, "configId": "model", "value": model}
        )
        plain = await client.request("session/set_model", {**session, "modelId": model})
        await client.prompt("/emulate session")

    assert json.loads(client.text())["model"] == model
    wrong = plain if engine == "v3" else option
    assert wrong["error"]["code"] == -32601


@pytest.mark.anyio
async def test_v3_forgets_the_effort_with_another_model_and_ignores_a_wrong_one(
    tmp_path: Path,
) -> None:
    async with pure_session("v3", tmp_path) as client:
        efforts: list[object] = []
        for name, value in (
            ("model", "claude-opus-5"),
            ("effortLevel", "low"),
            ("effortLevel", "enormous"),
            ("model", "claude-opus-4.8"),
        ):
            params = {"sessionId": client.session, "configId": name, "value": value}
            answer = await client.request("session/set_config_option", params)
            efforts.append(answer["result"]["configOptions"][1]["currentValue"])

    assert efforts == ["high", "low", "low", "high"]


@pytest.mark.anyio
async def test_v3_without_the_flag_asks_the_client_for_a_login(tmp_path: Path) -> None:
    async with client_of(("acp", "--agent-engine", "v3")) as client:
        await client.new_session(tmp_path)
        refused = await client.prompt("Say hello")

    assert client.heard[0]["method"] == "_kiro/auth/getAccessToken"
    assert refused["error"]["code"] == -32000


@engines
@pytest.mark.anyio
async def test_images_are_taken_and_resources_by_v3_only(engine: str, tmp_path: Path) -> None:
    image = {"type": "image", "mimeType": "image/png", "data": "iVBORw0="}
    resource = {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "A note."}}
    text = {"type": "text", "text": "/emulate session"}
    async with pure_session(engine, tmp_path) as client:
        params: Json = {"sessionId": client.session, "prompt": [image, text]}
        await client.request("session/prompt", params)
        answer = await client.request("session/prompt", {**params, "prompt": [resource, text]})

    assert json.loads(client.text().partition("}")[0] + "}")["images"] == 1
    assert ("error" in answer) is (engine == "v2")


# --- scenes


@engines
@pytest.mark.anyio
@pytest.mark.parametrize("scene", ["id_collision", "bad_lines", "full_stderr"])
async def test_a_patient_client_gets_its_answer(engine: str, scene: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path, "--scene", scene) as client:
        answer = await client.prompt("Say hello")

    assert answer["result"] == {"stopReason": "end_turn"}
    assert client.text().endswith("Say hello")


@engines
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ("rate_limited", "ThrottlingException"),
        ("usage_limit", "monthly usage limit"),
        ("expired_prompt", "ExpiredTokenException"),
        ("invalid_history", "invalid conversation history"),
        ("network_error", "ClientNetworkError"),
        ("throttle", "Too many requests"),
        ("expired", "ExpiredTokenException"),
    ],
)
async def test_a_failed_prompt_says_why_in_its_data(
    engine: str, scene: str, words: str, tmp_path: Path
) -> None:
    own = () if scene == "expired" else ("--scene", scene)
    async with pure_session(engine, tmp_path, *own) as client:
        failed = await client.prompt("/emulate expired" if scene == "expired" else "Say hello")

    assert words in json.dumps(failed["error"]["data"])
    limited = client.notices("_kiro.dev/error/rate_limit") + client.notices(
        "_kiro/error/rate_limit"
    )
    assert len(limited) == (scene in ("rate_limited", "throttle"))


@engines
@pytest.mark.anyio
async def test_an_expired_login_fails_the_start(engine: str, tmp_path: Path) -> None:
    async with client_of(V2 if engine == "v2" else V3, "--scene", "expired") as client:
        await client.initialize()
        failed = await client.request("session/new", {"cwd": str(tmp_path), "mcpServers": []})

    assert failed["error"]["code"] == -32603
    assert "ExpiredTokenException" in failed["error"]["data"]["details"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scene", "code", "method"),
    [("exit_0", 0, "session/new"), ("crash", 101, "session/prompt"), ("not_logged_in", 1, "")],
)
async def test_the_process_ends_with_the_code_of_the_scene(
    scene: str, code: int, method: str, tmp_path: Path
) -> None:
    async with process_of(V2, "--scene", scene) as (client, process):
        if method:
            await client.initialize()
            params: Json = {"cwd": str(tmp_path), "mcpServers": []}
            if method == "session/prompt":
                opened = await client.request("session/new", params)
                blocks = [{"type": "text", "text": "Say hello"}]
                params = {"sessionId": opened["result"]["sessionId"], "prompt": blocks}
            await client.start_request(method, params)
        assert await process.wait() == code


@engines
@pytest.mark.anyio
@pytest.mark.parametrize("scene", ["hang_initialize", "hang_session", "hang_prompt"])
async def test_the_program_hangs_until_its_input_ends(
    engine: str, scene: str, tmp_path: Path
) -> None:
    async with client_of(V2 if engine == "v2" else V3, "--scene", scene) as client:
        reached = ["initialize", "session/new", "session/prompt"]
        with anyio.move_on_after(0.3):
            await client.new_session(tmp_path)
            reached.pop(0)
            await client.prompt("Say hello")
            reached.clear()
        assert reached
        await client.stdin.aclose()
        await client.is_over.wait()
        assert client.code == 0


@engines
@pytest.mark.anyio
async def test_a_refused_permission_lets_the_turn_go_on(engine: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path, "--scene", "permission") as client:
        client.permission["optionId"] = "reject_once" if engine == "v2" else "reject"
        rejected = await client.prompt("Say hello")
        status = client.updates("tool_call_update")[-1]["status"]
        client.permission = {"outcome": "cancelled"}
        cancelled = await client.prompt("Say hello")

    assert (rejected["result"]["stopReason"], status) == ("end_turn", "failed")
    assert cancelled["result"]["stopReason"] == "refusal"


@engines
@pytest.mark.anyio
async def test_an_empty_refusal_has_no_text(engine: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path, "--scene", "refusal_empty") as client:
        answer = await client.prompt("Say hello")

    assert answer["result"] == {"stopReason": "refusal"}
    assert client.text() == ""


@pytest.mark.anyio
async def test_a_discarded_text_is_sent_again(tmp_path: Path) -> None:
    async with pure_session("v2", tmp_path, "--scene", "watchdog") as client:
        await client.prompt("Say hello")

    kinds = [one["update"]["sessionUpdate"] for one in client.notices("_kiro.dev/session/update")]
    assert kinds == ["stream_stall_notice", "stream_discarded", "retry_warning"]


@pytest.mark.anyio
async def test_the_late_model_option_comes_after_the_session(tmp_path: Path) -> None:
    async with client_of(V3, "--scene", "late_model") as client:
        opened = await client.new_session(tmp_path)
        (update,) = await client.until(lambda: client.updates("config_option_update"))

    assert "configOptions" not in opened
    assert update["configOptions"][0]["currentValue"] == "auto"


@engines
@pytest.mark.anyio
async def test_late_usage_comes_after_the_answer(engine: str, tmp_path: Path) -> None:
    async with pure_session(engine, tmp_path, "--scene", "late_usage") as client:
        await client.prompt("Say hello")

        def usage() -> list[Json]:
            metered = client.notices("_kiro.dev/metadata") + client.infos("context_usage")
            return [one for one in metered if "meteringUsage" in one or "usagePercentage" in one]

        assert not usage()
        await client.until(usage)


@pytest.mark.anyio
async def test_a_cancel_can_be_ignored(tmp_path: Path) -> None:
    async with pure_session("v3", tmp_path, "--scene", "cancel_ignored") as client:
        number = await client.start_prompt("Say hello")
        await client.send({"method": "session/cancel", "params": {"sessionId": client.session}})
        with anyio.move_on_after(0.3) as waiting:
            await client.response_to(number)

    assert waiting.cancelled_caught


@pytest.mark.anyio
async def test_interrupted_tools_leave_the_prompt_open(tmp_path: Path) -> None:
    async with pure_session("v2", tmp_path, "--scene", "tools_interrupted") as client:
        number = await client.start_prompt("Say hello")
        with anyio.move_on_after(0.3) as waiting:
            await client.response_to(number)

    assert waiting.cancelled_caught
    assert client.text() == "Tool uses were interrupted, waiting for the next user prompt"


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
@pytest.mark.anyio
async def test_the_child_of_the_launcher_outlives_it(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    async with process_of(V2, "--log", str(log), "--scene", "orphan") as (client, process):
        await client.initialize()
        launcher, child = [json.loads(line)["pid"] for line in log.read_text().splitlines()[:2]]
        os.kill(launcher, signal.SIGTERM)
        await process.wait()
        assert "result" in await client.request("session/new", {"cwd": "/", "mcpServers": []})
        os.kill(child, signal.SIGKILL)


# --- tools


class Caller:
    """An MCP server of the client: one tool, which is answered when `release` is set."""

    def __init__(self) -> None:
        self.calls: list[Json] = []
        self.release = anyio.Event()
        self.dropped = 0
        self.url = ""

    async def answer(self, request: Request) -> Response:
        message = await request.json()
        method = message["method"]
        if request.headers.get("authorization") != "Bearer mine":
            return Response(status_code=401)
        if "id" not in message:
            return Response(status_code=202)
        results: Json = {
            "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}},
            "tools/list": {
                "tools": [
                    {
                        "name": "get_time",
                        "inputSchema": {
                            "type": "object",
                            "properties": {"zone": {"type": "string"}},
                            "required": ["zone"],
                        },
                    }
                ]
            },
            "tools/call": {"content": [{"type": "text", "text": "It is noon."}]},
        }
        if method == "tools/call":
            self.calls.append(message["params"])
            try:
                await self.release.wait()
            except anyio.get_cancelled_exc_class():
                self.dropped += 1
                raise
        answer = {"result": results[method]} if method in results else {"error": {"code": -32601}}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer})
        if method == "tools/list":  # Both forms of a response are read.
            return Response(f"event: message\ndata: {body}\n\n", media_type="text/event-stream")
        return Response(body, media_type="application/json")


@asynccontextmanager
async def tool_session(
    engine: str, home: Path, *own: str, tools: Sequence[str] = ("@caller",)
) -> AsyncGenerator[tuple[LineClient, Caller]]:
    """Open a session with a tool of the client."""
    caller = Caller()
    listener = listen("127.0.0.1", 0)
    app = Starlette(routes=[Route("/", caller.answer, methods=["POST"])])
    async with serve(app, listener, logger=logging.getLogger("silent")):
        server: Json = {"name": "caller", "type": "http"}
        server["url"] = "http://{}:{}/".format(*listener.getsockname())
        server["headers"] = [{"name": "Authorization", "value": "Bearer mine"}]
        rules = [{"capability": "mcp", "match": ["caller/*"], "effect": "allow"}]
        permissions = {"rules": rules if tools else []}
        agent = {"id": "pure", "prompt": "Be brief.", "tools": ["@caller"]}
        more: Json = {"_meta": {"kiro": {"customAgents": [{**agent, "permissions": permissions}]}}}
        words = V3
        if engine == "v2":
            write_agent(home, tools=["@caller"], allowedTools=list(tools))
            words, more = (*V2, "--agent", "pure"), {}
        async with client_of(words, *own, home=home) as client:
            await client.new_session(home, **more, mcpServers=[server])
            if engine == "v3":
                await client.request(
                    "session/set_mode", {"sessionId": client.session, "modeId": "pure"}
                )
            yield client, caller


@engines
@pytest.mark.anyio
async def test_a_tool_is_really_called_and_its_result_read(engine: str, tmp_path: Path) -> None:
    async with tool_session(engine, tmp_path) as (client, caller):
        caller.release.set()
        answer = await client.prompt('/emulate tool_use {"zone": "UTC"}')

    assert answer["result"] == {"stopReason": "end_turn"}
    assert client.text().endswith("Your tools said: It is noon.")
    (shown,) = client.updates("tool_call")
    assert (shown["title"], shown["rawInput"]["zone"]) == ("Running: @caller/get_time", "UTC")
    (call,) = caller.calls
    assert (call["name"], call["arguments"]) == ("get_time", {"zone": "UTC"})


@engines
@pytest.mark.anyio
async def test_two_calls_can_be_open_at_once(engine: str, tmp_path: Path) -> None:
    async with tool_session(engine, tmp_path, "--scene", "two_calls") as (client, caller):
        number = await client.start_prompt("What time is it?")
        await client.until(lambda: client.updates("tool_call")[1:])
        caller.release.set()
        answer = await client.response_to(number)

    assert answer["result"] == {"stopReason": "end_turn"}
    assert len(caller.calls) == 2


@engines
@pytest.mark.anyio
async def test_a_held_call_is_dropped_and_made_again(engine: str, tmp_path: Path) -> None:
    own = ("--scale", "240", "--scene", "retry_call")
    async with tool_session(engine, tmp_path, *own) as (client, caller):
        number = await client.start_prompt("/emulate tool_use")
        await client.until(lambda: client.updates("tool_call_update"))
        caller.release.set()
        await client.response_to(number)

    assert client.updates("tool_call_update")[0]["status"] == "failed"
    assert len(caller.calls) == 2
    assert caller.calls[0]["arguments"] == caller.calls[1]["arguments"]


@engines
@pytest.mark.anyio
async def test_a_cancel_drops_the_held_call(engine: str, tmp_path: Path) -> None:
    async with tool_session(engine, tmp_path) as (client, caller):
        number = await client.start_prompt("/emulate tool_use")
        await client.until(lambda: client.updates("tool_call"))
        await client.send({"method": "session/cancel", "params": {"sessionId": client.session}})
        answer = await client.response_to(number)

    assert answer["result"] == {"stopReason": "cancelled"}
    assert len(caller.calls) <= 1


@engines
@pytest.mark.anyio
async def test_a_tool_that_is_not_allowed_needs_permission(engine: str, tmp_path: Path) -> None:
    async with tool_session(engine, tmp_path, tools=()) as (client, caller):
        client.permission["optionId"] = "reject_once" if engine == "v2" else "reject"
        await client.prompt("/emulate tool_use")

    assert client.text().endswith("Denied by the client.")
    assert not caller.calls


@engines
@pytest.mark.anyio
async def test_an_unknown_answer_about_permission_ends_the_prompt_with_an_error(
    engine: str, tmp_path: Path
) -> None:
    """The program goes on: the next prompt is answered."""
    async with tool_session(engine, tmp_path, tools=()) as (client, caller):
        client.permission["optionId"] = "perhaps"
        refused = await client.prompt("/emulate tool_use")
        answer = await client.prompt("Say hello")

    assert "invalid permission response" in refused["error"]["data"]
    assert answer["result"] == {"stopReason": "end_turn"}
    assert not caller.calls


@engines
@pytest.mark.anyio
async def test_an_unreachable_server_is_reported(engine: str, tmp_path: Path) -> None:
    server: Json = {"name": "caller", "type": "http", "url": "http://127.0.0.1:9/", "headers": []}
    async with client_of(V2 if engine == "v2" else V3) as client:
        await client.new_session(tmp_path, mcpServers=[server])

    if engine == "v2":
        assert client.notices("_kiro.dev/mcp/server_init_failure")
    else:
        assert client.notices("_kiro/mcp/status")[0]["servers"][0]["status"] == "failed"
