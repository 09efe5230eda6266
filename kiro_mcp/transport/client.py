"""The engine: a `ChatRequest` goes to the service, its answer comes back as deltas and a `Reply`.

A call is: payload -> HTTP -> event stream -> deltas. What was received before a fault is
never lost: it is the `Reply`, marked truncated. An error is raised only where there is nothing
to give. Leaving `stream()` closes the connection to the service, however it is left.
"""

import json
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, cast

import anyio

from kiro_mcp import __version__
from kiro_mcp.errors import AnswerBroken, KiroError, ServiceUnavailable
from kiro_mcp.models import (
    AccessToken,
    ChatRequest,
    Delta,
    Fault,
    ImagePart,
    ModelInfo,
    Reply,
    ToolUse,
)
from kiro_mcp.protocol.models_catalog import default_model, models_from_page
from kiro_mcp.protocol.payload import (
    Envelope,
    Payload,
    draft_payload,
    encode_payload,
    make_payload,
)
from kiro_mcp.protocol.prepare import PayloadOptions
from kiro_mcp.protocol.reply import ReplyBuilder
from kiro_mcp.settings import Settings
from kiro_mcp.transport.classify import classify, fault_from_response
from kiro_mcp.transport.endpoints import (
    GENERATE,
    LIST_MODELS,
    EndpointProfile,
    destination,
    require_may_receive,
)
from kiro_mcp.transport.http import HttpPool, HttpResponse

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""How much of one page of models is read. The service's whole list is about 20 KiB."""

MAX_MODEL_PAGES = 50
"""Where a list of models that never ends is cut. The service sends one or two pages."""


class TokenSource(Protocol):
    """Whatever can say which token a request goes with."""

    async def access_token(self) -> AccessToken:
        """Return a token that the service should take, or raise `SignInRequired`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """The models that the service offers to an account."""

    models: tuple[ModelInfo, ...]
    default_model: str
    """The service's own default, or "" where it names none."""


