"""What is sent to the sign-in services, and what their answers mean. Pure.

Three services renew a login, each in its own form::

    social                  POST {auth}/refreshToken    JSON  {refreshToken}
    Builder ID, IdC         POST {oidc}/token           JSON  camelCase (AWS SSO OIDC CreateToken)
    an organisation's own   POST its token endpoint     form  snake_case (RFC 6749, section 6)

The region is the login's own: in a wrong region, the service answers as for a revoked token.

Two of them make a login by device sign-in (RFC 8628)::

    register ──► client ──► authorize ──► link and code, for a person ──► poll … ──► tokens

AWS SSO OIDC serves Builder ID and organisations; it reports a fault with status 400 and an `error`.
Kiro's own service serves Google and GitHub, takes no registration and is undocumented; observed
(2026-06): its durations are in milliseconds, and it answers each poll with status 200 and a
`status`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from kiro_mcp.auth.credentials import (
    BUILDER_ID_START_URL,
    ClientRegistration,
    Credential,
    CredentialKind,
    jwt_expiry,
    member_of,
    read_registration,
    text_of,
)
from kiro_mcp.auth.hosts import idp_token_endpoint, is_sign_in_page, read_start_url
from kiro_mcp.client.endpoints import require_may_send, service_url
from kiro_mcp.errors import InvalidRequest, KiroError, ServiceUnavailable, SignInRequired, quoted
from kiro_mcp.redaction import redact, remember_secret
from kiro_mcp.regions import DEFAULT_REGION

Members: TypeAlias = Mapping[str, object]
Method: TypeAlias = Literal["builder_id", "idc", "google", "github"]

DEFAULT_LIFETIME_SECONDS: Final = 3600.0
"""How long a token lives if its answer does not say."""

MAX_WORDS: Final = 300
"""How many characters of a refusal's text are shown."""
_MAX_READ: Final = 16 * MAX_WORDS
"""How many characters of it are searched for secrets."""

SLOW_DOWN_SECONDS: Final = 5.0
"""How much longer the interval becomes after each `slow_down` (RFC 8628, section 3.5)."""

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
_MAX_SECONDS: Final = 10**9
"""A longer duration, or one that is not a number, is nonsense. This one is 30 years."""

_USER_CODE: Final = re.compile("[A-Za-z0-9-]{1,40}")
"""The form of a code. Other text is not shown, because it would reach terminals and models."""

_DEFAULT_INTERVAL_SECONDS: Final = 5.0
_DEFAULT_LIFE_SECONDS: Final = 600.0
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SCOPES: Final = ("completions", "analysis", "conversations")
_PROVIDERS: Final[Mapping[Method, str]] = {"google": "Google", "github": "Github"}
_KIRO_CLIENT_ID: Final = "kiro-cli"
"""Observed: the only client that Kiro's own service accepts. It has no registration."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One POST to a sign-in service, without a bearer."""

    url: str
    members: Members = field(repr=False)
    is_form: bool = False
    """Whether the members are sent as a form instead of as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request that returned no token."""

    is_final: bool
    """Whether this refresh token can never work again. If not, it may work later."""
    why: str
    """The service's text, without secrets, for people."""


