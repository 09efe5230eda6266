"""Device sign-in, pure: the requests to make and what their answers mean (RFC 8628).

::

    register ──► client ──► authorize ──► link and code, for a person ──► poll … ──► tokens

Two services speak it: AWS SSO OIDC (Builder ID and organisations; faults are status 400 with an
`error`) and Kiro's own (Google, GitHub). The latter is undocumented: it was observed (2026-06) to
count in milliseconds and to answer every poll with status 200 and a `status`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from kiro_mcp.auth.credentials import (
    BUILDER_ID_START_URL,
    DEFAULT_REGION,
    ClientRegistration,
    Credential,
)
from kiro_mcp.auth.documents import read_registration_file
from kiro_mcp.auth.hosts import (
    MAX_QUOTED,
    checked_start_url,
    is_sign_in_page,
    sign_in_address,
)
from kiro_mcp.auth.oidc import (
    TokenRequest,
    first_text,
    json_request,
    read_members,
    refusal,
    renewed,
)
from kiro_mcp.errors import InvalidRequest, KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.redaction import remember_secret

Method: TypeAlias = Literal["builder_id", "idc", "google", "github"]

SCOPES: Final = tuple(
    f"codewhisperer:{name}" for name in ("completions", "analysis", "conversations")
)
SLOW_DOWN_SECONDS: Final = 5.0
"""By how much RFC 8628, section 3.5, wants the interval to grow, for good."""

_USER_CODE: Final = re.compile("[A-Za-z0-9-]{1,40}")
"""What may be shown as a code: it reaches terminals and models, whatever host named it."""

_DEFAULT_INTERVAL_SECONDS: Final = 5.0
_DEFAULT_LIFE_SECONDS: Final = 600.0
_CLIENT_NAME: Final = "kiro-mcp"
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_PROVIDERS: Final[Mapping[Method, str]] = {"google": "Google", "github": "Github"}
_SUCCESS_WORDS: Final = ("", "authorized", "success")
"""Observed: what Kiro's own service says of a login that is confirmed differs."""
_KIRO_CLIENT_ID: Final = "kiro-cli"
"""Observed: the only client that Kiro's own service knows; it takes no registrations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlan:
    """A login that is asked for: how, where, and against which hosts."""

    method: Method
    region: str
    start_url: str
    overrides: Mapping[str, str] = field(repr=False)

    @property
    def is_social(self) -> bool:
        """Whether Kiro's own service does it, and not AWS."""
        return self.method in _PROVIDERS

    @property
    def client_key(self) -> str:
        """What a cached registration is kept under."""
        return " ".join((self.overrides.get("oidc", ""), self.region, self.start_url)).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLogin:
    """A login that waits for a person to confirm it."""

    plan: LoginPlan
    device_code: str = field(repr=False)
    user_code: str
    verification_url: str
    """The page to open; the code is in it already where the service offers that."""
    interval_seconds: float
    expires_at: datetime
    client: ClientRegistration | None = None

    def __post_init__(self) -> None:
        remember_secret(self.device_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPolling:
    """Not confirmed yet."""

    is_too_fast: bool = False
    """Whether the service asked to be polled less often, from now on."""


PollResult: TypeAlias = Credential | KeepPolling | KiroError


def plan_login(
    method: Method, *, start_url: str, region: str, overrides: Mapping[str, str]
) -> LoginPlan:
    """Check what a login needs before anything is sent.

    Raises:
        InvalidRequest: An organisation's login has no start URL, or there is one and no use for it.
    """
    if method == "idc":
        if not start_url:
            raise InvalidRequest(
                "A login with IAM Identity Center needs the start URL of your organisation.",
                next_step="Ask for it and give it as `start_url` (`--start-url`), with `region`.",
            )
        return LoginPlan(
            method=method,
            region=region or DEFAULT_REGION,
            start_url=checked_start_url(start_url),
            overrides=overrides,
        )
    if start_url and checked_start_url(start_url) != BUILDER_ID_START_URL:
        raise InvalidRequest(
            f"A login by {method} has no start URL of its own.",
            next_step="For your organisation's, use the method `idc`.",
        )
    start_url = BUILDER_ID_START_URL if method == "builder_id" else ""
    return LoginPlan(method=method, region=DEFAULT_REGION, start_url=start_url, overrides=overrides)


def registration_request(plan: LoginPlan) -> TokenRequest:
    """Build the request for a client of our own, which the login's tokens will be bound to."""
    return json_request(
        _url(plan, "/client/register"),
        {
            "clientName": _CLIENT_NAME,
            "clientType": "public",
            "grantTypes": [_DEVICE_GRANT, "refresh_token"],
            "scopes": list(SCOPES),
        },
    )


def read_registration_answer(plan: LoginPlan, status: int, body: bytes) -> ClientRegistration:
    """Read the new client.

    Raises:
        KiroError: There is none.
    """
    members = read_members(body)
    client = read_registration_file(members) if status == 200 else None
    if client is None:
        raise _start_failure(plan, status, members)
    return ClientRegistration(
        client_id=client.client_id,
        client_secret=client.client_secret,
        expires_at=client.expires_at,
        region=plan.region,
    )


def authorization_request(plan: LoginPlan, client: ClientRegistration | None) -> TokenRequest:
    """Build the request for a link and a code."""
    if client is None:
        members = {"clientId": _KIRO_CLIENT_ID, "loginProvider": _PROVIDERS[plan.method]}
        return json_request(_url(plan, "/oauth/device/authorization"), members)
    members = {
        "clientId": client.client_id,
        "clientSecret": client.client_secret,
        "startUrl": plan.start_url,
    }
    return json_request(_url(plan, "/device_authorization"), members)


def read_authorization_answer(
    plan: LoginPlan,
    client: ClientRegistration | None,
    status: int,
    body: bytes,
    now: datetime,
) -> DeviceLogin:
    """Read link and code.

    Raises:
        KiroError: There are none, or the link leads elsewhere than to a sign-in page.
    """
    members = read_members(body)
    device_code, user_code = first_text(members, "deviceCode"), first_text(members, "userCode")
    url = first_text(members, "verificationUriComplete") or first_text(members, "verificationUri")
    if status != 200 or not device_code or not url:
        raise _start_failure(plan, status, members)
    is_from_aws = plan.method == "idc" and not plan.overrides.get("oidc")
    if not is_sign_in_page(url, plan.start_url, is_organisations=is_from_aws):
        raise ServiceUnavailable(
            f"The sign-in service gave the address {url[:MAX_QUOTED]!r}, which is not a sign-in"
            " page.",
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
    """Build one poll."""
    if login.client is None:
        members = {"clientId": _KIRO_CLIENT_ID, "deviceCode": login.device_code}
        return json_request(_url(login.plan, "/oauth/device/poll"), members)
    members = {
        "clientId": login.client.client_id,
        "clientSecret": login.client.client_secret,
        "deviceCode": login.device_code,
        "grantType": _DEVICE_GRANT,
    }
    return json_request(_url(login.plan, "/token"), members)


def read_poll_answer(login: DeviceLogin, status: int, body: bytes, now: datetime) -> PollResult:
    """Tell what one poll found: the login, nothing yet, or its end.

    Both tokens are what makes a login; the service's own word for it differs.
    """
    members = read_members(body)
    if first_text(members, "accessToken") and first_text(members, "refreshToken"):
        return renewed(_blank(login), members, now)
    word = first_text(members, "error", "status").removesuffix("Exception")
    if word == "slow_down":
        return KeepPolling(is_too_fast=True)
    if word in ("authorization_pending", "pending") or status >= 500 or status == 429:
        return KeepPolling()
    if status == 200 and word in _SUCCESS_WORDS:
        return KeepPolling()  # Without its tokens yet.
    return _ended(word or f"status {status}", members)


def expired(login: DeviceLogin) -> KiroError:
    """Return the error of a login that nobody confirmed."""
    return SignInRequired(
        f"The sign-in code {login.user_code} was not confirmed in time.",
        next_step="Start again: call `login` with action `start`, or run `kiro-mcp login`.",
    )


def _blank(login: DeviceLogin) -> Credential:
    return Credential(
        kind="social" if login.plan.method in ("google", "github") else login.plan.method,
        region=login.plan.region,
        start_url=login.plan.start_url,
        client=login.client,
        source="kiro-mcp's own login",
        origin="own",
    )


def _ended(word: str, members: Mapping[str, object]) -> KiroError:
    if word in ("expired_token", "ExpiredToken"):
        what = "The sign-in code was not confirmed in time"
    elif word in ("access_denied", "AccessDenied"):
        what = "The sign-in was refused on its page"
    else:
        what = f"The sign-in ended ({refusal(400, members).why})"
    return SignInRequired(f"{what}.", next_step="Start again: call `login` with action `start`.")


def _start_failure(plan: LoginPlan, status: int, members: Mapping[str, object]) -> KiroError:
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
    return sign_in_address(host, path, region=plan.region, overrides=plan.overrides).url


def _seconds(members: Mapping[str, object], name: str, default: float) -> float:
    """Read a duration: AWS gives seconds, Kiro's service the same name and milliseconds."""
    for spelling, unit in ((name, 1.0), (f"{name.removesuffix('In')}InMilliseconds", 1000.0)):
        value = members.get(spelling)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return value / unit
    return default
