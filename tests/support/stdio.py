"""A server process, and raw lines to and from it over its standard input and output."""

import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any, cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

COMMAND = (sys.executable, "-m", "kiro_mcp")

MODERN = "2026-07-28"
ENVELOPE: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
MAX_LINE_BYTES = 64 * 1024 * 1024

PROMPTLY_SECONDS = 15
"""How long something may take on a busy machine that takes under half a second on an idle one.

What does not end by itself takes for ever. `tests.benchmarks.ends` measures the half second.
"""

_NOBODYS_HOME = tempfile.TemporaryDirectory(prefix="kiro-mcp-tests-")
"""The folder of a user who has nothing."""

_HIDDEN = ("KIRO", "PROFILE_ARN", "REFRESH_TOKEN", "PYTHONUNBUFFERED", "XDG_")


def forget_home() -> None:
    """Remove that folder: test workers end in a way that removes nothing by itself."""
    _NOBODYS_HOME.cleanup()


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the developer's settings, logins and folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    homes = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA")
    home = dict.fromkeys(homes, _NOBODYS_HOME.name)
    return {**kept, **home, "KIRO_MCP_MAX_RETRIES": "0", **variables}


class PipeReader(ByteReceiveStream):
    """The reading end of a pipe. Unlike a subprocess's own, closing it really closes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_open = True

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.wait_readable(self._fd)
        data = os.read(self._fd, max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._fd)
        await anyio.lowlevel.checkpoint()


class StdioServer:
    """A running server. Every line that it writes must be JSON-RPC."""

    def __init__(self, process: Process, stdout: PipeReader, stderr_path: Path) -> None:
        assert process.stdin
        self.process = process
        self.stdin = process.stdin
        self.stdout = stdout
        self._lines = BufferedByteReceiveStream(stdout)
        self._stderr_path = stderr_path
        self._last_id = 0

    @property
    def stderr(self) -> str:
        """What it has written to stderr until now."""
        return self._stderr_path.read_text("utf-8")

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.send_bytes(json.dumps(message).encode() + b"\n")

    async def send_bytes(self, data: bytes) -> None:
        await self.stdin.send(data)

    async def receive_line(self) -> bytes:
        return await self._lines.receive_until(b"\n", MAX_LINE_BYTES)

    async def receive(self) -> dict[str, Any]:
        message = json.loads(await self.receive_line())
        assert message["jsonrpc"] == "2.0"
        return message

    async def post(self, method: str, params: Mapping[str, Any]) -> int:
        """Send a request and return its id, without waiting for the answer."""
        self._last_id += 1
        await self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    async def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the message that answers it, skipping notifications."""
        sent = await self.post(method, params or {})
        while (message := await self.receive()).get("id") != sent:
            assert "id" not in message
        return message

    async def cancel(self, request_id: object) -> None:
        """Tell the server that a request's answer is no longer wanted."""
        params = {"requestId": request_id}
        await self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    async def request_modern(self, method: str, **params: Any) -> dict[str, Any]:
        return await self.request(method, {**params, "_meta": ENVELOPE})

    async def initialize(
        self, version: str = "2025-11-25", capabilities: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer = await self.request(
            "initialize",
            {
                "protocolVersion": version,
                "capabilities": capabilities or {},
                "clientInfo": {"name": "tests", "version": "1"},
            },
        )
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool in an initialized session and return the result."""
        answer = await self.request("tools/call", {"name": tool, "arguments": arguments})
        return cast("dict[str, Any]", answer["result"])

    async def rest_of_stdout(self) -> bytes:
        """Read stdout to its end, past what was received."""
        rest = [self._lines.buffer, *[chunk async for chunk in self.stdout]]
        return b"".join(rest)


@asynccontextmanager
async def started(
    environ: Mapping[str, str] | None = None, command: tuple[str, ...] = COMMAND
) -> AsyncGenerator[StdioServer]:
    """Start a server, and make sure that it is gone in the end."""
    with tempfile.NamedTemporaryFile() as stderr:
        read_end, write_end = os.pipe()
        process = await anyio.open_process(
            command,
            stdin=PIPE,
            stdout=write_end,
            stderr=stderr.fileno(),
            env=environment() if environ is None else environ,
        )
        os.close(write_end)
        async with process, PipeReader(read_end) as stdout:
            try:
                yield StdioServer(process, stdout, Path(stderr.name))
            finally:
                if process.returncode is None:
                    process.kill()
