"""What the program says about a failure -> our errors. Pure.

The program has neither codes nor types for most failures: an error is "Internal error", and the
reason stands in `data`, in a notice before it or on stderr. So the words decide. `_RULES` lists
them, lasting refusals first.
"""

import json
from dataclasses import dataclass
from typing import Final

from kiro_mcp.acp.program import LOGIN_STEP
from kiro_mcp.chat import JsonObject
from kiro_mcp.errors import (
    AccountBlocked,
    AnswerBroken,
    ErrorCode,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.redaction import redact
from kiro_mcp.wire.json_values import number_member, word_member

MAX_WORDS: Final = 300
"""How many characters of the program's words an error quotes."""

STALE_HISTORY: Final = "invalid conversation history"
"""The program's own history is broken: a new session helps."""

_USAGE: Final = "See https://app.kiro.dev/account/usage for the limit and the day of its reset."
_AGAIN: Final = "Call again in a moment."


class RpcError(Exception):
    """The program answered a request with an error."""

    def __init__(self, error: JsonObject) -> None:
        self.code = int(number_member(error, "code") or 0)
        self.message = word_member(error, "message")
        data = error.get("data")
        details = word_member(data, "details") if isinstance(data, dict) else ""
        others = json.dumps(data) if data and not isinstance(data, str) else ""
        self.details = data if isinstance(data, str) else details or others
        """What `data` says, as text."""
        super().__init__(" ".join(filter(None, (self.message, self.details))))


@dataclass(frozen=True, slots=True)
class _Meaning:
    words: tuple[str, ...]
    kind: type[KiroError]
    code: ErrorCode
    what: str
    """What happened, without the full stop."""
    next_step: str


_RULES: Final = (
    _Meaning(
        ("suspended",),
        AccountBlocked,
        "account_suspended",
        "The service has suspended this account",
        "Do not retry. Contact Kiro's support.",
    ),
    _Meaning(
        ("expiredtoken", "invalidgrant", "tokenexpired", "token has expired", "token expired"),
        SignInRequired,
        "auth_expired",
        "The login of kiro-cli has expired",
        LOGIN_STEP,
    ),
    _Meaning(
        ("not logged in", "log in with", "please log in", "login required", "unauthenticated"),
        SignInRequired,
        "auth_required",
        "Nobody is signed in to kiro-cli",
        LOGIN_STEP,
    ),
    _Meaning(
        ("usage limit", "monthly", "quota", "overage", "limit reached", "out of credits"),
        AccountBlocked,
        "quota_exhausted",
        "The account has reached its usage limit",
        _USAGE,
    ),
    _Meaning(
        ("high volume of traffic", "unexpectedly high load", "insufficient_model_capacity"),
        ServiceUnavailable,
        "model_busy",
        "The model is overloaded",
        "Call again in a minute, or choose another model.",
    ),
    _Meaning(
        ("throttl", "rate limit", "rate_limit", "too many requests"),
        ServiceUnavailable,
        "rate_limited",
        "The service limits how often this account asks",
        "Wait for a minute and call again.",
    ),
    _Meaning(
        ("too long", "context window", "length limit exceeded", "maximum context"),
        InvalidRequest,
        "context_too_long",
        "The request is too long for the model",
        "Shorten it, or start a new conversation with a summary of this one.",
    ),
    _Meaning(
        ("invalid_model_id", "invalid model", "model is not available", "model not found"),
        InvalidRequest,
        "model_unavailable",
        "The program does not offer this model",
        "Call `list_models`, or run `kiro-mcp models`, for the ids that it offers.",
    ),
    _Meaning(
        ("error in the response stream",),
        AnswerBroken,
        "stream_broken",
        "The answer was cut off on its way to kiro-cli",
        "Call again.",
    ),
    _Meaning(
        ("clientnetworkerror", "network", "dispatch failure", "connection", "dns"),
        ServiceUnavailable,
        "network_error",
        "kiro-cli cannot reach the service",
        "Check the network and the proxy, then call again.",
    ),
)


def error_of(error: RpcError, hint: str = "") -> KiroError:
    """Return our error for an error response.

    Args:
        error: The response.
        hint: What the program said before it about the problem; "" for nothing.
    """
    return read_words(f"{error} {hint}".strip()) or ServiceUnavailable(
        f"kiro-cli could not answer ({_shown(f'{error} {hint}')}).", next_step=_AGAIN
    )


def read_words(words: str) -> KiroError | None:
    """Return the error that the program's words mean; None if they mean none that is known."""
    lowered = words.lower()
    for rule in _RULES:
        if any(word in lowered for word in rule.words):
            return rule.kind(
                f"{rule.what} ({_shown(words)}).", next_step=rule.next_step, code=rule.code
            )
    return None


def _shown(words: str) -> str:
    return " ".join(redact(words).split())[:MAX_WORDS].rstrip(".") or "it did not say why"
