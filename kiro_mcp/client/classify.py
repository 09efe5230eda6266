"""Turns a refusal of the service into a `KiroError`.

The service sends the same errors as HTTP answers and inside a stream, so one classifier serves
both::

    HTTP status, headers, body ── fault_from_response ──┐
                                                        ├─▶ Fault ── classify ──▶ KiroError
    error event in a stream ────── wire.events ─────────┘

The name of an error comes from the header `x-amzn-errortype` (cut at `:`) or from the body's
`__type` (after `#`). If a body is empty, plain text or HTML, only the status decides. `_RULES`
lists what each error means. Sources: the service's published error model, and error texts that
were observed (2025 to 2026).
"""

import email.utils
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from kiro_mcp.chat import Fault
from kiro_mcp.errors import (
    AccountBlocked,
    ErrorCode,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.wire.events import MAX_MESSAGE_CHARACTERS, MAX_RETRY_AFTER_SECONDS, read_fault
from kiro_mcp.wire.json_values import UnreadableError, parse_object

_NAMES_OF_STATUS: Final[Mapping[int, str]] = {
    400: "ValidationException",
    401: "ExpiredTokenException UnauthorizedException UnrecognizedClientException",
    402: "ServiceQuotaExceededException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "RequestTimeoutException",
    409: "ConflictException",
    429: "ThrottlingException ThrottledException Throttling RequestThrottledException"
    " RequestLimitExceeded SlowDown TooManyRequestsException",
    500: "InternalFailure InternalServerException",
    503: "ServiceUnavailableException",
}
_STATUS_OF_NAME: Final = {
    name: status for status, names in _NAMES_OF_STATUS.items() for name in names.split()
}
"""The HTTP status that belongs to an error's name.

Errors inside a stream have no other status. For HTTP answers the name wins over the status,
because services of this kind also send `ThrottlingException` with status 400.
"""

_CERTAIN_STATUSES: Final = frozenset({402, 413})
"""The statuses that always mean the same. They win over the error's name."""

_REQUEST_REASONS: Final = frozenset(
    {"REQUEST_BODY_INVALID", "THINKING_SIGNATURE_INVALID", "INVALID_CONVERSATION_ID"}
)

SUSPENSION: Final = re.compile(
    r"\b(user\s+id|account)(\s+\([^)]{0,100}\))?(\s+\w+){0,3}\s+suspended\b", re.IGNORECASE
)
"""How the service says it: `Your User ID (…) temporarily is suspended.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What callers are told about one kind of refusal."""

    kind: type[KiroError]
    code: ErrorCode
    what: str
    """What happened, without the full stop."""
    next_step: str


SUSPENDED_MINUTES: Final = 15
"""For how long nothing is sent for an account that the service has suspended."""

SUSPENDED: Final = Meaning(
    kind=AccountBlocked,
    code="account_suspended",
    what="The service has suspended this account",
    next_step="Do not retry. Contact Kiro's support, as the service's message says. kiro-mcp sends"
    f" nothing with this credential for {SUSPENDED_MINUTES} minutes. When the account works again,"
    " call `login` with action `status` to try at once.",
)
_SUSPICIOUS: Final = Meaning(
    kind=AccountBlocked,
    code="forbidden",
    what="The service limits this account for unusual activity",
    next_step="Do not retry now: retries can lead to a suspension. Wait for a few hours.",
)
QUOTA: Final = Meaning(
    kind=AccountBlocked,
    code="quota_exhausted",
    what="The account has reached its usage limit",
    next_step="See https://app.kiro.dev/account/usage for the limit and the day of its reset.",
)
_OVERAGE: Final = replace(
    QUOTA,
    what="The account has reached its overage limit",
    next_step="Raise the limit, or wait until it is reset: https://app.kiro.dev/account/usage.",
)
_SIGN_IN: Final = Meaning(
    kind=SignInRequired,
    code="auth_expired",
    what="The service did not accept the credential",
    next_step="Sign in again with the tool `login`, or renew KIRO_API_KEY or KIRO_ACCESS_TOKEN.",
)
_FORBIDDEN: Final = Meaning(
    kind=AccountBlocked,
    code="forbidden",
    what="The service does not allow this account to make this call",
    next_step="Check the profile (KIRO_PROFILE_ARN), its region and the subscription.",
)
_WRONG_ORIGIN: Final = replace(
    _FORBIDDEN,
    what="The subscription does not cover the program that the request names as its origin",
    next_step="Set KIRO_MCP_ORIGIN=KIRO_CLI for a subscription to the Kiro CLI, or"
    " KIRO_MCP_ORIGIN=AI_EDITOR for a subscription to the Kiro IDE.",
)
_KEY_GRANT: Final = Meaning(
    kind=AccountBlocked,
    code="forbidden",
    what="The service cannot use the organisation's encryption key",
    next_step="Ask the administrator of the organisation's KMS key for Kiro.",
)
TOO_LONG: Final = Meaning(
    kind=InvalidRequest,
    code="context_too_long",
    what="The request is too long for the model",
    next_step="Shorten it, or start a new conversation with a summary of this one.",
)
NO_MODEL: Final = Meaning(
    kind=InvalidRequest,
    code="model_unavailable",
    what="The service does not offer this model to this account",
    next_step="Call `list_models`, or run `kiro-mcp models`, for the ids that it offers. They"
    " depend on the plan, the region and the network.",
)
_NO_PROFILE: Final = Meaning(
    kind=InvalidRequest,
    code="invalid_request",
    what="The service needs to know which profile to bill",
    next_step="Set KIRO_PROFILE_ARN to the profile's ARN, or sign in with the tool `login`.",
)
_IMPROPER: Final = Meaning(
    kind=InvalidRequest,
    code="invalid_request",
    what="The service says that the request is not well formed",
    next_step="This has one of three causes: the service does not accept the messages, tools or"
    " images as they are; the region is not the profile's (KIRO_API_REGION, KIRO_PROFILE_ARN); or"
    " the request is too large.",
)
UNKNOWN_OPERATION: Final = "The service does not know the operation that kiro-mcp called"
_NO_OPERATION: Final = Meaning(
    kind=InvalidRequest,
    code="invalid_request",
    what=UNKNOWN_OPERATION,
    next_step="Update kiro-mcp: the service has changed. `kiro-mcp doctor` tells which of its forms"
    " still work.",
)
UNKNOWN_ADDRESS: Final = "There is nothing at the address that kiro-mcp called"
_NO_ADDRESS: Final = replace(
    _NO_OPERATION,
    what=UNKNOWN_ADDRESS,
    next_step="Check KIRO_MCP_ENDPOINT_URL, the variables for single hosts, and a proxy. If you set"
    " none of them, update kiro-mcp.",
)
_INVALID: Final = Meaning(
    kind=InvalidRequest,
    code="invalid_request",
    what="The service refused the request",
    next_step="Correct what its message names and call again.",
)
BUSY: Final = Meaning(
    kind=ServiceUnavailable,
    code="model_busy",
    what="The model has no capacity at the moment",
    next_step="Wait for 30 seconds and call again, or choose another model.",
)
RATE: Final = Meaning(
    kind=ServiceUnavailable,
    code="rate_limited",
    what="The service asks for fewer requests",
    next_step="Wait for a minute and call again. If this happens again, the plan's credits may be"
    " used up: see https://app.kiro.dev/account/usage.",
)
_TIMEOUT: Final = Meaning(
    kind=ServiceUnavailable,
    code="timeout",
    what="The service gave up waiting",
    next_step="Call again. If this happens every time, shorten the request.",
)
_FAILED: Final = Meaning(
    kind=ServiceUnavailable,
    code="upstream_error",
    what="The service failed",
    next_step="Call again in a moment.",
)

_RULES: Final[tuple[tuple[Meaning, tuple[int | str, ...]], ...]] = (
    (_SUSPICIOUS, ("suspicious activity",)),
    (TOO_LONG, ("CONVERSATION_LIMIT_EXCEEDED",)),
    (_OVERAGE, ("OVERAGE_REQUEST_LIMIT_EXCEEDED",)),
    (QUOTA, ("HOURLY_REQUEST_COUNT", "DAILY_REQUEST_COUNT", "WEEKLY_REQUEST_COUNT")),
    (QUOTA, ("MONTHLY_REQUEST_COUNT", "USAGE_LIMIT_REACHED", 402)),
    (TOO_LONG, ("CONTENT_LENGTH_EXCEEDS_THRESHOLD", "ContentLengthExceededException", 413)),
    # What the service and the vendors of its models write if a prompt is too long.
    (TOO_LONG, ("input is too long", "prompt is too long", "length limit exceeded")),
    (TOO_LONG, ("context window is full", "exceed context limit", "exceeds the context window")),
    (TOO_LONG, ("maximum context length",)),
    (NO_MODEL, ("INVALID_MODEL_ID",)),
    (BUSY, ("INSUFFICIENT_MODEL_CAPACITY", "MODEL_TEMPORARILY_UNAVAILABLE")),
    (BUSY, ("high volume of traffic", "unexpectedly high load")),
    (_KEY_GRANT, ("INVALID_KMS_GRANT", 409)),
    (_FORBIDDEN, ("FEATURE_NOT_SUPPORTED", "UNAUTHORIZED_")),
    (_WRONG_ORIGIN, ("subscription does not support",)),
    (_SIGN_IN, (401,)),
    (_FORBIDDEN, (403,)),
    (_TIMEOUT, (408,)),
    (RATE, (429,)),
    (_NO_PROFILE, ("profilearn is required",)),
    (_IMPROPER, ("improperly formed",)),
    (_NO_OPERATION, ("UnknownOperationException", "UnsupportedOperationException")),
    (_NO_OPERATION, ("operation is not supported", "operation is no longer supported")),
)
"""What a fault means: the first row with a matching mark decides. A number is a status, CAPITALS
are a reason, CamelCase is a name, and lower case is words in the message or the name. Rows for
lasting refusals come before rows for passing ones. A suspension comes before all rows."""


def fault_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime | None = None
) -> Fault:
    """Read a refusal: JSON, plain text or HTML.

    Args:
        status: The HTTP status.
        headers: The answer's headers, names in lower case.
        body: The answer's body, or its beginning.
        now: The time, to read a `Retry-After` that is a date; if None, such a date is ignored.
    """
    name = headers.get("x-amzn-errortype", "")
    try:
        fault = read_fault(parse_object(body), name)
    except (UnreadableError, RecursionError):
        fault = read_fault({"message": _plain_text(body)}, name)
    waits = (fault.retry_after_seconds, _retry_after(headers.get("retry-after", ""), now))
    return replace(
        fault,
        message=re.sub(r"\s+", " ", fault.message).strip(),
        status=status,
        request_id=headers.get("x-amzn-requestid"),
        retry_after_seconds=max((wait for wait in waits if wait is not None), default=None),
    )


