"""Where requests go, and who is let have a bearer."""

import pytest

from kiro_mcp.chat import AccessToken
from kiro_mcp.client.endpoints import (
    ENDPOINTS,
    LIST_MODELS,
    Destination,
    destination,
    endpoints_in_order,
    require_may_receive,
)
from kiro_mcp.errors import InvalidRequest, SignInRequired
from kiro_mcp.setting_values import ENDPOINT_NAMES

FOUND = AccessToken(value="found", is_explicit=False)
GIVEN = AccessToken(value="given", is_explicit=True)


def test_each_operation_has_its_own_host_in_the_region() -> None:
    """The vendor's list of hosts."""
    answers = destination(ENDPOINTS["runtime"], region="eu-central-1", overrides={})
    lists = destination(LIST_MODELS, region="us-east-1", overrides={"management": ""})
    assert answers.url == "https://runtime.eu-central-1.kiro.dev/generateAssistantResponse"
    assert lists.url == "https://management.us-east-1.kiro.dev/"
    assert not answers.is_overridden


@pytest.mark.parametrize("region", ["us-gov-west-1", "us-gov-east-1"])
def test_govcloud_has_hosts_of_its_own(region: str) -> None:
    for profile, host in (
        (ENDPOINTS["runtime"], f"runtime.{region}.kiro.dev"),
        (LIST_MODELS, f"management.{region}.kiro.dev"),
        (ENDPOINTS["q"], f"q.{region}.amazonaws.com"),
    ):
        target = destination(profile, region=region, overrides={})
        assert target.url == f"https://{host}{profile.path}"
        require_may_receive(target, FOUND)


def test_an_override_keeps_the_path() -> None:
    """The path tells the operation."""
    overridden = destination(
        ENDPOINTS["runtime"], region="us-east-1", overrides={"runtime": "http://[::1]:9"}
    )
    assert overridden.url == "http://[::1]:9/generateAssistantResponse"
    assert overridden.is_overridden


@pytest.mark.parametrize("token", [FOUND, GIVEN])
@pytest.mark.parametrize(
    "url",
    [
        "https://runtime.us-east-1.kiro.dev/x",
        "https://management.eu-central-1.kiro.dev/",
        "https://q.us-east-1.amazonaws.com/",
        "https://codewhisperer.us-east-1.amazonaws.com/",
    ],
)
def test_the_services_own_hosts_receive_any_bearer(url: str, token: AccessToken) -> None:
    require_may_receive(Destination(url=url, is_overridden=False), token)


def test_an_overridden_host_receives_a_bearer_that_was_given_on_purpose() -> None:
    """Whoever sets both means it."""
    require_may_receive(Destination(url="http://127.0.0.1:1/", is_overridden=True), GIVEN)


@pytest.mark.parametrize(
    ("url", "is_overridden", "token"),
    [
        ("http://127.0.0.1:1/", True, FOUND),
        ("https://kiro.dev.evil.example/", True, FOUND),
        ("https://evilkiro.dev/", True, FOUND),
        ("http://runtime.us-east-1.kiro.dev/", True, FOUND),
        ("https://x.execute-api.us-east-1.amazonaws.com/", True, FOUND),
        ("https://q.s3.amazonaws.com/", True, FOUND),
        ("https://q.evil-1.amazonaws.com/", True, FOUND),
        ("https://q.us-east-\u0661.amazonaws.com/", True, FOUND),
        ("https://q.us-east-1.kiro.dev/", True, FOUND),
        ("https://evil.kiro.dev/", True, FOUND),
        ("https://runtime.us-east-1.kiro.dev:8443/", True, FOUND),
        ("https://runtime.us-east-1.kiro.dev@evil.example/", True, FOUND),
        ("https://runtime.us-east-1.kiro.dev\\.evil.example/", True, FOUND),
        ("https://evil.example/", False, GIVEN),
    ],
)
def test_no_other_host_receives_a_bearer(url: str, is_overridden: bool, token: AccessToken) -> None:
    """A found credential belongs to where it was found."""
    with pytest.raises(SignInRequired, match="does not send"):
        require_may_receive(Destination(url=url, is_overridden=is_overridden), token)


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
def test_an_endpoint_fixes_what_must_agree(
    name: str, url: str, target: str, origin: str, content_type: str
) -> None:
    """Observed: a mismatch is answered with 403."""
    endpoint = ENDPOINTS[name]
    assert destination(endpoint, region="us-east-1", overrides={}).url == url
    found = (endpoint.target, endpoint.origin, endpoint.content_type)
    assert found == (target, origin, content_type)


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
def test_what_a_credential_prefers_comes_first_and_the_rest_in_the_users_order(
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
