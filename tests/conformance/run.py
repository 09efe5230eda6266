"""Run the official MCP conformance suite: `python -m tests.conformance.run`.

One line a run; 0 if all passed, also where the suite cannot be had, which is said.
"""

import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from subprocess import PIPE

import anyio

from tests.conformance.server import serving_fixtures
from tests.conformance.suite import Suite, installed
from tests.support.stdio import COMMAND, environment

REVISIONS = ("2025-11-25", "2026-07-28")

SHIPPED = (
    "server-initialize",
    "ping",
    "tools-list",
    "server-session-lifecycle",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
    "http-header-validation",
    "input-required-result-unsupported-methods",
)
"""What needs no fixture, so it can be asked of the server that ships, as it ships."""

START_SECONDS = 30
RUN_SECONDS = 180

_SUM = re.compile(r"^(?:Total|Passed): (.*)$|^Not scored for .*?: (.*?) These", re.M)


async def main() -> int:
    suite = await installed()
    if isinstance(suite, str):
        print(f"conformance: skipped, {suite}")
        return 0
    is_good = True
    async with serving_fixtures() as url:
        for revision in REVISIONS:
            is_good &= await _passes(suite, url, "--requirements", revision)
    async with _shipped() as url:
        for scenario in SHIPPED:
            is_good &= await _passes(suite, url, "--scenario", scenario)
    return 0 if is_good else 1


async def _passes(suite: Suite, url: str, *what: str) -> bool:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as results, anyio.fail_after(RUN_SECONDS):
        done = await anyio.run_process(
            suite.command("--url", url, *what, "--output-dir", results), check=False
        )
    said = done.stdout.decode()
    sums = "; not scored: ".join(total or unscored for total, unscored in _SUM.findall(said))
    seconds = time.monotonic() - started
    print(f"conformance: {what[-1]}: {sums}; exit {done.returncode}, {seconds:.1f} s", flush=True)
    if done.returncode != 0:
        print(said, done.stderr.decode(), sep="\n")
    return done.returncode == 0


@asynccontextmanager
async def _shipped() -> AsyncGenerator[str]:
    arguments = ["serve", "--transport", "http", "--port", "0", "--no-auth", "--offline"]
    async with await anyio.open_process(
        [*COMMAND, *arguments], stdin=None, stderr=PIPE, env=environment()
    ) as process:
        assert process.stderr
        said = ""
        with anyio.fail_after(START_SECONDS):
            while not (found := re.search(r"Serving MCP at (\S+) ", said)):
                said += (await process.stderr.receive()).decode()
        try:
            yield found[1].replace("127.0.0.1", "localhost")
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(anyio.run(main))
