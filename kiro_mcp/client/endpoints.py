"""The service's endpoints as data, and the URL and headers of a request to one of them.

Only this module decides which host may receive a bearer, and which headers a request has.

Sources: captures of the official command line client (2.15.2, 2026-07), the vendor's list of
hosts for firewalls, and the vendor's open source clients for the older hosts. Four endpoints
answer prompts; the host `management` returns models, usage and profiles::

    endpoint       host                            form                      origin
    runtime        runtime.{region}.kiro.dev       REST                      KIRO_CLI
    q              q.{region}.amazonaws.com        REST                      AI_EDITOR
    amazonq        q.{region}.amazonaws.com        RPC SendMessage           CLI
    codewhisperer  codewhisperer.us-east-1...      RPC Generate...           AI_EDITOR

Host, path, form and origin must fit together, or the service answers 403. So each endpoint is one
`EndpointProfile`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit

from kiro_mcp._version import __version__
from kiro_mcp.chat import AccessToken
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.regions import is_region
from kiro_mcp.settings import Settings
from kiro_mcp.wire.request import WireForm

HostName = Literal["runtime", "management", "q", "codewhisperer"]

_HOSTS: dict[HostName, str] = {
    "runtime": "https://runtime.{region}.kiro.dev",
    "management": "https://management.{region}.kiro.dev",
    "q": "https://q.{region}.amazonaws.com",
    "codewhisperer": "https://codewhisperer.{region}.amazonaws.com",
}

AGENT_MODE: Final = "vibe"

BUILDER_ID_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:638616132270:profile/AAAACCCCXXXX"
"""Observed (2026-05): the profile that clients send for every Builder ID user."""

_JSON: Final = "application/json"
_RPC_JSON: Final = "application/x-amz-json-1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProfile:
    """One operation of the service at one host: the parts of its request that must match."""

    host: HostName
    path: str
    content_type: str
    method: Literal["POST", "GET"] = "POST"
    """With GET, the operation's members are in the query."""
    target: str = ""
    """The header `X-Amz-Target` of the RPC form; "" for the REST form, which uses the path."""
    origin: str
    """The program that the request names as its origin, in body or query."""
    form: WireForm = "rest"
    """Which members the body of a prompt may have, and where the agent mode goes."""
    regions: tuple[str, ...] = ()
    """The regions that have this endpoint; () for all."""


ENDPOINTS: Final[Mapping[str, EndpointProfile]] = MappingProxyType(
    {
        "runtime": EndpointProfile(
            host="runtime",
            path="/generateAssistantResponse",
            content_type=_JSON,
            origin="KIRO_CLI",
        ),
        "q": EndpointProfile(
            host="q",
            path="/generateAssistantResponse",
            content_type=_JSON,
            origin="AI_EDITOR",
        ),
        "amazonq": EndpointProfile(
            host="q",
            path="/",
            content_type=_RPC_JSON,
            target="AmazonQDeveloperStreamingService.SendMessage",
            origin="CLI",
            form="send_message",
        ),
        "codewhisperer": EndpointProfile(
            host="codewhisperer",
            path="/",
            content_type=_RPC_JSON,
            target="AmazonCodeWhispererStreamingService.GenerateAssistantResponse",
            origin="AI_EDITOR",
            form="rpc",
            regions=("us-east-1",),
        ),
    }
)
"""The endpoints that answer prompts, by their names in `KIRO_MCP_ENDPOINTS`."""

_PREFERENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "runtime": "runtime",
        "codewhisperer": "codewhisperer",
        "ide": "codewhisperer",
        "amazonq": "amazonq",
        "q": "amazonq",
        "cli": "amazonq",
    }
)
"""The endpoint for each preference that another program's credential store may state."""


def _rpc(operation: str) -> EndpointProfile:
    return EndpointProfile(
        host="management",
        path="/",
        content_type=_RPC_JSON,
        target=f"AmazonCodeWhispererService.{operation}",
        origin="KIRO_CLI",
        form="rpc",
    )


LIST_MODELS: Final = _rpc("ListAvailableModels")
USAGE_LIMITS: Final = _rpc("GetUsageLimits")
LIST_PROFILES: Final = _rpc("ListAvailableProfiles")
GET_PROFILE: Final = _rpc("GetProfile")
LIST_MODELS_REST: Final = EndpointProfile(
    host="management",
    path="/List-Available-Models",
    content_type=_JSON,
    method="GET",
    origin="AI_EDITOR",
)
"""The REST form, for users of the older endpoints."""


