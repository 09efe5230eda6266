"""Where requests go, and who is let have a bearer."""

import pytest

from kiro_mcp.errors import SignInRequired
from kiro_mcp.models import AccessToken
from kiro_mcp.transport.endpoints import (
    GENERATE,
    LIST_MODELS,
    Destination,
    destination,
    require_may_receive,
)

FOUND = AccessToken(value="found", is_explicit=False)
GIVEN = AccessToken(value="given", is_explicit=True)


def test_each_operation_has_its_own_host_in_the_region() -> None:
    """The vendor's list of hosts."""
    answers = destination(GENERATE, region="eu-central-1", overrides={})
    lists = destination(LIST_MODELS, region="us-east-1", overrides={"management": ""})
    assert answers.url == "https://runtime.eu-central-1.kiro.dev/generateAssistantResponse"
    assert lists.url == "https://management.us-east-1.kiro.dev/"
    assert not answers.is_overridden


def test_an_override_keeps_the_path() -> None:
    """Ours: the path tells the operation."""
    overridden = destination(GENERATE, region="us-east-1", overrides={"runtime": "http://[::1]:9"})
    assert overridden.url == "http://[::1]:9/generateAssistantResponse"
    assert overridden.is_overridden


@pytest.mark.parametrize("token", [FOUND, GIVEN])
@pytest.mark.parametrize(
    "url", ["https://runtime.us-east-1.kiro.dev/x", "https://q.us-east-1.amazonaws.com/"]
)
def test_the_services_own_hosts_receive_any_bearer(url: str, token: AccessToken) -> None:
    """Ours."""
    require_may_receive(Destination(url=url, is_overridden=False), token)


def test_an_overridden_host_receives_a_bearer_that_was_given_on_purpose() -> None:
    """Ours: whoever sets both means it."""
    require_may_receive(Destination(url="http://127.0.0.1:1/", is_overridden=True), GIVEN)


@pytest.mark.parametrize(
    ("url", "is_overridden", "token"),
    [
        ("http://127.0.0.1:1/", True, FOUND),
        ("https://kiro.dev.evil.example/", True, FOUND),
        ("https://evilkiro.dev/", True, FOUND),
        ("http://runtime.us-east-1.kiro.dev/", True, FOUND),
        ("https://evil.example/", False, GIVEN),
    ],
)
def test_no_other_host_receives_a_bearer(url: str, is_overridden: bool, token: AccessToken) -> None:
    """Ours: a found credential belongs to where it was found."""
    with pytest.raises(SignInRequired, match="not sent"):
        require_may_receive(Destination(url=url, is_overridden=is_overridden), token)
