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

import random as randomness
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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
from kiro_mcp.client.answer import AnswerStream, no_answer_in_time
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.client.endpoints import (
    AGENT_MODE,
    LIST_MODELS,
    LIST_MODELS_REST,
    EndpointProfile,
    Invocation,
    build_request,
    endpoints_in_order,
)
from kiro_mcp.client.http import HttpPool, Recorder
from kiro_mcp.client.management import Management, ModelList
from kiro_mcp.client.off_loop import is_large, off_loop
from kiro_mcp.client.retry import (
    MAX_RETRY_AFTER_SECONDS,
    GiveUp,
    MoveOn,
    Recover,
    Recovery,
    RetryPlan,
    RetryPolicy,
    Wait,
)
from kiro_mcp.client.telemetry import Inference, Telemetry
from kiro_mcp.errors import KiroError, SignInRequired
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings
from kiro_mcp.wire.models import default_model, models_from_page
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions
from kiro_mcp.wire.request import (
    Envelope,
    Payload,
    PayloadOptions,
    RequestWriter,
    cache_id,
    draft_payload,
)

__all__ = [
    "AnswerStream",
    "CallSpending",
    "KiroClient",
    "ModelList",
    "RenewingTokenSource",
    "TokenSource",
]

DEFAULT_REGION: Final = "us-east-1"
"""The region of drafts, which need no account. Every endpoint exists in it."""

THINKING_TIMEOUT_FACTOR: Final = 1.5
"""How many times longer to wait for the first delta if the model thinks first."""

MAX_MODEL_PAGES: Final = 50
"""How many pages of a list of models are read at most. The service sends one or two."""

Sleep: TypeAlias = Callable[[float], Awaitable[object]]


class TokenSource(Protocol):
    """Returns the token for a request."""

    async def access_token(self) -> AccessToken:
        """Return a token that the service should accept, or raise `SignInRequired`."""
        ...


@runtime_checkable
class RenewingTokenSource(TokenSource, Protocol):
    """A source that can also renew a token that the service has refused."""

    async def renew(self, rejected: AccessToken) -> AccessToken:
        """Return a token that differs from the refused one, or raise a `KiroError`."""
        ...


@runtime_checkable
class AdaptingTokenSource(RenewingTokenSource, Protocol):
    """A source that can also change the type and the profile that go with a token."""

    async def add_type(self, rejected: AccessToken) -> AccessToken | None:
        """Return the refused token with a `TokenType`, or None if that does not help."""
        ...

    async def change_profile(self, rejected: AccessToken) -> AccessToken | None:
        """Return the token with a profile that differs from the refused one, or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Everything that can differ from one attempt of a call to the next."""

    token: AccessToken
    endpoints: tuple[EndpointProfile, ...]
    """The endpoints of the call; `endpoint_index` is the one of this attempt."""
    endpoint_index: int = 0
    invocation: Invocation
    request: ChatRequest | None = None
    """The prompt; None for a request to the management host."""
    sends_model_fields: bool = True
    renewal_error: SignInRequired | None = None
    """Why the token, which the service refused before, could not be renewed."""

    @property
    def endpoint(self) -> EndpointProfile:
        """The endpoint that this attempt is sent to."""
        return self.endpoints[self.endpoint_index]


