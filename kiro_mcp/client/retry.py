"""Whether, when and how often a failed attempt is made again: decisions without a clock.

What the service's answer calls for, first row that fits::

    something of the answer was delivered             never again: it is billed, and half told
    suspended, suspicious activity, quota, 402, 413   never: it does not help and can do harm
    a cause that a change removes (`Remedy`)          once with that change, at once
    too many requests, "the model is busy"            next endpoint (not after a 5xx, not where
                                                      the account is throttled); 5, 10, 20 s
    408, 5xx, no connection, a stream without a word  1, 2, 4 s
    no word in time                                   once, or as often as the setting says
    an answer of nothing                              once
    anything else                                     never

A wait that the service asks for (`Retry-After`, `retryAfterMilliseconds`) takes the place of the
schedule, and nothing is sent inside it, to no endpoint. After one of over a minute the call fails
at once, and its error says how long to wait.
Sources: the schedules of the vendor's open source clients and of others that report success;
"Exponential Backoff And Jitter" (aws.amazon.com/blogs/architecture) for full jitter.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from kiro_mcp.chat import Fault
from kiro_mcp.errors import KiroError

MAX_WAIT_SECONDS: Final = 30.0
"""Where a schedule stops growing."""

MAX_RETRY_AFTER_SECONDS: Final = 60.0
"""The longest that the service is waited for; beyond it the caller decides."""

_BUSY_FACTOR: Final = 5.0
"""How much longer than after a mere fault an overloaded service is left alone."""

Remedy = Literal[
    "fresh_token",
    "token_type",
    "another_profile",
    "without_reasoning",
    "new_conversation",
    "known_profile",
    "without_model_fields",
    "listed_model",
]
"""A change that takes a refusal's cause away."""

_REMEDY_OF_REASON: Final[dict[str, Remedy]] = {
    "THINKING_SIGNATURE_INVALID": "without_reasoning",
    "INVALID_CONVERSATION_ID": "new_conversation",
}
_REMEDY_OF_WORDS: Final[tuple[tuple[str, Remedy], ...]] = (
    ("invalid signature in thinking block", "without_reasoning"),
    ("profilearn is required", "known_profile"),
    ("additionalmodelrequestfields", "without_model_fields"),
)
_ACCOUNT_THROTTLES: Final = frozenset(
    {"CREDIT_CONSUMPTION_RATE_EXCEEDED", "USER_REQUEST_RATE_EXCEEDED"}
)
"""Reasons that throttle the whole account: another endpoint would be asked in vain."""
_FOREIGN_PROFILE_WORDS: Final = "not authorized to make this call"
"""Observed: what a profile that is not, or no more, the account's own is answered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient to be."""

    max_retries: int = 3
    """How often an attempt is made again after a wait; a remedy is not counted."""
    base_delay_seconds: float = 1.0
    """The first step of the schedule after a fault; all others grow with it."""
    first_token_max_retries: int = 1
    """How often one is made again after an answer that did not begin in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt of which nothing was delivered."""

    error: KiroError
    """What the caller meets if there is no other attempt."""
    remedy: Remedy | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Attempt again after so many seconds, from the first endpoint on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class MoveOn:
    """Attempt at once at the next endpoint."""


