"""A call, attempted until it succeeds or nothing more should be tried.

The thin loop around `kiro_mcp.client.retry`, which decides: wait, mend, move on, give up.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeAlias, TypeVar, assert_never

import anyio

from kiro_mcp.chat import ChatRequest, Fault
from kiro_mcp.client.capture import Recorder
from kiro_mcp.client.classify import classify
from kiro_mcp.client.endpoints import EndpointProfile
from kiro_mcp.client.holds import Holds
from kiro_mcp.client.retry import (
    MAX_RETRY_AFTER_SECONDS,
    Failure,
    GiveUp,
    Mend,
    MoveOn,
    Remedy,
    RetryPlan,
    RetryPolicy,
    Step,
    Wait,
    remedy_for,
)
from kiro_mcp.client.sending import RefusedError, Trial
from kiro_mcp.client.tokens import (
    ProfileSource,
    RefreshingTokenSource,
    TokenSource,
    TypedTokenSource,
)
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired

Result = TypeVar("Result")

Sleep: TypeAlias = Callable[[float], Awaitable[object]]
Mender: TypeAlias = Callable[[Trial], Awaitable[Trial | None]]
"""Makes one change to an attempt; None where it cannot be made."""
Attempt: TypeAlias = Callable[[Trial], Awaitable[Result | Failure]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What retrying takes from outside, so that tests can have it otherwise."""

    sleep: Sleep
    random: Callable[[], float]
    new_id: Callable[[], str]
    now: Callable[[], datetime]


class Attempts:
    """Makes the attempts of calls, with a token that is renewed where the service refuses it."""

    def __init__(
        self, tokens: TokenSource, policy: RetryPolicy, surroundings: Surroundings
    ) -> None:
        self._tokens = tokens
        self._policy = policy
        self._surroundings = surroundings
        self.holds = Holds(surroundings.now)
        self._token_menders = _token_menders(tokens)

    async def first_trial(
        self,
        endpoints: Callable[[str, str], tuple[EndpointProfile, ...]],
        *,
        request: ChatRequest | None = None,
        recorder: Recorder | None = None,
    ) -> Trial:
        """Return the first attempt of a new call.

        Args:
            endpoints: The endpoints for a region and for what the credential prefers.
            request: The prompt; None for what has none.
            recorder: What notes the attempts, where calls are captured.

        Raises:
            SignInRequired: There is no token.
            KiroError: The account is suspended, or was told to wait for long.
        """
        token = await self._tokens.access_token()
        hold = self.holds.on(token)
        if hold is not None and (hold.error.code == "account_suspended" or request is not None):
            if hold.seconds > MAX_RETRY_AFTER_SECONDS:
                raise hold.error
            jitter = self._surroundings.random() * self._policy.base_delay_seconds
            await self._surroundings.sleep(hold.seconds + jitter)
        return Trial(
            token=token,
            endpoints=endpoints(token.region, token.preferred_endpoint),
            invocation_id=self._surroundings.new_id(),
            max_attempts=self._policy.max_retries + 1,
            request=request,
            recorder=recorder,
        )

    async def until_done(
        self,
        attempt: Attempt[Result],
        trial: Trial,
        menders: Mapping[Remedy, Mender] | None = None,
    ) -> Result:
        """Attempt a call until it succeeds.

        Args:
            attempt: Makes one attempt; what it raises is not tried again.
            trial: The first attempt.
            menders: What can be changed about an attempt, by the remedy that asks for it.

        Raises:
            KiroError: What the last attempt met, or what mending met.
        """
        menders = {**(menders or {}), **self._token_menders}
        plan = RetryPlan(
            self._policy,
            remedies=menders,
            endpoint_count=len(trial.endpoints),
            random=self._surroundings.random,
        )
        while isinstance(result := await attempt(trial), Failure):
            if trial.recorder is not None:
                trial.recorder.failed(result.error)
            self.holds.add(trial.token, result.error)
            changed = await self._changed(trial, plan.after(result), menders)
            if changed is None:
                raise result.error
            trial = replace(changed, attempt=plan.attempt, max_attempts=plan.max_attempts)
        return result

    async def _changed(
        self, trial: Trial, step: Step, menders: Mapping[Remedy, Mender]
    ) -> Trial | None:
        """Return the next attempt, when it is time for it; None if there is to be none."""
        match step:
            case Wait(seconds):
                await self._surroundings.sleep(seconds)
                return replace(trial, place=0)
            case MoveOn():
                return replace(trial, place=trial.place + 1)
            case Mend(remedy):
                return await menders[remedy](trial)
            case GiveUp():
                return None
            case _:
                assert_never(step)


def _token_menders(tokens: TokenSource) -> Mapping[Remedy, Mender]:
    menders: dict[Remedy, Mender] = {}
    if isinstance(tokens, RefreshingTokenSource):
        menders["fresh_token"] = partial(_with_fresh_token, tokens)
    if isinstance(tokens, TypedTokenSource):
        menders["token_type"] = partial(_with_token_type, tokens)
    if isinstance(tokens, ProfileSource):
        menders["another_profile"] = partial(_with_another_profile, tokens)
    return menders


async def _with_fresh_token(tokens: RefreshingTokenSource, trial: Trial) -> Trial:
    try:
        return replace(trial, token=await tokens.refreshed(trial.token))
    except SignInRequired as error:
        if isinstance(tokens, TypedTokenSource) and (token := await tokens.retyped(trial.token)):
            return replace(trial, token=token, not_renewed=error)
        raise


async def _with_token_type(tokens: TypedTokenSource, trial: Trial) -> Trial | None:
    if token := await tokens.retyped(trial.token):
        return replace(trial, token=token)
    if trial.not_renewed:
        raise trial.not_renewed  # It says what to do; the refusal alone does not.
    return None


async def _with_another_profile(tokens: ProfileSource, trial: Trial) -> Trial | None:
    token = await tokens.reprofiled(trial.token)
    return replace(trial, token=token) if token else None


async def attempted(make: Callable[[], Awaitable[Result]], deadline: float) -> Result | Failure:
    """Make one attempt, by a deadline of `anyio.current_time`; what it raises becomes a failure."""
    try:
        with anyio.CancelScope(deadline=deadline):
            return await make()
    except RefusedError as refused:
        return failure_of(refused.fault)
    except KiroError as error:
        return Failure(error=error)
    return Failure(error=no_answer_in_time())


def failure_of(fault: Fault) -> Failure:
    """Say what a refusal is, and what would take its cause away."""
    error = classify(fault)
    return Failure(error=error, remedy=remedy_for(fault, error))


def no_answer_in_time() -> KiroError:
    """Return the error of an answer that did not begin in time."""
    return ServiceUnavailable(
        "The service did not begin to answer in time.",
        next_step="Call again; KIRO_MCP_FIRST_TOKEN_TIMEOUT sets how long to wait.",
        code="timeout",
    )
