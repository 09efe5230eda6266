"""Device sign-in (RFC 8628): builds its requests and reads their answers. Pure.

::

    register ──► client ──► authorize ──► link and code, for a person ──► poll … ──► tokens

Two services offer it. AWS SSO OIDC serves Builder ID and organisations; it reports a fault with
status 400 and an `error`. Kiro's own service serves Google and GitHub and is undocumented; observed
(2026-06): its durations are in milliseconds, and it answers each poll with status 200 and a
`status`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from kiro_mcp.auth.credentials import BUILDER_ID_START_URL, ClientRegistration, Credential
from kiro_mcp.auth.documents import read_registration, text_of
from kiro_mcp.auth.hosts import is_sign_in_page, read_start_url
from kiro_mcp.auth.oidc import Members, TokenRequest, add_tokens, refusal
from kiro_mcp.client.endpoints import service_url
from kiro_mcp.errors import (
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
    quoted,
)
from kiro_mcp.redaction import remember_secret
from kiro_mcp.regions import DEFAULT_REGION

Method: TypeAlias = Literal["builder_id", "idc", "google", "github"]

SCOPES: Final = tuple(
    f"codewhisperer:{name}" for name in ("completions", "analysis", "conversations")
)
SLOW_DOWN_SECONDS: Final = 5.0
"""How much longer the interval becomes after each `slow_down` (RFC 8628, section 3.5)."""

_USER_CODE: Final = re.compile("[A-Za-z0-9-]{1,40}")
"""The form of a code. Other text is not shown, because it would reach terminals and models."""

_DEFAULT_INTERVAL_SECONDS: Final = 5.0
_DEFAULT_LIFE_SECONDS: Final = 600.0
_CLIENT_NAME: Final = "kiro-mcp"
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_PROVIDERS: Final[Mapping[Method, str]] = {"google": "Google", "github": "Github"}
_SUCCESS_WORDS: Final = ("", "authorized", "success")
"""Observed: the values of `status` with which Kiro's own service confirms a login."""
_KIRO_CLIENT_ID: Final = "kiro-cli"
"""Observed: the only client that Kiro's own service accepts. It has no registration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlan:
    """How a login will be made: the method, the region, the start URL and the hosts."""

    method: Method
    region: str
    start_url: str
    overrides: Mapping[str, str] = field(repr=False)

    @property
    def is_social(self) -> bool:
        """Whether Kiro's own service makes the login, rather than AWS."""
        return self.method in _PROVIDERS

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
    members: Members = {
        "clientName": _CLIENT_NAME,
        "clientType": "public",
        "grantTypes": [_DEVICE_GRANT, "refresh_token"],
        "scopes": list(SCOPES),
    }
    return TokenRequest(_url(plan, "/client/register"), members)


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
        return TokenRequest(_url(plan, "/oauth/device/authorization"), members)
    members = {
        "clientId": client.client_id,
        "clientSecret": client.client_secret,
        "startUrl": plan.start_url,
    }
    return TokenRequest(_url(plan, "/device_authorization"), members)


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
    life = _seconds(members, "expiresIn", _DEFAULT_LIFE_SECONDS)
    return DeviceLogin(
        plan=plan,
        device_code=device_code,
        user_code=user_code if _USER_CODE.fullmatch(user_code) else "",
        verification_url=url,
        interval_seconds=_seconds(members, "interval", _DEFAULT_INTERVAL_SECONDS),
        expires_at=now + timedelta(seconds=life),
        client=client,
    )


def poll_request(login: DeviceLogin) -> TokenRequest:
    """Build the request that asks whether the login is confirmed."""
    if login.client is None:
        members = {"clientId": _KIRO_CLIENT_ID, "deviceCode": login.device_code}
        return TokenRequest(_url(login.plan, "/oauth/device/poll"), members)
    members = {
        "clientId": login.client.client_id,
        "clientSecret": login.client.client_secret,
        "deviceCode": login.device_code,
        "grantType": _DEVICE_GRANT,
    }
    return TokenRequest(_url(login.plan, "/token"), members)


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
            kind="social" if login.plan.method in ("google", "github") else login.plan.method,
            region=login.plan.region,
            start_url=login.plan.start_url,
            client=login.client,
            source="kiro-mcp's own login",
            origin="own",
        )
        return add_tokens(empty, members, now)
    word = (text_of(members, "error") or text_of(members, "status")).removesuffix("Exception")
    if word == "slow_down":
        return SLOW_DOWN_SECONDS
    if word in ("authorization_pending", "pending") or status >= 500 or status == 429:
        return 0.0
    if status == 200 and word in _SUCCESS_WORDS:
        return 0.0  # Confirmed, but the tokens are not there yet.
    if word in ("expired_token", "ExpiredToken"):
        what = "The sign-in code was not confirmed in time"
    elif word in ("access_denied", "AccessDenied"):
        what = "The sign-in was refused on its page"
    else:
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


def _url(plan: LoginPlan, path: str) -> str:
    host = "auth" if plan.is_social else "oidc"
    return service_url(host, path, region=plan.region, overrides=plan.overrides)


def _seconds(members: Members, name: str, default: float) -> float:
    """Read a duration: AWS sends `expiresIn` in seconds, Kiro's service `expiresInMilliseconds`."""
    for spelling, unit in ((name, 1.0), (f"{name.removesuffix('In')}InMilliseconds", 1000.0)):
        value = members.get(spelling)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return value / unit
    return default
