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
from functools import partial
from typing import Any

import anyio

from kiro_mcp.emulator import RunningEmulator, running
from tests.benchmarks.table import Row, print_table
from tests.support.http import against
from tests.support.served import serve
from tests.support.stdio import environment, started

ROUNDS = 7
PROMISED_MS = 500.0

CALL: dict[str, Any] = {"name": "ask_claude", "arguments": {"prompt": "/emulate stall"}}

Measure = Callable[[RunningEmulator], Awaitable[float]]


async def _gone_after(began: float, wait: Callable[[], Awaitable[int]]) -> float:
    await wait()
    return (time.perf_counter() - began) * 1000


async def over_stdio(
    emulator: RunningEmulator, *, is_answering: bool = True, number: signal.Signals | None = None
) -> float:
    """Send a signal, or close the input, of a server that has answered `initialize`."""
    async with started(environment(**against(emulator))) as server:
        await server.initialize()
        if is_answering:
            await server.post("tools/call", CALL)
            await emulator.state.until(lambda state: state.open_streams == 1)
        began = time.perf_counter()
        if number is not None:
            server.process.send_signal(number)
        else:
            await server.stdin.aclose()
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


MEASURES: dict[str, Measure] = {
    "stdio, idle: end of input": partial(over_stdio, is_answering=False),
    "stdio, answering: end of input": over_stdio,
    "stdio, answering: SIGTERM": partial(over_stdio, number=signal.SIGTERM),
    "HTTP, answering in a session: SIGTERM": partial(over_http, is_modern=False),
    "HTTP, answering without one: SIGTERM": partial(over_http, is_modern=True),
    "HTTP, client has hung up: SIGTERM": partial(over_http, is_modern=False, hangs_up=True),
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
