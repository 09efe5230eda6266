"""JSON-RPC over a process's stdin and stdout, one message a line; what is not known is skipped.

`Peer` sends requests and notifications and hands over what the process sends. Its requests may have
the ids of ours, so a message with a `method` is never a response. A request that nobody serves gets
-32601, lines that are not messages are skipped, and stderr is drained into its last lines, so that
the process never waits for a reader.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import anyio
from anyio.abc import ByteReceiveStream, Process, TaskGroup

from kiro_mcp.acp.errors import RpcError, read_words
from kiro_mcp.chat import JsonObject
from kiro_mcp.client.off_loop import off_loop
from kiro_mcp.errors import KiroError, ServiceUnavailable
from kiro_mcp.redaction import redact
from kiro_mcp.wire.json_values import (
    UnreadableError,
    is_larger,
    json_bytes,
    object_member,
    parse_object,
)

logger = logging.getLogger(__name__)

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""The longest line that is read. Updates have a few kilobytes, a list of commands some hundred."""

MAX_ERROR_LINE_BYTES: Final = 64 * 1024
MAX_ERROR_LINES: Final = 20
MAX_ERROR_CHARACTERS: Final = 500
"""How many lines of stderr are kept, and how much of each."""

MAX_ANSWERS: Final = 100
"""How many requests of the process may wait until it takes their answers."""

LARGE_BYTES: Final = 256 * 1024
"""From this size on a message is parsed or written in a thread."""

METHOD_NOT_FOUND: Final = -32601

OnMessage: TypeAlias = Callable[[str, JsonObject], Awaitable[None]]
OnRequest: TypeAlias = Callable[[str, JsonObject], Awaitable[JsonObject | None]]


class LineReader:
    """Splits bytes into lines. A line over the limit is dropped."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete, without their ends."""
        lines: list[bytes] = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._add(piece)
            if self._size <= self._limit:
                lines.append(b"".join(self._pieces).removesuffix(b"\r"))
            self._pieces, self._size = [], 0
        self._add(rest)
        return lines

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)


class Peer:
    """The other side of a connection.

    Args:
        process: The process, which `run` reads until it ends.
        on_notification: Takes the notifications, in their order.
        on_request: Answers the requests of the process; None is answered as "method not found".
    """

    def __init__(
        self, process: Process, *, on_notification: OnMessage, on_request: OnRequest
    ) -> None:
        self.is_gone = False
        """Whether nothing more can come."""
        self._process = process
        self._on_notification = on_notification
        self._on_request = on_request
        self._pending: dict[int, asyncio.Future[JsonObject]] = {}
        """The requests that wait, by id. An empty response says that no response can come."""
        self._last_id = 0
        self._sending = anyio.Lock()
        self._tasks: TaskGroup
        self._answers = 0
        """How many answers to requests of the process are being sent."""
        self._errors: deque[str] = deque(maxlen=MAX_ERROR_LINES)

    @property
    def last_words(self) -> str:
        """The last line that the process wrote to stderr, redacted; "" for none."""
        return next((redact(line) for line in reversed(self._errors) if line.strip()), "")

    async def run(self) -> None:
        """Read what the process sends until it ends; then fail the requests that wait."""
        assert self._process.stdout
        assert self._process.stderr
        try:
            async with anyio.create_task_group() as readers:
                self._tasks = readers
                readers.start_soon(self._drain_errors, self._process.stderr)
                reader = LineReader()
                async for data in self._process.stdout:
                    for line in reader.feed(data):
                        await self._take(line)
                    if self._answers > MAX_ANSWERS:
                        break
                with anyio.move_on_after(0.1):  # Its last words may still be on their way.
                    await self._process.wait()
                    await anyio.sleep(0.01)
                readers.cancel_scope.cancel()
        finally:
            self.is_gone = True
            for pending in self._pending.values():
                if not pending.done():
                    pending.set_result({})

    def gone(self) -> KiroError:
        """Return the error of a process that has ended by itself."""
        words = self.last_words.rstrip(".")
        if self._process.returncode and (known := read_words(words)):
            return known
        status = self._process.returncode
        how = "closed its connection" if status is None else f"ended with status {status}"
        return ServiceUnavailable(
            f"kiro-cli {how}{f': {words}' if words else ', without a word'}.",
            next_step="Call again. If this happens every time, run `kiro-mcp doctor`.",
        )

    async def request(
        self, method: str, params: JsonObject, *, seconds: float | None = None
    ) -> JsonObject:
        """Send a request and return its result; {} for a result that is not an object.

        Raises:
            RpcError: The process answered with an error.
            KiroError: The process has ended, or did not answer in time.
        """
        self._last_id += 1
        request_id = self._last_id
        pending = self._pending[request_id] = asyncio.get_running_loop().create_future()
        try:
            with anyio.fail_after(seconds):
                await self._send({"id": request_id, "method": method, "params": params})
                response = await pending
        except TimeoutError:
            raise ServiceUnavailable(
                f"kiro-cli did not answer `{method}` within {seconds:g} seconds.",
                next_step="Call again. If this happens every time, run `kiro-cli whoami` in a"
                " terminal: a program that is not signed in does not answer.",
                code="timeout",
            ) from None
        finally:
            del self._pending[request_id]
        if not response:
            raise self.gone()
        if error := object_member(response, "error"):
            raise RpcError(error)
        return object_member(response, "result")

    async def notify(self, method: str, params: JsonObject) -> None:
        """Send a notification.

        Raises:
            KiroError: The process has ended.
        """
        await self._send({"method": method, "params": params})

    async def _send(self, message: JsonObject) -> None:
        whole: JsonObject = {"jsonrpc": "2.0", **message}
        line = await off_loop(
            lambda: json_bytes(whole) + b"\n", is_large=is_larger(whole, LARGE_BYTES // 64)
        )
        assert self._process.stdin
        try:
            async with self._sending:
                await self._process.stdin.send(line)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            if self.is_gone:
                raise self.gone() from None
            # What it said before it ended is still to be read; the reader then fails the request.

    async def _take(self, line: bytes) -> None:
        try:
            message = await off_loop(
                lambda: parse_object(line.strip()), is_large=len(line) > LARGE_BYTES
            )
        except UnreadableError:
            return
        method, request_id = message.get("method"), message.get("id")
        if isinstance(method, str):
            params = object_member(message, "params")
            if request_id is None:
                await self._on_notification(method, params)
                return
            result = await self._on_request(method, params)
            answer: JsonObject = {"id": request_id, "result": result}
            if result is None:
                logger.debug("kiro-cli asked for %.80s, which is not served", method)
                text = f"Method not found: {method:.80}"
                answer = {"id": request_id, "error": {"code": METHOD_NOT_FOUND, "message": text}}
            self._answers += 1
            # Not here: while a large prompt is being sent, the process may wait for this reader.
            self._tasks.start_soon(self._answer, answer)
            return
        pending = self._pending.get(request_id) if isinstance(request_id, int) else None
        if pending and not pending.done():
            pending.set_result(message)

    async def _answer(self, answer: JsonObject) -> None:
        with suppress(KiroError):
            await self._send(answer)
        self._answers -= 1

    async def _drain_errors(self, stream: ByteReceiveStream) -> None:
        reader = LineReader(MAX_ERROR_LINE_BYTES)
        async for data in stream:
            for line in reader.feed(data):
                text = line.decode(errors="replace")[:MAX_ERROR_CHARACTERS]
                self._errors.append(text)
                logger.debug("kiro-cli: %s", redact(text))
