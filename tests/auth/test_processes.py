"""Several server processes that share one login."""

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.errors import ServiceUnavailable
from kiro_mcp.files import hold_lock
from tests.benchmarks.refresh import measure
from tests.support.logins import accepted_refresh_tokens, sign_in_before
from tests.support.stdio import StdioServer, environment, started

PROCESSES = 4
CALLS = 64
SECONDS = 90
"""How long it may take on a busy machine; it takes about four seconds."""


async def test_256_calls_of_4_processes_with_one_expired_token_make_one_refresh(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: two refreshes of one token void each other's tokens, without an end."""
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
    """The newest token, or the one before where the answer never reached the disk."""
    with fail_after(SECONDS):
        outcome = await measure(25, seed=8628)
    assert outcome.kills > 0
    assert outcome.newest + outcome.one_before == outcome.kills
    assert (outcome.lost, outcome.unreadable) == (0, 0)
    assert outcome.left_files <= 1


async def test_a_lock_is_let_go_of_by_the_death_of_its_holder(tmp_path: Path) -> None:
    """No lock is ever stale."""
    path = tmp_path / "folder" / "a.lock"
    program = (
        "import sys, anyio; from pathlib import Path; from kiro_mcp.files import hold_lock\n"
        "async def main():\n"
        "    async with hold_lock(Path(sys.argv[1]), timeout_seconds=5):\n"
        "        print('held', flush=True); await anyio.sleep_forever()\n"
        "anyio.run(main)"
    )
    with fail_after(SECONDS):
        async with await anyio.open_process([sys.executable, "-c", program, str(path)]) as holder:
            assert holder.stdout
            assert (await holder.stdout.receive()).startswith(b"held")
            with pytest.raises(ServiceUnavailable, match="Another process"):
                async with hold_lock(path, timeout_seconds=0.1):
                    raise AssertionError("two processes hold one lock")
            holder.kill()
            async with hold_lock(path, timeout_seconds=10):
                pass
