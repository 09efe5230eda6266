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
from typing import Final, assert_never

import anyio
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope
from starlette.types import Send as AsgiSend

from kiro_mcp.emulator import operations
from kiro_mcp.emulator.frames import initial_response
from kiro_mcp.emulator.refusals import (
    BODY_INVALID,
    BODY_TOO_LARGE,
    KAS_NAMESPACE,
    NAMESPACE,
    UNKNOWN_OPERATION,
    Refusal,
)
from kiro_mcp.emulator.request import WireForm
from kiro_mcp.emulator.scripts import Cut, HttpAnswer, Pause, Script, Send, Until
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


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the service, independent of its address."""

    name: str
    handle: Callable[[EmulatorState, SeenRequest], Script]


_LIST_MODELS: Final = Operation("ListAvailableModels", operations.list_models)
_LIST_MODELS_KAS: Final = Operation("ListAvailableModels", operations.list_models_in_kas)
_USAGE_LIMITS: Final = Operation("GetUsageLimits", operations.usage_limits)
_LIST_PROFILES: Final = Operation("ListAvailableProfiles", operations.list_profiles)
_GET_PROFILE: Final = Operation("GetProfile", operations.get_profile)
_INVOKE_MCP: Final = Operation("InvokeMCP", operations.invoke_mcp)
_GENERATE_REST: Final = Operation(GENERATE, partial(operations.generate, form=WireForm.REST))
_GENERATE_RPC: Final = Operation(GENERATE, partial(operations.generate, form=WireForm.RPC_GENERATE))
_SEND_RPC: Final = Operation(GENERATE, partial(operations.generate, form=WireForm.RPC_SEND))
_UNKNOWN: Final = Operation(
    "", lambda _state, _request: (HttpAnswer(status=404, body=b"Not Found"),)
)
_GENERATE_KAS: Final = Operation(GENERATE, partial(operations.generate, form=WireForm.KAS))

PATHS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/generateAssistantResponse"): _GENERATE_REST,
    ("GET", "/List-Available-Models"): _LIST_MODELS,
    ("GET", "/ListAvailableModels"): _LIST_MODELS,
    ("GET", "/Get-Usage-Limits"): _USAGE_LIMITS,
    ("GET", "/getUsageLimits"): _USAGE_LIMITS,
    ("POST", "/List-Available-Profiles"): _LIST_PROFILES,
    ("POST", "/ListAvailableProfiles"): _LIST_PROFILES,
    ("POST", "/client/register"): Operation("RegisterClient", operations.register_client),
    ("POST", "/device_authorization"): Operation("StartDeviceLogin", operations.start_device_login),
    ("POST", "/token"): Operation("CreateToken", operations.create_token),
    ("POST", "/refreshToken"): Operation("RefreshToken", operations.refresh_desktop_token),
    ("POST", "/oauth/device/authorization"): Operation(
        "StartDesktopLogin", operations.start_desktop_login
    ),
    ("POST", "/oauth/device/poll"): Operation("PollDesktopLogin", operations.poll_desktop_login),
    ("POST", "/logout"): Operation("Logout", operations.log_out),
}
"""The operations that a path names."""

TARGETS: Final[Mapping[str, Operation]] = {
    "AmazonCodeWhispererStreamingService.GenerateAssistantResponse": _GENERATE_RPC,
    "AmazonCodeWhispererStreamingService.SendMessage": _SEND_RPC,
    "AmazonQDeveloperStreamingService.SendMessage": _SEND_RPC,
    "KiroRuntimeService.GenerateAssistantResponse": _GENERATE_KAS,
    "KiroRuntimeService.InvokeMCP": _INVOKE_MCP,
    "KiroControlPlaneBearerService.ListAvailableModels": _LIST_MODELS_KAS,
    "AmazonCodeWhispererService.ListAvailableModels": _LIST_MODELS,
    "AmazonCodeWhispererService.GetUsageLimits": _USAGE_LIMITS,
    "AmazonCodeWhispererService.ListAvailableProfiles": _LIST_PROFILES,
    "AmazonCodeWhispererService.GetProfile": _GET_PROFILE,
}
"""The operations that the header `X-Amz-Target` names, at the path `/`."""


def build_app(state: EmulatorState | None = None) -> Starlette:
    """Build an emulator that uses, and records requests in, the given state."""
    state = EmulatorState() if state is None else state
    routes = [
        Route(path, partial(_answer, state, operation), methods=[method])
        for (method, path), operation in PATHS.items()
    ]
    by_target = Route("/", partial(_answer_target, state), methods=["POST"])
    others = Route("/{path:path}", partial(_answer, state, _UNKNOWN))
    others.methods = set()  # All of them.
    return Starlette(routes=[*routes, by_target, others])


async def _answer_target(state: EmulatorState, request: Request) -> ASGIApp:
    target = request.headers.get("x-amz-target", "")
    refusal = UNKNOWN_OPERATION
    if target.startswith("Kiro"):
        known = ", ".join(name for name in TARGETS if name.startswith("Kiro"))
        refusal = replace(refusal, status=400, message=f"{target!r:.80} is not one of {known}.")
    unknown = Operation("", lambda _state, _request: (refusal,))
    return await _answer(state, TARGETS.get(target) or unknown, request)


async def _answer(state: EmulatorState, operation: Operation, request: Request) -> ASGIApp:
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
        refusal = BODY_TOO_LARGE
    elif request.method == "POST":
        try:
            body = json.loads(raw.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            refusal = BODY_INVALID
    seen = SeenRequest(
        operation=operation.name,
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers=dict(request.headers),
        body=body,
        size_bytes=len(raw),
        is_rpc=request.url.path == "/",
    )
    state.record(seen if len(raw) <= MAX_RECORDED_BODY_BYTES else replace(seen, body=None))

    if refusal:
        script: Script = (refusal,)
    elif operation.name == GENERATE:
        script = operation.handle(state, seen)  # It takes enqueued scripts itself.
    else:
        script = state.take_queued(operation.name) or operation.handle(state, seen)
    return _ScriptPlayer(state, seen, script)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class _ScriptPlayer:
    """An ASGI app that plays the script of one request, until its client disconnects."""

    def __init__(self, state: EmulatorState, request: SeenRequest, script: Script) -> None:
        self._state = state
        self._is_rpc = request.is_rpc
        self._namespace = KAS_NAMESPACE if request.is_kas else NAMESPACE
        self._script = script
        self._headers = {"x-amzn-requestid": f"00000000-0000-4000-8000-{state.next_id():012d}"}
        self._has_begun = False
        self._is_over = False
        self._has_client_left = False

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Play the script to its end, or until the client disconnects."""
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
                    await self._begin(send)
                    return
                case HttpAnswer() | Refusal():
                    self._is_over = True
                    response = (
                        step.to_response(self._namespace if self._is_rpc else "")
                        if isinstance(step, Refusal)
                        else Response(step.body, step.status, dict(step.headers), step.content_type)
                    )
                    response.headers.update(self._headers)
                    await response(scope, receive, send)
                    return
                case _:
                    assert_never(step)
        await self._begin(send)
        self._is_over = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: AsgiSend) -> None:
        """Send the HTTP head of a stream, and the first frame of an RPC answer."""
        if self._has_begun:
            return
        self._has_begun = True
        headers = {"content-type": EVENT_STREAM, **self._headers}
        head = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        if self._is_rpc:
            await self._send(send, initial_response())

    async def _send(self, send: AsgiSend, data: bytes) -> None:
        await self._begin(send)
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
