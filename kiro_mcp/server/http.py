"""MCP over HTTP: Streamable HTTP at `/mcp`, or the older SSE at `/sse`, and a prompt, clean end.

A request passes, from the outside in:

    connection      how many there are, and how long each may do nothing (`kiro_mcp.web_server`)
    OpenRequests    knows what is running, to end it with the server
    HttpGate        Host, Origin, token, memory (`http_gate`)
    RequestContext  the engines, and the user that the request's own API key stands for
    routes          `/` and `/health`; further applications, such as an API under `/v1`; and MCP:
    McpSessions     ends the session that was unused for longest when there are too many
    the SDK         limits the body, keeps sessions, serves every revision at one address

A further application gets the engine of a request, which is the server's or that of the request's
own key, by `request.state.engines.engine_for(request)`. It answers inside of
`request.state.calls.running()`, whose scope is cancelled when the server ends.

A client of MCP 2026-07-28 cancels a call by hanging up. An older one does not: its revision says
that a lost connection is not a cancellation. Such a call goes on until it is cancelled, its session
is deleted, or the timeouts of the settings end it; and its session is dropped after
SESSION_IDLE_SECONDS without a request. On SSE the connection is the session and ends its calls.

The server ends within half a second, in steps:

1. new requests are refused, running calls are answered with an error, the engines close;
2. what is still open then, such as the streams of sessions, is completed.

Now the process may exit. Ending the tasks of hundreds of sessions, too, would take longer than
all of this. A program that goes on does so when it leaves the block:

3. what has not ended by now is ended as if its client had hung up, then cancelled; the
   connections are closed.
"""

import hmac
import secrets
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import anyio
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

from kiro_mcp.server.app import Engines
from kiro_mcp.server.http_gate import (
    BODY_WAIT_SECONDS,
    PUBLIC_PATHS,
    AllowedNames,
    HttpGate,
    Token,
    refuse,
)
from kiro_mcp.server.owners import KEY_HEADER
from kiro_mcp.web_server import HttpLimits, serve

SESSION_IDLE_SECONDS: Final = 30 * 60
"""When a session without requests is dropped; its client starts another."""

MAX_SESSIONS: Final = 1000
"""How many sessions there are at once; the one unused for longest makes room for another."""

EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The shell's convention: 128 and the number of the signal."""

STREAMABLE_PATH: Final = "/mcp"
SSE_PATH: Final = "/sse"
SSE_MESSAGES_PATH: Final = "/messages/"

_ANSWERING_SECONDS: Final = 0.1
"""How long the answers to calls that were ended may take to go out."""

_NOTICING_SECONDS: Final = 0.1
"""How long a request may take to notice that its client is gone, before it is cancelled."""

_LAST_WORD_SECONDS: Final = 0.05
"""How long a client that reads nothing may hold up the end of its answer."""

_SESSION: Final = "mcp-session-id"

