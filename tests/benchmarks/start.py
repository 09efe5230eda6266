"""How soon a server answers, and what it weighs then: ours beside a bare one of the same SDK.

Run it with `python -m tests.benchmarks.start`. Measured from the start of the process to its
answer to `initialize`, over stdio, in interleaved rounds; memory is the resident set then, where
the system tells it. Exits with 1 when a bar is missed.
"""

import sys
import time
from pathlib import Path
from statistics import median

import anyio
from mcp.server.mcpserver import MCPServer

from tests.benchmarks.table import Row, print_table
from tests.support.stdio import COMMAND, environment, started

ROUNDS = 12
BAR = 1.2
RIVAL = (sys.executable, "-m", "tests.benchmarks.start", "rival")


def serve_rival() -> None:
    """Serve the least that could be written: one tool of the SDK's quickest way."""
    server = MCPServer("bare", version="1")

    @server.tool()
    async def echo(text: str) -> str:  # pyright: ignore[reportUnusedFunction]  # It is registered.
        """Echo."""
        return text

    server.run("stdio")


async def start(command: tuple[str, ...]) -> tuple[float, float]:
    """Return milliseconds until the answer, and MiB then (0 where the system does not tell)."""
    began = time.perf_counter()
    async with started(environment(), command) as server:
        await server.initialize()
        seconds = time.perf_counter() - began
        return seconds * 1000, resident_mib(server.process.pid)


def resident_mib(pid: int) -> float:
    """Return the resident set of a process."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


async def rows() -> list[Row]:
    """Measure both, one after the other, round by round."""
    for command in (COMMAND, RIVAL):  # Bytecode is written, files are in memory.
        await start(command)
    found = [(await start(COMMAND), await start(RIVAL)) for _ in range(ROUNDS)]
    (my_ms, my_mib), (their_ms, their_mib) = (
        [median(values) for values in zip(*side, strict=True)] for side in zip(*found, strict=True)
    )
    rows = [
        Row(
            name="spawn to initialize's answer",
            ours=my_ms,
            rival=their_ms,
            unit="ms",
            bar=BAR,
            is_ceiling=True,
        )
    ]
    if their_mib:
        rows.append(
            Row(
                name="resident memory then",
                ours=my_mib,
                rival=their_mib,
                unit="MiB",
                bar=BAR,
                is_ceiling=True,
            )
        )
    return rows


def main() -> int:
    """Print the table, or be the rival."""
    if sys.argv[1:] == ["rival"]:
        serve_rival()
        return 0
    return 0 if print_table(anyio.run(rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
