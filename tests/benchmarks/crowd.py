"""A crowd at one server: whether each gets its own answer, and what the server keeps of it all.

Run it with `python -m tests.benchmarks.crowd`. The server and the emulator are processes of their
own. Over Streamable HTTP three clients of the SDK, two newer ones and an older one, make 300 calls
at once; some cancel, and some callers hang up. Then come 1,000 further calls. Over stdio it is
1,000 calls and 200 cancelled ones. Every answer must be the one to its prompt; memory and file
descriptors of the server are counted before and after, and tasks in a server in this process. A
warm-up fills first what has a limit, such as the answers that are held in memory. Exits with 1 if
an answer goes astray or a bar is missed. Memory and descriptors are counted on Linux alone.
"""

import asyncio
import logging
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import STDOUT
from typing import Any

import anyio
import httpx
from anyio.abc import ByteReceiveStream
from mcp.client import Client

from kiro_mcp.client.http import KEEP_ALIVE_SECONDS
from kiro_mcp.emulator import EMULATOR_API_KEY, running
from tests.benchmarks.start import resident_mib
from tests.support.http import WebServer
from tests.support.mcp import connected
from tests.support.stdio import COMMAND, StdioServer, environment, started

CROWD = 300
CALLS = 1_000
CANCELLED = 200
AT_ONCE = 30
WARM_UP = 800
ROUNDS = 10
SEED = 20261121
MODES = ("2026-07-28", "legacy", "2026-07-28")
START_SECONDS = 30.0
IDLE_SECONDS = KEEP_ALIVE_SECONDS + 2
"""After this, the next request closes the connections to the service that nobody uses."""

GROWTH_BAR_MIB = 5.0

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
_MARK = re.compile(r"mark-\d{5}\.")

Job = Callable[[], Awaitable[None]]


@dataclass
class Tally:
    """How calls ended."""

    right: int = 0
    wrong: list[str] = field(default_factory=list[str])
    given_up: int = 0

    def judge(self, number: int, result: dict[str, Any]) -> None:
        """Note an answer: it must bear the mark of its own prompt and no other."""
        structured: dict[str, str] = result.get("structuredContent") or {}
        if set(_MARK.findall(structured.get("text", ""))) == {_mark(number)}:
            self.right += 1
        else:
            self.wrong.append(f"call {number}: {str(result)[:200]}")


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    mib: float
    files: int

    @classmethod
    def by(cls, pid: int) -> "Held":
        """Count."""
        files = Path(f"/proc/{pid}/fd")
        return cls(resident_mib(pid), len(os.listdir(files)) if files.exists() else 0)


def _mark(number: int) -> str:
    return f"mark-{number:05d}."


def _call(number: int, seconds: float = 0.0) -> dict[str, Any]:
    slow = f"/emulate slow {seconds:.2f}\n" if seconds else ""
    arguments = {"prompt": f"{slow}{_mark(number)}", "wait_seconds": 0}
    return {"name": "ask_claude", "arguments": arguments}


async def all_of(jobs: Iterable[Job], at_once: int) -> None:
    queue = iter(jobs)

    async def work() -> None:
        for job in queue:
            await job()

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(work)


@asynccontextmanager
async def program(*arguments: str, **environ: str) -> AsyncGenerator[tuple[int, str]]:
    """Run a command of ours that says its address; yield its process id and the address."""
    async with await anyio.open_process(
        [*COMMAND, *arguments], stdin=None, stderr=STDOUT, env=environment(**environ)
    ) as process:
        assert process.stdout
        said = ""
        with anyio.fail_after(START_SECONDS):
            while not (found := _ADDRESS.search(said)):
                said += (await process.stdout.receive()).decode()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_no_traceback_in, process.stdout)
            try:
                yield process.pid, found[0]
            finally:
                process.terminate()


async def _no_traceback_in(output: ByteReceiveStream) -> None:
    log = b"".join([chunk async for chunk in output])
    if b"Traceback" in log:
        raise RuntimeError(f"A process logged a traceback:\n{log.decode()}")


# --- over HTTP ----------------------------------------------------------------------------


async def _answered(client: Client, number: int, seconds: float, tally: Tally) -> None:
    result = await client.call_tool(**_call(number, seconds))
    tally.judge(number, result.model_dump(by_alias=True))


async def _cancelled(
    client: Client, number: int, seconds: float, after: float, tally: Tally
) -> None:
    with anyio.move_on_after(after) as patience:
        await _answered(client, number, seconds, tally)
    tally.given_up += patience.cancelled_caught


async def _hung_up(server: WebServer, number: int, after: float, tally: Tally) -> None:
    request = server.modern_request("tools/call", **_call(number, seconds=60))
    async with httpx.AsyncClient(timeout=None) as alone:
        with anyio.move_on_after(after):
            await alone.send(request)
    tally.given_up += 1


def _crowd(clients: Sequence[Client], server: WebServer, tally: Tally) -> list[Job]:
    """Choose at random which calls are cancelled: one in five."""
    chance = random.Random(SEED)
    jobs: list[Job] = []
    for number in range(CROWD):
        client, seconds = clients[number % len(clients)], chance.uniform(0.05, 1.0)
        after = chance.uniform(0.0, 2.0)
        job = chance.choices(
            (
                partial(_answered, client, number, seconds, tally),
                partial(_cancelled, client, number, seconds, after, tally),
                partial(_hung_up, server, number, after, tally),
            ),
            (8, 1, 1),
        )[0]
        jobs.append(job)
    return jobs


