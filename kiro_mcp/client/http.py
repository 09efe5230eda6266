"""HTTP, and the only module that knows httpx: requests in, answers out, errors translated once.

`httpx` is named here alone, so that moving to its fork `httpx2` is one changed line.
A transport is made at the first request, because its TLS context costs 75 to 90 ms.
"""

import ipaddress
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.request import getproxies

import httpx as http
import truststore

from kiro_mcp.errors import (
    AnswerBroken,
    CallCancelled,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    quoted,
)
from kiro_mcp.redaction import redact
from kiro_mcp.setting_values import is_loopback

MAX_REFUSAL_BYTES = 64 * 1024
"""How much of a refusal is read. The service's own are under 1 KiB; a proxy's page may be long."""

KEEP_ALIVE_SECONDS = 30.0
"""How long an idle connection is kept: less than after which the service's side drops it."""

PIECE_BYTES = 256 * 1024
"""How much of a body is handed on at once. A body of megabytes at once would be copied and
encrypted while nobody else is answered."""

MAX_IDLE_CONNECTIONS = 16

MAX_WAYS = 64
"""How many addresses are remembered with the way to them."""


class HttpResponse:
    """An answer whose body is still on its way."""

    def __init__(self, response: http.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers  # Names are read in any case.

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives.

        Raises:
            AnswerBroken: The connection ended before the body did.
        """
        try:
            # The quick way where nothing is compressed, which is what requests ask for.
            is_plain = "content-encoding" not in self.headers
            pieces = self._response.stream if is_plain else self._response.aiter_bytes()
            async for chunk in cast("AsyncIterable[bytes]", pieces):
                yield chunk
        except Exception as error:  # Also those of the libraries below.
            raise AnswerBroken(
                f"The connection to the service broke off ({type(error).__name__}).",
                next_step="Call again.",
            ) from error

    async def beginning(self, limit: int = MAX_REFUSAL_BYTES) -> bytes:
        """Return the body up to `limit` bytes; what arrived, where the connection broke off."""
        parts: list[bytes] = []
        missing = limit
        try:
            async for chunk in self.chunks():
                parts.append(chunk[:missing])
                missing -= len(parts[-1])
                if missing <= 0:
                    break
        except AnswerBroken:
            pass  # A refusal is told by its status; its words are a help.
        return b"".join(parts)


class _Pieces:
    """A large body, piece by piece."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        for start in range(0, len(self._body), PIECE_BYTES):
            yield self._body[start : start + PIECE_BYTES]


class HttpPool:
    """Connections that are kept alive across requests, and closed by their one owner.

    It works on httpx's transports and not on its client, which would add to each request what
    none of ours may have: cookies, redirects, logins from `.netrc`.

    Args:
        connect_timeout_seconds: How long making a connection may take.
        proxy_url: The HTTP or SOCKS proxy to go through, "" for what the system says.
            What is on this machine is never behind a proxy.
        system_proxies: The system's proxies by scheme, and under "no" the hosts without one.
    """

    def __init__(
        self,
        *,
        connect_timeout_seconds: float,
        proxy_url: str = "",
        system_proxies: Callable[[], Mapping[str, str]] = getproxies,
    ) -> None:
        self._timeouts = {"connect": connect_timeout_seconds}
        self._proxy_url = proxy_url
        self._system_proxies = system_proxies
        self._transports: dict[str, http.AsyncHTTPTransport] = {}
        self._ways: dict[str, _Way] = {}
        self._is_closed = False

    async def aclose(self) -> None:
        """Close every connection, for good. Requests that are under way fail."""
        self._is_closed = True
        while self._transports:
            _, transport = self._transports.popitem()
            await transport.aclose()

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[HttpResponse]:
        """Send a request; yield its answer when the headers are there; close it after.

        Redirects are not followed: they would carry the bearer elsewhere. How long an answer
        may take is the caller's to say, with a cancel scope; only connecting is limited here.

        Raises:
            ServiceUnavailable: The host cannot be reached, or hung up without an answer.
            CallCancelled: The pool is closed.
            InvalidRequest: The address, or the proxy's, cannot be used.
        """
        way = self._way_to(url)
        try:
            request = http.Request(
                method,
                way.url,
                headers={**headers, "Content-Length": str(len(body))} if body else dict(headers),
                content=_Pieces(body) if len(body) > PIECE_BYTES else body,
                extensions={"timeout": self._timeouts},
            )
            response = await way.transport.handle_async_request(request)
        except Exception as error:  # Also those of the libraries below, for SOCKS or TLS.
            raise _unreachable(error, way) from error
        try:
            yield HttpResponse(response)
        finally:
            await response.aclose()

    def _way_to(self, url: str) -> "_Way":
        if self._is_closed:
            raise CallCancelled("The connections to the service are closed.")
        if url not in self._ways:
            if len(self._ways) >= MAX_WAYS:
                self._ways.clear()
            try:
                parsed = http.URL(url)
            except (http.InvalidURL, ValueError) as error:
                raise InvalidRequest(
                    f"The address {quoted(url)} cannot be used ({error}).",
                    next_step="Correct the KIRO_MCP_ENDPOINT_URL that it comes from.",
                ) from None
            proxy = self._proxy_for(parsed)
            transport = self._transport(proxy)
            self._ways[url] = _Way(url=parsed, transport=transport, proxy=_place_of(proxy))
        return self._ways[url]

    def _proxy_for(self, url: http.URL) -> str:
        if is_loopback(url.host):
            return ""
        if self._proxy_url:
            return self._proxy_url
        proxies = self._system_proxies()
        proxy = proxies.get(url.scheme) or proxies.get("all") or ""
        if not proxy or _is_exempt(url, proxies.get("no", "")):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    def _transport(self, proxy: str) -> http.AsyncHTTPTransport:
        if proxy not in self._transports:
            self._transports[proxy] = _made(proxy)
        return self._transports[proxy]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """An address, taken apart once, and what its requests go through."""

    url: http.URL
    transport: http.AsyncHTTPTransport
    proxy: str
    """Where the proxy between is, without what signs in to it; "" for none."""


def _is_exempt(url: http.URL, exempted: str) -> bool:
    """Say whether NO_PROXY names a host: itself, a domain that it is in, or a network.

    As curl reads it, and as people write it: `example.com`, `.example.com`, `*.example.com`, each
    with or without a port; `10.0.0.0/8`; `*` for all. Commas or blanks are between them.
    """
    port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    return any(_names(one, url.host, port) for one in re.split(r"[\s,]+", exempted.lower()) if one)


def _names(exempted: str, host: str, port: int | None) -> bool:
    if exempted == "*":
        return True
    if match := re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", exempted):
        if int(match[2]) != port:
            return False
        exempted = match[1]
    exempted = exempted.strip("[]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exempted, strict=False)
    except ValueError:
        name = exempted.removeprefix("*").strip(".")
        return bool(name) and f".{host.rstrip('.')}".endswith(f".{name}")


def _made(proxy: str) -> http.AsyncHTTPTransport:
    try:
        return http.AsyncHTTPTransport(
            verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=http.Limits(
                max_connections=None,
                max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            proxy=proxy or None,
        )
    except (
        ValueError,
        ImportError,
        http.InvalidURL,
    ):  # Their words would show the proxy's password.
        raise InvalidRequest(
            "The proxy that is set for this server is not an HTTP or SOCKS address.",
            next_step="Correct KIRO_MCP_PROXY_URL, or HTTPS_PROXY and ALL_PROXY.",
        ) from None


def _place_of(proxy: str) -> str:
    return http.URL(proxy).netloc.decode("ascii")


def _unreachable(error: Exception, way: _Way) -> KiroError:
    what = "in time" if isinstance(error, http.TimeoutException) else f"({type(error).__name__})"
    through = f" through the proxy at {way.proxy!r}" if way.proxy else ""
    # What is wrong with the request itself is told by quoting it, with the token in it.
    is_about_request = isinstance(error, http.LocalProtocolError | UnicodeError)
    details = "" if is_about_request else redact(str(error))
    return ServiceUnavailable(
        f"The service at {way.url.host!r}{through} could not be reached {what}:"
        f" {details or 'no details'}.",
        next_step="Check the network, a proxy or firewall, and KIRO_MCP_ENDPOINT_URL if it is set.",
        code="network_error",
    )
