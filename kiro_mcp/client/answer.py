"""An answer on its way: bytes in from one connection, deltas out, and a reply at the end."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import anyio

from kiro_mcp.chat import Delta, Fault, Reply, StopReason
from kiro_mcp.client.attempts import failure_of, no_answer_in_time
from kiro_mcp.client.http import HttpResponse
from kiro_mcp.client.retry import Failure
from kiro_mcp.errors import AnswerBroken, KiroError, ServiceUnavailable
from kiro_mcp.wire.reply import ReplyBuilder
from kiro_mcp.wire.request import Payload

_REASONS_FOR_NOTHING: Final[tuple[StopReason, ...]] = (
    "refusal",
    "max_tokens",
    "context_window_exceeded",
)


class AnswerStream:
    """An answer: iterate for its deltas; `reply` is the whole of it.

    Args:
        response: The HTTP answer that carries it.
        builder: Makes deltas and the reply of its bytes.
        payload: The request that it answers.
        first_token_deadline: When it must have begun, in `anyio.current_time`.
        idle_timeout_seconds: How long it may be silent after that.
    """

    def __init__(
        self,
        response: HttpResponse,
        builder: ReplyBuilder,
        payload: Payload,
        *,
        first_token_deadline: float,
        idle_timeout_seconds: float,
    ) -> None:
        self.payload = payload
        """The request as it was sent, with what was repaired in it."""
        self._chunks = response.chunks()
        self._request_id = response.headers.get("x-amzn-requestid")
        self._builder = builder
        self._first_token_deadline = first_token_deadline
        self._idle_timeout_seconds = idle_timeout_seconds
        self._pending: deque[Delta] = deque()
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer. There once iteration has ended.

        Raises:
            RuntimeError: The answer has not been read to its end.
        """
        if self._reply is None:
            raise RuntimeError("read the stream to its end before its reply")
        return self._reply

    @property
    def so_far(self) -> Reply:
        """What has come of it so far; the whole of it once iteration has ended."""
        return self._reply or self._builder.snapshot()

    @property
    def credits(self) -> float:
        """What the service has charged for the answer so far."""
        return self._builder.credits

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while not self._pending:
            if self._reply is not None:
                raise StopAsyncIteration
            await self._read()
        return self._pending.popleft()

    async def begin(self) -> Failure | None:
        """Read until there is something to give; return why there is nothing.

        Until then the call may be made again. Never raises.
        """
        while not self._pending and self._reply is None:
            await self._read()
        if self._pending or not self.reply.is_empty or _says_why_it_is_empty(self.reply):
            return None
        return self._failure(self.reply.fault)

    def cut(self, fault: KiroError | None = None) -> Reply:
        """End the answer here, and return what has come of it."""
        return self._builder.close(fault)

    async def aclose(self) -> None:
        """Stop reading."""
        await self._chunks.aclose()

    async def _read(self) -> None:
        try:
            chunk = await self._next_chunk()
        except KiroError as error:
            self._end(error)
            return
        if chunk is None:
            self._end(None)
        else:
            self._take(chunk)

    async def _next_chunk(self) -> bytes | None:
        with anyio.CancelScope(deadline=self._deadline()):
            return await anext(self._chunks, None)
        raise self._timed_out()

    def _take(self, chunk: bytes) -> None:
        self._pending.extend(self._builder.feed(chunk))
        if self._builder.fault is not None:
            self._end(None)

    def _deadline(self) -> float:
        if self._builder.has_begun:
            return anyio.current_time() + self._idle_timeout_seconds
        return self._first_token_deadline

    def _timed_out(self) -> KiroError:
        if not self._builder.has_begun:
            return no_answer_in_time()
        return ServiceUnavailable(
            f"The service fell silent for {self._idle_timeout_seconds:g} seconds.",
            next_step="Call again; KIRO_MCP_STREAM_READ_TIMEOUT sets how long silence may last.",
            code="timeout",
        )

    def _end(self, fault: KiroError | None) -> None:
        self._reply = self._builder.close(fault)
        self._pending.extend(self._builder.last_deltas)

    def _failure(self, fault: Fault | KiroError | None) -> Failure:
        if isinstance(fault, Fault):
            return failure_of(fault)
        return Failure(error=fault or self._nothing())

    def _nothing(self) -> KiroError:
        return AnswerBroken(
            "The service answered with nothing.",
            next_step="Call again, or put the question in other words.",
            code="empty_response",
            request_id=self._request_id,
        )


def _says_why_it_is_empty(reply: Reply) -> bool:
    """Whether nothing is the answer, for a reason that asking again does not change."""
    return reply.fault is None and reply.stop_reason in _REASONS_FOR_NOTHING
