"""What sees a call go over the wire, for captures: a protocol, and the tap that feeds it.

`kiro_mcp.captures` implements it. It goes down with an attempt as a parameter; where it is None,
which is the rule, requests and chunks pass by none of this::

    Sender ──► RecordedPool ──► HttpPool        sent, answered, received, failed
                    │
                    └──► Recorder               reads_with, replied: from the client
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from kiro_mcp.chat import Reply
from kiro_mcp.client.http import HttpPool, HttpResponse
from kiro_mcp.errors import KiroError
from kiro_mcp.wire.reply import ReplyOptions


class Recorder(Protocol):
    """Notes the exchanges of one call, one after the other. Returns at once and never raises.

    All but `sent` are about the exchange that was sent last.
    """

    def sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Note a request. Its headers hold the bearer, which is not to be kept."""
        ...

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Note the head of the answer to it."""
        ...

    def received(self, chunk: bytes) -> None:
        """Note the next bytes of the answer's body."""
        ...

    def reads_with(self, options: ReplyOptions) -> None:
        """Note how the answer is going to be read."""
        ...

    def replied(self, reply: Reply) -> None:
        """Note what was made of the answer."""
        ...

    def failed(self, error: KiroError) -> None:
        """Note why the exchange came to nothing."""
        ...


class RecordedPool:
    """Connections whose every request and answer a recorder sees. Used as an `HttpPool` is."""

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
    """An answer whose chunks are seen as they are read."""

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
