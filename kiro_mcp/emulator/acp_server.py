"""What `kiro-cli acp` does: JSON-RPC with sessions, in one of its two engines, v2 and V3.

`AcpServer` reads the lines of a client and answers them; `kiro_mcp.emulator.kiro_cli` starts it and
lists its scenes. A session answers prompts: the frames of a script become updates, and its tool
calls go to the MCP servers of the client. What a scene changes is in the method that it changes.
"""

import json
import sys
import time
import uuid
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast

import anyio
import httpx
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from kiro_mcp.emulator.catalogue import CATALOGUE, DEFAULT_MODEL_ID
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.request import ToolSpec
from kiro_mcp.emulator.scripts import (
    BUILT_IN,
    Pause,
    Prompt,
    Script,
    Send,
    tokens_of,
    whole_answer,
)
from kiro_mcp.wire.eventstream import FrameDecoder

if TYPE_CHECKING:
    from kiro_mcp.emulator.kiro_cli import Options  # It is the main module of the process.

Json: TypeAlias = dict[str, Any]

HELD_CALL_SECONDS: Final = 120.0
"""After this time the program drops a tool call that is not answered."""

CONNECT_SECONDS: Final = 30.0
"""How long session/new waits for an MCP server that does not answer."""

_VENDOR: Final = {"v2": "_kiro.dev", "v3": "_kiro"}
"""What the vendor's own methods begin with."""
_OWN_AGENTS: Final = {"v2": ("kiro_default", "kiro_planner"), "v3": ("vibe", "spec")}
"""The built-in agents, which have tools of their own; the first is the default."""
_PERMISSIONS: Final = ("allow_once", "allow_always", "reject_once")
_OPTION_IDS: Final = {"v2": _PERMISSIONS, "v3": ("accept", "always-accept", "reject")}
_STOP_REASONS: Final = {"MAX_TOKENS": "max_tokens", "CONTENT_FILTERED": "refusal"}
_EXPIRED: Final = "ExpiredTokenException: The security token included in the request is expired"
_THROTTLED: Final = "Too many requests, please wait."
_CREDITS: Final = {"unit": "credit", "unitPlural": "credits"}

_LAST_WORDS: Final = {
    "cancel_ignored": "Nothing stops me.",
    "hang_prompt": "",
    "tools_interrupted": "Tool uses were interrupted, waiting for the next user prompt",
}
"""What is said in the scenes in which a prompt is never answered."""


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({} if data is None else {"data": data})


def _internal_error(data: object) -> _RpcError:
    """Most errors of the real program say only this; the reason is in the data."""
    return _RpcError(-32603, "Internal error", data)


def _invalid_params(data: str) -> _RpcError:
    return _RpcError(-32602, "Invalid params", data)


def _network_error(message: str) -> _RpcError:
    kind = {"errorType": "ClientNetworkError", "retryErrorType": "TRANSIENT"}
    return _RpcError(-32000, message, kind)


_PROMPT_ERRORS: Final[Mapping[str, _RpcError]] = {
    "expired_prompt": _internal_error(_EXPIRED),
    "invalid_history": _internal_error("invalid conversation history received"),
    "network_error": _network_error("Network error"),
    "rate_limited": _internal_error(f"ThrottlingException: {_THROTTLED}"),
    "usage_limit": _internal_error({"details": "You have reached your monthly usage limit."}),
}
"""The errors that scenes answer a prompt with."""


# --- the protocol


