"""A stand-in for the vendor's program `kiro-cli`, for `--offline` and for tests.

    python -m kiro_mcp.emulator.kiro_cli [--dialect v2|v3] [--scene NAME]... [--scale N]
                                         [--log FILE] ARGS...

ARGS are those of kiro-cli: `--version`, `whoami`, `acp`, `acp --help` and
`chat --list-models --format json`. `acp` speaks JSON-RPC, one object a line, on stdin and stdout.

The dialect is what the program can do: `v2` is an older program, which has no `--auth-method`;
`v3`, the default, also has the V3 engine, which `acp --agent-engine v3` selects. The stand-in is
strict wherever the real program is known to be strict, so that a wrong client fails here: it
answers an error, exits without a word, or never answers.

A prompt is answered by the scripts of `kiro_mcp.emulator.scripts`: `/emulate NAME` in the last text
block picks one, and `/emulate session` answers with the session as JSON. A tool call really goes to
the MCP server that the client names; it is dropped after 120 seconds. `--scale N` makes this and
all other waits N times shorter. A scene is a fault or a rare behaviour: a name of `SCENES`, or of a
script, which then answers every prompt. `--log FILE` appends what the client sent, and how the
program was started, as JSON lines.

Source of truth: captures of kiro-cli 2.12 to 2.28 and the vendor's documentation (2026).
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO, TypeAlias, cast

from kiro_mcp.emulator.catalogue import CATALOGUE, DEFAULT_MODEL_ID, Model

if TYPE_CHECKING:
    import anyio
    import httpx
    from anyio.abc import TaskGroup

    from kiro_mcp.emulator.scripts import Prompt, Script

Json: TypeAlias = dict[str, Any]

SCENES: Final[Mapping[str, str]] = {
    "agent_not_found": "v2: the agent is not found, although its file is there",
    "agent_switched": "v2: another agent takes over during a prompt",
    "bad_lines": "lines that are not JSON-RPC before every message",
    "cancel_ignored": "a cancelled prompt runs on and never ends",
    "compaction": "the history is compacted during a prompt",
    "crash": "the process ends in the middle of an answer",
    "exit_0": "the process ends at session/new, with code 0 and without a word",
    "expired": "session/new fails: the login has expired",
    "expired_prompt": "session/prompt fails: the login has expired",
    "foreign_tool": "the model calls a tool that the client did not offer",
    "full_stderr": "a megabyte of logs on stderr before every answer",
    "hang_initialize": "initialize is never answered",
    "hang_prompt": "session/prompt is never answered",
    "hang_session": "session/new is never answered",
    "id_collision": "before every answer, a request of the program's own with the same id",
    "invalid_history": "session/prompt fails: the history is invalid",
    "late_model": "V3: the model option comes after the answer to session/new",
    "late_usage": "usage comes 100 ms after the answer to a prompt",
    "network_error": "session/prompt fails: the program cannot reach the service",
    "no_v2": "the program has no v2 engine any more",
    "not_logged_in": "nobody is signed in: exit 1",
    "not_logged_in_hang": "nobody is signed in: acp never answers",
    "old": "the program has no acp",
    "orphan": "a launcher with a child that outlives it and ignores the end of stdin",
    "permission": "the model asks for permission to use a tool of its own",
    "rate_limited": "session/prompt fails: too many requests",
    "refusal_empty": "an answer without text that ends with refusal",
    "request_timeout": "a tool call is dropped after the agent file's requestTimeout instead",
    "retry_call": "after a dropped tool call, the model makes the same call again",
    "slow_whoami": "whoami takes 15 seconds",
    "tools_interrupted": "v2: the text that tool uses were interrupted, and no answer",
    "two_calls": "two parallel tool calls in every prompt",
    "unknown_stop": "an answer with an unknown stop reason",
    "usage_limit": "session/prompt fails: the monthly limit is reached",
    "user_servers": "an MCP server of the user is started, too",
    "watchdog": "v2: notices of a stalled stream, and a text that is discarded and sent again",
}

HELD_CALL_SECONDS: Final = 120.0
"""After this time the program drops a tool call that is not answered."""

CONNECT_SECONDS: Final = 30.0
"""How long session/new waits for an MCP server that does not answer."""

VERSIONS: Final = {"v2": "2.19.1", "v3": "2.28.0"}
EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
OWN_AGENTS: Final = {"v2": ("kiro_default", "kiro_planner"), "v3": ("vibe", "spec")}
"""The built-in agents, which have tools of their own; the first is the default."""

_INTERRUPTED_TEXT: Final = "Tool uses were interrupted, waiting for the next user prompt"
_NOT_LOGGED_IN: Final = "You are not logged in, please log in with kiro-cli login"
_EXPIRED: Final = "ExpiredTokenException: The security token included in the request is expired"
_OPTION_IDS: Final = {
    "v2": ("allow_once", "allow_always", "reject_once"),
    "v3": ("accept", "always-accept", "reject"),
}
_STOP_REASONS: Final = {"MAX_TOKENS": "max_tokens", "CONTENT_FILTERED": "refusal"}
_VALUE_FLAGS: Final = ("--agent", "--model", "--effort", "--trust-tools", "--agent-engine")
_V2_ONLY_FLAGS: Final = ("--agent", "--model", "--effort", "--trust-tools", "--trust-all-tools")


# --- the program


@dataclass(frozen=True, slots=True)
class Options:
    """How the stand-in behaves."""

    dialect: str = "v3"
    scenes: frozenset[str] = frozenset()
    scale: float = 1.0
    log: Path | None = None
    is_child: bool = False
    argv: tuple[str, ...] = ()
    """All words that the stand-in was started with."""

    @property
    def is_signed_in(self) -> bool:
        """Whether somebody is signed in."""
        return not self.scenes & {"not_logged_in", "not_logged_in_hang"}

    def record(self, **facts: object) -> None:
        """Append a line to the log."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")


