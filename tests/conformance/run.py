"""Run the official MCP conformance suite: `python -m tests.conformance.run`.

One line a run; exits with 0 if all passed. Where npm or a registry is missing it is skipped, which
is said; `tests.support.optional` says how to forbid that.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

import anyio

from tests.conformance.server import serving_fixtures
from tests.support.npm import program
from tests.support.optional import exit_code
from tests.support.shipped import shipped_over_http

VERSION = "0.2.0-alpha.12"

REVISIONS = ("2025-11-25", "2026-07-28")

_OF_EACH = (
    "tools-list",
    "resources-list",
    "prompts-list",
    "completion-complete",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)

SHIPPED = {
    "2025-11-25": (*_OF_EACH, "server-initialize", "ping", "server-session-lifecycle"),
    "2026-07-28": (
        *_OF_EACH,
        "server-stateless",
        "caching",
        "sep-2164-resource-not-found",
        "http-header-validation",
        "input-required-result-unsupported-methods",
    ),
}
"""What needs no fixture, so it can be asked of the server that ships, as it ships."""

UNTESTABLE = Path(__file__).with_name("untestable.yaml")
"""The single checks among them that do need one. With it, warnings count as failures, too."""

RUN_SECONDS = 180

_SUM = re.compile(r"^(?:Total|Passed): (.*)$|^Not scored for .*?: (.*?) These", re.M)


async def conforms() -> bool:
    """Run all; print a line for each."""
    suite = [*await program("@modelcontextprotocol/conformance", VERSION), "server"]
    is_good = True
    async with serving_fixtures() as url:
        for revision in REVISIONS:
            is_good &= await _passes(suite, url, "--requirements", revision)
    async with shipped_over_http() as url:
        for revision, scenarios in SHIPPED.items():
            what = ["--expected-failures", str(UNTESTABLE), "--spec-version", revision]
            for scenario in scenarios:
                is_good &= await _passes(suite, url, *what, "--scenario", scenario)
    return is_good


async def _passes(suite: list[str], url: str, *what: str) -> bool:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as results, anyio.fail_after(RUN_SECONDS):
        done = await anyio.run_process(
            [*suite, "--url", url, *what, "--output-dir", results], check=False
        )
    said = done.stdout.decode()
    # A scenario that does not fit the revision is skipped, with exit code 0 and without a sum.
    sums = "; not scored: ".join(total or unscored for total, unscored in _SUM.findall(said))
    is_good = done.returncode == 0 and bool(sums)
    if expected := said.count("  ~ "):
        sums += f" ({expected} expected, see {UNTESTABLE.name})"
    seconds = time.monotonic() - started
    named = " ".join(part for part in what[-3:] if not part.startswith("--"))
    print(f"conformance: {named}: {sums}; exit {done.returncode}, {seconds:.1f} s", flush=True)
    if not is_good:
        print(said, done.stderr.decode(), sep="\n")
    return is_good


if __name__ == "__main__":
    sys.exit(exit_code("conformance", conforms))
