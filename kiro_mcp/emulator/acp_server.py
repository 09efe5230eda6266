"""What `kiro-cli acp` does: JSON-RPC with sessions, in one of its two engines, v2 and V3.

`AcpServer` reads the lines of a client and answers them; `kiro_mcp.emulator.kiro_cli` starts it and
lists its scenes. Tables hold the notices that a scene sends before an answer, and its errors. All
else that a scene changes is in the method that it changes.
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
_CREDITS: Final = {"unit": "credit", "unitPlural": "credits"}


# --- scenes


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


_FAILURES: Final[Mapping[str, Mapping[str, _RpcError]]] = {
    "session/new": {"expired": _internal_error({"details": _EXPIRED})},
    "session/prompt": {
        "expired_prompt": _internal_error(_EXPIRED),
        "invalid_history": _internal_error("invalid conversation history received"),
        "network_error": _network_error("Network error"),
        "rate_limited": _internal_error("ThrottlingException: Too many requests, please wait."),
        "usage_limit": _internal_error({"details": "You have reached your monthly usage limit."}),
    },
}
"""The errors that scenes answer a method with."""


def _update(kind: str, /, **members: object) -> Json:
    return {"update": {"sessionUpdate": kind, **members}}


def _chunk(text: str, kind: str = "agent_message_chunk") -> Json:
    return _update(kind, content={"type": "text", "text": text})


def _info(kind: str, /, **members: object) -> Json:
    """Return one of V3's own notices."""
    return _update("session_info_update", _meta={"kiro": {**members, "kind": kind}})


_NOTICES: Final[Mapping[tuple[str, str], Sequence[tuple[str, Json]]]] = {
    ("v2", "agent_switched"): [("_kiro.dev/agent/switched", {"agentName": "kiro_planner"})],
    ("v2", "compaction"): [
        ("_kiro.dev/compaction/status", {"status": {"type": kind}})
        for kind in ("started", "completed")
    ],
    ("v3", "compaction"): [
        ("session/update", _info(f"summarization_{kind}")) for kind in ("started", "completed")
    ],
    ("v2", "rate_limited"): [
        ("_kiro.dev/error/rate_limit", {"message": "Too many requests, please wait."})
    ],
    ("v3", "rate_limited"): [
        ("_kiro/error/rate_limit", {"message": "Too many requests, please wait."})
    ],
    ("v2", "watchdog"): [
        ("session/update", _chunk("This text is discarded.")),
        ("_kiro.dev/session/update", _update("stream_stall_notice", idleSeconds=60)),
        ("_kiro.dev/session/update", _update("stream_discarded")),
        (
            "_kiro.dev/session/update",
            _update("retry_warning", attempt=1, maxAttempts=3, delaySecs=1, message="Stalled"),
        ),
    ],
}
"""What an engine tells in a scene, before it answers a prompt."""

_LAST_WORDS: Final = {
    "cancel_ignored": "Nothing stops me.",
    "hang_prompt": "",
    "tools_interrupted": "Tool uses were interrupted, waiting for the next user prompt",
}
"""What is said in the scenes in which a prompt is never answered."""


# --- the protocol


@dataclass(frozen=True, slots=True)
class Agent:
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


@dataclass(slots=True)
class Session:
    """One conversation."""

    id: str
    agent: Agent
    agents: Mapping[str, Agent]
    model: str
    effort: str | None
    servers: "list[ToolServer]" = field(default_factory=list["ToolServer"])
    is_busy: bool = False
    is_refused: bool = False
    """Whether the client answered a permission request of this prompt with `cancelled`."""
    turns: int = 0
    scope: anyio.CancelScope | None = None


