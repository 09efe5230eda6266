"""What `ask_claude` costs beside the call itself: ours beside a bare MCP tool, over stdio.

Run it with `python -m tests.benchmarks.calls`. The rival is the least that could be written: a
server of the same SDK whose one tool makes the same POST with httpx and returns the body as it
came, undecoded. Both ask the same server on loopback, which answers any POST at once with the
same frames. Rounds are interleaved, so that a busy moment of the machine meets both sides.
Exits with 1 when a bar is missed.
"""

import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from subprocess import PIPE
from typing import Any

import anyio
import httpx
import mcp_types as types
from anyio.abc import SocketAttribute, SocketStream
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from kiro_mcp.chat import ChatRequest, Message, TextPart
from kiro_mcp.emulator import frames
from kiro_mcp.wire.request import Envelope, prepare, write_payload
from tests.benchmarks.table import Row, print_table
from tests.support.stdio import StdioServer, environment, started

ROUNDS = 8
CALLS_A_ROUND = 60
IN_FLIGHT = 64
CALLS_IN_FLIGHT = 640
OVERHEAD_BAR = 1.4
THROUGHPUT_BAR = 0.7

PROMPT = "What is the capital of France?"
ANSWER = frames.text("The capital of France is Paris. " * 4) + frames.ending()
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
    b"content-length: %d\r\n\r\n" % len(ANSWER)
)
THIS = "tests.benchmarks.calls"
MAX_HEAD_BYTES = 64 * 1024


# --- the service: one answer to all -------------------------------------------------------


async def answer_all(response: bytes, client: SocketStream) -> None:
    """Answer each POST of a connection at once with the same response."""
    buffer = b""
    async with client:
        while True:
            while b"\r\n\r\n" not in buffer and len(buffer) < MAX_HEAD_BYTES:
                try:
                    buffer += await client.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            while len(buffer) < length:
                buffer += await client.receive()
            buffer = buffer[length:]
            await client.send(response)


async def serve_answers(response: bytes = HEAD + ANSWER) -> None:
    """Serve on a free port, and say which."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    print(listener.extra(SocketAttribute.local_port), flush=True)
    await listener.serve(partial(answer_all, response))


@asynccontextmanager
async def service(module: str = THIS) -> AsyncGenerator[str]:
    """Run the service of a module in a process of its own; yield its address."""
    command = (sys.executable, "-m", module, "service")
    async with await anyio.open_process(command, stdout=PIPE, stderr=None) as process:
        assert process.stdout
        port = (await process.stdout.receive()).decode().strip()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


# --- the rival ----------------------------------------------------------------------------


async def serve_rival(url: str) -> None:
    """Serve a tool that makes the same POST and returns the body."""
    request = ChatRequest(
        messages=(Message(role="user", parts=(TextPart(text=PROMPT),)),),
        conversation_id="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
    )
    payload = write_payload(prepare(request), Envelope(origin="KIRO_CLI", profile_arn="")).body
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))

    async def list_tools(
        _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        tool = types.Tool(name="ask", description="Ask.", input_schema={"type": "object"})
        return types.ListToolsResult(tools=[tool])

    async def call_tool(
        _: ServerRequestContext[Any], __: types.CallToolRequestParams
    ) -> types.CallToolResult:
        response = await client.post(f"{url}/generateAssistantResponse", json=payload)
        text = response.content.decode("latin-1")
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

    server = Server("bare", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as streams:
        await server.run(*streams, server.create_initialization_options())


# --- the comparison -----------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One server, and how its tool is called."""

    server: StdioServer
    tool: str
    arguments: dict[str, Any]

    async def latencies(self, count: int) -> list[float]:
        """Make calls one after the other; return the seconds of each."""
        seconds: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            result = await self.server.call(self.tool, **self.arguments)
            seconds.append(time.perf_counter() - began)
            assert "isError" not in result or not result["isError"], json.dumps(result)
        return seconds

    async def calls_per_second(self, count: int) -> float:
        """Keep so many calls in flight until all are answered."""
        call = {"name": self.tool, "arguments": self.arguments}
        began = time.perf_counter()
        for _ in range(IN_FLIGHT):
            await self.server.post("tools/call", call)
        for answered in range(count):
            while "id" not in (answer := await self.server.receive()):
                pass
            assert not answer["result"].get("isError"), json.dumps(answer)
            if answered < count - IN_FLIGHT:
                await self.server.post("tools/call", call)
        return count / (time.perf_counter() - began)


async def compare(ours: Side, rival: Side) -> list[Row]:
    """Measure both, round by round."""
    for side in (ours, rival):
        await side.latencies(20)
    seconds: tuple[list[float], list[float]] = ([], [])
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for side, found in zip((ours, rival), seconds, strict=True):
            found.extend(await side.latencies(CALLS_A_ROUND))
    for _ in range(ROUNDS // 2):
        for side, found in zip((ours, rival), rates, strict=True):
            found.append(await side.calls_per_second(CALLS_IN_FLIGHT))
    mine, theirs = (median(one) * 1000 for one in seconds)
    my_rate, their_rate = (median(one) for one in rates)
    return [
        Row(
            name="one call over stdio, median",
            ours=mine,
            rival=theirs,
            unit="ms",
            bar=OVERHEAD_BAR,
            is_ceiling=True,
        ),
        Row(
            name=f"{IN_FLIGHT} calls in flight",
            ours=my_rate,
            rival=their_rate,
            unit="/s",
            bar=THROUGHPUT_BAR,
            is_ceiling=False,
            more_is_better=True,
        ),
    ]


async def rows() -> list[Row]:
    """Start both servers and the service, and compare."""
    async with service() as url:
        environ = environment(
            KIRO_API_KEY="ksk_benchmark",
            KIRO_MCP_ENDPOINT_URL=url,
            KIRO_MCP_MAX_CONCURRENCY=str(IN_FLIGHT),
        )
        rival_command = (sys.executable, "-m", THIS, "rival", url)
        async with started(environ) as ours, started(environment(), rival_command) as rival:
            await ours.initialize()
            await rival.initialize()
            return await compare(
                Side(ours, "ask_claude", {"prompt": PROMPT}), Side(rival, "ask", {})
            )


def main() -> int:
    """Run the benchmark, or one of its two helper processes."""
    match sys.argv[1:]:
        case ["service"]:
            anyio.run(serve_answers)
        case ["rival", url]:
            anyio.run(serve_rival, url)
        case _:
            return 0 if print_table(anyio.run(rows)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
