"""Serves a web application on a port, in the caller's event loop: the server or the emulator.

It uses uvicorn's HTTP/1.1 protocol without uvicorn's server, which would take over signals and wait
for streams that never end. uvicorn also limits neither the time for a request's header nor the
number of open connections, so anybody who can reach the port could occupy all connections without
the token. Here a connection is always in one of three states, and each but `serving` has a time
limit:

    reading     no request, or a part of one, or a refused request whose body still arrives
    serving     a request is being answered; only a request that passed the gate stays here
    idle        the last request was answered, and the client may send another one

If the server is full, a new connection replaces the one that has been `reading` for the longest
time, or else the one that has been `idle` for the longest time. A connection that is `serving` is
never closed for another one; if all are, the new connection gets 503.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, Literal

import anyio
import h11
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Scope
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

MAX_CONNECTIONS: Final = 900
"""How many connections may be open, unless the system has a lower limit."""

MIN_CONNECTIONS: Final = 8

MAX_ACCEPTED_AT_ONCE: Final = 64
"""How many connections asyncio accepts before one of them can be counted and closed."""

OWN_DESCRIPTORS: Final = 48
"""The file descriptors that the process needs itself: for its log, its store and the service."""

PENDING_CONNECTIONS: Final = 2048
"""How many connections may wait in the system until they are accepted."""

NOTICING_SECONDS: Final = 0.1
"""How long requests may take to notice that their connections are closed."""

CLOSING_SECONDS: Final = 0.2
"""How long connections may take to close before they are aborted."""

_REFUSAL: Final = "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: 0\r\n{}\r\n"
_TIMED_OUT: Final = _REFUSAL.format("408 Request Timeout", "").encode()
_FULL: Final = _REFUSAL.format("503 Service Unavailable", "Retry-After: 10\r\n").encode()

_DISCONNECTED: Final = "disconnected"
"""Where a request's state has the future that is done when its connection is lost."""
_FLOW: Final = "flow"
"""Where a request's state has the object that pauses and resumes reading."""