_UNCHECKED: Final = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""The SDK does not check Host and Origin again: `HttpGate` has done so for every path."""

Transport = Literal["http", "sse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """How a server is served over HTTP."""

    transport: Transport = "http"
    token: Token
    names: AllowedNames
    max_body_bytes: int
    max_sessions: int = MAX_SESSIONS
    body_wait_seconds: float = BODY_WAIT_SECONDS
    """How long a request waits while other large ones take all the memory there is for them."""
    mounted: Mapping[str, ASGIApp] = field(default_factory=dict[str, ASGIApp])
    """Further applications by path, such as `/v1`, behind the same gate. Each limits the size of
    its bodies itself, as the SDK does for MCP."""


class Serving:
    """A server that is being served over HTTP."""

    def __init__(self, calls: "RunningCalls", requests: "OpenRequests", engines: Engines) -> None:
        self._calls = calls
        self._requests = requests
        self._engines = engines

    async def end(self) -> None:
        """Answer and complete all that is open, close the engines: the process may then exit."""
        with anyio.CancelScope(shield=True):
            self._requests.refuse_new_ones()
            has_calls = self._calls.end()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._engines.aclose)
                if has_calls:
                    await self._requests.let_end(_ANSWERING_SECONDS)
                await self._requests.complete()


@asynccontextmanager
async def serving(
    server: Server[Engines],
    options: WebOptions,
    listener: socket.socket,
    limits: HttpLimits | None = None,
) -> AsyncGenerator[Serving]:
    """Serve while the block runs; what is being served when it ends is cancelled.

    Args:
        server: The server, which is served only once and nowhere else.
        options: How it is served.
        listener: A port that was taken with `kiro_mcp.web_server.listen`.
        limits: How many connections there may be, and for how long; None for the limits that
            suit this process.
    """
    calls = RunningCalls()
    server.middleware.append(calls)
    async with AsyncExitStack() as stack:
        engines = await stack.enter_async_context(server.lifespan(server))
        routes: list[BaseRoute] = [Route(path, _health, methods=["GET"]) for path in PUBLIC_PATHS]
        for path, app in options.mounted.items():
            routes.append(Mount(path, app))

        if options.transport == "sse":
            transport = SseServerTransport(
                SSE_MESSAGES_PATH,
                security_settings=_UNCHECKED,
                max_request_body_size=options.max_body_bytes,
            )
            routes += [
                Route(SSE_PATH, _SseEndpoint(server, transport, engines), methods=["GET"]),
                Mount(SSE_MESSAGES_PATH, transport.handle_post_message),
            ]
        else:
            server.lifespan = _entered(engines)  # For the SDK, which enters it once more.
            manager = StreamableHTTPSessionManager(
                server,
                security_settings=_UNCHECKED,
                session_idle_timeout=SESSION_IDLE_SECONDS,
                max_request_body_size=options.max_body_bytes,
                max_sessions=options.max_sessions,
            )
            await stack.enter_async_context(manager.run())
            routes.append(
                Route(STREAMABLE_PATH, McpSessions(manager.asgi_app, options.max_sessions))
            )

        gate = HttpGate(
            RequestContext(Starlette(routes=routes), engines, calls),
            token=options.token,
            names=options.names,
            max_body_bytes=options.max_body_bytes,
            body_wait_seconds=options.body_wait_seconds,
        )
        requests = OpenRequests(gate)
        await stack.enter_async_context(serve(requests, listener, limits=limits))
        try:
            yield Serving(calls, requests, engines)
        finally:
            with anyio.CancelScope(shield=True):
                requests.refuse_new_ones()
                if calls.end():
                    await requests.let_end(_ANSWERING_SECONDS)
                await requests.end()


async def signalled() -> int:
    """Wait for SIGINT or SIGTERM and return the exit code that the process then has."""
    if sys.platform == "win32":
        await anyio.sleep_forever()  # Event loops have no signal handlers there.
    with anyio.open_signal_receiver(*EXIT_CODES) as signals:
        async for number in signals:
            return EXIT_CODES[number]
    raise AssertionError("signals never run out")


def _entered(engines: Engines) -> Callable[[Server[Engines]], nullcontext[Engines]]:
    return lambda _: nullcontext(engines)


async def _health(request: Request) -> JSONResponse:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # Anybody may ask, so nobody keeps a connection for it.
    return JSONResponse({"status": "ok", "time": now}, headers={"Connection": "close"})


# --- sessions -------------------------------------------------------------------------------


class RequestContext:
    """ASGI middleware: tells a request the engines, the calls, and the user of its own API key.

    The SDK lets a session be used only by the user that opened it. A request that brings no key
    of its own has no user.
    """

    def __init__(self, app: ASGIApp, engines: Engines, calls: "RunningCalls") -> None:
        self._app = app
        self._state = {"engines": engines, "calls": calls}
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with all of them."""
        scope = {**scope, "state": {**scope["state"], **self._state}}
        if keys := Headers(scope=scope).getlist(KEY_HEADER):
            user = hmac.digest(self._secret, "\n".join(keys).encode(), "sha256").hex()
            scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=user, scopes=[]))
        await self._app(scope, receive, send)


@dataclass(slots=True)
class _Session:
    user: Any
    requests: int = 0
    """How many are being answered; an open stream is one."""