@dataclass(frozen=True, slots=True)
class Mend:
    """Attempt at once with a change."""

    remedy: Remedy


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make no other attempt."""


Step: TypeAlias = Wait | MoveOn | Mend | GiveUp


def remedy_for(fault: Fault, error: KiroError) -> Remedy | None:
    """Return what would take the cause of a refusal away, None where nothing is known to."""
    words = fault.message.lower()
    if error.code == "auth_expired":
        return "fresh_token"
    if error.code == "forbidden" and _FOREIGN_PROFILE_WORDS in words:
        return "another_profile"
    if fault.reason.upper() == "INVALID_MODEL_ID":
        return "listed_model"  # Observed under load: an immediate repeat is often answered.
    if error.code != "invalid_request":
        return None
    if remedy := _REMEDY_OF_REASON.get(fault.reason.upper()):
        return remedy
    return next((remedy for mark, remedy in _REMEDY_OF_WORDS if mark in words), None)


class RetryPlan:
    """The attempts of one call: tell it of each failure, do what it says.

    Args:
        policy: How patient to be.
        remedies: The changes that can be made; each is made once.
        endpoint_count: How many endpoints there are to move on to.
        random: Gives numbers from 0 up to 1, for the jitter.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        remedies: Collection[Remedy],
        endpoint_count: int,
        random: Callable[[], float],
    ) -> None:
        self.attempt = 1
        """The number of the attempt that is being made."""
        self._policy = policy
        self._remedies = set(remedies)
        self._endpoint_count = endpoint_count
        self._random = random
        self._endpoints_tried = 1
        self._waits = 0
        self._silences = 0
        self._has_been_empty = False

    @property
    def max_attempts(self) -> int:
        """How many attempts there may be, as far as is known; never less than were made."""
        return max(self._policy.max_retries + 1, self.attempt)

    def after(self, failure: Failure) -> Step:
        """Say what follows a failure."""
        step = self._step(failure)
        if not isinstance(step, GiveUp):
            self.attempt += 1
        return step

    def _step(self, failure: Failure) -> Step:
        if failure.remedy is not None:
            return self._mend(failure.remedy)
        match failure.error.code:
            case "rate_limited" | "model_busy":
                return self._after_refusal(failure.error)
            case "timeout" if failure.error.status is None:
                return self._after_silence()
            case "empty_response":
                return self._after_nothing()
            case "network_error" | "stream_broken" | "upstream_error" | "timeout":
                return self._after_fault(failure.error)
            case _:
                return GiveUp()

    def _mend(self, remedy: Remedy) -> Step:
        if remedy == "fresh_token" and remedy not in self._remedies:
            remedy = "token_type"  # A fresh one was refused, too.
        if remedy not in self._remedies:
            return GiveUp()
        self._remedies.remove(remedy)
        return Mend(remedy)

    def _after_refusal(self, error: KiroError) -> Step:
        """Leave an overloaded service alone for as long as it asks, or as its clients do."""
        may_move_on = (
            error.retry_after_seconds is None
            and error.reason.upper() not in _ACCOUNT_THROTTLES
            and error.status is not None
            and error.status < 500
        )
        if may_move_on and self._endpoints_tried < self._endpoint_count:
            self._endpoints_tried += 1
            return MoveOn()
        least = self._scheduled(_BUSY_FACTOR)
        return self._wait(least + self._jitter(), error.retry_after_seconds)

    def _after_fault(self, error: KiroError) -> Step:
        if error.status is not None and error.status < 400:
            return GiveUp()  # Such as a redirect, which is not followed.
        return self._wait(self._random() * self._scheduled(1.0), error.retry_after_seconds)

    def _after_silence(self) -> Step:
        if self._silences >= self._policy.first_token_max_retries:
            return GiveUp()
        self._silences += 1
        return Wait(0.0)

    def _after_nothing(self) -> Step:
        if self._has_been_empty:
            return GiveUp()
        self._has_been_empty = True
        return self._wait(0.0, None)

    def _wait(self, seconds: float, asked_seconds: float | None) -> Step:
        if self._waits >= self._policy.max_retries:
            return GiveUp()
        if asked_seconds:  # A wait of nothing is no reason to be less patient than the schedule.
            if asked_seconds > MAX_RETRY_AFTER_SECONDS:
                return GiveUp()
            seconds = asked_seconds + self._jitter()
        self._waits += 1
        self._endpoints_tried = 1
        return Wait(seconds)

    def _scheduled(self, factor: float) -> float:
        return min(self._policy.base_delay_seconds * factor * 2**self._waits, MAX_WAIT_SECONDS)

    def _jitter(self) -> float:
        """Spread the calls that were refused together; never sooner than the service asks."""
        return self._random() * self._policy.base_delay_seconds