def endpoints_in_order(
    names: Sequence[str], *, preferred: str, region: str
) -> tuple[EndpointProfile, ...]:
    """Return the endpoints to try, the one that a credential prefers first.

    Args:
        names: Names of endpoints in the user's order. Unknown names are skipped.
        preferred: The preference of the credential's store, in the store's words. An unknown
            preference, or "", changes nothing.
        region: The region of the service. Endpoints outside of it are skipped.

    Raises:
        InvalidRequest: The region has none of these endpoints.
    """
    first = _PREFERENCES.get(preferred.strip().lower(), "")
    order = dict.fromkeys([first, *names])
    found = [profile for name in order if (profile := ENDPOINTS.get(name))]
    in_region = tuple(one for one in found if not one.regions or region in one.regions)
    if not in_region:
        raise InvalidRequest(
            f"The region {region!r} has none of the endpoints {', '.join(names)}.",
            next_step="Add `runtime` to KIRO_MCP_ENDPOINTS.",
        )
    return in_region


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The address of an endpoint, with settings and region applied."""

    url: str
    is_overridden: bool
    """Whether a setting replaces the service's own host."""


def destination(
    profile: EndpointProfile, *, region: str, overrides: Mapping[str, str]
) -> Destination:
    """Return the URL of an endpoint. An override replaces the host and keeps the path."""
    override = overrides.get(profile.host, "")
    base = override or _HOSTS[profile.host].format(region=region)
    return Destination(url=base + profile.path, is_overridden=bool(override))


def require_may_receive(target: Destination, token: AccessToken) -> None:
    """Allow any token for the service's own hosts, and an explicit token for an overridden host.

    Host names are compared as a whole, because anybody can get a name under amazonaws.com.

    Raises:
        SignInRequired: The token was found on this machine, and the host is not the service's.
    """
    parts = urlsplit(target.url)
    is_service = _is_service(f"{parts.scheme}://{parts.netloc}".lower())
    if is_service or (target.is_overridden and token.is_explicit):
        return
    raise SignInRequired(
        f"kiro-mcp does not send the credential that it found here to {parts.hostname!r}, because"
        " that is not a host of the service.",
        next_step="Set a credential for that host in KIRO_API_KEY or KIRO_ACCESS_TOKEN.",
    )


def _is_service(address: str) -> bool:
    for form in _HOSTS.values():
        before, _, after = form.partition("{region}")
        region = address.removeprefix(before).removesuffix(after)
        if is_region(region) and address == form.format(region=region):
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """Which attempt of which call a request is."""

    id: str
    """The same for all attempts of a call, so that the service recognizes repeated requests."""
    attempt: int = 1
    max_attempts: int = 1


def build_request(
    endpoint: EndpointProfile,
    token: AccessToken,
    settings: Settings,
    invocation: Invocation,
    query: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers of a request.

    Args:
        endpoint: The operation.
        token: The token to send.
        settings: All settings.
        invocation: Which attempt of which call it is.
        query: The members of the query.

    Raises:
        SignInRequired: This host may not receive the token.
    """
    target = destination(endpoint, region=token.region, overrides=settings.endpoint_overrides)
    require_may_receive(target, token)
    headers = {
        "Authorization": f"Bearer {token.value}",
        "Content-Type": endpoint.content_type,
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # Compression would delay frames to fill its blocks.
        "User-Agent": settings.user_agent or f"kiro-mcp/{__version__}",
        "amz-sdk-invocation-id": invocation.id,
        "amz-sdk-request": f"attempt={invocation.attempt}; max={invocation.max_attempts}",
        "x-amzn-codewhisperer-optout": "true",
    }
    if token.token_type:
        headers["TokenType"] = token.token_type
    if endpoint.target:
        headers["X-Amz-Target"] = endpoint.target
    if endpoint.host != "management" and endpoint.form == "rest":
        headers["x-amzn-kiro-agent-mode"] = AGENT_MODE  # Other forms send it in the body or never.
    if endpoint.host == "management" and token.profile_arn:
        headers["x-amzn-kiro-profile-arn"] = token.profile_arn
    if added := settings.headers_to_add:
        replaced = {name.lower() for name in added}
        headers = {name: it for name, it in headers.items() if name.lower() not in replaced} | added
    return (f"{target.url}?{urlencode(query)}" if query else target.url), headers
