"""Where sign-in requests may go, and which pages a person may be sent to."""

from dataclasses import replace

import pytest

from kiro_mcp.auth.hosts import (
    checked_start_url,
    idp_token_endpoint,
    is_sign_in_page,
    require_may_send,
    sign_in_address,
)
from kiro_mcp.auth.tokens import Credential
from kiro_mcp.errors import InvalidRequest, SignInRequired
from tests.support.logins import IDC_START_URL, idc_credential


def test_each_service_has_its_host_in_the_logins_own_region() -> None:
    """The published endpoints of AWS SSO OIDC; observed for Kiro's own."""
    oidc = sign_in_address("oidc", "/token", region="eu-west-2", overrides={})
    auth = sign_in_address("auth", "/refreshToken", region="us-east-1", overrides={})
    assert oidc.url == "https://oidc.eu-west-2.amazonaws.com/token"
    assert auth.url == "https://prod.us-east-1.auth.desktop.kiro.dev/refreshToken"


@pytest.mark.parametrize("region", ["us-east-1/../x", "evil.example#", "", "us-east-1.evil", "US"])
def test_a_region_that_is_none_never_becomes_part_of_a_host(region: str) -> None:
    """Ours: the region is read from files that others write."""
    with pytest.raises(InvalidRequest, match="region"):
        sign_in_address("oidc", "/token", region=region, overrides={})


def test_a_found_refresh_token_never_goes_to_an_overridden_host() -> None:
    """Ours: a setting in a project's folder must not send a login elsewhere."""
    overrides = {"oidc": "https://evil.example"}
    address = sign_in_address("oidc", "/token", region="us-east-1", overrides=overrides)
    found = replace(idc_credential(), is_explicit=False)
    with pytest.raises(SignInRequired, match=r"evil\.example"):
        require_may_send(address, found)
    require_may_send(address, replace(found, is_explicit=True))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://device.sso.us-east-1.amazonaws.com/?user_code=A", True),
        ("https://view.awsapps.com/start/#/device?user_code=A", True),
        ("https://app.kiro.dev/account/device", True),
        ("https://kiro.auth.us-east-1.amazoncognito.com/x", True),
        ("https://kiro.dev.evil.example/", False),
        ("https://evilkiro.dev/", False),
        ("http://app.kiro.dev/", False),
        ("https://user@app.kiro.dev/", False),
        ("https://app.kiro.dev@evil.example/", False),
        ("https://app.kiro.dev:8443/", False),
        ("https://127.0.0.1/", False),
        ("javascript:alert(1)", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_a_person_is_sent_to_the_vendors_pages_only(url: str, expected: bool) -> None:
    """Ours: the answer of an overridden host must not lead anywhere it likes."""
    assert is_sign_in_page(url) is expected


def test_a_page_may_be_on_the_host_where_the_user_said_to_start() -> None:
    """Ours: an organisation may have a portal of its own."""
    assert is_sign_in_page("https://sso.acme.example/device", "https://sso.acme.example/start")
    assert not is_sign_in_page("https://evil.example/", "https://sso.acme.example/start")


def test_a_start_url_is_trimmed_and_must_be_https() -> None:
    """Observed: portals show it with `/#` at its end."""
    assert checked_start_url(f" {IDC_START_URL}/# ") == IDC_START_URL
    for wrong in ("acme", "http://acme.awsapps.com/start", "https://10.0.0.1/", "https://intranet"):
        with pytest.raises(InvalidRequest, match="https"):
            checked_start_url(wrong)


ENTRA = "https://login.microsoftonline.com/tenant"


@pytest.mark.parametrize(
    ("endpoint", "issuer", "expected"),
    [
        (f"{ENTRA}/oauth2/v2.0/token", f"{ENTRA}/v2.0", f"{ENTRA}/oauth2/v2.0/token"),
        ("", f"{ENTRA}/v2.0", f"{ENTRA}/oauth2/v2.0/token"),
        (
            "",
            "https://acme.okta.com/oauth2/default",
            "https://acme.okta.com/oauth2/default/v1/token",
        ),
        ("", "https://acme.okta.com", "https://acme.okta.com/v1/token"),
        ("https://idp.acme.example/t", "https://idp.acme.example", "https://idp.acme.example/t"),
        ("", f"{ENTRA}/v2.0/", f"{ENTRA}/oauth2/v2.0/token"),
        ("https://evil.example/t", "https://acme.okta.com", ""),
        ("http://acme.okta.com/t", "", ""),
        ("https://169.254.169.254/t", "https://169.254.169.254", ""),
        ("https://localhost/t", "https://localhost", ""),
        ("https://idp.acme.example:8443/t", "https://idp.acme.example:8443", ""),
        ("https://user:word@acme.okta.com/t", "", ""),
        ("https://acme.okta.com.evil.example/t", "", ""),
        ("", "https://idp.acme.example", ""),
        ("", "", ""),
    ],
)
def test_an_organisations_token_endpoint_must_be_known_or_the_issuers(
    endpoint: str, issuer: str, expected: str
) -> None:
    """Ours: the endpoint is read from a file that others write, and a refresh token goes there."""
    one = Credential(
        kind="external_idp", token_endpoint=endpoint, issuer_url=issuer, source="a test"
    )
    assert idp_token_endpoint(one) == expected
