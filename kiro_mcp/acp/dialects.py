"""The program's two dialects, v2 and V3, behind one interface.

A dialect says how the program is started and where its agent lies, opens a session with a model, an
effort and tools, and reads notifications into events: those of `kiro_mcp.wire.events`, and the
classes below. `V2` and `V3` are chosen by the program's flags::

              agent                          model                  effort
    v2        a file in a private folder     --model                --effort
    V3        inline in `session/new`        a session's option     a session's option

In both the agent is ours alone: no tools but the caller's, no servers, hooks, steering or resources
of the user. Whatever shows that another agent or another tool is at work is a `Breach`.

Source of truth: public captures of kiro-cli 2.13 to 2.28. Unknown members and notifications are
ignored.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kiro_mcp._version import __version__
from kiro_mcp.acp.errors import RpcError
from kiro_mcp.acp.program import Dialect as DialectName
from kiro_mcp.acp.rpc import Peer
from kiro_mcp.acp.transcript import SessionSpec
from kiro_mcp.chat import JsonObject, JsonValue, Refusal
from kiro_mcp.errors import KiroError, ServiceUnavailable, quoted
from kiro_mcp.wire.events import ContextUsage, Event, Metering, Reasoning, Stop, Text
from kiro_mcp.wire.json_values import number_member, object_member, object_members, word_member

AGENT: Final = "kiro_mcp"
SERVER: Final = "caller"
"""The name under which the program knows the server with the caller's tools."""

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")

REQUEST_TIMEOUT_MS: Final = 60 * 60 * 1000
"""How long the program is asked to wait for a call. Whether it does so is not known."""

_NO_SYSTEM: Final = "Answer the user's messages."
_INTERRUPTED: Final = "Tool uses were interrupted, waiting for the next user prompt"
"""After exactly this text v2 sends no response to the prompt."""

OWN_KINDS: Final = ("", "other")
"""The kinds of a call of an MCP server's tool; the program's own tools have other kinds."""


# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Breach:
    """Something else than our agent is at work: the process must end."""

    what: str


@dataclass(frozen=True, slots=True)
class ToolSeen:
    """The program says that a tool is called."""

    title: str
    kind: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the caller is told in `warnings`."""

    text: str


@dataclass(frozen=True, slots=True)
class Hint:
    """Why the prompt may fail: the error itself mostly says only "Internal error"."""

    text: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The prompt has ended without a response."""

    error: KiroError


@dataclass(frozen=True, slots=True)
class Options:
    """The session's options as they are now, by their ids."""

    values: dict[str, str]


