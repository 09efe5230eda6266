"""Call the server with clients that others wrote: `python -m tests.interop.run`.

The Python SDK of the generation before, the Inspector's command line in two versions, and the two
generations of the TypeScript SDK that come with it, as older and as newer clients, over stdio and
HTTP. Each lists the tools and calls all three. uv and npm install them; what cannot be had is
skipped, as `tests.support.optional` says. One line a client; exits with 0 if all of them worked.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import anyio

from tests.support.npm import program
from tests.support.optional import InstallFailed, Unavailable, exit_code
from tests.support.shipped import OVER_STDIO, shipped_over_http
from tests.support.stdio import environment

PYTHON_SDK = "mcp==1.30.0"
INSPECTOR = "@modelcontextprotocol/inspector"
NEWER, OLDER = "2.12.0", "0.15.0"

TOOLS = ["ask_claude", "list_models", "login"]
SLOW = "/emulate slow 6"
"""An answer that takes three times as long as the SDKs' clients wait without progress."""

QUICK = "hello from the Inspector"
HERE = Path(__file__).parent
INSTALL_SECONDS = 300
RUN_SECONDS = 120

_NO_INDEX = re.compile(
    r"dns error|Connection refused|Network is unreachable|timed out|network was disabled"
)
"""What uv says where nothing answers."""

Command = Sequence[str]
Report = dict[str, Any]
"""What a client saw: `tools`, structured `results` by tool, and `progress` if it asked for any."""


class ClientFailed(Exception):
    """A client gave up, and this is what it said."""


async def python_works() -> bool:
    """Call it with the Python SDK of the generation before."""
    client = [*await python_with(PYTHON_SDK), str(HERE / "python_client.py"), SLOW]
    async with shipped_over_http() as url:
        stdio = await _works(f"{PYTHON_SDK}, stdio", SLOW, partial(seen, [*client, *OVER_STDIO]))
        http = await _works(f"{PYTHON_SDK}, HTTP", SLOW, partial(seen, [*client, url]))
    return stdio and http


async def typescript_works() -> bool:
    """Call it with the Inspector, and with the SDKs that come with it."""
    older, newer = [await program(INSPECTOR, version) for version in (OLDER, NEWER)]
    outcomes = [
        await _works(
            f"TypeScript SDK {generation}, {era}, stdio",
            SLOW,
            partial(seen, _typescript_client(inspector, generation, era)),
        )
        for inspector, generation, era in (
            (older, "1", "legacy"),
            (newer, "2", "legacy"),
            (newer, "2", "modern"),
        )
    ]
    async with shipped_over_http() as url:
        http = ["--transport", "http", "--server-url", url]
        for name, command in {
            f"{OLDER}, stdio": [*older, "--cli", *OVER_STDIO],
            f"{NEWER}, legacy, stdio": [*newer, "--cli", *OVER_STDIO, "--protocol-era", "legacy"],
            f"{NEWER}, modern, stdio": [*newer, "--cli", *OVER_STDIO, "--protocol-era", "modern"],
            f"{NEWER}, legacy, HTTP": [*newer, "--cli", *http, "--protocol-era", "legacy"],
            f"{NEWER}, modern, HTTP": [*newer, "--cli", *http, "--protocol-era", "modern"],
        }.items():
            look = partial(_inspected, command, is_strict=name.startswith(NEWER))
            outcomes.append(await _works(f"Inspector {name}", QUICK, look))
    return all(outcomes)


# --- the clients --------------------------------------------------------------------------