class KiroClient:
    """Sends requests with the tokens of a `TokenSource`. An async context manager.

    Args:
        tokens: Returns the tokens, and renews them if it can.
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
        self._policy = RetryPolicy(
            max_retries=settings.max_retries,
            base_delay_seconds=settings.base_retry_delay_seconds,
            first_token_max_retries=settings.first_token_max_retries,
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

    async def ask(self, request: ChatRequest, *, spending: CallSpending | None = None) -> Reply:
        """Send a request and return the whole answer.

        Raises:
            KiroError: No part of an answer arrived.
        """
        async with self.stream(request, spending=spending) as answer:
            async for _ in answer:
                pass
            return answer.reply

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
        request = self._with_time(request)
        if self._slots.is_full:
            token = None  # It may expire while the call waits.
        async with self._slots.taken_by(caller), AsyncExitStack() as call:
            inference = call.enter_context(self._telemetry.inference(request))
            token = token or await self._tokens.access_token()
            names = self._settings.endpoint_names
            attempt = Attempt(
                token=token,
                endpoints=endpoints_in_order(
                    names, preferred=token.preferred_endpoint, region=token.region
                ),
                invocation=self._first_invocation(),
                request=request,
            )
            await self._respect_hold(attempt)
            plan = self._new_plan(attempt)
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
                attempt = await self._next_attempt(attempt, plan, failure)
            inference.begins(answer)
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
            origin=self._management.origin(endpoint),
            profile_arn="",
            form=endpoint.form,
            agent_mode=AGENT_MODE,
        )
        return draft_payload(self._with_time(request), envelope, self._payload_options)

    async def list_models(self) -> ModelList:
        """Return all models that the service offers to this account.

        Raises:
            KiroError: The service did not send one of the pages.
        """
        is_rest = self._settings.endpoint_names[0] != "runtime"
        endpoint = LIST_MODELS_REST if is_rest else LIST_MODELS
        token = await self._tokens.access_token()
        models: dict[str, ModelInfo] = {}
        default = next_token = ""
        for _ in range(MAX_MODEL_PAGES):
            attempt = Attempt(
                token=token, endpoints=(endpoint,), invocation=self._first_invocation()
            )
            await self._respect_hold(attempt)
            plan = self._new_plan(attempt)
            members = {"origin": self._management.origin(endpoint)}
            if next_token:
                members["nextToken"] = next_token
            while True:
                try:
                    page = await self._management.ask(
                        endpoint, attempt.token, members, attempt.invocation
                    )
                    break
                except KiroError as error:
                    attempt = await self._next_attempt(attempt, plan, error)
            token = attempt.token
            found, next_token = models_from_page(page)
            models.update((model.id, model) for model in found)
            default = default or default_model(page)
            if not next_token:
                break
        self._listed_ids = frozenset(models)
        return ModelList(models=tuple(models.values()), default_model=default)

    def ask_again(self) -> None:
        """Forget all holds: send requests also for accounts that are suspended or have to wait."""
        self._holds.clear()

    # --- attempts -----------------------------------------------------------------------------

    def _first_invocation(self) -> Invocation:
        return Invocation(id=self._new_id(), max_attempts=self._policy.max_retries + 1)

    def _new_plan(self, attempt: Attempt) -> RetryPlan:
        return RetryPlan(self._policy, endpoint_count=len(attempt.endpoints), random=self._random)

    async def _respect_hold(self, attempt: Attempt) -> None:
        """Wait as long as the service asked this account to wait.

        Raises:
            KiroError: The account is suspended, or has to wait for longer than a minute.
        """
        hold = self._holds.on(attempt.token)
        if hold is None:
            return
        if hold.error.code != "account_suspended" and attempt.request is None:
            return  # The service throttles only prompts, not requests to the management host.
        if hold.seconds > MAX_RETRY_AFTER_SECONDS:
            raise hold.error
        await self._sleep(hold.seconds + self._random() * self._policy.base_delay_seconds)

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
            attempt.endpoint, attempt.token, self._settings, attempt.invocation
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
        options = ReplyOptions(
            prompt_characters=_prompt_characters(attempt.request),
            context_window_tokens=payload.model.context_window or 0,
            thinking=self._settings.thinking_handling,
            tools=attempt.request.tools,
            caller_names=payload.tool_names,
            property_names=payload.property_names,
            reads_text_calls=self._settings.text_tool_calls,
            max_payload_bytes=self._settings.max_frame_payload_bytes,
            max_headers_bytes=self._settings.max_frame_headers_bytes,
        )
        if recorder is not None:
            recorder.reads_with(options)
        return AnswerStream(
            response,
            ReplyBuilder(**options),
            payload,
            first_token_deadline=deadline,
            idle_timeout_seconds=self._settings.stream_read_timeout_seconds,
        )

    async def _settle(
        self, answer: AnswerStream, spending: CallSpending, recorder: Recorder | None
    ) -> None:
        """End an answer, whole or abandoned, and count what it cost."""
        reply = answer.cut()  # Nothing is read after this. A whole answer stays whole.
        if recorder is not None:
            recorder.replied(reply)
        await answer.aclose()
        await self._budget.add(answer.credits, spending)

    async def _next_attempt(self, attempt: Attempt, plan: RetryPlan, error: KiroError) -> Attempt:
        """Wait if necessary, and return the attempt that follows a failed one.

        Raises:
            KiroError: No attempt follows: the error itself, or the error of a recovery.
        """
        self._holds.add(attempt.token, error)
        following: Attempt | None = None
        match plan.after(error):
            case Wait(seconds):
                await self._sleep(seconds)
                following = replace(attempt, endpoint_index=0)
            case MoveOn():
                following = replace(attempt, endpoint_index=attempt.endpoint_index + 1)
            case Recover(recovery):
                following = await self._recover(recovery, attempt)
            case GiveUp():
                pass
        if following is None:
            raise error
        invocation = replace(
            attempt.invocation, attempt=plan.attempt, max_attempts=plan.max_attempts
        )
        return replace(following, invocation=invocation)

    async def _recover(self, recovery: Recovery, attempt: Attempt) -> Attempt | None:
        """Return the attempt with a change; None if the change cannot be made.

        Raises:
            KiroError: The token cannot be renewed.
        """
        tokens, token, request = self._tokens, attempt.token, attempt.request
        adapting = tokens if isinstance(tokens, AdaptingTokenSource) else None
        changed: AccessToken | None = None
        match recovery:
            case "fresh_token":
                if not isinstance(tokens, RenewingTokenSource):
                    return None
                try:
                    changed = await tokens.renew(token)
                except SignInRequired as error:
                    changed = await adapting.add_type(token) if adapting else None
                    if changed is None:
                        raise
                    return replace(attempt, token=changed, renewal_error=error)
            case "token_type":
                changed = await adapting.add_type(token) if adapting else None
                if changed is None and attempt.renewal_error:
                    raise attempt.renewal_error  # It names a next step; the refusal does not.
            case "another_profile":
                changed = await adapting.change_profile(token) if adapting else None
            case _ if request is None:
                return None
            case "known_profile":
                changed = await self._with_only_profile(token)
            case "listed_model":
                return attempt if await self._is_listed(request.model) else None
            case "without_model_fields":
                return replace(attempt, sends_model_fields=False)
            case "new_conversation":
                request = replace(request, conversation_id=self._new_id(), history_head="")
                return replace(attempt, request=request)
            case "without_reasoning":
                return replace(attempt, request=_without_reasoning(request))
        return replace(attempt, token=changed) if changed else None

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

    # --- payloads -----------------------------------------------------------------------------

    async def _write_payload(self, attempt: Attempt, writer: RequestWriter) -> Payload:
        """Return the payload of an attempt. The writer rebuilds only what has changed."""
        assert attempt.request
        request, token = attempt.request, attempt.token
        head, owner = request.history_head, token.owner or token.value
        envelope = Envelope(
            origin=self._management.origin(attempt.endpoint),
            profile_arn=token.profile_arn,
            conversation_id=cache_id(head, owner) if head else "",
            form=attempt.endpoint.form,
            agent_mode=AGENT_MODE,
            sends_model_fields=attempt.sends_model_fields,
        )
        return await off_loop(lambda: writer.write(request, envelope), is_large=is_large(request))

    def _with_time(self, request: ChatRequest) -> ChatRequest:
        if not self._settings.tell_time:
            return request
        time = f"The current time is {self._now().isoformat(timespec='seconds')}."
        return replace(request, system=f"{time}\n\n{request.system}".strip())


def _without_reasoning(request: ChatRequest) -> ChatRequest:
    messages = tuple(
        replace(one, parts=tuple(part for part in one.parts if not isinstance(part, ThinkingPart)))
        for one in request.messages
    )
    return replace(request, messages=messages)


def _prompt_characters(request: ChatRequest) -> int:
    texts = (
        part.text
        for message in request.messages
        for part in message.parts
        if not isinstance(part, ToolUse | ImagePart)
    )
    return len(request.system) + sum(map(len, texts))