@dataclass(slots=True)
class Answer:
    """What a script has said so far."""

    said: str = ""
    calls: dict[str, Json] = field(default_factory=dict[str, Json])
    stop_reason: str = "end_turn"
    refusal: Json | None = None
    percent: float = 0.0
    credits: float = 0.0


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
        self.home = home
        self.write = write
        self.end = end
        self.has_login = given.is_signed_in and (
            not self.is_v3 or flags.get("--auth-method") == "cli"
        )
        self.is_initialized = False
        self.sessions: dict[str, Session] = {}
        self.servers: list[ToolServer] = []
        """The MCP servers of all sessions."""
        self.tasks: TaskGroup
        self._own_id = 0
        self._waiting: dict[str | int, tuple[anyio.Event, list[Json]]] = {}
        self._prompts = 0

    async def serve(self, lines: AsyncIterable[bytes]) -> None:
        """Serve until the lines of stdin end."""
        async with anyio.create_task_group() as self.tasks:
            if self.is_v3 and "--auth-method" not in self.flags:
                # Asks the client for the login, even before `initialize` is answered.
                no_params: Json = {}
                self.tasks.start_soon(self.ask_client, "_kiro/auth/getAccessToken", no_params)
            try:
                async for line in lines:
                    self._receive(line)
                self.tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    for server in self.servers:
                        await server.aclose()

    async def _end(self, code: int, last_words: str = "") -> NoReturn:
        """End the process at once."""
        if last_words:
            sys.stderr.write(f"{last_words}\n")
            sys.stderr.flush()
        self.end(code)
        self.tasks.cancel_scope.cancel()
        await _hang()

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
                session = self.sessions.get(name)
                if session and session.scope and "cancel_ignored" not in self.scenes:
                    session.scope.cancel()
            case {"jsonrpc": "2.0", "method": str()}:
                pass
            case {"jsonrpc": "2.0", "id": str() | int() as number} if number in self._waiting:
                event, answers = self._waiting.pop(number)
                answers.append(message)
                event.set()
            case _:
                self.send({"id": None, "error": {"code": -32600, "message": "Invalid request"}})

    def send(self, message: Mapping[str, object]) -> None:
        """Write one message."""
        if "bad_lines" in self.scenes:
            self.write(b"INFO not json\n\n[]\n7\n\xff\xfe\n{}\n")
            strange = {"jsonrpc": "2.0", "method": "_kiro.dev/from_the_future", "params": [1]}
            self.write(json.dumps(strange).encode() + b"\n")
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def notify(self, session: Session, method: str, params: Mapping[str, object]) -> None:
        """Send a notification."""
        self.send({"method": method, "params": {"sessionId": session.id, **params}})

    def tell(self, session: Session, name: str, /, **params: object) -> None:
        """Send a notification of the vendor's own."""
        self.notify(session, f"{_VENDOR[self.engine]}/{name}", params)

    def update(self, session: Session, update: Json) -> None:
        """Send a `session/update`."""
        self.notify(session, "session/update", update)

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
            self._announce(self.sessions[result["sessionId"]])
        elif method == "session/prompt" and (session := self.sessions.get(params["sessionId"])):
            await self._report_late_usage(session)

    async def _call(self, method: str, params: Json) -> Json:
        if method != "initialize" and not self.is_initialized:
            raise _RpcError(-32600, "Invalid request", "initialize comes first")
        match method:
            case "initialize":
                return await self._initialize(params)
            case "session/new":
                return await self._new_session(params)
            case "session/load":  # An unknown id ends the process; a new process knows no id.
                await self._end(0)
            case "session/prompt":
                return await self._prompt(self._session(params), params)
            case "session/set_mode":
                self._set_mode(self._session(params), params.get("modeId", ""))
            case "session/set_model" if not self.is_v3:
                self._session(params).model = str(params.get("modelId", ""))  # It is not checked.
            case "session/set_config_option" if self.is_v3:
                return self._set_option(self._session(params), params)
            case "session/close" | "_kiro/session/delete" if self.is_v3:
                self.sessions.pop(self._session(params).id)
            case "_kiro.dev/session/terminate" if not self.is_v3:
                self.sessions.pop(self._session(params).id)
            case _:
                raise _RpcError(-32601, "Method not found", method)
        return {}

    def _session(self, params: Json) -> Session:
        try:
            return self.sessions[params["sessionId"]]
        except (KeyError, TypeError):
            raise _internal_error("Session not found") from None

    def _fail_by_scene(self, method: str) -> None:
        for scene, error in _FAILURES[method].items():
            if scene in self.scenes:
                raise error

    # --- start

    async def _initialize(self, params: Json) -> Json:
        if self.scenes & {"hang_initialize", "not_logged_in_hang"}:
            await _hang()
        version = params.get("protocolVersion")
        if type(version) is not int:  # A bool is not a version, either.
            if not self.is_v3:
                await self._end(1, "Error: invalid type: expected an integer protocolVersion")
            raise _invalid_params("protocolVersion must be an integer")
        self.is_initialized = True
        abilities: Json = {
            "loadSession": True,
            "promptCapabilities": {"image": True, "audio": False, "embeddedContext": self.is_v3},
            "mcpCapabilities": {"http": True, "sse": self.is_v3},
            "sessionCapabilities": {},
        }
        answer: Json = {"protocolVersion": 1, "agentCapabilities": abilities, "authMethods": []}
        if not self.is_v3:
            name = "Kiro CLI Agent"
            return {
                **answer,
                "agentInfo": {"name": name, "title": name, "version": self.given.version},
            }
        abilities["sessionCapabilities"] = {"list": {}, "close": {}, "delete": {}, "fork": {}}
        methods = ["_kiro/session/delete"]
        abilities["_meta"] = {"kiro": {"extensionMethods": methods, "replayMarking": True}}
        ids = ("kiro-login", "kiro-api-key")
        return {**answer, "authMethods": [{"id": one, "name": one} for one in ids]}

    async def _new_session(self, params: Json) -> Json:
        if "hang_session" in self.scenes:
            await _hang()
        if "exit_0" in self.scenes:
            await self._end(0)
        self._fail_by_scene("session/new")
        cwd: Any = params.get("cwd")
        servers: Any = params.get("mcpServers")
        if not isinstance(cwd, str) or not Path(cwd).is_absolute():
            raise _invalid_params("cwd must be an absolute path")
        if not Path(cwd).is_dir():  # noqa: ASYNC240  # one session starts at a time
            raise _internal_error(f"cwd {cwd} is not a directory")
        if type(servers) is not list:
            raise _invalid_params("missing field `mcpServers`")
        wanted = [one for one in cast("list[Json]", servers) if "url" in one]  # Others are ignored.
        are_complete = all(
            one.get("type") == "http" and isinstance(one.get("headers"), list) for one in wanted
        )
        if not are_complete:
            await (_hang() if self.is_v3 else self._end(0))
        agents, fault = self._agents(params)
        agent = next(iter(agents.values()))
        model, effort = self.flags.get("--model", DEFAULT_MODEL_ID), self.flags.get("--effort")
        prefix = "sess_" if self.is_v3 else ""
        session = Session(f"{prefix}{uuid.uuid4()}", agent, agents, model, effort)
        if fault:
            self.tell(session, "agent/config_error", error=fault)
        if self.is_v3:
            await self.ask_client("_kiro/terminal/shell_type", {"sessionId": session.id})
        by_name = {one["name"]: one for one in (*agent.servers, *wanted)}
        for one in by_name.values():
            await self._connect(session, one)
        self.sessions[session.id] = session
        modes = [{"id": name, "name": name} for name in agents]
        answer: Json = {
            "sessionId": session.id,
            "modes": {"currentModeId": agent.id, "availableModes": modes},
        }
        if not self.is_v3:
            listed = [
                {"modelId": one["modelId"], "name": one["modelId"], "description": ""}
                for one in CATALOGUE
            ]
            return {**answer, "models": {"currentModelId": model, "availableModels": listed}}
        if "late_model" in self.scenes:
            return {**answer, "_meta": {}}
        return {**answer, "configOptions": _config_options(session), "_meta": {}}

    def _announce(self, session: Session) -> None:
        """Send what follows the answer to session/new."""
        if self.is_v3:
            if "late_model" in self.scenes:
                options = _config_options(session)
                self.update(session, _update("config_option_update", configOptions=options))
            self.update(session, _update("available_commands_update", availableCommands=[]))
            self._announce_tools(session)
            return
        agent = session.agent.id
        if (requested := self.flags.get("--agent", agent)) != agent:
            self.tell(session, "agent/not_found", requestedAgent=requested, fallbackAgent=agent)
        if "user_servers" in self.scenes:
            self.tell(session, "mcp/server_initialized", serverName="github")
        commands = [{"name": "/model", "description": "Select a model"}]
        self.tell(session, "commands/available", commands=commands, tools=[], mcpServers=[])

    def _announce_tools(self, session: Session) -> None:
        origins = {one.name: "session" for one in session.servers}
        if "user_servers" in self.scenes:
            origins["github"] = "user"
        servers = [
            {"name": name, "status": "connected", "origin": origin}
            for name, origin in origins.items()
        ]
        self.tell(session, "mcp/status", servers=servers)
        own = [{"name": "execute_bash"}] if "*" in session.agent.tools else []
        tools = [{"name": f"@{one.name}/{name}"} for one in session.servers for name in one.tools]
        self.tell(session, "tools/didChange", tools=[*own, *tools])

    def _agents(self, params: Json) -> tuple[Mapping[str, Agent], str]:
        """Return the agents of a new session, the current one first, and any fault of its file."""
        own = {name: Agent(name) for name in _OWN_AGENTS[self.engine]}
        if self.is_v3:
            given = params.get("_meta", {}).get("kiro", {}).get("customAgents", [])
            return own | {one["id"]: _inline_agent(one) for one in given}, ""
        name = self.flags.get("--agent", "")
        path = self.home / "agents" / f"{name}.json"
        if not name or "agent_not_found" in self.scenes or not path.is_file():
            return own, ""
        try:
            return {name: _file_agent(path)} | own, ""
        except (ValueError, KeyError, TypeError) as error:
            return own, f"{path}: {error}"

    async def _connect(self, session: Session, one: Json) -> None:
        server = ToolServer(one)
        self.servers.append(server)
        fault = await server.connect(CONNECT_SECONDS / self.given.scale, discovers=self.is_v3)
        if not fault:
            session.servers.append(server)
        if self.is_v3 and fault:
            broken = {"name": server.name, "status": "failed", "errorMessage": fault}
            self.tell(session, "mcp/status", servers=[broken])
        elif fault:
            self.tell(session, "mcp/server_init_failure", serverName=server.name, error=fault)
        elif not self.is_v3:
            self.tell(session, "mcp/server_initialized", serverName=server.name)

    # --- choices

    def _set_mode(self, session: Session, wanted: str) -> None:
        if wanted not in session.agents:
            raise _internal_error(f"Mode '{wanted}' not found")
        session.agent = session.agents[wanted]
        self.update(session, _update("current_mode_update", currentModeId=wanted))
        if self.is_v3:
            self._announce_tools(session)

    def _set_option(self, session: Session, params: Json) -> Json:
        match params:
            case {"configId": "model", "value": str(value)}:  # Not checked, as the real one.
                session.model, session.effort = value, None
            case {"configId": "effortLevel", "value": str(value)}:
                if value in _effort_schema(session.model).get("enum", []):  # Others are ignored.
                    session.effort = value
            case {"configId": "mode", "value": str(value)}:
                self._set_mode(session, value)
            case _:
                raise _invalid_params("unknown configId")
        return {"configOptions": _config_options(session)}

    # --- prompts

    async def _prompt(self, session: Session, params: Json) -> Json:
        if session.is_busy:
            raise _internal_error("Prompt already in progress")
        texts, images = self._read_blocks(params.get("prompt") or [])
        if not self.has_login:
            raise _RpcError(-32000, "Authentication required")
        for scene in sorted(self.scenes):
            for method, members in _NOTICES.get((self.engine, scene), ()):
                self.notify(session, method, members)
        self._fail_by_scene("session/prompt")
        session.is_busy, session.is_refused = True, False
        session.turns += 1
        if self.is_v3:
            self.update(session, _info("turn_start"))
        answer, credits, started = Answer(), 0.0, time.monotonic()
        session.scope = anyio.CancelScope()
        try:
            with session.scope:
                await self._act_by_scene(session)
                script, prompt = self._first_script(session, texts, images)
                while not session.is_refused:
                    answer = await self._play(session, script)
                    credits += answer.credits
                    if not answer.calls:
                        break
                    returned = await self._run_tools(session, list(answer.calls.values()))
                    prompt = replace(prompt, returned=returned, serial=prompt.serial + 1000)
                    name = "long" if "long_after_tools" in self.scenes else "text"
                    if "retry_call" in self.scenes and returned.startswith("Dropped"):
                        name = "tool_use"
                    script = BUILT_IN[name](prompt)
        finally:
            session.is_busy = False
        if session.is_refused:
            answer.stop_reason = "refusal"
        if session.scope.cancelled_caught:
            await anyio.sleep(0.05)  # It does not end at once, and updates may still come.
            self.update(session, _chunk("…"))
            answer.stop_reason = "cancelled"
        if "unknown_stop" in self.scenes:
            answer.stop_reason = "stopped_by_the_future"
        self._report_usage(session, answer, credits, int(1000 * (time.monotonic() - started)))
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
                    self.is_v3
                ):
                    texts.insert(0, text)
                case _:
                    raise _invalid_params(f"unsupported content block {str(block)[:80]}")
        return texts, images

    async def _act_by_scene(self, session: Session) -> None:
        """Do what a scene does before the answer."""
        for scene in self.scenes & _LAST_WORDS.keys():
            if words := _LAST_WORDS[scene]:
                self.update(session, _chunk(words))
            await _hang()
        if "permission" in self.scenes:
            await self._ask_permission(session, "Running: rm -rf notes", "execute_bash")
        if "foreign_tool" in self.scenes or "*" in session.agent.tools:
            number = self._report_call(session, "Running: ls", "execute", {"command": "ls"})
            self._report_end_of_call(session, number, is_bad=False)

    def _first_script(
        self, session: Session, texts: Sequence[str], images: int
    ) -> tuple[Script, Prompt]:
        self._prompts += 1
        tools = [
            ToolSpec.model_validate(
                {
                    "name": tool["name"],
                    "description": tool.get("description") or tool["name"],
                    "inputSchema": {"json": tool.get("inputSchema", {})},
                }
            )
            for server in session.servers
            if _may_use(session.agent.tools, server.name)
            for tool in server.tools.values()
        ]
        said = texts[-1].strip() if texts else ""
        start = said.rfind("/emulate ")
        prompt = Prompt(
            said=said[max(0, start) :],
            tools=tools,
            model_id=session.model,
            tokens=tokens_of("".join([session.agent.prompt, *texts])),
            serial=self._prompts,
        )
        if "refusal_empty" in self.scenes:
            return (Send(prompt.ending("", "CONTENT_FILTERED")),), prompt
        forced = sorted(self.scenes & BUILT_IN.keys())
        forced += ["parallel_tools"] if "two_calls" in self.scenes else []
        name = next(iter(forced), prompt.name or "text")
        if name == "session":
            facts = {
                "engine": self.engine,
                "agent": session.agent.id,
                "system": session.agent.prompt,
                "model": session.model,
                "effort": session.effort,
                "turns": session.turns,
                "images": images,
                "texts": list(texts),
                "tools": [tool.name for tool in tools],
            }
            return whole_answer(prompt, json.dumps(facts)), prompt
        if name not in BUILT_IN:
            return whole_answer(prompt, f"The stand-in has no script {name!r}."), prompt
        return BUILT_IN[name](prompt), prompt

    async def _play(self, session: Session, script: Script) -> Answer:
        """Send an answer as updates; return what was said, and the tool calls to make."""
        decoder, answer = FrameDecoder(), Answer()
        broken = _internal_error("Encountered an error in the response stream")
        if self.is_v3:
            broken = _network_error("The connection was lost.")
        for step in script:
            match step:
                case Send(data=data):
                    for frame in decoder.feed(data):
                        kind = str(frame.headers.get(":event-type", "exception"))
                        self._pass_on(session, answer, kind, json.loads(frame.payload))
                        if "crash" in self.scenes and len(answer.said) > 20:
                            panic = "thread 'main' panicked at src/agent.rs:1: stand-in"
                            await self._end(101, panic)
                        await checkpoint()
                    if decoder.fault is not None:
                        raise broken
                case Pause(seconds=seconds):
                    await anyio.sleep(seconds)
                case Refusal():
                    if "Throttling" in step.error_type:
                        self.tell(session, "error/rate_limit", message=step.message)
                    is_login = step.status == 403 and not step.reason
                    detail = _EXPIRED if is_login else step.message
                    raise _internal_error({"details": f"{step.error_type}: {detail}"})
                case _:
                    raise broken
        answer.calls = {number: call for number, call in answer.calls.items() if call["is_whole"]}
        return answer

    def _pass_on(self, session: Session, answer: Answer, kind: str, payload: Json) -> None:
        """Send one event of the service as the program reports it."""
        match kind:
            case "assistantResponseEvent":
                answer.said += payload["content"]
                self.update(session, _chunk(payload["content"]))
            case "reasoningContentEvent" if "text" in payload:
                self.update(session, _chunk(payload["text"], "agent_thought_chunk"))
            case "toolUseEvent":
                number = payload["toolUseId"]
                call = answer.calls.setdefault(
                    number, {"id": number, "name": payload["name"], "text": ""}
                )
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

    def _report_usage(
        self, session: Session, answer: Answer, credits: float, milliseconds: int
    ) -> None:
        """Send what comes before the answer to a prompt."""
        if self.is_v3:
            summary: Json = {**_CREDITS, "usage": credits, "usedTools": []}
            completion = _info(
                "turn_completion",
                promptTurnSummaries=[summary] if credits else [],
                elapsedTime=milliseconds,
                status="success",
                requestIds=[str(uuid.uuid4())],
            )
            self.update(session, completion)
            if answer.refusal:
                why = answer.refusal["explanation"]
                self.update(session, _info("display_error", message=why))
            self.update(session, _info("turn_end", stopReason=answer.stop_reason))
            return
        usage: Json = {"contextUsagePercentage": answer.percent}
        if session.effort:
            usage["effort"] = session.effort
        self.tell(session, "metadata", **usage)
        if credits and "late_usage" not in self.scenes:
            usage["meteringUsage"] = [{**_CREDITS, "value": credits}]
            usage["turnDurationMs"] = milliseconds
        if answer.refusal:
            usage |= {"stopReason": "CONTENT_FILTERED", "refusal": answer.refusal}
        self.tell(session, "metadata", **usage)

    async def _report_late_usage(self, session: Session) -> None:
        """Send what comes after the answer to a prompt."""
        if "late_usage" in self.scenes:
            await anyio.sleep(0.1)
        if self.is_v3:
            self.update(session, _info("context_usage", usagePercentage=1.5, breakdown={}))
        elif "late_usage" in self.scenes:
            spent = [{**_CREDITS, "value": 0.0148}]
            self.tell(session, "metadata", contextUsagePercentage=1.5, meteringUsage=spent)

    # --- tools

    def _report_call(
        self, session: Session, title: str, kind: str, arguments: Json, number: str = ""
    ) -> str:
        number = number or f"tooluse_{uuid.uuid4().hex[:22]}"
        call = _update(
            "tool_call",
            toolCallId=number,
            title=title,
            kind=kind,
            status="pending",
            rawInput={**arguments, "__tool_use_purpose": "To answer the question."},
        )
        self.update(session, call)
        return number

    def _report_end_of_call(
        self, session: Session, number: str, *, is_bad: bool, **more: object
    ) -> None:
        status = "failed" if is_bad else "completed"
        self.update(session, _update("tool_call_update", toolCallId=number, status=status, **more))

    async def _ask_permission(self, session: Session, title: str, name: str) -> bool:
        """Ask for permission; return whether the client allows the call."""
        number = self._report_call(session, title, "execute", {"tool": name})
        ids = _OPTION_IDS[self.engine]
        params: Json = {
            "sessionId": session.id,
            "toolCall": {"toolCallId": number, "title": title},
            "options": [
                {"optionId": one, "name": kind.replace("_", " "), "kind": kind}
                for one, kind in zip(ids, _PERMISSIONS, strict=True)
            ],
        }
        answer = await self.ask_client("session/request_permission", params)
        is_allowed = False
        match answer.get("result"):
            case {"outcome": {"outcome": "selected", "optionId": str(chosen)}} if chosen in ids:
                is_allowed = chosen != ids[-1]
            case {"outcome": {"outcome": "cancelled"}}:
                session.is_refused = True
            case other:
                raise _internal_error(f"invalid permission response {str(other)[:80]}")
        self._report_end_of_call(session, number, is_bad=not is_allowed)
        return is_allowed

    async def _run_tools(self, session: Session, calls: Sequence[Json]) -> str:
        """Call the tools, in parallel, and return the texts of their results."""
        texts = [""] * len(calls)

        async def run(index: int, call: Json) -> None:
            texts[index] = await self._run_tool(session, call)

        async with anyio.create_task_group() as tasks:
            for index, call in enumerate(calls):
                tasks.start_soon(run, index, call)
        return " ".join(texts)

    async def _run_tool(self, session: Session, call: Json) -> str:
        name, arguments = call["name"], json.loads(call["text"] or "{}")
        server = next((one for one in session.servers if name in one.tools), None)
        if server is None:
            return f"Nobody offers the tool {name}."
        title = f"Running: @{server.name}/{name}"
        agent = session.agent
        if agent.is_denied:
            return "Denied by a rule."
        if not _may_use(agent.allowed, server.name) and not await self._ask_permission(
            session, title, name
        ):
            return "Denied by the client."
        number = self._report_call(session, title, "other", arguments, call["id"])
        seconds = HELD_CALL_SECONDS
        if "request_timeout" in self.scenes and server.request_timeout:
            seconds = server.request_timeout / 1000
        result: Json | None = None
        with anyio.move_on_after(seconds / self.given.scale):
            result = await server.request(
                "tools/call",
                {"name": name, "arguments": arguments, "_meta": {"progressToken": number}},
            )
        is_bad = result is None or result.get("isError", False) or "error" in result
        content = (result or {}).get("content", [])
        self._report_end_of_call(session, number, is_bad=is_bad, rawOutput=content)
        if result is None:
            return "Dropped: the tool did not answer in time."
        return " ".join(part.get("text", "") for part in content)


