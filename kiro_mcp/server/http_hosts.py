"""By which names, and from which web pages, the server may be called.

A web page that a user visits can make their browser call this machine, also by a name that its
author points here ("DNS rebinding"). So the names in Host and Origin are checked on every bind
and every path, whether a token is asked for or not.
https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#security-warning

Such a page chooses the name freely, so only exact names are allowed. The port of Host says
nothing about who calls: it differs where a container or a tunnel maps the server's port.
"""

import ipaddress
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kiro_mcp.errors import quoted

logger = logging.getLogger(__name__)

LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""Clients leave these ports out of Host and Origin."""

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]*]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedNames:
    """The names by which the server may be called, in lower case."""

    port: int
    """The port that is listened on."""
    own: frozenset[str]
    """This machine's names and the address that is listened on."""
    others: frozenset[str]
    """Names that the settings allow, with any port."""
    places: frozenset[tuple[str, int]]
    """Names that the settings allow with one port only."""

    def allow_host(self, host: str) -> bool:
        """Whether clients may call the server by this Host."""
        if not (found := _split(host)):
            return False
        name, port = found
        ports = DEFAULT_PORTS.values() if port is None else (port,)
        is_place = any((name, port) in self.places for port in ports)
        return name in self.own or name in self.others or is_place

    def allow_origin(self, origin: str, host: str) -> bool:
        """Whether pages of this Origin may call the server by this Host.

        Those of the address that is called may, and those of the server's own addresses. Another
        port of this machine belongs to another program.
        """
        scheme, _, authority = origin.lower().partition("://")
        found, called = _split(authority), _split(host)
        if scheme not in DEFAULT_PORTS or not found or not called:
            return False
        default = DEFAULT_PORTS[scheme]
        name, port = found[0], found[1] or default
        return (
            (name, port) == (called[0], called[1] or default)
            or (name in self.own and port == self.port)
            or (name in self.others and port in (self.port, default))
            or (name, port) in self.places
        )


def allowed_names(host: str, port: int, also: Iterable[str] = ()) -> AllowedNames:
    """Allow this machine's names, the address that is listened on and the names in `also`."""
    bound = [] if _is_any_address(host) else [in_url(host).lower()]
    given: list[tuple[str, int | None]] = []
    for name in also:
        if found := _split(name):
            given.append(found)
        else:
            logger.warning("KIRO_MCP_ALLOWED_HOSTS: %s is not a host's name.", quoted(name))
    return AllowedNames(
        port=port,
        own=frozenset([*LOOPBACK_NAMES, *bound]),
        others=frozenset(name for name, port in given if port is None),
        places=frozenset((name, port) for name, port in given if port is not None),
    )


def in_url(host: str) -> str:
    """Return a host as addresses write it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _split(authority: str) -> tuple[str, int | None] | None:
    """Return the name in lower case, and the port if there is one; None for what is neither."""
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        return None
    name, port = found.groups()
    return name.lower(), int(port) if port else None


def _is_any_address(host: str) -> bool:
    # Browsers take 0.0.0.0 for this machine, so it is no name to be called by.
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class HostGate:
    """ASGI middleware: 421 to a foreign Host, 403 to a foreign Origin."""

    def __init__(self, app: ASGIApp, names: AllowedNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on."""
        refusal = self._refusal(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._names.allow_host(host):
            return _refuse(
                421,
                f"This server does not answer to the name {quoted(host)}. If it is yours, add it"
                " to KIRO_MCP_ALLOWED_HOSTS where the server is configured.",
            )
        for origin in origins:
            if origin and not self._names.allow_origin(origin, host):
                return _refuse(
                    403,
                    f"This server takes no calls from pages of {quoted(origin)}. If they are yours,"
                    " add their host to KIRO_MCP_ALLOWED_HOSTS where the server is configured.",
                )
        return None


def _refuse(status: int, why: str) -> Response:
    logger.warning("%d: %s", status, why)
    return PlainTextResponse(why, status, {"Connection": "close"})
