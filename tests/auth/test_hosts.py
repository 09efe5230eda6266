"""Which pages a person may be sent to, and which token endpoints are trusted."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.auth.credentials import ClientRegistration, Credential
from kiro_mcp.auth.hosts import (
    idp_token_endpoint,
    is_sign_in_page,
    read_start_url,
)
from kiro_mcp.auth.oidc import plan_login, read_authorization_answer
from kiro_mcp.errors import InvalidRequest, ServiceUnavailable
from tests.support.logins import IDC_START_URL

PAGES = (
    "https://device.sso.us-east-1.amazonaws.com/?user_code=A",
    "https://device.sso.us-gov-west-1.amazonaws.com:443/",
    "https://view.awsapps.com/start/#/device?user_code=A",
    "https://app.kiro.dev/account/device",
    "HTTPS://App.Kiro.dev?user_code=A%2FB",
    "https://kiro.dev",
)
OTHER_PAGES = (
    # Names that anybody can rent.
    "https://evil.awsapps.com/start",
    "https://evil.auth.us-east-1.amazoncognito.com/login",
    "https://evil.s3.amazonaws.com/",
    "https://x.execute-api.us-east-1.amazonaws.com/device",
    "https://device.sso.evil.amazonaws.com/",
    "https://device.sso.us-east-1.amazonaws.com.evil.example/",
    "https://evilkiro.dev/",
    "https://kiro.dev.evil.example/",
    # What a browser reads in another way than it looks.
    "https://evil.example\\.kiro.dev/device",
    "https://evil.example%2f.kiro.dev/",
    "https://evil.example%00.kiro.dev/",
    "https://evil.example/.kiro.dev",
    "https://evil.example?.kiro.dev",
    "https://evil.example#.kiro.dev",
    "https:/app.kiro.dev/",
    "https:\\\\app.kiro.dev/",
    "https://\u2025kiro.dev/",
    "https://app\u3002kiro.dev/",
    "https://\uff41pp.kiro.dev/",
    "https://.kiro.dev/",
    "https://app..kiro.dev/",
    "https://app.kiro.dev./",
    "https://app_.kiro.dev/",
    # What a terminal or a header would obey.
    "https://app.kiro.dev/ x",
    "https://app.kiro.dev/\r\nSet-Cookie: a",
    "https://app.kiro.dev/\n",
    "https://app.kiro.dev\t/",
    "https://app.kiro.dev/\x1b]52;c;eA==\x07",
    "https://app.kiro.dev/\x7f",
    "https://app.kiro.dev/\u202e",
    " https://app.kiro.dev/",
    # No plain https.
    "http://app.kiro.dev/",
    "https://user@app.kiro.dev/",
    "https://app.kiro.dev@evil.example/",
    "https://app.kiro.dev:8443/",
    "https://app.kiro.dev:/",
    "https://127.0.0.1/",
    "https://0x7f.1/",
    "https://2130706433/",
    "javascript:alert(1)",
    "https://[::1",
    "https://[::1]/",
    "https://localhost/",
    "",
)


@pytest.mark.parametrize("url", PAGES)
def test_a_person_is_sent_to_the_vendors_pages(url: str) -> None:
    assert is_sign_in_page(url)


@pytest.mark.parametrize("url", OTHER_PAGES)
def test_a_person_is_sent_to_no_other_page(url: str) -> None:
    """An overridden host must not be able to send people to any page."""
    assert not is_sign_in_page(url)
    assert not is_sign_in_page(url, "https://sso.acme.example/start")


@given(
    before=st.text(st.characters(), max_size=6),
    between=st.text(st.characters(), max_size=6),
    after=st.text(st.characters(), max_size=6),
)
def test_an_accepted_url_has_the_same_host_in_every_parser(
    before: str, between: str, after: str
) -> None:
    url = f"https://{before}kiro.dev{between}kiro.dev{after}"
    if is_sign_in_page(url):
        assert url.isascii()
        host = url.removeprefix("https://").replace("?", "/").replace("#", "/").partition("/")[0]
        host = host.removesuffix(":443").lower()
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert host == "kiro.dev" or host.endswith(".kiro.dev")


def test_a_page_may_be_on_the_host_of_the_start_url() -> None:
    """An organisation may have a portal of its own."""
    assert is_sign_in_page("https://sso.acme.example/device", "https://sso.acme.example/start")
    assert is_sign_in_page("https://acme.awsapps.com/start/#/device", IDC_START_URL)
    assert not is_sign_in_page("https://evil.example/", "https://sso.acme.example/start")
    assert not is_sign_in_page("https://other.awsapps.com/start/#/device", IDC_START_URL)


def test_only_aws_itself_may_name_another_portal_of_an_organisation() -> None:
    """A portal may have several names, and a replacement for AWS may use any of them."""
    page = "https://d-9067.awsapps.com/start/#/device"
    start = "https://identitycenter.amazonaws.com/ssoins-1"
    answer = {"deviceCode": "d", "userCode": "U", "verificationUri": page}
    client = ClientRegistration(client_id="c", client_secret="s")
    now = datetime(2026, 11, 1, tzinfo=UTC)
    for overrides in ({}, {"oidc": "https://elsewhere.example"}):
        plan = plan_login("idc", start_url=start, region="", overrides=overrides)
        if overrides:
            with pytest.raises(ServiceUnavailable, match="Do not open it"):
                read_authorization_answer(plan, client, 200, answer, now)
        else:
            login = read_authorization_answer(plan, client, 200, answer, now)
            assert login.verification_url == page


def test_a_start_url_is_trimmed_and_must_be_https() -> None:
    """Observed: portals show it with `/#` at its end."""
    assert read_start_url(f" {IDC_START_URL}/# ") == IDC_START_URL
    for wrong in ("acme", "http://acme.awsapps.com/start", "https://10.0.0.1/", "https://intranet"):
        with pytest.raises(InvalidRequest, match="https"):
            read_start_url(wrong)


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
    """The endpoint is read from a file that others write, and a refresh token goes there."""
    one = Credential(
        kind="external_idp", token_endpoint=endpoint, issuer_url=issuer, source="a test"
    )
    assert idp_token_endpoint(one) == expected