async def python_with(*packages: str) -> list[str]:
    """Return the command of a Python with some packages, in an environment of its own."""
    uv = shutil.which("uv")
    if uv is None:
        raise Unavailable("there is no uv")
    # The client gets another HOME, where uv would not find what it has installed before.
    cache = (await anyio.run_process([uv, "cache", "dir"])).stdout.decode().strip()
    wanted = [f"--with={package}" for package in packages]
    package = " and ".join(packages)
    python = [uv, "run", "--quiet", "--cache-dir", cache, "--isolated", "--no-project"]
    python = [*python, *wanted, "python"]
    done: CompletedProcess[bytes] | None = None
    with anyio.move_on_after(INSTALL_SECONDS):
        done = await anyio.run_process([*python, "-c", ""], check=False)
    if done is None:
        raise InstallFailed(f"uv did not install {package} in {INSTALL_SECONDS} s")
    said = done.stderr.decode(errors="replace")
    if done.returncode and (found := _NO_INDEX.search(said)):
        raise Unavailable(f"uv cannot reach an index ({found[0]}), so there is no {package}")
    if done.returncode:
        raise InstallFailed(f"uv could not install {package}: {said!r}")
    return python


def _typescript_client(inspector: Command, generation: str, era: str) -> list[str]:
    node, entry = inspector
    [modules] = [folder for folder in Path(entry).parents if folder.name == "node_modules"]
    script = str(HERE / "typescript_client.cjs")
    return [node, script, str(modules), generation, era, SLOW, *OVER_STDIO]


async def _inspected(inspector: Command, *, is_strict: bool) -> Report:
    """Let the Inspector list the tools and call each tool, in a process of its own each time.

    If it is strict, it also fails if it thinks that other clients cannot read a schema.
    """
    strict = ["--strict"] if is_strict else []
    listed = await seen([*inspector, "--method", "tools/list", *strict])
    results: dict[str, Any] = {}
    for tool in TOOLS:
        call = ["--method", "tools/call", "--tool-name", tool]
        arguments = ["--tool-arg", f"prompt={QUICK}"] if tool == "ask_claude" else []
        results[tool] = (await seen([*inspector, *call, *arguments]))["structuredContent"]
    return {"tools": [tool["name"] for tool in listed["tools"]], "results": results}


async def seen(command: Command, **variables: str) -> Report:
    """Run a client, with environment variables, and read the JSON that it prints.

    Raises:
        ClientFailed: It did not end well, or printed something else.
    """
    done: CompletedProcess[bytes] | None = None
    # The older Inspector starts a `node` of its own.
    path = os.pathsep.join((os.path.dirname(command[0]), os.environ.get("PATH", "")))
    with tempfile.TemporaryDirectory() as home, anyio.move_on_after(RUN_SECONDS):
        environ = environment(HOME=home, PATH=path, **variables)
        done = await anyio.run_process(command, check=False, env=environ)
    if done is None:
        raise ClientFailed(f"it did not end in {RUN_SECONDS} s")
    if done.returncode != 0:
        raise ClientFailed(f"exit code {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}")
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise ClientFailed(f"it printed {done.stdout!r}") from error


# --- what they must have seen -------------------------------------------------------------


async def _works(name: str, prompt: str, look: Callable[[], Awaitable[Report]]) -> bool:
    """Let a client look, and print on a line what is wrong with what it saw."""
    started = time.monotonic()
    try:
        wrong = _what_is_wrong(await look(), prompt)
    except ClientFailed as failure:
        wrong = [str(failure)]
    verdict = f"FAILED: {'; '.join(wrong)}" if wrong else "ok"
    print(f"interop: {name}: {verdict}, {time.monotonic() - started:.1f} s", flush=True)
    return not wrong


def _what_is_wrong(report: Report, prompt: str) -> list[str]:
    results, progress = report["results"], report.get("progress", [1, 2])
    source, state = results["list_models"]["source"], results["login"]["state"]
    rules = {
        f"the tools are {report['tools']}": report["tools"] == TOOLS,
        f"the answer is {results['ask_claude']}": prompt in results["ask_claude"]["text"],
        f"the models' source is {source}": source in ("live", "cache"),
        f"the login is {state}": state == "signed_in",
        f"progress was {progress}": len(progress) > 1 and progress == sorted(set(progress)),
    }
    return [what for what, is_right in rules.items() if not is_right]


if __name__ == "__main__":
    codes = [
        exit_code("interop with Python", python_works),
        exit_code("interop with TypeScript", typescript_works),
    ]
    sys.exit(max(codes))
