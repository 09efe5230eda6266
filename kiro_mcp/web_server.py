"""A web application on a port, inside the event loop of its caller: for the server, the emulator.

uvicorn's HTTP/1.1 protocol is used without uvicorn's server, which would take over signals and wait
for streams that never end. uvicorn also limits neither the time that a request's header takes nor
the number of open connections, so anybody who can reach the port could hold all of them without
knowing the token. Here a connection is always in one state, and every state but `serving` ends by
itself:

    reading     no request, or a part of one, or a refused request whose body still arrives
    serving     a request is being answered; only a request that passed the gate stays here
    idle        the last request was answered, and the client may send another one

When the server is full, the newest connection takes the room of the one that has been `reading`
for longest, and then of the one that has been `idle` for longest. A connection that is `serving`
is never closed for another one; if all are, the newest gets 503.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, Literal

import anyio
import h11
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

MAX_CONNECTIONS: Final = 900
"""How many connections may be open where the system sets no lower limit."""

MIN_CONNECTIONS: Final = 8

MAX_ACCEPTED_AT_ONCE: Final = 64
"""How many connections asyncio takes before one of them can be counted, and closed."""

OWN_DESCRIPTORS: Final = 48
"""How many files and connections the process needs itself: its log, its store, the service."""

PENDING_CONNECTIONS: Final = 2048
"""How many connections the system holds until they are accepted."""

CLOSING_SECONDS: Final = 0.2
"""How long connections may take to close before they are aborted."""

_REFUSAL: Final = "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: 0\r\n{}\r\n"
_TIMED_OUT: Final = _REFUSAL.format("408 Request Timeout", "").encode()
_FULL: Final = _REFUSAL.format("503 Service Unavailable", "Retry-After: 10\r\n").encode()

_State = Literal["reading", "serving", "idle", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How many connections there may be, and how long each may do nothing."""

    connections: int = MAX_CONNECTIONS
    accepted_at_once: int = MAX_ACCEPTED_AT_ONCE
    header_seconds: float = 10.0
    """From the start of a connection, or the first byte of a later request, to the end of the
    request's header. A refused request has as long to send the rest of its body."""
    body_silence_seconds: float = 60.0
    """How long no byte of a request's body may arrive."""
    keep_alive_seconds: int = 650
    """How long a connection stays open between requests. Longer than clients and load balancers
    keep theirs (Google's: 600 s), so that a request never meets a connection that is being closed.
    """

    @classmethod
    def of_this_process(cls) -> "HttpLimits":
        """Return the limits that leave this process the file descriptors it needs itself."""
        if sys.platform == "win32":
            return cls()
        import resource  # Not on Windows.

        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            return cls()
        at_once = min(MAX_ACCEPTED_AT_ONCE, max(1, descriptors // 8))
        room = descriptors - OWN_DESCRIPTORS - at_once
        return cls(
            connections=max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, room)), accepted_at_once=at_once
        )


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


@asynccontextmanager
async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    limits: HttpLimits | None = None,
    logger: logging.Logger | None = None,
) -> AsyncGenerator[None]:
    """Serve an ASGI application while the block runs. At its end, whatever still runs is cancelled.

    Args:
        app: The application.
        listener: A port that was taken with `listen`.
        limits: How many connections there may be, and for how long; None for the limits that
            suit this process.
        logger: Where faults of the application and of its clients are logged; None for
            uvicorn's logger.
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
    state, room = ServerState(), _Room(limits)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(room, config, state, logger),
        sock=listener,
        backlog=limits.accepted_at_once,  # So many are also accepted at once.
    )
    listener.listen(PENDING_CONNECTIONS)
    try:
        yield
    finally:
        server.close()
        with anyio.CancelScope(shield=True):
            await _end(state)


async def _end(state: ServerState) -> None:
    """Cancel the requests that are running, and close the connections when all is sent."""
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


class _Room:
    """The open connections of one server, in the order in which they would be closed."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self._by_state: dict[_State, dict[_Connection, None]] = {
            "reading": {},
            "idle": {},
            "serving": {},
        }

    def make_room(self) -> bool:
        """Close a connection if the server is full; return whether there is room for another."""
        if sum(map(len, self._by_state.values())) < self.limits.connections:
            return True
        for state in ("reading", "idle"):
            for connection in self._by_state[state]:
                connection.drop()
                return True
        return False

    def move(self, connection: "_Connection", before: _State, after: _State) -> None:
        """Note that a connection has changed its state."""
        if before != "closed":
            self._by_state[before].pop(connection, None)
        if after != "closed":
            self._by_state[after][connection] = None


class _Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with a limit on the time that each state may last."""

    def __init__(
        self, room: _Room, config: Config, state: ServerState, logger: logging.Logger | None
    ) -> None:
        super().__init__(config, state, {})
        self.access_log = False
        self.logger = logger or self.logger
        self._room = room
        self._state: _State = "closed"
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find room for the connection, or refuse it."""
        if not self._room.make_room():
            transport.write(_FULL)
            transport.close()
            return
        super().connection_made(transport)
        self._enter("reading")

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see how far the request has come."""
        if self._state == "closed":  # It was refused; what is on its way still arrives.
            return
        if self._state == "idle":
            self._enter("reading")
        date = (b"date", formatdate(usegmt=True).encode())
        self.server_state.default_headers = [date, *self.config.encoded_headers]
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Go on with the next request, which may have arrived already."""
        super().on_response_complete()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the room to others."""
        self._enter("closed")
        if self.transport:  # It was not refused.
            super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection at once, without waiting for its client."""
        self._enter("closed")
        self.transport.abort()

    def _update(self) -> None:
        """Enter the state that the connection is in by now."""
        if self._state == "closed":
            return
        has_bytes = self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]
        if self.transport.is_closing():  # The rest of its answer may still be on its way.
            self._enter("reading")
        elif self.cycle and not self.cycle.response_complete:
            self._enter("serving")  # Also with each part of a body: its time runs from the last.
        elif self.cycle and not has_bytes:
            self._enter("idle")
        elif self._state != "reading":
            self._enter("reading")

    def _enter(self, state: _State) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._room.move(self, self._state, state)
        self._state = state
        limits = self._room.limits
        if state == "reading":
            self._timer = self.loop.call_later(limits.header_seconds, self._time_out)
        elif state == "serving" and self.conn.their_state is h11.SEND_BODY:
            self._timer = self.loop.call_later(limits.body_silence_seconds, self._time_out)

    def _time_out(self) -> None:
        if self._state == "serving" and self.flow.read_paused:
            self._enter("serving")  # We are not reading, so the client is not to blame.
        elif self.transport.is_closing():
            self.transport.abort()  # Its client does not read the answer.
        else:
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
                self.transport.write(_TIMED_OUT)
            self.transport.close()
            self._enter("reading")
