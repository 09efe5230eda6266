"""Errors as the two vendors' APIs have them: status, headers and body.

A client decides by the status whether to try again. The engine has tried again by itself where that
helps. So clients are told not to, with `x-should-retry`, where another try would fail or be charged
again. Agents do not read that header:

* Cline and opencode ask again after 429. So what is used up for days is 402, as in Anthropic's API
  (`billing_error`), and not 429, as in OpenAI's.
* Codex, which speaks the Responses API, asks again after all but 400 and 429. So there it is 400.
* In a stream, Codex ends its turn after an error with the code `insufficient_quota` or
  `context_length_exceeded`, and asks again after any other. So a message says what may be charged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from kiro_mcp.chat import Fault, JsonObject, Reply
from kiro_mcp.client.classify import classify
from kiro_mcp.errors import AnswerBroken, ErrorCode, KiroError, name_login_command

Api: TypeAlias = Literal["chat completions", "responses", "messages"]


class _Kind(NamedTuple):
    status: int
    openai_type: str
    openai_code: str | None
    """None for the code of the error itself."""
    anthropic_type: str
    allows_retry: bool = False


_INVALID: Final = "invalid_request_error"
_AUTH: Final = _Kind(401, "authentication_error", "invalid_api_key", "authentication_error")
_BLOCKED: Final = _Kind(403, "permission_error", None, "permission_error")
_QUOTA: Final = _Kind(402, "insufficient_quota", "insufficient_quota", "billing_error")
_BROKEN: Final = _Kind(502, "server_error", None, "api_error")
_FAILED: Final = _BROKEN._replace(allows_retry=True)

_KINDS: Final[Mapping[ErrorCode, _Kind]] = {
    "auth_required": _AUTH,
    "auth_expired": _AUTH,
    "forbidden": _BLOCKED,
    "account_suspended": _BLOCKED,
    "quota_exhausted": _QUOTA,
    "budget_exceeded": _QUOTA,
    "rate_limited": _Kind(
        429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", allows_retry=True
    ),
    "model_busy": _Kind(503, "server_error", "overloaded", "overloaded_error", allows_retry=True),
    "model_unavailable": _Kind(404, _INVALID, "model_not_found", "not_found_error"),
    "not_found": _Kind(404, _INVALID, None, "not_found_error"),
    "context_too_long": _Kind(400, _INVALID, "context_length_exceeded", _INVALID),
    "invalid_request": _Kind(400, _INVALID, None, _INVALID),
    "upstream_error": _FAILED,
    "network_error": _FAILED,
    "timeout": _Kind(504, "server_error", None, "api_error"),
    "stream_broken": _BROKEN,
    "empty_response": _BROKEN,
    "cancelled": _BROKEN,
    "internal_error": _Kind(500, "server_error", None, "api_error"),
}

_TOOLS: Final = {
    "call `login` with action `status` to try at once": "restart the server",
    "Call `list_models`, or run `kiro-mcp models`,": "See GET /v1/models",
}
"""How the texts of lower layers name MCP tools, and what users of the APIs have instead."""

OVERLOADED: Final = 529
"""What Anthropic answers where others answer 503."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """An error of either API."""

    status: int
    headers: dict[str, str]
    body: JsonObject


def api_error(error: KiroError, *, api: Api, request_id: str) -> ApiError:
    """Say an error in the words of an API.

    Args:
        error: What happened.
        api: Which API it is.
        request_id: The id of the request, which goes into headers and Anthropic's body.
    """
    kind = _KINDS[error.code]
    status = 413 if error.status == 413 else kind.status
    if status == 402 and api == "responses":
        status = 400
    message = f"{error.code}: {for_programs(str(error))}"
    headers = {"x-request-id": request_id, "request-id": request_id}
    if error.retry_after_seconds is not None:
        seconds = max(1, round(error.retry_after_seconds))
        headers["retry-after"] = str(seconds)
        if api != "messages":
            message += f" Please try again in {seconds}s."  # Codex reads it from a stream's error.
    if not kind.allows_retry:
        headers["x-should-retry"] = "false"
    if api == "messages":
        if error.code == "context_too_long":
            message = f"prompt is too long: {message}"  # Claude Code looks for these words.
        return ApiError(
            status=OVERLOADED if kind.anthropic_type == "overloaded_error" else status,
            headers=headers,
            body={
                "type": "error",
                "error": {"type": kind.anthropic_type, "message": message},
                "request_id": request_id,
            },
        )
    return ApiError(
        status=status,
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


def for_programs(text: str) -> str:
    """Return an error's text with commands and paths in the place of MCP tools."""
    for words, replacement in _TOOLS.items():
        text = text.replace(words, replacement)
    return name_login_command(text)


def error_of(reply: Reply) -> KiroError | None:
    """Return the error that ended an answer before its time; None for a whole answer."""
    if reply.fault is None:
        return None
    cause = classify(reply.fault) if isinstance(reply.fault, Fault) else reply.fault
    return AnswerBroken(
        f"The answer broke off: {cause.message}",
        next_step=f"What had arrived may be charged, and so is another request. {cause.next_step}",
        code="stream_broken",
        request_id=cause.request_id,
    )
