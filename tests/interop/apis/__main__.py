"""Use the APIs with clients that others wrote: `python -m tests.interop.apis [NAME …]`.

The vendors' SDKs, LangChain and LiteLLM make their checks by themselves, each in an environment of
its own (`with_NAME.py`). Four coding agents then work on a file with a tool of their own, and must
end with the model's last words. Then they meet a used-up plan, which must end their turn. The
server is a process as users start it; it answers from an emulator, which plays the model's part.
What cannot be installed is skipped. One line for a client and a check; exits with 0 if all are ok.
Takes minutes, so CI does not run it.
"""

import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kiro_mcp.emulator import EmulatorState, Send, frames, running
from kiro_mcp.emulator.catalogue import CATALOGUE
from kiro_mcp.emulator.request import Call, RestRequest, WireForm
from kiro_mcp.emulator.script_files import read_script
from kiro_mcp.emulator.state import GENERATE
from tests.interop.agents import Json, run_program
from tests.interop.run import ClientFailed, python_with, seen
from tests.support.http import against
from tests.support.npm import program
from tests.support.optional import exit_code
from tests.support.served import serve

LIBRARIES = {
    "openai": ["openai==3.57.0"],
    "anthropic": ["anthropic==2.14.0"],
    "langchain": ["langchain-openai==1.7.4", "langchain-anthropic==1.7.10"],
    "litellm": ["litellm==1.110.2"],
}
"""The packages of each library; its checks are in `with_NAME.py`."""

SIGNED = {"openai": 2, "anthropic": 2, "litellm": 2}
"""How many times a library brings the model's thinking back, with its signature."""

TYPED = 'Here you are:\n```json\n{"city": "Paris", "days": [1, 2]}\n```'
THOUGHT = "The emulator reasons before it answers."

MODEL = "claude-sonnet-4.5"
NOTE = "The lapwing has 4711 feathers."
MOST_REQUESTS = 3
"""How often an agent may ask for one task: some also ask for a title."""
LAST_WORDS = "I counted 4711 of them."
HERE = Path(__file__).parent


@asynccontextmanager
async def serving(state: EmulatorState) -> AsyncGenerator[str]:
    """Serve the APIs as users do, against an emulator; yield the address."""
    async with (
        running(state) as emulator,
        serve("--transport", "http", "--api", "--no-auth", **against(emulator)) as served,
    ):
        yield str(served.server.client.base_url).rstrip("/")


# --- libraries ------------------------------------------------------------------------------------


async def library_works(name: str) -> bool:
    """Let a library make its checks."""
    packages = LIBRARIES[name]
    client = [*await python_with(*packages), str(HERE / f"with_{name}.py")]
    what = ", ".join(packages)
    began = time.monotonic()
    state = EmulatorState(scripts={"typed": (Send(frames.text(TYPED) + frames.ending()),)})
    async with serving(state) as url:
        try:
            report = await seen([*client, url])
        except ClientFailed as failure:
            return _report(what, "all", began, str(failure))
    if name in SIGNED:
        bodies = [json.dumps(request.body) for request in state.requests_to(GENERATE)]
        signed = sum(json.dumps(frames.sign(THOUGHT)) in body for body in bodies)
        report["signatures"] = "" if signed == SIGNED[name] else f"{signed} came back"
    for check, wrong in report.items():
        _report(what, check, began, wrong)
    return not any(report.values())


# --- agents ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent, and how it is set up for one task."""

    name: str
    command: Sequence[str]
    tool: str
    """The agent's own tool that the model calls."""
    arguments: Json | str
    """What the model calls it with; `$WORK` is the folder of the task."""
    set_up: Callable[[Path, str], Awaitable[Mapping[str, str]]]
    """Writes its configuration into a home, for an address; returns its variables."""


async def claude_code() -> Agent:
    """Claude Code reads a file."""
    version = "2.1.197"
    node, entry = await program("@anthropic-ai/claude-code", version)
    wrapper = Path(entry).parents[1] / "cli-wrapper.cjs"

    async def set_up(_: Path, url: str) -> Mapping[str, str]:
        return {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-nobody",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    return Agent(
        name=f"Claude Code {version}",
        command=[node, str(wrapper), "--model", MODEL, "--allowedTools", "Read", "-p"],
        tool="Read",
        arguments={"file_path": "$WORK/notes.txt"},
        set_up=set_up,
    )


async def codex() -> Agent:
    """Codex runs a command."""
    return await _codex(MODEL, "exec_command", {"cmd": "cat notes.txt"})


async def codex_own() -> Agent:
    """Codex runs a script: so it offers its tools to the models of its own catalogue."""
    script = 'text(await tools.exec_command({cmd: "cat notes.txt"}))'
    return await _codex("gpt-5.6-terra", "functions__exec", {"input": script})


async def _codex(model: str, tool: str, arguments: Json) -> Agent:
    version = "0.171.0"
    command = await program("@openai/codex", version)
    flags = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]

    async def set_up(home: Path, url: str) -> Mapping[str, str]:
        config = home / ".codex" / "config.toml"
        config.parent.mkdir()
        config.write_text(
            f'model = "{model}"\nmodel_provider = "kiro"\n\n'
            '[model_providers.kiro]\nname = "kiro"\nwire_api = "responses"\n'
            f'base_url = "{url}/v1"\nenv_key = "NOBODYS_KEY"\n'
        )
        return {"CODEX_HOME": str(config.parent), "NOBODYS_KEY": "sk-nobody"}

    return Agent(
        name=f"Codex {version}, {model}",
        command=[*command, *flags],
        tool=tool,
        arguments=arguments,
        set_up=set_up,
    )


