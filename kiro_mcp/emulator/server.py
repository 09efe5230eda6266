"""The emulator on a loopback port, inside the event loop of its caller.

It uses uvicorn's HTTP/1.1 protocol without uvicorn's server: no signal handlers, no log, and an
end that waits for nobody.
"""

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kiro_mcp.emulator.app import build_app
from kiro_mcp.emulator.state import EmulatorState

STOP_SECONDS: Final = 0.4
"""The longest that stopping takes; connections are aborted, so it is usually instant."""

_SILENT: Final = logging.getLogger("kiro_mcp.emulator.http")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # a cut connection is what was asked for, not a fault to log


class _Connection(H11Protocol):
    """uvicorn's protocol, silent."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _SILENT
        self.access_log = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEmulator:
    """An emulator that serves."""

    url: str
    """Such as `http://127.0.0.1:43210`, without a slash at the end."""
    state: EmulatorState


@asynccontextmanager
async def running(
    state: EmulatorState | None = None, *, port: int = 0, host: str = "127.0.0.1"
) -> AsyncGenerator[RunningEmulator]:
    """Serve the emulator while the block runs; port 0 takes a free one.

    Raises:
        ValueError: The host is not an IPv4 loopback address.
        OSError: The port is taken.
    """
    state = state or EmulatorState()
    config = Config(build_app(state), interface="asgi3", lifespan="off", ws="none", log_config=None)
    config.proxy_headers = False
    config.load()
    server_state = ServerState()
    listener = _bind(host, port)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(config, server_state, {}), sock=listener
    )
    try:
        yield RunningEmulator(url=_url_of(listener), state=state)
    finally:
        server.close()
        with anyio.move_on_after(STOP_SECONDS, shield=True):
            await _end(server_state)


def _bind(host: str, port: int) -> socket.socket:
    host = "127.0.0.1" if host == "localhost" else host
    if not _is_loopback(host):
        raise ValueError(f"The emulator serves IPv4 loopback addresses only, not {host!r}.")
    # The protocol is named since asyncio turns Nagle's algorithm off only where it is: without
    # that, each answer that is written in pieces waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On Windows this would let two servers share a port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


async def _end(server_state: ServerState) -> None:
    for task in tuple(server_state.tasks):
        task.cancel()
    if server_state.tasks:
        await asyncio.wait(server_state.tasks)
    for connection in tuple(server_state.connections):
        connection.transport.abort()
    while server_state.connections:
        await checkpoint()