def main(argv: Sequence[str]) -> int:
    """Run the program with the stand-in's own options and those of kiro-cli; return its code."""
    try:
        given, words = read_options(argv)
        return _run(given, words)
    except UsageError as error:
        _write(f"error: {error}\n\nFor more information, try '--help'.", sys.stderr)
        return 2


class UsageError(Exception):
    """The program was started with wrong words."""


def read_options(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Read the stand-in's own options; return them and the words for kiro-cli.

    Raises:
        UsageError: An option is wrong.
    """
    words, given = list(argv), Options(argv=tuple(argv))
    while words and words[0] in ("--dialect", "--scene", "--scale", "--log", "--child"):
        option = words.pop(0)
        if option == "--child":
            given = replace(given, is_child=True)
            continue
        if not words:
            raise UsageError(f"{option} needs a value")
        value = words.pop(0)
        match option:
            case "--dialect":
                given = replace(given, dialect=value)
            case "--scene":
                given = replace(given, scenes=given.scenes | {value})
            case "--scale":
                try:
                    given = replace(given, scale=float(value))
                except ValueError:
                    raise UsageError(f"--scale {value!r:.80} is not a number") from None
            case _:
                given = replace(given, log=Path(value))
    if unknown := given.scenes - SCENES.keys() - _script_names(given.scenes):
        raise UsageError(f"no scene {sorted(unknown)[0]!r}; known are {', '.join(SCENES)}")
    if given.dialect not in VERSIONS:
        raise UsageError(f"no dialect {given.dialect!r}; known are v2 and v3")
    return given, words


def _run(given: Options, words: Sequence[str]) -> int:
    given.record(args=words, pid=os.getpid(), cwd=str(Path.cwd()), environ=sorted(os.environ))
    match words:
        case ["--version" | "-V"]:
            _write(f"kiro-cli {VERSIONS[given.dialect]}")
        case ["whoami", *_]:
            if "slow_whoami" in given.scenes:
                time.sleep(15 / given.scale)
            _write("Logged in with Builder ID" if given.is_signed_in else "Not logged in")
            return 0 if given.is_signed_in else 1
        case ["chat", *rest] if "--list-models" in rest:
            if not given.is_signed_in:
                _write(_NOT_LOGGED_IN, sys.stderr)
                return 1
            _write(_list_models(as_json="json" in rest))
        case ["acp", *rest] if "old" not in given.scenes:
            return _run_acp(given, rest)
        case _:
            raise UsageError(f"unrecognized subcommand '{words[0] if words else ''}'")
    return 0


def _script_names(scenes: frozenset[str]) -> frozenset[str]:
    if not scenes - SCENES.keys():
        return frozenset()
    from kiro_mcp.emulator.scripts import BUILT_IN  # Few starts need it.

    return frozenset(BUILT_IN)


def _list_models(*, as_json: bool) -> str:
    models = [
        {
            "model_id": model["modelId"],
            "model_name": model["modelName"],
            "description": model["description"],
            "context_window_tokens": model["tokenLimits"]["maxInputTokens"],
            "rate_multiplier": model["rateMultiplier"],
            "rate_unit": model["rateUnit"],
        }
        for model in CATALOGUE
    ]
    if as_json:
        return json.dumps({"models": models, "default_model": DEFAULT_MODEL_ID})
    return "\n".join(model["model_id"] for model in models)


def _run_acp(given: Options, words: Sequence[str]) -> int:
    if "--help" in words or "-h" in words:
        value_flags, engines = _known_flags(given)
        _write("Run Kiro as an Agent Client Protocol agent\n\nUsage: kiro-cli acp [OPTIONS]\n")
        _write("Options:\n  -a, --trust-all-tools\n  -h, --help")
        for flag in value_flags:
            suffix = f" [possible values: {', '.join(engines)}]" if "engine" in flag else ""
            _write(f"      {flag} <{flag.strip('-').replace('-', '_').upper()}>{suffix}")
        return 0
    engine, flags = read_flags(given, words)
    if "not_logged_in" in given.scenes:
        _write(_NOT_LOGGED_IN, sys.stderr)
        return 1
    if "orphan" in given.scenes and not given.is_child:
        # The real launcher does not pass SIGTERM on to the program that it starts.
        again = [sys.executable, "-m", "kiro_mcp.emulator.kiro_cli", "--child", *given.argv]
        return subprocess.run(again, check=False).returncode  # noqa: S603  # our own arguments
    import anyio

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    home = Path(os.environ.get("KIRO_HOME") or Path.home() / ".kiro")
    server = AcpServer(given, engine, flags, home=home, write=write, end=os._exit)
    anyio.run(server.serve, anyio.wrap_file(sys.stdin.buffer))
    if "orphan" in given.scenes:
        time.sleep(3600)
    os._exit(0)  # Without waiting for the thread that reads stdin.


def _known_flags(given: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the flags of `acp` that have a value, and the engines."""
    value_flags = _VALUE_FLAGS
    if given.dialect == "v3":
        value_flags = (*value_flags, "--auth-method")
    return value_flags, ("v3",) if "no_v2" in given.scenes else ("v1", "v2", "v3")


def read_flags(given: Options, words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Read the flags of `acp`; return the engine and the flags.

    Raises:
        UsageError: A flag is wrong.
    """
    value_flags, engines = _known_flags(given)
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        flag, _, value = rest.pop(0).partition("=")
        if flag in value_flags:
            if not value and not rest:
                raise UsageError(f"a value is required for '{flag}'")
            flags[flag] = value or rest.pop(0)
        elif flag in ("-a", "--trust-all-tools"):
            flags["--trust-all-tools"] = ""
        else:
            raise UsageError(f"unexpected argument '{flag}' found")
    engine = flags.get("--agent-engine", engines[-1] if len(engines) == 1 else "v2")
    if engine not in engines:
        raise UsageError(f"invalid value '{engine}' for '--agent-engine'")
    if flags.get("--effort", "low") not in EFFORTS:
        raise UsageError(f"invalid value '{flags['--effort']}' for '--effort'")
    wrong = [flag for flag in _V2_ONLY_FLAGS if flag in flags and engine == "v3"]
    if wrong:
        raise UsageError(f"'{wrong[0]}' cannot be used with '--agent-engine v3'")
    return "v3" if engine == "v3" else "v2", flags


# --- the protocol


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({} if data is None else {"data": data})


def _internal_error(data: object) -> _RpcError:
    """Most errors of the real program say only this; the reason is in the data."""
    return _RpcError(-32603, "Internal error", data)


def _invalid_params(data: str) -> _RpcError:
    return _RpcError(-32602, "Invalid params", data)


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent of a session: whose prompt and tools count."""

    id: str
    prompt: str = ""
    tools: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    """The tools that need no permission, as `@server`."""
    is_denied: bool = False
    """Whether a rule denies every tool."""
    is_own: bool = False
    """Whether it is built in, with tools of its own."""
    servers: tuple[Json, ...] = ()
    """MCP servers of the agent file, in the form of session/new."""


@dataclass(slots=True)
class Session:
    """One conversation."""

    id: str
    agent: Agent
    agents: Mapping[str, Agent]
    model: str
    effort: str | None
    servers: "list[ToolServer]"
    is_busy: bool = False
    is_refused: bool = False
    """Whether the client answered a permission request of this prompt with `cancelled`."""
    turns: int = 0
    scope: "anyio.CancelScope | None" = None


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
        given: Options,
        engine: str,
        flags: Mapping[str, str],
        *,
        home: Path,
        write: Callable[[bytes], None],
        end: Callable[[int], None],
    ) -> None:
        self.given = given
        self.engine = engine
        self.flags = flags
        self.scenes = given.scenes
        self.home = home
        self.write = write
        self.end = end
        self.has_login = given.is_signed_in and (
            engine == "v2" or flags.get("--auth-method") == "cli"
        )
        self.is_initialized = False
        self.sessions: dict[str, Session] = {}
        self.servers: list[ToolServer] = []
        """The MCP servers of all sessions."""
        self.tasks: TaskGroup
        self._own_id = 0
        self._waiting: dict[str | int, tuple[anyio.Event, list[Json]]] = {}
        self._prompts = 0

    @property
    def is_v3(self) -> bool:
        """Whether this is the V3 engine."""
        return self.engine == "v3"

    async def serve(self, lines: AsyncIterable[bytes]) -> None:
        """Serve until the lines of stdin end."""
        import anyio

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
            _write(last_words, sys.stderr)
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
            case {"jsonrpc": "2.0", "method": str(method)}:
                self._notice(method, message.get("params", {}))
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

    def notify(self, method: str, **params: object) -> None:
        """Send a notification."""
        self.send({"method": method, "params": params})

    def tell(self, session: Session, name: str, /, **members: object) -> None:
        """Send a notification of the vendor's own."""
        prefix = "_kiro" if self.is_v3 else "_kiro.dev"
        self.notify(f"{prefix}/{name}", sessionId=session.id, **members)

    def update(self, session: Session, update_kind: str, /, **members: object) -> None:
        """Send a `session/update`."""
        update = {"sessionUpdate": update_kind, **members}
        self.notify("session/update", sessionId=session.id, update=update)

    def info(self, session: Session, kind: str, **members: object) -> None:
        """Send one of V3's own notices."""
        self.update(session, "session_info_update", _meta={"kiro": {**members, "kind": kind}})

    async def ask_client(
        self, method: str, params: Mapping[str, object], number: str | int | None = None
    ) -> Json:
        """Send a request and return the client's response; a client that is silent is waited for.

        Args:
            method: The method.
            params: Its parameters.
            number: The id; by default the program's next one. V3 counts from 1, as clients do.
        """
        import anyio

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
        if method == "session/prompt" and (session := self.sessions.get(params["sessionId"])):
            await self._report_late_usage(session)

    async def _call(self, method: str, params: Json) -> object:
        if method != "initialize" and not self.is_initialized:
            raise _RpcError(-32600, "Invalid request", "initialize comes first")
        match method:
            case "initialize":
                return await self._initialize(params)
            case "session/new":
                return await self._new_session(params)
            case "session/load":
                await self._end(
                    0
                )  # An unknown id ends the process, and each id is unknown to a new one.
            case "session/prompt":
                return await self._prompt(self._session(params), params)
            case "session/set_mode":
                return self._set_mode(self._session(params), params)
            case "session/set_model" if not self.is_v3:
                self._session(params).model = str(params.get("modelId", ""))  # It is not checked.
                return {}
            case "session/set_config_option" if self.is_v3:
                return self._set_option(self._session(params), params)
            case "session/close" | "_kiro/session/delete" if self.is_v3:
                self.sessions.pop(self._session(params).id)
                return {}
            case "_kiro.dev/session/terminate" if not self.is_v3:
                self.sessions.pop(self._session(params).id)
                return {}
            case "_kiro/account/getUsage" if self.is_v3:
                return _account_usage()
            case "_kiro.dev/commands/options" if not self.is_v3:
                return self._command_options(self._session(params), params)
            case _:
                raise _RpcError(-32601, "Method not found", method)

    def _notice(self, method: str, params: Json) -> None:
        if method == "session/cancel" and "cancel_ignored" not in self.scenes:
            session = self.sessions.get(params.get("sessionId", ""))
            if session and session.scope:
                session.scope.cancel()

    def _session(self, params: Json) -> Session:
        try:
            return self.sessions[params["sessionId"]]
        except (KeyError, TypeError):
            raise _internal_error("Session not found") from None

    # --- start

    async def _initialize(self, params: Json) -> Json:
        if "hang_initialize" in self.scenes or "not_logged_in_hang" in self.scenes:
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
            agent = {"name": name, "title": name, "version": VERSIONS[self.given.dialect]}
            return {**answer, "agentInfo": agent}
        abilities["sessionCapabilities"] = {"list": {}, "close": {}, "delete": {}, "fork": {}}
        methods = ["_kiro/account/getUsage", "_kiro/session/delete"]
        abilities["_meta"] = {"kiro": {"extensionMethods": methods, "replayMarking": True}}
        ids = ("kiro-login", "kiro-api-key")
        return {**answer, "authMethods": [{"id": one, "name": one} for one in ids]}

    async def _new_session(self, params: Json) -> Json:
        if "hang_session" in self.scenes:
            await _hang()
        if "exit_0" in self.scenes:
            await self._end(0)
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
        are_complete = all(
            one.get("type") == "http" and isinstance(one.get("headers"), list) for one in wanted
        )
        if not are_complete:
            await (_hang() if self.is_v3 else self._end(0))
        agents = self._agents(params)
        agent = agents[next(iter(agents))]
        identity = f"sess_{uuid.uuid4()}" if self.is_v3 else str(uuid.uuid4())
        model, effort = self.flags.get("--model", DEFAULT_MODEL_ID), self.flags.get("--effort")
        session = Session(identity, agent, agents, model, effort, [])
        if self.is_v3:
            await self.ask_client("_kiro/terminal/shell_type", {"sessionId": identity})
        by_name = {one["name"]: one for one in (*agent.servers, *wanted)}
        await self._connect(session, list(by_name.values()))
        self.sessions[identity] = session
        modes = {
            "currentModeId": agent.id,
            "availableModes": [{"id": name, "name": name} for name in agents],
        }
        answer: Json = {"sessionId": identity, "modes": modes}
        self.tasks.start_soon(self._announce, session)
        if not self.is_v3:
            listed = [
                {"modelId": one["modelId"], "name": one["modelId"], "description": ""}
                for one in CATALOGUE
            ]
            return {**answer, "models": {"currentModelId": model, "availableModels": listed}}
        if "late_model" in self.scenes:
            return {**answer, "_meta": {}}
        return {**answer, "configOptions": _config_options(session), "_meta": {}}

    async def _announce(self, session: Session) -> None:
        """Send what follows the answer to session/new."""
        import anyio

        await anyio.sleep(0.01)
        if self.is_v3:
            if "late_model" in self.scenes:
                self.update(session, "config_option_update", configOptions=_config_options(session))
            self.update(session, "available_commands_update", availableCommands=[])
            self._announce_tools(session)
            return
        requested = self.flags.get("--agent", session.agent.id)
        if requested != session.agent.id:
            self.tell(
                session, "agent/not_found", requestedAgent=requested, fallbackAgent=session.agent.id
            )
        if "user_servers" in self.scenes:
            self.tell(session, "mcp/server_initialized", serverName="github")
        self.tell(
            session,
            "commands/available",
            commands=[{"name": "/model", "description": "Select a model"}],
            tools=[],
            mcpServers=[],
        )

    def _announce_tools(self, session: Session) -> None:
        servers: list[Json] = [
            {"name": one.name, "status": "connected", "origin": "session"}
            for one in session.servers
        ]
        if "user_servers" in self.scenes:
            servers.append({"name": "github", "status": "connected", "origin": "user"})
        self.tell(session, "mcp/status", servers=servers)
        own = [{"name": "execute_bash"}] if session.agent.is_own else []
        tools = [{"name": f"@{one.name}/{name}"} for one in session.servers for name in one.tools]
        self.tell(session, "tools/didChange", tools=[*own, *tools])

    def _agents(self, params: Json) -> Mapping[str, Agent]:
        """Return the agents of a new session; the first is the current one."""
        own = {name: Agent(name, is_own=True) for name in OWN_AGENTS[self.engine]}
        if self.is_v3:
            given = params.get("_meta", {}).get("kiro", {}).get("customAgents", [])
            return own | {one["id"]: _inline_agent(one) for one in given}
        name = self.flags.get("--agent")
        if name is None:
            return own
        path = self.home / "agents" / f"{name}.json"
        if "agent_not_found" in self.scenes or not path.is_file():
            return own
        try:
            return {name: _file_agent(path)} | own
        except (ValueError, KeyError, TypeError) as error:
            self.notify("_kiro.dev/agent/config_error", path=str(path), error=str(error))
            return own

    async def _connect(self, session: Session, wanted: list[Json]) -> None:
        for one in wanted:
            server = ToolServer(one["name"], one["url"], _headers(one), one.get("requestTimeout"))
            self.servers.append(server)
            fault = await server.connect(CONNECT_SECONDS / self.given.scale, discovers=self.is_v3)
            if not fault:
                session.servers.append(server)
                if not self.is_v3:
                    self.tell(session, "mcp/server_initialized", serverName=server.name)
            elif self.is_v3:
                broken = {"name": server.name, "status": "failed", "errorMessage": fault}
                self.tell(session, "mcp/status", servers=[broken])
            else:
                self.tell(session, "mcp/server_init_failure", serverName=server.name, error=fault)

    # --- choices

    def _set_mode(self, session: Session, params: Json) -> Json:
        wanted = params.get("modeId", "")
        if wanted not in session.agents:
            raise _internal_error(f"Mode '{wanted}' not found")
        session.agent = session.agents[wanted]
        self.update(session, "current_mode_update", currentModeId=wanted)
        if self.is_v3:
            self._announce_tools(session)
        return {}

    def _set_option(self, session: Session, params: Json) -> Json:
        match params:
            case {"configId": "model", "value": str(value)}:  # Not checked, as the real one.
                session.model, session.effort = value, None
            case {"configId": "effortLevel", "value": str(value)}:
                if value in _efforts_of(session.model):  # Other values are ignored.
                    session.effort = value
            case {"configId": "mode", "value": str(value)}:
                self._set_mode(session, {"modeId": value})
            case _:
                raise _invalid_params("unknown configId")
        return {"configOptions": _config_options(session)}

    def _command_options(self, session: Session, params: Json) -> Json:
        names = {"model": [one["modelId"] for one in CATALOGUE], "effort": []}
        names["effort"] = list(_efforts_of(session.model))
        options = [{"value": name, "label": name} for name in names.get(params["command"], [])]
        return {"options": options, "hasMore": False}

    # --- prompts

    async def _prompt(self, session: Session, params: Json) -> Json:
        import anyio

        if session.is_busy:
            raise _internal_error("Prompt already in progress")
        texts, images = self._read_blocks(params.get("prompt") or [])
        self._fail_by_scene(session)
        session.is_busy, session.is_refused = True, False
        session.turns += 1
        if self.is_v3:
            self.info(session, "turn_start")
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
                    script, prompt = self._next_script(prompt, returned)
        finally:
            session.is_busy = False
        if session.is_refused:
            answer.stop_reason = "refusal"
        if session.scope.cancelled_caught:
            await anyio.sleep(0.05)  # It does not end at once, and updates may still come.
            self.update(session, "agent_message_chunk", content={"type": "text", "text": "…"})
            answer.stop_reason = "cancelled"
        if "unknown_stop" in self.scenes:
            answer.stop_reason = "stopped_by_the_future"
        seconds = time.monotonic() - started
        self._report_usage(session, answer, credits, seconds)
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

    def _fail_by_scene(self, session: Session) -> None:
        """Raise the error of a scene or of a missing login."""
        if not self.has_login:
            raise _RpcError(-32000, "Authentication required")
        if "rate_limited" in self.scenes:
            self.tell(session, "error/rate_limit", message="Too many requests, please wait.")
            raise _internal_error("ThrottlingException: Too many requests, please wait.")
        if "expired_prompt" in self.scenes:
            raise _internal_error(_EXPIRED)
        if "usage_limit" in self.scenes:
            raise _internal_error({"details": "You have reached your monthly usage limit."})
        if "invalid_history" in self.scenes:
            raise _internal_error("invalid conversation history received")
        if "network_error" in self.scenes:
            kind = {"errorType": "ClientNetworkError", "retryErrorType": "TRANSIENT"}
            raise _RpcError(-32000, "Network error", kind)

    async def _act_by_scene(self, session: Session) -> None:
        """Do what a scene does before the answer."""
        scenes = self.scenes
        if "cancel_ignored" in scenes:
            self._say(session, "Nothing stops me.")
        if scenes & {"hang_prompt", "cancel_ignored"}:
            await _hang()
        if "agent_switched" in scenes and not self.is_v3:
            self.tell(session, "agent/switched", agentName="kiro_planner")
        if "compaction" in scenes and self.is_v3:
            self.info(session, "summarization_started")
            self.info(session, "summarization_completed")
        elif "compaction" in scenes:
            for kind in ("started", "completed"):
                self.tell(session, "compaction/status", status={"type": kind})
        if "tools_interrupted" in scenes:
            self._say(session, _INTERRUPTED_TEXT)
            await _hang()
        if "watchdog" in scenes and not self.is_v3:
            self._say(session, "This text is discarded.")
            self._envelope(session, "stream_stall_notice", idleSeconds=60)
            self._envelope(session, "stream_discarded")
            self._envelope(
                session, "retry_warning", attempt=1, maxAttempts=3, delaySecs=1, message="Stalled"
            )
        if "permission" in scenes:
            await self._ask_permission(session, "Running: rm -rf notes", "execute_bash")
        if "foreign_tool" in scenes or session.agent.is_own:
            number = self._report_call(session, "Running: ls", "execute", {"command": "ls"})
            self.update(session, "tool_call_update", toolCallId=number, status="completed")

    def _envelope(self, session: Session, kind: str, **members: object) -> None:
        update = {"sessionUpdate": kind, **members}
        self.tell(session, "session/update", update=update)

    def _say(self, session: Session, text: str, kind: str = "agent_message_chunk") -> None:
        self.update(session, kind, content={"type": "text", "text": text})

    def _first_script(
        self, session: Session, texts: Sequence[str], images: int
    ) -> "tuple[Script, Prompt]":
        from kiro_mcp.emulator.request import ToolSpec
        from kiro_mcp.emulator.scripts import BUILT_IN, Prompt, Send, tokens_of, whole_answer

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
        forced = sorted(self.scenes & BUILT_IN.keys())
        name = "parallel_tools" if "two_calls" in self.scenes else prompt.name or "text"
        name = forced[0] if forced else name
        if "refusal_empty" in self.scenes:
            return (Send(prompt.ending("", "CONTENT_FILTERED")),), prompt
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

    def _next_script(self, prompt: "Prompt", returned: str) -> "tuple[Script, Prompt]":
        """Return the script that follows the results of tools."""
        from kiro_mcp.emulator.scripts import BUILT_IN, whole_answer

        prompt = replace(prompt, returned=returned, serial=prompt.serial + 1000)
        if "retry_call" in self.scenes and returned.startswith("Dropped"):
            return BUILT_IN["tool_use"](prompt), prompt
        return whole_answer(prompt, prompt.canned_text), prompt

    async def _play(self, session: Session, script: "Script") -> Answer:
        """Send an answer as updates; return what was said, and the tool calls to make."""
        import anyio
        from anyio.lowlevel import checkpoint

        from kiro_mcp.emulator.refusals import Refusal
        from kiro_mcp.emulator.scripts import Pause, Send
        from kiro_mcp.wire.eventstream import FrameDecoder

        decoder, answer = FrameDecoder(), Answer()
        for step in script:
            match step:
                case Send(data=data):
                    for frame in decoder.feed(data):
                        kind = str(frame.headers.get(":event-type", "exception"))
                        self._tell(session, answer, kind, json.loads(frame.payload))
                        if "crash" in self.scenes and len(answer.said) > 20:
                            await self._end(
                                101, "thread 'main' panicked at src/agent.rs:1: stand-in"
                            )
                        await checkpoint()
                    if decoder.fault is not None:
                        raise self._broken_stream()
                case Pause(seconds=seconds):
                    await anyio.sleep(seconds)
                case Refusal():
                    if "Throttling" in step.error_type:
                        self.tell(session, "error/rate_limit", message=step.message)
                    is_login = step.status == 403 and not step.reason
                    detail = _EXPIRED if is_login else step.message
                    raise _internal_error({"details": f"{step.error_type}: {detail}"})
                case _:
                    raise self._broken_stream()
        answer.calls = {
            number: call for number, call in answer.calls.items() if call.get("is_whole")
        }
        return answer

    def _broken_stream(self) -> _RpcError:
        if self.is_v3:
            kind = {"errorType": "ClientNetworkError", "retryErrorType": "TRANSIENT"}
            return _RpcError(-32000, "The connection was lost.", kind)
        return _internal_error("Encountered an error in the response stream")

    def _tell(self, session: Session, answer: Answer, kind: str, payload: Json) -> None:
        """Send one event of the service as the program reports it."""
        match kind:
            case "assistantResponseEvent":
                answer.said += payload["content"]
                self._say(session, payload["content"])
            case "reasoningContentEvent" if "text" in payload:
                self._say(session, payload["text"], "agent_thought_chunk")
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
        self, session: Session, answer: Answer, credits: float, seconds: float
    ) -> None:
        """Send what comes before the answer to a prompt."""
        spent = {"unit": "credit", "unitPlural": "credits"}
        milliseconds = int(1000 * seconds)
        if self.is_v3:
            summary: Json = {**spent, "usage": credits, "usedTools": []}
            self.info(
                session,
                "turn_completion",
                promptTurnSummaries=[summary] if credits else [],
                elapsedTime=milliseconds,
                status="success",
                requestIds=[str(uuid.uuid4())],
            )
            if answer.refusal:
                self.info(session, "display_error", message=answer.refusal["explanation"])
            self.info(session, "turn_end", stopReason=answer.stop_reason)
            return
        usage: Json = {"contextUsagePercentage": answer.percent}
        if session.effort:
            usage["effort"] = session.effort
        self.tell(session, "metadata", **usage)
        if credits and "late_usage" not in self.scenes:
            usage |= {
                "meteringUsage": [{**spent, "value": credits}],
                "turnDurationMs": milliseconds,
            }
        if answer.stop_reason == "refusal" and answer.refusal:
            usage |= {"stopReason": "CONTENT_FILTERED", "refusal": answer.refusal}
        self.tell(session, "metadata", **usage)

    async def _report_late_usage(self, session: Session) -> None:
        """Send what comes after the answer to a prompt."""
        import anyio

        if "late_usage" in self.scenes:
            await anyio.sleep(0.1)
        if self.is_v3:
            self.info(session, "context_usage", usagePercentage=1.5, breakdown={})
        elif "late_usage" in self.scenes:
            spent = [{"unit": "credit", "unitPlural": "credits", "value": 0.0148}]
            self.tell(session, "metadata", contextUsagePercentage=1.5, meteringUsage=spent)

    # --- tools

    def _report_call(
        self, session: Session, title: str, kind: str, arguments: Json, number: str = ""
    ) -> str:
        number = number or f"tooluse_{uuid.uuid4().hex[:22]}"
        self.update(
            session,
            "tool_call",
            toolCallId=number,
            title=title,
            kind=kind,
            status="pending",
            rawInput={**arguments, "__tool_use_purpose": "To answer the question."},
        )
        return number

    async def _ask_permission(self, session: Session, title: str, name: str) -> bool:
        """Ask for permission; return whether the client allows the call."""
        number = self._report_call(session, title, "execute", {"tool": name})
        kinds = ("allow_once", "allow_always", "reject_once")
        ids = _OPTION_IDS[self.engine]
        params: Json = {
            "sessionId": session.id,
            "toolCall": {"toolCallId": number, "title": title},
            "options": [
                {"optionId": one, "name": kind.replace("_", " "), "kind": kind}
                for one, kind in zip(ids, kinds, strict=True)
            ],
        }
        answer = await self.ask_client("session/request_permission", params)
        match answer.get("result"):
            case {"outcome": {"outcome": "selected", "optionId": str(chosen)}} if chosen in ids:
                is_allowed = chosen != ids[2]
            case {"outcome": {"outcome": "cancelled"}}:
                session.is_refused, is_allowed = True, False
            case other:
                raise _internal_error(f"invalid permission response {str(other)[:80]}")
        status = "completed" if is_allowed else "failed"
        self.update(session, "tool_call_update", toolCallId=number, status=status)
        return is_allowed

    async def _run_tools(self, session: Session, calls: Sequence[Json]) -> str:
        """Call the tools, in parallel, and return the texts of their results."""
        import anyio

        texts = [""] * len(calls)

        async def run(index: int, call: Json) -> None:
            texts[index] = await self._run_tool(session, call)

        async with anyio.create_task_group() as tasks:
            for index, call in enumerate(calls):
                tasks.start_soon(run, index, call)
        return " ".join(texts)

    async def _run_tool(self, session: Session, call: Json) -> str:
        import anyio

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
        status = "failed" if is_bad else "completed"
        content = (result or {}).get("content", [])
        self.update(
            session, "tool_call_update", toolCallId=number, status=status, rawOutput=content
        )
        if result is None:
            return "Dropped: the tool did not answer in time."
        return " ".join(part.get("text", "") for part in content)


