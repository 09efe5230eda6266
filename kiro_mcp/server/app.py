"""Builds the MCP server, for every transport.

It uses the SDK's low-level server, which leaves schemas and error texts to us, has a public API,
and serves every protocol revision from 2024-11-05 to 2026-07-28 with one object.
"""

import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from kiro_mcp._version import __version__
from kiro_mcp.errors import InvalidRequest, KiroError, quoted
from kiro_mcp.server import prompts, resources
from kiro_mcp.server.call import Call, Result, client_of
from kiro_mcp.server.owners import MAX_KEYS, Engines
from kiro_mcp.server.tools import declarations

if TYPE_CHECKING:
    from kiro_mcp.server.engine import Engine

logger = logging.getLogger(__name__)

INSTRUCTIONS = (
    "Claude through the user's own Kiro subscription. Call ask_claude for a second opinion or a"
    " self-contained task; it sees only what you send and costs the user credits. list_models"
    " names the models. If a tool answers auth_required, call login and tell the user what it says."
)

ICON = Path(__file__).with_name("icon.png")
"""A speech bubble, 64 by 64."""

_STATIC: tuple[CacheableMethod, ...] = (
    "tools/list",
    "server/discover",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
)
"""The methods whose results change only with the package's version."""

DEPTH_META_KEY = "kiro-mcp/depth"
"""In `_meta`: how deep the call is nested in other calls of `ask_claude`.

A caller that starts its own server sets KIRO_MCP_DEPTH instead.
"""

MAX_DEPTH = 3

MAX_PASSED_ARGUMENTS = 200
"""More than the arguments that a tool knows and the unknown ones that it ignores."""

_STATIC_TTL_MS = 60 * 60 * 1000


Context = ServerRequestContext[Engines]
Listed = TypeVar("Listed")


class KiroServer(Server[Engines]):
    """Sends its icon only with `initialize` and `server/discover`.

    MCP 2026-07-28 adds the server's description to every result. The icon would make it long.
    """

    arrivals: dict[str, float]
    """The arrival times of requests that came before the server was loaded, by id."""

    @property
    def server_info_stamp(self) -> dict[str, Any]:
        """Name, title and version."""
        stamp = super().server_info_stamp
        del stamp["icons"]
        return stamp

    async def discover(
        self, context: Context, params: types.RequestParams | None
    ) -> types.DiscoverResult:
        """Describe the server, with its icon."""
        whole = self.server_info.model_dump(by_alias=True, mode="json", exclude_none=True)
        return types.DiscoverResult(
            supported_versions=list(MODERN_PROTOCOL_VERSIONS),
            capabilities=self.get_capabilities(protocol_version=context.protocol_version),
            instructions=self.instructions,
            _meta={types.SERVER_INFO_META_KEY: whole},
        )


def build_server(make_engine: Callable[[], "Engine"], *, max_keys: int = MAX_KEYS) -> KiroServer:
    """Build the server. Only the first call that needs the engine calls `make_engine`.

    Args:
        make_engine: Returns the engine.
        max_keys: How many callers' own API keys may be in use at once.
    """

    @asynccontextmanager
    async def lifespan(_: Server[Engines]) -> AsyncGenerator[Engines]:
        async with anyio.create_task_group() as tasks:
            engines = Engines(make_engine, tasks, max_keys=max_keys, arrivals=server.arrivals)
            try:
                yield engines
            finally:
                await engines.aclose()
                tasks.cancel_scope.cancel()

    # A data URL, so that no client has to fetch it. Every client that shows icons can read PNG.
    icon = f"data:image/png;base64,{b64encode(ICON.read_bytes()).decode()}"
    hint = CacheHint(ttl_ms=_STATIC_TTL_MS, scope="public")
    server = KiroServer(
        "kiro-mcp",
        version=__version__,
        title="Claude through Kiro",
        instructions=INSTRUCTIONS,
        icons=[types.Icon(src=icon, mime_type="image/png", sizes=["64x64"])],
        lifespan=lifespan,
        cache_hints=dict.fromkeys(_STATIC, hint),
        on_list_tools=_always(lambda: types.ListToolsResult(tools=declarations())),
        on_call_tool=_call_tool,
        on_list_resources=_always(
            lambda: types.ListResourcesResult(resources=list(resources.LISTED))
        ),
        on_list_resource_templates=_always(
            lambda: types.ListResourceTemplatesResult(resource_templates=list(resources.TEMPLATES))
        ),
        on_read_resource=_read_resource,
        on_list_prompts=_always(lambda: types.ListPromptsResult(prompts=list(prompts.LISTED))),
        on_get_prompt=prompts.get_prompt,
        on_completion=_complete,
    )
    server.arrivals = {}
    server.add_request_handler("server/discover", types.RequestParams, server.discover)
    # This refuses every `requestState`: we never send one, because the state of a login is known to
    # this process.
    seal = RequestStateSecurity.ephemeral()
    server.middleware.append(_cut_arguments)
    server.middleware.append(_note_cancellation)
    server.middleware.append(RequestStateBoundary(seal, default_audience=server.name))
    return server


