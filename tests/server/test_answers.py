"""Answers that outlive their call: detached, collected, cancelled, with progress."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types as types
import pytest
from anyio import fail_after
from mcp.client import Client

from kiro_mcp.client.telemetry import Telemetry
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    EMULATOR_SOCIAL_REFRESH_TOKEN,
    Pause,
    RunningEmulator,
    Send,
    frames,
)
from kiro_mcp.errors import CallCancelled
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import STORE_NAME, Engine
from kiro_mcp.server.jobs import (
    HEARTBEAT_SECONDS,
    MIN_INTERVAL_SECONDS,
    Job,
    Jobs,
    report_progress,
)
from kiro_mcp.server.results import ANSWER_META_KEY
from kiro_mcp.settings import Settings
from tests.support.mcp import ask, ask_with_id, code, connected, words
from tests.support.stdio import PROMPTLY_SECONDS

SLOW = (Send(frames.text("Once upon a time")), Pause(0.6), Send(frames.text(" it ended.")))
SLOW_TO_THE_END = (*SLOW, Send(frames.ending("END_TURN")))


async def test_a_call_whose_patience_ends_returns_the_text_so_far(
    emulator: RunningEmulator,
) -> None:
    """Many clients give up on a call after 60 seconds, whatever is still to come."""
    slowly = (SLOW[0], Pause(2), *SLOW_TO_THE_END[2:])
    emulator.state.enqueue(slowly)
    async with connected(emulator) as client:
        early = await ask(client, prompt="Tell.", wait_seconds=0.1)
        while not early["text"]:  # Where the machine is busy, nothing may have come by then.
            early = await ask(client, answer_id=early["answer_id"], wait_seconds=0.1)
        assert early["status"] == early["stop_reason"] == "running"
        assert early["text"] == "Once upon a time"
        late = await ask(client, answer_id=early["answer_id"])
    assert late["status"] == "completed"
    assert late["text"] == "Once upon a time it ended."
    assert len(emulator.state.requests) == 1


async def test_a_conversation_whose_first_answer_is_running_is_not_reported_as_unknown(
    emulator: RunningEmulator,
) -> None:
    """Its id has been returned with the partial text."""
    emulator.state.enqueue((SLOW[0], Pause(600)))
    async with connected(emulator) as client:
        early = await ask(client, prompt="Tell.", wait_seconds=0.1)
        conversation_id = early["conversation_id"]
        result = await client.call_tool(
            "ask_claude", {"prompt": "Go on.", "conversation_id": conversation_id}
        )
    assert code(result) == "not_found"
    assert early["answer_id"] in words(result)


async def test_several_callers_collect_the_same_answer(emulator: RunningEmulator) -> None:
    emulator.state.enqueue(SLOW_TO_THE_END)
    collected: list[dict[str, Any]] = []
    async with connected(emulator) as client:
        early = await ask(client, prompt="Tell.", wait_seconds=0.1)

        async def collect() -> None:
            collected.append(await ask(client, answer_id=early["answer_id"]))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(collect)
    assert collected == [collected[0]] * 3


async def test_a_finished_answer_outlives_the_server(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """It is on disk before it is returned."""
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        first, answer_id = await ask_with_id(client, prompt="Say hello")
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        again = await ask(client, answer_id=answer_id)
    assert again == first


async def test_a_defect_in_one_answer_does_not_end_another(
    emulator: RunningEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """All answers run in one task group of the server."""

    def broken_clock() -> float:
        raise ZeroDivisionError("secret detail")

    environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}
    engine = Engine(Settings.load(environ), telemetry=Telemetry(clock=broken_clock))
    with fail_after(20):
        async with Client(build_server(lambda: engine), mode="2026-07-28") as client:
            first = await client.call_tool("ask_claude", {"prompt": "x"})
            second = await client.call_tool("list_models", {})
    assert code(first) == "internal_error"
    assert "secret detail" not in words(first)
    assert "secret detail" in caplog.text
    assert not second.is_error


async def test_an_answer_that_nobody_has_asked_for_is_not_found(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"answer_id": "gone"})
    assert code(result) == "not_found"


async def test_a_failure_is_collected_like_an_answer(emulator: RunningEmulator) -> None:
    """A caller that asks for it must learn what happened."""
    emulator.state.enqueue((Pause(0.4), Send(frames.exception("busy", "x"))))
    async with connected(emulator) as client:
        early = await ask(client, prompt="x", wait_seconds=0.1)
        result = await client.call_tool("ask_claude", {"answer_id": early["answer_id"]})
    assert result.is_error


async def test_a_cancelled_call_cancels_its_answer(emulator: RunningEmulator) -> None:
    """An answer that nobody waits for must not cost more."""
    async with connected(emulator) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "ask_claude", {"prompt": "/emulate slow 60"})
            await emulator.state.until(lambda state: state.open_streams == 1)
            tasks.cancel_scope.cancel()
        with fail_after(PROMPTLY_SECONDS):
            await emulator.state.until(lambda state: state.open_streams == 0)


async def test_the_partial_text_of_a_cancelled_answer_is_found_under_its_id(
    emulator: RunningEmulator,
) -> None:
    """A client that cancels at its own timeout has already paid."""
    seen: list[str] = []
    came = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message or "")
        if "Once upon a time" in seen[-1]:
            came.set()

    async def call(client: Client) -> None:
        await client.call_tool("ask_claude", {"prompt": "x"}, progress_callback=note)

    emulator.state.enqueue((Send(frames.text("Once upon a time")), Pause(60)))
    async with connected(emulator) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, client)
            with fail_after(PROMPTLY_SECONDS):
                await came.wait()
            tasks.cancel_scope.cancel()
        answer_id = seen[-1].split("answer ")[1].split(":")[0]
        await emulator.state.until(lambda state: state.open_streams == 0)
        kept = await ask(client, answer_id=answer_id)
    assert kept["text"] == "Once upon a time"
    assert kept["truncated"]
    assert "cancelled" in kept["warnings"][0]


async def test_a_finished_answer_is_saved_even_if_its_call_is_cancelled(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Another server may be writing. The answer that waits is complete and paid for."""
    ids: set[str] = set()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        ids.add((message or "").split("answer ")[1].split(":")[0])

    async def call(client: Client, prompt: str) -> None:
        await client.call_tool("ask_claude", {"prompt": prompt}, progress_callback=note)

    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        await ask(client, prompt="Open the store.")
        with closing(sqlite3.connect(tmp_path / STORE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for prompt in ("One?", "Two?", "Three?"):
                    tasks.start_soon(call, client, prompt)
                await emulator.state.until(
                    lambda state: len(state.requests) == 4 and state.open_streams == 0
                )
                for _ in range(50):
                    await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        kept = [await ask(client, answer_id=answer_id) for answer_id in ids]
    assert len(kept) == 3
    assert all(answer["stop_reason"] == "end_turn" for answer in kept)


async def test_a_detached_answer_survives_a_cancelled_collector(
    emulator: RunningEmulator,
) -> None:
    emulator.state.enqueue(SLOW_TO_THE_END)
    async with connected(emulator) as client:
        early = await ask(client, prompt="Tell.", wait_seconds=0.1)
        with anyio.move_on_after(0.1):
            await client.call_tool("ask_claude", {"answer_id": early["answer_id"]})
        late = await ask(client, answer_id=early["answer_id"])
    assert late["text"] == "Once upon a time it ended."


async def _never(_: Job) -> types.CallToolResult:
    await anyio.sleep_forever()
    raise AssertionError


async def _silence(progress: int, message: str, piece: dict[str, Any]) -> None:
    """Drop progress."""


async def _detached(jobs: Jobs, number: int) -> Job:
    job = Job(id=f"answer {number}", conversation_id="", model="auto")
    jobs.start(job, _never)
    assert await jobs.wait(job, ("", ""), _silence, patience_seconds=0.01) is None
    return job


async def test_an_answer_that_nobody_collects_ends_after_its_time() -> None:
    """It costs credits as long as it runs."""
    with fail_after(20):
        async with anyio.create_task_group() as tasks:
            left = await _detached(Jobs(tasks, max_detached_seconds=0.05), 1)
            await left.ended.wait()
            assert left.is_cancelled
            assert "Nobody collected" in left.why_cancelled


async def test_the_oldest_of_too_many_detached_answers_ends() -> None:
    """An answer that somebody waits for does not count."""
    with fail_after(20):
        async with anyio.create_task_group() as tasks:
            jobs = Jobs(tasks, max_detached=2)
            watched = await _detached(jobs, 0)
            wait = partial(jobs.wait, watched, ("", ""), _silence, patience_seconds=60)
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            left = [await _detached(jobs, number) for number in range(1, 4)]
            await left[0].ended.wait()
            assert "Too many" in left[0].why_cancelled
            assert [job.is_running for job in (watched, *left)] == [
                True,
                False,
                True,
                True,
            ]
            tasks.cancel_scope.cancel()


async def test_the_server_saves_the_partial_text_of_a_detached_answer_when_it_ends(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """It has been paid for, and another server finds it under its id."""
    emulator.state.enqueue((SLOW[0], Pause(60)))
    environ = {"KIRO_MCP_HOME": str(tmp_path)}
    async with connected(emulator, **environ) as client:
        early = await ask(client, prompt="Tell.", wait_seconds=0.1)
        while not early["text"]:
            early = await ask(client, answer_id=early["answer_id"], wait_seconds=0.1)
    async with connected(emulator, **environ) as client:
        kept = await ask(client, answer_id=early["answer_id"])
    assert (kept["text"], kept["truncated"]) == ("Once upon a time", True)
    assert "The server ended" in kept["warnings"][0]


async def test_everything_is_closed_even_if_a_refresh_and_an_answer_do_not_end(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Everything at the end shares one time limit; closing comes after it."""
    environ = {
        "KIRO_MCP_ENDPOINT_URL": emulator.url,
        "KIRO_ACCESS_TOKEN": "refused",
        "KIRO_REFRESH_TOKEN": EMULATOR_SOCIAL_REFRESH_TOKEN,
        "KIRO_PROFILE_ARN": EMULATOR_PROFILE_ARN,
        "KIRO_MCP_HOME": str(tmp_path),
    }
    emulator.state.enqueue((Pause(60),), operation="RefreshToken")
    engine = Engine.from_environ(environ)

    async def stubborn(_: Job) -> types.CallToolResult:
        with anyio.move_on_after(0.5, shield=True):
            await anyio.sleep_forever()
        return types.CallToolResult(content=[])

    with fail_after(20):
        async with Client(build_server(lambda: engine), mode="2026-07-28") as client:
            await ask(client, prompt="x", wait_seconds=0.1)
            await emulator.state.until(lambda state: bool(state.requests_to("RefreshToken")))
            await client.read_resource("kiro://conversations")  # Opens the store.
            job = Job(id="stubborn", conversation_id="", model="auto")
            engine.jobs.start(job, stubborn)
            assert (tmp_path / f"{STORE_NAME}-wal").exists()
    assert not (tmp_path / f"{STORE_NAME}-wal").exists(), "the store was not closed"
    with pytest.raises(CallCancelled, match="closed"):
        await engine.client.list_models()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_progress_comes_at_once_and_always_grows(
    mode: str, emulator: RunningEmulator
) -> None:
    """The MCP specification: the value increases with each notification."""
    seen: list[tuple[float, str]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message or ""))

    emulator.state.enqueue(SLOW_TO_THE_END)
    async with connected(emulator, mode=mode) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x"}, progress_callback=note)
        count = len(seen)
        await client.call_tool("login", {"action": "status"})
    values = [progress for progress, _ in seen]
    assert values == sorted(set(values))
    assert seen[0][1].startswith("0 characters")
    assert any("Once upon a time" in message for _, message in seen)
    answer_id = str((result.meta or {})[ANSWER_META_KEY])
    assert all(answer_id in message for _, message in seen)
    assert len(seen) == count, "none comes after the result"


async def _progress(
    job: Job, *steps: Callable[[], None], seconds_each: float
) -> list[tuple[int, str, float]]:
    """Report on a job and do one step during each report; return each with its real time.

    The clock of the reports runs on by `seconds_each` during each one.
    """
    clock, left = 100.0, list(steps)
    reports: list[tuple[int, str, float]] = []

    async def send(progress: int, message: str, piece: dict[str, Any]) -> None:
        nonlocal clock
        reports.append((progress, message, anyio.current_time()))
        clock += seconds_each
        if not left:
            job.ended.set()
            return
        left.pop(0)()

    with fail_after(20):
        await report_progress(job, send, now=lambda: clock)
    return reports


async def test_progress_is_sent_at_most_four_times_a_second_and_shows_the_end_of_the_text() -> None:
    job = Job(id="a", conversation_id="", model="auto")

    def grow() -> None:
        job.add("thought", is_thinking=True)
        job.add("x" * 200)
        job.add("\n the  end")

    reports = await _progress(job, grow, grow, seconds_each=0)
    assert [progress for progress, _, _ in reports] == [1, 2, 3]
    assert reports[1][1] == "217 characters, 0.0 s, answer a: …" + "x" * 70 + " the end"
    times = [at for _, _, at in reports]
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) > MIN_INTERVAL_SECONDS - 0.01 > 0.2  # A timer may fire a little early.


async def test_progress_is_sent_within_ten_seconds_of_silence() -> None:
    """Clients that expect progress give up after ten seconds or more."""
    job = Job(id="a", conversation_id="", model="auto")
    reports = await _progress(job, lambda: None, lambda: None, seconds_each=HEARTBEAT_SECONDS)
    assert HEARTBEAT_SECONDS < 10
    assert [progress for progress, _, _ in reports] == [1, 9000, 18000]
    assert [message for _, message, _ in reports][-1] == "0 characters, 18.0 s, answer a"
