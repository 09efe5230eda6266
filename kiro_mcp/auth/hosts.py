"""Which pages a person may be sent to, and which token endpoints may get a refresh token. Pure."""

import re
from typing import Final

from kiro_mcp.auth.credentials import Credential
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.regions import is_region

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


def is_sign_in_page(url: str, start_url: str = "", *, is_organisations: bool = False) -> bool:
    """Whether a person may be sent to a page that a sign-in service named.

    The page must be on one of the vendor's hosts, or on the host of the user's start URL.

    Args:
        url: The page.
        start_url: The user's start URL; "" for the vendor's own.
        is_organisations: Whether AWS itself answered, for an organisation's login. Only then may
            the page be on any portal.
    """
    host, _ = _parts(url)
    region = host.removeprefix("device.sso.").removesuffix(".amazonaws.com")
    return bool(host) and (
        _is_under(host, ("kiro.dev",))
        or host == "view.awsapps.com"
        or (is_region(region) and host == f"device.sso.{region}.amazonaws.com")
        or host == _parts(start_url)[0]
        or (is_organisations and _is_under(host, _PORTAL_DOMAINS))
    )


def read_start_url(start_url: str) -> str:
    """Return an organisation's start URL in the service's form: without fragment and final slash.

    Raises:
        InvalidRequest: It is not an https URL.
    """
    trimmed = start_url.strip().partition("#")[0].rstrip("/")
    if not _parts(trimmed)[0]:
        raise InvalidRequest(
            f"The start URL {quoted(start_url.strip())} is not a valid https URL.",
            next_step="Use one such as https://my-company.awsapps.com/start. Your administrator"
            " knows it.",
        )
    return trimmed


def idp_token_endpoint(credential: Credential) -> str:
    """Return the token endpoint of an organisation's own sign-in; "" if it cannot be trusted.

    The endpoint comes from a file that others can write. So it must be on the host of a known
    provider, or on the issuer's own host.
    """
    issuer, path = _parts(credential.issuer_url)
    endpoint = credential.token_endpoint
    if not endpoint and issuer in _ENTRA_HOSTS:
        tenant = path.strip("/").removesuffix("/v2.0")
        endpoint = f"https://{issuer}/{tenant}/oauth2/v2.0/token" if tenant else ""
    elif not endpoint and _is_under(issuer, _OKTA_DOMAINS):
        endpoint = f"{credential.issuer_url.rstrip('/')}/v1/token"
    host, _ = _parts(endpoint)
    is_known = host in (issuer, *_ENTRA_HOSTS) or _is_under(host, _OKTA_DOMAINS)
    return endpoint if host and is_known else ""


def _is_under(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _parts(url: str) -> tuple[str, str]:
    """Return host and path of a plain https URL; two "" for any other text."""
    is_plain = url.isascii() and url.isprintable() and not {"\\", " "} & set(url)
    match = _HTTPS.fullmatch(url) if is_plain else None
    return (match["host"].lower(), match["path"] or "") if match else ("", "")
