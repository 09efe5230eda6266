"""The server as it ships, with the emulator inside, for programs of others that are its clients."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from subprocess import PIPE

import anyio

from tests.support.stdio import COMMAND, environment

OVER_STDIO = (*COMMAND, "serve", "--offline")

START_SECONDS = 30


@asynccontextmanager
async def shipped_over_http() -> AsyncGenerator[str]:
    """Serve on a free port while the block runs; yield the address."""
    arguments = ["--transport", "http", "--port", "0", "--no-auth"]
    async with await anyio.open_process(
        [*OVER_STDIO, *arguments], stdin=None, stderr=PIPE, env=environment()
    ) as process:
        assert process.stderr
        said = ""
        with anyio.fail_after(START_SECONDS):
            while not (found := re.search(r"Serving MCP at (\S+) ", said)):
                said += (await process.stderr.receive()).decode()
        try:
            yield found[1].replace("127.0.0.1", "localhost")
        finally:
            process.terminate()