class AnswerStream:
    """An answer on its way: iterate for its deltas; `reply` is the whole of it."""

    def __init__(
        self,
        response: HttpResponse,
        builder: ReplyBuilder,
        *,
        payload: Payload,
        first_token_deadline: float,
        idle_timeout_seconds: float,
    ) -> None:
        self.payload = payload
        """What was sent, and what was made of the request on the way."""
        self._chunks = response.chunks()
        self._request_id = response.headers.get("x-amzn-requestid")
        self._builder = builder
        self._first_token_deadline = first_token_deadline
        self._idle_timeout_seconds = idle_timeout_seconds
        self._pending: deque[Delta] = deque()
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer. There once iteration has ended.

        Raises:
            RuntimeError: The answer has not been read to its end.
        """
        if self._reply is None:
            raise RuntimeError("read the stream to its end before its reply")
        return self._reply

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        """Return the next delta.

        Raises:
            KiroError: The answer ended, or failed, with nothing in it.
        """
        while not self._pending:
            if self._reply is not None:
                raise StopAsyncIteration
            await self._read()
        return self._pending.popleft()

    async def _read(self) -> None:
        try:
            chunk = await self._next_chunk()
        except KiroError as error:
            self._end(error)
            return
        if chunk is None:
            self._end(None)
        else:
            self._take(chunk)

    async def _next_chunk(self) -> bytes | None:
        with anyio.CancelScope(deadline=self._deadline()):
            return await anext(self._chunks, None)
        raise self._timed_out()

    def _take(self, chunk: bytes) -> None:
        self._pending.extend(self._builder.feed(chunk))
        if self._builder.fault is not None:
            self._end(None)

    def _deadline(self) -> float:
        if self._builder.has_begun:
            return anyio.current_time() + self._idle_timeout_seconds
        return self._first_token_deadline

    def _timed_out(self) -> KiroError:
        if not self._builder.has_begun:
            return _no_answer_in_time()
        return ServiceUnavailable(
            f"The service fell silent for {self._idle_timeout_seconds:g} seconds.",
            next_step="Call again; KIRO_MCP_STREAM_READ_TIMEOUT sets how long silence may last.",
            code="timeout",
        )

    def _end(self, fault: KiroError | None) -> None:
        reply = self._reply = self._builder.close(fault)
        self._pending.extend(self._builder.last_deltas)
        if reply.is_empty and not self._pending:
            raise self._nothing_to_give(reply.fault)

    def _nothing_to_give(self, fault: Fault | KiroError | None) -> KiroError:
        if isinstance(fault, KiroError):
            return fault
        if fault is not None:
            return classify(fault)
        return AnswerBroken(
            "The service answered with nothing.",
            next_step="Call again, or put the question in other words.",
            code="empty_response",
            request_id=self._request_id,
        )


class KiroClient:
    """Asks the service, with the token that its `TokenSource` gives. An async context manager."""

    def __init__(
        self,
        tokens: TokenSource,
        settings: Settings | None = None,
        *,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._tokens = tokens
        self._settings = settings or Settings.load({})
        self._new_id = new_id
        self._payload_options = PayloadOptions(
            description_max_bytes=self._settings.tool_description_max_bytes,
            thinking_budget=self._settings.thinking_budget,
            max_payload_bytes=self._settings.max_payload_bytes,
            tells_of_truncation=self._settings.truncation_recovery,
        )
        self._http = HttpPool(connect_timeout_seconds=self._settings.connect_timeout_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def ask(self, request: ChatRequest) -> Reply:
        """Return the whole answer.

        Raises:
            KiroError: There is no answer, nor a part of one.
        """
        async with self.stream(request) as answer:
            async for _ in answer:
                pass
            return answer.reply

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncGenerator[AnswerStream]:
        """Send a request and yield its answer, to be read delta by delta.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        deadline = anyio.current_time() + self._settings.first_token_timeout_seconds
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(self._settings.first_token_timeout_seconds):
                    token = await self._tokens.access_token()
                    payload = make_payload(request, self._envelope(token), self._payload_options)
                    body = encode_payload(payload.body)
                    response = await stack.enter_async_context(self._post(GENERATE, token, body))
            except TimeoutError:
                raise _no_answer_in_time() from None
            yield AnswerStream(
                response,
                self._reply_builder(request, payload),
                payload=payload,
                first_token_deadline=deadline,
                idle_timeout_seconds=self._settings.stream_read_timeout_seconds,
            )

    def draft(self, request: ChatRequest, profile_arn: str = "") -> Payload:
        """Return what would be sent, be it something that the service refuses. Nothing is sent.

        Raises:
            InvalidRequest: There is no message.
        """
        envelope = Envelope(origin=self._origin(GENERATE), profile_arn=profile_arn)
        return draft_payload(request, envelope, self._payload_options)

    async def list_models(self) -> ModelList:
        """Return the models that the service offers to this account, all pages of them.

        Raises:
            KiroError: The list cannot be had.
        """
        models: list[ModelInfo] = []
        default = ""
        next_token = ""
        for _ in range(MAX_MODEL_PAGES):
            page = await self._model_page(next_token)
            found, next_token = models_from_page(page)
            models.extend(found)
            default = default or default_model(page)
            if not next_token:
                break
        return ModelList(models=tuple(models), default_model=default)

    def _envelope(self, token: AccessToken) -> Envelope:
        return Envelope(origin=self._origin(GENERATE), profile_arn=token.profile_arn)

    def _reply_builder(self, request: ChatRequest, payload: Payload) -> ReplyBuilder:
        return ReplyBuilder(
            prompt_characters=_prompt_characters(request),
            context_window_tokens=payload.model.context_window or 0,
            thinking=self._settings.thinking_handling,
            tools=request.tools,
            caller_names=payload.tool_names,
            reads_text_calls=self._settings.text_tool_calls,
            max_payload_bytes=self._settings.max_frame_payload_bytes,
            max_headers_bytes=self._settings.max_frame_headers_bytes,
        )

    async def _model_page(self, next_token: str) -> dict[str, object]:
        token = await self._tokens.access_token()
        body = {"origin": self._origin(LIST_MODELS)}
        if next_token:
            body["nextToken"] = next_token
        query = f"?origin={self._origin(LIST_MODELS)}"
        with anyio.move_on_after(self._settings.first_token_timeout_seconds):
            async with self._post(LIST_MODELS, token, json.dumps(body).encode(), query) as response:
                return _json_object(await response.beginning(MAX_PAGE_BYTES))
        raise _no_answer_in_time()

    @asynccontextmanager
    async def _post(
        self, profile: EndpointProfile, token: AccessToken, body: bytes, query: str = ""
    ) -> AsyncGenerator[HttpResponse]:
        target = destination(
            profile, region=token.region, overrides=self._settings.endpoint_overrides
        )
        require_may_receive(target, token)
        headers = self._headers(profile, token)
        async with self._http.request(
            "POST", target.url + query, headers=headers, body=body
        ) as response:
            if response.status != 200:
                refusal = await response.beginning()
                raise classify(fault_from_response(response.status, response.headers, refusal))
            yield response

    def _headers(self, profile: EndpointProfile, token: AccessToken) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Content-Type": profile.content_type,
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # Frames come as they are made, not as gzip fills up.
            "User-Agent": self._settings.user_agent or f"kiro-mcp/{__version__}",
            "amz-sdk-invocation-id": self._new_id(),
            "amz-sdk-request": "attempt=1; max=1",
            "x-amzn-codewhisperer-optout": "true",
        }
        if token.token_type:
            headers["TokenType"] = token.token_type
        if profile.target:
            headers["X-Amz-Target"] = profile.target
        if profile is GENERATE:
            headers["x-amzn-kiro-agent-mode"] = "vibe"
        elif token.profile_arn:
            headers["x-amzn-kiro-profile-arn"] = token.profile_arn
        return headers

    def _origin(self, profile: EndpointProfile) -> str:
        return self._settings.origin or profile.origin


def _prompt_characters(request: ChatRequest) -> int:
    texts = (
        part.text
        for message in request.messages
        for part in message.parts
        if not isinstance(part, ToolUse | ImagePart)
    )
    return len(request.system) + sum(map(len, texts))


def _json_object(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ServiceUnavailable(
            "The service's list of models is not JSON.", next_step="Call again in a moment."
        )
    return cast("dict[str, object]", document)


def _no_answer_in_time() -> KiroError:
    return ServiceUnavailable(
        "The service did not begin to answer in time.",
        next_step="Call again; KIRO_MCP_FIRST_TOKEN_TIMEOUT sets how long to wait.",
        code="timeout",
    )
