"""An answer while it arrives: reads bytes from a connection, yields deltas, ends with a reply."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import anyio

from kiro_mcp.chat import Delta, Fault, Reply, StopReason
from kiro_mcp.client.classify import classify
from kiro_mcp.client.http import HttpResponse
from kiro_mcp.errors import AnswerBroken, KiroError, ServiceUnavailable
from kiro_mcp.wire.reply import ReplyBuilder
from kiro_mcp.wire.request import Payload

_LASTING_REASONS: Final[tuple[StopReason, ...]] = (
    "refusal",
    "max_tokens",
    "context_window_exceeded",
)
"""The reasons for an empty answer that remain if the request is sent again."""


class ModelAnswer(ABC):
    """An answer of any engine: iterate over it for its deltas, then read `reply`."""

    def __init__(self, builder: ReplyBuilder, payload: Payload) -> None:
        self.payload = payload
        """The request as it was sent, and the repairs that were made to it."""
        self._builder = builder
        self._pending: deque[Delta] = deque()
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer, available once iteration has ended.

        Raises:
            RuntimeError: Iteration has not ended.
        """
        if self._reply is None:
            raise RuntimeError("read the stream to its end before its reply")
        return self._reply

    @property
    def so_far(self) -> Reply:
        """The part of the answer that has arrived; all of it once iteration has ended."""
        return self._builder.snapshot()

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while not self._pending:
            if self._reply is not None:
                raise StopAsyncIteration
            await self._read()
        return self._pending.popleft()

    async def begin(self) -> None:
        """Read until the first delta. Before it, the request may be sent again.

        Raises:
            KiroError: Why the answer ended without a delta.
        """
        while not self._pending and self._reply is None:
            await self._read()
        if not self._pending and self.reply.is_empty:
            self._require_reason()

    @abstractmethod
    def cut(self, fault: KiroError | None = None) -> Reply:
        """End the answer and return the part that has arrived."""

    @abstractmethod
    async def _read(self) -> None:
        """Add the next deltas to `_pending`. At the end or at a fault, set `_reply`."""

    @abstractmethod
    def _require_reason(self) -> None:
        """Accept an empty reply that says why it is empty.

        Raises:
            KiroError: It does not say so, or failed.
        """


class AnswerStream(ModelAnswer):
    """An answer: iterate over it for its deltas, then read `reply`.

    It must have begun at the deadline, a time of `anyio.current_time`. After that it may pause for
    `idle_timeout_seconds`.
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
        super().__init__(builder, payload)
        self._chunks = response.chunks()
        self._request_id = response.headers.get("x-amzn-requestid")
        self._first_token_deadline = first_token_deadline
        self._idle_timeout_seconds = idle_timeout_seconds

    def _require_reason(self) -> None:
        fault = self.reply.fault
        if isinstance(fault, Fault):
            raise classify(fault)
        if fault is not None:
            raise fault
        if self.reply.stop_reason not in _LASTING_REASONS:
            raise AnswerBroken(
                "The service sent an empty answer.",
                next_step="Call again, or ask in other words.",
                code="empty_response",
                request_id=self._request_id,
            )

    def cut(self, fault: KiroError | None = None) -> Reply:
        """End the answer and return the part that has arrived."""
        return self._builder.close(fault)

    async def end(self) -> Reply:
        """Stop reading and return the part that has arrived. A whole answer stays whole."""
        reply = self._builder.close()
        await self._chunks.aclose()
        return reply

    async def _read(self) -> None:
        """Read the next chunk. At the end or at a fault, build the reply."""
        has_begun = self._builder.has_begun
        idle_deadline = anyio.current_time() + self._idle_timeout_seconds
        chunk: bytes | None = None
        fault: KiroError | None = None
        try:
            with anyio.CancelScope(
                deadline=idle_deadline if has_begun else self._first_token_deadline
            ) as scope:
                chunk = await anext(self._chunks, None)
            if scope.cancelled_caught:
                fault = self._went_silent() if has_begun else no_answer_in_time()
        except KiroError as error:
            fault = error
        if chunk is not None:
            self._pending.extend(self._builder.feed(chunk))
            if self._builder.fault is None:
                return
        self._reply = self._builder.close(fault)
        self._pending.extend(self._builder.last_deltas)

    def _went_silent(self) -> KiroError:
        return ServiceUnavailable(
            f"The service sent nothing for {self._idle_timeout_seconds:g} seconds.",
            next_step="Call again, or raise KIRO_MCP_STREAM_READ_TIMEOUT.",
            code="timeout",
        )


def no_answer_in_time() -> KiroError:
    """Return the error of an answer that did not begin in time."""
    return ServiceUnavailable(
        "The service did not start to answer in time.",
        next_step="Call again, or raise KIRO_MCP_FIRST_TOKEN_TIMEOUT.",
        code="timeout",
    )
