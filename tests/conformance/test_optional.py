"""What the runs that need npm do where it cannot be had."""

import os
import sys
from pathlib import Path

import anyio
import pytest
from anyio import fail_after

ROOT = Path(__file__).parents[2]
CHECK = """
import sys
from tests.support.npm import program
from tests.support.optional import exit_code

async def check():
    return bool(await program("@example/none", "1.0.0"))

sys.exit(exit_code("check", check))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the npm of these tests is a shell script")
@pytest.mark.parametrize(
    ("npm", "required", "code", "says"),
    [
        ("", "", 0, "check: SKIPPED: there is no npm"),
        ("", "1", 1, "check: FAILED, it may not be skipped: there is no npm"),
        ("request failed, reason: getaddrinfo ENOTFOUND a.example", "", 0, "SKIPPED"),
        ("code ECONNREFUSED", "0", 0, "cannot reach a registry (ECONNREFUSED)"),
        ("code ECONNREFUSED", "1", 1, "cannot reach a registry (ECONNREFUSED)"),
        ("code E404", "", 1, "check: FAILED: npm could not install @example/none@1.0.0"),
        ("code E503", "", 1, "npm error code E503"),
    ],
)
async def test_only_what_a_machine_plainly_lacks_is_skipped(
    npm: str, required: str, code: int, says: str, tmp_path: Path
) -> None:
    """A check that is skipped by mistake is a check that cannot fail."""
    programs = tmp_path / "bin"
    programs.mkdir()
    if npm:
        script = programs / "npm"
        script.write_text(f"#!/bin/sh\necho 'npm error {npm}' >&2\nexit 1\n", "utf-8")
        script.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": str(programs),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CI_REQUIRE_ALL": required,
    }
    with fail_after(20):
        done = await anyio.run_process(
            [sys.executable, "-c", CHECK], check=False, env=environ, cwd=ROOT
        )
    assert (done.returncode, done.stderr) == (code, b"")
    assert says in done.stdout.decode()
