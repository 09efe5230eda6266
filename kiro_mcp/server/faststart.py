"""Answers the first requests of every MCP client, before the MCP SDK is imported.

Clients give a server little time: some drop it after three seconds, some ask their model after
one. Importing the SDK can take longer than that, and most servers are never called in a session.
So this module answers the opening requests (`initialize`, `server/discover`, `ping` and the four
lists) from `faststart.json`, which is generated from the real server.

It reads lines in a plain blocking loop, and answers a line only if the SDK's answer to it is
certain. Any other line ends the loop: the SDK server is loaded and receives the few messages that
bring it into the state of the session (`FastStart.opening`), then that line and all later ones.
Each request is answered exactly once, because the SDK's answers to the opening messages are dropped
by their id.

Import only modules that start with the interpreter or cost almost nothing: an idle server consists
of this module alone.
"""

import json
import os
import re
import select
import signal
import sys
import time

TYPE_CHECKING = False  # Importing `typing` would cost as much as the rest of this module.
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias, TypeGuard

    Object: TypeAlias = dict[str, Any]
    """A JSON object."""

    Line: TypeAlias = bytes | bytearray

MAX_LINE_BYTES = 192 * 1024 * 1024
"""The longest message that is read: ten images of 10 MB in base64, and room for the rest."""

CHUNK_BYTES = 64 * 1024
"""How much is read at once: what a pipe holds."""

PIECE_BYTES = getattr(select, "PIPE_BUF", 512)
"""How much can be written without blocking to a descriptor that is ready for it."""

BATCH_REVISION = "2025-03-26"
"""The only revision of MCP that has JSON-RPC batches."""

REPLAYED_ID = "kiro-mcp/replayed"
"""The id of a request that the SDK server receives although it has been answered already."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600

TOO_LONG = "kiro-mcp/too-long"
"""The member that marks the message which replaces a line over the limit."""

_ENDS_BYTES = 1024
"""How much of the start and end of a line over the limit is kept, because its id is there."""

_ID = rb'"id"\s*:\s*(-?(?:0|[1-9]\d{0,19})|"[^"\\\x00-\x1f]{0,200}")\s*'
_ID_AT_START = re.compile(
    rb'\s*\{\s*(?:"(?:jsonrpc|method)"\s*:\s*"[^"\\]*"\s*,\s*)*' + _ID + rb"[,}]"
)
_ID_AT_END = re.compile(rb"[,{]\s*" + _ID + rb'(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')

_QUOTED_CHARACTERS = 80
"""How much of a line an error quotes."""

_MAX_BRACKETS = 150
"""A line with more brackets is left to the SDK, which refuses JSON that nests too deeply."""

_PREFIX = "io.modelcontextprotocol/"
_VERSION = f"{_PREFIX}protocolVersion"

# The shapes of clients' opening requests, as far as the SDK checks them. Other members may have any
# value. `*` means every member, `!` marks a required one, and a shape of None leaves the request to
# the SDK.
_CAPABILITIES: "Object" = {
    "experimental": {"*": {}},
    "extensions": {"*": {}},
    "roots": {"listChanged": bool},
    "sampling": {"context": {}, "tools": {}},
    "elicitation": {"form": {}, "url": {}},
    "tasks": {
        "list": {},
        "cancel": {},
        "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}},
    },
}
_IMPLEMENTATION: "Object" = {
    "name!": str,
    "version!": str,
    "title": str,
    "description": str,
    "websiteUrl": str,
    "icons": None,
}
_INITIALIZE: "Object" = {
    "protocolVersion!": str,
    "capabilities!": _CAPABILITIES,
    "clientInfo!": _IMPLEMENTATION,
    "_meta": {"progressToken": (str, int)},
}
_LEGACY_REQUEST: "Object" = {"cursor": str, "_meta": {"progressToken": (str, int)}}
_MODERN_REQUEST: "Object" = {
    "cursor": str,
    "_meta!": {
        "progressToken": (str, int),
        f"{_VERSION}!": str,
        f"{_PREFIX}clientCapabilities!": _CAPABILITIES,
        f"{_PREFIX}clientInfo": _IMPLEMENTATION,
        f"{_PREFIX}logLevel": None,
    },
}


class LineSplitter:
    """Bytes in, lines out. Work grows linearly with bytes: no byte is searched twice."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        # It grows in place: joining its parts at the end would take 50 ms.
        self._line = bytearray()
        self._start = self._end = b""

    def feed(self, chunk: bytes) -> "list[Line]":
        """Return the lines that a chunk completes.

        A line that is too long is replaced by a message that `refuse_message` refuses.
        """
        *ends, rest = chunk.split(b"\n")
        lines: list[Line] = []
        for end in ends:
            self._add(end)
            lines.append(self.rest())
        self._add(rest)
        return lines

    def rest(self) -> "Line":
        """Return the bytes since the end of the last line, and forget them."""
        line = self._stand_in() if self._end else self._line
        self._line = bytearray()
        self._start = self._end = b""
        return line

    def _add(self, part: bytes) -> None:
        if not self._end and len(self._line) + len(part) <= self._max_line_bytes:
            self._line += part
            return
        if not self._end:
            self._start = bytes(self._line[:_ENDS_BYTES] + part[:_ENDS_BYTES])[:_ENDS_BYTES]
            self._end = bytes(self._line[-_ENDS_BYTES:])
            self._line = bytearray()
        self._end = (self._end + part)[-_ENDS_BYTES:]

    def _stand_in(self) -> bytes:
        """Return a short message with the id of the line, so that its request is answered."""
        start = self._start.decode(errors="replace")[:_QUOTED_CHARACTERS]
        found = _ID_AT_START.match(self._start) or _ID_AT_END.search(self._end)
        request_id = json.loads(found[1].decode(errors="replace")) if found else None
        return json.dumps({TOO_LONG: start, "id": request_id}).encode()


