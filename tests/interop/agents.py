"""Let real command-line agents use the server: `python -m tests.interop.agents [STARTS]`.

Claude Code, Codex and Cline run without a person, against a stand-in for their model that calls
`ask_claude`, and an emulator in place of the service. Claude Code and Codex also run with the
plugin of a checkout instead of an entry of `install`. For each: are the tools there when it first
asks its model, and does the model see an answer, a call of a tool of its own, an error, and an
answer that takes longer than the client waits? npm installs them; what cannot be had is skipped.
One line a client and check; exits with 0 if all are ok. Takes minutes, so CI does not run it.
"""

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import STDOUT, CompletedProcess

import anyio

from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator, running
from tests.interop.scripted_model import Json, ScriptedModel, Step, scripted_model
from tests.support.npm import program
from tests.support.optional import exit_code
from tests.support.stdio import COMMAND, environment

STARTS = 3
RUN_SECONDS = 120
PATIENCE_SECONDS = 4
"""How long a client waits for a tool in the last check."""
SLOW_SECONDS = 7
"""How long the answer takes there."""
MAX_CALLS = 10

QUICK = "hello from an agent"
ARGUMENTS = {"place": {"city": "Paris", "days": [1, 2]}, "units": ["C", "F"]}
WEATHER: Json = {
    "name": "get_weather",
    "description": "Get the weather of a place.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "place": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["city"],
            },
            "units": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["place"],
    },
}
FORECAST = "18 degrees and some rain"
SLOW = f"/emulate slow {SLOW_SECONDS}\ntake your time"

_CONVERSATION = re.compile(r"conversation_id\W+([\w-]+)")
_CALL_ID = re.compile(r"tooluse_Emulated\w+")


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[found.re.groups] if found else "not found"


CALLS: Sequence[Step] = (
    lambda _: {"prompt": QUICK},
    lambda _: {"prompt": f"/emulate tool_use {json.dumps(ARGUMENTS)}", "tools": [WEATHER]},
    lambda seen: {
        "conversation_id": _found(_CONVERSATION, seen),
        "tool_results": [{"id": _found(_CALL_ID, seen), "content": FORECAST}],
        "tools": [WEATHER],
    },
    lambda _: {"prompt": "/emulate quota"},
)


def _again(seen: str) -> Json:
    """Repeat the slow question until it is answered, then ask something else."""
    return {"prompt": QUICK if "canned" in seen else SLOW}


# --- the clients ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a client starts with: an empty home, its model, and the service of its server."""

    home: Path
    model_url: str
    service: dict[str, str]
    patience_seconds: int | None
    """How long it waits for a tool; None for as long as it does by itself."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A client, and how it is set up and run once."""

    name: str
    command: Sequence[str]
    set_up: Callable[[Sequence[str], Workspace], Awaitable[dict[str, str]]]
    """Writes its configuration and returns the variables that it is run with."""


CLAUDE_CODE, CODEX = "2.1.197", "0.171.0"
PLUGIN = "kiro-mcp@kiro-mcp"
"""The plugin's name and its marketplace's."""


async def claude_code() -> Agent:
    """Claude Code, by the steps of the README: a clone, `uv tool install .`, `install`."""
    command = await _claude_code()
    flags = ["-p", "Go on.", "--allowedTools", "mcp__kiro__ask_claude"]

    async def set_up(_: Sequence[str], place: Workspace) -> dict[str, str]:
        clone = await _check_out(place)
        await run_program(["uv", "tool", "install", "--quiet", str(clone)], place.home, {})
        await _install("claude-code", place, {}, [str(place.home / ".local" / "bin" / "kiro-mcp")])
        return _claude_code_variables(place)

    return Agent(name=f"Claude Code {CLAUDE_CODE}", command=[*command, *flags], set_up=set_up)


async def claude_code_plugin() -> Agent:
    """Claude Code, with the plugin of a checkout."""
    command = await _claude_code()
    flags = ["-p", "Go on.", "--allowedTools", "mcp__plugin_kiro-mcp_kiro__ask_claude"]

    async def set_up(_: Sequence[str], place: Workspace) -> dict[str, str]:
        variables = _claude_code_variables(place)
        checkout = await _check_out(place)
        await _sync(checkout)
        for step in (["marketplace", "add", str(checkout)], ["install", PLUGIN]):
            await run_program([*command, "plugin", *step], place.home, variables)
        return {**variables, **place.service}

    name = f"Claude Code {CLAUDE_CODE}, plugin"
    return Agent(name=name, command=[*command, *flags], set_up=set_up)


async def _claude_code() -> list[str]:
    node, entry = await program("@anthropic-ai/claude-code", CLAUDE_CODE)
    # The package's program is put in its place by a script that npm does not always run.
    return [node, str(Path(entry).parents[1] / "cli-wrapper.cjs")]


