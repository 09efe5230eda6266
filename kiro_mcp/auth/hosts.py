"""Where sign-in requests go, and which addresses a person may be sent to. Pure.

Refresh tokens and client secrets are worth as much as a bearer, so the same rule holds: they go
to the vendor's hosts, or to another host only if the user named the credential for this run.
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
"""How much of an address is shown that cannot be used."""

SignInHost: TypeAlias = Literal["oidc", "auth"]

_HOSTS: Final[Mapping[SignInHost, str]] = {
    "oidc": "https://oidc.{region}.amazonaws.com",
    "auth": "https://prod.{region}.auth.desktop.kiro.dev",
}
_HTTPS: Final = re.compile(
    r"https://(?P<host>(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*)(?::443)?(?P<path>/[^?#]*)?(?:[?#].*)?",
    re.IGNORECASE,
)
"""An address that every reader splits alike. A browser takes `\\` for `/`, ends the host at an
escaped character or leaves out blanks, so none of those may stand in the host or end it."""

_PORTAL_DOMAINS: Final = ("awsapps.com", "app.aws")
"""Where organisations rent the names of their sign-in portals, as anybody can."""

_ENTRA_HOSTS: Final = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
)
_OKTA_DOMAINS: Final = ("okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAddress:
    """A sign-in service's address as settings and region make it."""

    url: str
    is_overridden: bool


def sign_in_address(
    host: SignInHost, path: str, *, region: str, overrides: Mapping[str, str]
) -> SignInAddress:
    """Resolve where a sign-in request goes.

    Raises:
        InvalidRequest: The region is none, and would become part of a host name.
    """
    if not is_region(region):
        raise InvalidRequest(
            f"{region!r} is not an AWS region.", next_step="Use one such as us-east-1."
        )
    override = overrides.get(host, "")
    base = override or _HOSTS[host].format(region=region)
    return SignInAddress(url=base + path, is_overridden=bool(override))


def require_may_send(address: SignInAddress, credential: Credential) -> None:
    """Let a refresh token go to the vendor, or elsewhere only if it was given for this run.

    Raises:
        SignInRequired: It was found somewhere, and a setting put another host in place.
    """
    if address.is_overridden and not credential.is_explicit:
        raise SignInRequired(
            f"The login from {credential.source} is not sent to"
            f" {urlsplit(address.url).hostname!r}, which a setting put in the vendor's place.",
            next_step="Sign in against that host (`kiro-mcp login`), or unset the setting.",
        )


def is_sign_in_page(url: str, start_url: str = "", *, is_organisations: bool = False) -> bool:
    """Whether a person may be sent to a page that a sign-in service named.

    It must be on a host of the vendor's own, or on the host where the user said to start.

    Args:
        url: The page.
        start_url: Where the user said to start; "" for the vendor's own.
        is_organisations: Whether AWS itself answered for an organisation's login. Only then may
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


def checked_start_url(start_url: str) -> str:
    """Return an organisation's start URL as the service wants it: without fragment and slash.

    Raises:
        InvalidRequest: It is not an https address.
    """
    trimmed = start_url.strip().partition("#")[0].rstrip("/")
    if _parts(trimmed) is None:
        raise InvalidRequest(
            f"The start URL {start_url.strip()[:MAX_QUOTED]!r} is not an https address.",
            next_step="It looks like https://my-company.awsapps.com/start; your administrator"
            " knows it.",
        )
    return trimmed


def idp_token_endpoint(credential: Credential) -> str:
    """Return where an organisation's own sign-in refreshes, "" where that cannot be trusted.

    The endpoint was read from a file that others can write, so it must be a known provider's, or
    on the issuer's own host.
    """
    endpoint = credential.token_endpoint or _derived_endpoint(credential.issuer_url)
    parts, issuer = _parts(endpoint), _parts(credential.issuer_url)
    if parts is None:
        return ""
    host = parts[0]
    is_issuers = issuer is not None and issuer[0] == host
    return endpoint if is_issuers or _is_provider(host) else ""


def _derived_endpoint(issuer_url: str) -> str:
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
    """Return host and path of a plain https address, None for any other."""
    if not (url.isascii() and url.isprintable()) or "\\" in url or " " in url:
        return None
    match = _HTTPS.fullmatch(url)
    if match is None:
        return None
    return match["host"].lower(), match["path"] or ""