async def cline() -> Agent:
    """Cline reads a file."""
    version = "3.0.65"
    command = await program("cline", version)

    async def set_up(home: Path, url: str) -> Mapping[str, str]:
        auth = ["auth", "-p", "openai", "-k", "sk-nobody", "-m", MODEL, "-b", f"{url}/v1"]
        await run_program([*command, *auth], home, {})
        # Without a daemon, which would outlive the run.
        return {"CLINE_SESSION_BACKEND_MODE": "local"}

    return Agent(
        name=f"Cline {version}",
        command=command,
        tool="read_files",
        arguments={"files": [{"path": "$WORK/notes.txt"}]},
        set_up=set_up,
    )


async def opencode(package: str) -> Agent:
    """Opencode reads a file, through one of the packages of Vercel's AI SDK."""
    version = "1.18.33"
    _, entry = await program("opencode-ai", version)

    async def set_up(home: Path, url: str) -> Mapping[str, str]:
        provider: Json = {
            "npm": package,
            "options": {"baseURL": f"{url}/v1", "apiKey": "sk-nobody"},
            "models": {MODEL: {}},
        }
        config = home / "opencode.json"
        config.write_text(json.dumps({"provider": {"kiro": provider}, "autoupdate": False}))
        return {
            "OPENCODE_CONFIG": str(config),
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "PWD": str(home / "work"),  # It looks here in place of asking the system.
        }

    return Agent(
        name=f"opencode {version}, {package}",
        command=[entry, "run", "-m", f"kiro/{MODEL}"],
        tool="read",
        arguments={"filePath": "$WORK/notes.txt"},
        set_up=set_up,
    )


AGENTS: Mapping[str, Callable[[], Awaitable[Agent]]] = {
    "claude-code": claude_code,
    "codex": codex,
    "codex-own": codex_own,
    "cline": cline,
    "opencode": partial(opencode, "@ai-sdk/openai-compatible"),
    "opencode-openai": partial(opencode, "@ai-sdk/openai"),
    "opencode-anthropic": partial(opencode, "@ai-sdk/anthropic"),
}


async def run_agent(agent: Agent, answers: Sequence[Json]) -> tuple[str, list[Any]]:
    """Let an agent do a task with a model that gives these answers.

    Returns what it said, and the bodies of the requests that the service was sent.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        work = home / "work"
        work.mkdir()
        (work / "notes.txt").write_text(f"{NOTE}\n")
        script = home / "script.json"
        script.write_text(json.dumps({"answers": answers}).replace("$WORK", str(work)))
        state = EmulatorState(script_files=[read_script(script)])
        async with serving(state) as url:
            variables = dict(await agent.set_up(home, url))
            task = "How many feathers has the lapwing? It is in notes.txt."
            said = await run_program([*agent.command, task], home, variables)
    return said, [request.body for request in state.requests_to(GENERATE)]


async def agent_works(make: Callable[[], Awaitable[Agent]]) -> bool:
    """Let an agent do its task, then let it meet a used-up plan."""
    agent = await make()
    began = time.monotonic()
    call = {"name": agent.tool, "arguments": agent.arguments}
    steps = [{"reasoning": "I read it."}, {"text": "Let me look."}, {"tool_use": call}]
    answers = [
        {"when": NOTE, "steps": [{"text": LAST_WORDS}]},
        {"when": "How many feathers", "steps": steps},
    ]
    said, asked = await run_agent(agent, answers)
    requests = [RestRequest.model_validate(body) for body in asked[:-1]]
    prompts = [Call(request, WireForm.REST, CATALOGUE) for request in requests]
    offered = {tool.name for prompt in prompts for tool in prompt.tools}
    rules = {
        f"the tools were {offered}": agent.tool in offered,
        "the model did not read the file": any(NOTE in json.dumps(body) for body in asked),
        f"it said {said[-1000:]}": LAST_WORDS in said and said.startswith("exit code 0"),
    }
    wrong = "; ".join(what for what, is_right in rules.items() if not is_right)
    has_read = _report(agent.name, f"reads a file with {agent.tool}", began, wrong)

    began = time.monotonic()
    said, asked = await run_agent(agent, [{"steps": [{"emulate": "quota"}]}])
    has_ended = said.startswith("exit code") and 0 < len(asked) <= MOST_REQUESTS
    wrong = "" if has_ended else f"it made {len(asked)} requests and said {said[-1000:]}"
    return _report(agent.name, "takes a used-up plan as final", began, wrong) and has_read


def _report(name: str, what: str, began: float, wrong: str) -> bool:
    verdict = f"FAILED: {wrong[-1500:]!r}" if wrong else "ok"
    print(f"apis: {name}: {what}: {verdict}, {time.monotonic() - began:.1f} s", flush=True)
    return not wrong


if __name__ == "__main__":
    names = sys.argv[1:] or [*LIBRARIES, *AGENTS]
    sys.exit(
        max(
            exit_code(
                f"apis: {name}",
                partial(agent_works, AGENTS[name])
                if name in AGENTS
                else partial(library_works, name),
            )
            for name in names
        )
    )
