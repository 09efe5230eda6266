"""Where requests go, and which hosts may receive a secret."""

import pytest

from kiro_mcp.chat import AccessToken
from kiro_mcp.client.endpoints import (
    ENDPOINTS,
    HostName,
    build_request,
    endpoints_in_order,
    require_may_send,
    service_url,
)
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.settings import ENDPOINT_NAMES, Settings

TOKEN = AccessToken(value="found", region="us-east-1")


@pytest.mark.parametrize("region", ["eu-central-1", "us-gov-west-1", "us-gov-east-1"])
def test_each_host_has_its_own_name_in_each_region(region: str) -> None:
    """The vendor's list of hosts, the published endpoints of AWS SSO OIDC, and observation."""
    hosts: tuple[tuple[HostName, str], ...] = (
        ("runtime", f"runtime.{region}.kiro.dev"),
        ("management", f"management.{region}.kiro.dev"),
        ("q", f"q.{region}.amazonaws.com"),
        ("oidc", f"oidc.{region}.amazonaws.com"),
        ("auth", f"prod.{region}.auth.desktop.kiro.dev"),
    )
    for host, name in hosts:
        url = service_url(host, "/a", region=region, overrides={"management": ""})
        assert url == f"https://{name}/a"
        require_may_send(url, "a secret", is_explicit=False)


def test_an_override_replaces_the_host_and_keeps_the_path() -> None:
    """The path names the operation."""
    overrides = {"runtime": "http://[::1]:9"}
    url = service_url("runtime", "/a", region="us-east-1", overrides=overrides)
    assert url == "http://[::1]:9/a"


@pytest.mark.parametrize(
    "region",
    [
        "us-east-1/../x",
        "evil.example#",
        "",
        "us-east-1.evil",
        "US",
        "us-east-\u0661",
        "us-east-1\n",
        "zz-evil-1",
        "us-evil-1",
    ],
)
def test_text_that_is_not_a_region_never_becomes_part_of_a_host(region: str) -> None:
    """The region is read from files that others write."""
    with pytest.raises(InvalidRequest, match="region"):
        service_url("oidc", "/token", region=region, overrides={})


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "https://kiro.dev.evil.example/",
        "https://evilkiro.dev/",
        "http://runtime.us-east-1.kiro.dev/",
        "https://x.execute-api.us-east-1.amazonaws.com/",
        "https://q.s3.amazonaws.com/",
        "https://q.evil-1.amazonaws.com/",
        "https://q.us-east-\u0661.amazonaws.com/",
        "https://q.us-east-1.kiro.dev/",
        "https://evil.kiro.dev/",
        "https://runtime.us-east-1.kiro.dev:8443/",
        "https://runtime.us-east-1.kiro.dev@evil.example/",
        "https://runtime.us-east-1.kiro.dev\\.evil.example/",
    ],
)
def test_another_host_receives_only_a_secret_that_the_user_named(url: str) -> None:
    """A found credential stays with its service. A user who sets host and secret means it."""
    with pytest.raises(SignInRequired, match="does not send a secret"):
        require_may_send(url, "a secret", is_explicit=False)
    require_may_send(url, "a secret", is_explicit=True)


def test_the_setting_names_every_endpoint() -> None:
    """Settings cannot know the transport."""
    assert tuple(ENDPOINTS) == ENDPOINT_NAMES


@pytest.mark.parametrize(
    ("name", "url", "target", "origin", "content_type"),
    [
        (
            "runtime",
            "https://runtime.us-east-1.kiro.dev/generateAssistantResponse",
            "",
            "KIRO_CLI",
            "application/json",
        ),
        (
            "kas",
            "https://runtime.us-east-1.kiro.dev/",
            "KiroRuntimeService.GenerateAssistantResponse",
            "AI_EDITOR",
            "application/x-amz-json-1.0",
        ),
        (
            "q",
            "https://q.us-east-1.amazonaws.com/generateAssistantResponse",
            "",
            "AI_EDITOR",
            "application/json",
        ),
        (
            "amazonq",
            "https://q.us-east-1.amazonaws.com/",
            "AmazonQDeveloperStreamingService.SendMessage",
            "CLI",
            "application/x-amz-json-1.0",
        ),
        (
            "codewhisperer",
            "https://codewhisperer.us-east-1.amazonaws.com/",
            "AmazonCodeWhispererStreamingService.GenerateAssistantResponse",
            "AI_EDITOR",
            "application/x-amz-json-1.0",
        ),
    ],
)
def test_each_endpoint_has_the_host_target_origin_and_type_that_fit_together(
    name: str, url: str, target: str, origin: str, content_type: str
) -> None:
    """Observed: a mismatch is answered with 403."""
    endpoint = ENDPOINTS[name]
    sent_to, headers = build_request(endpoint, TOKEN, Settings.load({}), call_id="id")
    assert (sent_to, endpoint.origin) == (url, origin)
    assert (headers.get("X-Amz-Target", ""), headers["Content-Type"]) == (target, content_type)


ALL = ("runtime", "q", "amazonq", "codewhisperer")


@pytest.mark.parametrize(
    ("names", "preferred", "order"),
    [
        (("runtime",), "", ("runtime",)),
        (("q", "runtime"), "", ("q", "runtime")),
        (ALL, " CodeWhisperer ", ("codewhisperer", "runtime", "q", "amazonq")),
        (ALL, "ide", ("codewhisperer", "runtime", "q", "amazonq")),
        (ALL, "AmazonQ", ("amazonq", "runtime", "q", "codewhisperer")),
        (ALL, "q", ("amazonq", "runtime", "q", "codewhisperer")),
        (ALL, "cli", ("amazonq", "runtime", "q", "codewhisperer")),
        (ALL, "elsewhere", ALL),
        (("runtime",), "cli", ("amazonq", "runtime")),
    ],
)
def test_the_endpoint_that_a_credential_prefers_comes_before_those_in_the_users_order(
    names: tuple[str, ...], preferred: str, order: tuple[str, ...]
) -> None:
    """The words are those of other programs' stores."""
    found = endpoints_in_order(names, preferred=preferred, region="us-east-1")
    assert found == tuple(ENDPOINTS[name] for name in order)


def test_an_endpoint_that_is_not_in_the_region_is_left_out() -> None:
    """The vendor's list of hosts: codewhisperer is in one region only."""
    found = endpoints_in_order(ALL, preferred="ide", region="eu-central-1")
    assert ENDPOINTS["codewhisperer"] not in found
    with pytest.raises(InvalidRequest, match="eu-central-1"):
        endpoints_in_order(("codewhisperer",), preferred="", region="eu-central-1")
