"""`KiroClient` sends a `ChatRequest` to the service and reads its answer.

`KiroClient.stream` runs a whole call. It makes attempts until an answer has begun;
`kiro_mcp.client.retry` decides what follows a failure. After the first delta nothing is sent
again::

    slot ─▶ token ─▶ budget ─▶ payload ─▶ HTTP ─▶ event stream ─▶ first delta ─▶ the caller
                       ▲                                │ failure
                       └──── wait, move on, recover ◀───┘

Everything that arrived before a fault is in the `Reply`, marked as truncated. An error is raised
only if nothing arrived. Leaving `stream()` closes the connection to the service in every case.
"""

import logging
import random as randomness
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias, runtime_checkable

import anyio

from kiro_mcp.chat import (
    AccessToken,
    ChatRequest,
    ImagePart,
    ModelInfo,
    Reply,
    ThinkingPart,
    ToolUse,
)
from kiro_mcp.client.admission import Budget, CallSpending, FairSlots, Holds
from kiro_mcp.client.answer import AnswerStream, ModelAnswer, no_answer_in_time
from kiro_mcp.client.classify import UNKNOWN_ADDRESS, classify, fault_from_response
from kiro_mcp.client.endpoints import (
    AGENT_MODE,
    NEWER_FORMS,
    EndpointProfile,
    build_request,
    endpoints_in_order,
    list_models_beside,
)
from kiro_mcp.client.http import HttpPool, Recorder
from kiro_mcp.client.management import Management
from kiro_mcp.client.off_loop import is_large, off_loop
from kiro_mcp.client.retry import MAX_RETRY_AFTER_SECONDS, Recovery, RetryPlan, TokenRecovery
from kiro_mcp.client.telemetry import Inference, Telemetry
from kiro_mcp.errors import KiroError
from kiro_mcp.regions import DEFAULT_REGION, region_of
from kiro_mcp.settings import Settings
from kiro_mcp.wire.models import default_model, models_from_page
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions
from kiro_mcp.wire.request import (
    Envelope,
    Payload,
    PayloadOptions,
    RequestWriter,
    cache_id,
    prepare,
    write_payload,
)

logger = logging.getLogger(__name__)

NEWER_FORM_NOTE: Final = (
    "The service no longer knows the older form of its requests, so kiro-mcp goes on in the newer"
    " one. Set KIRO_MCP_ENDPOINTS=kas to begin with it."
)

THINKING_TIMEOUT_FACTOR: Final = 1.5
"""How many times longer to wait for the first delta if the model thinks first."""

MAX_MODEL_PAGES: Final = 50
"""How many pages of a list of models are read at most. The service sends one or two."""

Sleep: TypeAlias = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """The models that the service offers to an account."""

    models: tuple[ModelInfo, ...]
    default_model: str
    """The service's own default; "" if the service does not name one."""


class TokenSource(Protocol):
    """Returns the token for a request."""

    async def access_token(self) -> AccessToken:
        """Return a token that the service should accept, or raise `SignInRequired`."""
        ...


@runtime_checkable
class RecoveringTokenSource(TokenSource, Protocol):
    """A source that can also replace a token that the service has refused."""

    async def recover(self, rejected: AccessToken, recovery: TokenRecovery) -> AccessToken | None:
        """Return the token to send instead of the refused one; None if there is none.

        Raises:
            KiroError: Why there is none, with the next step.
        """
        ...


class ModelClient(ABC):
    """What the program needs from an engine: `KiroClient`, or the one in `kiro_mcp.acp`."""

    @abstractmethod
    async def check_login(self) -> AccessToken | None:
        """Require a login; return its token if the engine has one, to save a second look-up.

        Raises:
            SignInRequired: Nobody is signed in.
        """

    @abstractmethod
    def stream(
        self,
        request: ChatRequest,
        *,
        token: AccessToken | None = None,
        spending: CallSpending | None = None,
        recorder: Recorder | None = None,
        caller: str = "",
    ) -> AbstractAsyncContextManager[ModelAnswer]:
        """Send a request and yield its answer once the first delta is there; see `KiroClient`."""

    async def ask(self, request: ChatRequest, *, spending: CallSpending | None = None) -> Reply:
        """Send a request and return the whole answer.

        Raises:
            KiroError: No part of an answer arrived.
        """
        async with self.stream(request, spending=spending) as answer:
            async for _ in answer:
                pass
            return answer.reply

    @abstractmethod
    def draft(self, request: ChatRequest) -> Payload:
        """Return what would be sent, without sending it."""

    @abstractmethod
    async def list_models(self) -> ModelList:
        """Return all models that can be asked."""

    @abstractmethod
    def ask_again(self) -> None:
        """Forget all holds, so that the next call is sent."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the service is reached, one sentence each."""
        return ()


