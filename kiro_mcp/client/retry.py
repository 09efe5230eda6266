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
from typing import Final, Literal, TypeAlias

from kiro_mcp.client.classify import UNKNOWN_ADDRESS, UNKNOWN_OPERATION
from kiro_mcp.errors import KiroError
from kiro_mcp.settings import Settings

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
        "newer_form",
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
    (UNKNOWN_OPERATION.lower(), "newer_form"),
    (UNKNOWN_ADDRESS.lower(), "newer_form"),
)
_ACCOUNT_THROTTLES: Final = frozenset(
    {"CREDIT_CONSUMPTION_RATE_EXCEEDED", "USER_REQUEST_RATE_EXCEEDED"}
)
"""Reasons that apply to the whole account, at every endpoint."""
_FOREIGN_PROFILE_WORDS: Final = "not authorized to make this call"
"""Observed: the service's answer if the profile does not, or no longer, belong to the account."""


Step: TypeAlias = float | Recovery | Literal["next_endpoint"] | None
"""What follows a failed attempt.

A number: another attempt after so many seconds, at the first endpoint. A recovery: one at once, if
the change is possible. `next_endpoint`: one at once at the next endpoint. None: no attempt."""


def recovery_for(error: KiroError) -> Recovery | None:
    """Return the change that would remove the cause of a refusal; None if none is known."""
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

    Recoveries do not count as retries. `random` returns numbers from 0 up to 1, for the jitter.
    """

    def __init__(
        self, settings: Settings, *, endpoint_count: int, random: Callable[[], float]
    ) -> None:
        self.attempt = 1
        """The number of the current attempt, from 1 on."""
        self.max_attempts = settings.max_retries + 1
        """How many attempts the call may make; never fewer than it has made."""
        self.endpoint_count = endpoint_count
        """How many endpoints the call may use."""
        self._settings = settings
        self._random = random
        self._recoveries_tried: set[Recovery] = set()
        self._endpoints_tried = 1
        self._waits = 0
        self._silences = 0
        self._was_empty = False

    def after(self, error: KiroError) -> Step:
        """Decide what follows a failed attempt."""
        step = self._step(error)
        if step is not None:
            self.attempt += 1
            self.max_attempts = max(self.max_attempts, self.attempt)
        return step

    def _step(self, error: KiroError) -> Step:
        if (recovery := recovery_for(error)) is not None:
            if recovery == "fresh_token" and recovery in self._recoveries_tried:
                recovery = "token_type"  # A fresh token was refused, too.
            if recovery in self._recoveries_tried:
                return None
            self._recoveries_tried.add(recovery)
            return recovery
        delay, asked_seconds = self._settings.base_retry_delay_seconds, error.retry_after_seconds
        match error.code:
            case "rate_limited" | "model_busy":
                may_move_on = (
                    asked_seconds is None
                    and error.reason.upper() not in _ACCOUNT_THROTTLES
                    and error.status is not None
                    and error.status < 500
                )
                if may_move_on and self._endpoints_tried < self.endpoint_count:
                    self._endpoints_tried += 1
                    return "next_endpoint"
                seconds = min(_BUSY_FACTOR * delay * 2**self._waits, MAX_WAIT_SECONDS)
                return self._wait(seconds + self._random() * delay, asked_seconds)
            case "timeout" if error.status is None:
                self._silences += 1
                is_too_often = self._silences > self._settings.first_token_max_retries
                return None if is_too_often else 0.0
            case "empty_response":
                is_second, self._was_empty = self._was_empty, True
                return None if is_second else self._wait(0.0)
            case "network_error" | "stream_broken" | "upstream_error" | "timeout":
                if error.status is not None and error.status < 400:
                    return None  # Such as a redirect: redirects are not followed.
                seconds = min(delay * 2**self._waits, MAX_WAIT_SECONDS)
                return self._wait(self._random() * seconds, asked_seconds)
            case _:
                return None

    def _wait(self, seconds: float, asked_seconds: float | None = None) -> float | None:
        """Return a wait as scheduled, or as long as the service asked; None if that is too long."""
        if self._waits >= self._settings.max_retries:
            return None
        if asked_seconds:  # `Retry-After: 0` does not shorten the schedule.
            if asked_seconds > MAX_RETRY_AFTER_SECONDS:
                return None
            # The random extra spreads calls that were refused at the same time.
            seconds = asked_seconds + self._random() * self._settings.base_retry_delay_seconds
        self._waits += 1
        self._endpoints_tried = 1
        return seconds