async def over_http(emulator: str, home: str) -> bool:
    """Make the crowd's calls, then count what further calls leave behind."""
    arguments = ["--transport", "http", "--port", "0", "--no-auth"]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pid, address = await enter(program("serve", *arguments, **settings_of(emulator, home)))
        clients = [await enter(Client(f"{address}/mcp", mode=mode)) for mode in MODES]
        server = WebServer(await enter(httpx.AsyncClient(base_url=address)), "/mcp")
        server.client.headers["Accept"] = "application/json, text/event-stream"
        crowd = Tally()
        began = time.perf_counter()
        await all_of(_crowd(clients, server, crowd), CROWD)
        seconds = time.perf_counter() - began
        print(
            f"HTTP, {CROWD} calls at once by {len(clients)} clients: {crowd.right} answered,"
            f" {crowd.given_up} given up, {len(crowd.wrong)} wrong, in {seconds:.1f} s"
        )

        async def make(first: int, count: int, tally: Tally) -> None:
            numbers = range(first, first + count)
            await all_of(
                [
                    partial(_answered, clients[number % len(clients)], number, 0.0, tally)
                    for number in numbers
                ],
                AT_ONCE,
            )

        async def held() -> Held:
            await anyio.sleep(IDLE_SECONDS)
            await make(0, 1, Tally())  # The pool drops what is too old when it is next used.
            return Held.by(pid)

        further = Tally()
        await make(CROWD, WARM_UP, further)
        before = await held()
        await make(CROWD + WARM_UP, CALLS, further)
        after = await held()
    is_good = _shown(f"HTTP, {CALLS:,} further calls", before, after, further)
    for wrong in crowd.wrong:
        print(f"  WRONG {wrong}")
    return is_good and crowd.right + crowd.given_up == CROWD


# --- over stdio ---------------------------------------------------------------------------


async def _answers(server: StdioServer, numbers: Iterable[int], tally: Tally) -> None:
    """Keep so many calls in flight until all are answered."""
    left = iter(numbers)
    sent: dict[int, int] = {}

    async def send_next() -> None:
        for number in left:
            sent[await server.post("tools/call", _call(number))] = number
            return

    for _ in range(AT_ONCE):
        await send_next()
    while sent:
        answer = await server.receive()
        tally.judge(sent.pop(answer["id"]), answer["result"])
        await send_next()


async def over_stdio(emulator: str, home: str) -> bool:
    """Make calls, and begin others that are cancelled among them."""
    async with started(environment(**settings_of(emulator, home))) as server:
        await server.initialize()
        tally = Tally()
        await _answers(server, range(WARM_UP), tally)
        await anyio.sleep(IDLE_SECONDS)
        await _answers(server, [0], tally)
        before = Held.by(server.process.pid)
        share, first = CALLS // ROUNDS, WARM_UP
        for _ in range(ROUNDS):
            late = [
                await server.post("tools/call", _call(99_999, seconds=60))
                for _ in range(CANCELLED // ROUNDS)
            ]
            await _answers(server, range(first, first + share), tally)
            for request_id in late:
                await server.cancel(request_id)
            tally.given_up += len(late)
            first += share
        await anyio.sleep(IDLE_SECONDS)
        await _answers(server, [first], tally)
        after = Held.by(server.process.pid)
    return _shown(f"stdio, {CALLS:,} calls and {CANCELLED} cancelled", before, after, tally)


# --- in this process ----------------------------------------------------------------------


async def tasks_left() -> bool:
    """Make calls of a server in this process, a fifth of them cancelled, and count its tasks."""
    tally = Tally()
    async with running() as emulator, connected(emulator) as client:
        await _answered(client, 0, 0.0, tally)
        before = len(asyncio.all_tasks())
        for number in range(CANCELLED):
            if number % 5:
                await _answered(client, number, 0.0, tally)
            else:
                await _cancelled(client, number, 60.0, 0.02, tally)
        await anyio.sleep(0.2)  # What was cancelled closes its connections.
        after = len(asyncio.all_tasks())
    print(f"in one process, {CANCELLED} calls: {before} tasks before, {after} after")
    return after <= before and not tally.wrong


def settings_of(emulator: str, home: str) -> dict[str, str]:
    return {
        "KIRO_MCP_ENDPOINT_URL": emulator,
        "KIRO_API_KEY": EMULATOR_API_KEY,
        "KIRO_MCP_HOME": home,
        "KIRO_MCP_MAX_CONCURRENCY": "64",
    }


def _shown(name: str, before: Held, after: Held, tally: Tally) -> bool:
    """Print what was held; return whether the bars are met."""
    grown = after.mib - before.mib
    is_good = grown < GROWTH_BAR_MIB and after.files <= before.files and not tally.wrong
    print(
        f"{name}: {before.mib:.1f} MiB before, {after.mib:.1f} after (bar: +{GROWTH_BAR_MIB:g});"
        f" {before.files} descriptors before, {after.files} after; {tally.right} answered,"
        f" {tally.given_up} given up, {len(tally.wrong)} wrong{'' if is_good else '  MISSED'}",
        flush=True,
    )
    for wrong in tally.wrong:
        print(f"  WRONG {wrong}")
    return is_good


async def run() -> int:
    """Run all three."""
    # The SDK's clients warn where a cancel could not be sent at once, on a busy machine.
    logging.getLogger("mcp").setLevel("ERROR")
    async with program("emulate", "--port", "0") as (_, emulator):
        outcomes: list[bool] = []
        for part in (over_http, over_stdio):
            with tempfile.TemporaryDirectory() as home:
                outcomes.append(await part(emulator, home))
    outcomes.append(await tasks_left())
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(anyio.run(run))
