"""Run the programs of docs/examples as a reader does: `python -m tests.interop.examples [NAME …]`.

uv installs the packages that each names in its head, in an environment of its own, and the built-in
emulator answers. One line for an example; exits with 0 if all print what they should. What cannot
be installed is skipped. Takes a minute or two, so CI does not run it.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import STDOUT, CompletedProcess

import anyio

from tests.interop.run import python_with
from tests.support.examples import (
    FILES,
    FOLDER,
    OVER_HTTP,
    TOKEN,
    dependencies,
    missing,
    with_kiro_mcp,
)
from tests.support.optional import exit_code
from tests.support.served import serve

RUN_SECONDS = 120


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
    """Return what a program prints, and its exit code if it failed."""
    done: CompletedProcess[bytes] | None = None
    with tempfile.TemporaryDirectory() as home, anyio.move_on_after(RUN_SECONDS):
        environ = with_kiro_mcp(HOME=home)
        done = await anyio.run_process(command, check=False, stderr=STDOUT, env=environ, cwd=home)
    if done is None:
        return f"nothing: it did not end in {RUN_SECONDS} s"
    printed = done.stdout.decode(errors="replace")
    return printed if done.returncode == 0 else f"exit code {done.returncode}: {printed[-1000:]!r}"


if __name__ == "__main__":
    chosen = [FOLDER / f"{name}.py" for name in sys.argv[1:]] or FILES
    sys.exit(max(exit_code(path.name, partial(example_works, path)) for path in chosen))
