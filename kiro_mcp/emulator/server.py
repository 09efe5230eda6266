"""The emulator on a loopback port, inside the event loop of its caller."""

import ipaddress
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from kiro_mcp.emulator.app import build_app
from kiro_mcp.emulator.state import EmulatorState
from kiro_mcp.web_server import listen, serve

_SILENT: Final = logging.getLogger("kiro_mcp.emulator.http")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # A script may cut a connection. That is no fault to log.


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
    address = "127.0.0.1" if host == "localhost" else host
    if not _is_loopback(address):
        raise ValueError(f"The emulator serves IPv4 loopback addresses only, not {host!r}.")
    state = state or EmulatorState()
    listener = listen(address, port)
    async with serve(build_app(state), listener, logger=_SILENT):
        host, port = listener.getsockname()
        yield RunningEmulator(url=f"http://{host}:{port}", state=state)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