# --- renewing a login ---------------------------------------------------------------------


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
    if client is not None and credential.kind != "social":
        members |= {**client.members, "grantType": "refresh_token"}
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
    lifetime = _seconds(members, "expires_in")
    stated = None if lifetime else jwt_expiry(access_token)
    return replace(
        credential,
        access_token=access_token,
        refresh_token=text_of(members, "refresh_token") or credential.refresh_token,
        expires_at=stated or now + timedelta(seconds=lifetime or DEFAULT_LIFETIME_SECONDS),
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


def _seconds(members: Members, name: str) -> float:
    """Read a duration, a number or its text; 0 if it is missing or nonsense."""
    value = member_of(members, name)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < value < _MAX_SECONDS else 0.0


# --- device sign-in -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlan:
    """How a login will be made: the method, the region, the start URL and the hosts."""

    method: Method
    region: str
    start_url: str
    overrides: Mapping[str, str] = field(repr=False)

    @property
    def kind(self) -> CredentialKind:
        """The kind of the login. Kiro's own service makes social logins, AWS the others."""
        return "social" if self.method in ("google", "github") else self.method

    @property
    def is_social(self) -> bool:
        """Whether Kiro's own service makes the login, rather than AWS."""
        return self.kind == "social"

    @property
    def client_key(self) -> str:
        """The key of the client registration in our store."""
        return " ".join((self.overrides.get("oidc", ""), self.region, self.start_url)).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLogin:
    """A login that waits for a person to confirm it."""

    plan: LoginPlan
    device_code: str = field(repr=False)
    user_code: str
    verification_url: str
    """The page to open. It contains the code if the service offers that."""
    interval_seconds: float
    expires_at: datetime
    client: ClientRegistration | None = None

    def __post_init__(self) -> None:
        remember_secret(self.device_code)


def plan_login(
    method: Method, *, start_url: str, region: str, overrides: Mapping[str, str]
) -> LoginPlan:
    """Check the arguments of a login before anything is sent.

    Raises:
        InvalidRequest: An organisation's login needs a start URL; other logins do not take one.
    """
    if method == "idc":
        if not start_url:
            raise InvalidRequest(
                "A login with IAM Identity Center needs the start URL of your organisation.",
                next_step="Ask your administrator for it. Then pass it as `start_url`"
                " (`--start-url`), with `region`.",
            )
        start_url, region = read_start_url(start_url), region or DEFAULT_REGION
    else:
        if start_url and read_start_url(start_url) != BUILDER_ID_START_URL:
            raise InvalidRequest(
                f"A login with the method {method} does not take a start URL.",
                next_step="For a login of your organisation, use the method `idc`.",
            )
        start_url = BUILDER_ID_START_URL if method == "builder_id" else ""
        region = DEFAULT_REGION
    return LoginPlan(method=method, region=region, start_url=start_url, overrides=overrides)


def registration_request(plan: LoginPlan) -> TokenRequest:
    """Build the request that registers a client. The login's tokens are bound to this client."""
    members = {
        "clientName": "kiro-mcp",
        "clientType": "public",
        "grantTypes": [_DEVICE_GRANT, "refresh_token"],
        "scopes": [f"codewhisperer:{name}" for name in _SCOPES],
    }
    return _request(plan, "/client/register", members)


def read_registration_answer(plan: LoginPlan, status: int, members: Members) -> ClientRegistration:
    """Read the registered client.

    Raises:
        KiroError: The service registered no client.
    """
    client = read_registration(members, is_all=True) if status == 200 else None
    if client is None:
        raise _start_failure(plan, status, members)
    return replace(client, region=plan.region)


def authorization_request(plan: LoginPlan, client: ClientRegistration | None) -> TokenRequest:
    """Build the request for a link and a code."""
    if client is None:
        members = {"clientId": _KIRO_CLIENT_ID, "loginProvider": _PROVIDERS[plan.method]}
        return _request(plan, "/oauth/device/authorization", members)
    members = {**client.members, "startUrl": plan.start_url}
    return _request(plan, "/device_authorization", members)


def read_authorization_answer(
    plan: LoginPlan,
    client: ClientRegistration | None,
    status: int,
    members: Members,
    now: datetime,
) -> DeviceLogin:
    """Read the link and the code for the person.

    Raises:
        KiroError: The service sent none, or the link does not lead to a sign-in page.
    """
    device_code, user_code = text_of(members, "device_code"), text_of(members, "user_code")
    url = text_of(members, "verification_uri_complete") or text_of(members, "verification_uri")
    if status != 200 or not device_code or not url:
        raise _start_failure(plan, status, members)
    is_from_aws = plan.method == "idc" and not plan.overrides.get("oidc")
    if not is_sign_in_page(url, plan.start_url, is_organisations=is_from_aws):
        raise ServiceUnavailable(
            f"The sign-in service sent the URL {quoted(url)}, which is not a sign-in page.",
            next_step="Do not open it. Check the network, a proxy and KIRO_MCP_ENDPOINT_URL.",
        )
    # AWS counts in seconds, Kiro's own service in milliseconds.
    life, interval = (
        _seconds(members, name) or _seconds(members, f"{stem}_in_milliseconds") / 1000
        for name, stem in (("expires_in", "expires"), ("interval", "interval"))
    )
    return DeviceLogin(
        plan=plan,
        device_code=device_code,
        user_code=user_code if _USER_CODE.fullmatch(user_code) else "",
        verification_url=url,
        interval_seconds=interval or _DEFAULT_INTERVAL_SECONDS,
        expires_at=now + timedelta(seconds=life or _DEFAULT_LIFE_SECONDS),
        client=client,
    )


def poll_request(login: DeviceLogin) -> TokenRequest:
    """Build the request that asks whether the login is confirmed."""
    code = {"deviceCode": login.device_code}
    if login.client is None:
        members = {"clientId": _KIRO_CLIENT_ID, **code}
        return _request(login.plan, "/oauth/device/poll", members)
    return _request(
        login.plan, "/token", {**login.client.members, **code, "grantType": _DEVICE_GRANT}
    )


def read_poll_answer(
    login: DeviceLogin, status: int, members: Members, now: datetime
) -> Credential | float:
    """Read the answer to a poll: the login, or by how many seconds the interval becomes longer.

    An answer with both tokens is a login. The words for success differ between the services.

    Raises:
        SignInRequired: The login has failed.
    """
    if text_of(members, "access_token") and text_of(members, "refresh_token"):
        empty = Credential(
            kind=login.plan.kind,
            region=login.plan.region,
            start_url=login.plan.start_url,
            client=login.client,
            source="kiro-mcp's own login",
            origin="own",
        )
        return add_tokens(empty, members, now)
    word = (text_of(members, "error") or text_of(members, "status")).removesuffix("Exception")
    match word:
        case "slow_down":
            return SLOW_DOWN_SECONDS
        case "authorization_pending" | "pending":
            return 0.0
        case _ if status >= 500 or status == 429:
            return 0.0
        case "" | "authorized" | "success" if status == 200:
            return 0.0  # Kiro's own service has confirmed it, but sends the tokens later.
        case "expired_token" | "ExpiredToken":
            what = "The sign-in code was not confirmed in time"
        case "access_denied" | "AccessDenied":
            what = "The sign-in was refused on its page"
        case _:
            what = f"The sign-in ended ({refusal(400, members).why})"
    raise SignInRequired(f"{what}.", next_step="Start again: call `login` with action `start`.")


def _start_failure(plan: LoginPlan, status: int, members: Members) -> KiroError:
    why = refusal(status, members).why
    if status >= 500 or status == 429:
        return ServiceUnavailable(
            f"The sign-in service failed ({why}).", next_step="Call again in a minute."
        )
    hint = (
        f"Check the start URL {plan.start_url!r} and its region {plan.region!r}."
        if plan.method == "idc"
        else "Use another method, or KIRO_API_KEY."
    )
    return InvalidRequest(f"The sign-in service refused to start ({why}).", next_step=hint)


def _request(plan: LoginPlan, path: str, members: Members) -> TokenRequest:
    host = "auth" if plan.is_social else "oidc"
    url = service_url(host, path, region=plan.region, overrides=plan.overrides)
    return TokenRequest(url, members)