_State = Literal["reading", "serving", "idle", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The number of connections, and how long each may be inactive."""

    connections: int = MAX_CONNECTIONS
    accepted_at_once: int = MAX_ACCEPTED_AT_ONCE
    header_seconds: float = 10.0
    """The time from the start of a connection, or from the first byte of a later request, to the
    end of the request's header. Also the time for the rest of a refused request's body."""
    body_silence_seconds: float = 60.0
    """The longest pause between two bytes of a request's body."""
    keep_alive_seconds: int = 650
    """How long a connection stays open between requests. This is longer than clients and load
    balancers keep it open (Google's: 600 s), so that no request arrives while it is being closed.
    """

    @classmethod
    def of_this_process(cls) -> "HttpLimits":
        """Return limits that leave this process the file descriptors that it needs itself."""
        if sys.platform == "win32":
            return cls()
        import resource  # Not on Windows.

        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            return cls()
        at_once = min(MAX_ACCEPTED_AT_ONCE, max(1, descriptors // 24))
        # A connection that is refused closes two turns of the event loop after it is accepted.
        room = descriptors - OWN_DESCRIPTORS - 3 * at_once
        return cls(
            connections=max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, room)), accepted_at_once=at_once
        )


def listen(host: str, port: int) -> socket.socket:
    """Bind a port; 0 takes any free one.

    Raises:
        OSError: The port is taken, or the address does not belong to this machine.
    """
    # getaddrinfo is told the protocol: otherwise asyncio does not turn off Nagle's algorithm, and
    # each answer that is written in pieces waits 40 ms for an acknowledgement.
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


@asynccontextmanager
async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    limits: HttpLimits | None = None,
    logger: logging.Logger | None = None,
) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Serve an ASGI application while the block runs; at its end, cancel the running requests.

    Yields a function that closes all connections, and waits until the requests have noticed it.

    Args:
        app: The application.
        listener: A socket of `listen`.
        limits: The limits of connections; None for those that suit this process.
        logger: The logger for errors of the application and its clients; None for uvicorn's.
    """
    limits = limits or HttpLimits.of_this_process()
    config = Config(
        app,
        interface="asgi3",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.keep_alive_seconds,
        headers=[("Keep-Alive", f"timeout={limits.keep_alive_seconds}")],
    )
    config.load()
    state = ServerState()
    room: dict[_Connection, None] = {}
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(room, limits, config, state, logger),
        sock=listener,
        backlog=limits.accepted_at_once,  # asyncio also accepts at most this many at once.
    )
    listener.listen(PENDING_CONNECTIONS)

    async def disconnect() -> None:
        for connection in tuple(room):
            connection.disconnect()
        with anyio.CancelScope(shield=True):
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=NOTICING_SECONDS)

    try:
        yield disconnect
    finally:
        server.close()
        with anyio.CancelScope(shield=True):
            await _end(state)


@contextmanager
def on_disconnect(scope: Scope, act: Callable[[], object]) -> Generator[None]:
    """Call a function if the client of a request disconnects during the block, or has done so.

    A task that waits for `http.disconnect` would take a twentieth of the time of a short request.
    """
    flow: FlowControl = scope["state"][_FLOW]
    flow.resume_reading()  # A large body has paused it. A loss is noticed only while reading.
    disconnected: asyncio.Future[None] = scope["state"][_DISCONNECTED]

    def notice(_: asyncio.Future[None]) -> None:
        act()

    disconnected.add_done_callback(notice)
    try:
        yield
    finally:
        disconnected.remove_done_callback(notice)


async def _end(state: ServerState) -> None:
    """Cancel the running requests, and close the connections when everything is sent."""
    for task in tuple(state.tasks):
        task.cancel()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=CLOSING_SECONDS)
    for connection in tuple(state.connections):
        connection.transport.close()
    with anyio.move_on_after(CLOSING_SECONDS):
        while state.connections:
            await checkpoint()
    for connection in tuple(state.connections):
        connection.transport.abort()


class _Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with a time limit for each state.

    `room` has the open connections of the server; those that entered their state first come first.
    """

    def __init__(
        self,
        room: "dict[_Connection, None]",
        limits: HttpLimits,
        config: Config,
        state: ServerState,
        logger: logging.Logger | None,
    ) -> None:
        self._disconnected = asyncio.get_running_loop().create_future()
        super().__init__(config, state, {_DISCONNECTED: self._disconnected})
        self.access_log = False
        self.logger = logger or self.logger
        self._room = room
        self._limits = limits
        self._state: _State = "closed"
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if the server is full."""
        if len(self._room) >= self._limits.connections:
            replaced = [one for one in self._room if one._state == "reading"] or [
                one for one in self._room if one._state == "idle"
            ]
            if not replaced:
                transport.write(_FULL)
                transport.close()
                return
            replaced[0].drop()
        super().connection_made(transport)
        self.app_state[_FLOW] = self.flow
        self._enter("reading")

    def data_received(self, data: bytes) -> None:
        """Read bytes, and update the state."""
        if self._state == "closed":  # It was refused; bytes that were under way still arrive.
            return
        if self._state == "idle":
            self._enter("reading")
        date = (b"date", formatdate(usegmt=True).encode())
        self.server_state.default_headers = [date, *self.config.encoded_headers]
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Continue with the next request, which may have arrived already."""
        super().on_response_complete()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for other connections, and tell the running request."""
        self._enter("closed")
        self._tell_request()
        if self.transport:  # A refused connection has none.
            super().connection_lost(exc)

    def disconnect(self) -> None:
        """Close the connection when everything is sent, but tell the running request at once."""
        self.transport.close()
        self._tell_request()
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()

    def _tell_request(self) -> None:
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    def drop(self) -> None:
        """Close the connection at once, without waiting for its client."""
        self._enter("closed")
        self.transport.abort()

    def _update(self) -> None:
        """Determine the state of the connection and enter it."""
        if self._state == "closed":
            return
        has_bytes = self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]
        if self.transport.is_closing():  # The rest of the answer may still be being sent.
            self._enter("reading")
        elif self.cycle and not self.cycle.response_complete:
            self._enter("serving")  # Also for each part of a body: that restarts the timer.
        elif self.cycle and not has_bytes:
            self._enter("idle")
        elif self._state != "reading":
            self._enter("reading")

    def _enter(self, state: _State) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._state = state
        self._room.pop(self, None)
        if state != "closed":
            self._room[self] = None
        if state == "reading":
            self._timer = self.loop.call_later(self._limits.header_seconds, self._time_out)
        elif state == "serving" and self.conn.their_state is h11.SEND_BODY:
            self._timer = self.loop.call_later(self._limits.body_silence_seconds, self._time_out)

    def _time_out(self) -> None:
        if self._state == "serving" and self.flow.read_paused:
            self._enter("serving")  # We have paused reading, so the client is not to blame.
        elif self.transport.is_closing():
            self.transport.abort()  # The client does not read the answer.
        else:
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
                self.transport.write(_TIMED_OUT)
            self.transport.close()
            self._enter("reading")
