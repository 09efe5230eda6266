"""Lets a recorder see a call's requests and responses, for captures.

`kiro_mcp.captures.recording` implements `Recorder`. An attempt carries one, or None if the call is
not captured; then requests and chunks take no detour::

    Sender ──► RecordedPool ──► HttpPool        sent, answered, received
    client ──► Recorder                         reads_with, replied, failed
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from kiro_mcp.chat import Reply
from kiro_mcp.client.http import HttpPool, HttpResponse
from kiro_mcp.errors import KiroError
from kiro_mcp.wire.reply import ReplyOptions


class Recorder(Protocol):
    """Notes the requests of one call, one after the other. Returns at once and never raises.

    All but `sent` are about the request that was sent last.
    """

    def sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Note a request. Its headers hold the bearer, which must not be written."""
        ...

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Note the status and the headers of the response."""
        ...

    def received(self, chunk: bytes) -> None:
        """Note the next bytes of the response's body."""
        ...

    def reads_with(self, options: ReplyOptions) -> None:
        """Note how the response is going to be read."""
        ...

    def replied(self, reply: Reply) -> None:
        """Note the reply that was read from the response."""
        ...

    def failed(self, error: KiroError) -> None:
        """Note why the attempt failed."""
        ...


class RecordedPool:
    """An `HttpPool` whose requests and responses a recorder sees."""

    def __init__(self, pool: HttpPool, recorder: Recorder) -> None:
        self._pool = pool
        self._recorder = recorder

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[HttpResponse]:
        """Send a request, as `HttpPool.request` does."""
        self._recorder.sent(method, url, headers, body)
        async with self._pool.request(method, url, headers=headers, body=body) as response:
            self._recorder.answered(response.status, response.headers)
            yield _RecordedResponse(response, self._recorder)


class _RecordedResponse(HttpResponse):
    def __init__(self, response: HttpResponse, recorder: Recorder) -> None:
        self.status = response.status
        self.headers = response.headers
        self._inner = response
        self._recorder = recorder

    async def chunks(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._inner.chunks()) as chunks:
            async for chunk in chunks:
                self._recorder.received(chunk)
                yield chunk
