"""Sends HTTP requests, and turns all errors of the HTTP library into a `KiroError`.

Only this module imports `httpx`, so that moving to its fork `httpx2` changes one line.
It creates the TLS context at the first request, because that takes 75 to 90 ms.
It uses httpx's transports directly: httpx's client would add cookies, redirects and logins from
`.netrc`, and no request may have those. Each transport holds one connection: one that holds many
looks at all of them twice for each request, and closes idle ones while many are busy.

A `Recorder` sees the requests and answers of a captured call; `kiro_mcp.captures` implements one.
"""

import ipaddress
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.request import getproxies

import httpx as http
import truststore

from kiro_mcp.chat import Reply
from kiro_mcp.errors import (
    AnswerBroken,
    CallCancelled,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    quoted,
)
from kiro_mcp.redaction import redact
from kiro_mcp.settings import Settings, is_loopback
from kiro_mcp.wire.reply import ReplyOptions

MAX_REFUSAL_BYTES = 64 * 1024
"""How much of a refusal is read. The service sends under 1 KiB; a proxy may send a long page."""

KEEP_ALIVE_SECONDS = 30.0
"""How long an idle connection stays open. The service keeps it open for longer."""

PIECE_BYTES = 256 * 1024
"""How much of a body is sent at once. Copying and encrypting megabytes at once would block the
event loop."""

MAX_IDLE_CONNECTIONS = 64
"""How many idle connections stay open."""

MAX_FETCHED_BYTES = 4 * 1024 * 1024
"""How much of an answer `fetch` reads. The service's list of models has about 20 KiB."""

MAX_ROUTES = 64
"""For how many URLs the route is remembered."""


class Recorder(Protocol):
    """Records the exchanges of one call, one after the other.

    Its methods return at once and never raise. All but `sent` are about the latest request.
    """

    def sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Record a request. Its headers hold the bearer, which must not be written down."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Record the status and the headers of the answer."""

    def received(self, chunk: bytes) -> None:
        """Record the next bytes of the answer's body."""

    def reads_with(self, options: ReplyOptions) -> None:
        """Record how the answer is going to be read."""

    def replied(self, reply: Reply) -> None:
        """Record the reply that was read from the answer."""

    def failed(self, error: KiroError) -> None:
        """Record why the exchange failed."""


class Fetcher(Protocol):
    """Sends a request and returns its whole answer: an `HttpPool`, or a substitute for one."""

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers (names in lower case) and body.

        Raises:
            KiroError: No answer arrived.
        """
        ...


class HttpResponse:
    """An answer whose body is still arriving."""

    def __init__(self, response: http.Response, recorder: Recorder | None = None) -> None:
        self._response = response
        self._recorder = recorder
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers  # Upper and lower case are the same.

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives.

        Raises:
            AnswerBroken: The connection ended before the body did.
        """
        try:
            # Requests ask for an uncompressed body, which needs no decoder.
            is_plain = "content-encoding" not in self.headers
            pieces = self._response.stream if is_plain else self._response.aiter_bytes()
            async for chunk in cast("AsyncIterable[bytes]", pieces):
                if self._recorder is not None:
                    self._recorder.received(chunk)
                yield chunk
        except Exception as error:  # Also errors of the libraries below httpx.
            raise AnswerBroken(
                f"The connection to the service broke off ({type(error).__name__}).",
                next_step="Call again.",
            ) from error

    async def beginning(self, limit: int = MAX_REFUSAL_BYTES) -> bytes:
        """Return the first `limit` bytes of the body, or fewer if the connection breaks off."""
        body = bytearray()
        with suppress(AnswerBroken):  # The status says what a refusal means; the body adds details.
            async for chunk in self.chunks():
                body += chunk[: limit - len(body)]
                if len(body) == limit:
                    break
        return bytes(body)


