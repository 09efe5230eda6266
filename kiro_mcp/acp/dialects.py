"""The program's two dialects, v2 and V3, behind one interface.

A `Dialect` is one conversation with the program: how it is opened, with a model, an effort and
tools, and what notifications mean in it. They become events of `kiro_mcp.wire.events`, or are kept
as notes and hints. `V2` and `V3` are chosen by the program's flags::

              agent                          model                  effort
    v2        a file in a private folder     --model                --effort
    V3        inline in `session/new`        a session's option     a session's option

In both the agent is ours alone: no tools but the caller's, no servers, hooks, steering or resources
of the user. Whatever shows that another agent or another tool is at work is a breach: an error,
after which the process must end.

Source of truth: public captures of kiro-cli 2.13 to 2.28. Unknown members and notifications are
ignored.
"""

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

from kiro_mcp._version import __version__
from kiro_mcp.acp.bridge import ToolDesk
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

MAX_NOTES: Final = 20
"""How many notes the caller of the next answer gets."""

_INTERRUPTED: Final = "Tool uses were interrupted, waiting for the next user prompt"
"""After exactly this text v2 sends no response to the prompt."""

INITIALIZE: Final[JsonObject] = {
    "protocolVersion": 1,
    "clientCapabilities": {
        "fs": {"readTextFile": False, "writeTextFile": False},
        "terminal": False,
    },
    "clientInfo": {"name": "kiro-mcp", "version": __version__},
}


def breach_error(what: str) -> KiroError:
    """Return the error of a turn that something else than our agent had a part in."""
    return ServiceUnavailable(
        f"kiro-cli did not stay a pure model: {what}. Its process was ended.",
        next_step="Set KIRO_MCP_ENGINE=direct, and report this with the version of kiro-cli.",
    )


