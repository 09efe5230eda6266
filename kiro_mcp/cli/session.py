"""What every command shares: a real MCP client on our server in this process, and exit codes."""

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import anyio
import mcp_types as types
from mcp.client import Client

from kiro_mcp.cli.serve import log_to_stderr, server_for
from kiro_mcp.emulator import EMULATOR_API_KEY, running
from kiro_mcp.server.results import ERROR_META_KEY

INTERRUPTED = 130

_EXIT_CODES = {
    "invalid_request": 2,
    "not_found": 2,
    "auth_required": 3,
    "auth_expired": 3,
    "network_error": 4,
    "timeout": 4,
}
_REFUSED = 5


def run_command(command: Callable[[], Awaitable[int]]) -> int:
    """Run a command to its exit code; Ctrl-C ends it without a traceback."""
    log_to_stderr(os.environ)
    try:
        return anyio.run(command)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


@asynccontextmanager
async def connected(*, offline: bool) -> AsyncGenerator[Client]:
    """Connect a client to our server, and that to the service or to an emulator of it."""
    async with AsyncExitStack() as stack:
        environ = dict(os.environ)
        if offline:
            emulator = await stack.enter_async_context(running())
            environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}
        server = server_for(environ)
        yield await stack.enter_async_context(Client(server, mode="2026-07-28"))


def failed(result: types.CallToolResult) -> int:
    """Print an error result to stderr and return the exit code that its code has."""
    print(text_of(result), file=sys.stderr)
    facts = cast("dict[str, Any]", (result.meta or {}).get(ERROR_META_KEY, {}))
    return _EXIT_CODES.get(facts.get("code", ""), _REFUSED)


def text_of(result: types.CallToolResult) -> str:
    """Return the first block of a result, which is its text."""
    block = result.content[0]
    assert isinstance(block, types.TextContent)
    return block.text