class Undecided(Exception):
    """The answer to a line is certain only from the SDK server."""


class FastStart:
    """A session as long as the packaged answers are enough for it. No I/O."""

    def __init__(
        self,
        answers: "Mapping[str, Object]",
        note: "Callable[[str], object]" = lambda _: None,
    ) -> None:
        """Take the answers by revision and method, and a function that notes refused lines.

        The last revision is the modern one, without a handshake.
        """
        self._answers = answers
        self._note = note
        *_, self._latest_legacy, self._modern = sorted(answers)
        self._opening_request: Object | None = None
        self._is_initialized = False
        self.revision = ""
        """The revision of the session; "" until a request says it."""

    @property
    def opening(self) -> list[bytes]:
        """The lines that bring an SDK server into the state of this session.

        Pings and lists do not change that state, so there are at most two lines, however long the
        session has been idle.
        """
        lines: list[bytes] = []
        if self._opening_request is not None:
            lines.append(_encode({**self._opening_request, "id": REPLAYED_ID}))
        if self._is_initialized:
            lines.append(_encode({"jsonrpc": "2.0", "method": "notifications/initialized"}))
        return lines

    def answer(self, line: "Line") -> bytes:
        """Return the answer to a line: one line, or b"".

        Raises:
            Undecided: The SDK server has to answer this line and all that follow.
        """
        text = decode(line)
        if not text:
            return b""
        if text.count("[") + text.count("{") > _MAX_BRACKETS or "\\ud" in text.lower():
            raise Undecided  # It may nest too deeply for the SDK, or contain half a character.
        try:
            message = json.loads(text)
        except json.JSONDecodeError as error:
            return self._refuse(not_json(text, error))
        except ValueError as error:  # A number with more digits than Python converts.
            raise Undecided from error
        if not is_list(message):
            answer = self._answer(message)
            return b"" if answer is None else _encode(answer)
        if refusal := refuse_batch(message, self.revision):
            return self._refuse(refusal)
        if any(is_object(one) and one.get("method") == "initialize" for one in message):
            raise Undecided
        answers = [answer for one in message if (answer := self._answer(one)) is not None]
        return _encode(answers) if answers else b""

    def _answer(self, message: object) -> "Object | None":
        """Return the answer to one message, or None if it gets none."""
        if refusal := refuse_message(message):
            self._refuse(refusal)
            return refusal
        assert is_object(message)
        nothing: Object = {}
        method, params = message.get("method"), message.get("params")
        params = nothing if params is None else params
        if not isinstance(method, str) or not is_object(params):
            raise Undecided
        if not is_id(message.get("id")):  # A notification; none of them is ever answered.
            self._is_initialized |= method == "notifications/initialized"
            return None
        revision = self._revision_for(method, params)
        if method not in self._answers[revision]:
            raise Undecided
        if method == "initialize" or self._opening_request is None:
            self._opening_request = message
        if method != "ping":
            self.revision = revision
        return {"jsonrpc": "2.0", "id": message["id"], "result": self._answers[revision][method]}

    def _revision_for(self, method: str, params: "Object") -> str:
        """Return the revision at which to answer a request.

        The first request decides whether a session is modern or legacy. In a modern session each
        request names its revision. In a legacy one `initialize` does, after nothing but pings.

        Raises:
            Undecided: The request is an error, or may be one.
        """
        meta = params.get("_meta")
        is_modern = method != "initialize" and is_object(meta) and _VERSION in meta
        if self._opening_request is not None and is_modern != (self.revision == self._modern):
            raise Undecided
        if method == "initialize":
            shape, revision = _INITIALIZE, params.get("protocolVersion")
        elif is_modern:
            shape, revision = _MODERN_REQUEST, params["_meta"][_VERSION]
        elif self.revision or method == "ping":
            shape, revision = _LEGACY_REQUEST, self.revision
        else:
            raise Undecided
        if not fits(params, shape) or (is_modern and revision != self._modern):
            raise Undecided
        is_known = is_modern or (revision in self._answers and revision != self._modern)
        return str(revision) if is_known else self._latest_legacy

    def _refuse(self, refusal: "Object") -> bytes:
        self._note(f"kiro-mcp refused a message: {refusal['error']['message']}")
        return _encode(refusal)