def _claude_code_variables(place: Workspace) -> dict[str, str]:
    patience = {"MCP_TOOL_TIMEOUT": f"{place.patience_seconds}000"}
    return {
        "ANTHROPIC_BASE_URL": place.model_url,
        "ANTHROPIC_API_KEY": "sk-nobody",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        **(patience if place.patience_seconds else {}),
    }


CODEX_FLAGS = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]


async def codex() -> Agent:
    """Codex, with the entry that `install codex` writes."""
    command = await program("@openai/codex", CODEX)

    async def set_up(_: Sequence[str], place: Workspace) -> dict[str, str]:
        config, variables = _configure_codex(place)
        await _install("codex", place, variables)
        if place.patience_seconds:
            table = "[mcp_servers.kiro]\n"
            patience = f"{table}tool_timeout_sec = {place.patience_seconds}\n"
            config.write_text(config.read_text().replace(table, patience))
        return variables

    run = [*command, *CODEX_FLAGS, "Go on."]
    return Agent(name=f"Codex {CODEX}", command=run, set_up=set_up)


async def codex_plugin() -> Agent:
    """Codex, with the plugin of a checkout."""
    command = await program("@openai/codex", CODEX)

    async def set_up(_: Sequence[str], place: Workspace) -> dict[str, str]:
        variables = _configure_codex(place)[1]
        checkout = await _check_out(place)
        await _sync(checkout)
        if place.patience_seconds:
            manifest = checkout / ".codex-plugin" / "plugin.json"
            plugin = json.loads(manifest.read_text())
            plugin["mcpServers"]["kiro"]["tool_timeout_sec"] = place.patience_seconds
            manifest.write_text(json.dumps(plugin))
        for step in (["marketplace", "add", str(checkout)], ["add", PLUGIN]):
            await run_program([*command, "plugin", *step], place.home, variables)
        # Codex starts a copy. Its first session installs what the server needs, but does not wait.
        copies = place.home.glob(".codex/plugins/cache/kiro-mcp/kiro-mcp/*")
        await _sync(next(copies))
        return {**variables, **place.service}

    run = [*command, *CODEX_FLAGS, "Go on."]
    return Agent(name=f"Codex {CODEX}, plugin", command=run, set_up=set_up)


def _configure_codex(place: Workspace) -> tuple[Path, dict[str, str]]:
    """Name the model; return the file of the configuration, and the variables."""
    config = place.home / ".codex" / "config.toml"
    config.parent.mkdir()
    config.write_text(
        'model = "scripted"\nmodel_provider = "scripted"\n\n'
        '[model_providers.scripted]\nname = "scripted"\nwire_api = "responses"\n'
        f'base_url = "{place.model_url}/v1"\nenv_key = "NOBODYS_KEY"\n'
    )
    return config, {"CODEX_HOME": str(config.parent), "NOBODYS_KEY": "sk-nobody"}


async def _check_out(place: Workspace) -> Path:
    """Copy the tracked files, and let the home share uv's cache."""
    folder = place.home / "checkout"
    git = ["git", "-C", str(Path(__file__).parents[2]), "checkout-index", "--all"]
    await anyio.run_process([*git, f"--prefix={folder}/"])
    (place.home / ".cache").mkdir()
    (place.home / ".cache" / "uv").symlink_to(await _uv_cache())
    return folder


async def _sync(folder: Path) -> None:
    sync = ["uv", "sync", "--quiet", "--no-dev", "--directory", str(folder)]
    await anyio.run_process(sync, env=environment(UV_CACHE_DIR=await _uv_cache()))


async def _uv_cache() -> str:
    return (await anyio.run_process(["uv", "cache", "dir"])).stdout.decode().strip()


async def cline() -> Agent:
    """Cline's command line, with an entry as its documentation has them."""
    version = "3.0.65"
    command = await program("cline", version)

    async def set_up(command: Sequence[str], place: Workspace) -> dict[str, str]:
        servers = place.home / "servers.json"
        entry: Json = {"command": COMMAND[0], "args": COMMAND[1:], "env": place.service}
        if place.patience_seconds:
            entry["timeout"] = place.patience_seconds
        servers.write_text(json.dumps({"mcpServers": {"kiro": entry}}))
        url = f"{place.model_url}/v1"
        auth = ["auth", "-p", "openai", "-k", "sk-nobody", "-m", "scripted", "-b", url]
        await run_program([command[0], command[1], *auth], place.home, {})
        # Without a daemon, which would outlive the run and mix the settings of several.
        return {"CLINE_MCP_SETTINGS_PATH": str(servers), "CLINE_SESSION_BACKEND_MODE": "local"}

    return Agent(name=f"Cline {version}", command=[*command, "Go on."], set_up=set_up)


async def _install(
    client: str, place: Workspace, variables: dict[str, str], command: Sequence[str] = COMMAND
) -> None:
    given = [f"--env={name}={value}" for name, value in place.service.items()]
    await run_program([*command, "install", client, *given], place.home, variables)