class AcpServer:
    """`kiro-cli acp`: one process, with sessions.

    Args:
        given: How it behaves.
        engine: `v2` or `v3`.
        flags: The flags of `acp`.
        home: The folder with the agents.
        write: Writes to its standard output.
        end: Ends the process with a code; in a test, notes the code.
    """

    def __init__(
        self,
        given: "Options",
        engine: str,
        flags: Mapping[str, str],
        *,
        home: Path,
        write: Callable[[bytes], None],
        end: Callable[[int], None],
    ) -> None:
        self.given = given
        self.engine = engine
        self.is_v3 = engine == "v3"
        self.flags = flags
        self.scenes = given.scenes
        self.has_login = given.is_signed_in and (
            not self.is_v3 or flags.get("--auth-method") == "cli"
        )
        self.tasks: TaskGroup
        self.prompts = 0
        """How many prompts have been answered, in all sessions."""
        self._home = home
        self._write = write
        self._end_process = end
        self._is_initialized = False
        self._sessions: dict[str, _Session] = {}
        self._clients: list[httpx.AsyncClient] = []
        self._own_id = 0
        self._waiting: dict[str | int, tuple[anyio.Event, list[Json]]] = {}

    async def serve(self, lines: AsyncIterable[bytes]) -> None:
        """Serve until the lines of stdin end."""
        async with anyio.create_task_group() as self.tasks:
            if self.is_v3 and "--auth-method" not in self.flags:
                # Asks the client for the login, even before `initialize` is answered.
                self.tasks.start_soon(self.ask_client, "_kiro/auth/getAccessToken", Json())
            try:
                async for line in lines:
                    self._receive(line)
                self.tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    for client in self._clients:
                        await client.aclose()

    async def end(self, code: int, last_words: str = "") -> NoReturn:
        """End the process at once."""
        if last_words:
            sys.stderr.write(f"{last_words}\n")
            sys.stderr.flush()
        self._end_process(code)
        self.tasks.cancel_scope.cancel()
        await _hang()

    def send(self, message: Mapping[str, object]) -> None:
        """Write one message."""
        if "bad_lines" in self.scenes:
            self._write(b"INFO not json\n\n[]\n7\n\xff\xfe\n{}\n")
            strange = {"jsonrpc": "2.0", "method": "_kiro.dev/from_the_future", "params": [1]}
            self._write(json.dumps(strange).encode() + b"\n")
        self._write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def ask_client(
        self, method: str, params: Mapping[str, object], number: str | int | None = None
    ) -> Json:
        """Send a request and return the client's response; a client that is silent is waited for.

        Args:
            method: The method.
            params: Its parameters.
            number: The id; by default the program's next one. V3 counts from 1, as clients do.
        """
        self._own_id += 1
        number = number or (self._own_id if self.is_v3 else str(uuid.uuid4()))
        event, answers = self._waiting[number] = anyio.Event(), list[Json]()
        self.send({"id": number, "method": method, "params": params})
        await event.wait()
        return answers[0]

    def _receive(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self.given.record(bad_line=line.decode("utf-8", "replace")[:200])
            self.send({"id": None, "error": {"code": -32700, "message": "Parse error"}})
            return
        self.given.record(received=message)
        match message:
            case {"jsonrpc": "2.0", "id": number, "method": str(method)}:
                self.tasks.start_soon(self._answer, number, method, message.get("params", {}))
            case {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": str(name)}}:
                session = self._sessions.get(name)
                if session and "cancel_ignored" not in self.scenes:
                    session.scope.cancel()
            case {"jsonrpc": "2.0", "method": str()}:
                pass
            case {"jsonrpc": "2.0", "id": str() | int() as number} if number in self._waiting:
                event, answers = self._waiting.pop(number)
                answers.append(message)
                event.set()
            case _:
                self.send({"id": None, "error": {"code": -32600, "message": "Invalid request"}})

    async def _answer(self, number: str | int, method: str, params: Json) -> None:
        if "full_stderr" in self.scenes:
            sys.stderr.write("DEBUG a line of the log that somebody must read\n" * 21_000)
            sys.stderr.flush()
        if "id_collision" in self.scenes:
            await self.ask_client("_kiro/terminal/shell_type", {}, number)
        try:
            result = await self._call(method, params)
        except _RpcError as error:
            self.send({"id": number, "error": error.body})
            return
        self.send({"id": number, "result": result})
        if method == "session/new":
            self._sessions[result["sessionId"]].announce()
        elif method == "session/prompt" and (session := self._sessions.get(params["sessionId"])):
            await session.report_late_usage()

    async def _call(self, method: str, params: Json) -> Json:
        if method != "initialize" and not self._is_initialized:
            raise _RpcError(-32600, "Invalid request", "initialize comes first")
        match method:
            case "initialize":
                return await self._initialize(params)
            case "session/new":
                return await self._new_session(params)
            case "session/load":  # An unknown id ends the process; a new process knows no id.
                await self.end(0)
            case "session/prompt":
                return await self._session(params).answer(params)
            case "session/set_mode":
                self._session(params).set_mode(str(params.get("modeId", "")))
            case "session/set_model" if not self.is_v3:
                self._session(params).model = str(params.get("modelId", ""))  # It is not checked.
            case "session/set_config_option" if self.is_v3:
                return self._session(params).set_option(params)
            case "session/close" | "_kiro/session/delete" if self.is_v3:
                self._sessions.pop(self._session(params).id)
            case "_kiro.dev/session/terminate" if not self.is_v3:
                self._sessions.pop(self._session(params).id)
            case _:
                raise _RpcError(-32601, "Method not found", method)
        return {}

    def _session(self, params: Json) -> "_Session":
        try:
            return self._sessions[params["sessionId"]]
        except (KeyError, TypeError):
            raise _internal_error("Session not found") from None

    async def _initialize(self, params: Json) -> Json:
        if self.scenes & {"hang_initialize", "not_logged_in_hang"}:
            await _hang()
        if type(params.get("protocolVersion")) is not int:  # A bool is not a version, either.
            if not self.is_v3:
                await self.end(1, "Error: invalid type: expected an integer protocolVersion")
            raise _invalid_params("protocolVersion must be an integer")
        self._is_initialized = True
        abilities: Json = {
            "loadSession": True,
            "promptCapabilities": {"image": True, "audio": False, "embeddedContext": self.is_v3},
            "mcpCapabilities": {"http": True, "sse": self.is_v3},
            "sessionCapabilities": {},
        }
        answer: Json = {"protocolVersion": 1, "agentCapabilities": abilities, "authMethods": []}
        if not self.is_v3:
            name = "Kiro CLI Agent"
            answer["agentInfo"] = {"name": name, "title": name, "version": self.given.version}
            return answer
        abilities["sessionCapabilities"] = {"list": {}, "close": {}, "delete": {}, "fork": {}}
        methods = ["_kiro/session/delete"]
        abilities["_meta"] = {"kiro": {"extensionMethods": methods, "replayMarking": True}}
        answer["authMethods"] = [{"id": it, "name": it} for it in ("kiro-login", "kiro-api-key")]
        return answer

    async def _new_session(self, params: Json) -> Json:
        if "hang_session" in self.scenes:
            await _hang()
        if "exit_0" in self.scenes:
            await self.end(0)
        if "expired" in self.scenes:
            raise _internal_error({"details": _EXPIRED})
        cwd: Any = params.get("cwd")
        servers: Any = params.get("mcpServers")
        if not isinstance(cwd, str) or not Path(cwd).is_absolute():
            raise _invalid_params("cwd must be an absolute path")
        if not Path(cwd).is_dir():  # noqa: ASYNC240  # one session starts at a time
            raise _internal_error(f"cwd {cwd} is not a directory")
        if type(servers) is not list:
            raise _invalid_params("missing field `mcpServers`")
        wanted = [one for one in cast("list[Json]", servers) if "url" in one]  # Others are ignored.
        if not all(it.get("type") == "http" and type(it.get("headers")) is list for it in wanted):
            await (_hang() if self.is_v3 else self.end(0))
        agents, fault = self._agents(params)
        session = _Session(self, agents)
        if fault:
            session.tell("agent/config_error", error=fault)
        if self.is_v3:
            await self.ask_client("_kiro/terminal/shell_type", {"sessionId": session.id})
        by_name = {one["name"]: one for one in (*session.agent.servers, *wanted)}
        for one in by_name.values():
            client = httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113  # callers have deadlines
            self._clients.append(client)
            await session.connect(_ToolServer(client, one))
        self._sessions[session.id] = session
        return session.describe()

    def _agents(self, params: Json) -> "tuple[Mapping[str, _Agent], str]":
        """Return the agents of a new session, the current one first, and any fault of its file."""
        own = {name: _Agent(name) for name in _OWN_AGENTS[self.engine]}
        if self.is_v3:
            given = params.get("_meta", {}).get("kiro", {}).get("customAgents", [])
            return own | {one["id"]: _inline_agent(one) for one in given}, ""
        name = self.flags.get("--agent", "")
        path = self._home / "agents" / f"{name}.json"
        if not name or "agent_not_found" in self.scenes or not path.is_file():
            return own, ""
        try:
            return {name: _file_agent(path)} | own, ""
        except (ValueError, KeyError, TypeError) as error:
            return own, f"{path}: {error}"


async def _hang() -> NoReturn:
    await anyio.sleep_forever()
    raise AssertionError


# --- agents


@dataclass(frozen=True, slots=True)
class _Agent:
    """The agent of a session: whose prompt and tools count."""

    id: str
    prompt: str = ""
    tools: Sequence[str] = ("*",)
    """`*` for tools of its own, and `@server`."""
    allowed: Sequence[str] = ()
    """The tools that need no permission, as `@server`."""
    is_denied: bool = False
    """Whether a rule denies every tool."""
    servers: Sequence[Json] = ()
    """MCP servers of the agent file, in the form of session/new."""


def _file_agent(path: Path) -> _Agent:
    """Read an agent file of v2."""
    content = json.loads(path.read_text(encoding="utf-8"))
    prompt = content.get("prompt") or ""
    if prompt.startswith("file://"):
        prompt = (path.parent / prompt.removeprefix("file://")).read_text(encoding="utf-8")
    return _Agent(
        content["name"],
        prompt,
        content.get("tools", ["*"]),
        content.get("allowedTools", []),
        servers=[
            {"headers": {}, **one, "name": name}
            for name, one in content.get("mcpServers", {}).items()
            if one.get("type") == "http"
        ],
    )


def _inline_agent(content: Json) -> _Agent:
    """Read a custom agent of V3's session/new."""
    if not content.get("id") or not content.get("prompt"):
        raise _invalid_params("customAgents: id and prompt must not be empty")
    rules = content.get("permissions", {}).get("rules", [])
    allowed = [one for rule in rules if rule["effect"] == "allow" for one in rule["match"]]
    return _Agent(
        content["id"],
        content["prompt"],
        content.get("tools", ["*"]),
        [f"@{match.removesuffix('/*')}" for match in allowed],
        is_denied=any(rule["effect"] == "deny" for rule in rules),  # A deny always wins.
    )


def _may_use(granted: Sequence[str], server: str) -> bool:
    return "*" in granted or f"@{server}" in granted


# --- sessions


@dataclass(slots=True)
class _Answer:
    """What a script has said so far."""

    said: str = ""
    calls: dict[str, Json] = field(default_factory=dict[str, Json])
    stop_reason: str = "end_turn"
    refusal: Json | None = None
    percent: float = 0.0
    credits: float = 0.0


class _Session:
    """One conversation: its agent and model, its prompts and their tool calls."""

    def __init__(self, server: AcpServer, agents: Mapping[str, _Agent]) -> None:
        self.id = f"{'sess_' if server.is_v3 else ''}{uuid.uuid4()}"
        self.agent = next(iter(agents.values()))
        self.model = server.flags.get("--model", DEFAULT_MODEL_ID)
        self.scope = anyio.CancelScope()
        """Of the prompt that is being answered."""
        self._server = server
        self._is_v3 = server.is_v3
        self._scenes = server.scenes
        self._agents = agents
        self._effort = server.flags.get("--effort")
        self._tool_servers: list[_ToolServer] = []
        self._is_busy = False
        self._is_refused = False
        """Whether the client answered a permission request of this prompt with `cancelled`."""
        self._turns = 0

    # --- notifications

    def _notify(self, method: str, /, **params: object) -> None:
        self._server.send({"method": method, "params": {"sessionId": self.id, **params}})

    def tell(self, name: str, /, **params: object) -> None:
        """Send a notification of the vendor's own."""
        self._notify(f"{_VENDOR[self._server.engine]}/{name}", **params)

    def _update(self, kind: str, /, **members: object) -> None:
        self._notify("session/update", update={"sessionUpdate": kind, **members})

    def _inform(self, kind: str, /, **members: object) -> None:
        """Send one of V3's own notices."""
        self._update("session_info_update", _meta={"kiro": {**members, "kind": kind}})

    def _say(self, text: str, kind: str = "agent_message_chunk") -> None:
        self._update(kind, content={"type": "text", "text": text})

    # --- start and choices

    async def connect(self, server: "_ToolServer") -> None:
        """Connect to an MCP server, and tell whether it worked."""
        seconds = CONNECT_SECONDS / self._server.given.scale
        fault = await server.connect(seconds, discovers=self._is_v3)
        if not fault:
            self._tool_servers.append(server)
        if self._is_v3 and fault:
            broken = {"name": server.name, "status": "failed", "errorMessage": fault}
            self.tell("mcp/status", servers=[broken])
        elif fault:
            self.tell("mcp/server_init_failure", serverName=server.name, error=fault)
        elif not self._is_v3:
            self.tell("mcp/server_initialized", serverName=server.name)

    def describe(self) -> Json:
        """Return the answer to session/new."""
        modes = [{"id": name, "name": name} for name in self._agents]
        current = {"currentModeId": self.agent.id, "availableModes": modes}
        answer: Json = {"sessionId": self.id, "modes": current}
        if not self._is_v3:
            ids = [model["modelId"] for model in CATALOGUE]
            listed = [{"modelId": one, "name": one, "description": ""} for one in ids]
            return {**answer, "models": {"currentModelId": self.model, "availableModels": listed}}
        options = {} if "late_model" in self._scenes else {"configOptions": self._options()}
        return {**answer, **options, "_meta": {}}

    def announce(self) -> None:
        """Send what follows the answer to session/new."""
        if self._is_v3:
            if "late_model" in self._scenes:
                self._update("config_option_update", configOptions=self._options())
            self._update("available_commands_update", availableCommands=[])
            self._announce_tools()
            return
        agent = self.agent.id
        if (requested := self._server.flags.get("--agent", agent)) != agent:
            self.tell("agent/not_found", requestedAgent=requested, fallbackAgent=agent)
        if "user_servers" in self._scenes:
            self.tell("mcp/server_initialized", serverName="github")
        commands = [{"name": "/model", "description": "Select a model"}]
        self.tell("commands/available", commands=commands, tools=[], mcpServers=[])

    def _announce_tools(self) -> None:
        origins = {one.name: "session" for one in self._tool_servers}
        if "user_servers" in self._scenes:
            origins["github"] = "user"
        servers = [
            {"name": name, "status": "connected", "origin": origin}
            for name, origin in origins.items()
        ]
        self.tell("mcp/status", servers=servers)
        names = ["execute_bash"] if "*" in self.agent.tools else []
        names += [f"@{one.name}/{name}" for one in self._tool_servers for name in one.tools]
        self.tell("tools/didChange", tools=[{"name": name} for name in names])

    def set_mode(self, wanted: str) -> None:
        """Change the agent."""
        if wanted not in self._agents:
            raise _internal_error(f"Mode '{wanted}' not found")
        self.agent = self._agents[wanted]
        self._update("current_mode_update", currentModeId=wanted)
        if self._is_v3:
            self._announce_tools()

    def set_option(self, params: Json) -> Json:
        """Change one of V3's options; return all of them."""
        match params:
            case {"configId": "model", "value": str(value)}:  # Not checked, as the real one.
                self.model, self._effort = value, None
            case {"configId": "effortLevel", "value": str(value)}:
                if value in _effort_schema(self.model).get("enum", []):  # Others are ignored.
                    self._effort = value
            case {"configId": "mode", "value": str(value)}:
                self.set_mode(value)
            case _:
                raise _invalid_params("unknown configId")
        return {"configOptions": self._options()}

    def _options(self) -> list[Json]:
        models: list[Json] = []
        for model in CATALOGUE:
            kiro: Json = {name: model[name] for name in ("rateMultiplier", "rateUnit")}
            effort = _effort_schema(model["modelId"])
            kiro["hasEffort"] = bool(effort)
            if effort:
                kiro |= {"effortLevels": effort["enum"], "defaultEffortLevel": effort["default"]}
            names = {"value": model["modelId"], "name": model["modelName"]}
            models.append({**names, "_meta": {"kiro": kiro}})
        chosen = [_select("model", "Model", "model", self.model, models)]
        if effort := _effort_schema(self.model):
            levels = [{"value": one, "name": one} for one in effort["enum"]]
            value = self._effort or effort["default"]
            chosen.append(_select("effortLevel", "Effort", "thought_level", value, levels))
        return chosen

    # --- prompts

    async def answer(self, params: Json) -> Json:
        """Answer a prompt: play scripts until one makes no tool calls."""
        if self._is_busy:
            raise _internal_error("Prompt already in progress")
        texts, images = self._read_blocks(params.get("prompt"))
        if not self._server.has_login:
            raise _RpcError(-32000, "Authentication required")
        self._warn_by_scene()
        for scene, error in _PROMPT_ERRORS.items():
            if scene in self._scenes:
                raise error
        self._is_busy, self._is_refused = True, False
        self._turns += 1
        if self._is_v3:
            self._inform("turn_start")
        answer, credits, started = _Answer(), 0.0, time.monotonic()
        self.scope = anyio.CancelScope()
        try:
            with self.scope:
                await self._act_by_scene()
                script, prompt = self._first_script(texts, images)
                while not self._is_refused:
                    answer = await self._play(script)
                    credits += answer.credits
                    if not answer.calls:
                        break
                    returned = await self._run_tools(list(answer.calls.values()))
                    prompt = replace(prompt, returned=returned, serial=prompt.serial + 1000)
                    name = "long" if "long_after_tools" in self._scenes else "text"
                    if "retry_call" in self._scenes and returned.startswith("Dropped"):
                        name = "tool_use"
                    script = BUILT_IN[name](prompt)
        finally:
            self._is_busy = False
        if self._is_refused:
            answer.stop_reason = "refusal"
        if self.scope.cancelled_caught:
            await anyio.sleep(0.05)  # It does not end at once, and updates may still come.
            self._say("…")
            answer.stop_reason = "cancelled"
        if "unknown_stop" in self._scenes:
            answer.stop_reason = "stopped_by_the_future"
        self._report_usage(answer, credits, int(1000 * (time.monotonic() - started)))
        return {"stopReason": answer.stop_reason}

    def _read_blocks(self, blocks: Any) -> tuple[list[str], int]:
        """Return the texts and the number of images of a prompt."""
        texts: list[str] = []
        images = 0
        if type(blocks) is not list or not blocks:
            raise _invalid_params("prompt must be a list of content blocks")
        for block in cast("list[object]", blocks):
            match block:
                case {"type": "text", "text": str(text)}:
                    texts.append(text)
                case {"type": "image", "mimeType": str(), "data": str(data)} if data:
                    images += 1
                case {"type": "resource", "resource": {"uri": str(), "text": str(text)}} if (
                    self._is_v3
                ):
                    texts.insert(0, text)
                case _:
                    raise _invalid_params(f"unsupported content block {str(block)[:80]}")
        return texts, images

    def _warn_by_scene(self) -> None:
        """Tell what a scene tells before the answer to a prompt."""
        for scene in sorted(self._scenes):
            match scene, self._server.engine:
                case "agent_switched", "v2":
                    self.tell("agent/switched", agentName="kiro_planner")
                case "compaction", "v2":
                    self.tell("compaction/status", status={"type": "started"})
                    self.tell("compaction/status", status={"type": "completed"})
                case "compaction", _:
                    self._inform("summarization_started")
                    self._inform("summarization_completed")
                case "rate_limited", _:
                    self.tell("error/rate_limit", message=_THROTTLED)
                case "watchdog", "v2":
                    self._say("This text is discarded.")
                    retry = {"attempt": 1, "maxAttempts": 3, "delaySecs": 1, "message": "Stalled"}
                    for update in (
                        {"sessionUpdate": "stream_stall_notice", "idleSeconds": 60},
                        {"sessionUpdate": "stream_discarded"},
                        {"sessionUpdate": "retry_warning", **retry},
                    ):
                        self.tell("session/update", update=update)
                case _:
                    pass

    async def _act_by_scene(self) -> None:
        """Do what a scene does before the answer."""
        for scene, words in _LAST_WORDS.items():
            if scene in self._scenes:
                if words:
                    self._say(words)
                await _hang()
        if "permission" in self._scenes:
            await self._ask_permission("Running: rm -rf notes", "execute_bash")
        if "foreign_tool" in self._scenes or "*" in self.agent.tools:
            number = self._report_call("Running: ls", "execute", {"command": "ls"})
            self._report_end_of_call(number, is_bad=False)

    def _first_script(self, texts: Sequence[str], images: int) -> tuple[Script, Prompt]:
        self._server.prompts += 1
        tools = [
            ToolSpec.model_validate(
                {
                    "name": tool["name"],
                    "description": tool.get("description") or tool["name"],
                    "inputSchema": {"json": tool.get("inputSchema", {})},
                }
            )
            for server in self._tool_servers
            if _may_use(self.agent.tools, server.name)
            for tool in server.tools.values()
        ]
        said = texts[-1].strip() if texts else ""
        prompt = Prompt(
            said=said[max(0, said.rfind("/emulate ")) :],
            tools=tools,
            model_id=self.model,
            tokens=tokens_of("".join([self.agent.prompt, *texts])),
            serial=self._server.prompts,
        )
        if "refusal_empty" in self._scenes:
            return (Send(prompt.ending("", "CONTENT_FILTERED")),), prompt
        forced = sorted(self._scenes & BUILT_IN.keys())
        forced += ["parallel_tools"] if "two_calls" in self._scenes else []
        name = next(iter(forced), prompt.name or "text")
        if name == "session":
            facts = {
                "engine": self._server.engine,
                "agent": self.agent.id,
                "system": self.agent.prompt,
                "model": self.model,
                "effort": self._effort,
                "turns": self._turns,
                "images": images,
                "texts": list(texts),
                "tools": [tool.name for tool in tools],
            }
            return whole_answer(prompt, json.dumps(facts)), prompt
        if name not in BUILT_IN:
            return whole_answer(prompt, f"The stand-in has no script {name!r}."), prompt
        return BUILT_IN[name](prompt), prompt

    async def _play(self, script: Script) -> _Answer:
        """Send an answer as updates; return what was said, and the tool calls to make."""
        decoder, answer = FrameDecoder(), _Answer()
        broken = _internal_error("Encountered an error in the response stream")
        if self._is_v3:
            broken = _network_error("The connection was lost.")
        for step in script:
            match step:
                case Send(data=data):
                    for frame in decoder.feed(data):
                        kind = str(frame.headers.get(":event-type", "exception"))
                        self._pass_on(answer, kind, json.loads(frame.payload))
                        if "crash" in self._scenes and len(answer.said) > 20:
                            panic = "thread 'main' panicked at src/agent.rs:1: stand-in"
                            await self._server.end(101, panic)
                        await checkpoint()
                    if decoder.fault is not None:
                        raise broken
                case Pause(seconds=seconds):
                    await anyio.sleep(seconds)
                case Refusal():
                    if "Throttling" in step.error_type:
                        self.tell("error/rate_limit", message=step.message)
                    is_login = step.status == 403 and not step.reason
                    detail = _EXPIRED if is_login else step.message
                    raise _internal_error({"details": f"{step.error_type}: {detail}"})
                case _:
                    raise broken
        answer.calls = {number: call for number, call in answer.calls.items() if call["is_whole"]}
        return answer

    def _pass_on(self, answer: _Answer, kind: str, payload: Json) -> None:
        """Send one event of the service as the program reports it."""
        match kind:
            case "assistantResponseEvent":
                answer.said += payload["content"]
                self._say(payload["content"])
            case "reasoningContentEvent" if "text" in payload:
                self._say(payload["text"], "agent_thought_chunk")
            case "toolUseEvent":
                call = {"id": payload["toolUseId"], "name": payload["name"], "text": ""}
                call = answer.calls.setdefault(payload["toolUseId"], call)
                call["text"] += payload.get("input", "")
                call["is_whole"] = payload.get("stop", False)
            case "metadataEvent":
                reason = payload.get("stopReason", "")
                answer.stop_reason = _STOP_REASONS.get(reason, "end_turn")
                answer.refusal = payload.get("stopDetails", {}).get("refusal")
            case "contextUsageEvent":
                answer.percent = payload["contextUsagePercentage"]
            case "meteringEvent":
                answer.credits = payload["usage"]
            case "exception":
                raise _internal_error(payload.get("message"))
            case _:
                pass

    # --- usage

    def _report_usage(self, answer: _Answer, credits: float, milliseconds: int) -> None:
        """Send what comes before the answer to a prompt."""
        if self._is_v3:
            summary: Json = {**_CREDITS, "usage": credits, "usedTools": []}
            self._inform(
                "turn_completion",
                promptTurnSummaries=[summary] if credits else [],
                elapsedTime=milliseconds,
                status="success",
                requestIds=[str(uuid.uuid4())],
            )
            if answer.refusal:
                self._inform("display_error", message=answer.refusal["explanation"])
            self._inform("turn_end", stopReason=answer.stop_reason)
            return
        usage: Json = {"contextUsagePercentage": answer.percent}
        if self._effort:
            usage["effort"] = self._effort
        self.tell("metadata", **usage)
        if credits and "late_usage" not in self._scenes:
            usage["meteringUsage"] = [{**_CREDITS, "value": credits}]
            usage["turnDurationMs"] = milliseconds
        if answer.refusal:
            usage |= {"stopReason": "CONTENT_FILTERED", "refusal": answer.refusal}
        self.tell("metadata", **usage)

    async def report_late_usage(self) -> None:
        """Send what comes after the answer to a prompt."""
        if "late_usage" in self._scenes:
            await anyio.sleep(0.1)
        if self._is_v3:
            self._inform("context_usage", usagePercentage=1.5, breakdown={})
        elif "late_usage" in self._scenes:
            spent = [{**_CREDITS, "value": 0.0148}]
            self.tell("metadata", contextUsagePercentage=1.5, meteringUsage=spent)

    # --- tools

    def _report_call(self, title: str, kind: str, arguments: Json, number: str = "") -> str:
        number = number or f"tooluse_{uuid.uuid4().hex[:22]}"
        self._update(
            "tool_call",
            toolCallId=number,
            title=title,
            kind=kind,
            status="pending",
            rawInput={**arguments, "__tool_use_purpose": "To answer the question."},
        )
        return number

    def _report_end_of_call(self, number: str, *, is_bad: bool, **more: object) -> None:
        status = "failed" if is_bad else "completed"
        self._update("tool_call_update", toolCallId=number, status=status, **more)

    async def _ask_permission(self, title: str, name: str) -> bool:
        """Ask for permission; return whether the client allows the call."""
        number = self._report_call(title, "execute", {"tool": name})
        ids = _OPTION_IDS[self._server.engine]
        params: Json = {
            "sessionId": self.id,
            "toolCall": {"toolCallId": number, "title": title},
            "options": [
                {"optionId": one, "name": kind.replace("_", " "), "kind": kind}
                for one, kind in zip(ids, _PERMISSIONS, strict=True)
            ],
        }
        answer = await self._server.ask_client("session/request_permission", params)
        is_allowed = False
        match answer.get("result"):
            case {"outcome": {"outcome": "selected", "optionId": str(chosen)}} if chosen in ids:
                is_allowed = chosen != ids[-1]
            case {"outcome": {"outcome": "cancelled"}}:
                self._is_refused = True
            case other:
                raise _internal_error(f"invalid permission response {str(other)[:80]}")
        self._report_end_of_call(number, is_bad=not is_allowed)
        return is_allowed

    async def _run_tools(self, calls: Sequence[Json]) -> str:
        """Call the tools, in parallel, and return the texts of their results."""
        texts = [""] * len(calls)

        async def run(index: int, call: Json) -> None:
            texts[index] = await self._run_tool(call)

        try:
            async with anyio.create_task_group() as tasks:
                for index, call in enumerate(calls):
                    tasks.start_soon(run, index, call)
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None  # Such as the error that answers the prompt.
        return " ".join(texts)

    async def _run_tool(self, call: Json) -> str:
        name, arguments = call["name"], json.loads(call["text"] or "{}")
        server = next((one for one in self._tool_servers if name in one.tools), None)
        if server is None:
            return f"Nobody offers the tool {name}."
        if self.agent.is_denied:
            return "Denied by a rule."
        title = f"Running: @{server.name}/{name}"
        is_allowed = _may_use(self.agent.allowed, server.name)
        if not is_allowed and not await self._ask_permission(title, name):
            return "Denied by the client."
        number = self._report_call(title, "other", arguments, call["id"])
        seconds = HELD_CALL_SECONDS
        if "request_timeout" in self._scenes and server.request_timeout:
            seconds = server.request_timeout / 1000
        params = {"name": name, "arguments": arguments, "_meta": {"progressToken": number}}
        result: Json | None = None
        with anyio.move_on_after(seconds / self._server.given.scale):
            result = await server.request("tools/call", params)
        is_bad = result is None or result.get("isError", False) or "error" in result
        content = (result or {}).get("content", [])
        self._report_end_of_call(number, is_bad=is_bad, rawOutput=content)
        if result is None:
            return "Dropped: the tool did not answer in time."
        return " ".join(part.get("text", "") for part in content)


def _effort_schema(model_id: str) -> Json:
    model = next((one for one in CATALOGUE if one["modelId"] == model_id), CATALOGUE[0])
    schema: Json = model.get("additionalModelRequestFieldsSchema", {})
    members: Json = schema.get("properties", {})
    holder: Json = members.get("output_config") or members.get("reasoning") or {}
    return holder.get("properties", {}).get("effort", {})


def _select(number: str, name: str, category: str, value: str, options: Sequence[Json]) -> Json:
    head = {"id": number, "type": "select", "name": name, "category": category}
    return {**head, "currentValue": value, "options": options}


# --- the MCP servers of the client


class _ToolServer:
    """An MCP server of the client, reached over Streamable HTTP.

    Args:
        client: Sends its requests.
        given: What session/new or an agent file says of it.
    """

    def __init__(self, client: httpx.AsyncClient, given: Json) -> None:
        self.name: str = given["name"]
        self.tools: dict[str, Json] = {}
        """What it lists, by name."""
        self.request_timeout: float | None = given.get("requestTimeout")
        """How long a call may take, in milliseconds; None if nothing says so."""
        headers = given["headers"]
        if isinstance(headers, list):  # In an agent file they are an object.
            headers = {one["name"]: one["value"] for one in cast("list[Json]", headers)}
        self._url: str = given["url"]
        self._headers = {**headers, "accept": "application/json, text/event-stream"}
        self._client = client
        self._id = 0

    async def connect(self, seconds: float, *, discovers: bool) -> str:
        """Connect and list the tools; return why it failed, or ""."""
        try:
            with anyio.fail_after(seconds):
                if discovers:
                    await self.request("server/discover", {})  # An error makes it go back.
                info = {"name": "kiro-cli", "version": "2"}
                first = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
                started = await self.request("initialize", first)
                self._headers["mcp-protocol-version"] = started["protocolVersion"]
                await self._post({"method": "notifications/initialized"})
                listed = await self.request("tools/list", {})
                self.tools = {tool["name"]: tool for tool in listed["tools"]}
        except TimeoutError:
            return "timed out"
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    async def request(self, method: str, params: Mapping[str, object]) -> Json:
        """Return the result of a request, or an object with its `error`."""
        self._id += 1
        body = await self._post({"id": self._id, "method": method, "params": params})
        lines = [body]  # JSON, or an event stream.
        if not body.lstrip().startswith("{"):
            lines = [line[5:] for line in body.splitlines() if line.startswith("data:")]
        for message in map(json.loads, lines):
            if "result" in message or "error" in message:
                return message.get("result") or {"error": message.get("error")}
        raise ValueError(f"no response to {method}")

    async def _post(self, message: Mapping[str, object]) -> str:
        response = await self._client.post(
            self._url, json={"jsonrpc": "2.0", **message}, headers=self._headers
        )
        if session := response.headers.get("mcp-session-id"):
            self._headers["mcp-session-id"] = session
        if message["method"] != "server/discover":
            response.raise_for_status()
        return response.text
