"""What the APIs cost the server: processor time of its process, read from the system.

Run it with `python -m tests.benchmarks.api`. A server over HTTP, a server over stdio and the
emulator are processes of their own.

* `/v1/chat/completions` stands beside `ask_claude` over stdio, in interleaved rounds. Both ask the
  service of `tests.benchmarks.calls`, which answers at once.
* A streamed delta stands beside what reading it takes: bytes to a reply. The service sends each
  delta in a chunk of its own, as the real one does.
* A request with a history stands beside one with an eighth of it.
* Requests at the same time must each get their own answer.

Exits with 1 when a bar is missed. The system tells processor time on Linux alone.
"""

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from kiro_mcp.emulator import EMULATOR_API_KEY
from tests.benchmarks import stream
from tests.benchmarks.calls import serve_answers, service
from tests.benchmarks.crowd import program
from tests.benchmarks.table import Row, print_table
from tests.support.frames import END, text
from tests.support.served import serve
from tests.support.stdio import environment, started

ROUNDS = 8
CALLS_A_ROUND = 40
AT_ONCE = 64
DELTAS = 3_000
STREAMS = 4
TURNS = 100
TURN_CHARACTERS = 1_000
LONG_REQUESTS = 3

CALL_BAR = 0.6
GROWTH_BAR = 10.0
DELTA_BAR = 15.0
"""Reading a delta takes 4 us on a usual machine: this is 60 us."""

PATH = "/v1/chat/completions"
MODEL = "claude-sonnet-4.5"
PROMPT = "What is the capital of France?"

FRAMES = [*(text("word ", modelId=MODEL) for _ in range(DELTAS)), END]
STREAM = b"".join(
    (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n",
        b"transfer-encoding: chunked\r\n\r\n",
        *(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in FRAMES),
        b"0\r\n\r\n",
    )
)

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 1


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken so far, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


async def cost(pid: int, work: Callable[[], Awaitable[Any]], times: int) -> float:
    """Return the seconds of processor time that one of several repetitions takes a process."""
    began = cpu_seconds(pid)
    for _ in range(times):
        await work()
    return (cpu_seconds(pid) - began) / times


def _body(*texts: str, **members: Any) -> dict[str, Any]:
    """Build a request with texts of the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": said} for n, said in enumerate(texts)]
    return {"model": MODEL, "messages": messages, **members}


def _environ(url: str) -> dict[str, str]:
    return environment(
        KIRO_API_KEY=EMULATOR_API_KEY,
        KIRO_MCP_ENDPOINT_URL=url,
        KIRO_MCP_MAX_CONCURRENCY=str(AT_ONCE),
    )


@asynccontextmanager
async def serving(url: str) -> AsyncGenerator[tuple[httpx.AsyncClient, int]]:
    """Run a server with the APIs; yield a client of it and its process id."""
    arguments = ("--transport", "http", "--api", "--no-auth")
    async with serve(*arguments, **_environ(url)) as served:
        yield served.server.client, served.process.pid


async def _ask(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    response = await client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


async def _compare_calls() -> Row:
    async with (
        service() as url,
        started(_environ(url)) as server,
        serving(url) as (client, pid),
    ):
        await server.initialize()

        async def ask_claude() -> None:
            result = await server.call("ask_claude", prompt=PROMPT, model=MODEL)
            assert not result.get("isError"), result

        async def chat() -> None:
            await _ask(client, _body(PROMPT))

        await cost(pid, chat, CALLS_A_ROUND)
        await cost(pid, ask_claude, CALLS_A_ROUND)
        ours = theirs = 0.0
        for _ in range(ROUNDS):
            ours += await cost(pid, chat, CALLS_A_ROUND)
            theirs += await cost(server.process.pid, ask_claude, CALLS_A_ROUND)
    return Row(
        name="CPU: a chat completion / ask_claude, stdio",
        ours=ours / ROUNDS * 1000,
        rival=theirs / ROUNDS * 1000,
        unit="ms",
        bar=CALL_BAR,
        is_ceiling=True,
    )


async def _measure_deltas() -> Row:
    reading = min(stream.seconds(stream.read, FRAMES) for _ in range(ROUNDS))
    async with service("tests.benchmarks.api") as url, serving(url) as (client, pid):

        async def read_stream() -> None:
            body = _body(PROMPT, stream=True)
            async with client.stream("POST", PATH, json=body) as response:
                received = (await response.aread()).count(b'"delta":{"content":"word')
            assert received == DELTAS, received

        await read_stream()
        taken = await cost(pid, read_stream, STREAMS)
    return Row(
        name=f"CPU: one of {DELTAS} streamed deltas / reading it",
        ours=taken / DELTAS * 1_000_000,
        rival=reading / DELTAS * 1_000_000,
        unit="us",
        bar=DELTA_BAR,
        is_ceiling=True,
    )


async def _grow(client: httpx.AsyncClient, pid: int) -> Row:
    def history(turns: int) -> dict[str, Any]:
        return _body(*(f"{n:06d} ".ljust(TURN_CHARACTERS, "x") for n in range(turns)), PROMPT)

    small, large = history(TURNS), history(TURNS * 8)
    await _ask(client, large)
    return Row(
        name=f"CPU: {TURNS * 8} turns / {TURNS} turns",
        ours=await cost(pid, lambda: _ask(client, large), LONG_REQUESTS) * 1000,
        rival=await cost(pid, lambda: _ask(client, small), LONG_REQUESTS * 8) * 1000,
        unit="ms",
        bar=GROWTH_BAR,
        is_ceiling=True,
    )


async def _ask_at_once(client: httpx.AsyncClient) -> None:
    """Ask many questions at the same time; each must get its own answer."""

    async def ask(number: int) -> None:
        answer = await _ask(client, _body(f"mark-{number:04d}."))
        assert answer.endswith(f"You said: mark-{number:04d}."), answer

    async with anyio.create_task_group() as tasks:
        for number in range(AT_ONCE):
            tasks.start_soon(ask, number)


async def rows() -> list[Row]:
    """Start the emulator and a server, and measure everything."""
    if sys.platform != "linux":
        return []
    async with program("emulate", "--port", "0") as (_, url), serving(url) as (client, pid):
        await _ask_at_once(client)
        return [await _compare_calls(), await _measure_deltas(), await _grow(client, pid)]


def main() -> int:
    """Run the benchmark, or the service that streams deltas."""
    if sys.argv[1:] == ["service"]:
        anyio.run(serve_answers, STREAM)
        return 0
    return 0 if print_table(anyio.run(rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
