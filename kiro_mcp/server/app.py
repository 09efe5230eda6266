"""The one factory of the MCP server, for every transport.

Built on the SDK's low-level server: it leaves schemas and error texts to us, is all public,
and serves every protocol revision from 2024-11-05 to 2026-07-28 from one object.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from kiro_mcp import __version__
from kiro_mcp.errors import InternalFault, KiroError
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import failure
from kiro_mcp.server.tools import HANDLERS, declarations

logger = logging.getLogger(__name__)

INSTRUCTIONS = (
    "Claude through the user's own Kiro subscription. Call ask_claude for a second opinion or a"
    " self-contained task; it sees only what you send and costs the user credits. list_models"
    " names the models. If a tool answers auth_required, call login and tell the user what it says."
)

CLOSING_SECONDS = 0.3
"""How long closing connections may take, so that the server is gone within half a second."""

_TOOLS_TTL_MS = 60 * 60 * 1000
"""The tools change only with the package's version."""


class Deferred:
    """An engine that is made at its first use and closed with the server."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._engine: Engine | None = None

    def __call__(self) -> Engine:
        """Return the engine.

        Raises:
            InvalidRequest: A setting cannot be used; asked again, it is tried again.
        """
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    async def aclose(self) -> None:
        """Close the engine, if there ever was one, also while the server is being cancelled."""
        if self._engine is not None:
            with anyio.move_on_after(CLOSING_SECONDS, shield=True):
                await self._engine.client.aclose()


Context = ServerRequestContext[Deferred]


def build_server(make_engine: Callable[[], Engine]) -> Server[Deferred]:
    """Build the server. Neither this nor its start calls `make_engine`; a tool call does."""

    @asynccontextmanager
    async def lifespan(_: Server[Deferred]) -> AsyncGenerator[Deferred]:
        engine = Deferred(make_engine)
        try:
            yield engine
        finally:
            await engine.aclose()

    hint = CacheHint(ttl_ms=_TOOLS_TTL_MS, scope="public")
    return Server(
        "kiro-mcp",
        version=__version__,
        title="Claude through Kiro",
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        cache_hints={"tools/list": hint, "server/discover": hint},
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )


async def _list_tools(
    context: Context, params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    return types.ListToolsResult(tools=declarations())


async def _call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    handler = HANDLERS.get(params.name)
    if handler is None:
        known = ", ".join(HANDLERS)
        raise MCPError(
            code=types.INVALID_PARAMS,
            message=f"There is no tool {params.name!r}; there are {known}.",
        )
    try:
        return await handler(context.lifespan_context(), params.arguments or {})
    except KiroError as error:
        return failure(error)
    except Exception:
        logger.exception("%s failed", params.name)
        return failure(
            InternalFault(
                f"{params.name} met a defect of kiro-mcp.",
                next_step="Its log (stderr) has the details; please report them.",
            )
        )
