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
from typing import Final, TypeAlias
from urllib.parse import urlencode

import anyio

from kiro_mcp._version import __version__
from kiro_mcp.auth.credentials import Credential, jwt_expiry
from kiro_mcp.auth.documents import member_of, parse_object, text_of
from kiro_mcp.auth.hosts import idp_token_endpoint
from kiro_mcp.client.endpoints import require_may_send, service_url
from kiro_mcp.client.http import Fetcher
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.redaction import redact
from kiro_mcp.regions import DEFAULT_REGION

REQUEST_SECONDS: Final = 30.0
"""How long a sign-in service may take. It usually answers within one second."""

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


Members: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One POST to a sign-in service, without a bearer."""

    url: str
    members: Members
    is_form: bool = False
    """Whether the members are sent as a form instead of as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request that returned no token."""

    is_final: bool
    """Whether this refresh token can never work again. If not, it may work later."""
    why: str
    """The service's text, without secrets, for people."""


def refresh_request(credential: Credential, overrides: Mapping[str, str]) -> TokenRequest:
    """Build the request that renews a credential.

    Raises:
        SignInRequired: The host may not receive it, or its token endpoint cannot be trusted.
    """
    client = credential.client
    if credential.kind == "external_idp":
        endpoint = idp_token_endpoint(credential)
        if not endpoint or client is None:
            raise SignInRequired(
                f"kiro-mcp cannot renew the login from {credential.source}: its token endpoint"
                f" {credential.token_endpoint or 'none'!r} is not known to be safe.",
                next_step="Sign in again where that login was made (`kiro-cli login`).",
                code="auth_expired",
            )
        form = {
            "grant_type": "refresh_token",
            "client_id": client.client_id,
            "refresh_token": credential.refresh_token,
        }
        if credential.scopes:
            form["scope"] = " ".join(credential.scopes)
        return TokenRequest(endpoint, form, is_form=True)
    region = credential.region or DEFAULT_REGION
    host, path = ("auth", "/refreshToken") if credential.kind == "social" else ("oidc", "/token")
    url = service_url(host, path, region=region, overrides=overrides)
    require_may_send(url, f"the login from {credential.source}", is_explicit=credential.is_explicit)
    members = {"refreshToken": credential.refresh_token}
    if credential.kind != "social" and client is not None:
        members |= {
            "clientId": client.client_id,
            "clientSecret": client.client_secret,
            "grantType": "refresh_token",
        }
    return TokenRequest(url, members)


def read_answer(
    credential: Credential, status: int, members: Members, now: datetime
) -> Credential | Refused:
    """Read the answer to a refresh: the renewed credential, or why the service refused."""
    if status == 200 and text_of(members, "access_token"):
        return add_tokens(credential, members, now)
    return refusal(status, members)


def add_tokens(credential: Credential, members: Members, now: datetime) -> Credential:
    """Return the credential with the tokens of an answer. Missing members stay as they were.

    The lifetime in the answer, counted from now, wins over the expiry in a JWT: that expiry uses
    the service's clock, and the clock of this machine may be fast or slow.
    """
    access_token = text_of(members, "access_token")
    expires_at = jwt_expiry(access_token) or now + timedelta(seconds=DEFAULT_LIFETIME_SECONDS)
    lifetime = member_of(members, "expires_in")
    if isinstance(lifetime, str) and lifetime.isdecimal() and len(lifetime) < 10:
        lifetime = int(lifetime)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float):
        lifetime = 0
    if 0 < lifetime < 10**9:
        expires_at = now + timedelta(seconds=lifetime)
    return replace(
        credential,
        access_token=access_token,
        refresh_token=text_of(members, "refresh_token") or credential.refresh_token,
        expires_at=expires_at,
        unreadable_end="",
        profile_arn=text_of(members, "profile_arn") or credential.profile_arn,
    )


def refusal(status: int, members: Members) -> Refused:
    """Read a refusal of any of the sign-in services."""
    error = text_of(members, "error").removesuffix("Exception")
    words = (text_of(members, name) for name in ("error_description", "message", "Message"))
    text = ": ".join(filter(None, (error, next(filter(None, words), "")))) or f"status {status}"
    is_final = status == 401 or (
        status in (400, 403) and (error in _REFUSALS or (status == 400 and not error))
    )
    return Refused(is_final=is_final, why=redact(text[:_MAX_READ])[:MAX_WORDS])


class SignInService:
    """The sign-in services: AWS SSO OIDC, Kiro's own, and an organisation's own."""

    def __init__(
        self, http: Fetcher, overrides: Mapping[str, str], *, now: Callable[[], datetime]
    ) -> None:
        self._http = http
        self.overrides = overrides
        self.now = now

    async def refresh(self, credential: Credential) -> Credential | Refused:
        """Spend a refresh token; return the renewed credential, or why the service refused.

        Raises:
            SignInRequired: The host may not receive it, or its token endpoint cannot be trusted.
        """
        request = refresh_request(credential, self.overrides)
        try:
            status, members = await self.send(request)
        except KiroError as error:
            return Refused(is_final=False, why=error.message.rstrip("."))
        return read_answer(credential, status, members, self.now())

    async def send(self, request: TokenRequest) -> tuple[int, Members]:
        """Send a request and return the answer's status and JSON; {} if it is anything else.

        Raises:
            KiroError: No answer arrived in time.
        """
        text = urlencode(request.members) if request.is_form else json.dumps(request.members)
        form = "x-www-form-urlencoded" if request.is_form else "json"
        headers = {
            "Content-Type": f"application/{form}",
            "Accept": "application/json",
            "User-Agent": f"kiro-mcp/{__version__}",
        }
        try:
            with anyio.fail_after(REQUEST_SECONDS):
                status, _, body = await self._http.fetch(
                    "POST", request.url, headers=headers, body=text.encode()
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"The sign-in service did not answer within {REQUEST_SECONDS:g} seconds.",
                next_step="Call again.",
                code="timeout",
            ) from None
        try:
            return status, parse_object(body)
        except ValueError:
            return status, {}
