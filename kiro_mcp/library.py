"""The engine for other Python programs: a client with the account that this machine has."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from kiro_mcp.server.engine import Engine
from kiro_mcp.transport.client import KiroClient


@asynccontextmanager
async def open_client(environ: Mapping[str, str] | None = None) -> AsyncGenerator[KiroClient]:
    """Yield a client that finds and renews its login as the server does.

    Args:
        environ: The settings, as the README lists them; by default the process's variables.

    Raises:
        InvalidRequest: A setting cannot be used.
    """
    async with Engine.from_environ(os.environ if environ is None else environ) as engine:
        yield engine.client
