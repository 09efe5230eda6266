"""Requests to the sign-in services, and the renewal of a login.

Three services, three forms::

    social                  POST {auth}/refreshToken    JSON  {refreshToken}
    Builder ID, IdC         POST {oidc}/token           JSON  camelCase (AWS SSO OIDC CreateToken)
    an organisation's own   POST its token endpoint     form  snake_case (RFC 6749, section 6)

The region is the login's own: in a wrong region, the service answers as for a revoked token.
`SignInService` sends the requests. Everything else here is pure.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

import anyio

from kiro_mcp._version import __version__
from kiro_mcp.auth.credentials import Credential, jwt_expiry
from kiro_mcp.auth.documents import parse_object
from kiro_mcp.auth.hosts import idp_token_endpoint
from kiro_mcp.client.endpoints import require_may_send, service_url
from kiro_mcp.client.http import Fetcher
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.redaction import redact
from kiro_mcp.regions import DEFAULT_REGION

DEFAULT_LIFETIME_SECONDS: Final = 3600
"""How long a token lives if its answer does not say."""

MAX_WORDS: Final = 300
"""How many characters of a refusal's text are shown."""
_MAX_READ: Final = 16 * MAX_WORDS
"""How many characters of it are searched for secrets."""

_REFUSALS: Final = frozenset(
    {
        "access_denied",
        "expired_token",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """One POST to a sign-in service."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refresh that returned no token."""

    is_final: bool
    """Whether this refresh token can never work again. If not, it may work later."""
    why: str
    """The service's text, without secrets, for people."""


def json_request(url: str, members: Mapping[str, object]) -> TokenRequest:
    """Build a POST of JSON without a bearer."""
    body = json.dumps(members, separators=(",", ":")).encode()
    return TokenRequest(url=url, headers=_headers("application/json"), body=body)


def _headers(content_type: str) -> dict[str, str]:
    return {
        "Content-Type": content_type,
        "Accept": "application/json",
        "User-Agent": f"kiro-mcp/{__version__}",
    }


def refresh_request(credential: Credential, overrides: Mapping[str, str]) -> TokenRequest:
    """Build the request that renews a credential.

    Raises:
        SignInRequired: The host may not receive it, or its token endpoint cannot be trusted.
    """
    if credential.kind == "external_idp":
        return _external_request(credential)
    region = credential.region or DEFAULT_REGION
    host, path = ("auth", "/refreshToken") if credential.kind == "social" else ("oidc", "/token")
    url = service_url(host, path, region=region, overrides=overrides)
    require_may_send(url, f"the login from {credential.source}", is_explicit=credential.is_explicit)
    if credential.kind == "social" or credential.client is None:
        return json_request(url, {"refreshToken": credential.refresh_token})
    return json_request(
        url,
        {
            "clientId": credential.client.client_id,
            "clientSecret": credential.client.client_secret,
            "grantType": "refresh_token",
            "refreshToken": credential.refresh_token,
        },
    )


def _external_request(credential: Credential) -> TokenRequest:
    endpoint = idp_token_endpoint(credential)
    if not endpoint or credential.client is None:
        raise SignInRequired(
            f"kiro-mcp cannot renew the login from {credential.source}: its token endpoint"
            f" {credential.token_endpoint or 'none'!r} is not known to be safe.",
            next_step="Sign in again where that login was made (`kiro-cli login`).",
            code="auth_expired",
        )
    members = {
        "grant_type": "refresh_token",
        "client_id": credential.client.client_id,
        "refresh_token": credential.refresh_token,
    }
    if credential.scopes:
        members["scope"] = " ".join(credential.scopes)
    return TokenRequest(
        url=endpoint,
        headers=_headers("application/x-www-form-urlencoded"),
        body=urlencode(members).encode(),
    )


def read_answer(
    credential: Credential, status: int, body: bytes, now: datetime
) -> Credential | Refused:
    """Read the answer to a refresh: the renewed credential, or why the service refused."""
    members = read_members(body)
    if status == 200 and first_text(members, "accessToken", "access_token"):
        return add_tokens(credential, members, now)
    return refusal(status, members)


def add_tokens(credential: Credential, members: Mapping[str, object], now: datetime) -> Credential:
    """Return the credential with the tokens of an answer. Missing members stay as they were.

    The lifetime in the answer, counted from now, wins over the expiry in a JWT: that expiry uses
    the service's clock, and the clock of this machine may be fast or slow.
    """
    access_token = first_text(members, "accessToken", "access_token")
    lifetime = _lifetime(members.get("expiresIn", members.get("expires_in")))
    usual_end = jwt_expiry(access_token) or now + timedelta(seconds=DEFAULT_LIFETIME_SECONDS)
    return replace(
        credential,
        access_token=access_token,
        refresh_token=first_text(members, "refreshToken", "refresh_token")
        or credential.refresh_token,
        expires_at=now + lifetime if lifetime else usual_end,
        unreadable_end="",
        profile_arn=first_text(members, "profileArn") or credential.profile_arn,
    )


def refusal(status: int, members: Mapping[str, object]) -> Refused:
    """Read a refusal of any of the sign-in services."""
    error = first_text(members, "error").removesuffix("Exception")
    words = first_text(members, "error_description", "message", "Message")
    text = ": ".join(part for part in (error, words) if part) or f"status {status}"
    is_final = status in (400, 401, 403) and not (status == 403 and not error)
    is_final = is_final and (status == 401 or error in _REFUSALS or not error)
    return Refused(is_final=is_final, why=redact(text[:_MAX_READ])[:MAX_WORDS])


def read_members(body: bytes) -> dict[str, object]:
    """Read the JSON object in an answer; {} if the body is anything else."""
    try:
        return parse_object(body)
    except ValueError:
        return {}


def first_text(members: Mapping[str, object], *names: str) -> str:
    """Return the first of the members that is a text and not empty; "" for none."""
    values = (members.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value), "")


def _lifetime(seconds: object) -> timedelta | None:
    if isinstance(seconds, str) and seconds.isdecimal() and len(seconds) < 10:
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return timedelta(seconds=seconds) if 0 < seconds < 10**9 else None


REQUEST_SECONDS: Final = 30.0
"""How long a sign-in service may take. It usually answers within one second."""


class SignInService:
    """The sign-in services: AWS SSO OIDC, Kiro's own, and an organisation's own."""

    def __init__(
        self, http: Fetcher, overrides: Mapping[str, str], *, now: Callable[[], datetime]
    ) -> None:
        self._http = http
        self._overrides = overrides
        self._now = now

    async def refresh(self, credential: Credential) -> Credential | Refused:
        """Spend a refresh token; return the renewed credential, or why the service refused.

        Raises:
            SignInRequired: The host may not receive it, or its token endpoint cannot be trusted.
        """
        request = refresh_request(credential, self._overrides)
        try:
            status, body = await self.send(request)
        except KiroError as error:
            return Refused(is_final=False, why=error.message.rstrip("."))
        return read_answer(credential, status, body, self._now())

    async def send(self, request: TokenRequest) -> tuple[int, bytes]:
        """Send a request and return status and body of the answer.

        Raises:
            KiroError: No answer arrived in time.
        """
        try:
            with anyio.fail_after(REQUEST_SECONDS):
                status, _, body = await self._http.fetch(
                    "POST", request.url, headers=request.headers, body=request.body
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"The sign-in service did not answer within {REQUEST_SECONDS:g} seconds.",
                next_step="Call again.",
                code="timeout",
            ) from None
        return status, body