def classify(fault: Fault) -> KiroError:
    """Return the error for a fault of the service: its code, what happened, what to do next."""
    meaning = _meaning_of(fault)
    if meaning.kind is ServiceUnavailable and fault.retry_after_seconds:
        wait = f"Wait for {duration(fault.retry_after_seconds)} and call again"
        otherwise = ", or choose another model." if meaning is BUSY else "."
        meaning = replace(meaning, next_step=wait + otherwise)
    quotes = ", ".join(text for text in (fault.reason or fault.name, fault.message) if text)
    return meaning.kind(
        f"{meaning.what} ({quotes.rstrip('.')})." if quotes else f"{meaning.what}.",
        next_step=meaning.next_step,
        code=meaning.code,
        reason=fault.reason,
        status=fault.status,
        request_id=fault.request_id,
        retry_after_seconds=fault.retry_after_seconds,
    )


def _meaning_of(fault: Fault) -> Meaning:
    words = f"{fault.name} {fault.message}".lower()
    reason = fault.reason.upper()
    status = fault.status
    if status not in _CERTAIN_STATUSES:
        status = _STATUS_OF_NAME.get(fault.name, status)
    if _is_suspension(fault, status):
        return SUSPENDED
    if status == 403 and "token" in words and ("expired" in words or "invalid" in words):
        # Not "Unsupported token type": the service would refuse another token of that type, too.
        status = 401

    def fits(mark: int | str) -> bool:
        if isinstance(mark, int):
            return mark == status
        if mark.isupper():
            return reason.startswith(mark) if mark.endswith("_") else reason == mark
        return mark == fault.name or mark in words

    for meaning, marks in _RULES:
        if any(map(fits, marks)):
            return meaning
    if status in (404, 410, 501) and not fault.name:
        return _NO_ADDRESS
    if reason in _REQUEST_REASONS or (status is not None and 400 <= status < 500):
        return _INVALID
    shown = f" with status {fault.status or status}" if status is not None else ""
    return replace(_FAILED, what=_FAILED.what + shown)


