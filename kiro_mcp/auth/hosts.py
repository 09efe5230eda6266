"""Where sign-in requests go, and which addresses a person may be sent to. Pure.

Refresh tokens and client secrets are worth as much as a bearer, so the same rule holds: they go
to the vendor's hosts, or to another host only if the user named the credential for this run.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from kiro_mcp.auth.tokens import Credential
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.regions import is_region

SignInHost: TypeAlias = Literal["oidc", "auth"]

_HOSTS: Final[Mapping[SignInHost, str]] = {
    "oidc": "https://oidc.{region}.amazonaws.com",
    "auth": "https://prod.{region}.auth.desktop.kiro.dev",
}
_PAGE_DOMAINS: Final = ("kiro.dev", "amazoncognito.com", "amazonaws.com", "awsapps.com", "app.aws")
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


def is_sign_in_page(url: str, start_url: str = "") -> bool:
    """Whether a person may be sent to an address that a sign-in service gave.

    It must be one of the vendor's, or on the very host where the user said to start.
    """
    parts = _parts(url)
    if parts is None:
        return False
    host = parts[0]
    own = _parts(start_url)
    return (own is not None and own[0] == host) or _is_under(host, _PAGE_DOMAINS)


def checked_start_url(start_url: str) -> str:
    """Return an organisation's start URL as the service wants it: without fragment and slash.

    Raises:
        InvalidRequest: It is not an https address.
    """
    trimmed = start_url.strip().partition("#")[0].rstrip("/")
    if _parts(trimmed) is None:
        raise InvalidRequest(
            f"The start URL {start_url.strip()!r} is not an https address.",
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
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = (parts.hostname or "").lower()
    is_plain = parts.scheme == "https" and "." in host and port in (None, 443)
    has_user = bool(parts.username or parts.password or "@" in parts.netloc)
    return None if not is_plain or has_user or _is_ip(host) else (host, parts.path)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