class Handover:
    """The state that the SDK server takes over."""

    def __init__(self, start: FastStart, lines: "list[Line]", splitter: LineSplitter) -> None:
        """Take the session, the unanswered lines, and the splitter with the rest of the bytes."""
        self.revision = start.revision
        self.taken_at = time.monotonic()
        """When its lines were read; loading the SDK server comes after that."""
        self.lines = [*start.opening, *lines]
        self.splitter = splitter


def serve_until_undecided(read_fd: int = 0, write_fd: int = 1) -> Handover | None:
    """Answer lines until the SDK server is needed; return None when the client has left."""
    with open(os.path.join(os.path.dirname(__file__), "faststart.json"), "rb") as file:
        start = FastStart(read_answers(file.read()), note)
    splitter = LineSplitter()
    while chunk := _read(read_fd, write_fd):
        lines = splitter.feed(chunk)
        for number, line in enumerate(lines):
            try:
                answer = start.answer(line)
            except Undecided:
                return Handover(start, lines[number:], splitter)
            if answer and not _write(write_fd, answer):
                return None
    rest = splitter.rest()  # The last line may have no line end.
    try:
        _write(write_fd, start.answer(rest))
    except Undecided:
        return Handover(start, [rest], splitter)
    return None


def end_at_once_on_sigterm() -> None:
    """Exit as the SDK server does after SIGTERM. There is nothing to clean up here."""

    def end(number: int, frame: object) -> None:
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def read_answers(data: bytes) -> "dict[str, Object]":
    """Read the packaged answers. A revision may name another one that answers the same."""
    stored: dict[str, Object] = json.loads(data)
    return {
        revision: {
            method: stored[answer][method] if isinstance(answer, str) else answer
            for method, answer in answers.items()
        }
        for revision, answers in stored.items()
    }


def decode(line: "Line") -> str:
    """Return a line as text, without a byte order mark. Bytes that are not UTF-8 become U+FFFD."""
    return line.decode("utf-8", errors="replace").removeprefix("\ufeff").strip()


