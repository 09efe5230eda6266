"""The vendor's hosts, the service's endpoints as data, and the URL and headers of a request.

Only this module decides which host may receive a secret, and which headers a request has.

Sources: captures of the official command line client (2.15.2, 2026-07), the vendor's list of
hosts for firewalls, and the vendor's open source clients for the older hosts. Five endpoints
answer prompts; the host `management` returns models, usage and profiles; `oidc` (AWS) and `auth`
(Kiro) make and renew logins::

    endpoint       host                            form                      origin
    runtime        runtime.{region}.kiro.dev       REST                      KIRO_CLI
    kas            runtime.{region}.kiro.dev       RPC of Kiro's own service AI_EDITOR
    q              q.{region}.amazonaws.com        REST                      AI_EDITOR
    amazonq        q.{region}.amazonaws.com        RPC SendMessage           CLI
    codewhisperer  codewhisperer.us-east-1...      RPC Generate...           AI_EDITOR

Host, path, form and origin must fit together, or the service answers 403. So each endpoint is one
`EndpointProfile`. `kas` is the form of the vendor's programs since 2026-10 (captures of the command
line client 2.22 to 2.23.1).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit

from kiro_mcp._version import __version__
from kiro_mcp.chat import AccessToken
from kiro_mcp.errors import InvalidRequest, SignInRequired, quoted
from kiro_mcp.regions import REGION_FORM, is_region
from kiro_mcp.settings import Settings
from kiro_mcp.wire.request import WireForm

HostName = Literal["runtime", "management", "q", "codewhisperer", "oidc", "auth"]

_HOSTS: dict[HostName, str] = {
    "runtime": "https://runtime.{region}.kiro.dev",
    "management": "https://management.{region}.kiro.dev",
    "q": "https://q.{region}.amazonaws.com",
    "codewhisperer": "https://codewhisperer.{region}.amazonaws.com",
    "oidc": "https://oidc.{region}.amazonaws.com",
    "auth": "https://prod.{region}.auth.desktop.kiro.dev",
}
_OWN_HOST: Final = re.compile(
    "|".join(re.escape(url).replace(r"\{region\}", REGION_FORM) for url in _HOSTS.values())
)

AGENT_MODE: Final = "vibe"

BUILDER_ID_PROFILE_ARN: Final = "arn:aws:codewhisperer:us-east-1:638616132270:profile/AAAACCCCXXXX"
"""Observed (2026-05): the profile that clients send for every Builder ID user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProfile:
    """One operation of the service at one host: the parts of its request that must match."""

    host: HostName
    path: str = "/"
    method: Literal["POST", "GET"] = "POST"
    """With GET, the operation's members are in the query."""
    target: str = ""
    """The header `X-Amz-Target` of the RPC form; "" for the REST form, which uses the path."""
    origin: str
    """The program that the request names as its origin, in body or query; "" for none."""
    form: WireForm = "rest"
    """Which members the body of a prompt may have, and where the agent mode goes."""
    regions: tuple[str, ...] = ()
    """The regions that have this endpoint; () for all."""


_GENERATE: Final = "/generateAssistantResponse"

ENDPOINTS: Final[Mapping[str, EndpointProfile]] = {
    "runtime": EndpointProfile(host="runtime", path=_GENERATE, origin="KIRO_CLI"),
    "kas": EndpointProfile(
        host="runtime",
        target="KiroRuntimeService.GenerateAssistantResponse",
        origin="AI_EDITOR",
        form="kas",
    ),
    "q": EndpointProfile(host="q", path=_GENERATE, origin="AI_EDITOR"),
    "amazonq": EndpointProfile(
        host="q",
        target="AmazonQDeveloperStreamingService.SendMessage",
        origin="CLI",
        form="send_message",
    ),
    "codewhisperer": EndpointProfile(
        host="codewhisperer",
        target="AmazonCodeWhispererStreamingService.GenerateAssistantResponse",
        origin="AI_EDITOR",
        form="rpc",
        regions=("us-east-1",),
    ),
}
"""The endpoints that answer prompts, by their names in `KIRO_MCP_ENDPOINTS`."""

_PREFERENCES: Final = {
    "runtime": "runtime",
    "codewhisperer": "codewhisperer",
    "ide": "codewhisperer",
    "amazonq": "amazonq",
    "q": "amazonq",
    "cli": "amazonq",
}
"""The endpoint for each preference that another program's credential store may state."""


