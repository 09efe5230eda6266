"""The caller's tools as an MCP server on this machine, which the program calls.

One listener on 127.0.0.1 with a random port serves all sessions. Each session has a path and a
bearer of its own; a request with an `Origin`, another `Host` or another bearer gets 403 or 404.
The server knows `initialize`, `ping`, `tools/list` and `tools/call`, as plain JSON answers.

A `tools/call` is *held*: the caller of kiro-mcp runs the tool, and its next call brings the result.
If the program drops the connection meanwhile and makes the same call again, the held call goes on
with that connection.
"""

import logging
import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import TaskStatus

from kiro_mcp._version import __version__
from kiro_mcp.chat import JsonObject, JsonValue, ToolSpec
from kiro_mcp.redaction import remember_secret
from kiro_mcp.web_server import listen, on_disconnect, serve
from kiro_mcp.wire.json_values import (
    UnreadableError,
    json_bytes,
    object_member,
    parse_object,
    word_member,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest request: the arguments of one call."""

MAX_HELD: Final = 256
"""How many calls of a session may be held; a further one gets an error."""

REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

_PURPOSE: Final = "__tool_use_purpose"
"""A member that the program adds to arguments."""


@dataclass(slots=True, eq=False)
class HeldCall:
    """A call that waits for its result."""

    id: str
    name: str
    arguments: JsonObject
    is_dropped: bool = False
    """Whether the program no longer waits for it."""
    done: anyio.Event = field(default_factory=anyio.Event)
    text: str = ""
    is_error: bool = False

    def resolve(self, text: str, *, is_error: bool = False) -> None:
        """Give it its result; only the first one counts."""
        if not self.done.is_set():
            self.text, self.is_error = text, is_error
            self.done.set()


class ToolDesk:
    """The tools of one session, and the calls that are held.

    Args:
        tools: The tools, as they are declared.
        on_call: Is told when a call arrives.
    """

    def __init__(self, tools: Sequence[ToolSpec], on_call: Callable[[], None]) -> None:
        self.calls: list[HeldCall] = []
        """The calls of the round that waits for its results, and those that came after it."""
        self.url = ""
        """The URL for the program; "" until a bridge serves the tools."""
        self.bearer = secrets.token_hex(32)
        self.refusal = ""
        """What every new call is told instead of being held; "" holds it."""
        remember_secret(self.bearer)
        self._names = {tool.name for tool in tools}
        self._on_call = on_call
        self.declared: list[JsonValue] = [
            {
                "name": tool.name,
                "description": tool.description,
                "inputSchema": {"type": "object", **tool.input_schema},
            }
            for tool in tools
        ]

    def refuse(self, text: str) -> None:
        """Answer all held calls and all later ones with a text instead of their results."""
        self.refusal = text
        for held in self.calls:
            held.resolve(text)

    async def call(self, params: JsonObject) -> JsonObject:
        """Hold a call until it has its result. It is cancelled when its connection is gone."""
        name = word_member(params, "name")
        arguments = {**object_member(params, "arguments")}
        arguments.pop(_PURPOSE, None)
        if name not in self._names:
            return _result(f"The tool {name[:80]!r} is not known.", is_error=True)
        for held in self.calls:
            if held.is_dropped and (held.name, held.arguments) == (name, arguments):
                break
        else:
            if self.refusal or len(self.calls) >= MAX_HELD:
                return _result(self.refusal or "Too many calls at once.", is_error=not self.refusal)
            held = HeldCall(f"tooluse_{secrets.token_hex(12)}", name, arguments)
            self.calls.append(held)
        held.is_dropped = False
        self._on_call()
        began_at = anyio.current_time()
        try:
            await held.done.wait()
        except anyio.get_cancelled_exc_class():
            held.is_dropped = True
            age = anyio.current_time() - began_at
            logger.warning("kiro-cli dropped a tool call after %.1f seconds", age)
            raise
        return _result(held.text, is_error=held.is_error)


class Bridge:
    """The listener, which `run` serves, with the desks of the sessions."""

    def __init__(self) -> None:
        self._desks: dict[str, ToolDesk] = {}
        self._port = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen on a random port until it is cancelled."""
        listener = listen("127.0.0.1", 0)
        self._port = listener.getsockname()[1]
        async with serve(self, listener, logger=logger):
            task_status.started()
            await anyio.sleep_forever()

    @contextmanager
    def serving(self, desk: ToolDesk) -> Generator[None]:
        """Serve the tools of a session; at the end its held calls get an error."""
        path = f"/s/{secrets.token_hex(16)}"
        desk.url = f"http://127.0.0.1:{self._port}{path}"
        self._desks[path] = desk
        try:
            yield
        finally:
            del self._desks[path]
            for held in desk.calls:
                held.resolve("The session has ended.", is_error=True)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer an HTTP request (ASGI)."""
        headers = dict(scope["headers"])
        desk = self._desks.get(scope["path"])
        given = headers.get(b"authorization", b"")
        if desk is None or not secrets.compare_digest(given, f"Bearer {desk.bearer}".encode()):
            return await _respond(send, 404)
        if b"origin" in headers or headers.get(b"host") != f"127.0.0.1:{self._port}".encode():
            return await _respond(send, 403)
        if scope["method"] != "POST":
            return await _respond(send, 405)
        body = bytearray()
        has_more = True
        while has_more:
            event = await receive()
            if event["type"] != "http.request":
                return None
            body += event.get("body", b"")
            has_more = event.get("more_body", False)
            if len(body) > MAX_BODY_BYTES:
                return await _respond(send, 413)
        try:
            message = parse_object(bytes(body))
        except UnreadableError:
            return await _respond(send, 400)
        if "id" not in message or not isinstance(message.get("method"), str):
            return await _respond(send, 202)  # A notification, or a response to nothing of ours.
        answer: JsonObject = {}
        with anyio.CancelScope() as holding, on_disconnect(scope, holding.cancel):
            answer = await _answer(desk, message)
        if not answer:
            return None  # The program has dropped the connection.
        whole: JsonObject = {"jsonrpc": "2.0", "id": message["id"], **answer}
        return await _respond(send, 200, json_bytes(whole))


async def _answer(desk: ToolDesk, message: JsonObject) -> JsonObject:
    params = object_member(message, "params")
    match message["method"]:
        case "initialize":
            wanted = word_member(params, "protocolVersion")
            result: JsonObject = {
                "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "kiro-mcp", "version": __version__},
            }
        case "ping":
            result = {}
        case "tools/list":
            result = {"tools": desk.declared}
        case "tools/call":
            result = await desk.call(params)
        case unknown:
            text = f"Method not found: {str(unknown)[:80]}"
            return {"error": {"code": -32601, "message": text}}
    return {"result": result}


async def _respond(send: "Send", status: int, body: bytes = b"") -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _result(text: str, *, is_error: bool) -> JsonObject:
    return {"content": [{"type": "text", "text": text}], "isError": is_error}
