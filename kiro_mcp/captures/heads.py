"""What a capture shows of the headers of requests and answers. Pure."""

from collections.abc import Mapping
from typing import Final

from kiro_mcp.redaction import HIDDEN, redact

_SHOWN: Final = frozenset(
    (
        "accept",
        "accept-encoding",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "content-type",
        "tokentype",
        "user-agent",
        "x-amz-target",
        "x-amzn-codewhisperer-optout",
        "x-amzn-kiro-agent-mode",
        "x-amzn-kiro-profile-arn",
    )
)
"""The request's own headers. Any other is the user's (KIRO_MCP_EXTRA_HEADERS), who may have put
a proxy's password there, or the bearer."""

_TELLING: Final = ("auth", "cookie", "key", "password", "secret", "token")
"""What names of headers that hold secrets have in them."""


def shown_request_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request, the values of all but its known ones hidden."""
    return {
        name: redact(value) if name.lower() in _SHOWN else HIDDEN for name, value in headers.items()
    }


def shown_response_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an answer; cookies and the like are hidden."""
    return {
        name: HIDDEN if any(word in name.lower() for word in _TELLING) else redact(value)
        for name, value in headers.items()
    }