class ToolServer:
    """An MCP server of the client, reached over Streamable HTTP.

    Args:
        name: Its name.
        url: Where it is.
        headers: What every request to it carries.
        request_timeout: How long a call may take, in milliseconds; None if nothing says so.
    """

    def __init__(
        self, name: str, url: str, headers: Mapping[str, str], request_timeout: float | None
    ) -> None:
        self.name = name
        self.tools: dict[str, Json] = {}
        """What it lists, by name."""
        self.request_timeout = request_timeout
        self._url = url
        self._headers = {**headers, "accept": "application/json, text/event-stream"}
        self._client: httpx.AsyncClient | None = None
        self._id = 0

    async def connect(self, seconds: float, *, discovers: bool) -> str:
        """Connect and list the tools; return why it failed, or ""."""
        import anyio
        import httpx

        self._client = httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113  # dropped by time
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
        if self._client is not None:
            await self._client.aclose()

    async def request(self, method: str, params: Mapping[str, object]) -> Json:
        """Return the result of a request, or an object with its `error`."""
        self._id += 1
        number = self._id
        body = await self._post({"id": number, "method": method, "params": params})
        messages = [json.loads(line.removeprefix("data:")) for line in _json_lines(body)]
        for message in messages:
            if message.get("id") == number:
                return message.get("result") or {"error": message.get("error")}
        raise ValueError(f"no response to {method}")

    async def _post(self, message: Mapping[str, object]) -> str:
        assert self._client is not None
        response = await self._client.post(
            self._url, json={"jsonrpc": "2.0", **message}, headers=self._headers
        )
        if session := response.headers.get("mcp-session-id"):
            self._headers["mcp-session-id"] = session
        if message.get("method") != "server/discover":
            response.raise_for_status()
        return response.text


