"""What a refusal of the service means: an HTTP answer or an in-stream error -> our error.

One classifier serves both, because the service sends the same errors either way. The name of
an error comes from the header `x-amzn-errortype` (cut at `:`) or the body's `__type` (after
`#`); some bodies are empty, plain text or HTML, and are met with the status alone.
"""

import email.utils
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from kiro_mcp.errors import (
    AccountBlocked,
    ErrorCode,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.models import Fault

MAX_MESSAGE_CHARACTERS = 500
"""How much of the service's words is kept: enough to tell, too little to flood a chat."""

_SIGN_IN = "Sign in again, or renew KIRO_API_KEY or KIRO_ACCESS_TOKEN; the tool `login` tells how."
_USAGE_PAGE = "See https://app.kiro.dev/account/usage for the limit and when it is reset."

_QUOTA_REASONS = frozenset(
    {"MONTHLY_REQUEST_COUNT", "DAILY_REQUEST_COUNT", "OVERAGE_REQUEST_LIMIT_EXCEEDED"}
)
_BUSY_REASONS = frozenset({"INSUFFICIENT_MODEL_CAPACITY", "MODEL_TEMPORARILY_UNAVAILABLE"})
_BUSY_WORDS = ("high volume of traffic", "unexpectedly high load")
_SUSPENDED_WORDS = ("suspended",)
_BEARER_WORDS = ("bearer token", "invalid token", "expiredtoken", "security token", "token expired")
_TOO_LONG_WORDS = ("input is too long", "length limit exceeded")


def fault_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime | None = None
) -> Fault:
    """Read a refusal, whatever its form.

    Args:
        status: The HTTP status.
        headers: The answer's headers, names in lower case.
        body: The answer's body, or its beginning.
        now: The time against which a `Retry-After` date is read; the clock's by default.
    """
    members = _json_members(body)
    name = headers.get("x-amzn-errortype", "").partition(":")[0]
    name = name or _first_text(members, "__type", "_type", "code").rpartition("#")[2]
    message = _first_text(members, "message", "Message", "errorMessage", "error_description")
    return Fault(
        name=name,
        reason=_first_text(members, "reason"),
        message=_shortened(message),
        status=status,
        request_id=headers.get("x-amzn-requestid"),
        retry_after_seconds=_retry_after(headers.get("retry-after", ""), now or datetime.now(UTC)),
    )


def classify(fault: Fault) -> KiroError:
    """Turn the service's error into ours: its code, what happened, and what to do next.

    Rules are tried from the most specific to the least: what the service names as its reason
    wins over its words, and its words over the status.
    """
    words = f"{fault.name} {fault.message}".lower()
    for rule in (_account_error, _request_error, _capacity_error):
        if error := rule(fault, words):
            return error
    return _by_status(fault)


def _account_error(fault: Fault, words: str) -> KiroError | None:
    if fault.reason == "TEMPORARILY_SUSPENDED" or any(word in words for word in _SUSPENDED_WORDS):
        return _error(
            AccountBlocked,
            "account_suspended",
            fault,
            "The service has suspended this account",
            "Do not retry. Ask the support of Kiro, as the service's message says.",
        )
    if fault.reason in _QUOTA_REASONS or fault.status == 402:
        what = "The account's credits are used up"
        return _error(AccountBlocked, "quota_exhausted", fault, what, _USAGE_PAGE)
    if "suspicious activity" in words:
        return _error(
            AccountBlocked,
            "forbidden",
            fault,
            "The service limits this account for unusual activity",
            "Do not retry now: retries can lead to a suspension. Wait for some hours.",
        )
    if fault.status == 401 or (fault.status == 403 and any(w in words for w in _BEARER_WORDS)):
        what = "The service did not take the credential"
        return _error(SignInRequired, "auth_expired", fault, what, _SIGN_IN)
    return None


def _request_error(fault: Fault, words: str) -> KiroError | None:
    is_too_long = fault.reason == "CONTENT_LENGTH_EXCEEDS_THRESHOLD" or fault.status == 413
    if is_too_long or any(word in words for word in _TOO_LONG_WORDS):
        return _error(
            InvalidRequest,
            "context_too_long",
            fault,
            "The request is too long for the model",
            "Shorten it, or start a new conversation with a summary of this one.",
        )
    if fault.reason == "INVALID_MODEL_ID":
        return _error(
            InvalidRequest,
            "model_unavailable",
            fault,
            "The service does not offer this model to this account",
            "Call `list_models` for the ids that it offers.",
        )
    return None


def _capacity_error(fault: Fault, words: str) -> KiroError | None:
    if fault.reason in _BUSY_REASONS or any(word in words for word in _BUSY_WORDS):
        return _error(
            ServiceUnavailable,
            "model_busy",
            fault,
            "The model has no capacity at the moment",
            "Wait for half a minute and call again, or choose another model.",
        )
    return None


def _by_status(fault: Fault) -> KiroError:
    status = fault.status
    if status == 403:
        what = "The service does not allow this account to make this call"
        how = "Check the profile (KIRO_PROFILE_ARN), its region and the subscription."
        return _error(AccountBlocked, "forbidden", fault, what, how)
    if status == 429 or fault.name == "ThrottlingException":
        wait = fault.retry_after_seconds
        how = f"Wait for {wait:g} seconds" if wait is not None else "Wait for a minute"
        what = "The service asks for fewer requests"
        return _error(ServiceUnavailable, "rate_limited", fault, what, f"{how} and call again.")
    if (status is not None and 400 <= status < 500) or fault.name == "ValidationException":
        return _error(
            InvalidRequest,
            "invalid_request",
            fault,
            "The service refused the request's form",
            "If the form is right, the profile's region may not be the service's"
            " (KIRO_API_REGION), or the request may be too large.",
        )
    what = "The service failed" if status is None else f"The service failed with status {status}"
    return _error(ServiceUnavailable, "upstream_error", fault, what, "Call again in a moment.")


def _error(
    kind: type[KiroError], code: ErrorCode, fault: Fault, what: str, next_step: str
) -> KiroError:
    return kind(
        _with_service_words(what, fault),
        next_step=next_step,
        code=code,
        reason=fault.reason,
        status=fault.status,
        request_id=fault.request_id,
        retry_after_seconds=fault.retry_after_seconds,
    )


def _with_service_words(what: str, fault: Fault) -> str:
    words = ", ".join(word for word in (fault.reason or fault.name, fault.message) if word)
    return f"{what} ({words})." if words else f"{what}."


def _json_members(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    members = cast("dict[str, object]", document)
    nested = members.get("error")
    return cast("dict[str, object]", nested) if isinstance(nested, dict) else members


def _first_text(members: Mapping[str, object], *names: str) -> str:
    texts = (members.get(name) for name in names)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _shortened(message: str) -> str:
    one_line = re.sub(r"\s+", " ", message).strip()
    if len(one_line) <= MAX_MESSAGE_CHARACTERS:
        return one_line
    return one_line[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def _retry_after(value: str, now: datetime) -> float | None:
    """Seconds to wait, from either form of the header: a number, or a date."""
    if not value:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
