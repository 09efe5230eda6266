"""The caller's tools as an MCP server on this machine, which the program calls.

One listener on 127.0.0.1 with a random port serves all sessions. Each session has a path and a
bearer of its own; a request with an `Origin`, another `Host` or another bearer gets 403 or 404.
The server knows `initialize`, `ping`, `tools/list` and `tools/call`, as plain JSON answers.

A `tools/call` is *held*: the caller of kiro-mcp runs the tool, and its next call brings the result.
If the program drops the connection meanwhile and makes the same call again, the held call goes on
with that connection.
"""

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import TaskStatus

from kiro_mcp._version import __version__
from kiro_mcp.acp.dialects import ToolServer
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


@dataclass(slots=True, kw_only=True, eq=False)
class HeldCall:
    """A call that waits for its result."""

    id: str
    name: str
    arguments: JsonObject
    began_at: float
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
        on_change: Is told of each call that arrives or is dropped.
    """

    def __init__(self, tools: Sequence[ToolSpec], on_change: Callable[[HeldCall], None]) -> None:
        self.calls: list[HeldCall] = []
        """The calls since the last round was handed over, and those of that round."""
        self.path = f"/s/{secrets.token_hex(16)}"
        self.bearer = secrets.token_hex(32)
        self.refusal = ""
        """What every new call is told instead of being held; "" holds it."""
        remember_secret(self.bearer)
        self._names = {tool.name for tool in tools}
        self._on_change = on_change
        self.declared: list[JsonValue] = [
            {
                "name": tool.name,
                "description": tool.description,
                "inputSchema": {"type": "object", **tool.input_schema},
            }
            for tool in tools
        ]

    async def call(self, params: JsonObject, dropped: anyio.Event) -> JsonObject:
        """Hold a call until it has its result, or its connection is gone."""
        name = word_member(params, "name")
        arguments = {**object_member(params, "arguments")}
        arguments.pop(_PURPOSE, None)
        if name not in self._names:
            return _result(f"The tool {name[:80]!r} is not known.", is_error=True)
        again = (
            it
            for it in self.calls
            if it.is_dropped and (it.name, it.arguments) == (name, arguments)
        )
        held = next(again, None)
        if held is None and (self.refusal or len(self.calls) >= MAX_HELD):
            return _result(self.refusal or "Too many calls at once.", is_error=not self.refusal)
        if held is None:
            call_id = f"tooluse_{secrets.token_hex(12)}"
            held = HeldCall(
                id=call_id, name=name, arguments=arguments, began_at=anyio.current_time()
            )
            self.calls.append(held)
        held.is_dropped = False
        self._on_change(held)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(_first, waiting.cancel_scope, held.done)
            waiting.start_soon(_first, waiting.cancel_scope, dropped)
        if not held.done.is_set():
            held.is_dropped = True
            age = anyio.current_time() - held.began_at
            logger.warning("kiro-cli dropped a tool call after %.1f seconds", age)
            self._on_change(held)
        return _result(held.text, is_error=held.is_error)


class Bridge:
    """The listener, which `run` serves; `open` and `close` add and remove desks."""

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

    def open(self, desk: ToolDesk) -> ToolServer:
        """Serve the tools of a session; return where."""
        self._desks[desk.path] = desk
        return ToolServer(url=f"http://127.0.0.1:{self._port}{desk.path}", bearer=desk.bearer)

    def close(self, desk: ToolDesk) -> None:
        """Stop serving the tools of a session; its held calls get an error."""
        self._desks.pop(desk.path, None)
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
        answer: JsonObject = {"jsonrpc": "2.0", "id": message["id"]}
        dropped = anyio.Event()
        with on_disconnect(scope, dropped.set):
            result = await _answer(desk, message, dropped)
        if result is None:
            name = str(message["method"])[:80]
            answer["error"] = {"code": -32601, "message": f"Method not found: {name}"}
        else:
            answer["result"] = result
        return None if dropped.is_set() else await _respond(send, 200, json_bytes(answer))


async def _answer(desk: ToolDesk, message: JsonObject, dropped: anyio.Event) -> JsonObject | None:
    params = object_member(message, "params")
    match message["method"]:
        case "initialize":
            wanted = word_member(params, "protocolVersion")
            return {
                "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[-1],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "kiro-mcp", "version": __version__},
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": desk.declared}
        case "tools/call":
            return await desk.call(params, dropped)
        case _:
            return None


async def _first(scope: anyio.CancelScope, event: anyio.Event) -> None:
    await event.wait()
    scope.cancel()


async def _respond(send: "Send", status: int, body: bytes = b"") -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _result(text: str, *, is_error: bool) -> JsonObject:
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def arguments_text(arguments: JsonObject) -> str:
    """Return the arguments of a call as JSON."""
    return json.dumps(arguments, ensure_ascii=False)