@dataclass(slots=True, kw_only=True)
class Attempt:
    """The current attempt of a call: everything that can differ from one to the next."""

    token: AccessToken
    endpoints: tuple[EndpointProfile, ...]
    """The endpoints of the call; `endpoint_index` is the one of this attempt."""
    endpoint_index: int = 0
    request: ChatRequest | None
    """The prompt; None for a request to the management host."""
    sends_model_fields: bool = True
    call_id: str
    plan: RetryPlan
    gone: EndpointProfile | None = None
    """The endpoint that this attempt replaces, because the service no longer knows it."""

    @property
    def endpoint(self) -> EndpointProfile:
        """The endpoint of this attempt."""
        return self.endpoints[self.endpoint_index]


class KiroClient(ModelClient):
    """Sends requests with the tokens of a `TokenSource`. An async context manager.

    Args:
        tokens: Returns the tokens, and replaces refused ones if it can.
        settings: All settings; None for the defaults.
        state_folder: Where to save the credits of a day, if a budget limits them; None to keep
            them in memory.
        new_id: Returns a new UUID.
        now: Returns the time.
        sleep: Waits for some seconds. It must end at once when it is cancelled.
        random: Returns numbers from 0 up to 1, for the jitter of retries.
        telemetry: Makes the spans and metrics of calls; None for the process's providers.
        http: Shared connections, which their owner closes; None for connections of its own.
    """

    def __init__(
        self,
        tokens: TokenSource,
        settings: Settings | None = None,
        *,
        state_folder: Path | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Sleep = anyio.sleep,
        random: Callable[[], float] = randomness.random,
        telemetry: Telemetry | None = None,
        http: HttpPool | None = None,
    ) -> None:
        self._tokens = tokens
        self._settings = settings = settings or Settings.load({})
        self._new_id = new_id
        self._now = now
        self._sleep = sleep
        self._random = random
        self._telemetry = telemetry or Telemetry()
        self._owns_http = http is None
        self._http = http or HttpPool.of(settings)
        self._management = Management(self._http, settings, now=now, new_id=new_id)
        self._payload_options = PayloadOptions(
            description_max_bytes=settings.tool_description_max_bytes,
            thinking_budget=settings.thinking_budget,
            max_payload_bytes=settings.max_payload_bytes,
            tells_of_truncation=settings.truncation_recovery,
        )
        self._slots = FairSlots(settings.max_concurrency)
        self._holds = Holds(now)
        self._budget = Budget(
            per_call=settings.max_credits_per_call,
            per_day=settings.max_credits_per_day,
            folder=state_folder,
            now=now,
        )
        self._listing = anyio.Lock()
        self._listed_ids: frozenset[str] | None = None
        """The ids in the last list of models that the service sent."""
        self._gone: set[EndpointProfile] = set()
        """The endpoints that the service no longer knows. Their newer forms were answered."""

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
        """Close all connections of its own, for good."""
        if self._owns_http:
            await self._http.aclose()

    async def check_login(self) -> AccessToken | None:
        """Return a token that the service should accept.

        Raises:
            SignInRequired: Nobody is signed in.
        """
        return await self._tokens.access_token()

    @asynccontextmanager
    async def stream(
        self,
        request: ChatRequest,
        *,
        token: AccessToken | None = None,
        spending: CallSpending | None = None,
        recorder: Recorder | None = None,
        caller: str = "",
    ) -> AsyncGenerator[AnswerStream]:
        """Send a request and yield its answer once the first delta is there.

        Args:
            request: The request.
            token: A token that the caller has just got from the token source, to save a second
                look-up. It is not used if the call has to wait for a slot.
            spending: What the requests of one call have cost; None if this is its only request.
            recorder: Records what goes over the wire, if the call is captured.
            caller: Who asks. While all slots are taken, callers take turns.

        Raises:
            KiroError: No part of an answer arrived.
        """
        spending = spending or CallSpending()
        if not request.conversation_id:
            request = replace(request, conversation_id=self._new_id())
        if self._settings.tell_time:
            request = self._with_time(request)
        async with self._slots.taken_by(caller) as has_waited, AsyncExitStack() as call:
            if has_waited:
                token = None  # It may have expired meanwhile.
            inference = call.enter_context(self._telemetry.inference(request))
            token = token or await self._tokens.access_token()
            endpoints = endpoints_in_order(
                self._settings.endpoint_names,
                preferred=token.preferred_endpoint,
                region=token.region,
            )
            attempt = await self._begin(token, self._known(endpoints), request)
            writer = RequestWriter(self._payload_options)
            while True:
                await self._budget.require_left(spending)
                payload = await self._write_payload(attempt, writer)
                async with AsyncExitStack() as opened:
                    try:
                        answer = await self._open(attempt, payload, opened, inference, recorder)
                        opened.push_async_callback(self._settle, answer, spending, recorder)
                        await answer.begin()
                    except KiroError as error:
                        failure = error
                    else:
                        call.push_async_exit(opened.pop_all())
                        break
                if recorder is not None:
                    recorder.failed(failure)
                await self._prepare_next(attempt, failure)
            if attempt.gone is not None and self._remember_gone(attempt.gone):
                warnings = (*answer.payload.warnings, NEWER_FORM_NOTE)
                answer.payload = replace(answer.payload, warnings=warnings)
            inference.begins(lambda: answer.so_far)
            yield answer

    def draft(self, request: ChatRequest) -> Payload:
        """Return the payload of a request without sending it, even if the service would refuse it.

        Raises:
            InvalidRequest: The request has no message.
        """
        (endpoint, *_) = endpoints_in_order(
            self._settings.endpoint_names, preferred="", region=DEFAULT_REGION
        )
        envelope = Envelope(
            origin=self._settings.origin or endpoint.origin,
            profile_arn="",
            form=endpoint.form,
            agent_mode=AGENT_MODE,
        )
        if self._settings.tell_time:
            request = self._with_time(request)
        return write_payload(prepare(request, self._payload_options), envelope)

    async def list_models(self) -> ModelList:
        """Return all models that the service offers to this account.

        Raises:
            KiroError: The service did not send one of the pages.
        """
        endpoint = list_models_beside(self._settings.endpoint_names[0])
        token = await self._tokens.access_token()
        models: dict[str, ModelInfo] = {}
        default = next_token = ""
        for _ in range(MAX_MODEL_PAGES):
            attempt = await self._begin(token, self._known((endpoint,)))
            while True:
                try:
                    page = await self._management.ask(
                        attempt.endpoint,
                        attempt.token,
                        {"nextToken": next_token} if next_token else None,
                        call_id=attempt.call_id,
                        attempt=attempt.plan.attempt,
                        max_attempts=attempt.plan.max_attempts,
                    )
                    break
                except KiroError as error:
                    await self._prepare_next(attempt, error)
            if attempt.gone is not None:
                self._remember_gone(attempt.gone)
            token = attempt.token
            found, next_token = models_from_page(page)
            models.update((model.id, model) for model in found)
            default = default or default_model(page)
            if not next_token:
                break
        self._listed_ids = frozenset(models)
        return ModelList(models=tuple(models.values()), default_model=default)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the service is called now, one sentence each."""
        return (NEWER_FORM_NOTE,) if self._gone else ()

    def ask_again(self) -> None:
        """Forget all holds: send requests also for accounts that are suspended or have to wait."""
        self._holds.clear()

    # --- attempts -----------------------------------------------------------------------------

    async def _begin(
        self,
        token: AccessToken,
        endpoints: tuple[EndpointProfile, ...],
        request: ChatRequest | None = None,
    ) -> Attempt:
        """Return the first attempt, after the time that the service asked this account to wait.

        Raises:
            KiroError: The account is suspended, or has to wait for longer than a minute.
        """
        hold = self._holds.on(token)
        if hold is not None:
            error, seconds = hold
            # The service throttles only prompts, not requests to the management host.
            if error.code == "account_suspended" or request is not None:
                if seconds > MAX_RETRY_AFTER_SECONDS:
                    raise error
                jitter = self._random() * self._settings.base_retry_delay_seconds
                await self._sleep(seconds + jitter)
        plan = RetryPlan(self._settings, endpoint_count=len(endpoints), random=self._random)
        return Attempt(
            token=token, endpoints=endpoints, request=request, call_id=self._new_id(), plan=plan
        )

    async def _open(
        self,
        attempt: Attempt,
        payload: Payload,
        opened: AsyncExitStack,
        inference: Inference,
        recorder: Recorder | None,
    ) -> AnswerStream:
        """Send an attempt and return its answer; the exit stack closes the answer.

        Raises:
            KiroError: The service refused, did not answer in time or could not be reached.
        """
        assert attempt.request
        seconds = self._settings.first_token_timeout_seconds
        if attempt.request.effort not in ("", "off"):
            seconds *= THINKING_TIMEOUT_FACTOR
        deadline = anyio.current_time() + seconds
        url, headers = build_request(
            attempt.endpoint,
            attempt.token,
            self._settings,
            call_id=attempt.call_id,
            attempt=attempt.plan.attempt,
            max_attempts=attempt.plan.max_attempts,
        )
        inference.sends_to(url)
        try:
            with anyio.fail_after(seconds):
                response = await opened.enter_async_context(
                    self._http.request(
                        "POST", url, headers=headers, body=payload.encoded, recorder=recorder
                    )
                )
                if response.status != 200:
                    refusal = await response.beginning()
                    raise classify(
                        fault_from_response(
                            response.status, response.headers, refusal, now=self._now()
                        )
                    )
        except TimeoutError:
            raise no_answer_in_time() from None
        texts = (
            part.text
            for message in attempt.request.messages
            for part in message.parts
            if not isinstance(part, ToolUse | ImagePart)
        )
        options = ReplyOptions(
            prompt_characters=len(attempt.request.system) + sum(map(len, texts)),
            context_window_tokens=payload.model.context_window or 0,
            thinking=self._settings.thinking_handling,
            tools=attempt.request.tools,
            caller_names=payload.tools.caller_names,
            property_names=payload.tools.property_names,
            reads_text_calls=self._settings.text_tool_calls,
            max_payload_bytes=self._settings.max_frame_payload_bytes,
            max_headers_bytes=self._settings.max_frame_headers_bytes,
        )
        if recorder is not None:
            recorder.reads_with(options)
        return AnswerStream(
            response,
            ReplyBuilder(options),
            payload,
            first_token_deadline=deadline,
            idle_timeout_seconds=self._settings.stream_read_timeout_seconds,
        )

    async def _settle(
        self, answer: AnswerStream, spending: CallSpending, recorder: Recorder | None
    ) -> None:
        """End an answer, whole or abandoned, and count what it cost."""
        reply = await answer.end()
        if recorder is not None:
            recorder.replied(reply)
        await self._budget.add(reply.usage.credits or 0.0, spending)

    async def _prepare_next(self, attempt: Attempt, error: KiroError) -> None:
        """Change a failed attempt into the one that follows it, and wait if necessary.

        Raises:
            KiroError: No attempt follows: the error itself, or the error of a recovery.
        """
        self._holds.add(attempt.token, error)
        step = attempt.plan.after(error)
        if step is None:
            raise error
        if not isinstance(step, str):
            await self._sleep(step)
            attempt.endpoint_index = 0
        elif step == "next_endpoint":
            attempt.endpoint_index += 1
        elif not await self._recover(attempt, step, error):
            raise error

    def _known(self, endpoints: tuple[EndpointProfile, ...]) -> tuple[EndpointProfile, ...]:
        """Return the endpoints, in their newer form if the service no longer knows the older."""
        current = (NEWER_FORMS[one] if one in self._gone else one for one in endpoints)
        return tuple(dict.fromkeys(current))

    def _move_to_newer_form(self, attempt: Attempt, error: KiroError) -> bool:
        """Change the attempt to the newer form of its endpoint; return whether there is one.

        Only the service itself can say that it does not know an operation. A page without the
        service's name for the error can also come from a host that the user has set, with a wrong
        path: then it says nothing about the service.
        """
        older, overrides = attempt.endpoint, self._settings.endpoint_overrides
        newer = NEWER_FORMS.get(older)
        is_page = error.message.startswith(UNKNOWN_ADDRESS)
        if newer is None or error.status is None or (is_page and overrides[older.host]):
            return False
        moved = (newer if one == older else one for one in attempt.endpoints)
        attempt.endpoints = tuple(dict.fromkeys(moved))
        attempt.endpoint_index = attempt.endpoints.index(newer)
        attempt.plan.endpoint_count = len(attempt.endpoints)
        attempt.gone = older
        return True

    def _remember_gone(self, endpoint: EndpointProfile) -> bool:
        """Remember an endpoint whose newer form has just answered; return whether that is new."""
        is_new = endpoint not in self._gone
        if is_new:
            self._gone.add(endpoint)
            logger.warning(NEWER_FORM_NOTE)
        return is_new

    async def _recover(self, attempt: Attempt, recovery: Recovery, error: KiroError) -> bool:
        """Change the attempt so that the cause of its refusal is removed, if that is possible.

        Raises:
            KiroError: The token cannot be replaced.
        """
        token, request = attempt.token, attempt.request
        match recovery:
            case "fresh_token" | "token_type" | "another_profile":
                if not isinstance(self._tokens, RecoveringTokenSource):
                    return False
                changed = await self._tokens.recover(token, recovery)
                attempt.token = changed or token
                return changed is not None
            case "newer_form":
                return self._move_to_newer_form(attempt, error)
            case _ if request is None:
                return False
            case "known_profile":
                changed = await self._with_only_profile(token)
                attempt.token = changed or token
                return changed is not None
            case "listed_model":
                return await self._is_listed(request.model)
            case "without_model_fields":
                attempt.sends_model_fields = False
            case "new_conversation":
                attempt.request = replace(request, conversation_id=self._new_id(), history_head="")
            case "without_reasoning":
                messages = tuple(
                    replace(
                        one,
                        parts=tuple(it for it in one.parts if not isinstance(it, ThinkingPart)),
                    )
                    for one in request.messages
                )
                attempt.request = replace(request, messages=messages)
        return True

    async def _with_only_profile(self, token: AccessToken) -> AccessToken | None:
        """Return the token with the account's only profile; None if it has none or several."""
        try:
            # For an API key the service lists no profiles, but it returns the key's own profile.
            if token.token_type == "API_KEY":  # noqa: S105  # names a kind
                arn = await self._management.find_key_profile(token)
            else:
                arn = await self._management.find_profile(token)
        except KiroError:
            return None
        return replace(token, profile_arn=arn, region=region_of(arn)) if arn else None

    async def _is_listed(self, model: str) -> bool:
        """Whether the service lists a model. Under load it may refuse a model that it offers."""
        async with self._listing:  # Calls that are refused at the same time request one list.
            if self._listed_ids is None:
                try:
                    await self.list_models()
                except KiroError:
                    return False
        return model in (self._listed_ids or ())

    async def _write_payload(self, attempt: Attempt, writer: RequestWriter) -> Payload:
        """Return the payload of an attempt. The writer rebuilds only what has changed."""
        assert attempt.request
        request, token = attempt.request, attempt.token
        endpoint = attempt.endpoint
        head, owner = request.history_head, token.owner or token.value
        envelope = Envelope(
            origin=self._settings.origin or endpoint.origin,
            profile_arn=token.profile_arn,
            conversation_id=cache_id(head, owner) if head else "",
            form=endpoint.form,
            agent_mode=AGENT_MODE,
            sends_model_fields=attempt.sends_model_fields,
        )
        return await off_loop(lambda: writer.write(request, envelope), is_large=is_large(request))

    def _with_time(self, request: ChatRequest) -> ChatRequest:
        time = f"The current time is {self._now().isoformat(timespec='seconds')}."
        return replace(request, system=f"{time}\n\n{request.system}".strip())
