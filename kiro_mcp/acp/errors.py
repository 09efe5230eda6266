"""What the program says about a failure -> our errors. Pure.

The program has neither codes nor types for most failures: an error is "Internal error", and the
reason stands in `data`, in a notice before it or on stderr. So the words decide. `_RULES` lists
them, lasting refusals first.
"""

import json
from typing import Final

from kiro_mcp.acp.program import LOGIN_STEP
from kiro_mcp.chat import JsonObject
from kiro_mcp.client.classify import (
    BUSY,
    NO_MODEL,
    QUOTA,
    RATE,
    SUSPENDED,
    SUSPENSION,
    TOO_LONG,
    Meaning,
)
from kiro_mcp.errors import AnswerBroken, KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.redaction import redact
from kiro_mcp.wire.json_values import object_member, word_member

MAX_WORDS: Final = 300
"""How many characters of the program's words an error quotes."""

STALE_HISTORY: Final = "invalid conversation history"
"""The program's own history is broken: a new session helps."""


class RpcError(Exception):
    """The program answered a request with an error."""

    def __init__(self, error: JsonObject) -> None:
        data = error.get("data") or ""
        details = word_member(object_member(error, "data"), "details")
        said = data if isinstance(data, str) else details or json.dumps(data)
        super().__init__(f"{word_member(error, 'message')} {said}".strip())


RATE_SECONDS: Final = 60.0
"""How long nothing is sent after "too many requests": the program never says how long to wait."""

_RULES: Final = (
    (("temporarily_suspended", "accountsuspendedexception"), SUSPENDED),
    (
        ("expiredtoken", "invalidgrant", "tokenexpired", "token has expired", "token expired"),
        Meaning(
            kind=SignInRequired,
            code="auth_expired",
            what="The login of kiro-cli has expired",
            next_step=LOGIN_STEP,
        ),
    ),
    (
        ("not logged in", "log in with", "please log in", "login required", "unauthenticated"),
        Meaning(
            kind=SignInRequired,
            code="auth_required",
            what="Nobody is signed in to kiro-cli",
            next_step=LOGIN_STEP,
        ),
    ),
    (("usage limit", "monthly", "quota", "overage", "limit reached", "out of credits"), QUOTA),
    (("high volume of traffic", "unexpectedly high load", "insufficient_model_capacity"), BUSY),
    (("throttl", "rate limit", "rate_limit", "too many requests"), RATE),
    (("too long", "context window", "length limit exceeded", "maximum context"), TOO_LONG),
    (("invalid_model_id", "invalid model", "model is not available", "model not found"), NO_MODEL),
    (
        ("error in the response stream",),
        Meaning(
            kind=AnswerBroken,
            code="stream_broken",
            what="The answer was cut off on its way to kiro-cli",
            next_step="Call again.",
        ),
    ),
    (
        ("clientnetworkerror", "network", "dispatch failure", "connection", "dns"),
        Meaning(
            kind=ServiceUnavailable,
            code="network_error",
            what="kiro-cli cannot reach the service",
            next_step="Check the network and the proxy, then call again.",
        ),
    ),
)


def error_of(error: RpcError, hint: str = "") -> KiroError:
    """Return our error for an error response.

    Args:
        error: The response.
        hint: What the program said before it about the problem; "" for nothing.
    """
    words = f"{error} {hint}".strip()
    return read_words(words) or ServiceUnavailable(
        f"kiro-cli could not answer ({_shown(words)}).", next_step="Call again in a moment."
    )


def read_words(words: str) -> KiroError | None:
    """Return the error that the program's words mean; None if they mean none that is known."""
    lowered = words.lower()
    is_suspension = SUSPENSION.search(words) is not None
    for marks, meaning in _RULES:
        if any(mark in lowered for mark in marks) or (is_suspension and meaning is SUSPENDED):
            return meaning.kind(
                f"{meaning.what} ({_shown(words)}).",
                next_step=meaning.next_step,
                code=meaning.code,
                retry_after_seconds=RATE_SECONDS if meaning is RATE else None,
            )
    return None


def _shown(words: str) -> str:
    return " ".join(redact(words).split())[:MAX_WORDS].rstrip(".") or "it did not say why"