class McpSessions:
    """ASGI middleware: ends the session that was unused for longest when there are too many.

    The SDK keeps the sessions, and answers 503 when there are too many, although most clients never
    end a session.
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
        """End unused sessions, by the request that a client would send, until there is room."""
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


class _SseEndpoint:
    """An SSE connection, which is a session of its own."""

    def __init__(
        self, server: Server[Engines], transport: SseServerTransport, engines: Engines
    ) -> None:
        self._server = server
        self._transport = transport
        self._engines = engines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._transport.connect_sse(scope, receive, send) as streams:
            await serve_dual_era_loop(self._server, *streams, lifespan_state=self._engines)


# --- the end --------------------------------------------------------------------------------


class RunningCalls:
    """Knows the calls that are running, and ends them all at once. It is a server middleware.

    The SDK, cancelled in the middle of a call, waits a second for an answer to be read that
    nothing reads any more. So calls are ended first, while their answers can still go out.
    """

    def __init__(self) -> None:
        self._running: set[anyio.CancelScope] = set()

    async def __call__(
        self, ctx: ServerRequestContext[Engines], call_next: CallNext
    ) -> HandlerResult:
        """Pass a message on, and answer for it if the server ends meanwhile."""
        with self.running():
            return await call_next(ctx)
        raise MCPError(code=types.INTERNAL_ERROR, message="The server is ending.")

    @contextmanager
    def running(self) -> Generator[anyio.CancelScope]:
        """Count the block as a call; its scope is cancelled if the server ends meanwhile."""
        with anyio.CancelScope() as call:
            self._running.add(call)
            try:
                yield call
            finally:
                self._running.discard(call)

    def end(self) -> bool:
        """End the calls that are running; return whether there are any."""
        for running in self._running:
            running.cancel()
        return bool(self._running)


class OpenRequests:
    """ASGI middleware: knows the requests that are running, and ends them all at once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: set[_Request] = set()
        self._is_ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to its end, or to the server's."""
        request = _Request(scope, receive, send)
        if not self._is_ending:
            self._running.add(request)
            try:
                with request.cancel_scope:
                    await self._app(scope, request.receive, request.send)
            finally:
                self._running.discard(request)
                request.is_over.set()
        if self._is_ending:
            await request.complete()

    def refuse_new_ones(self) -> None:
        """Answer 503 from now on."""
        self._is_ending = True

    async def let_end(self, seconds: float) -> None:
        """Give running requests a moment to end by themselves."""
        with anyio.move_on_after(seconds):
            for request in tuple(self._running):
                await request.is_over.wait()

    async def complete(self) -> None:
        """Complete the answers of running requests, as far as their clients read."""
        async with anyio.create_task_group() as tasks:
            for request in tuple(self._running):
                tasks.start_soon(request.complete)

    async def end(self) -> None:
        """End running requests."""
        for request in self._running:
            request.end()
        for request in tuple(self._running):
            await request.is_over.wait()


class _Request:
    """One request: how far its answer has come, and ways to end it.

    It ends as if the client had hung up, for which the SDK closes its streams. A request that does
    not notice in time, or is still being read, is cancelled.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.cancel_scope = anyio.CancelScope()
        self.is_over = anyio.Event()
        self._scope = scope
        self._receive = receive
        self._send = send
        self._waits: set[anyio.CancelScope] = set()
        self._is_ended = False
        self._is_read = False
        self._is_answered = self._is_complete = False

    def end(self) -> None:
        self._is_ended = True
        noticing = _NOTICING_SECONDS if self._is_read else 0
        self.cancel_scope.deadline = anyio.current_time() + noticing
        for wait in self._waits:
            wait.cancel()

    async def receive(self) -> Message:
        with anyio.CancelScope() as wait:
            self._waits.add(wait)
            try:
                if not self._is_ended:
                    message = await self._receive()
                    self._is_read = not message.get("more_body")
                    return message
            finally:
                self._waits.discard(wait)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self._is_answered = True
        self._is_complete = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    async def complete(self) -> None:
        """Make the answer a complete one, if the client still reads."""
        with anyio.move_on_after(_LAST_WORD_SECONDS, shield=True):
            if not self._is_answered:
                refusal = refuse(self._scope["path"], 503, "The server is ending.")
                await refusal(self._scope, self._receive, self._send)
            elif not self._is_complete:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
