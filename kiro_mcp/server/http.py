"""MCP as a web application: Streamable HTTP at `/mcp`, or the older SSE at `/sse`.

A request passes, from the outside in:

    HostGate       Host and Origin
    TokenGate      the bearer
    BodyBudget     memory for its body
    SessionOwners, RoomForSessions    whose session it may use, and which one ends
    routes         `/` and `/health`; the SDK's transport, which limits bodies, keeps sessions and
                 serves every revision on one endpoint

A client of MCP 2026-07-28 cancels a call by hanging up. An older one does not: its revision says
that a lost connection is no cancellation. Such a call goes on until it is cancelled, its session
is deleted, or the timeouts of the settings end it; and its session is dropped after
SESSION_IDLE_SECONDS without a request. On SSE the connection is the session and ends its calls.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import anyio
import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.server.sse import SseServerTransport
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kiro_mcp.server.app import Deferred
from kiro_mcp.server.http_auth import Token, TokenGate
from kiro_mcp.server.http_bodies import WAIT_SECONDS, BodyBudget
from kiro_mcp.server.http_hosts import AllowedNames, HostGate
from kiro_mcp.server.http_sessions import RoomForSessions, SessionOwners

SESSION_IDLE_SECONDS: Final = 30 * 60
"""When a session that nothing is asked of is dropped; its client starts another."""

MAX_SESSIONS: Final = 1000
"""How many sessions there are at once; the one unused for longest makes room for another."""

STREAMABLE_PATH: Final = "/mcp"
SSE_PATH: Final = "/sse"
SSE_MESSAGES_PATH: Final = "/messages/"

_UNCHECKED: Final = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""The SDK does not check Host and Origin again: `HostGate` has done so for every path."""

Transport = Literal["http", "sse"]
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """What a web application of the server is made with."""

    transport: Transport = "http"
    token: Token
    names: AllowedNames
    max_body_bytes: int
    max_sessions: int = MAX_SESSIONS
    body_wait_seconds: float = WAIT_SECONDS
    """How long a request waits while other large ones take all the memory there is for them."""


class RunningCalls:
    """Server middleware: knows the calls that are running, and ends them all at once.

    The SDK, cancelled in the middle of a call, waits a second for an answer to be read that
    nothing reads any more. So calls are ended first, while their answers can still go out.
    """

    def __init__(self) -> None:
        self._running: set[anyio.CancelScope] = set()
        self._engine: Deferred | None = None

    async def __call__(
        self, ctx: ServerRequestContext[Deferred], call_next: CallNext
    ) -> HandlerResult:
        """Pass a message on, and answer for it if the server ends meanwhile."""
        self._engine = ctx.lifespan_context
        with anyio.CancelScope() as running:
            self._running.add(running)
            try:
                return await call_next(ctx)
            finally:
                self._running.discard(running)
        raise MCPError(code=types.INTERNAL_ERROR, message="The server is ending.")

    def end(self) -> bool:
        """End the calls that are running; return whether there are any."""
        for running in self._running:
            running.cancel()
        return bool(self._running)

    async def close_engine(self) -> None:
        """Keep what had come of answers, and close the engine, if a call ever needed one."""
        if self._engine is not None:
            await self._engine.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebApp:
    """A web application and what it takes to serve it."""

    app: ASGIApp
    lifespan: Lifespan
    """The block that it may be used in, once."""
    calls: RunningCalls


def build_web_app(server: Server[Deferred], options: WebOptions) -> WebApp:
    """Build the application that serves a server, which then serves nothing else."""
    build = {"http": _streamable, "sse": _sse}[options.transport]
    routes, lifespan = build(server, options)
    calls = RunningCalls()
    server.middleware.append(calls)
    admitted = BodyBudget(
        SessionOwners(RoomForSessions(routes, options.max_sessions)),
        options.max_body_bytes,
        wait_seconds=options.body_wait_seconds,
    )
    app = HostGate(TokenGate(admitted, options.token), options.names)
    return WebApp(app=app, lifespan=lifespan, calls=calls)


def _streamable(server: Server[Deferred], options: WebOptions) -> tuple[ASGIApp, Lifespan]:
    app = server.streamable_http_app(
        streamable_http_path=STREAMABLE_PATH,
        transport_security=_UNCHECKED,
        max_request_body_size=options.max_body_bytes,
        session_idle_timeout=SESSION_IDLE_SECONDS,
        max_sessions=options.max_sessions,
        custom_starlette_routes=_public_routes(),
    )
    return app, server.session_manager.run


def _sse(server: Server[Deferred], options: WebOptions) -> tuple[ASGIApp, Lifespan]:
    connections = _SseConnections(server, options)
    routes = [
        *_public_routes(),
        Route(SSE_PATH, connections, methods=["GET"]),
        Mount(SSE_MESSAGES_PATH, connections.transport.handle_post_message),
    ]
    return Starlette(routes=routes), connections.lifespan


class _SseConnections:
    """The SSE connections; they share what the server works with, as HTTP sessions do."""

    def __init__(self, server: Server[Deferred], options: WebOptions) -> None:
        self.transport = SseServerTransport(
            SSE_MESSAGES_PATH,
            security_settings=_UNCHECKED,
            max_request_body_size=options.max_body_bytes,
        )
        self._server = server
        self._shared: Deferred | None = None

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        async with self._server.lifespan(self._server) as self._shared:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._shared, "served outside of the lifespan"
        async with self.transport.connect_sse(scope, receive, send) as streams:
            await serve_dual_era_loop(self._server, *streams, lifespan_state=self._shared)


def _public_routes() -> list[Route]:
    return [Route(path, _health, methods=["GET"]) for path in ("/", "/health")]


async def _health(request: Request) -> JSONResponse:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # Anybody may ask, so nobody keeps a connection for it.
    return JSONResponse({"status": "ok", "time": now}, headers={"Connection": "close"})
