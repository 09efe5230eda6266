"""MCP over standard input and output. The server always ends when it should.

    fd 0 ► read_lines ► Session.parse, accept ► the SDK's server ► Session.write ► LineWriter ► fd 1

The SDK's own runner hangs on SIGINT until its input closes, dies at SIGTERM without cleaning up,
stays forever if only its output is closed, and never answers a line that it cannot read. This one
cleans up and ends within half a second of the end of input, SIGINT, SIGTERM or the end of its
reader. It answers every line that needs an answer.

While it serves, the client receives only JSON-RPC: file descriptor 1 and `sys.stdout` lead to
stderr, so that a stray `print` does not appear among the messages, not even when the process ends.

Lines are read and written without a thread if the system can report that a descriptor is ready:
threads would make a short call a quarter slower. This works for pipes and sockets. Terminals,
regular files and all descriptors on Windows are read and written in a thread. The descriptors stay
in blocking mode, because other processes may share them, so only as much is read or written as is
possible without blocking.
"""

import json
import logging
import os
import select
import signal
import stat
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.shared.message import SessionMessage

from kiro_mcp.client.off_loop import off_loop
from kiro_mcp.server import faststart
from kiro_mcp.server.app import KiroServer
from kiro_mcp.server.faststart import CHUNK_BYTES, PIECE_BYTES, Handover, LineSplitter, decode
from kiro_mcp.wire.large_json import cut_long_texts, load_large_json, mend_escaped_surrogates

logger = logging.getLogger(__name__)

_LARGE_LINE = 256 * 1024
"""The largest line that is parsed on the event loop, which takes up to 5 ms; in bytes."""

Refusal = dict[str, Any]
_Parsed: TypeAlias = types.JSONRPCMessage | Refusal | list[types.JSONRPCMessage | Refusal]
"""The content of a line: a message, or the error that answers it; a list for a batch."""


async def serve_stdio(server: KiroServer, handover: Handover | None = None) -> int:
    """Serve until the client leaves or a signal comes; return the exit code of the process.

    `handover` contains what the fast start has already read and answered.
    """
    exit_code = 0

    async def end_on_signal() -> None:
        nonlocal exit_code
        exit_code = await wait_for_signal()
        tasks.cancel_scope.cancel()

    async def end_on_closed_output() -> None:
        # The server may have nothing to write that would fail. Windows cannot watch an output.
        if hasattr(select, "poll"):
            watched = select.poll()
            watched.register(wire_out, 0)  # Errors and hang-ups are always reported.
            await anyio.to_thread.run_sync(watched.poll, abandon_on_cancel=True)
            tasks.cancel_scope.cancel()

    wire_in = _replace(0, by=os.open(os.devnull, os.O_RDONLY))
    wire_out = _replace(1, by=_stderr())
    sys.stdout = sys.stderr
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_on_signal)
        tasks.start_soon(end_on_closed_output)
        with suppress(BrokenPipeError):
            await serve_lines(server, wire_in, wire_out, handover)
        tasks.cancel_scope.cancel()
    return exit_code


async def serve_lines(
    server: KiroServer, wire_in: int, wire_out: int, handover: Handover | None = None
) -> None:
    """Serve a session over two file descriptors until `wire_in` ends.

    Raises:
        BrokenPipeError: `wire_out` has no reader any more.
    """
    session = Session(handover.revision if handover else "")
    writer, lock = LineWriter(wire_out), anyio.Lock()
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage](0)

    # The waiting time of a call is counted from its arrival, before the SDK was loaded.
    handed_over = len(handover.lines) if handover else 0
    loading_began_at = anyio.current_time()
    if handover:
        loading_began_at -= time.monotonic() - handover.taken_at

    async def write(text: str) -> None:
        async with lock:
            await writer.write(text)

    async def read_messages() -> None:
        async with to_server:
            number = -1
            async for line in read_lines(wire_in, handover):
                number += 1
                messages, refusals = session.accept(
                    await off_loop(partial(session.parse, line), is_large=len(line) > _LARGE_LINE)
                )
                for message in messages:
                    if number < handed_over and isinstance(message, types.JSONRPCRequest):
                        server.arrivals[str(message.id)] = loading_began_at
                    await to_server.send(SessionMessage(message))
                await session.is_settled.wait()
                if refusals:
                    await write(refusals)

    async def write_messages() -> None:
        async with from_server:
            async for sent in from_server:
                if text := session.write(sent.message):
                    await write(text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_messages)
        tasks.start_soon(write_messages)
        await server.run(from_client, to_client, server.create_initialization_options())


