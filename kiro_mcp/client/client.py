"""The engine: a `ChatRequest` goes to the service, its answer comes back as deltas and a `Reply`.

A call waits for a slot and for its budget, then is attempted until its answer has begun or
nothing more should be tried; from there on nothing is sent again::

    slot ─▶ budget ─▶ token ─▶ payload ─▶ HTTP ─▶ event stream ─▶ first delta ─▶ the caller
                        ▲                                    │
                        └────── retry: wait, mend, move on ◀─┘

What was received before a fault is never lost: it is the `Reply`, marked truncated. An error is
raised only where there is nothing to give. Leaving `stream()` closes the connection to the
service, however it is left.
"""

import random as randomness
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from kiro_mcp.chat import ChatRequest, ImagePart, Reply, ThinkingPart, ToolUse
from kiro_mcp.client.answer import AnswerStream
from kiro_mcp.client.attempts import Attempts, Mender, Sleep, Surroundings, attempted
from kiro_mcp.client.budget import Budget, CallSpending
from kiro_mcp.client.capture import Recorder
from kiro_mcp.client.endpoints import EndpointProfile, endpoints_in_order
from kiro_mcp.client.http import HttpPool
from kiro_mcp.client.management import Management, ModelList
from kiro_mcp.client.off_loop import is_large, off_loop
from kiro_mcp.client.retry import Failure, Remedy, RetryPolicy
from kiro_mcp.client.sending import AGENT_MODE, Sender, Trial
from kiro_mcp.client.slots import FairSlots
from kiro_mcp.client.telemetry import Telemetry
from kiro_mcp.client.tokens import RefreshingTokenSource, TokenSource
from kiro_mcp.client.usage_limits import UsageLimits
from kiro_mcp.settings import Settings
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
    "RefreshingTokenSource",
    "TokenSource",
    "UsageLimits",
]

DEFAULT_REGION = "us-east-1"
"""For what is drafted without knowing the account; every endpoint is there."""

THINKING_TIMEOUT_FACTOR = 1.5
"""How much longer an answer that begins with thought may take to begin."""