def _json_lines(body: str) -> list[str]:
    """Return the JSON messages of a body, which is JSON or an event stream."""
    if body.lstrip().startswith("{"):
        return [body]
    return [line for line in body.splitlines() if line.startswith("data:")]


# --- values


def _file_agent(path: Path) -> Agent:
    """Read an agent file of v2."""
    content = json.loads(path.read_text(encoding="utf-8"))
    prompt = content.get("prompt") or ""
    if prompt.startswith("file://"):
        prompt = (path.parent / prompt.removeprefix("file://")).read_text(encoding="utf-8")
    servers = [
        {**one, "name": name, "headers": one.get("headers", {})}
        for name, one in content.get("mcpServers", {}).items()
        if one.get("type") == "http"
    ]
    return Agent(
        content["name"],
        prompt,
        tuple(content.get("tools", ["*"])),
        tuple(content.get("allowedTools", [])),
        is_own="*" in content.get("tools", ["*"]),
        servers=tuple(servers),
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
        tuple(content.get("tools", ["*"])),
        tuple(f"@{match.removesuffix('/*')}" for match in allowed),
        is_denied=any(rule["effect"] == "deny" for rule in rules),  # A deny always wins.
        is_own="*" in content.get("tools", ["*"]),
    )


def _headers(server: Json) -> dict[str, str]:
    """Return the headers of an MCP server: a list in session/new, an object in an agent file."""
    headers: Any = server["headers"]
    if isinstance(headers, dict):
        return cast("dict[str, str]", headers)
    return {one["name"]: one["value"] for one in headers}