class Dialect(ABC):
    """One conversation with the program.

    Args:
        spec: What it is made for.
        flags: The flags of the program's command `acp`.
    """

    name: ClassVar[DialectName]
    start_up_seconds: ClassVar[float]
    """The time for each request of the start."""
    hold_seconds: ClassVar[float]
    """How long a call of a tool may be held."""
    end_method: ClassVar[str]
    """The request that ends the conversation in a process that goes on."""

    def __init__(self, spec: SessionSpec, flags: frozenset[str]) -> None:
        self.spec = spec
        self.session_id = ""
        """"" until it is open."""
        self.model = ""
        """The model that the program uses; "" if the program does not say."""
        self.warnings: list[str] = []
        """What was not done as asked. Every answer says it."""
        self.notes: list[str] = []
        """What the next answer tells its caller."""
        self.hint = ""
        """Why the prompt may fail: the error itself mostly says only "Internal error"."""
        self._stop_reason = ""
        self._refusal: Refusal | None = None
        self._flags = flags
        self._agent = AGENT

    @abstractmethod
    def arguments(self) -> list[str]:
        """Return the arguments of the program."""

    def files(self, desk: ToolDesk | None) -> dict[str, JsonObject]:
        """Return the files of the program's private folder.

        Args:
            desk: Where the caller's tools are served; None if there are none.
        """
        return {}

    @abstractmethod
    def new_session(self, cwd: str, desk: ToolDesk | None) -> JsonObject:
        """Return the parameters of `session/new`."""

    @abstractmethod
    async def choose(self, peer: Peer, opened: JsonObject) -> None:
        """Check the session that `session/new` opened; choose its agent, model and effort.

        Raises:
            KiroError: Another agent answers, or the program does not answer.
        """

    def begin_turn(self) -> None:
        """Forget what the program said about the turn before."""
        self.hint, self._stop_reason, self._refusal = "", "", None

    def stop(self, reason: str) -> Stop:
        """Return why the model stopped, for the word in the response to a prompt."""
        reason = self._stop_reason or reason
        return Stop(reason, None if reason == "end_turn" else self._refusal)

    def read(self, method: str, params: JsonObject) -> Iterator[Event]:
        """Read a notification of either dialect.

        Raises:
            KiroError: It shows a breach, or that the prompt gets no response.
        """
        match method.removeprefix("_").removeprefix("kiro.dev/").removeprefix("kiro/"):
            case "session/update":
                yield from self._read_update(object_member(params, "update") or params)
            case "error/rate_limit":
                self.hint = f"rate limit: {word_member(params, 'message')}"
            case "metadata":
                yield from _credits(params, "meteringUsage", "value")
                yield from _context(params, "contextUsagePercentage")
                self._stop_reason = word_member(params, "stopReason") or self._stop_reason
                if given := object_member(params, "refusal"):
                    self._refusal = Refusal(
                        category=word_member(given, "category"),
                        explanation=word_member(given, "explanation"),
                        recommended_model=word_member(given, "recommendedModel"),
                    )
            case "agent/not_found" | "agent/config_error" | "agent/switched" as what:
                raise breach_error(f"it reported {what}")
            case "subagent/list_update":
                if any(params.get(name) for name in ("subagents", "pendingStages")):
                    raise breach_error("it started a sub-agent")
            case "mcp/server_initialized":
                if (name := word_member(params, "serverName")) not in ("", SERVER):
                    raise breach_error(f"it started the user's server {quoted(name)}")
            case "mcp/server_init_failure":
                self._note_no_tools(word_member(params, "error"))
            case "mcp/status":
                for server in object_members(params, "servers"):
                    name = word_member(server, "name")
                    if word_member(server, "origin") in ("user", "workspace"):
                        raise breach_error(f"it started the user's server {quoted(name)}")
                    if name == SERVER and (why := word_member(server, "errorMessage")):
                        self._note_no_tools(why)
            case "compaction/status":
                self._note(_COMPACTED)
            case _:
                pass

    def _read_update(self, update: JsonObject) -> Iterator[Event]:
        kiro = object_member(object_member(update, "_meta"), "kiro")
        if kiro.get("replay"):
            return
        mode = word_member(update, "currentModeId")
        if mode not in ("", self._agent):
            raise breach_error(f"it switched to the agent {quoted(mode)}")
        content = object_member(update, "content")
        text = word_member(content, "text")
        match word_member(update, "sessionUpdate"):
            case "agent_message_chunk":
                if text.strip() == _INTERRUPTED:
                    raise ServiceUnavailable(
                        "kiro-cli lost an open tool call and stopped.",
                        next_step="Call again.",
                        code="stream_broken",
                    )
                if text:
                    yield Text(text)
                elif (kind := word_member(content, "type")) not in ("", "text"):
                    what = f"A part of the answer of the type {quoted(kind)}"
                    self._note(f"{what} was left out.")
            case "agent_thought_chunk":
                if text:
                    yield Reasoning(text=text)
            case "tool_call":
                # The tools of an MCP server have no kind of their own.
                if not self.spec.tools or word_member(update, "kind") not in ("", "other"):
                    title = word_member(update, "title")[:80]
                    raise breach_error(f"it used a tool of its own ({title!r})")
            case "config_option_update":
                self.model = read_options(update).get("model") or self.model
            case "retry_warning":
                self.hint = word_member(update, "message")
            case "stream_discarded":
                self._note("kiro-cli began its answer anew; what came before is still in the text.")
            case "session_info_update":
                yield from self._read_info(kiro)
            case _:
                pass

    def _read_info(self, kiro: JsonObject) -> Iterator[Event]:
        kind = word_member(kiro, "kind")
        if kind == "turn_completion":
            yield from _credits(kiro, "promptTurnSummaries", "usage")
        elif kind == "context_usage":
            yield from _context(kiro, "usagePercentage")
        elif kind == "display_error":
            self.hint = word_member(kiro, "message") or json.dumps(kiro)[:200]
            self._refusal = Refusal(explanation=self.hint)  # It counts only if the model refuses.
        elif kind.startswith("summarization_"):
            self._note(_COMPACTED)
        elif "contextUsage" in kiro:
            yield from _context(object_member(kiro, "contextUsage"), "usagePercentage")

    async def _ask(self, peer: Peer, method: str, **params: JsonValue) -> JsonObject:
        return await peer.request(
            method, {"sessionId": self.session_id, **params}, seconds=self.start_up_seconds
        )

    def _warn(self, what: str, value: str, why: str) -> None:
        self.warnings.append(
            f"kiro-cli did not take the {what} {quoted(value)}: {why[:200].rstrip('.')}."
        )

    def _note_no_tools(self, why: str) -> None:
        why = f": {why[:200]}" if why else ""
        self._note(f"kiro-cli could not reach the caller's tools{why}.")

    def _note(self, what: str) -> None:
        if what not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(what)

    def _describe_agent(self) -> JsonObject:
        """Return what both dialects say of our agent."""
        return {
            "description": "Answers for kiro-mcp, without tools of its own",
            "prompt": self.spec.system or "Answer the user's messages.",
            "tools": [f"@{SERVER}"] if self.spec.tools else [],
            "resources": [],
            "includeMcpJson": False,
        }


