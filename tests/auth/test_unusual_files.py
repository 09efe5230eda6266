"""Pipes where a file of logins is expected: nobody waits for whoever writes into them."""

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.http_gate import choose_token
from tests.support.stdio import COMMAND, environment

RUN_SECONDS = 30

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="This system has no pipes.")


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


def test_a_token_for_http_is_not_read_from_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not a regular file"):
        choose_token("", host="127.0.0.1", no_auth=False, file=pipe(tmp_path / "token"))
