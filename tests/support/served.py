"""`kiro-mcp serve` over HTTP, as a process: what it says, a client of it, and its end."""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from subprocess import PIPE

import anyio
import httpx
from anyio import fail_after
from anyio.abc import ByteReceiveStream, Process

from tests.support.http import WebServer
from tests.support.stdio import COMMAND, PROMPTLY_SECONDS, environment


class Stderr:
    """What a process writes to stderr, read as it comes so that it is never held up."""

    def __init__(self) -> None:
        self.said = ""
        self.is_over = anyio.Event()
        self._address = anyio.Event()

    async def read(self, stream: ByteReceiveStream) -> None:
        async for chunk in stream:
            self.said += chunk.decode()
            if "until Ctrl-C" in self.said:
                self._address.set()
        self.is_over.set()

    async def address(self) -> httpx.URL:
        await self._address.wait()
        found = re.search(r"Serving MCP at (\S+) ", self.said)
        assert found
        return httpx.URL(found[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server process and a client of it."""

    process: Process
    server: WebServer
    stderr: Stderr

    @property
    def said(self) -> str:
        return self.stderr.said

    async def ended(self) -> int:
        with fail_after(PROMPTLY_SECONDS):
            code = await self.process.wait()
        await self.stderr.is_over.wait()
        return code


def serve(*arguments: str, **environ: str) -> AbstractAsyncContextManager[Served]:
    """Start a server on a free port, and make sure that it is gone in the end."""
    return serve_through((), *arguments, **environ)


@asynccontextmanager
async def serve_through(
    prefix: tuple[str, ...], *arguments: str, **environ: str
) -> AsyncGenerator[Served]:
    """Do the same through another command that runs it."""
    command = [*prefix, *COMMAND, "serve", "--port", "0", *arguments]
    stderr = Stderr()
    async with (
        await anyio.open_process(
            command, stdin=None, stdout=None, stderr=PIPE, env=environment(**environ)
        ) as process,
        anyio.create_task_group() as tasks,
    ):
        assert process.stderr
        tasks.start_soon(stderr.read, process.stderr)
        try:
            url = await stderr.address()
            async with httpx.AsyncClient(
                base_url=url.copy_with(path="/"),
                headers={"Accept": "application/json, text/event-stream"},
                timeout=None,
            ) as client:
                server = WebServer(client, url.path)
                yield Served(process=process, server=server, stderr=stderr)
        finally:
            if process.returncode is None:
                process.kill()
