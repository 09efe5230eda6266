"""The emulator as one ASGI application for all hosts of the service, and the server that runs it.

A client with overridden endpoints keeps their paths and headers, so these identify the operation.
Each request becomes a `SeenRequest`, which is recorded and passed to its operation. The operation
returns a script, which is played::

    HTTP request ──► SeenRequest ──► operation ──► script ──► HTTP answer
"""

import ipaddress
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope
from starlette.types import Send as AsgiSend

from kiro_mcp.emulator import frames, operations, refusals
from kiro_mcp.emulator.refusals import KAS_NAMESPACE, NAMESPACE, Refusal, Refused
from kiro_mcp.emulator.scripts import Cut, HttpAnswer, Pause, Script, Send, Until, json_answer
from kiro_mcp.emulator.state import (
    GENERATE,
    MAX_RECORDED_BODY_BYTES,
    EmulatorState,
    SeenRequest,
)
from kiro_mcp.web_server import listen, serve

EVENT_STREAM: Final = "application/vnd.amazon.eventstream"

_SILENT: Final = logging.getLogger("kiro_mcp.emulator.http")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # A script may cut a connection on purpose, which needs no log.

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest body that is parsed."""


_Operation: TypeAlias = Callable[[EmulatorState, SeenRequest], Script | dict[str, Any]]

OPERATIONS: Final[Mapping[str, _Operation]] = {
    GENERATE: operations.generate,
    "InvokeMCP": operations.invoke_mcp,
    "ListAvailableModels": operations.list_models,
    "GetUsageLimits": operations.usage_limits,
    "ListAvailableProfiles": operations.list_profiles,
    "GetProfile": operations.get_profile,
    "RegisterClient": operations.register_client,
    "StartDeviceLogin": operations.start_device_login,
    "CreateToken": operations.create_token,
    "RefreshToken": operations.refresh_desktop_token,
    "StartDesktopLogin": operations.start_desktop_login,
    "PollDesktopLogin": operations.poll_desktop_login,
    "Logout": operations.log_out,
}

PATHS: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/generateAssistantResponse"): GENERATE,
    ("GET", "/List-Available-Models"): "ListAvailableModels",
    ("GET", "/ListAvailableModels"): "ListAvailableModels",
    ("GET", "/Get-Usage-Limits"): "GetUsageLimits",
    ("GET", "/getUsageLimits"): "GetUsageLimits",
    ("POST", "/List-Available-Profiles"): "ListAvailableProfiles",
    ("POST", "/ListAvailableProfiles"): "ListAvailableProfiles",
    ("POST", "/client/register"): "RegisterClient",
    ("POST", "/device_authorization"): "StartDeviceLogin",
    ("POST", "/token"): "CreateToken",
    ("POST", "/refreshToken"): "RefreshToken",
    ("POST", "/oauth/device/authorization"): "StartDesktopLogin",
    ("POST", "/oauth/device/poll"): "PollDesktopLogin",
    ("POST", "/logout"): "Logout",
}
"""The operations that a path names."""

TARGETS: Final[Mapping[str, str]] = {
    "AmazonCodeWhispererStreamingService.GenerateAssistantResponse": GENERATE,
    "AmazonCodeWhispererStreamingService.SendMessage": GENERATE,
    "AmazonQDeveloperStreamingService.SendMessage": GENERATE,
    "KiroRuntimeService.GenerateAssistantResponse": GENERATE,
    "KiroRuntimeService.InvokeMCP": "InvokeMCP",
    "KiroControlPlaneBearerService.ListAvailableModels": "ListAvailableModels",
    "AmazonCodeWhispererService.ListAvailableModels": "ListAvailableModels",
    "AmazonCodeWhispererService.GetUsageLimits": "GetUsageLimits",
    "AmazonCodeWhispererService.ListAvailableProfiles": "ListAvailableProfiles",
    "AmazonCodeWhispererService.GetProfile": "GetProfile",
}
"""The operations that the header `X-Amz-Target` names, at the path `/`."""


def build_app(state: EmulatorState | None = None) -> Starlette:
    """Build an emulator that uses, and records requests in, the given state."""
    route = Route("/{path:path}", partial(_answer, EmulatorState() if state is None else state))
    route.methods = set()  # All of them.
    return Starlette(routes=[route])


def _unknown(_state: EmulatorState, request: SeenRequest) -> Script:
    if not request.is_rpc:
        return (HttpAnswer(status=404, body=b"Not Found"),)
    if not request.is_kas:
        raise Refused(refusals.UNKNOWN_OPERATION)
    target = request.headers["x-amz-target"]
    known = ", ".join(name for name in TARGETS if name.startswith("Kiro"))
    message = f"{target!r:.80} is not one of {known}."
    raise Refused(replace(refusals.UNKNOWN_OPERATION, status=400, message=message))


async def _answer(state: EmulatorState, request: Request) -> ASGIApp:
    """Read a request, record it, and return its script, ready to be played."""
    raw = bytearray()
    try:
        # The rest of a body that is too large is read and dropped: a client that is still sending
        # would not read the refusal.
        async for chunk in request.stream():
            if len(raw) <= MAX_BODY_BYTES:
                raw += chunk
    except ClientDisconnect:
        state.client_left_early()
        return Response()

    body, refusal = None, None
    if len(raw) > MAX_BODY_BYTES:
        refusal = refusals.BODY_TOO_LARGE
    elif request.method == "POST":
        try:
            body = json.loads(raw.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            refusal = refusals.BODY_INVALID
    is_rpc = request.method == "POST" and request.url.path == "/"
    name = TARGETS.get(request.headers.get("x-amz-target", "")) if is_rpc else None
    seen = SeenRequest(
        operation=name or PATHS.get((request.method, request.url.path), ""),
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers=dict(request.headers),
        body=body,
        size_bytes=len(raw),
        is_rpc=is_rpc,
    )
    state.record(seen if len(raw) <= MAX_RECORDED_BODY_BYTES else replace(seen, body=None))

    try:
        if refusal:
            raise Refused(refusal)
        # A prompt takes an enqueued script itself, after its checks.
        script = () if seen.operation == GENERATE else state.take_queued(seen.operation)
        script = script or OPERATIONS.get(seen.operation, _unknown)(state, seen)
        if isinstance(script, dict):
            script = json_answer(script)
    except Refused as error:
        script = (error.refusal,)
    return _ScriptPlayer(state, seen, script)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class _ScriptPlayer:
    """An ASGI app that plays the script of one request, until its client disconnects."""

    def __init__(self, state: EmulatorState, request: SeenRequest, script: Script) -> None:
        namespace = KAS_NAMESPACE if request.is_kas else NAMESPACE
        self._namespace = namespace if request.is_rpc else ""
        self._state = state
        self._script = script
        self._headers = {"x-amzn-requestid": f"00000000-0000-4000-8000-{state.next_id():012d}"}
        self._has_begun = False
        self._is_over = False
        self._has_client_left = False

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        self._state.stream_opened()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, receive, tasks.cancel_scope)
                await self._play(scope, receive, send)
                self._is_over = True
                tasks.cancel_scope.cancel()
        finally:
            self._state.stream_closed(by_client=self._has_client_left)

    async def _watch(self, receive: Receive, play: anyio.CancelScope) -> None:
        await receive()  # The request has been read, so only a disconnect can come.
        if not self._is_over:
            self._has_client_left = True
            play.cancel()

    async def _play(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        for step in self._script:
            match step:
                case Send():
                    await self._send(send, step.data)
                case Pause():
                    await anyio.sleep(step.seconds)
                case Until(prompts):
                    await self._state.until(lambda state: state.prompts >= prompts)
                case Cut():
                    await self._send(send, b"")
                    return
                case HttpAnswer() | Refusal():
                    self._is_over = True
                    response = step.to_response(self._namespace)
                    response.headers.update(self._headers)
                    await response(scope, receive, send)
                    return
        await self._send(send, b"")
        self._is_over = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: AsgiSend, data: bytes) -> None:
        """Send bytes of the body in chunks; before the first ones, the HTTP head."""
        if not self._has_begun:
            self._has_begun = True
            headers = {"content-type": EVENT_STREAM, **self._headers}
            head = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            if self._namespace:
                await self._send(send, frames.initial_response())
        size = self._state.chunk_bytes
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await checkpoint()  # Let a client in the same event loop read the chunk.


# --- on a port


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEmulator:
    """An emulator on a port."""

    url: str
    """Such as `http://127.0.0.1:43210`, without a slash at the end."""
    state: EmulatorState


@asynccontextmanager
async def running(
    state: EmulatorState | None = None, *, port: int = 0, host: str = "127.0.0.1"
) -> AsyncGenerator[RunningEmulator]:
    """Serve the emulator while the block runs; port 0 takes a free one.

    Raises:
        ValueError: The host is not an IPv4 loopback address.
        OSError: The port is taken.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"The emulator serves IPv4 loopback addresses only, not {host!r}.")
    state = state or EmulatorState()
    listener = listen(address, port)
    async with serve(build_app(state), listener, logger=_SILENT):
        host, port = listener.getsockname()
        yield RunningEmulator(url=f"http://{host}:{port}", state=state)