class ToolServer:
    """An MCP server of the client, reached over Streamable HTTP.

    Args:
        given: What session/new or an agent file says of it.
    """

    def __init__(self, given: Json) -> None:
        self.name: str = given["name"]
        self.tools: dict[str, Json] = {}
        """What it lists, by name."""
        self.request_timeout: float | None = given.get("requestTimeout")
        """How long a call may take, in milliseconds; None if nothing says so."""
        headers = given["headers"]
        if isinstance(headers, list):  # In an agent file they are an object.
            pairs = cast("list[Json]", headers)
            headers = {one["name"]: one["value"] for one in pairs}
        self._url: str = given["url"]
        self._headers = {**headers, "accept": "application/json, text/event-stream"}
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113  # callers have deadlines
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

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

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


# --- values


def _file_agent(path: Path) -> Agent:
    """Read an agent file of v2."""
    content = json.loads(path.read_text(encoding="utf-8"))
    prompt = content.get("prompt") or ""
    if prompt.startswith("file://"):
        prompt = (path.parent / prompt.removeprefix("file://")).read_text(encoding="utf-8")
    return Agent(
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


def _inline_agent(content: Json) -> Agent:
    """Read a custom agent of V3's session/new."""
    if not content.get("id") or not content.get("prompt"):
        raise _invalid_params("customAgents: id and prompt must not be empty")
    rules = content.get("permissions", {}).get("rules", [])
    allowed = [one for rule in rules if rule["effect"] == "allow" for one in rule["match"]]
    return Agent(
        content["id"],
        content["prompt"],
        content.get("tools", ["*"]),
        [f"@{match.removesuffix('/*')}" for match in allowed],
        is_denied=any(rule["effect"] == "deny" for rule in rules),  # A deny always wins.
    )


def _may_use(granted: Sequence[str], server: str) -> bool:
    return "*" in granted or f"@{server}" in granted


def _effort_schema(model_id: str) -> Json:
    model = next((one for one in CATALOGUE if one["modelId"] == model_id), CATALOGUE[0])
    schema: Json = model.get("additionalModelRequestFieldsSchema", {})
    members: Json = schema.get("properties", {})
    holder: Json = members.get("output_config") or members.get("reasoning") or {}
    return holder.get("properties", {}).get("effort", {})


def _config_options(session: Session) -> list[Json]:
    """Return V3's options of a session."""
    models: list[Json] = []
    for model in CATALOGUE:
        kiro: Json = {name: model[name] for name in ("rateMultiplier", "rateUnit")}
        effort = _effort_schema(model["modelId"])
        kiro["hasEffort"] = bool(effort)
        if effort:
            kiro |= {"effortLevels": effort["enum"], "defaultEffortLevel": effort["default"]}
        models.append(
            {"value": model["modelId"], "name": model["modelName"], "_meta": {"kiro": kiro}}
        )
    chosen = [_select("model", "Model", "model", session.model, models)]
    if effort := _effort_schema(session.model):
        levels = [{"value": one, "name": one} for one in effort["enum"]]
        value = session.effort or effort["default"]
        chosen.append(_select("effortLevel", "Effort", "thought_level", value, levels))
    return chosen


def _select(number: str, name: str, category: str, value: str, options: Sequence[Json]) -> Json:
    head = {"id": number, "type": "select", "name": name, "category": category}
    return {**head, "currentValue": value, "options": options}


async def _hang() -> NoReturn:
    await anyio.sleep_forever()
    raise AssertionError
