"""Credit budgets: what the service says an answer cost decides whether the next is asked for."""

import sqlite3
import stat
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from kiro_mcp.client.admission import FILE_NAME, Budget, CallSpending
from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.errors import AccountBlocked
from tests.client.driving import ANSWER, NOTHING, NOW, driven, prompt

CREDITS = 0.0148
"""What the emulator says an answer costs."""


async def test_a_day_that_is_used_up_sends_nothing_more(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The error says how much was used."""
    async with driven(
        emulator.url, state_folder=tmp_path, KIRO_MCP_MAX_CREDITS_PER_DAY="0.02"
    ) as client:
        await client.ask(prompt())
        await client.ask(prompt())
        with pytest.raises(AccountBlocked, match=r"0\.0296 of the 0\.02 credits") as caught:
            await client.ask(prompt())
    assert caught.value.code == "budget_exceeded"
    assert len(emulator.state.requests) == 2


async def test_the_days_sum_outlives_a_restart(emulator: RunningEmulator, tmp_path: Path) -> None:
    """Otherwise restarting the servers would reset the budget."""
    folder = tmp_path / "state"
    for _ in range(2):
        async with driven(
            emulator.url, state_folder=folder, KIRO_MCP_MAX_CREDITS_PER_DAY="0.02"
        ) as client:
            await client.ask(prompt())
    file = folder / FILE_NAME
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT * FROM days").fetchall() == [
            ("2026-11-01", pytest.approx(2 * CREDITS))
        ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in folder.iterdir()] == [FILE_NAME]


async def test_nothing_is_written_without_a_budget_nor_before_an_answer(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    async with driven(emulator.url, state_folder=tmp_path) as client:
        await client.ask(prompt())
    async with driven(
        emulator.url, state_folder=tmp_path, KIRO_MCP_MAX_CREDITS_PER_DAY="1"
    ) as client:
        await client.list_models()
    assert not list(tmp_path.iterdir())


async def test_a_new_day_begins_with_nothing_used(tmp_path: Path) -> None:
    """A day is one of UTC."""
    days = iter([NOW, NOW, NOW + timedelta(days=1)])
    budget = Budget(per_call=0, per_day=1, folder=tmp_path, now=lambda: next(days))
    await budget.add(1.0, CallSpending())
    with pytest.raises(AccountBlocked):
        await budget.require_left(CallSpending())
    await budget.require_left(CallSpending())


async def test_servers_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """One file serves all of them."""
    servers = [Budget(per_call=0, per_day=1, folder=tmp_path, now=lambda: NOW) for _ in range(4)]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(server.add, 0.25, CallSpending())
    late = Budget(per_call=0, per_day=1, folder=tmp_path, now=lambda: NOW)
    with pytest.raises(AccountBlocked, match="has used 1 of the 1 credits"):
        await late.require_left(CallSpending())


async def test_credits_that_another_server_used_count_too(tmp_path: Path) -> None:
    """Every client starts a server of its own."""
    one, other = (Budget(per_call=0, per_day=1, folder=tmp_path, now=lambda: NOW) for _ in "12")
    await one.add(0.5, CallSpending())
    await other.add(0.5, CallSpending())
    with pytest.raises(AccountBlocked):
        await one.require_left(CallSpending())


@pytest.mark.parametrize("text", ["", "this is no database"])
async def test_a_file_that_is_damaged_counts_as_nothing_used(text: str, tmp_path: Path) -> None:
    """It must not block calls. Credits that are used from then on count."""
    (tmp_path / FILE_NAME).write_text(text, "utf-8")
    budget = Budget(per_call=0, per_day=1, folder=tmp_path, now=lambda: NOW)
    await budget.require_left(CallSpending())
    await budget.add(1.0, CallSpending())
    with pytest.raises(AccountBlocked):
        await budget.require_left(CallSpending())


async def test_a_folder_that_cannot_be_written_leaves_the_sum_in_memory(tmp_path: Path) -> None:
    """The answer has arrived, and a problem with its cost must not lose it."""
    (tmp_path / "file").write_text("", "utf-8")
    budget = Budget(per_call=0, per_day=1, folder=tmp_path / "file" / "x", now=lambda: NOW)
    await budget.add(1.0, CallSpending())
    with pytest.raises(AccountBlocked):
        await budget.require_left(CallSpending())


async def test_a_call_that_used_its_budget_is_not_attempted_again(
    emulator: RunningEmulator,
) -> None:
    """An empty answer is billed like any other."""
    emulator.state.enqueue(NOTHING, ANSWER)
    async with driven(emulator.url, KIRO_MCP_MAX_CREDITS_PER_CALL="0.01") as client:
        with pytest.raises(AccountBlocked, match="This call has used"):
            await client.ask(prompt())
    assert len(emulator.state.requests) == 1


async def test_requests_of_one_call_share_its_budget(emulator: RunningEmulator) -> None:
    """A call may take several requests."""
    spending = CallSpending()
    async with driven(emulator.url, KIRO_MCP_MAX_CREDITS_PER_CALL="0.01") as client:
        await client.ask(prompt(), spending=spending)
        with pytest.raises(AccountBlocked):
            await client.ask(prompt(), spending=spending)
        await client.ask(prompt())
    assert spending.credits == pytest.approx(CREDITS)