def _is_suspension(fault: Fault, status: int | None) -> bool:
    """Whether the service has suspended the account.

    If it refuses the request and not the account, its message may quote what the caller wrote. So
    there, the message must begin with the service's own words; observed with status 400. A caller
    who writes of suspended accounts must not block this one.
    """
    if "SUSPENDED" in fault.reason.upper() or "suspended" in fault.name.lower():
        return True
    if status in (401, 403):
        return "suspended" in fault.message.lower()
    return bool(
        re.match(rf"\s*((your|this|the)\s+)?{SUSPENSION.pattern}", fault.message, re.IGNORECASE)
    )


def duration(seconds: float) -> str:
    """Return a duration for people, such as `1 second` or `5 minutes`, rounded up."""
    if seconds < 2 * 60:
        return "1 second" if seconds == 1 else f"{seconds:g} seconds"
    if seconds < 2 * 60 * 60:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{math.ceil(seconds / (60 * 60))} hours"


def _plain_text(body: bytes) -> str:
    """Return a body of plain text; "" for a web page, broken JSON or binary data."""
    text = body[: MAX_MESSAGE_CHARACTERS * 4].decode(errors="replace").strip()
    return "" if text.startswith(("<", "{", "[", '"')) or "\ufffd" in text else text


def _retry_after(value: str, now: datetime | None) -> float | None:
    """Return the seconds to wait, from either form of the header: a number or a date."""
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value.strip()):
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if now is None:
        return None
    seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)
