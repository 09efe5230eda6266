"""How soon a server is gone, beside the half second that is promised, whatever it is doing.

Run it with `python -m tests.benchmarks.ends`. Measured from the end of its input, or a signal, to
the end of the process, in interleaved rounds; the slowest of each counts. Exits with 1 when a bar
is missed.
"""

import math
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from kiro_mcp.emulator import RunningEmulator, running
from tests.benchmarks.table import Row, print_table
from tests.support.http import against
from tests.support.served import serve
from tests.support.stdio import StdioServer, environment, started

ROUNDS = 7
PROMISED_MS = 500.0

CALL: dict[str, Any] = {"name": "ask_claude", "arguments": {"prompt": "/emulate stall"}}

Measure = Callable[[RunningEmulator], Awaitable[float]]


async def _gone_after(began: float, wait: Callable[[], Awaitable[int]]) -> float:
    await wait()
    return (time.perf_counter() - began) * 1000


async def _answering(server: StdioServer, emulator: RunningEmulator) -> None:
    await server.post("tools/call", CALL)
    await emulator.state.until(lambda state: state.open_streams == 1)


async def idle_at_end_of_input(emulator: RunningEmulator) -> float:
    """Close the input of a server that has answered `initialize`."""
    async with started(environment(**against(emulator))) as server:
        await server.initialize()
        began = time.perf_counter()
        await server.stdin.aclose()
        return await _gone_after(began, server.process.wait)


async def answering_at_end_of_input(emulator: RunningEmulator) -> float:
    """Close the input of a server in the middle of an answer."""
    async with started(environment(**against(emulator))) as server:
        await server.initialize()
        await _answering(server, emulator)
        began = time.perf_counter()
        await server.stdin.aclose()
        return await _gone_after(began, server.process.wait)


async def answering_at_a_signal(emulator: RunningEmulator) -> float:
    """Send SIGTERM in the middle of an answer."""
    async with started(environment(**against(emulator))) as server:
        await server.initialize()
        await _answering(server, emulator)
        began = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        return await _gone_after(began, server.process.wait)


async def over_http(emulator: RunningEmulator, *, is_modern: bool, hangs_up: bool = False) -> float:
    """Send SIGTERM in the middle of an answer, which its client may just have given up."""
    taken = math.inf
    async with (
        serve("--transport", "http", "--no-auth", **against(emulator)) as served,
        anyio.create_task_group() as tasks,
    ):
        web = served.server
        await web.initialize()
        request = (
            web.modern_request("tools/call", **CALL)
            if is_modern
            else web.request("tools/call", CALL)
        )
        tasks.start_soon(web.client.send, request)
        await emulator.state.until(lambda state: state.open_streams == 1)
        if hangs_up:
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            began = time.perf_counter()
            served.process.send_signal(signal.SIGTERM)
            taken = await _gone_after(began, served.process.wait)
    return taken


async def legacy_over_http(emulator: RunningEmulator) -> float:
    """In a session."""
    return await over_http(emulator, is_modern=False)


async def modern_over_http(emulator: RunningEmulator) -> float:
    """Without a session."""
    return await over_http(emulator, is_modern=True)


async def abandoned_over_http(emulator: RunningEmulator) -> float:
    """Right after its client has hung up."""
    return await over_http(emulator, is_modern=False, hangs_up=True)


MEASURES: dict[str, Measure] = {
    "stdio, idle: end of input": idle_at_end_of_input,
    "stdio, answering: end of input": answering_at_end_of_input,
    "stdio, answering: SIGTERM": answering_at_a_signal,
    "HTTP, answering in a session: SIGTERM": legacy_over_http,
    "HTTP, answering without one: SIGTERM": modern_over_http,
    "HTTP, client has hung up: SIGTERM": abandoned_over_http,
}


async def rows() -> list[Row]:
    """Measure each kind of end, one after the other, round by round."""
    slowest = dict.fromkeys(MEASURES, 0.0)
    for _ in range(ROUNDS):
        for name, measure in MEASURES.items():
            async with running() as emulator:
                slowest[name] = max(slowest[name], await measure(emulator))
    return [
        Row(name=name, ours=found, rival=PROMISED_MS, unit="ms", bar=1.0, is_ceiling=True)
        for name, found in slowest.items()
    ]


if __name__ == "__main__":
    sys.exit(0 if print_table(anyio.run(rows)) else 1)
