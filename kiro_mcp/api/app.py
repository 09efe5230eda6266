"""The routes of the APIs, and what is the same for all of them.

    read the body ─> read the question ─> ask, event by event ─> write
          400, 413          400           401 … 504, or an error event once the answer has begun

A request that is streamed gets its status when the answer begins, so an error before that has its
own status. If the model thinks for long, the answer begins with a keep-alive instead. A client that
leaves ends the way to the service. A client that reads slowly is waited for, and meanwhile nothing
is read from the service.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final, Protocol, cast

import anyio
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kiro_mcp.api import chat_completions, messages, responses
from kiro_mcp.api.errors import api_error, error_of
from kiro_mcp.api.exchange import Event, Question, ask, read_request
from kiro_mcp.chat import JsonObject, ModelInfo, Reply
from kiro_mcp.client.off_loop import off_loop
from kiro_mcp.errors import InternalFault, InvalidRequest, KiroError, ServiceUnavailable, quoted
from kiro_mcp.wire.json_values import mend_escaped_surrogates
from kiro_mcp.wire.models import resolve_model

logger = logging.getLogger(__name__)

API_PATH: Final = "/v1"

KEEP_ALIVE_SECONDS: Final = 10.0
"""How long a stream may be silent. Proxies cut connections that are silent for 30 to 60 s."""

LARGE_BODY_BYTES: Final = 64 * 1024
"""From here on a body is parsed beside the event loop."""

_MODELS_SINCE: Final = "2025-07-14T00:00:00Z"
"""A date for the lists of models, which must have one. The service names none: it is the day when
Kiro began."""
_MODELS_SINCE_SECONDS: Final = 1752451200


class Writer(Protocol):
    """Writes one answer in the words of an API."""

    keep_alive: bytes

    def begin(self) -> bytes:
        """Return how a stream begins."""
        ...

    def write(self, event: Event) -> bytes:
        """Return what a stream gets for an event."""
        ...

    def end(self, reply: Reply) -> bytes:
        """Return how a stream ends."""
        ...

    def fail(self, error: JsonObject) -> bytes:
        """Return how a stream ends that broke off."""
        ...

    def whole(self, reply: Reply) -> JsonObject:
        """Return the answer as one object."""
        ...


def build_api(max_body_bytes: int, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> Starlette:
    """Build the application that serves both APIs, to be mounted at `API_PATH`.

    Args:
        max_body_bytes: The limit of a request's body.
        keep_alive_seconds: How long a stream may be silent.
    """

    async def count_tokens(request: Request) -> JSONResponse:
        try:
            question = messages.read(await read_body(request, max_body_bytes))
            async with request.state.engines.engine_for(request) as engine:
                asked = await read_request(question, engine)
                payload = await off_loop(lambda: engine.client.draft(asked), is_large=True)
        except KiroError as error:
            return _refusal(request, error)
        return JSONResponse({"input_tokens": payload.estimated_tokens})

    def endpoint(shape: ModuleType) -> ASGIApp:
        return _Endpoint(shape, max_body_bytes, keep_alive_seconds)

    return Starlette(
        routes=[
            Route("/models", _list_models, methods=["GET"]),
            Route("/models/{name:path}", _get_model, methods=["GET"]),
            Route("/chat/completions", endpoint(chat_completions), methods=["POST"]),
            Route("/responses", endpoint(responses), methods=["POST"]),
            Route("/messages", endpoint(messages), methods=["POST"]),
            Route("/messages/count_tokens", count_tokens, methods=["POST"]),
            Route("/{path:path}", _unknown_path, methods=["GET", "POST", "DELETE"]),
        ]
    )


async def _list_models(request: Request) -> JSONResponse:
    try:
        async with request.state.engines.engine_for(request) as engine:
            catalogue = await engine.catalogue(refresh=False)
    except KiroError as error:
        return _refusal(request, error)
    if not _is_anthropic(request):
        return JSONResponse({"object": "list", "data": [*map(_for_openai, catalogue.models)]})
    ids = [model.id for model in catalogue.models]
    return JSONResponse(
        {
            "data": [*map(_for_anthropic, catalogue.models)],
            "has_more": False,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
        }
    )


async def _get_model(request: Request) -> JSONResponse:
    name: str = request.path_params["name"]
    try:
        async with request.state.engines.engine_for(request) as engine:
            catalogue = await engine.catalogue(refresh=False)
            aliases = engine.settings.model_aliases
            choice = resolve_model(name, catalogue.models, aliases=aliases)
        if not choice.is_listed:
            raise InvalidRequest(
                f"There is no model {quoted(name)}.",
                next_step="GET /v1/models lists them.",
                code="model_unavailable",
            )
    except KiroError as error:
        return _refusal(request, error)
    describe = _for_anthropic if _is_anthropic(request) else _for_openai
    return JSONResponse(describe(choice.model))


async def read_body(request: Request, max_bytes: int) -> JsonObject:
    """Return the body of a request.

    Raises:
        InvalidRequest: It is too large, or not a JSON object.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise InvalidRequest(
                f"The body is larger than {max_bytes} bytes.",
                next_step="Send less, or raise KIRO_MCP_MAX_BODY_BYTES.",
                status=413,
            )
        pieces.append(piece)
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


