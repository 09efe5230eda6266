"""Decides whether and when a failed attempt is repeated. Pure: without a clock.

The first line that matches decides::

    suspended, suspicious activity, quota, 402, 413   never: it does not help and can do harm
    a cause that a change removes (`Recovery`)        once with that change, at once
    too many requests, "the model is busy"            next endpoint (not after a 5xx, and not if
                                                      the account is throttled); 5, 10, 20 s
    408, 5xx, no connection, broken before a delta    1, 2, 4 s
    no delta in time                                  once, or as often as the setting says
    an empty answer                                   once
    anything else                                     never

Once a delta was delivered, nothing is sent again: what was delivered is billed.
A wait that the service asks for (`Retry-After`, `retryAfterMilliseconds`) replaces the schedule.
During such a wait nothing is sent to any endpoint. If the wait is longer than a minute, the call
fails at once and its error says how long to wait.
Sources: the schedules of the vendor's open source clients and of other clients that work;
"Exponential Backoff And Jitter" (aws.amazon.com/blogs/architecture) for full jitter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from kiro_mcp.errors import KiroError

MAX_WAIT_SECONDS: Final = 30.0
"""The longest wait of a schedule."""

MAX_RETRY_AFTER_SECONDS: Final = 60.0
"""The longest wait that the service may ask for. If it asks for more, the call fails."""

_BUSY_FACTOR: Final = 5.0
"""How many times longer to wait after an overload than after a fault."""

TokenRecovery: TypeAlias = Literal["fresh_token", "token_type", "another_profile"]
"""A change that only the source of the token can make."""

Recovery: TypeAlias = (
    TokenRecovery
    | Literal[
        "without_reasoning",
        "new_conversation",
        "known_profile",
        "without_model_fields",
        "listed_model",
    ]
)
"""A change to the next attempt that removes the cause of a refusal."""

_RECOVERY_OF_REASON: Final[dict[str, Recovery]] = {
    "THINKING_SIGNATURE_INVALID": "without_reasoning",
    "INVALID_CONVERSATION_ID": "new_conversation",
}
_RECOVERY_OF_WORDS: Final[tuple[tuple[str, Recovery], ...]] = (
    ("invalid signature in thinking block", "without_reasoning"),
    ("profilearn is required", "known_profile"),
    ("additionalmodelrequestfields", "without_model_fields"),
)
_ACCOUNT_THROTTLES: Final = frozenset(
    {"CREDIT_CONSUMPTION_RATE_EXCEEDED", "USER_REQUEST_RATE_EXCEEDED"}
)
"""Reasons that apply to the whole account, at every endpoint."""
_FOREIGN_PROFILE_WORDS: Final = "not authorized to make this call"
"""Observed: the service's answer if the profile does not, or no longer, belong to the account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to try again, and how long to wait."""

    max_retries: int = 3
    """How many attempts may follow a wait. Recoveries do not count."""
    base_delay_seconds: float = 1.0
    """The first wait after a fault. All other waits are multiples of it."""
    first_token_max_retries: int = 1
    """How many attempts may follow an answer that did not start in time."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after this many seconds, from the first endpoint on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class MoveOn:
    """Try at once at the next endpoint."""


@dataclass(frozen=True, slots=True)
class Recover:
    """Try at once with a change. If the change cannot be made, give up."""

    recovery: Recovery


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again."""


Step: TypeAlias = Wait | MoveOn | Recover | GiveUp


def recovery_for(error: KiroError) -> Recovery | None:
    """Return the change that would remove the cause of a refusal, None if none is known."""
    words, reason = error.message.lower(), error.reason.upper()
    if error.code == "auth_expired":
        return "fresh_token"
    if error.code == "forbidden" and _FOREIGN_PROFILE_WORDS in words:
        return "another_profile"
    if reason == "INVALID_MODEL_ID":
        return "listed_model"  # Observed under load: the same request often works a moment later.
    if error.code != "invalid_request":
        return None
    if recovery := _RECOVERY_OF_REASON.get(reason):
        return recovery
    return next((recovery for mark, recovery in _RECOVERY_OF_WORDS if mark in words), None)


class RetryPlan:
    """The attempts of one call: report each failure to it and do what it says.

    Args:
        policy: How often to try again, and how long to wait.
        endpoint_count: How many endpoints the call may use.
        random: Returns numbers from 0 up to 1, for the jitter.
    """

    def __init__(
        self, policy: RetryPolicy, *, endpoint_count: int, random: Callable[[], float]
    ) -> None:
        self.attempt = 1
        """The number of the current attempt, from 1 on."""
        self._policy = policy
        self._endpoint_count = endpoint_count
        self._random = random
        self._recoveries_tried: set[Recovery] = set()
        self._endpoints_tried = 1
        self._waits = 0
        self._silences = 0
        self._was_empty = False

    @property
    def max_attempts(self) -> int:
        """How many attempts the call may make; never fewer than it has made."""
        return max(self._policy.max_retries + 1, self.attempt)

    def after(self, error: KiroError) -> Step:
        """Decide what follows a failed attempt."""
        step = self._step(error)
        if not isinstance(step, GiveUp):
            self.attempt += 1
        return step

    def _step(self, error: KiroError) -> Step:
        if (recovery := recovery_for(error)) is not None:
            if recovery == "fresh_token" and recovery in self._recoveries_tried:
                recovery = "token_type"  # A fresh token was refused, too.
            if recovery in self._recoveries_tried:
                return GiveUp()
            self._recoveries_tried.add(recovery)
            return Recover(recovery)
        match error.code:
            case "rate_limited" | "model_busy":
                return self._after_overload(error)
            case "timeout" if error.status is None:
                if self._silences >= self._policy.first_token_max_retries:
                    return GiveUp()
                self._silences += 1
                return Wait(0.0)
            case "empty_response":
                if self._was_empty:
                    return GiveUp()
                self._was_empty = True
                return self._wait(0.0)
            case "network_error" | "stream_broken" | "upstream_error" | "timeout":
                if error.status is not None and error.status < 400:
                    return GiveUp()  # Such as a redirect: redirects are not followed.
                seconds = self._random() * self._scheduled(1.0)
                return self._wait(seconds, error.retry_after_seconds)
            case _:
                return GiveUp()

    def _after_overload(self, error: KiroError) -> Step:
        may_move_on = (
            error.retry_after_seconds is None
            and error.reason.upper() not in _ACCOUNT_THROTTLES
            and error.status is not None
            and error.status < 500
        )
        if may_move_on and self._endpoints_tried < self._endpoint_count:
            self._endpoints_tried += 1
            return MoveOn()
        seconds = self._scheduled(_BUSY_FACTOR) + self._jitter()
        return self._wait(seconds, error.retry_after_seconds)

    def _wait(self, seconds: float, asked_seconds: float | None = None) -> Step:
        """Return a wait as scheduled, or as long as the service asked."""
        if self._waits >= self._policy.max_retries:
            return GiveUp()
        if asked_seconds:  # `Retry-After: 0` does not shorten the schedule.
            if asked_seconds > MAX_RETRY_AFTER_SECONDS:
                return GiveUp()
            seconds = asked_seconds + self._jitter()
        self._waits += 1
        self._endpoints_tried = 1
        return Wait(seconds)

    def _scheduled(self, factor: float) -> float:
        return min(self._policy.base_delay_seconds * factor * 2**self._waits, MAX_WAIT_SECONDS)

    def _jitter(self) -> float:
        """Return a random extra wait, to spread calls that were refused at the same time."""
        return self._random() * self._policy.base_delay_seconds
