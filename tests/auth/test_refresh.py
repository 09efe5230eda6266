"""Refreshes of several processes that share one login, and a renewed login in its owner's store."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.auth.credentials import Credential
from kiro_mcp.auth.refresh import can_write_back, write_back
from kiro_mcp.emulator import RunningEmulator
from tests.benchmarks.refresh import measure
from tests.support.logins import (
    accepted_refresh_tokens,
    idc_credential,
    kiro_cli_database,
    odic_rows,
    row_of,
    sign_in_before,
    write_json,
)
from tests.support.stdio import StdioServer, environment, started

PROCESSES = 4
CALLS = 64
SECONDS = 90
"""How long it may take on a busy machine; it takes about four seconds."""


async def test_256_calls_of_4_processes_with_one_expired_token_make_one_refresh(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: two refreshes of one token invalidate each other's tokens, again and again."""
    store = await sign_in_before(tmp_path / "home", emulator.url)
    emulator.state.accounts.expire_access_tokens()
    environ = environment(
        HOME=str(tmp_path),
        KIRO_MCP_HOME=str(store.folder),
        KIRO_MCP_ENDPOINT_URL=emulator.url,
    )
    results: list[dict[str, Any]] = []
    with fail_after(SECONDS):
        async with anyio.create_task_group() as processes:
            for _ in range(PROCESSES):
                processes.start_soon(_calls_of_one_process, environ, results)
    assert len(results) == PROCESSES * CALLS
    assert [result for result in results if result.get("isError")] == []
    assert len(emulator.state.requests_to("CreateToken")) == 1
    login = store.login()
    assert login
    assert login.refresh_token in accepted_refresh_tokens(emulator.state)


async def _calls_of_one_process(environ: dict[str, str], results: list[dict[str, Any]]) -> None:
    async with started(environ) as server:
        await server.initialize()
        for _ in range(CALLS):
            await server.post("tools/call", _ASK)
        for _ in range(CALLS):
            results.append(await _next_result(server))  # noqa: PERF401  # one at a time, as they come


_ASK = {"name": "ask_claude", "arguments": {"prompt": "hi"}}


async def _next_result(server: StdioServer) -> dict[str, Any]:
    while "result" not in (message := await server.receive()):
        assert "error" not in message, json.dumps(message)
    return message["result"]


async def test_a_process_that_is_killed_while_it_refreshes_leaves_a_login_that_works() -> None:
    """Return the newest token, or the one before it if the answer was never saved."""
    with fail_after(SECONDS):
        outcome = await measure(12, seed=8628)
    assert outcome.kills > 0
    assert outcome.newest + outcome.one_before == outcome.kills
    assert (outcome.lost, outcome.unreadable) == (0, 0)
    assert outcome.left_files <= 1


KEY = "kirocli:odic:token"


def renewed(path: Path, origin: str) -> Credential:
    return replace(
        idc_credential(),
        access_token="new-access",
        refresh_token="new-refresh",
        held_refresh_token="spent",
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        region="changed",
        scopes=("changed",),
        path=str(path),
        key=KEY,
        origin=origin,  # pyright: ignore[reportArgumentType]  # one of its words
    )


def test_a_row_that_was_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """The owner was faster, and its token is the newer one."""
    path = kiro_cli_database(tmp_path / "a.sqlite3", odic_rows(refresh_token="theirs"))
    assert not write_back(renewed(path, "database"))
    assert row_of(path, KEY)["refresh_token"] == "theirs"


@pytest.mark.parametrize("rows", [{}, {KEY: "null"}, {KEY: "{"}])
def test_a_deleted_row_is_not_inserted_again(rows: dict[str, object], tmp_path: Path) -> None:
    """A user who has signed out there stays signed out."""
    path = kiro_cli_database(tmp_path / "a.sqlite3", rows)
    assert not write_back(renewed(path, "database"))
    with closing(sqlite3.connect(path)) as database:
        found = dict(database.execute("SELECT key, value FROM auth_kv").fetchall())
    assert found == rows


def test_only_tokens_and_their_end_change_in_a_row(tmp_path: Path) -> None:
    """Observed: overwriting the region or the scopes ends the owner's login."""
    before = odic_rows(refresh_token="spent", unknown={"a": [1]})
    path = kiro_cli_database(tmp_path / "a.sqlite3", before)
    assert write_back(renewed(path, "database"))
    row = row_of(path, KEY)
    assert row.pop("access_token") == "new-access"
    assert row.pop("refresh_token") == "new-refresh"
    assert row.pop("expires_at") == "2030-01-01T00:00:00.000Z"
    kept = before[KEY]
    assert isinstance(kept, dict)
    assert row == {name: kept[name] for name in row}  # pyright: ignore[reportUnknownVariableType]  # JSON
    assert row["unknown"] == {"a": [1]}


def test_a_file_that_was_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """As for a row of a database."""
    path = write_json(tmp_path / "a.json", {"refreshToken": "theirs"})
    assert not write_back(renewed(path, "file"))
    assert json.loads(path.read_text("utf-8")) == {"refreshToken": "theirs"}
    path.write_text("{", "utf-8")
    with pytest.raises(OSError):  # noqa: PT011  # its words are the parser's
        write_back(renewed(path, "file"))


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    """Dot files are often links into a repository."""
    target = write_json(tmp_path / "real" / "a.json", {"refreshToken": "spent"})
    link = tmp_path / "link.json"
    link.symlink_to(target)
    assert can_write_back(renewed(link, "file"))
    assert write_back(renewed(link, "file"))
    assert link.is_symlink()
    assert json.loads(target.read_text("utf-8"))["refreshToken"] == "new-refresh"


def test_a_missing_file_and_a_damaged_database_cannot_be_written_back(tmp_path: Path) -> None:
    assert not can_write_back(renewed(tmp_path / "none" / "a.json", "file"))
    path = tmp_path / "a.sqlite3"
    assert not can_write_back(renewed(path, "database"))
    path.write_text("no database", "utf-8")
    assert not can_write_back(renewed(path, "database"))
    path.unlink()
    kiro_cli_database(path, odic_rows())
    assert can_write_back(renewed(path, "database"))
