"""The longest time that the event loop of a real server stood still, for each of many inputs.

Run it with `python -m tests.benchmarks.stalls`, or with words that the names of some inputs hold.
The inputs are in `tests.benchmarks.stall_inputs`; each is one call over stdio. A task in the
server's own loop wakes each millisecond and notes how late it was, and how much processor time
the server used meanwhile. Each input is tried three times and the best counts. The smaller of the
two figures is compared with the bar: while other programs use the machine, a loop is late without
anybody's fault. The second column is the lateness alone. Exits with 1 if an input is over the bar,
or gets no answer.
"""

import json
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from kiro_mcp.emulator import EMULATOR_API_KEY
from tests.benchmarks.stall_inputs import INPUTS, Input
from tests.support.stdio import StdioServer, environment, started

BAR_SECONDS = 0.05
ROUNDS = 3
ANSWER_SECONDS = 30
MAX_BODY_BYTES = 256 * 1024 * 1024
THIS = "tests.benchmarks.stalls"
_STALL = struct.Struct("dd")
"""The longest stall, and the longest lateness."""


# --- the server, and what watches its loop ------------------------------------------------


async def serve_watched(longest: mmap.mmap) -> int:
    """Serve MCP on stdio, and note the longest stall where the parent can read it."""
    from kiro_mcp.cli.serve import server_for, skip_loaded_modules_in_gc
    from kiro_mcp.server.stdio import serve_stdio

    skip_loaded_modules_in_gc()
    code = 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, longest)
        code = await serve_stdio(server_for(os.environ))
        tasks.cancel_scope.cancel()
    return code


async def watch(longest: mmap.mmap) -> None:
    while True:
        before, cpu_before = time.perf_counter(), time.process_time()
        await anyio.sleep(0.001)
        late = time.perf_counter() - before - 0.001
        stall = min(late, time.process_time() - cpu_before)
        most = _STALL.unpack(longest[: _STALL.size])
        longest[: _STALL.size] = _STALL.pack(max(stall, most[0]), max(late, most[1]))


# --- the service: the same answer to each request -----------------------------------------


class Service:
    def __init__(self) -> None:
        self.answer = b""

    async def serve(self, client: SocketStream) -> None:
        stream = BufferedByteReceiveStream(client)
        async with client:
            try:
                while True:
                    head = await stream.receive_until(b"\r\n\r\n", 64 * 1024)
                    (length,) = [
                        int(line.partition(b":")[2])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ]
                    while length:
                        length -= len(await stream.receive(min(length, 1024 * 1024)))
                    await client.send(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
                        b"content-length: %d\r\n\r\n" % len(self.answer)
                    )
                    await client.send(self.answer)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                return


@asynccontextmanager
async def serving() -> AsyncGenerator[tuple[Service, str]]:
    service = Service()
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, service.serve)
        yield service, f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


# --- the measurement ----------------------------------------------------------------------


Stall: TypeAlias = tuple[float, float]


async def stall(one: Input, server: StdioServer, longest: mmap.mmap) -> Stall | None:
    """Return the longest stall and lateness during one call; None where no answer comes."""
    call = {"name": "ask_claude", "arguments": one.arguments()}
    message = {"jsonrpc": "2.0", "id": one.name, "method": "tools/call", "params": call}
    line = json.dumps(message).encode() + b"\n"
    longest[: _STALL.size] = _STALL.pack(0.0, 0.0)
    with anyio.move_on_after(ANSWER_SECONDS):
        await server.send_bytes(line)
        while (await server.receive()).get("id") != one.name:
            pass
        longest_stall, late = _STALL.unpack(longest[: _STALL.size])
        return longest_stall, late
    return None


async def best_stall(one: Input, url: str, service: Service) -> Stall | None:
    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as home:
        file.write(_STALL.pack(0.0, 0.0))
        file.flush()
        longest = mmap.mmap(file.fileno(), _STALL.size)
        environ = environment(HOME=home, KIRO_MCP_ENDPOINT_URL=url, KIRO_API_KEY=EMULATOR_API_KEY)
        command = (sys.executable, "-m", THIS, "--serve", file.name)
        service.answer = one.answer()
        async with started(environ, command) as server:
            await server.initialize()
            await server.call("ask_claude", prompt="warm up")
            stalls: list[Stall] = []
            for _ in range(ROUNDS):
                found = await stall(one, server, longest)
                if found is None:
                    return min(stalls, default=None)
                stalls.append(found)
            return min(stalls)


async def measure(words: Sequence[str]) -> bool:
    """Print a line for each input and the worst; return whether all are within the bar."""
    chosen = [one for one in INPUTS if all(word in one.name for word in words)]
    found: dict[str, float] = {}
    async with serving() as (service, url):
        for one in chosen:
            best = await best_stall(one, url, service)
            found[one.name] = best[0] if best else ANSWER_SECONDS
            shown = (
                "{:8.1f} ms{:8.1f} ms".format(*(1000 * n for n in best)) if best else "no answer"
            )
            verdict = "  OVER" if found[one.name] > BAR_SECONDS else ""
            print(f"{one.name:52}{shown}{verdict}", flush=True)
    worst = max(found, key=lambda name: found[name])
    over = [name for name, seconds in found.items() if seconds > BAR_SECONDS]
    print(
        f"worst of {len(found)}: {worst}, {found[worst] * 1000:.1f} ms; over the bar: {len(over)}"
    )
    return not over


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        with Path(sys.argv[2]).open("r+b") as shared:
            sys.exit(anyio.run(serve_watched, mmap.mmap(shared.fileno(), _STALL.size)))
    sys.exit(0 if anyio.run(measure, sys.argv[1:]) else 1)