class V2(Dialect):
    """The older dialect: `--agent-engine v2`."""

    name = "v2"
    start_up_seconds = 30.0
    hold_seconds = 110.0  # The program drops a call after 120 seconds.
    end_method = "_kiro.dev/session/terminate"

    def arguments(self) -> list[str]:
        """Return the arguments of the program."""
        arguments = ["acp", "--agent", AGENT, "--agent-engine", "v2"]
        if "--model" in self._flags:
            arguments += ["--model", self.spec.model]
        if "--effort" in self._flags and self.spec.effort in EFFORTS:
            arguments += ["--effort", self.spec.effort]
        return arguments

    def files(self, desk: ToolDesk | None) -> dict[str, JsonObject]:
        """Return its agent, and the settings."""
        agent = self._describe_agent()
        servers: JsonObject = {}
        if desk:
            servers[SERVER] = {
                "type": "http",
                "url": desk.url,
                "headers": {"Authorization": f"Bearer {desk.bearer}"},
                "requestTimeout": REQUEST_TIMEOUT_MS,
            }
        agent |= {
            "name": AGENT,
            "allowedTools": agent["tools"],
            "hooks": {},
            "mcpServers": servers,
        }
        return {
            f"agents/{AGENT}.json": agent,
            "settings/cli.json": {"chat.disableInheritingDefaultResources": True},
        }

    def new_session(self, cwd: str, desk: ToolDesk | None) -> JsonObject:
        """Return the parameters of `session/new`."""
        return {"cwd": cwd, "mcpServers": []}

    async def choose(self, peer: Peer, opened: JsonObject) -> None:
        """Check the agent of the session, and choose its model."""
        self.session_id = word_member(opened, "sessionId")
        mode = word_member(object_member(opened, "modes"), "currentModeId")
        if mode not in ("", AGENT):
            raise breach_error(f"it started the agent {quoted(mode)}")
        if not mode:
            self.warnings.append(
                "kiro-cli does not say which agent answers; it was asked for ours."
            )
        wanted = self.spec.model
        self.model = word_member(object_member(opened, "models"), "currentModelId")
        if self.model != wanted:
            try:
                await self._ask(peer, "session/set_model", modelId=wanted)
                self.model = wanted
            except RpcError as error:
                self._warn("model", wanted, str(error))
        effort = self.spec.effort
        if effort and ("--effort" not in self._flags or effort not in EFFORTS):
            self._warn("effort", effort, "v2 has no such effort")


class V3(Dialect):
    """The newer dialect: `--agent-engine v3 --auth-method cli`."""

    name = "v3"
    start_up_seconds = 60.0
    hold_seconds = 15 * 60.0  # Whether the program drops a call is not known.
    end_method = "session/close"

    def __init__(self, spec: SessionSpec, flags: frozenset[str]) -> None:
        super().__init__(spec, flags)
        self._agent = f"{AGENT}_{secrets.token_hex(4)}"  # One process has the agents of several.

    def arguments(self) -> list[str]:
        """Return the arguments of the program. It refuses all others in this dialect."""
        return ["acp", "--agent-engine", "v3", "--auth-method", "cli"]

    def new_session(self, cwd: str, desk: ToolDesk | None) -> JsonObject:
        """Return the parameters of `session/new`, with the agent."""
        servers: list[JsonValue] = []
        rule: JsonObject = {"capability": "all", "match": ["*"], "effect": "deny"}
        if self.spec.tools:  # Not both rules: a denial wins over each permission.
            rule = {"capability": "mcp", "match": [f"{SERVER}/*"], "effect": "allow"}
        if desk:
            header: JsonObject = {"name": "Authorization", "value": f"Bearer {desk.bearer}"}
            servers.append(
                {
                    "type": "http",
                    "name": SERVER,
                    "url": desk.url,
                    "headers": [header],
                    "requestTimeout": REQUEST_TIMEOUT_MS,
                }
            )
        agent: JsonObject = {
            **self._describe_agent(),
            "id": self._agent,
            "includePowers": False,
            "permissions": {"rules": [rule]},
        }
        return {
            "cwd": cwd,
            "mcpServers": servers,
            "_meta": {"kiro": {"customAgents": [agent]}},
        }

    async def choose(self, peer: Peer, opened: JsonObject) -> None:
        """Choose the agent, model and effort of the session."""
        self.session_id = word_member(opened, "sessionId")
        modes = object_members(object_member(opened, "modes"), "availableModes")
        if self._agent not in [word_member(mode, "id") for mode in modes]:
            raise breach_error("it did not take the agent of this session")
        try:
            await self._ask(peer, "session/set_mode", modeId=self._agent)
        except RpcError as error:
            raise breach_error(f"it did not switch to the agent ({error})") from None
        values = read_options(opened)
        for option, name, value in (
            ("model", "model", self.spec.model),
            ("effortLevel", "effort", self.spec.effort),
        ):
            if not value or values.get(option) == value:
                continue
            method = "session/set_config_option"
            try:
                result = await self._ask(peer, method, configId=option, value=value)
            except RpcError as error:
                self._warn(name, value, str(error))
                continue
            values = read_options(result) or values
            if (now := values.get(option, "")) != value and values:
                why = f"{quoted(now)} is in force" if now else "the model has no such option"
                self._warn(name, value, why)
        self.model = values.get("model", "")


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


_COMPACTED: Final = "kiro-cli summarised the conversation, so details of it may be lost."
