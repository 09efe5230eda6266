"""All errors of the package, and the closed list of their codes.

Each class says what the person or program that gets the error should do::

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
    │   └── FrameError         its bytes are not an event stream
    ├── CallCancelled          nothing; you       cancelled
    │                          asked for it
    └── InternalFault          report it          internal_error

An error has attributes, so nobody needs to parse its text: the `code`, the next step, how long to
wait, and the service's request id. No error contains a token or the body of a request.
"""

import re
from typing import ClassVar, Final, Literal, Self

from kiro_mcp.redaction import redact_values

MAX_QUOTED_CHARACTERS: Final = 80
"""How much of a value a message quotes. A caller may pass megabytes where a path belongs."""

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
"""All codes of failed calls. The list is closed: a new code is a breaking change."""


_LOGIN_TOOL: Final = re.compile(
    r"call (?:the tool )?`login`(?: with action `\w+`)?(?:,? \(?or run `kiro-mcp login`\)?)?",
    re.IGNORECASE,
)


def name_login_command(text: str) -> str:
    """Replace the tool `login` by the command `kiro-mcp login`, for readers who have no tools."""

    def command(found: re.Match[str]) -> str:
        return f"{'R' if found[0][0] == 'C' else 'r'}un `kiro-mcp login`"

    return _LOGIN_TOOL.sub(command, text).replace("the tool `login`", "`kiro-mcp login`")


def quoted(value: str) -> str:
    """Return a value as messages show it: in quotes, on one line, cut after 80 characters."""
    return repr(
        value if len(value) <= MAX_QUOTED_CHARACTERS else f"{value[:MAX_QUOTED_CHARACTERS]}…"
    )


class KiroError(Exception):
    """An error that this package raises on purpose.

    Its text is `What happened. What to do next.`, to show to a person or a model.
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
        # A text from a service, a library or a caller may contain a secret.
        message, next_step = redact_values(message), redact_values(next_step)
        super().__init__(f"{message} {next_step}".strip())
        self.message = message
        """What happened, as one sentence that names the wrong value."""
        self.next_step = next_step
        """What the person should do now, as one or two sentences; "" if nothing helps."""
        self.code: ErrorCode = code or self.default_code
        """One of `ErrorCode`."""
        self.reason = redact_values(reason)
        """The service's own reason, such as `INVALID_MODEL_ID`; "" for none."""
        self.status = status
        """The HTTP status of the answer; None if no answer arrived."""
        self.request_id = request_id and redact_values(request_id)
        """The service's id of the request, for its support."""
        self.retry_after_seconds = retry_after_seconds
        """How long the service asked to wait; None if it did not ask."""


class SignInRequired(KiroError):
    """No credential was found, or the service does not accept it."""

    default_code = "auth_required"


class AccountBlocked(KiroError):
    """The account may not make this call now. Calling again does not help and can do harm."""

    default_code = "forbidden"


class InvalidRequest(KiroError):
    """The call itself is wrong: the same call would fail again."""

    default_code = "invalid_request"


class ServiceUnavailable(KiroError):
    """The service, or the network, cannot serve the call now. Later it may work."""

    default_code = "upstream_error"


class AnswerBroken(KiroError):
    """The answer is empty, or ended before it was complete."""

    default_code = "stream_broken"


class FrameError(AnswerBroken):
    """The bytes of an answer are not a valid `application/vnd.amazon.eventstream`.

    Decoding raises no other error, whatever the bytes are.
    """

    def __init__(self, message: str, *, offset: int, frame_count: int) -> None:
        super().__init__(
            f"The answer's bytes are not a valid event stream: {message}"
            f" (at byte {offset}, after {frame_count} good frames).",
            next_step="Call again. If this happens every time, a proxy may change the bytes.",
        )
        self.offset = offset
        """Where the invalid frame begins, in bytes from the start of the stream."""
        self.frame_count = frame_count
        """How many valid frames came before it. All of them were delivered."""


class CallCancelled(KiroError):
    """The call was cancelled before its answer was complete."""

    default_code = "cancelled"


class InternalFault(KiroError):
    """A defect of this package."""

    default_code = "internal_error"

    @classmethod
    def met_by(cls, what: str) -> Self:
        """Make the error of something that met a defect. Only the log has the details."""
        return cls(
            f"{what} met a defect of kiro-mcp.",
            next_step="Its log (stderr) has the details; please report them.",
        )
