"""Run the programs of docs/examples as a reader does: `python -m tests.interop.examples [NAME …]`.

uv installs the packages that each names in its head, in an environment of its own, and the built-in
emulator answers. One line for an example; exits with 0 if all print what they should. What cannot
be installed is skipped. Takes a minute or two, so CI does not run it.
"""

import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import STDOUT, CompletedProcess

import anyio

from tests.interop.run import python_with
from tests.support.optional import exit_code
from tests.support.served import serve
from tests.support.stdio import environment

FOLDER = Path(__file__).parent.parent.parent / "docs" / "examples"
FILES = sorted(FOLDER.glob("*.py"))

HELLO = "This is a canned answer of the emulator. You said: Say hello"
TOKEN = "a token that only tests know"

PRINTED = {
    "mcp_client": ["Your tools said: sunny, 18 °C", "running: This", "You said: /emulate slow 3"],
    "openai_api": [HELLO, f"{HELLO} again", "404 Error code: 404 - model_unavailable"],
    "anthropic_api": [HELLO, "404 Error code: 404", "model_unavailable"],
}
"""What an example must print, by its name; the others print the answer to `Say hello`."""

OVER_HTTP = ("anthropic_api", "llama_index_agent", "openai_api")
"""The examples that call a server which the reader starts."""

RUN_SECONDS = 120


def dependencies(example: Path) -> list[str]:
    """Return the packages that an example names in its head; none if it needs only a clone."""
    start, *rest = example.read_text("utf-8").splitlines()
    if start != "# /// script":
        return []
    head = [line.removeprefix("# ") for line in rest[: rest.index("# ///")]]
    return tomllib.loads("\n".join(head))["dependencies"]


def with_kiro_mcp(**variables: str) -> dict[str, str]:
    """Return the environment of a user who has installed kiro-mcp."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return environment(PATH=path, KIRO_MCP_HTTP_TOKEN=TOKEN, **variables)


def missing(example: Path, printed: str) -> list[str]:
    """Return what an example should have printed, and did not."""
    return [text for text in PRINTED.get(example.stem, [HELLO]) if text not in printed]


async def example_works(example: Path) -> bool:
    """Run an example, and print whether it did what it should."""
    packages = dependencies(example)
    python = await python_with(*packages) if packages else [sys.executable]
    began = time.monotonic()
    if example.stem in OVER_HTTP:
        options = ("--transport", "http", "--api", "--offline")
        async with serve(*options, KIRO_MCP_HTTP_TOKEN=TOKEN) as served:
            url = str(served.server.client.base_url).rstrip("/")
            printed = await _printed([*python, str(example), url])
    else:
        printed = await _printed([*python, str(example), "--offline"])
    absent = missing(example, printed)
    verdict = f"FAILED: no {absent} in {printed[-1500:]!r}" if absent else "ok"
    print(f"examples: {example.name}: {verdict}, {time.monotonic() - began:.1f} s", flush=True)
    return not absent


async def _printed(command: Sequence[str]) -> str:
    """Return what a program prints; of one that fails, only how it ended."""
    done: CompletedProcess[bytes] | None = None
    with tempfile.TemporaryDirectory() as home, anyio.move_on_after(RUN_SECONDS):
        environ = with_kiro_mcp(HOME=home)
        done = await anyio.run_process(command, check=False, stderr=STDOUT, env=environ, cwd=home)
    if done is None:
        return f"(it did not end in {RUN_SECONDS} s)"
    if done.returncode != 0:
        # What it printed before does not count.
        sys.stderr.buffer.write(done.stdout)
        return f"(exit code {done.returncode})"
    return done.stdout.decode(errors="replace")


if __name__ == "__main__":
    chosen = [FOLDER / f"{name}.py" for name in sys.argv[1:]] or FILES
    sys.exit(max(exit_code(path.name, partial(example_works, path)) for path in chosen))