class KiroClient:
    """Asks the service, with the token that its `TokenSource` gives. An async context manager.

    Args:
        tokens: Gives the tokens, and renews them if it can.
        settings: All settings; the defaults where None.
        state_folder: Where the day's credits are kept, if there is a budget; None for memory.
        new_id: Makes UUIDs.
        now: The time.
        sleep: Waits; cancelled, it must end at once.
        random: Gives numbers from 0 up to 1, for the jitter of retries.
        telemetry: Makes spans and metrics of calls; by default for OpenTelemetry's own providers.
        http: Connections that are shared with others, and closed by their owner; None for
            connections of its own.
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
        self._telemetry = telemetry or Telemetry()
        self._settings = settings = settings or Settings.load({})
        self._options = PayloadOptions(
            description_max_bytes=settings.tool_description_max_bytes,
            thinking_budget=settings.thinking_budget,
            max_payload_bytes=settings.max_payload_bytes,
            tells_of_truncation=settings.truncation_recovery,
        )
        self._new_id = new_id
        self._now = now
        self._owns_http = http is None
        self._http = http or HttpPool(
            connect_timeout_seconds=settings.connect_timeout_seconds,
            proxy_url=settings.proxy_url.get_secret_value(),
        )
        self._sender = Sender(settings, self._http, now=now)
        surroundings = Surroundings(sleep=sleep, random=random, new_id=new_id, now=now)
        self._attempts = Attempts(tokens, _policy(settings), surroundings)
        self._management = Management(settings, self._sender, self._attempts)
        self._budget = Budget(
            per_call=settings.max_credits_per_call,
            per_day=settings.max_credits_per_day,
            folder=state_folder,
            now=now,
        )
        self._slots = FairSlots(settings.max_concurrency)

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
        """Close every connection of its own, for good."""
        if self._owns_http:
            await self._http.aclose()

    async def ask(self, request: ChatRequest, *, spending: CallSpending | None = None) -> Reply:
        """Return the whole answer.

        Raises:
            KiroError: There is no answer, nor a part of one.
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
        spending: CallSpending | None = None,
        recorder: Recorder | None = None,
        caller: str = "",
    ) -> AsyncGenerator[AnswerStream]:
        """Send a request and yield its answer once it has begun, to be read delta by delta.

        Args:
            request: What is asked.
            spending: What the requests of one call have cost; by default this one is alone.
            recorder: Notes what goes over the wire, where calls are captured.
            caller: Who asks. While all slots are taken, callers take turns.

        Raises:
            KiroError: There is no answer, nor a part of one.
        """
        spending = spending or CallSpending()
        if not request.conversation_id:
            request = replace(request, conversation_id=self._new_id())
        request = self._told_time(request)
        async with self._slots.taken_by(caller), AsyncExitStack() as stack:
            inference = stack.enter_context(self._telemetry.inference(request))
            writer = RequestWriter(self._options)

            async def attempt(trial: Trial) -> AnswerStream | Failure:
                await self._budget.require_left(spending)
                inference.sends_to(self._sender.destination(trial).url)
                return await self._attempt(trial, writer, stack, spending)

            trial = await self._attempts.first_trial(
                self._endpoints, request=request, recorder=recorder
            )
            answer = await self._attempts.until_done(attempt, trial, self._menders())
            inference.begins(answer)
            yield answer

    def draft(self, request: ChatRequest) -> Payload:
        """Return what would be sent, be it something that the service refuses. Nothing is sent.

        Raises:
            InvalidRequest: There is no message.
        """
        (endpoint, *_) = self._endpoints(DEFAULT_REGION, "")
        envelope = Envelope(
            origin=self._sender.origin(endpoint),
            profile_arn="",
            form=endpoint.form,
            agent_mode=AGENT_MODE,
        )
        return draft_payload(self._told_time(request), envelope, self._options)

    async def list_models(self) -> ModelList:
        """Return the models that the service offers to this account, all pages of them.

        Raises:
            KiroError: The list cannot be had.
        """
        return await self._management.models()

    async def usage_limits(self) -> UsageLimits:
        """Return what the account has used of its plan.

        Raises:
            KiroError: It cannot be had.
        """
        return await self._management.usage_limits()

    def ask_again(self) -> None:
        """Ask the service again also for accounts that it has suspended or told to wait."""
        self._attempts.holds.clear()

    def _told_time(self, request: ChatRequest) -> ChatRequest:
        if not self._settings.tell_time:
            return request
        time = f"The current time is {self._now().isoformat(timespec='seconds')}."
        return replace(request, system=f"{time}\n\n{request.system}".strip())

    def _endpoints(self, region: str, preferred: str) -> tuple[EndpointProfile, ...]:
        names = self._settings.endpoint_names
        return endpoints_in_order(names, preferred=preferred, region=region)

    async def _attempt(
        self,
        trial: Trial,
        writer: RequestWriter,
        call: AsyncExitStack,
        spending: CallSpending,
    ) -> AnswerStream | Failure:
        """Make one attempt; what it opens stays open, in the call's stack, only if it succeeds."""
        deadline = anyio.current_time() + self._first_token_seconds(trial)
        async with AsyncExitStack() as stack:
            opened = await attempted(lambda: self._opened(trial, writer, stack, deadline), deadline)
            if isinstance(opened, Failure):
                return opened
            stack.push_async_callback(self._settle, opened, spending, trial.recorder)
            failure = await opened.begin()
            if failure is None:
                call.push_async_exit(stack.pop_all())
            return failure or opened

    async def _opened(
        self, trial: Trial, writer: RequestWriter, stack: AsyncExitStack, deadline: float
    ) -> AnswerStream:
        assert trial.request
        payload = await off_loop(
            partial(self._payload, trial, writer), is_large=is_large(trial.request)
        )
        response = await stack.enter_async_context(self._sender.send(trial, body=payload.encoded))
        assert trial.request
        options = self._reply_options(trial.request, payload)
        if trial.recorder is not None:
            trial.recorder.reads_with(options)
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
        reply = answer.cut()  # Nothing is read after this; a whole answer stays whole.
        if recorder is not None:
            recorder.replied(reply)
        await answer.aclose()
        await self._budget.add(answer.credits, spending)

    def _payload(self, trial: Trial, writer: RequestWriter) -> Payload:
        request = trial.request
        assert request
        head, owner = request.history_head, trial.token.owner or trial.token.value
        envelope = Envelope(
            origin=self._sender.origin(trial.endpoint),
            profile_arn=trial.token.profile_arn,
            form=trial.endpoint.form,
            agent_mode=AGENT_MODE,
            sends_model_fields=trial.sends_model_fields,
            conversation_id=cache_id(head, owner) if head else "",
        )
        return writer.write(request, envelope)

    def _reply_options(self, request: ChatRequest, payload: Payload) -> ReplyOptions:
        return ReplyOptions(
            prompt_characters=_prompt_characters(request),
            context_window_tokens=payload.model.context_window or 0,
            thinking=self._settings.thinking_handling,
            tools=request.tools,
            caller_names=payload.tool_names,
            property_names=payload.property_names,
            reads_text_calls=self._settings.text_tool_calls,
            max_payload_bytes=self._settings.max_frame_payload_bytes,
            max_headers_bytes=self._settings.max_frame_headers_bytes,
        )

    def _first_token_seconds(self, trial: Trial) -> float:
        is_thinking = trial.request is not None and trial.request.effort not in ("", "off")
        factor = THINKING_TIMEOUT_FACTOR if is_thinking else 1.0
        return self._settings.first_token_timeout_seconds * factor

    def _menders(self) -> Mapping[Remedy, Mender]:
        return {
            "without_reasoning": _without_reasoning,
            "new_conversation": self._with_new_conversation,
            "known_profile": self._management.with_profile,
            "without_model_fields": _without_model_fields,
            "listed_model": self._management.with_listed_model,
        }

    async def _with_new_conversation(self, trial: Trial) -> Trial:
        assert trial.request
        return replace(
            trial, request=replace(trial.request, conversation_id=self._new_id(), history_head="")
        )


async def _without_reasoning(trial: Trial) -> Trial:
    assert trial.request
    messages = tuple(
        replace(one, parts=tuple(part for part in one.parts if not isinstance(part, ThinkingPart)))
        for one in trial.request.messages
    )
    return replace(trial, request=replace(trial.request, messages=messages))


async def _without_model_fields(trial: Trial) -> Trial:
    return replace(trial, sends_model_fields=False)


def _policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        max_retries=settings.max_retries,
        base_delay_seconds=settings.base_retry_delay_seconds,
        first_token_max_retries=settings.first_token_max_retries,
    )


def _prompt_characters(request: ChatRequest) -> int:
    texts = (
        part.text
        for message in request.messages
        for part in message.parts
        if not isinstance(part, ToolUse | ImagePart)
    )
    return len(request.system) + sum(map(len, texts))
