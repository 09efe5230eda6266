"""By which names, and from which web pages, the server may be called.

A web page that a user visits can make their browser call this machine, also by a name that its
author points here ("DNS rebinding"). So the names in Host and Origin are checked on every bind
and every path, whether a token is asked for or not.
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")

DEFAULT_PORT: Final = 80
"""Clients leave this port out of Host and Origin."""


def security_for(host: str, port: int, also: Iterable[str] = ()) -> TransportSecuritySettings:
    """Allow this machine's names, the address that is listened on and the names in `also`."""
    bound = [] if _is_any_address(host) else [in_url(host)]
    names = [*LOOPBACK_NAMES, *bound]
    hosts = dict.fromkeys([f"{name}:{port}" for name in names])
    if port == DEFAULT_PORT:
        hosts.update(dict.fromkeys(names))
    for name in also:
        hosts.update(dict.fromkeys([name, f"{name}:{port}"] if _has_no_port(name) else [name]))
    return TransportSecuritySettings(
        allowed_hosts=list(hosts),
        allowed_origins=[f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")],
    )


def in_url(host: str) -> str:
    """Return a host as addresses write it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _has_no_port(name: str) -> bool:
    return ":" not in name.rpartition("]")[2]


def _is_any_address(host: str) -> bool:
    # Browsers take 0.0.0.0 for this machine, so it is no name to be called by.
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class HostGate:
    """ASGI middleware: 421 to a foreign Host, 403 to a foreign Origin."""

    def __init__(self, app: ASGIApp, security: TransportSecuritySettings) -> None:
        self._app = app
        self._security = TransportSecurityMiddleware(security)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on."""
        refusal = await self._security.validate_request(Request(scope))
        if refusal is not None:
            refusal.headers["Connection"] = "close"
        await (refusal or self._app)(scope, receive, send)
