"""Where the service is, as data: hosts, paths and headers, and who may be sent a bearer.

Sources: captures of the official command line client (2.15.2, 2026-07), the vendor's list of
hosts for firewalls, and the vendor's open source clients for the older hosts. Four endpoints
answer prompts; `management` tells of models and usage::

    endpoint       host                            form                      origin
    runtime        runtime.{region}.kiro.dev       REST                      KIRO_CLI
    q              q.{region}.amazonaws.com        REST                      AI_EDITOR
    amazonq        q.{region}.amazonaws.com        RPC SendMessage           CLI
    codewhisperer  codewhisperer.us-east-1...      RPC Generate...           AI_EDITOR

What an endpoint fixes must agree, or the service answers 403; so each is one value here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

from kiro_mcp.chat import AccessToken
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.regions import is_region
from kiro_mcp.wire.request import WireForm

HostName = Literal["runtime", "management", "q", "codewhisperer"]

_HOSTS: dict[HostName, str] = {
    "runtime": "https://runtime.{region}.kiro.dev",
    "management": "https://management.{region}.kiro.dev",
    "q": "https://q.{region}.amazonaws.com",
    "codewhisperer": "https://codewhisperer.{region}.amazonaws.com",
}

_JSON: Final = "application/json"
_RPC_JSON: Final = "application/x-amz-json-1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProfile:
    """One operation of the service at one host: the parts of its request that must agree."""

    host: HostName
    path: str
    content_type: str
    method: Literal["POST", "GET"] = "POST"
    """In the form with GET, the operation's members are in the query."""
    target: str = ""
    """The `X-Amz-Target` of the RPC form; "" for the REST form, which names it in the path."""
    origin: str
    """What the body, and the query string, say the request comes from."""
    form: WireForm = "rest"
    """What the body of a prompt may carry here, and where the agent's mode goes."""
    regions: tuple[str, ...] = ()
    """The only regions that have it; () for all."""


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
"""The endpoints that answer prompts, by the names that `KIRO_MCP_ENDPOINTS` takes."""

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
"""What the stores of other programs call the endpoint that they prefer."""


def _rpc(operation: str) -> EndpointProfile:
    return EndpointProfile(
        host="management",
        path="/",
        content_type=_RPC_JSON,
        target=f"AmazonCodeWhispererService.{operation}",
        origin="KIRO_CLI",
        form="rpc",
    )


def _rest(path: str) -> EndpointProfile:
    return EndpointProfile(
        host="management", path=path, content_type=_JSON, method="GET", origin="AI_EDITOR"
    )


LIST_MODELS: Final = _rpc("ListAvailableModels")
USAGE_LIMITS: Final = _rpc("GetUsageLimits")
LIST_PROFILES: Final = _rpc("ListAvailableProfiles")
GET_PROFILE: Final = _rpc("GetProfile")
LIST_MODELS_REST: Final = _rest("/List-Available-Models")
USAGE_LIMITS_REST: Final = _rest("/Get-Usage-Limits")


def endpoints_in_order(
    names: Sequence[str], *, preferred: str, region: str
) -> tuple[EndpointProfile, ...]:
    """Return the endpoints to try, the one that a credential prefers first.

    Args:
        names: Names of endpoints in the user's order; unknown ones are left out.
        preferred: What the credential's store prefers, in its own words; an unknown one, or "",
            changes nothing.
        region: The region of the service; endpoints that are not there are left out.

    Raises:
        InvalidRequest: None of them is in the region.
    """
    first = _PREFERENCES.get(preferred.strip().lower(), "")
    order = dict.fromkeys([first, *names])
    found = [profile for name in order if (profile := ENDPOINTS.get(name))]
    there = tuple(one for one in found if not one.regions or region in one.regions)
    if not there:
        raise InvalidRequest(
            f"None of the endpoints {', '.join(names)} is in the region {region!r}.",
            next_step="Add `runtime` to KIRO_MCP_ENDPOINTS.",
        )
    return there


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
    """Let a token go to the service's own hosts; to an overridden host only if given for this run.

    Hosts are compared whole: anybody can rent a name under amazonaws.com.

    Raises:
        SignInRequired: The token was found on this machine, and the host is not the service's.
    """
    parts = urlsplit(target.url)
    is_service = _is_service(f"{parts.scheme}://{parts.netloc}".lower())
    if is_service or (target.is_overridden and token.is_explicit):
        return
    raise SignInRequired(
        f"The credential that was found here is not sent to {parts.hostname!r}, which is not a"
        " host of the service.",
        next_step="Give one for that host on purpose, in KIRO_API_KEY or KIRO_ACCESS_TOKEN.",
    )


def _is_service(address: str) -> bool:
    for form in _HOSTS.values():
        before, _, after = form.partition("{region}")
        region = address.removeprefix(before).removesuffix(after)
        if is_region(region) and address == form.format(region=region):
            return True
    return False


def with_headers(headers: dict[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Add headers; one that is there already, in whatever case, is replaced."""
    if not added:
        return headers
    replaced = {name.lower() for name in added}
    kept = {name: value for name, value in headers.items() if name.lower() not in replaced}
    return {**kept, **added}
