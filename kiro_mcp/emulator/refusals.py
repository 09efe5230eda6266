"""The error responses of the service, as data.

The REST form names the error in the header `x-amzn-errortype`, the RPC form also in the body, as
`__type`. Source of truth: the service's published error model and observed messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from starlette.responses import JSONResponse, Response

NAMESPACE: Final = "com.amazon.aws.codewhisperer"
KAS_NAMESPACE: Final = "com.amazon.kiro.runtimeservice"
"""Of Kiro's own newer service."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One error response of the service."""

    status: int
    error_type: str
    """The name of the error, such as `ValidationException`, without its namespace."""
    message: str
    reason: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after_milliseconds: int | None = None
    """The wait that the body asks for."""

    def saying(self, message: str, reason: str | None = None) -> "Refusal":
        """Return the refusal with another message, and another reason if one is given."""
        return replace(self, message=message, reason=reason or self.reason)

    def with_headers(self, headers: Mapping[str, str]) -> "Refusal":
        """Return the refusal with additional headers."""
        return replace(self, headers={**self.headers, **headers})

    def to_response(self, namespace: str) -> Response:
        """Return the HTTP response; in the RPC form, the body names the error in a namespace."""
        body: dict[str, Any] = {"message": self.message, "reason": self.reason}
        if self.retry_after_milliseconds is not None:
            body["retryAfterMilliseconds"] = self.retry_after_milliseconds
        if namespace:
            body = {"__type": f"{namespace}#{self.error_type}", **body}
        headers = {"x-amzn-errortype": self.error_type, **self.headers}
        return JSONResponse(body, status_code=self.status, headers=headers)


class Refused(Exception):
    """Ends an operation: the service answers with this error response."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


MALFORMED: Final = Refusal(400, "ValidationException", "Improperly formed request.")
"""The answer to every structural error; it never says which."""

BODY_INVALID: Final = MALFORMED.saying(
    "The request body is not valid JSON.", "REQUEST_BODY_INVALID"
)
INVALID_TOOL_USE: Final = BODY_INVALID.saying("Invalid tool use format.")
INVALID_MODEL: Final = MALFORMED.saying(
    "Invalid model. Please select a different model to continue.", "INVALID_MODEL_ID"
)
INVALID_CONVERSATION: Final = MALFORMED.saying(
    "Invalid conversation id.", "INVALID_CONVERSATION_ID"
)
INVALID_SIGNATURE: Final = MALFORMED.saying(
    "Invalid signature in thinking block", "THINKING_SIGNATURE_INVALID"
)
INPUT_TOO_LONG: Final = MALFORMED.saying("Input is too long.", "CONTENT_LENGTH_EXCEEDS_THRESHOLD")
PROFILE_REQUIRED: Final = MALFORMED.saying("profileArn is required for this request.")
PROMPT_TOO_LONG: Final = MALFORMED.saying("prompt is too long: 210000 tokens > 200000 maximum")
WINDOW_FULL: Final = MALFORMED.saying("Context window is full.")
BODY_TOO_LARGE: Final = Refusal(
    413, "ValidationException", "Failed to buffer the request body: length limit exceeded"
)

NO_BEARER: Final = Refusal(401, "UnauthorizedException", "The request carries no bearer token.")
NOT_AUTHORIZED: Final = Refusal(
    403, "AccessDeniedException", "User is not authorized to make this call."
)
BAD_BEARER: Final = NOT_AUTHORIZED.saying("The bearer token included in the request is invalid.")
INVALID_TOKEN: Final = Refusal(400, "AccessDeniedException", "Invalid token")
"""Another observed answer of management calls to an expired token."""
NOT_FOR_API_KEYS: Final = NOT_AUTHORIZED.saying("Unsupported token type")
NOT_FOR_BUILDER_ID: Final = NOT_AUTHORIZED.saying(
    "AWS Builder ID is not supported for this operation."
)
SUSPICIOUS: Final = NOT_AUTHORIZED.saying("We detected suspicious activity on your account.")
WRONG_ORIGIN: Final = NOT_AUTHORIZED.saying("Your subscription does not support this application.")
SUSPENDED: Final = NOT_AUTHORIZED.saying(
    "Your User ID (emulated) temporarily is suspended. Please contact support.",
    "TEMPORARILY_SUSPENDED",
)

QUOTA_EXHAUSTED: Final = Refusal(
    402, "ServiceQuotaExceededException", "You have reached the limit.", "MONTHLY_REQUEST_COUNT"
)
OVERAGE: Final = replace(QUOTA_EXHAUSTED, reason="OVERAGE_REQUEST_LIMIT_EXCEEDED")

THROTTLED: Final = Refusal(429, "ThrottlingException", "Too many requests, please wait.")
THROTTLED_WITH_400: Final = replace(THROTTLED, status=400)
USAGE_LIMIT: Final = replace(THROTTLED, reason="USAGE_LIMIT_REACHED")
CREDIT_RATE: Final = replace(
    THROTTLED, reason="CREDIT_CONSUMPTION_RATE_EXCEEDED", retry_after_milliseconds=300_000
)
USER_RATE: Final = replace(THROTTLED, reason="USER_REQUEST_RATE_EXCEEDED")
SERVICE_RATE: Final = replace(THROTTLED, reason="SERVICE_REQUEST_RATE_EXCEEDED")
MODEL_BUSY: Final = THROTTLED.saying(
    "The model is experiencing a high volume of traffic. Try again later.",
    "INSUFFICIENT_MODEL_CAPACITY",
)
FAILED: Final = Refusal(500, "InternalServerException", "Encountered an internal error.")
UNAVAILABLE: Final = Refusal(503, "ServiceUnavailableException", "The service is unavailable.")
UNKNOWN_OPERATION: Final = Refusal(404, "UnknownOperationException", "Unknown operation.")
