"""MCP over HTTP: Streamable HTTP at `/mcp`, or the older SSE at `/sse`. It ends fast and cleanly.

A request passes these layers:

    connection    limits their number and idle time (`kiro_mcp.web_server`)
    Serving       adds the engines; knows the calls and the responses, and ends them with the server
    HttpGate      checks Host, Origin, token and memory (`http_gate`)
    routes        `/` and `/health`; other applications, such as an API under `/v1`; and MCP:
    McpSessions   ends the least recently used session when there are too many
    the SDK       limits the body, keeps sessions, serves every revision at one address

Another application gets the engine for a request, the server's or that of the request's own key,
from `request.state.engines.engine_for(request)`. It answers inside
`request.state.calls.running()`, whose scope is cancelled when the server ends.

A client of MCP 2026-07-28 cancels a call by closing its connection. In older revisions a lost
connection is not a cancellation. Such a call goes on until it is cancelled, its session is deleted
or it times out. Its session is dropped after SESSION_IDLE_SECONDS without a request. On SSE the
connection is the session; its end cancels the calls.

The server ends within half a second, in steps:

1. It refuses new requests, answers running calls with an error, and closes the engines.
2. It completes the responses that are still open, such as the streams of sessions.

Then the process may exit at once: ending the tasks of hundreds of sessions would take longer. A
program that continues leaves the block of `serving`, which does the last step:

3. The connections are closed, so that the SDK ends its streams. Requests that do not notice it are
   cancelled.
"""

import asyncio
import secrets
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import anyio
import h11
import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kiro_mcp.server.http_gate import (
    BODY_WAIT_SECONDS,
    PUBLIC_PATHS,
    AllowedNames,
    HttpGate,
    Token,
    refuse,
)
from kiro_mcp.server.owners import KEY_HEADER, Engines, owner_of
from kiro_mcp.web_server import HttpLimits, serve

SESSION_IDLE_SECONDS: Final = 30 * 60
"""A session without requests for this time is dropped; its client starts another."""

MAX_SESSIONS: Final = 1000
"""How many sessions may exist at once. A new one replaces the least recently used one."""

STREAMABLE_PATH: Final = "/mcp"
SSE_PATH: Final = "/sse"
SSE_MESSAGES_PATH: Final = "/messages/"

_ANSWERING_SECONDS: Final = 0.1
"""How long sending the errors of ended calls may take."""

_COMPLETING_SECONDS: Final = 0.05
"""How long the end of a response waits for a client that does not read."""

_SESSION: Final = "mcp-session-id"

_UNCHECKED: Final = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""The SDK need not check Host and Origin: `HttpGate` does so for every path."""

Transport = Literal["http", "sse"]


@asynccontextmanager
async def serving(
    server: Server[Engines],
    listener: socket.socket,
    *,
    transport: Transport,
    token: Token,
    names: AllowedNames,
    max_body_bytes: int,
    max_sessions: int = MAX_SESSIONS,
    body_wait_seconds: float = BODY_WAIT_SECONDS,
    mounted: Mapping[str, ASGIApp] | None = None,
    limits: HttpLimits | None = None,
) -> AsyncGenerator["Serving"]:
    """Serve while the block runs, then end the remaining requests.

    Args:
        server: The server. It can be served only once.
        listener: A listening socket, from `kiro_mcp.web_server.listen`.
        transport: `http` for Streamable HTTP, or `sse`.
        token: The token that clients must send.
        names: The host names that they may use.
        max_body_bytes: The largest body of a request.
        max_sessions: How many sessions may exist at once.
        body_wait_seconds: How long a request waits while other large ones use the memory budget.
        mounted: Other applications by path, such as `/v1`, behind the same gate. Each must limit
            the size of its bodies, as the SDK does for MCP.
        limits: The limits on connections; None for limits that suit this process.
    """
    async with AsyncExitStack() as stack:
        engines = await stack.enter_async_context(server.lifespan(server))
        routes: list[BaseRoute] = [Route(path, _health, methods=["GET"]) for path in PUBLIC_PATHS]
        for path, app in (mounted or {}).items():
            routes.append(Mount(path, app))

        if transport == "sse":
            sse = SseServerTransport(
                SSE_MESSAGES_PATH,
                security_settings=_UNCHECKED,
                max_request_body_size=max_body_bytes,
            )
            routes += [
                Route(SSE_PATH, _SseEndpoint(server, sse, engines), methods=["GET"]),
                Mount(SSE_MESSAGES_PATH, sse.handle_post_message),
            ]
        else:

            def entered(_: Server[Engines]) -> nullcontext[Engines]:
                return nullcontext(engines)

            server.lifespan = entered  # The SDK enters it again.
            manager = StreamableHTTPSessionManager(
                server,
                security_settings=_UNCHECKED,
                session_idle_timeout=SESSION_IDLE_SECONDS,
                max_request_body_size=max_body_bytes,
                max_sessions=max_sessions,
            )
            await stack.enter_async_context(manager.run())
            routes.append(Route(STREAMABLE_PATH, McpSessions(manager.asgi_app, max_sessions)))

        gate = HttpGate(
            Starlette(routes=routes),
            token=token,
            names=names,
            max_body_bytes=max_body_bytes,
            body_wait_seconds=body_wait_seconds,
        )
        served = Serving(gate, engines)
        server.middleware.append(served.pass_on)
        disconnect = await stack.enter_async_context(serve(served, listener, limits=limits))
        try:
            yield served
        finally:
            await served.end()
            await disconnect()


async def _health(request: Request) -> JSONResponse:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # No token is needed here, so the connection is closed: nobody can occupy it.
    return JSONResponse({"status": "ok", "time": now}, headers={"Connection": "close"})


# --- sessions -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Session:
    user: Any
    requests: int = 0
    """The number of running requests, including open streams."""


class McpSessions:
    """ASGI middleware: ends the least recently used session when there are too many.

    The SDK would answer 503 then, but most clients never end a session.
    """

    def __init__(self, app: ASGIApp, max_sessions: int) -> None:
        self._app = app
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note which session a request uses, opens or ends."""
        headers = Headers(scope=scope)
        given, version = headers.get(_SESSION, ""), headers.get("mcp-protocol-version")
        if session := self._sessions.get(given):
            session.requests += 1
            self._sessions.move_to_end(given)
        elif (
            not given
            and scope["method"] == "POST"
            and (version is None or version in HANDSHAKE_PROTOCOL_VERSIONS)
        ):
            await self._make_room(scope)

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                opened = Headers(raw=message["headers"]).get(_SESSION, "")
                if opened and not given and message["status"] < 400:
                    self._sessions[opened] = _Session(scope.get("user"))
                elif message["status"] == 404 or scope["method"] == "DELETE":
                    self._sessions.pop(given, None)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if session:
                session.requests -= 1

    async def _make_room(self, scope: Scope) -> None:
        """End unused sessions until there is room, each with a DELETE as a client would send it."""
        while len(self._sessions) >= self._max_sessions:
            unused = (name for name, session in self._sessions.items() if not session.requests)
            name = next(unused, None)
            if name is None:
                return
            user = self._sessions.pop(name).user
            host = Headers(scope=scope).get("host", "")
            ending: Scope = {
                **scope,
                "method": "DELETE",
                "headers": [(b"host", host.encode()), (_SESSION.encode(), name.encode())],
                "user": user,
            }
            await self._app(ending, _receive_nothing, _send_nowhere)


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send_nowhere(message: Message) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _SseEndpoint:
    """Serves an SSE connection, which is a session."""

    server: Server[Engines]
    transport: SseServerTransport
    engines: Engines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.transport.connect_sse(scope, receive, send) as streams:
            await serve_dual_era_loop(self.server, *streams, lifespan_state=self.engines)


