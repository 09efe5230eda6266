"""Where the service is, as data: hosts, paths and headers, and who may be sent a bearer.

Sources: captures of the official command line client (2.15.2, 2026-07) and the vendor's
list of hosts for firewalls. `runtime` answers prompts; `management` lists models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from kiro_mcp.errors import SignInRequired
from kiro_mcp.models import AccessToken

HostName = Literal["runtime", "management"]

_HOSTS: dict[HostName, str] = {
    "runtime": "https://runtime.{region}.kiro.dev",
    "management": "https://management.{region}.kiro.dev",
}

TRUSTED_DOMAINS = (".kiro.dev", ".amazonaws.com")
"""The only domains that receive a bearer which was not given for another host on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProfile:
    """One operation of the service: the parts of its request that must agree."""

    host: HostName
    path: str
    content_type: str
    target: str = ""
    """The `X-Amz-Target` of the RPC form; "" for the REST form, which names it in the path."""
    origin: str
    """What the body, and the query string, say the request comes from."""


GENERATE = EndpointProfile(
    host="runtime",
    path="/generateAssistantResponse",
    content_type="application/json",
    origin="KIRO_CLI",
)
LIST_MODELS = EndpointProfile(
    host="management",
    path="/",
    content_type="application/x-amz-json-1.0",
    target="AmazonCodeWhispererService.ListAvailableModels",
    origin="KIRO_CLI",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """An endpoint's address as settings and region make it."""

    url: str
    is_overridden: bool
    """Whether a setting put it in the place of the service's own host."""


def destination(
    profile: EndpointProfile, *, region: str, overrides: Mapping[str, str]
) -> Destination:
    """Resolve where a profile's requests go; an override keeps the profile's path."""
    override = overrides.get(profile.host, "")
    base = override or _HOSTS[profile.host].format(region=region)
    return Destination(url=base + profile.path, is_overridden=bool(override))


def require_may_receive(target: Destination, token: AccessToken) -> None:
    """Let a bearer go to the service, or to another host only if the user gave it for this run.

    Raises:
        SignInRequired: The token was found somewhere, and the host is not the service's.
    """
    parts = urlsplit(target.url)
    is_service = parts.scheme == "https" and (parts.hostname or "").endswith(TRUSTED_DOMAINS)
    if is_service or (target.is_overridden and token.is_explicit):
        return
    raise SignInRequired(
        f"The credential that was found here is not sent to {parts.hostname!r}, which is not a"
        " host of the service.",
        next_step="Give one for that host on purpose, in KIRO_API_KEY or KIRO_ACCESS_TOKEN.",
    )