def _replace(fd: int, *, by: int) -> int:
    """Return a private duplicate of a standard descriptor, and put another in its place.

    So no library and no child process can read the client's messages or write between the answers.
    """
    private = os.dup(fd)
    os.dup2(by, fd)
    os.close(by)
    return private


def _stderr() -> int:
    try:
        return os.dup(2)
    except OSError:  # The process was started without stderr.
        return os.open(os.devnull, os.O_WRONLY)


async def wait_for_signal() -> int:
    """Wait for SIGINT or SIGTERM and return the exit code that the process then has."""
    if sys.platform == "win32":
        await anyio.sleep_forever()  # Event loops have no signal handlers there.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        return 128 + await anext(signals)  # The shell's convention.


# --- lines and messages


class Session:
    """Translates between lines of text and the SDK's messages, for one client.

    It remembers the protocol revision, because only one revision has batches, and the requests of
    each batch, because one line answers them all. The answer to `initialize` decides the revision,
    so no further line is read before it.
    """

    def __init__(self, revision: str) -> None:
        """Begin with the revision that the client has named; "" for none yet."""
        self._revision = revision
        self._batches: dict[types.RequestId, _Batch] = {}
        self._initialize_id: types.RequestId | None = None
        self.is_settled = anyio.Event()
        self.is_settled.set()

    def parse(self, line: "faststart.Line") -> "_Parsed":
        """Parse a line. This changes no state, so it may run in a thread."""
        rest, cut = cut_long_texts(line) if len(line) > _LARGE_LINE else (line, {})
        text = decode(rest)
        if not text:
            return []
        if not text.startswith("["):
            return _parse(text, cut)
        try:
            items: list[Any] = _load(text, cut)
        except (ValueError, RecursionError) as error:
            return faststart.not_json(text, error)
        if refusal := faststart.refuse_batch(items, self._revision):
            return refusal
        return [_parse(json.dumps(item), {}) for item in items]

    def accept(self, parsed: "_Parsed") -> tuple[list[types.JSONRPCMessage], str]:
        """Return the messages for the server, and text to write to the client at once."""
        batch = _Batch() if isinstance(parsed, list) else None
        messages, text = list[types.JSONRPCMessage](), ""
        for message in parsed if isinstance(parsed, list) else [parsed]:
            if isinstance(message, types.JSONRPCRequest) and message.method == "initialize":
                if batch:
                    why = "Invalid request: `initialize` must not be part of a batch."
                    item = message.model_dump(by_alias=True, exclude_unset=True)
                    message = faststart.refuse(faststart.INVALID_REQUEST, why, item, message.id)
                else:
                    self._initialize_id, self.is_settled = message.id, anyio.Event()
            if isinstance(message, dict):
                logger.warning("A message was refused: %s", message["error"]["message"])
                if batch:
                    batch.answers.append(json.dumps(message))
                else:
                    text += json.dumps(message) + "\n"
                continue
            messages.append(message)
            if batch and isinstance(message, types.JSONRPCRequest):
                batch.waiting.add(message.id)
                self._batches[message.id] = batch
            if (
                isinstance(message, types.JSONRPCNotification)
                and message.method == "notifications/cancelled"
            ):
                # The SDK does not answer a cancelled request.
                cancelled = (message.params or {}).get("requestId")
                if faststart.is_id(cancelled) and cancelled in self._batches:
                    text += self._batches.pop(cancelled).finish(cancelled)
        return messages, text + (batch.finish(None) if batch else "")

    def write(self, message: types.JSONRPCMessage) -> str:
        """Return the text to write for a message of the server; "" if its batch is incomplete."""
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
        if not isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
            return text + "\n"
        if message.id is not None and message.id == self._initialize_id:
            result = message.result if isinstance(message, types.JSONRPCResponse) else {}
            self._revision = result.get("protocolVersion", self._revision)
            self.is_settled.set()
        if message.id == faststart.REPLAYED_ID:
            return ""  # The fast start has answered it.
        if message.id is None or message.id not in self._batches:
            return text + "\n"
        return self._batches.pop(message.id).finish(message.id, text)