async def run_program(command: Sequence[str], home: Path, variables: dict[str, str]) -> str:
    """Run a program in a home of its own, and return what it prints and how it ended."""
    done: CompletedProcess[bytes] | None = None
    # Some of the clients start a `node` of their own.
    path = os.pathsep.join((os.path.dirname(command[0]), os.environ.get("PATH", "")))
    environ = environment(HOME=str(home), PATH=path, **variables)
    work = home / "work"
    work.mkdir(exist_ok=True)
    with anyio.move_on_after(RUN_SECONDS):
        done = await anyio.run_process(
            command, check=False, env=environ, cwd=work, stderr=STDOUT, stdin=None
        )
    if done is None:
        return f"it did not end in {RUN_SECONDS} s"
    return f"exit code {done.returncode}: {done.stdout.decode(errors='replace')}"


@asynccontextmanager
async def _ran(
    agent: Agent, steps: Sequence[Step], patience_seconds: int | None = None
) -> AsyncGenerator[tuple[ScriptedModel, RunningEmulator, str]]:
    """Run a client once; yield its model, the emulator, and what it printed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        async with running() as emulator:
            with scripted_model(steps) as model:
                place = Workspace(
                    home=Path(home),
                    model_url=model.url,
                    service={
                        "KIRO_API_KEY": EMULATOR_API_KEY,
                        "KIRO_MCP_ENDPOINT_URL": emulator.url,
                        "KIRO_MCP_MAX_RETRIES": "0",
                    },
                    patience_seconds=patience_seconds,
                )
                variables = await agent.set_up(agent.command, place)
                said = await run_program(agent.command, place.home, variables)
                yield model, emulator, said


# --- the checks -----------------------------------------------------------------------------------


async def works(make: Callable[[], Awaitable[Agent]], starts: int) -> bool:
    """Make all checks with a client."""
    agent = await make()
    return all(
        [
            await _tools_are_there(agent, starts),
            await _calls_are_seen(agent),
            await _repeated_call_costs_one_request(agent),
        ]
    )


async def _tools_are_there(agent: Agent, starts: int) -> bool:
    began, there, last = time.monotonic(), 0, ""
    for _ in range(starts):
        async with _ran(agent, ()) as (model, _emulator, said):
            if any(name.endswith("ask_claude") for name in model.first_tools or ()):
                there += 1
            else:
                last = f"; the tools were {model.first_tools}; {said[-600:]}"
    what = f"tools at the first request, {there} of {starts} starts{last}"
    return _report(agent, what, began, is_ok=there == starts)


async def _calls_are_seen(agent: Agent) -> bool:
    began = time.monotonic()
    async with _ran(agent, CALLS) as (model, _, said):
        seen = [*model.results, *[f"nothing: {said[-600:]}"] * len(CALLS)]
    plain, call, answer, error = seen[: len(CALLS)]
    return all(
        [
            _report(agent, "answer", began, plain, is_ok=f"You said: {QUICK}" in plain),
            _report(
                agent, "tool call", began, call, is_ok=_bare(json.dumps(ARGUMENTS)) in _bare(call)
            ),
            _report(agent, "tool result", began, answer, is_ok=f"said: {FORECAST}" in answer),
            _report(agent, "error", began, error, is_ok="usage" in error and "canned" not in error),
        ]
    )


async def _repeated_call_costs_one_request(agent: Agent) -> bool:
    began = time.monotonic()
    async with _ran(agent, [_again] * MAX_CALLS, PATIENCE_SECONDS) as (model, emulator, said):
        bodies = [json.dumps(request.body) for request in emulator.state.requests]
        asked = sum("take your time" in body for body in bodies)
    answers = [number for number, seen in enumerate(model.results, 1) if "canned" in seen]
    seen = model.results[0] if model.results else f"nothing: {said[-600:]}"
    call = f"at call {answers[0]}" if answers else "never"
    what = f"slow answer, {asked} requests, seen {call}"
    is_ok = asked == 1 and bool(answers) and answers[0] > 1
    return _report(agent, what, began, seen, is_ok=is_ok)


def _bare(text: str) -> str:
    """Return the text without what JSON inside of JSON adds to it."""
    return re.sub(r'[\s\\"]', "", text)


def _report(agent: Agent, what: str, began: float, seen: str = "", *, is_ok: bool) -> bool:
    verdict = "ok" if is_ok else "FAILED" + (f": the model saw {seen[:1500]!r}" if seen else "")
    seconds = time.monotonic() - began
    print(f"agents: {agent.name}: {what}: {verdict}, {seconds:.1f} s", flush=True)
    return is_ok


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else STARTS
    sys.exit(
        max(
            exit_code(f"agents: {make.__name__}", partial(works, make, count))
            for make in (claude_code, claude_code_plugin, codex, codex_plugin, cline)
        )
    )