async def _pieces(body: bytes) -> AsyncGenerator[bytes]:
    """Yield a large body in pieces."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """A parsed URL, and the proxy for its requests."""

    url: http.URL
    proxy: http.URL
    """The proxy; an empty URL for none. Its user name and password must not be shown."""
    ends: tuple[str, str] = field(repr=False)
    """The host and the proxy, which are the same for all requests of a connection."""


@dataclass(frozen=True, slots=True, repr=False)
class _Idle:
    """A connection that no request uses."""

    since: float
    ends: tuple[str, str]
    transport: http.AsyncHTTPTransport


class HttpPool:
    """Connections that stay open across requests. Their one owner closes them.

    Args:
        connect_timeout_seconds: How long opening a connection may take.
        proxy_url: The HTTP or SOCKS proxy to use; "" for the system's. Addresses of this machine
            are always reached without a proxy.
        system_proxies: Returns the system's proxies by scheme, and under "no" the hosts that are
            reached without a proxy.
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
        self._tls: ssl.SSLContext | None = None
        self._transports: set[http.AsyncHTTPTransport] = set()
        self._idle: list[_Idle] = []
        """The idle connections, the one that was used last at the end."""
        self._routes: dict[str, _Route] = {}
        self._is_closed = False

    @classmethod
    def of(cls, settings: Settings) -> "HttpPool":
        """Create a pool from settings."""
        return cls(
            connect_timeout_seconds=settings.connect_timeout_seconds,
            proxy_url=settings.proxy_url.get_secret_value(),
        )

    async def aclose(self) -> None:
        """Close all connections, for good. Open requests fail."""
        self._is_closed = True
        while self._transports:
            await self._transports.pop().aclose()

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request and return status, headers and body of the whole answer.

        Raises:
            KiroError: As `request`.
        """
        async with self.request(method, url, headers=headers, body=body) as response:
            return response.status, response.headers, await response.beginning(MAX_FETCHED_BYTES)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        recorder: Recorder | None = None,
    ) -> AsyncGenerator[HttpResponse]:
        """Send a request and yield its answer once its headers have arrived; close it at the end.

        Redirects are not followed: they could send the bearer to another host. Only the time to
        connect is limited here. The caller limits the time for the answer with a cancel scope.

        Raises:
            ServiceUnavailable: The host cannot be reached, or closed the connection.
            CallCancelled: The pool is closed.
            InvalidRequest: The URL, or the proxy's URL, is not valid.
        """
        if recorder is not None:
            recorder.sent(method, url, headers, body)
        route, idle = self._route_to(url), self._idle
        for index in range(len(idle) - 1, -1, -1):
            if idle[index].ends == route.ends:
                transport = idle.pop(index).transport
                break
        else:
            transport = self._open_transport(route)
        try:
            try:
                request = http.Request(
                    method,
                    route.url,
                    headers=(
                        {**headers, "Content-Length": str(len(body))} if body else dict(headers)
                    ),
                    content=_pieces(body) if len(body) > PIECE_BYTES else body,
                    extensions={"timeout": self._timeouts},
                )
                response = await transport.handle_async_request(request)
            except Exception as error:  # Also errors of the libraries for SOCKS and TLS.
                raise _unreachable(error, route) from error
            try:
                if recorder is not None:
                    recorder.answered(response.status_code, response.headers)
                yield HttpResponse(response, recorder)
            finally:
                await response.aclose()
        finally:
            now = time.monotonic()
            idle.append(_Idle(now, route.ends, transport))
            while len(idle) > MAX_IDLE_CONNECTIONS or idle[0].since < now - KEEP_ALIVE_SECONDS:
                oldest = idle.pop(0).transport
                self._transports.discard(oldest)
                await oldest.aclose()

    def _open_transport(self, route: _Route) -> http.AsyncHTTPTransport:
        if self._tls is None:
            self._tls = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        limits = http.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS)
        proxy = route.proxy if route.proxy.host else None
        try:
            transport = http.AsyncHTTPTransport(verify=self._tls, limits=limits, proxy=proxy)
        except (ValueError, ImportError):  # Their texts show the proxy's password.
            raise _invalid_proxy() from None
        self._transports.add(transport)
        return transport

    def _route_to(self, url: str) -> _Route:
        if self._is_closed:
            raise CallCancelled("The connections to the service are closed.")
        if url not in self._routes:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            try:
                parsed = http.URL(url)
            except (http.InvalidURL, ValueError) as error:
                raise InvalidRequest(
                    f"The URL {quoted(url)} is not valid ({error}).",
                    next_step="Correct KIRO_MCP_ENDPOINT_URL, or the variable for this host.",
                ) from None
            try:
                proxy = http.URL(self._proxy_for(parsed))
            except http.InvalidURL:  # Its text shows the proxy's password.
                raise _invalid_proxy() from None
            ends = (str(parsed.copy_with(raw_path=b"/")), str(proxy))
            self._routes[url] = _Route(url=parsed, proxy=proxy, ends=ends)
        return self._routes[url]

    def _proxy_for(self, url: http.URL) -> str:
        """Return the URL of the proxy for a request; "" for none."""
        if is_loopback(url.host):
            return ""
        if self._proxy_url:
            return self._proxy_url
        proxies = self._system_proxies()
        proxy = proxies.get(url.scheme) or proxies.get("all") or ""
        if not proxy or _is_exempt(url, proxies.get("no", "")):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def _is_exempt(url: http.URL, exempted: str) -> bool:
    """Whether NO_PROXY names a host, one of its parent domains, or its network.

    As with curl, entries are `example.com`, `.example.com` or `*.example.com`, each with or
    without a port; `10.0.0.0/8`; or `*` for all hosts. Commas or blanks separate them.
    """
    port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    for entry in re.split(r"[\s,]+", exempted.lower()):
        if entry == "*":
            return True
        with_port = re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", entry)
        if with_port and int(with_port[2]) != port:
            continue
        name = (with_port[1] if with_port else entry).strip("[]")
        try:
            is_named = ipaddress.ip_address(url.host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            name = name.removeprefix("*").strip(".")
            is_named = bool(name) and f".{url.host.rstrip('.')}".endswith(f".{name}")
        if is_named:
            return True
    return False


def _invalid_proxy() -> InvalidRequest:
    return InvalidRequest(
        "The proxy of this server is not an HTTP or SOCKS URL.",
        next_step="Correct KIRO_MCP_PROXY_URL, or HTTPS_PROXY and ALL_PROXY.",
    )


def _unreachable(error: Exception, route: _Route) -> KiroError:
    what = "in time" if isinstance(error, http.TimeoutException) else f"({type(error).__name__})"
    proxy = route.proxy.netloc.decode("ascii")
    through = f" through the proxy at {proxy!r}" if proxy else ""
    # An error about the request itself quotes the request, with the token in it.
    is_about_request = isinstance(error, http.LocalProtocolError | UnicodeError)
    details = "" if is_about_request else redact(str(error))
    return ServiceUnavailable(
        f"The service at {route.url.host!r}{through} could not be reached {what}:"
        f" {details or 'no details'}.",
        next_step="Check the network, a proxy or firewall, and KIRO_MCP_ENDPOINT_URL if it is set.",
        code="network_error",
    )