def _always(
    build: Callable[[], Listed],
) -> Callable[[Context, types.PaginatedRequestParams | None], Awaitable[Listed]]:
    """Return a handler that gives every client the same list, in one page."""

    async def handle(context: Context, params: types.PaginatedRequestParams | None) -> Listed:
        return build()

    return handle


async def _call_tool(context: Context, params: types.CallToolRequestParams) -> Result:
    arrivals = context.lifespan_context.arrivals
    began_at = arrivals.pop(str(context.request_id), anyio.current_time())
    # The tools import HTTP, SQLite and sign-in: a quarter of the start, which does not need them.
    from kiro_mcp.server.ask import ask_claude
    from kiro_mcp.server.list_models import list_models
    from kiro_mcp.server.login import login
    from kiro_mcp.server.results import defect, failure

    tools = {"ask_claude": ask_claude, "list_models": list_models, "login": login}
    tool = tools.get(params.name)
    if tool is None:
        raise MCPError(
            code=types.INVALID_PARAMS,
            message=f"Unknown tool {quoted(params.name)}. The tools are {', '.join(tools)}.",
        )
    try:
        async with context.lifespan_context.engine_for(context.request) as engine:
            if tool is ask_claude:
                # Stop an agent that asks Claude, which asks an agent, which asks Claude.
                given = (context.meta or {}).get(DEPTH_META_KEY, 0)
                depth = max(engine.settings.depth, given if isinstance(given, int) else 0)
                if depth >= MAX_DEPTH:
                    raise InvalidRequest(
                        f"This call is nested {depth} deep in calls of ask_claude; {MAX_DEPTH} is"
                        " the limit.",
                        next_step="Answer without asking again.",
                    )
            call = Call.of(context, params, began_at=began_at)
            return await tool(engine, params.arguments or {}, call)
    except KiroError as error:
        return failure(error)
    except Exception:
        logger.exception("%s failed", params.name)
        return defect(params.name)


async def _cut_arguments(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Cut the arguments of a call that has so many that its tool will refuse it.

    The SDK copies the arguments twice, which takes 100 ms for 200,000.
    """
    given = cast("dict[str, Any] | None", (ctx.params or {}).get("arguments"))
    if isinstance(given, dict) and len(given) > MAX_PASSED_ARGUMENTS:
        passed = dict(islice(given.items(), MAX_PASSED_ARGUMENTS))
        ctx = replace(ctx, params={**(ctx.params or {}), "arguments": passed})
    return await call_next(ctx)


async def _note_cancellation(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Tell the jobs why a client cancels a call, because the SDK does not tell the call."""
    if ctx.method == "notifications/cancelled":
        params = ctx.params or {}
        if reason := params.get("reason"):
            with suppress(KiroError):
                async with ctx.lifespan_context.engine_for(ctx.request) as engine:
                    call = (client_of(ctx), str(params.get("requestId")))
                    engine.jobs.note_cancellation(call, reason)
    return await call_next(ctx)


async def _read_resource(
    context: Context, params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    async with _engine(context) as engine:
        return await resources.read_resource(engine, str(params.uri))


async def _complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    async with _engine(context) as engine:
        return prompts.complete(engine, params)


@asynccontextmanager
async def _engine(context: Context) -> AsyncGenerator["Engine"]:
    try:
        async with context.lifespan_context.engine_for(context.request) as engine:
            yield engine
    except KiroError as error:
        raise MCPError(code=types.INVALID_PARAMS, message=str(error)) from error
