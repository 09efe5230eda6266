"""How soon a server answers, and what it weighs while it is idle.

Run it with `python -m tests.benchmarks.start`. All times begin with the start of the process, over
stdio, in interleaved rounds. The first answers stand beside a Python process that does
nothing; the first call of `ask_claude` stands beside the first call of a bare server of the same
SDK, whose one tool makes the same POST. Exits with 1 when a bar is missed.
"""

import sys
import time
from pathlib import Path
from statistics import median

import anyio

from tests.benchmarks.calls import PROMPT, THIS, service
from tests.benchmarks.table import Row, print_table
from tests.support.stdio import COMMAND, environment, started

ROUNDS = 12
INITIALIZE_BAR = 3.0
LIST_BAR = 3.5
IDLE_MIB_BAR = 30.0
FIRST_CALL_BAR = 1.3
EMPTY = (sys.executable, "-c", "pass")


async def empty_process() -> float:
    """Return the milliseconds of a Python process that does nothing."""
    began = time.perf_counter()
    await anyio.run_process(EMPTY, env=environment())
    return (time.perf_counter() - began) * 1000


async def first_answers() -> tuple[float, float, float]:
    """Return the milliseconds to the answers to initialize and tools/list, and the MiB then."""
    began = time.perf_counter()
    async with started(environment()) as server:
        await server.initialize()
        initialized = time.perf_counter() - began
        await server.request("tools/list")
        listed = time.perf_counter() - began
        return initialized * 1000, listed * 1000, resident_mib(server.process.pid)


async def first_call(command: tuple[str, ...], url: str, tool: str, **arguments: str) -> float:
    """Return the milliseconds to the answer of the first tool call."""
    environ = environment(KIRO_API_KEY="ksk_benchmark", KIRO_MCP_ENDPOINT_URL=url)
    began = time.perf_counter()
    async with started(environ, command) as server:
        await server.initialize()
        result = await server.call(tool, **arguments)
        assert not result.get("isError"), result
        return (time.perf_counter() - began) * 1000


def resident_mib(pid: int) -> float:
    """Return the resident set of a process; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


async def rows() -> list[Row]:
    """Measure all, one after the other, round by round."""
    async with service() as url:
        rival = (sys.executable, "-m", THIS, "rival", url)

        async def measure() -> tuple[float, ...]:
            return (
                await empty_process(),
                *await first_answers(),
                await first_call(COMMAND, url, "ask_claude", prompt=PROMPT),
                await first_call(rival, url, "ask"),
            )

        await measure()  # Bytecode is written, files are in memory.
        found = [await measure() for _ in range(ROUNDS)]
    empty, initialized, listed, mib, ours, theirs = (
        median(one) for one in zip(*found, strict=True)
    )
    return [
        _row("spawn to initialize / empty process", initialized, empty, INITIALIZE_BAR),
        _row("spawn to tools/list / empty process", listed, empty, LIST_BAR),
        _row("idle memory / its limit", mib, IDLE_MIB_BAR, 1, unit="MiB"),
        _row("spawn to the first call's answer", ours, theirs, FIRST_CALL_BAR),
    ]


def _row(name: str, ours: float, rival: float, bar: float, unit: str = "ms") -> Row:
    return Row(name=name, ours=ours, rival=rival, unit=unit, bar=bar, is_ceiling=True)


if __name__ == "__main__":
    sys.exit(0 if print_table(anyio.run(rows)) else 1)
