"""The emulator as one ASGI application, for all the hosts of the service at once.

A client whose endpoints are overridden keeps their paths and headers, so those tell the hosts
apart. Each request becomes a `SeenRequest`, is recorded, goes to its operation, and the script
that comes back is played::

    HTTP request ──► SeenRequest ──► operation ──► script ──► HTTP answer
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kiro_mcp.emulator import management, signin
from kiro_mcp.emulator.frames import initial_response
from kiro_mcp.emulator.generate import generate
from kiro_mcp.emulator.playing import ScriptedAnswer
from kiro_mcp.emulator.refusals import BODY_INVALID, BODY_TOO_LARGE, UNKNOWN_OPERATION, Refusal
from kiro_mcp.emulator.shapes import WireForm
from kiro_mcp.emulator.state import (
    GENERATE,
    MAX_RECORDED_BODY_BYTES,
    EmulatorState,
    SeenRequest,
)
from kiro_mcp.emulator.steps import Script

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest body that is looked at."""

Handler: TypeAlias = Callable[[EmulatorState, SeenRequest], Script]
Endpoint: TypeAlias = Callable[[Request], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Operation:
    """Something the service does, under whatever address."""

    name: str
    handle: Handler


_LIST_MODELS: Final = Operation("ListAvailableModels", management.list_models)
_USAGE_LIMITS: Final = Operation("GetUsageLimits", management.usage_limits)
_LIST_PROFILES: Final = Operation("ListAvailableProfiles", management.list_profiles)
_GET_PROFILE: Final = Operation("GetProfile", management.get_profile)
_GENERATE_REST: Final = Operation(GENERATE, partial(generate, form=WireForm.REST))
_GENERATE_RPC: Final = Operation(GENERATE, partial(generate, form=WireForm.RPC_GENERATE))
_SEND_RPC: Final = Operation(GENERATE, partial(generate, form=WireForm.RPC_SEND))

PATHS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/generateAssistantResponse"): _GENERATE_REST,
    ("GET", "/List-Available-Models"): _LIST_MODELS,
    ("GET", "/ListAvailableModels"): _LIST_MODELS,
    ("GET", "/Get-Usage-Limits"): _USAGE_LIMITS,
    ("GET", "/getUsageLimits"): _USAGE_LIMITS,
    ("POST", "/List-Available-Profiles"): _LIST_PROFILES,
    ("POST", "/ListAvailableProfiles"): _LIST_PROFILES,
    ("POST", "/client/register"): Operation("RegisterClient", signin.register_client),
    ("POST", "/device_authorization"): Operation("StartDeviceLogin", signin.start_device_login),
    ("POST", "/token"): Operation("CreateToken", signin.create_token),
    ("POST", "/refreshToken"): Operation("RefreshToken", signin.refresh_desktop_token),
    ("POST", "/oauth/device/authorization"): Operation(
        "StartDesktopLogin", signin.start_desktop_login
    ),
    ("POST", "/oauth/device/poll"): Operation("PollDesktopLogin", signin.poll_desktop_login),
    ("POST", "/logout"): Operation("Logout", signin.log_out),
}
"""The operations that a path names."""

TARGETS: Final[Mapping[str, Operation]] = {
    "AmazonCodeWhispererStreamingService.GenerateAssistantResponse": _GENERATE_RPC,
    "AmazonCodeWhispererStreamingService.SendMessage": _SEND_RPC,
    "AmazonQDeveloperStreamingService.SendMessage": _SEND_RPC,
    "AmazonCodeWhispererService.ListAvailableModels": _LIST_MODELS,
    "AmazonCodeWhispererService.GetUsageLimits": _USAGE_LIMITS,
    "AmazonCodeWhispererService.ListAvailableProfiles": _LIST_PROFILES,
    "AmazonCodeWhispererService.GetProfile": _GET_PROFILE,
}
"""The operations that the header `X-Amz-Target` names, at the path `/`."""


def build_app(state: EmulatorState | None = None) -> Starlette:
    """Build an emulator around the state that will show what it saw."""
    state = EmulatorState() if state is None else state
    routes = [
        Route(path, _endpoint(state, lambda _request, found=operation: found), methods=[method])
        for (method, path), operation in PATHS.items()
    ]
    return Starlette(routes=[*routes, Route("/", _endpoint(state, _by_target), methods=["POST"])])


def _by_target(request: Request) -> Operation:
    target = request.headers.get("x-amz-target", "")
    return TARGETS.get(target) or Operation("", _unknown_operation)


def _unknown_operation(_state: EmulatorState, _request: SeenRequest) -> Script:
    return (UNKNOWN_OPERATION,)


def _endpoint(state: EmulatorState, operation_of: Callable[[Request], Operation]) -> Endpoint:
    async def endpoint(request: Request) -> ASGIApp:
        operation = operation_of(request)
        try:
            raw = await _read(request)
        except ClientDisconnect:
            state.client_left_early()
            return Response()
        seen, refusal = _see(request, operation, raw)
        is_small = seen.size_bytes <= MAX_RECORDED_BODY_BYTES
        state.record(seen if is_small else replace(seen, body=None))
        script = (refusal,) if refusal else _script_of(state, operation, seen)
        return ScriptedAnswer(
            state,
            seen,
            script,
            headers={"x-amzn-requestid": f"00000000-0000-4000-8000-{state.next_id():012d}"},
            preface=initial_response() if seen.is_rpc else b"",
        )

    return endpoint


async def _read(request: Request) -> bytes:
    """The whole body; of one that is too large, the first bytes beyond the limit too.

    The rest is dropped as it comes: a client that still sends would not read the refusal.
    """
    body = bytearray()
    async for chunk in request.stream():
        if len(body) <= MAX_BODY_BYTES:
            body += chunk
    return bytes(body)


def _see(request: Request, operation: Operation, raw: bytes) -> tuple[SeenRequest, Refusal | None]:
    body, refusal = _parse(raw) if request.method == "POST" else (None, None)
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
    return seen, refusal


def _parse(raw: bytes) -> tuple[object, Refusal | None]:
    if len(raw) > MAX_BODY_BYTES:
        return None, BODY_TOO_LARGE
    try:
        return json.loads(raw.decode(), parse_constant=_no_constant), None
    except (ValueError, RecursionError):
        return None, BODY_INVALID


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _script_of(state: EmulatorState, operation: Operation, request: SeenRequest) -> Script:
    if operation.name == GENERATE:
        return operation.handle(state, request)
    return state.take_queued(operation.name) or operation.handle(state, request)