Seen: TypeAlias = Event | Breach | ToolSeen | Note | Hint | Broken | Options


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolServer:
    """Where the program reaches the caller's tools."""

    url: str
    bearer: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session that is ready for its first prompt."""

    id: str
    model: str = ""
    """The model that is really in force; "" if the program does not say."""
    warnings: tuple[str, ...] = ()


INITIALIZE: Final[JsonObject] = {
    "protocolVersion": 1,
    "clientCapabilities": {
        "fs": {"readTextFile": False, "writeTextFile": False},
        "terminal": False,
    },
    "clientInfo": {"name": "kiro-mcp", "version": __version__},
}


class Breached(KiroError):
    """The program did not start as a pure model."""

    default_code = "upstream_error"


def breach_error(what: str) -> KiroError:
    """Return the error of a turn that something else than our agent had a part in."""
    return Breached(
        f"kiro-cli did not stay a pure model: {what}. Its process was ended.",
        next_step="Set KIRO_MCP_ENGINE=direct, and report this with the version of kiro-cli.",
    )


class V2:
    """The older dialect: `--agent-engine v2`."""

    name: DialectName = "v2"
    start_up_seconds = 30.0
    hold_seconds = 110.0
    """How long a call of a tool may be held: the program drops it after 120 seconds."""

    def arguments(self, spec: SessionSpec, flags: frozenset[str]) -> list[str]:
        """Return the arguments of the program."""
        arguments = ["acp", "--agent", AGENT, "--agent-engine", "v2"]
        if "--model" in flags:
            arguments += ["--model", spec.model]
        if "--effort" in flags and spec.effort in EFFORTS:
            arguments += ["--effort", spec.effort]
        return arguments

    def files(self, spec: SessionSpec, server: ToolServer | None) -> dict[str, JsonObject]:
        """Return the files of its private folder."""
        servers: JsonObject = {}
        if server:
            servers[SERVER] = {
                "type": "http",
                "url": server.url,
                "headers": {"Authorization": f"Bearer {server.bearer}"},
                "requestTimeout": REQUEST_TIMEOUT_MS,
            }
        tools: list[JsonValue] = [f"@{SERVER}"] if server else []
        agent: JsonObject = {
            "name": AGENT,
            "description": "Answers for kiro-mcp, without tools of its own",
            "prompt": spec.system or _NO_SYSTEM,
            "tools": tools,
            "allowedTools": tools,
            "resources": [],
            "hooks": {},
            "mcpServers": servers,
            "includeMcpJson": False,
        }
        return {
            f"agents/{AGENT}.json": agent,
            "settings/cli.json": {"chat.disableInheritingDefaultResources": True},
        }

    def new_session(self, cwd: str, spec: SessionSpec, server: ToolServer | None) -> JsonObject:
        """Return the parameters of `session/new`."""
        return {"cwd": cwd, "mcpServers": []}

    async def choose(
        self, peer: Peer, opened: JsonObject, spec: SessionSpec, flags: frozenset[str]
    ) -> Opened:
        """Check the session that `session/new` opened, and choose its model.

        Raises:
            KiroError: Another agent answers, or the program does not answer.
        """
        session_id = word_member(opened, "sessionId")
        warnings: list[str] = []
        mode = word_member(object_member(opened, "modes"), "currentModeId")
        if mode not in ("", AGENT):
            raise breach_error(f"it started the agent {quoted(mode)}")
        if not mode:
            warnings.append("kiro-cli does not say which agent answers; it was asked for ours.")
        model = word_member(object_member(opened, "models"), "currentModelId")
        if model != spec.model:
            try:
                await peer.request(
                    "session/set_model",
                    {"sessionId": session_id, "modelId": spec.model},
                    seconds=self.start_up_seconds,
                )
                model = spec.model
            except RpcError as error:
                warnings.append(_not_chosen("model", spec.model, str(error)))
        if spec.effort and ("--effort" not in flags or spec.effort not in EFFORTS):
            warnings.append(_not_chosen("effort", spec.effort, "v2 has no such effort"))
        return Opened(id=session_id, model=model, warnings=tuple(warnings))

    def end_session(self, session_id: str) -> tuple[str, JsonObject]:
        """Return the request that ends a session in a process that goes on."""
        return "_kiro.dev/session/terminate", {"sessionId": session_id}

    def read(self, method: str, params: JsonObject) -> Iterator[Seen]:
        """Read a notification."""
        match method.removeprefix("_").removeprefix("kiro.dev/"):
            case "session/update":
                update = object_member(params, "update") or params
                yield from read_update(update)
            case "metadata":
                yield from _credits(params, "meteringUsage", "value")
                yield from _context(params, "contextUsagePercentage")
                if reason := word_member(params, "stopReason"):
                    yield Stop(reason, _refusal(object_member(params, "refusal")))
            case "agent/not_found" | "agent/config_error" | "agent/switched" as what:
                yield Breach(f"it reported {what}")
            case "subagent/list_update":
                if any(params.get(name) for name in ("subagents", "pendingStages")):
                    yield Breach("it started a sub-agent")
            case "error/rate_limit":
                yield Hint(f"rate limit: {word_member(params, 'message')}")
            case "mcp/server_initialized":
                if (server := word_member(params, "serverName")) not in ("", SERVER):
                    yield Breach(f"it started the user's server {quoted(server)}")
            case "mcp/server_init_failure":
                yield Note(_no_tools(word_member(params, "error")))
            case "compaction/status":
                yield _COMPACTED
            case _:
                pass


class V3:
    """The newer dialect: `--agent-engine v3 --auth-method cli`."""

    name: DialectName = "v3"
    start_up_seconds = 60.0
    hold_seconds = 15 * 60.0
    """How long a call of a tool may be held: whether the program drops it is not known."""

    def __init__(self, agent: str = AGENT) -> None:
        self._agent = agent

    def arguments(self, spec: SessionSpec, flags: frozenset[str]) -> list[str]:
        """Return the arguments of the program. It refuses all others in this dialect."""
        return ["acp", "--agent-engine", "v3", "--auth-method", "cli"]

    def files(self, spec: SessionSpec, server: ToolServer | None) -> dict[str, JsonObject]:
        """Return the files of its private folder."""
        return {}

    def new_session(self, cwd: str, spec: SessionSpec, server: ToolServer | None) -> JsonObject:
        """Return the parameters of `session/new`."""
        servers: list[JsonValue] = []
        rule: JsonObject = {"capability": "all", "match": ["*"], "effect": "deny"}
        if server:
            header: JsonObject = {"name": "Authorization", "value": f"Bearer {server.bearer}"}
            servers.append(
                {
                    "type": "http",
                    "name": SERVER,
                    "url": server.url,
                    "headers": [header],
                    "requestTimeout": REQUEST_TIMEOUT_MS,
                }
            )
            # Not beside a rule that denies all: a denial wins over each permission.
            rule = {"capability": "mcp", "match": [f"{SERVER}/*"], "effect": "allow"}
        agent: JsonObject = {
            "id": self._agent,
            "description": "Answers for kiro-mcp, without tools of its own",
            "prompt": spec.system or _NO_SYSTEM,
            "tools": [f"@{SERVER}"] if server else [],
            "resources": [],
            "includeMcpJson": False,
            "includePowers": False,
            "permissions": {"rules": [rule]},
        }
        return {
            "cwd": cwd,
            "mcpServers": servers,
            "_meta": {"kiro": {"customAgents": [agent]}},
        }

    async def choose(
        self, peer: Peer, opened: JsonObject, spec: SessionSpec, flags: frozenset[str]
    ) -> Opened:
        """Check the session that `session/new` opened; choose its agent, model and effort.

        Raises:
            KiroError: Another agent answers, or the program does not answer.
        """
        session_id = word_member(opened, "sessionId")
        modes = object_member(opened, "modes")
        offered = [word_member(mode, "id") for mode in object_members(modes, "availableModes")]
        if self._agent not in offered:
            raise breach_error("it did not take the agent of this session")
        try:
            await peer.request(
                "session/set_mode",
                {"sessionId": session_id, "modeId": self._agent},
                seconds=self.start_up_seconds,
            )
        except RpcError as error:
            raise breach_error(f"it did not switch to the agent ({error})") from None
        warnings: list[str] = []
        values = read_options(opened)
        for option, value in (("model", spec.model), ("effortLevel", spec.effort)):
            if not value or values.get(option) == value:
                continue
            name = "effort" if option == "effortLevel" else option
            try:
                result = await peer.request(
                    "session/set_config_option",
                    {"sessionId": session_id, "configId": option, "value": value},
                    seconds=self.start_up_seconds,
                )
            except RpcError as error:
                warnings.append(_not_chosen(name, value, str(error)))
                continue
            values = read_options(result) or values
            if (now := values.get(option, "")) != value and values:
                why = f"{quoted(now)} is in force" if now else "the model has no such option"
                warnings.append(_not_chosen(name, value, why))
        return Opened(id=session_id, model=values.get("model", ""), warnings=tuple(warnings))

    def end_session(self, session_id: str) -> tuple[str, JsonObject]:
        """Return the request that ends a session in a process that goes on."""
        return "session/close", {"sessionId": session_id}

    def read(self, method: str, params: JsonObject) -> Iterator[Seen]:
        """Read a notification."""
        match method:
            case "session/update":
                update = object_member(params, "update")
                mode = word_member(update, "currentModeId")
                if mode not in ("", self._agent):
                    yield Breach(f"it switched to the agent {quoted(mode)}")
                yield from read_update(update)
            case "_kiro/mcp/status":
                for server in object_members(params, "servers"):
                    origin, name = word_member(server, "origin"), word_member(server, "name")
                    if origin in ("user", "workspace"):
                        yield Breach(f"it started the user's server {quoted(name)}")
                    elif name == SERVER and (why := word_member(server, "errorMessage")):
                        yield Note(_no_tools(why))
            case "_kiro/error/rate_limit":
                yield Hint(f"rate limit: {word_member(params, 'message')}")
            case _:
                pass


Dialect: TypeAlias = V2 | V3


# --- reading ------------------------------------------------------------------------------


def read_update(update: JsonObject) -> Iterator[Seen]:
    """Read a `session/update` of either dialect."""
    kiro = object_member(object_member(update, "_meta"), "kiro")
    if kiro.get("replay"):
        return
    content = object_member(update, "content")
    text = word_member(content, "text")
    match word_member(update, "sessionUpdate"):
        case "agent_message_chunk":
            if text.strip() == _INTERRUPTED:
                yield Broken(
                    ServiceUnavailable(
                        "kiro-cli lost an open tool call and stopped.",
                        next_step="Call again.",
                        code="stream_broken",
                    )
                )
            elif text:
                yield Text(text)
            elif (kind := word_member(content, "type")) not in ("", "text"):
                yield Note(f"A part of the answer of the type {quoted(kind)} was left out.")
        case "agent_thought_chunk":
            if text:
                yield Reasoning(text=text)
        case "tool_call":
            yield ToolSeen(word_member(update, "title"), word_member(update, "kind"))
        case "config_option_update":
            yield Options(read_options(update))
        case "retry_warning":
            yield Hint(word_member(update, "message"))
        case "stream_discarded":
            yield Note("kiro-cli began its answer anew; what came before is still in the text.")
        case "session_info_update":
            yield from _read_info(kiro)
        case _:
            pass


def _read_info(kiro: JsonObject) -> Iterator[Seen]:
    kind = word_member(kiro, "kind")
    if kind == "turn_completion":
        yield from _credits(kiro, "promptTurnSummaries", "usage")
    elif kind == "context_usage":
        yield from _context(kiro, "usagePercentage")
    elif kind == "display_error":
        yield Hint(word_member(kiro, "message") or json.dumps(kiro)[:200])
    elif kind.startswith("summarization_"):
        yield _COMPACTED
    elif "contextUsage" in kiro:
        yield from _context(object_member(kiro, "contextUsage"), "usagePercentage")


def read_options(holder: JsonObject) -> dict[str, str]:
    """Return the values of the options in `configOptions`, by their ids."""
    return {
        word_member(option, "id"): word_member(option, "currentValue")
        for option in object_members(holder, "configOptions")
    }


def _credits(holder: JsonObject, name: str, member: str) -> Iterator[Metering]:
    """Read what a turn has cost so far: the sum of the entries in credits."""
    amounts = [
        amount
        for entry in object_members(holder, name)
        if word_member(entry, "unit").lower().startswith("credit")
        and (amount := number_member(entry, member)) is not None
    ]
    if amounts:
        yield Metering(sum(amounts))


def _context(holder: JsonObject, name: str) -> Iterator[ContextUsage]:
    percent = number_member(holder, name)
    if percent is not None:
        yield ContextUsage(percent)


def _refusal(given: JsonObject) -> Refusal | None:
    if not given:
        return None
    return Refusal(
        category=word_member(given, "category"),
        explanation=word_member(given, "explanation"),
        recommended_model=word_member(given, "recommendedModel"),
    )


_COMPACTED: Final = Note("kiro-cli summarised the conversation, so details of it may be lost.")


def _no_tools(why: str) -> str:
    return f"kiro-cli could not reach the caller's tools{f': {why[:200]}' if why else ''}."


def _not_chosen(what: str, value: str, why: str) -> str:
    return f"kiro-cli did not take the {what} {quoted(value)}: {why[:200].rstrip('.')}."
