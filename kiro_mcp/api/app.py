"""The routes of the APIs, and what is the same for all of them.

    read the body ─> read the question ─> ask, event by event ─> write
          400, 413          400           401 … 504, or an error event once the answer has begun

A streamed response begins with the first event of the answer, so an error before that has its own
status. If the model thinks for long, it begins with a keep-alive instead.

A client that leaves ends the request to the service. A client that reads slowly is waited for:
when `MAX_UNSENT_BYTES` wait for it, nothing more is read from the service.
"""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, nullcontext
from types import ModuleType
from typing import Any, Final, cast

import anyio
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from kiro_mcp.api import chat_completions, messages, responses
from kiro_mcp.api.errors import Api, api_error, error_of
from kiro_mcp.api.exchange import Emit, Event, Question, ask, events_of, read_request
from kiro_mcp.api.writing import Writer, json_bytes
from kiro_mcp.chat import JsonObject, ModelInfo, Reply
from kiro_mcp.client.off_loop import off_loop
from kiro_mcp.errors import InternalFault, InvalidRequest, KiroError, ServiceUnavailable, quoted
from kiro_mcp.web_server import on_disconnect
from kiro_mcp.wire.large_json import mend_escaped_surrogates
from kiro_mcp.wire.models import resolve_model

logger = logging.getLogger(__name__)

API_PATH: Final = "/v1"

KEEP_ALIVE_SECONDS: Final = 10.0
"""How long a stream may be silent. Proxies cut connections that are silent for 30 to 60 s."""

LARGE_BODY_BYTES: Final = 64 * 1024
"""From here on a body is parsed in a thread."""

MAX_UNSENT_BYTES: Final = 16 * 1024
"""How much of a stream may wait for its client here. The HTTP server keeps up to 64 KiB more."""

_MODELS_SINCE: Final = "2025-07-14T00:00:00Z"
"""The date of each model, which clients require and the service does not tell: Kiro's first day."""
_MODELS_SINCE_SECONDS: Final = 1752451200


