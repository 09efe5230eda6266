"""Errors as the two vendors' APIs have them: status, headers and body.

A client library decides by the status whether to try again. The engine has tried again by itself
where that helps, so libraries are told not to where another try would fail or be paid again.
"""

from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import Fault, JsonObject, Reply
from kiro_mcp.client.classify import classify
from kiro_mcp.errors import AnswerBroken, ErrorCode, KiroError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    status: int
    openai_type: str
    openai_code: str | None
    anthropic_type: str
    allows_retry: bool = False


_INVALID: Final = _Kind(
    status=400,
    openai_type="invalid_request_error",
    openai_code=None,
    anthropic_type="invalid_request_error",
)
_AUTH: Final = _Kind(
    status=401,
    openai_type="authentication_error",
    openai_code="invalid_api_key",
    anthropic_type="authentication_error",
)
_BLOCKED: Final = _Kind(
    status=403,
    openai_type="permission_error",
    openai_code=None,
    anthropic_type="permission_error",
)
_QUOTA: Final = _Kind(
    status=429,
    openai_type="insufficient_quota",
    openai_code="insufficient_quota",
    anthropic_type="rate_limit_error",
)
_BROKEN: Final = _Kind(
    status=502, openai_type="server_error", openai_code=None, anthropic_type="api_error"
)

_KINDS: Final[dict[ErrorCode, _Kind]] = {
    "auth_required": _AUTH,
    "auth_expired": _AUTH,
    "forbidden": _BLOCKED,
    "account_suspended": _BLOCKED,
    "quota_exhausted": _QUOTA,
    "budget_exceeded": _QUOTA,
    "rate_limited": _Kind(
        status=429,
        openai_type="rate_limit_error",
        openai_code="rate_limit_exceeded",
        anthropic_type="rate_limit_error",
        allows_retry=True,
    ),
    "model_busy": _Kind(
        status=503,
        openai_type="server_error",
        openai_code="overloaded",
        anthropic_type="overloaded_error",
        allows_retry=True,
    ),
    "model_unavailable": _Kind(
        status=404,
        openai_type="invalid_request_error",
        openai_code="model_not_found",
        anthropic_type="not_found_error",
    ),
    "not_found": _Kind(
        status=404,
        openai_type="invalid_request_error",
        openai_code=None,
        anthropic_type="not_found_error",
    ),
    "context_too_long": _Kind(
        status=400,
        openai_type="invalid_request_error",
        openai_code="context_length_exceeded",
        anthropic_type="invalid_request_error",
    ),
    "invalid_request": _INVALID,
    "upstream_error": _Kind(
        status=502,
        openai_type="server_error",
        openai_code=None,
        anthropic_type="api_error",
        allows_retry=True,
    ),
    "network_error": _Kind(
        status=502,
        openai_type="server_error",
        openai_code=None,
        anthropic_type="api_error",
        allows_retry=True,
    ),
    "timeout": _Kind(
        status=504, openai_type="server_error", openai_code=None, anthropic_type="api_error"
    ),
    "stream_broken": _BROKEN,
    "empty_response": _BROKEN,
    "cancelled": _BROKEN,
    "internal_error": _Kind(
        status=500, openai_type="server_error", openai_code=None, anthropic_type="api_error"
    ),
}

OVERLOADED: Final = 529
"""What Anthropic answers where others answer 503."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """An error of either API."""

    status: int
    headers: dict[str, str]
    body: JsonObject


def api_error(
    error: KiroError, *, is_anthropic: bool, request_id: str, status: int | None = None
) -> ApiError:
    """Say an error in the words of an API.

    Args:
        error: What happened.
        is_anthropic: Whose API it is: Anthropic's, else OpenAI's.
        request_id: The id of the request, which goes into headers and Anthropic's body.
        status: The HTTP status; None for the one that belongs to the error's code.
    """
    kind = _KINDS[error.code]
    message = f"{error.code}: {error}"
    headers = {"x-request-id": request_id, "request-id": request_id}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_seconds)))
    if not kind.allows_retry:
        headers["x-should-retry"] = "false"
    if is_anthropic:
        if error.code == "context_too_long":
            message = f"prompt is too long: {message}"  # Claude Code looks for these words.
        found = OVERLOADED if kind.anthropic_type == "overloaded_error" else kind.status
        return ApiError(
            status=status or found,
            headers=headers,
            body={
                "type": "error",
                "error": {"type": kind.anthropic_type, "message": message},
                "request_id": request_id,
            },
        )
    return ApiError(
        status=status or kind.status,
        headers=headers,
        body={
            "error": {
                "message": message,
                "type": kind.openai_type,
                "param": None,
                "code": kind.openai_code or error.code,
            }
        },
    )


def error_of(reply: Reply) -> KiroError | None:
    """Return the error that ended an answer before its time; None for a whole answer."""
    if reply.fault is None:
        return None
    cause = classify(reply.fault) if isinstance(reply.fault, Fault) else reply.fault
    return AnswerBroken(
        f"The answer broke off: {cause.message}",
        next_step=cause.next_step,
        code="stream_broken",
        request_id=cause.request_id,
    )