# --- the end --------------------------------------------------------------------------------


class Serving:
    """A server while it is served over HTTP. Ends its running calls and its open responses.

    If the SDK is cancelled during a call, it waits a second for a reader of the answer that no
    longer exists. So the calls are ended first, while their answers can still be sent.
    """

    def __init__(self, app: ASGIApp, engines: Engines) -> None:
        self._app = app
        self._engines = engines
        self._user_secret = secrets.token_bytes(32)
        self._calls: set[anyio.CancelScope] = set()
        self._responses: set[_Response] = set()
        self._is_ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request until it ends or the server ends.

        A request with its own API key gets a user, because the SDK lets only the user who opened a
        session use it.
        """
        own = {"engines": self._engines, "calls": self}
        scope = {**scope, "state": {**scope["state"], **own}}
        if keys := Headers(scope=scope).getlist(KEY_HEADER):
            user = owner_of("\n".join(keys), self._user_secret)
            scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=user, scopes=[]))
        response = _Response(scope, send)
        if not self._is_ending:
            self._responses.add(response)
            try:
                with suppress(asyncio.CancelledError):  # It did not notice the end of the server.
                    await self._app(scope, receive, response.send)
            finally:
                self._responses.discard(response)
                response.is_over.set()
        if self._is_ending:
            await response.complete()

    async def pass_on(
        self, ctx: ServerRequestContext[Engines], call_next: CallNext
    ) -> HandlerResult:
        """Pass an MCP message on. If the server ends meanwhile, answer with an error."""
        with self.running():
            return await call_next(ctx)
        # Reached only if `end` has cancelled the scope.
        raise MCPError(code=types.INTERNAL_ERROR, message="The server is ending.")

    @contextmanager
    def running(self) -> Generator[anyio.CancelScope]:
        """Treat the block as a call: its scope is cancelled if the server ends."""
        with anyio.CancelScope() as call:
            self._calls.add(call)
            try:
                yield call
            finally:
                self._calls.discard(call)

    async def end(self) -> None:
        """End all calls, complete all responses, close the engines. Then the process may exit."""
        self._is_ending = True  # New requests get 503.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._engines.aclose)
                if self._calls:
                    for call in self._calls:
                        call.cancel()
                    with anyio.move_on_after(_ANSWERING_SECONDS):
                        for response in tuple(self._responses):
                            await response.is_over.wait()
                for response in self._responses:
                    tasks.start_soon(response.complete)


class _Response:
    """The response to one request: how far it is, and a way to complete it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.is_over = anyio.Event()
        self._scope = scope
        self._send = send
        self._is_begun = self._is_complete = False

    async def send(self, message: Message) -> None:
        if self._is_complete:
            return  # The server is ending, and has completed the response.
        self._is_begun = True
        self._is_complete = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    async def complete(self) -> None:
        """Complete the response, if the client still reads."""
        # A response cannot be completed if it declared more bytes than were sent.
        too_short = suppress(h11.LocalProtocolError)
        with anyio.move_on_after(_COMPLETING_SECONDS, shield=True), too_short:
            if not self._is_begun:
                refusal = refuse(self._scope["path"], 503, "The server is ending.")
                await refusal(self._scope, _receive_nothing, self.send)
            elif not self._is_complete:
                await self.send({"type": "http.response.body", "body": b"", "more_body": False})
