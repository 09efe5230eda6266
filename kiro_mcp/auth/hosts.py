"""Where sign-in requests go, and which pages a person may be sent to. Pure.

Refresh tokens and client secrets are as valuable as a bearer, so the same rule applies: they go
to the vendor's hosts. They go to another host only if the user named the credential for this run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from kiro_mcp.auth.credentials import Credential
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.regions import is_region

MAX_QUOTED: Final = 80
"""How many characters of an invalid URL are shown."""

SignInHost: TypeAlias = Literal["oidc", "auth"]

_HOSTS: Final[Mapping[SignInHost, str]] = {
    "oidc": "https://oidc.{region}.amazonaws.com",
    "auth": "https://prod.{region}.auth.desktop.kiro.dev",
}
_HTTPS: Final = re.compile(
    r"https://(?P<host>(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*)(?::443)?(?P<path>/[^?#]*)?(?:[?#].*)?",
    re.IGNORECASE,
)
"""A URL that all programs parse alike. Browsers treat `\\` as `/`, end the host at an escaped
character and drop blanks, so the host may not contain any of these or be followed by one."""

_PORTAL_DOMAINS: Final = ("awsapps.com", "app.aws")
"""The domains of organisations' sign-in portals. Anybody can get a name there."""

_ENTRA_HOSTS: Final = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
)
_OKTA_DOMAINS: Final = ("okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAddress:
    """The URL of a sign-in service, with settings and region applied."""

    url: str
    is_overridden: bool
    """Whether a setting replaces the vendor's host."""


def sign_in_address(
    host: SignInHost, path: str, *, region: str, overrides: Mapping[str, str]
) -> SignInAddress:
    """Return the URL for a sign-in request.

    Raises:
        InvalidRequest: The region, which becomes part of a host name, is not an AWS region.
    """
    if not is_region(region):
        raise InvalidRequest(
            f"{region!r} is not an AWS region.", next_step="Use one such as us-east-1."
        )
    override = overrides.get(host, "")
    base = override or _HOSTS[host].format(region=region)
    return SignInAddress(url=base + path, is_overridden=bool(override))


def require_may_send(address: SignInAddress, credential: Credential) -> None:
    """Allow any login for the vendor's host, and an explicit login for an overridden host.

    Raises:
        SignInRequired: The login was found on this machine, and a setting replaces the host.
    """
    if address.is_overridden and not credential.is_explicit:
        raise SignInRequired(
            f"kiro-mcp does not send the login from {credential.source} to"
            f" {urlsplit(address.url).hostname!r}, because a setting put that host in the place"
            " of the vendor's.",
            next_step="Sign in at that host (`kiro-mcp login`), or remove the setting.",
        )


def is_sign_in_page(url: str, start_url: str = "", *, is_organisations: bool = False) -> bool:
    """Whether a person may be sent to a page that a sign-in service named.

    The page must be on one of the vendor's hosts, or on the host of the user's start URL.

    Args:
        url: The page.
        start_url: The user's start URL; "" for the vendor's own.
        is_organisations: Whether AWS itself answered, for an organisation's login. Only then may
            the page be on any portal.
    """
    parts = _parts(url)
    if parts is None:
        return False
    host = parts[0]
    own = _parts(start_url)
    return (
        _is_under(host, ("kiro.dev",))
        or host == "view.awsapps.com"
        or _is_device_page(host)
        or (own is not None and own[0] == host)
        or (is_organisations and _is_under(host, _PORTAL_DOMAINS))
    )


def _is_device_page(host: str) -> bool:
    region = host.removeprefix("device.sso.").removesuffix(".amazonaws.com")
    return is_region(region) and host == f"device.sso.{region}.amazonaws.com"


def read_start_url(start_url: str) -> str:
    """Return an organisation's start URL in the service's form: without fragment and final slash.

    Raises:
        InvalidRequest: It is not an https URL.
    """
    trimmed = start_url.strip().partition("#")[0].rstrip("/")
    if _parts(trimmed) is None:
        raise InvalidRequest(
            f"The start URL {start_url.strip()[:MAX_QUOTED]!r} is not a valid https URL.",
            next_step="Use one such as https://my-company.awsapps.com/start. Your administrator"
            " knows it.",
        )
    return trimmed


def idp_token_endpoint(credential: Credential) -> str:
    """Return the token endpoint of an organisation's own sign-in; "" if it cannot be trusted.

    The endpoint comes from a file that others can write. So it must be on the host of a known
    provider, or on the issuer's own host.
    """
    endpoint = credential.token_endpoint or _derive_endpoint(credential.issuer_url)
    parts, issuer = _parts(endpoint), _parts(credential.issuer_url)
    if parts is None:
        return ""
    host = parts[0]
    is_issuers = issuer is not None and issuer[0] == host
    return endpoint if is_issuers or _is_provider(host) else ""


def _derive_endpoint(issuer_url: str) -> str:
    parts = _parts(issuer_url)
    if parts is None:
        return ""
    host, path = parts
    if host in _ENTRA_HOSTS:
        tenant = path.strip("/").removesuffix("/v2.0")
        return f"https://{host}/{tenant}/oauth2/v2.0/token" if tenant else ""
    return f"{issuer_url.rstrip('/')}/v1/token" if _is_under(host, _OKTA_DOMAINS) else ""


def _is_provider(host: str) -> bool:
    return host in _ENTRA_HOSTS or _is_under(host, _OKTA_DOMAINS)


def _is_under(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _parts(url: str) -> tuple[str, str] | None:
    """Return host and path of a plain https URL; None for any other text."""
    if not (url.isascii() and url.isprintable()) or "\\" in url or " " in url:
        return None
    match = _HTTPS.fullmatch(url)
    if match is None:
        return None
    return match["host"].lower(), match["path"] or ""
