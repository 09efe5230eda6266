"""Files: pipes are refused, replacements are atomic, and locks end with their process."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.errors import InvalidRequest, ServiceUnavailable
from kiro_mcp.files import MAX_TEXT_BYTES, hold_lock, read_text, replace_text
from kiro_mcp.server.http_gate import choose_token
from tests.support.stdio import COMMAND, environment

RUN_SECONDS = 30

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="This system has no pipes.")


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path, 0o600)
    return path


async def status(home: Path, **environ: str) -> dict[str, Any]:
    given = {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": "", **environ}
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(
            [*COMMAND, "status", "--json"], check=False, env=environment(**given), stdin=None
        )
    return json.loads(done.stdout)


@needs_pipes
async def test_pipes_in_the_places_of_other_programs_logins_are_named_and_passed_over(
    tmp_path: Path,
) -> None:
    """Opening a pipe to read waits until somebody writes, also past a cancellation."""
    pipe(tmp_path / ".aws/sso/cache/kiro-auth-token.json")
    pipe(tmp_path / ".local/share/kiro-cli/data.sqlite3")
    pipe(tmp_path / ".local/share/amazon-q/data.sqlite3")
    found = await status(tmp_path)
    assert found["state"] == "signed_out"
    told = [one for one in found["looked_at"] if "not a regular file" in one]
    assert len(told) == 3


@needs_pipes
@pytest.mark.parametrize("variable", ["KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE", "KIRO_MCP_HOME"])
async def test_a_pipe_that_a_setting_names_is_an_error_that_names_it(
    variable: str, tmp_path: Path
) -> None:
    file = tmp_path / "credentials.json"
    pipe(file)
    value = tmp_path if variable == "KIRO_MCP_HOME" else file
    found = await status(tmp_path / "home", **{variable: str(value)})
    assert found["state"] == "signed_out"
    assert str(file) in found["next_step"]
    assert "not a regular file" in found["next_step"]


@needs_pipes
def test_a_token_for_http_is_not_read_from_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not a regular file"):
        choose_token("", host="127.0.0.1", no_auth=False, file=pipe(tmp_path / "token"))


def test_a_failed_replacement_leaves_only_the_old_file(tmp_path: Path) -> None:
    """Whole or not at all."""
    folder = tmp_path / "a"
    (folder / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        replace_text(folder / "in the way", "new")
    assert [path.name for path in folder.iterdir()] == ["in the way"]


def test_a_file_that_is_too_large_for_a_login_is_not_read_whole(tmp_path: Path) -> None:
    """A path may lead anywhere."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * MAX_TEXT_BYTES)
    assert len(read_text(path)) == MAX_TEXT_BYTES
    path.write_bytes(b"x" * (MAX_TEXT_BYTES + 1))
    with pytest.raises(ValueError, match="larger"):
        read_text(path)


async def test_a_lock_ends_when_its_process_is_killed(tmp_path: Path) -> None:
    """No lock is ever stale."""
    path = tmp_path / "folder" / "a.lock"
    program = (
        "import sys, anyio; from pathlib import Path; from kiro_mcp.files import hold_lock\n"
        "async def main():\n"
        "    async with hold_lock(Path(sys.argv[1]), timeout_seconds=5):\n"
        "        print('held', flush=True); await anyio.sleep_forever()\n"
        "anyio.run(main)"
    )
    with fail_after(RUN_SECONDS):
        async with await anyio.open_process([sys.executable, "-c", program, str(path)]) as holder:
            assert holder.stdout
            assert (await holder.stdout.receive()).startswith(b"held")
            with pytest.raises(ServiceUnavailable, match="Another process"):
                async with hold_lock(path, timeout_seconds=0.1):
                    raise AssertionError("two processes hold one lock")
            holder.kill()
            async with hold_lock(path, timeout_seconds=10):
                pass