def is_object(value: object) -> "TypeGuard[Object]":
    """Whether a value is a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> "TypeGuard[list[Any]]":
    """Whether a value is a JSON array."""
    return isinstance(value, list)


def is_id(value: object) -> bool:
    """Whether a value can be the id of a request."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def fits(value: object, shape: "Any") -> bool:
    """Whether a value certainly has a shape."""
    if is_object(shape):
        if not is_object(value):
            return False
        if "*" in shape:
            return all(fits(one, shape["*"]) for one in value.values())
        for name, inner in shape.items():
            member = name.removesuffix("!")
            if not (fits(value[member], inner) if member in value else name == member):
                return False
        return True
    if shape is None or (isinstance(value, bool) and shape is not bool):
        return False
    return isinstance(value, shape)


def not_json(text: str, error: ValueError | RecursionError) -> "Object":
    """Refuse text that cannot be read as JSON."""
    why = "it nests too deeply, or contains a number with too many digits"
    if isinstance(error, json.JSONDecodeError):
        why = f"{error.msg} at character {error.pos + 1}"
    return refuse(PARSE_ERROR, f"Parse error: this line is not readable as JSON ({why}).", text)


def refuse_message(message: object) -> "Object | None":
    """Return the error for JSON that is not a message of JSON-RPC 2.0, or None if it may be one."""
    if not is_object(message):
        return refuse(INVALID_REQUEST, "Invalid request: a message is a JSON object.", message)
    if TOO_LONG in message:
        text = f"Invalid request: a line must not have more than {MAX_LINE_BYTES} bytes."
        request_id = message.get("id")
        return refuse(
            INVALID_REQUEST, text, message[TOO_LONG], request_id if is_id(request_id) else None
        )
    if message.get("jsonrpc") != "2.0":
        return refuse(INVALID_REQUEST, 'Invalid request: `jsonrpc` must be "2.0".', message)
    if "id" in message and not is_id(message["id"]):
        method = message.get("method")
        if not (isinstance(method, str) and method.startswith("notifications/")):
            text = "Invalid request: `id` must be a string or an integer."
            return refuse(INVALID_REQUEST, text, message)
    return None


def refuse_batch(messages: "list[Any]", revision: str) -> "Object | None":
    """Return the error for a batch that is empty or does not exist at a revision."""
    if revision != BATCH_REVISION:
        text = f"Invalid request: only MCP {BATCH_REVISION} has batches. Send one message a line."
        return refuse(INVALID_REQUEST, text, messages)
    return None if messages else refuse(INVALID_REQUEST, "Invalid request: empty batch.", messages)


def refuse(code: int, text: str, what: object, request_id: object = None) -> "Object":
    """Return a JSON-RPC error that quotes the start of the refused value."""
    quoted = (what if isinstance(what, str) else json.dumps(what))[:_QUOTED_CHARACTERS]
    return {
        "jsonrpc": "2.0",
        "id": request_id,
        "error": {"code": code, "message": text, "data": quoted},
    }


def _encode(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def note(line: str) -> None:
    """Write a line to standard error, if it can be written."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, AttributeError):  # Its reader is gone, or the process has no stderr.
        pass


def _read(read_fd: int, write_fd: int) -> bytes:
    """Return the next bytes; b"" if the client has closed either end."""
    try:
        if hasattr(select, "poll"):
            # Wait for both, to notice also a client that closes only its reading end.
            poll = select.poll()
            poll.register(read_fd, select.POLLIN)
            poll.register(write_fd, 0)
            gone = select.POLLERR | select.POLLHUP
            if any(fd == write_fd and event & gone for fd, event in poll.poll()):
                return b""
        return os.read(read_fd, CHUNK_BYTES)
    except OSError:
        return b""


def _write(write_fd: int, data: bytes) -> bool:
    """Write all data; return False if nobody reads any more."""
    left = memoryview(data)
    try:
        while left:
            if hasattr(select, "poll"):  # The descriptor may be in non-blocking mode.
                poll = select.poll()
                poll.register(write_fd, select.POLLOUT)
                poll.poll()
            left = left[os.write(write_fd, left[:PIECE_BYTES]) :]
    except OSError:
        return False
    return True
