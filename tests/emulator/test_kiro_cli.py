"""The stand-in for the vendor's program, driven by a plain client that reads and writes lines."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

Json: TypeAlias = dict[str, Any]

PROGRAM = [sys.executable, "-m", "kiro_mcp.emulator.kiro_cli"]
V2 = ("acp", "--agent-engine", "v2")
V3 = ("acp", "--agent-engine", "v3", "--auth-method", "cli")
SECONDS = 20


def run_program(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, timeout=SECONDS, check=False
    )


class LineClient:
    """Sends requests and collects what comes meanwhile; answers requests with -32601."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._id = 0
        self.session = ""
        self.heard: list[Json] = []
        """Everything that was not the response to a request of this client."""
        self.permission: Json = {"outcome": "selected", "optionId": "reject_once"}

    async def send(self, message: Json) -> None:
        await self._stdin.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

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
    words: Sequence[str], *own: str, env: dict[str, str] | None = None
) -> AsyncGenerator[LineClient]:
    """Run the program with its own options and these words while the block runs."""
    with anyio.fail_after(SECONDS):
        async with await anyio.open_process(
            [*PROGRAM, *own, *words], stderr=subprocess.DEVNULL, env=env
        ) as process:
            try:
                yield LineClient(process)
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
        async with client_of(
            (*V2, "--agent", "pure"), *own, env={"KIRO_HOME": str(home)}
        ) as client:
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


def test_models_are_listed_to_those_who_are_signed_in() -> None:
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
