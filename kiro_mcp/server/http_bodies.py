"""How much memory the bodies of requests may take together.

A body is read whole before it is understood, and what it says is held as long as its call runs.
So each request takes its share of one budget before its body is read, and gives it back at its
end. A request for which there is no room waits: its client cannot send more meanwhile.
"""

import ctypes
import sys
from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODIES_AT_ONCE: Final = 4
"""How many of the largest bodies fit into the budget."""

WAIT_SECONDS: Final = 30.0
"""How long a request waits for room."""

SMALL_BYTES: Final = 16 * 1024
"""What does not wait: as many of these as there may be connections take little memory."""

LARGE_BYTES: Final = 128 * 1024
"""Blocks of at least this size go back to the system as soon as they are freed."""


class BodyBudget:
    """ASGI middleware: lets the bodies of requests take only so much memory together."""

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, *, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._wait_seconds = wait_seconds
        self._left = BODIES_AT_ONCE * max_body_bytes
        self._given_back = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait until there is room for the request's body, then pass the request on."""
        declared = Headers(scope=scope).get("content-length", "")
        is_chunked = "transfer-encoding" in Headers(scope=scope)
        size = int(declared) if declared.isdecimal() else self._max_body_bytes * is_chunked
        share = min(size, self._max_body_bytes)  # More is refused without being read.
        if share <= SMALL_BYTES:
            share = 0
        with anyio.move_on_after(self._wait_seconds) as waiting:
            while self._left < share:
                await self._given_back.wait()
        if waiting.cancelled_caught:
            await _BUSY(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            nonlocal received, share
            message = await receive()
            received += len(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body"):
                # The size of a chunked body is known now.
                self._give_back(share - received)
                share = received
            return message

        self._left -= share
        try:
            await self._app(scope, count if is_chunked else receive, send)
        finally:
            self._give_back(share)

    def _give_back(self, size: int) -> None:
        self._left += size
        self._given_back.set()
        self._given_back = anyio.Event()


_BUSY: Final = PlainTextResponse(
    "The server is working on other large requests. Try again in a minute.\n",
    503,
    headers={"Retry-After": "60", "Connection": "close"},
)


def give_large_blocks_back() -> None:
    """Have the C library return large blocks to the system when they are freed.

    glibc learns from the first large block that is freed to keep such blocks, so that a server
    that has read a few large requests would hold hundreds of megabytes for good.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Only glibc has it.
    if mallopt is not None:
        m_mmap_threshold = -3
        mallopt(m_mmap_threshold, LARGE_BYTES)
