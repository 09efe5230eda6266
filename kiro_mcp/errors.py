"""The errors of the package, all of them, and the closed list of codes a caller can meet.

Errors are named by what the person or program that meets one should do::

    KiroError                  anything this package raises on purpose
    ├── SignInRequired         sign in            auth_required auth_expired
    ├── AccountBlocked         settle it with     forbidden account_suspended
    │                          the account        quota_exhausted budget_exceeded
    ├── InvalidRequest         change the call    invalid_request context_too_long
    │                                             model_unavailable not_found
    ├── ServiceUnavailable     wait, call again   rate_limited model_busy upstream_error
    │                                             network_error timeout
    ├── AnswerBroken           the answer ended   stream_broken empty_response
    │   │                      before its end
    │   └── FrameError         its bytes are no event stream
    ├── CallCancelled          nothing; you       cancelled
    │                          asked for it
    └── InternalFault          report it          internal_error

Every error carries facts, never prose to be parsed: its `code`, what to do next, how long
to wait, and the service's own request id. None carries a token or the body of a request.
"""

from typing import ClassVar, Final, Literal

from kiro_mcp.redaction import redact_values

MAX_QUOTED_CHARACTERS: Final = 80
"""How much of a value a message repeats. An image in the place of a path can be megabytes."""

ErrorCode = Literal[
    "auth_required",
    "auth_expired",
    "forbidden",
    "account_suspended",
    "quota_exhausted",
    "rate_limited",
    "model_busy",
    "model_unavailable",
    "context_too_long",
    "invalid_request",
    "upstream_error",
    "network_error",
    "timeout",
    "stream_broken",
    "empty_response",
    "not_found",
    "budget_exceeded",
    "cancelled",
    "internal_error",
]
"""Every code that a failed call can carry. The list is closed: a new one is a breaking change."""


def quoted(value: str) -> str:
    """Return a value as messages show it: in quotes, on one line, cut after 80 characters."""
    return repr(
        value if len(value) <= MAX_QUOTED_CHARACTERS else f"{value[:MAX_QUOTED_CHARACTERS]}…"
    )


class KiroError(Exception):
    """Anything this package raises on purpose.

    Its text is `what happened. What to do next.`, ready to be shown to a person or a model.
    """

    default_code: ClassVar[ErrorCode] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        code: ErrorCode | None = None,
        reason: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        # Whatever a service, a library or a caller put into it, no secret leaves with an error.
        message, next_step = redact_values(message), redact_values(next_step)
        super().__init__(f"{message} {next_step}".strip())
        self.message = message
        """What happened, as one sentence that names the value at fault."""
        self.next_step = next_step
        """What the person should do now, as one or two sentences; "" where nothing helps."""
        self.code: ErrorCode = code or self.default_code
        """One of `ErrorCode`."""
        self.reason = redact_values(reason)
        """The service's own reason, such as `INVALID_MODEL_ID`; "" where it gave none."""
        self.status = status
        """The HTTP status of the answer, or None where there was none."""
        self.request_id = request_id and redact_values(request_id)
        """The service's id of the request, for a report to its support."""
        self.retry_after_seconds = retry_after_seconds
        """How long the service asked to be left alone, or None where it did not say."""


class SignInRequired(KiroError):
    """There is no credential, or the service no longer takes the one there is."""

    default_code = "auth_required"


class AccountBlocked(KiroError):
    """The account may not do this now. Calling again does not help and can do harm."""

    default_code = "forbidden"


class InvalidRequest(KiroError):
    """The call itself is at fault: the same call fails again."""

    default_code = "invalid_request"


class ServiceUnavailable(KiroError):
    """The service, or the way to it, is not up to the call now; later it may be."""

    default_code = "upstream_error"


class AnswerBroken(KiroError):
    """The answer began, or should have begun, and did not come to its end."""

    default_code = "stream_broken"


class FrameError(AnswerBroken):
    """The bytes of an answer are not a valid `application/vnd.amazon.eventstream`.

    The only error that decoding raises, whatever the bytes.
    """

    def __init__(self, message: str, *, offset: int, frame_count: int) -> None:
        super().__init__(
            f"The answer's bytes are not a valid event stream: {message}"
            f" (at byte {offset}, after {frame_count} good frames).",
            next_step="Call again; if it happens every time, a proxy may be changing the bytes.",
        )
        self.offset = offset
        """Where the frame at fault begins, in bytes from the start of the stream."""
        self.frame_count = frame_count
        """How many frames before it were good; each of them has been delivered."""


class CallCancelled(KiroError):
    """The call was cancelled before its answer was complete."""

    default_code = "cancelled"


class InternalFault(KiroError):
    """A defect of this package."""

    default_code = "internal_error"