class _Endpoint:
    """An ASGI application that answers the questions of one API."""

    def __init__(self, shape: ModuleType, max_body_bytes: int, keep_alive_seconds: float) -> None:
        self._shape = shape
        self._max_body_bytes = max_body_bytes
        self._keep_alive_seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request_id = f"req_{uuid.uuid4().hex}"
        headers = {"x-request-id": request_id, "request-id": request_id}
        try:
            body = await read_body(request, self._max_body_bytes)
            question: Question = self._shape.read(body)
            writer: Writer = self._shape.Writer(
                body, question, new_id=uuid.uuid4().hex, now=int(time.time())
            )
        except ClientDisconnect:
            return
        except KiroError as error:
            await _refusal(request, error, request_id)(scope, receive, send)
            return
        output = _Output(send, headers, writer, is_streamed=question.is_streamed)

        async def answer() -> None:
            error: KiroError | None = None
            with request.state.calls.running() as call:
                try:
                    async with request.state.engines.engine_for(request) as engine:
                        caller = request.client.host if request.client else ""
                        reply = await ask(question, engine, output.emit, caller=caller)
                    error = error_of(reply)
                    if error is None:
                        await output.end(reply)
                except KiroError as failure:
                    error = failure
                except Exception:
                    logger.exception("%s failed", scope["path"])
                    error = InternalFault(
                        "The request met a defect of kiro-mcp.",
                        next_step="Its log (stderr) has the details; please report them.",
                    )
            if call.cancelled_caught:
                error = ServiceUnavailable("The server is ending.", next_step="Call again later.")
            if error is not None and output.has_begun:
                is_anthropic = _is_anthropic(request)
                said = api_error(error, is_anthropic=is_anthropic, request_id=request_id)
                await output.fail(said.body)
            elif error is not None:
                await _refusal(request, error, request_id)(scope, receive, send)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_with_client, receive, tasks.cancel_scope)
            if question.is_streamed:
                tasks.start_soon(output.keep_alive, self._keep_alive_seconds)
            await answer()
            tasks.cancel_scope.cancel()


class _Output:
    """The response of one request: a stream that begins with its first event, or one object."""

    def __init__(
        self, send: Send, headers: Mapping[str, str], writer: Writer, *, is_streamed: bool
    ) -> None:
        self.has_begun = False
        """Whether the client has got the status."""
        self._beginning = writer.begin() if is_streamed else b""
        self._send = send
        self._headers = headers
        self._writer = writer
        self._is_streamed = is_streamed
        self._turn = anyio.Lock()
        self._written_at = anyio.current_time()

    async def emit(self, event: Event) -> None:
        """Take an event of the answer."""
        if self._is_streamed:
            data = self._writer.write(event)
            if data or not self.has_begun:
                await self._write(data)
        else:
            self._writer.write(event)

    async def end(self, reply: Reply) -> None:
        """Complete the response."""
        if self._is_streamed:
            await self._write(self._writer.end(reply), is_last=True)
        else:
            whole = JSONResponse(self._writer.whole(reply), headers=self._headers)
            self.has_begun = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": whole.raw_headers}
            )
            await self._send({"type": "http.response.body", "body": whole.body})

    async def fail(self, error: JsonObject) -> None:
        """Complete a stream that broke off."""
        await self._write(self._writer.fail(error), is_last=True)

    async def keep_alive(self, seconds: float) -> None:
        """Write something whenever the stream was silent for so long."""
        while True:
            silent = anyio.current_time() - self._written_at
            if silent < seconds:
                await anyio.sleep(seconds - silent)
            elif self._turn.locked():
                await anyio.sleep(seconds)  # The client is slow to read, so it is not waiting.
            else:
                await self._write(self._writer.keep_alive)

    async def _write(self, data: bytes, *, is_last: bool = False) -> None:
        async with self._turn:
            if not self.has_begun:
                self.has_begun = True
                head = {**self._headers, "content-type": "text/event-stream; charset=utf-8"}
                head |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
                raw = [(name.encode(), value.encode()) for name, value in head.items()]
                await self._send({"type": "http.response.start", "status": 200, "headers": raw})
                data = self._beginning + data
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
            self._written_at = anyio.current_time()


async def _end_with_client(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _is_anthropic(request: Request) -> bool:
    is_theirs = request.url.path.startswith("/v1/messages")
    return is_theirs or "anthropic-version" in request.headers


def _refusal(request: Request, error: KiroError, request_id: str = "") -> JSONResponse:
    request_id = request_id or f"req_{uuid.uuid4().hex}"
    status = error.status if error.status == 413 else None
    refused = api_error(
        error, is_anthropic=_is_anthropic(request), request_id=request_id, status=status
    )
    return JSONResponse(refused.body, refused.status, refused.headers)


async def _unknown_path(request: Request) -> JSONResponse:
    error = InvalidRequest(
        f"There is no {request.method} {quoted(request.url.path)}.",
        next_step="Use /v1/models, /v1/chat/completions, /v1/responses, /v1/messages or"
        " /v1/messages/count_tokens.",
        code="not_found",
    )
    return _refusal(request, error)


def _for_openai(model: ModelInfo) -> JsonObject:
    return {
        "id": model.id,
        "object": "model",
        "created": _MODELS_SINCE_SECONDS,
        "owned_by": "kiro",
    }


def _for_anthropic(model: ModelInfo) -> JsonObject:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": _MODELS_SINCE,
    }