class _Batch:
    """The answers to one batch, which are written together."""

    def __init__(self) -> None:
        self.waiting: set[types.RequestId | None] = {None}
        """The requests without an answer; None while the batch is being read."""
        self.answers = list[str]()

    def finish(self, request_id: types.RequestId | None, answer: str = "") -> str:
        """Stop waiting for a request; return the text to write if it was the last one."""
        self.waiting.discard(request_id)
        self.answers += [answer] if answer else []
        is_complete = self.answers and not self.waiting
        return f"[{','.join(self.answers)}]\n" if is_complete else ""


def _parse(text: str, cut: Mapping[str, str]) -> types.JSONRPCMessage | Refusal:
    """Return the message of a line, or the error that answers it."""
    adapter = types.jsonrpc_message_adapter
    try:
        if _is_large(text, cut):
            message = adapter.validate_python(load_large_json(text, cut), by_name=False)
        else:
            text = mend_escaped_surrogates(text)
            message = adapter.validate_json(text, by_name=False)
    except (ValueError, RecursionError):
        return _refuse(text, cut)
    is_notification = isinstance(message, types.JSONRPCNotification)
    if is_notification and not message.method.startswith("notifications/"):
        # A request whose id is null or a fraction is parsed as a notification, too.
        return faststart.refuse_message(_load(text, cut)) or message
    return message


def _refuse(text: str, cut: Mapping[str, str]) -> Refusal:
    try:
        message = _load(text, cut)
    except (ValueError, RecursionError) as error:
        return faststart.not_json(text, error)
    if refusal := faststart.refuse_message(message):
        return refusal
    request_id = message["id"] if faststart.is_id(message.get("id")) else None
    why = "Invalid request: a member has a wrong type, or the message nests too deeply."
    return faststart.refuse(faststart.INVALID_REQUEST, why, text, request_id)


def _load(text: str, cut: Mapping[str, str]) -> Any:
    return load_large_json(text, cut) if _is_large(text, cut) else json.loads(text)


def _is_large(text: str, cut: Mapping[str, str]) -> bool:
    return bool(cut) or len(text) > _LARGE_LINE


# --- file descriptors


async def read_lines(fd: int, handover: Handover | None = None) -> AsyncGenerator["faststart.Line"]:
    """Yield the lines of a file descriptor; first those that the fast start has already read.

    The last line may lack its newline.
    """
    splitter = handover.splitter if handover else LineSplitter()
    for line in handover.lines if handover else ():
        yield line
    can_wait = can_wait_for(fd)
    while True:
        if can_wait:
            await anyio.wait_readable(fd)
            chunk = os.read(fd, CHUNK_BYTES)
        else:
            chunk = await anyio.to_thread.run_sync(os.read, fd, CHUNK_BYTES, abandon_on_cancel=True)
        if not chunk:
            break
        for line in splitter.feed(chunk):
            yield line
    if rest := splitter.rest():
        yield rest


class LineWriter:
    """Writes text to a file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._can_wait = can_wait_for(fd)
        if self._can_wait:
            self._ready = select.poll()
            self._ready.register(fd, select.POLLOUT)

    async def write(self, text: str) -> None:
        """Write the whole text.

        Raises:
            BrokenPipeError: The descriptor has no reader any more.
        """
        left = memoryview(text.encode())
        while left:
            if not self._can_wait:
                written = await anyio.to_thread.run_sync(os.write, self._fd, left)
            else:
                if not self._ready.poll(0):
                    await anyio.wait_writable(self._fd)
                written = os.write(self._fd, left[:PIECE_BYTES])
            left = left[written:]


def can_wait_for(fd: int) -> bool:
    """Whether an event loop can wait until a file descriptor is ready."""
    if not hasattr(select, "poll"):
        return False  # Windows.
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
