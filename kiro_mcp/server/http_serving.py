"""A web application on a port, and an end to it that is prompt and clean.

uvicorn by itself waits for streams that never end, or tears the application's tasks apart and
logs a traceback for each. Here the end has steps, within half a second:

1. new requests are refused, running calls are answered with an error, the engine closes;
2. what is still open then, such as the streams of sessions, is completed.

Now the process may exit. Ending the tasks of hundreds of sessions, too, would take longer than
all of this. A program that goes on does so when it leaves the block:

3. what has not ended by now is cancelled;
4. uvicorn has nothing left to wait for; the lifespan closes.
"""

import os
import signal
import socket
import sys
from asyncio import Protocol
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, cast

import anyio
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn import Server as Uvicorn

from kiro_mcp.server.http import WebApp
from kiro_mcp.server.http_connections import PENDING_CONNECTIONS, Connections, HttpLimits

ENDING_SECONDS: Final = 0.2
"""How long connections may take to close, so that the server is gone within half a second."""

EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The shell's convention: 128 and the number of the signal."""

_ANSWERING_SECONDS: Final = 0.1
"""How long the answers to calls that were ended may take to go out."""

_NOTICING_SECONDS: Final = 0.1
"""How long a request may take to notice that its client is gone, before it is cancelled."""

_LAST_WORD_SECONDS: Final = 0.05
"""How long a client that reads nothing may hold up the end of its answer."""


def listen(host: str, port: int) -> socket.socket:
    """Take a port; 0 for any free one.

    Raises:
        OSError: The port is taken, or the address is not this machine's.
    """
    # getaddrinfo names the protocol, without which asyncio leaves Nagle's algorithm on: then
    # each answer that is written in pieces would wait 40 ms for an acknowledgement.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # On Windows this would let two servers share a port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class Serving:
    """A web application that is being served."""

    def __init__(self, web_app: WebApp, requests: "OpenRequests") -> None:
        self._web_app = web_app
        self._requests = requests

    async def end(self) -> None:
        """Answer and complete all that is open, and close the engine: the process may then exit."""
        with anyio.CancelScope(shield=True):
            self._requests.refuse_new_ones()
            has_calls = self._web_app.calls.end()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._web_app.calls.close_engine)
                if has_calls:
                    await self._requests.let_end(_ANSWERING_SECONDS)
                await self._requests.complete()


@asynccontextmanager
async def serving(
    web_app: WebApp, listener: socket.socket, limits: HttpLimits | None = None
) -> AsyncGenerator[Serving]:
    """Serve while the block runs; what is being served when it ends is cancelled.

    Args:
        web_app: The application.
        listener: A port that was taken.
        limits: How many connections there may be, and for how long; None for the limits that
            suit this process.
    """
    requests = OpenRequests(web_app.app)
    web = _WebServer(_config(requests, limits or HttpLimits.of_this_process()))
    async with web_app.lifespan(), anyio.create_task_group() as tasks:
        tasks.start_soon(web.run_shielded, listener)
        await web.is_ready.wait()
        listener.listen(PENDING_CONNECTIONS)  # uvicorn gave it the much smaller `backlog`.
        try:
            yield Serving(web_app, requests)
        finally:
            with anyio.CancelScope(shield=True):
                web.should_exit = True
                requests.refuse_new_ones()
                if web_app.calls.end():
                    await requests.let_end(_ANSWERING_SECONDS)
                await requests.end()
                await web.stop()


async def signalled() -> int:
    """Wait for SIGINT or SIGTERM and return the exit code that the process then has."""
    if sys.platform == "win32":
        await anyio.sleep_forever()  # Event loops have no signal handlers there.
    with anyio.open_signal_receiver(*EXIT_CODES) as signals:
        async for number in signals:
            return EXIT_CODES[number]
    raise AssertionError("signals never run out")


def _config(app: ASGIApp, limits: HttpLimits) -> Config:
    return Config(
        app,
        http=cast("type[Protocol]", Connections(limits).protocol),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=limits.accepted_at_once,
        timeout_keep_alive=limits.keep_alive_seconds,
        headers=[("Keep-Alive", f"timeout={limits.keep_alive_seconds}")],
    )


class _WebServer(Uvicorn):
    """uvicorn without its signal handlers, and with an end that waits for nobody."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.is_ready = anyio.Event()
        self._is_over = anyio.Event()
        self._scope = anyio.CancelScope(shield=True)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to whoever runs the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_ready.set()

    async def run_shielded(self, listener: socket.socket) -> None:
        """Serve until `stop`, also while those around are being cancelled."""
        with self._scope:
            await self.serve([listener])
        self._is_over.set()

    async def stop(self) -> None:
        with anyio.move_on_after(ENDING_SECONDS):
            await self._is_over.wait()
        self._scope.cancel()


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
            await request.finish()

    def refuse_new_ones(self) -> None:
        """Answer 503 from now on."""
        self._is_ending = True

    async def let_end(self, seconds: float) -> None:
        """Give running requests a moment to end by themselves."""
        with anyio.move_on_after(seconds):
            await self._all_over()

    async def complete(self) -> None:
        """Complete the answers of running requests, as far as their clients read."""
        with anyio.move_on_after(_LAST_WORD_SECONDS):
            async with anyio.create_task_group() as tasks:
                for request in tuple(self._running):
                    tasks.start_soon(request.finish)

    async def end(self) -> None:
        """End running requests."""
        for request in self._running:
            request.end()
        await self._all_over()

    async def _all_over(self) -> None:
        for request in tuple(self._running):
            await request.is_over.wait()


class _Request:
    """One request as the application sees it, how far it has come, and a way to end it.

    It ends as if the client had hung up, which the application knows how to take; what has not
    noticed in time, or is still reading the request, is cancelled.
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

    async def finish(self) -> None:
        """Make the answer a complete one, if the client still reads."""
        with anyio.move_on_after(_LAST_WORD_SECONDS, shield=True):
            if not self._is_answered:
                refusal = PlainTextResponse("The server is ending.\n", 503)
                await refusal(self._scope, self._receive, self._send)
            elif not self._is_complete:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