def _rpc(operation: str, origin: str = "KIRO_CLI") -> EndpointProfile:
    target = f"AmazonCodeWhispererService.{operation}"
    return EndpointProfile(host="management", target=target, origin=origin, form="rpc")


LIST_MODELS: Final = _rpc("ListAvailableModels")
USAGE_LIMITS: Final = _rpc("GetUsageLimits")
LIST_PROFILES: Final = _rpc("ListAvailableProfiles", origin="")
GET_PROFILE: Final = _rpc("GetProfile", origin="")
LIST_MODELS_REST: Final = EndpointProfile(
    host="management", path="/List-Available-Models", method="GET", origin="AI_EDITOR"
)
"""The REST form, for users of the older endpoints."""
LIST_MODELS_KAS: Final = EndpointProfile(
    host="management",
    target="KiroControlPlaneBearerService.ListAvailableModels",
    origin="AI_EDITOR",
    form="kas",
)

NEWER_FORMS: Final[Mapping[EndpointProfile, EndpointProfile]] = {
    ENDPOINTS["runtime"]: ENDPOINTS["kas"],
    LIST_MODELS: LIST_MODELS_KAS,
}
"""The same operations in the vendor's newer form."""


def list_models_beside(endpoint_name: str) -> EndpointProfile:
    """Return the endpoint that lists models for the users of an endpoint that answers prompts."""
    return {"runtime": LIST_MODELS, "kas": LIST_MODELS_KAS}.get(endpoint_name, LIST_MODELS_REST)


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


def service_url(host: HostName, path: str, *, region: str, overrides: Mapping[str, str]) -> str:
    """Return the URL of a path at a host. An override replaces the host and keeps the path.

    Raises:
        InvalidRequest: The region, which becomes part of a host name, is not an AWS region.
    """
    if not is_region(region):
        raise InvalidRequest(
            f"{quoted(region)} is not an AWS region.", next_step="Use one such as us-east-1."
        )
    return (overrides.get(host) or _HOSTS[host].format(region=region)) + path


def require_may_send(url: str, what: str, *, is_explicit: bool) -> None:
    """Allow any secret for the vendor's own hosts, and an explicit one for any other host.

    Host names are compared as a whole, because anybody can get a name under amazonaws.com. A secret
    is explicit if the user named it for this run. `what` names it in the error.

    Raises:
        SignInRequired: The secret was found on this machine, and the host is not the vendor's.
    """
    parts = urlsplit(url)
    if is_explicit or _OWN_HOST.fullmatch(f"{parts.scheme}://{parts.netloc}".lower()):
        return
    raise SignInRequired(
        f"kiro-mcp does not send {what} to {parts.hostname!r}, because a setting put that host in"
        " the place of the vendor's.",
        next_step="Sign in at that host (`kiro-mcp login`), set a credential for it in KIRO_API_KEY"
        " or KIRO_ACCESS_TOKEN, or remove the setting.",
    )


def build_request(
    endpoint: EndpointProfile,
    token: AccessToken,
    settings: Settings,
    *,
    call_id: str,
    attempt: int = 1,
    max_attempts: int = 1,
    query: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers of a request.

    All attempts of a call have the same id, so that the service recognizes repetitions.

    Raises:
        SignInRequired: This host may not receive the token.
        InvalidRequest: The token's region is not a region.
    """
    url = service_url(
        endpoint.host, endpoint.path, region=token.region, overrides=settings.endpoint_overrides
    )
    require_may_send(url, "the credential that it found here", is_explicit=token.is_explicit)
    headers = {
        "Authorization": f"Bearer {token.value}",
        "Content-Type": "application/x-amz-json-1.0" if endpoint.target else "application/json",
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # Compression would delay frames to fill its blocks.
        "User-Agent": settings.user_agent or f"kiro-mcp/{__version__}",
        "amz-sdk-invocation-id": call_id,
        "amz-sdk-request": f"attempt={attempt}; max={max_attempts}",
        "x-amzn-codewhisperer-optout": "true",
    }
    if endpoint.form == "kas":
        headers["x-amzn-kiro-client-attribution"] = "unrecognized"  # As captured.
        headers["x-kiro-attempt"] = f"{attempt};max={max_attempts}"
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
    return (f"{url}?{urlencode(query)}" if query else url), headers