def _may_use(granted: Sequence[str], server: str) -> bool:
    return "*" in granted or f"@{server}" in granted


def _model_of(model_id: str) -> Model:
    return next((one for one in CATALOGUE if one["modelId"] == model_id), CATALOGUE[0])


def _effort_schema(model_id: str) -> Json:
    schema: Json = _model_of(model_id).get("additionalModelRequestFieldsSchema", {})
    members: Json = schema.get("properties", {})
    holder: Json = members.get("output_config") or members.get("reasoning") or {}
    return holder.get("properties", {}).get("effort", {})


def _efforts_of(model_id: str) -> Sequence[str]:
    return _effort_schema(model_id).get("enum", [])


def _config_options(session: Session) -> list[Json]:
    """Return V3's options of a session."""
    models: list[Json] = []
    for model in CATALOGUE:
        kiro: Json = {name: model[name] for name in ("rateMultiplier", "rateUnit")}
        effort = _effort_schema(model["modelId"])
        kiro["hasEffort"] = bool(effort)
        if effort:
            kiro |= {"effortLevels": effort["enum"], "defaultEffortLevel": effort["default"]}
        value = {"value": model["modelId"], "name": model["modelName"]}
        models.append({**value, "_meta": {"kiro": kiro}})
    chosen = [_select("model", "Model", "model", session.model, models)]
    if effort := _effort_schema(session.model):
        levels: list[Json] = [{"value": one, "name": one} for one in effort["enum"]]
        value = session.effort or effort["default"]
        chosen.append(_select("effortLevel", "Effort", "thought_level", value, levels))
    return chosen


def _select(number: str, name: str, category: str, value: str, options: list[Json]) -> Json:
    head = {"id": number, "type": "select", "name": name, "category": category}
    return {**head, "currentValue": value, "options": options}


def _account_usage() -> Json:
    used = {"resourceType": "CREDIT", "displayName": "Credits", "used": 12.5, "limit": 1000}
    data = {
        "planName": "KIRO PRO",
        "billingCycleReset": "2027-01-01",
        "overagesEnabled": False,
        "usageBreakdowns": [{**used, "percentage": 1.25}],
        "bonusCredits": [],
    }
    return {"success": True, "message": "", "data": data}


async def _hang() -> NoReturn:
    import anyio

    await anyio.sleep_forever()
    raise AssertionError


def _write(text: str, stream: TextIO | None = None) -> None:
    out = stream or sys.stdout
    out.write(f"{text}\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
