"""HTTP, and the only module that knows httpx: requests in, answers out, errors translated once.

`httpx` is named here alone, so that moving to its fork `httpx2` is one changed line.
The client is made at the first request, because its TLS context costs 75 to 90 ms.
"""

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import httpx as http
import truststore

from kiro_mcp.errors import (
    AnswerBroken,
    CallCancelled,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
)

MAX_REFUSAL_BYTES = 64 * 1024
"""How much of a refusal is read. The service's own are under 1 KiB; a proxy's page may be long."""

KEEP_ALIVE_SECONDS = 30.0
"""How long an idle connection is kept: less than after which the service's side drops it."""

MAX_IDLE_CONNECTIONS = 16

_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")


class HttpResponse:
    """An answer whose body is still on its way."""

    def __init__(self, response: http.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives.

        Raises:
            AnswerBroken: The connection ended before the body did.
        """
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except (http.TransportError, http.DecodingError) as error:
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


class HttpPool:
    """Connections that are kept alive across requests, and closed by their one owner.

    Args:
        connect_timeout_seconds: How long making a connection may take.
        proxy_url: The HTTP or SOCKS proxy to go through, "" for what the environment says.
            What is on this machine is never behind a proxy.
    """

    def __init__(self, *, connect_timeout_seconds: float, proxy_url: str = "") -> None:
        self._connect_timeout_seconds = connect_timeout_seconds
        self._proxy_url = proxy_url
        self._client: http.AsyncClient | None = None
        self._is_closed = False

    async def aclose(self) -> None:
        """Close every connection, for good. Requests that are under way fail."""
        self._is_closed = True
        if self._client is not None:
            await self._client.aclose()
            self._client = None

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
            InvalidRequest: The proxy's address cannot be used.
        """
        client = self._opened()
        request = client.build_request(method, url, headers=dict(headers), content=body)
        try:
            response = await client.send(request, stream=True)
        except http.HTTPError as error:
            raise _unreachable(error, request.url.host) from error
        try:
            yield HttpResponse(response)
        finally:
            await response.aclose()

    def _opened(self) -> http.AsyncClient:
        if self._is_closed:
            raise CallCancelled("The connections to the service are closed.")
        if self._client is None:
            self._client = self._made()
        return self._client

    def _made(self) -> http.AsyncClient:
        try:
            return http.AsyncClient(
                verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                timeout=http.Timeout(None, connect=self._connect_timeout_seconds),
                limits=http.Limits(
                    max_connections=None,
                    max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                    keepalive_expiry=KEEP_ALIVE_SECONDS,
                ),
                proxy=self._proxy_url or None,
                mounts=dict.fromkeys(_LOOPBACK),
            )
        except (ValueError, ImportError):  # Their words would show the proxy's password.
            raise InvalidRequest(
                "The proxy that is set for this server is not an HTTP or SOCKS address.",
                next_step="Correct KIRO_MCP_PROXY_URL, or HTTPS_PROXY and ALL_PROXY.",
            ) from None


def _unreachable(error: http.HTTPError, host: str) -> KiroError:
    what = "in time" if isinstance(error, http.TimeoutException) else f"({type(error).__name__})"
    return ServiceUnavailable(
        f"The service at {host!r} could not be reached {what}: {error or 'no details'}.",
        next_step="Check the network, a proxy or firewall, and KIRO_MCP_ENDPOINT_URL if it is set.",
        code="network_error",
    )