def build_api(max_body_bytes: int, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> Router:
    """Build the application that serves both APIs, to be mounted at `API_PATH`.

    Args:
        max_body_bytes: The limit of a request's body.
        keep_alive_seconds: How long a stream may be silent.
    """

    async def count_tokens(request: Request) -> Response:
        try:
            question = messages.read(await read_body(request, max_body_bytes))
            async with request.state.engines.engine_for(request) as engine:
                asked = await read_request(question, engine)
                payload = await off_loop(lambda: engine.client.draft(asked), is_large=True)
        except KiroError as error:
            return _refuse(request, error)
        return JSONResponse({"input_tokens": payload.estimated_tokens})

    def post(path: str, shape: ModuleType) -> Route:
        endpoint = _Endpoint(shape, max_body_bytes, keep_alive_seconds)
        return Route(path, endpoint, methods=["POST"])

    return Router(
        [
            Route("/models", _list_models, methods=["GET"]),
            Route("/models/{name:path}", _get_model, methods=["GET"]),
            post("/chat/completions", chat_completions),
            post("/responses", responses),
            post("/messages", messages),
            Route("/messages/count_tokens", count_tokens, methods=["POST"]),
            Route("/{path:path}", _refuse_path, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
    )


async def read_body(request: Request, max_bytes: int) -> JsonObject:
    """Return the body of a request.

    Raises:
        InvalidRequest: It is too large, or not a JSON object.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise InvalidRequest(
                f"The body is larger than {max_bytes} bytes.",
                next_step="Send less, or raise KIRO_MCP_MAX_BODY_BYTES.",
                status=413,
            )
    data = b"".join(pieces)
    try:
        text = data.decode()
        body: Any = await off_loop(
            lambda: from_json(mend_escaped_surrogates(text)), is_large=size > LARGE_BODY_BYTES
        )
    except ValueError as error:
        raise InvalidRequest(
            f"The body is not JSON: {error}.", next_step="Send a JSON object."
        ) from None
    if not isinstance(body, dict):
        raise InvalidRequest("The body is not a JSON object.", next_step="Send a JSON object.")
    return cast("JsonObject", body)


# --- questions ------------------------------------------------------------------------------


class _Endpoint:
    """An ASGI application that answers the questions of one API."""

    def __init__(self, shape: ModuleType, max_body_bytes: int, keep_alive_seconds: float) -> None:
        self._shape = shape
        self._max_body_bytes = max_body_bytes
        self._keep_alive_seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request_id = f"req_{uuid.uuid4().hex}"
        try:
            body = await read_body(request, self._max_body_bytes)
            question: Question = self._shape.read(body)
            writer: Writer = self._shape.Writer(
                body, question, new_id=uuid.uuid4().hex, now=int(time.time())
            )
        except ClientDisconnect:
            return
        except KiroError as error:
            await _refuse(request, error, request_id)(scope, receive, send)
            return

        headers = {"x-request-id": request_id, "request-id": request_id}
        stream = _Stream(send, headers, writer) if question.is_streamed else None
        response: Response | None = None
        sending = stream.sending(self._keep_alive_seconds) if stream else nullcontext()
        with anyio.CancelScope() as call, on_disconnect(scope, call.cancel):
            async with sending:
                try:
                    reply = await _ask(request, question, stream.emit if stream else _ignore)
                except KiroError as error:
                    if stream and stream.has_begun:
                        said = api_error(error, api=_api_of(request), request_id=request_id)
                        await stream.end(writer.fail(said.body))
                    else:
                        response = _refuse(request, error, request_id)
                else:
                    if stream:
                        await stream.end(writer.end(reply))
                    else:
                        for event in events_of(reply):
                            writer.write(event)
                        whole = json_bytes(writer.whole(reply))
                        response = Response(whole, headers=headers, media_type="application/json")
                if response is not None:
                    await response(scope, receive, send)


async def _ask(request: Request, question: Question, emit: Emit) -> Reply:
    """Ask, and return a reply that did not break off.

    Raises:
        KiroError: Why there is none.
    """
    caller = request.client.host if request.client else ""
    with request.state.calls.running():
        try:
            async with request.state.engines.engine_for(request) as engine:
                reply = await ask(question, engine, emit, caller=caller)
        except KiroError:
            raise
        except Exception as error:
            logger.exception("%s failed", request.url.path)
            raise InternalFault.met_by("The request") from error
        if broken := error_of(reply):
            raise broken
        return reply
    raise ServiceUnavailable("The server is ending.", next_step="Call again later.")


class _Stream:
    """The body of a streamed response. What is ready at the same time is sent together."""

    def __init__(self, send: Send, headers: Mapping[str, str], writer: Writer) -> None:
        self.has_begun = False
        """Whether the status is decided."""
        self._send = send
        self._headers = headers
        self._writer = writer
        self._unsent = bytearray(writer.begin())
        self._added_at = time.monotonic()
        self._is_whole = False
        self._added, self._taken, self._ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def emit(self, event: Event) -> None:
        """Add an event of the answer."""
        data = self._writer.write(event)
        if data or not self.has_begun:
            await self._add(data)

    async def end(self, data: bytes) -> None:
        """Add the end, and wait until all is sent."""
        self._is_whole = True
        await self._add(data)
        await self._ended.wait()

    @asynccontextmanager
    async def sending(self, keep_alive_seconds: float) -> AsyncGenerator[None]:
        """Send what the block adds, and something whenever it adds nothing for so long."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_all)
            tasks.start_soon(self._keep_alive, keep_alive_seconds)
            yield
            tasks.cancel_scope.cancel()

    async def _keep_alive(self, seconds: float) -> None:
        while True:
            silent = time.monotonic() - self._added_at
            if silent < seconds:
                await anyio.sleep(seconds - silent)
            elif self.has_begun and self._unsent:
                await anyio.sleep(seconds)  # The client is slow to read, so it is not waiting.
            else:
                await self._add(self._writer.keep_alive)

    async def _send_all(self) -> None:
        await self._added.wait()
        head = {**self._headers, "content-type": "text/event-stream; charset=utf-8"}
        head |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
        raw = [(name.encode(), value.encode()) for name, value in head.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        is_last = False
        while not is_last:
            await self._added.wait()
            data, is_last = bytes(self._unsent), self._is_whole
            self._unsent.clear()
            self._taken.set()
            self._added, self._taken = anyio.Event(), anyio.Event()
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        self._ended.set()

    async def _add(self, data: bytes) -> None:
        self.has_begun = True
        self._unsent += data
        self._added_at = time.monotonic()
        self._added.set()
        while len(self._unsent) >= MAX_UNSENT_BYTES:
            await self._taken.wait()


async def _ignore(event: Event) -> None:
    pass


# --- models ---------------------------------------------------------------------------------


async def _list_models(request: Request) -> Response:
    try:
        async with request.state.engines.engine_for(request) as engine:
            models = (await engine.catalogue(refresh=False)).models
    except KiroError as error:
        return _refuse(request, error)
    listed = [_describe(model, request) for model in models]
    if _api_of(request) != "messages":
        return JSONResponse({"object": "list", "data": listed})
    first, last = (models[0].id, models[-1].id) if models else (None, None)
    return JSONResponse({"data": listed, "has_more": False, "first_id": first, "last_id": last})


async def _get_model(request: Request) -> Response:
    name: str = request.path_params["name"]
    try:
        async with request.state.engines.engine_for(request) as engine:
            models = (await engine.catalogue(refresh=False)).models
            choice = resolve_model(name, models, aliases=engine.settings.model_aliases)
        if not choice.is_listed:
            raise InvalidRequest(
                f"Unknown model {quoted(name)}.",
                next_step="GET /v1/models lists them.",
                code="model_unavailable",
            )
    except KiroError as error:
        return _refuse(request, error)
    return JSONResponse(_describe(choice.model, request))


def _describe(model: ModelInfo, request: Request) -> JsonObject:
    if _api_of(request) == "messages":
        named: JsonObject = {"type": "model", "id": model.id, "display_name": model.name}
        return {**named, "created_at": _MODELS_SINCE}
    created = _MODELS_SINCE_SECONDS
    return {"id": model.id, "object": "model", "created": created, "owned_by": "kiro"}


# --- refusals -------------------------------------------------------------------------------


def _api_of(request: Request) -> Api:
    """Return which API a request is meant for."""
    path = request.url.path
    if path.startswith(f"{API_PATH}/messages") or "anthropic-version" in request.headers:
        return "messages"
    return "responses" if path == f"{API_PATH}/responses" else "chat completions"


def _refuse(request: Request, error: KiroError, request_id: str = "") -> Response:
    request_id = request_id or f"req_{uuid.uuid4().hex}"
    refused = api_error(error, api=_api_of(request), request_id=request_id)
    return JSONResponse(refused.body, refused.status, refused.headers)


async def _refuse_path(request: Request) -> Response:
    error = InvalidRequest(
        f"Unknown path: {request.method} {quoted(request.url.path)}.",
        next_step="Use GET /v1/models, or POST /v1/chat/completions, /v1/responses, /v1/messages or"
        " /v1/messages/count_tokens.",
        code="not_found",
    )
    return _refuse(request, error)
