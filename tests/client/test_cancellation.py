"""A call that is cancelled is gone at once, from whatever it was doing."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest
from anyio import fail_after
from anyio.abc import SocketStream
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples

from kiro_mcp.client.admission import FairSlots
from kiro_mcp.client.client import KiroClient
from kiro_mcp.emulator import (
    EmulatorState,
    Pause,
    RunningEmulator,
    Script,
    Send,
    frames,
)
from kiro_mcp.errors import CallCancelled
from tests.client.driving import Clock, driven, prompt, refusal
from tests.support.stdio import PROMPTLY_SECONDS
from tests.support.wire import speaking

Until = Callable[[], Awaitable[None]]


class NeverEndingClock(Clock):
    """Waits that end only by cancellation."""

    def __init__(self) -> None:
        super().__init__()
        self.has_waited = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        self.has_waited.set()
        await anyio.sleep_forever()


async def cancel_when(client: KiroClient, until: Until) -> None:
    """Begin a call and cancel it when a condition is true. It must end in time."""
    ended = anyio.Event()

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            await client.ask(prompt())
        ended.set()

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(call, scope)
        await until()
        scope.cancel()
        with fail_after(PROMPTLY_SECONDS):
            await ended.wait()


def streams(state: EmulatorState, count: int) -> Until:
    return lambda: state.until(lambda seen: seen.open_streams == count)


@pytest.mark.parametrize(
    "script",
    [
        (Pause(60),),
        (Send(b""), Pause(60)),
        (Send(frames.text("The beginning")), Pause(60)),
    ],
    ids=["before-the-headers", "before-the-first-word", "in-the-middle"],
)
async def test_a_call_that_waits_for_the_service_hangs_up(
    script: Script, emulator: RunningEmulator
) -> None:
    """An answer that nobody reads must not cost more."""
    emulator.state.enqueue(script)
    async with driven(emulator.url) as client:
        await cancel_when(client, streams(emulator.state, 1))
        with fail_after(PROMPTLY_SECONDS):
            await emulator.state.until(lambda seen: seen.disconnects == 1)
        assert (await client.ask(prompt())).text


async def test_a_call_that_waits_to_retry_sends_nothing_more(emulator: RunningEmulator) -> None:
    emulator.state.enqueue((refusal(503),))
    clock = NeverEndingClock()
    async with driven(emulator.url, clock=clock) as client:
        await cancel_when(client, clock.has_waited.wait)
        assert len(emulator.state.requests) == 1
        assert (await client.ask(prompt())).text


async def test_a_call_that_waits_for_a_slot_gives_its_place_up(emulator: RunningEmulator) -> None:
    """And the slot is not lost."""
    emulator.state.enqueue((Send(frames.text("x")), Pause(60)))
    async with driven(emulator.url, KIRO_MCP_MAX_CONCURRENCY="1") as client:
        async with client.stream(prompt()):
            await cancel_when(client, anyio.lowlevel.checkpoint)
        assert len(emulator.state.requests) == 1
        assert (await client.ask(prompt())).text


async def test_a_call_that_waits_for_a_connection_is_gone() -> None:
    """The host takes the request and never answers."""
    accepted = anyio.Event()

    async def silent(client: SocketStream) -> None:
        async with client:
            accepted.set()
            await anyio.sleep_forever()

    async with speaking(silent) as url, driven(url) as client:
        await cancel_when(client, accepted.wait)


async def test_calls_get_their_slots_in_the_order_in_which_they_asked(
    emulator: RunningEmulator,
) -> None:
    """Every caller gets a turn."""
    order: list[str] = []

    async def ask(client: KiroClient, name: str) -> None:
        await client.ask(prompt(name))
        order.append(name)

    names = [f"call {number}" for number in range(6)]
    async with (
        driven(emulator.url, KIRO_MCP_MAX_CONCURRENCY="1") as client,
        anyio.create_task_group() as tasks,
    ):
        for name in names:
            tasks.start_soon(ask, client, name)
    assert order == names


async def test_callers_who_wait_take_turns(emulator: RunningEmulator) -> None:
    """One who asks a hundred things at once does not keep another one waiting."""
    order: list[str] = []

    async def ask(client: KiroClient, caller: str, number: int) -> None:
        async with client.stream(prompt(f"{caller}{number}"), caller=caller) as answer:
            order.append(f"{caller}{number}")
            async for _ in answer:
                pass

    async with (
        driven(emulator.url, KIRO_MCP_MAX_CONCURRENCY="1") as client,
        anyio.create_task_group() as tasks,
    ):
        for caller, count in (("a", 5), ("b", 1), ("c", 2)):
            for number in range(count):
                tasks.start_soon(ask, client, caller, number)
    assert order == ["a0", "a1", "b0", "c0", "a2", "c1", "a3", "a4"]


@given(
    count=integers(1, 3),
    steps=lists(tuples(sampled_from("abc"), integers(0, 3), booleans()), max_size=30),
)
def test_no_slot_is_lost_or_given_twice(count: int, steps: list[tuple[str, int, bool]]) -> None:
    """Callers may leave at any time, waiting or holding a slot."""

    async def run() -> None:
        slots, held, most = FairSlots(count), 0, 0

        async def call(caller: str, holds: int, scope: anyio.CancelScope) -> None:
            nonlocal held, most
            with scope:
                async with slots.taken_by(caller):
                    held += 1
                    most = max(most, held)
                    try:
                        for _ in range(holds):
                            await anyio.lowlevel.checkpoint()
                    finally:
                        held -= 1

        async with anyio.create_task_group() as tasks:
            for caller, holds, leaves in steps:
                scope = anyio.CancelScope()
                tasks.start_soon(call, caller, holds, scope)
                for _ in range(holds):
                    await anyio.lowlevel.checkpoint()
                if leaves:
                    scope.cancel()
        assert most <= count
        assert held == 0
        async with AsyncExitStack() as stack:
            with fail_after(20):
                for _ in range(count):
                    await stack.enter_async_context(slots.taken_by("last"))

    anyio.run(run)


async def test_no_more_answers_are_on_their_way_than_are_allowed(
    emulator: RunningEmulator,
) -> None:
    """A slot is held for the whole of an answer."""
    emulator.state.enqueue(*[(Send(frames.text("x")), Pause(60))] * 3)
    async with (
        driven(emulator.url, KIRO_MCP_MAX_CONCURRENCY="2") as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(client.ask, prompt())
        await emulator.state.until(lambda seen: seen.open_streams == 2)
        await anyio.wait_all_tasks_blocked()
        assert len(emulator.state.requests) == 2
        tasks.cancel_scope.cancel()


async def test_a_closed_client_sends_nothing(emulator: RunningEmulator) -> None:
    """A connection that is opened after the end would be closed by nobody."""
    async with driven(emulator.url) as client:
        await client.ask(prompt())
        await client.aclose()
        with pytest.raises(CallCancelled):
            await client.ask(prompt())
    assert len(emulator.state.requests) == 1
