"""What a request needs from each kind of credential."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kiro_mcp.auth.credentials import (
    BUILDER_ID_PROFILE_ARN,
    SOCIAL_PROFILE_ARN,
    ClientRegistration,
    Credential,
    CredentialKind,
    as_access_token,
    jwt_expiry,
    known_profile,
)
from kiro_mcp.auth.oidc import refresh_request
from kiro_mcp.chat import TokenType

ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"


def credential(kind: CredentialKind, **members: str) -> Credential:
    return Credential(kind=kind, access_token="aoa-secret", source="a test", **members)  # pyright: ignore[reportArgumentType]  # only texts are passed


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("api_key", "API_KEY"),
        ("external_idp", "EXTERNAL_IDP"),
        ("social", ""),
        ("builder_id", ""),
        ("idc", ""),
        ("access_token", ""),
    ],
)
def test_each_kind_of_credential_is_sent_with_its_header(
    kind: CredentialKind, header: TokenType
) -> None:
    """Observed: without it the service calls a good bearer invalid."""
    assert as_access_token(credential(kind)).token_type == header


@pytest.mark.parametrize(
    ("kind", "members", "expected"),
    [
        ("idc", {"refresh_token": "aor"}, True),
        ("social", {"refresh_token": "aor"}, True),
        ("idc", {"refresh_token": ""}, False),
        ("idc", {"refresh_token": "aor", "problem": "its client is gone"}, False),
        ("api_key", {"refresh_token": "aor"}, False),
    ],
)
def test_a_credential_says_whether_it_has_everything_that_a_refresh_needs(
    kind: CredentialKind, members: dict[str, str], expected: bool
) -> None:
    """An API key is never refreshed, even if there is a refresh token."""
    assert credential(kind, **members).can_refresh() is expected


def test_a_token_and_a_client_have_expired_at_their_stated_end() -> None:
    """RFC 7519, section 4.1.4: on or after it, they are not taken."""
    ends = datetime(2026, 11, 1, tzinfo=UTC)
    before, after = ends - timedelta(microseconds=1), ends + timedelta(microseconds=1)
    token = replace(credential("idc"), expires_at=ends)
    assert [token.is_usable(now) for now in (before, ends, after)] == [True, False, False]
    client = ClientRegistration(client_id="c", expires_at=ends)
    assert [client.has_expired(now) for now in (before, ends, after)] == [False, True, True]
    assert credential("idc").is_usable(after)
    assert not replace(credential("idc"), access_token="").is_usable(before)
    assert not ClientRegistration(client_id="c").has_expired(after)


def test_an_api_key_is_sent_without_a_profile_whatever_is_set() -> None:
    """Observed: with another identity's profile the service answers 403."""
    key = credential("api_key", profile_arn=ARN)
    assert known_profile(key, ARN) == ""
    token = as_access_token(key, profile_arn=ARN)
    assert (token.profile_arn, token.region) == ("", "eu-central-1")


@pytest.mark.parametrize(
    ("kind", "own", "chosen", "expected"),
    [
        ("idc", "", "", ""),
        ("idc", ARN, "", ARN),
        ("idc", "", ARN, ARN),
        ("builder_id", "", "", BUILDER_ID_PROFILE_ARN),
        ("builder_id", ARN, "", ARN),
        ("social", "", "", SOCIAL_PROFILE_ARN),
        ("social", ARN, "", ARN),
        ("access_token", "", "", ""),
        ("external_idp", "", "", ""),
    ],
)
def test_the_profile_is_the_users_choice_or_the_logins_or_the_shared_one(
    kind: CredentialKind, own: str, chosen: str, expected: str
) -> None:
    """Observed: each kind of identity gets its profile in a different way."""
    assert known_profile(credential(kind, profile_arn=own), chosen) == expected


def test_the_region_of_the_service_is_the_profiles_and_never_the_logins() -> None:
    """Observed: a region other than the profile's gives "Improperly formed request"."""
    one = credential("idc", region="ap-southeast-2")
    assert as_access_token(one, profile_arn=ARN).region == "eu-central-1"
    assert as_access_token(one, profile_arn=ARN, api_region="us-east-1").region == "us-east-1"
    assert as_access_token(one).region == "us-east-1"


def test_a_secret_does_not_show_when_its_credential_is_printed() -> None:
    """Values end up in logs."""
    one = credential("idc", refresh_token="aor-secret")
    assert "secret" not in repr(one)
    assert "secret" not in repr(as_access_token(one))
    assert "secret" not in repr(refresh_request(one, {}))


def _jwt(payload: object) -> str:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    middle = base64.urlsafe_b64encode(text.encode()).decode()
    return f"eyJhbGciOiJub25lIn0.{middle.rstrip('=')}.sig"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (_jwt({"exp": 1_800_000_000}), datetime(2027, 1, 15, 8, tzinfo=UTC)),
        (_jwt({"exp": "soon"}), None),
        (_jwt({"exp": True}), None),
        (_jwt({"exp": 10**30}), None),
        (_jwt({}), None),
        (_jwt(["exp"]), None),
        (_jwt("["), None),
        (_jwt("[" * 100_000), None),
        ("aoaAAA:sig", None),
        ("a.%%%.c", None),
        ("a.e30.c", None),
    ],
)
def test_only_a_jwt_contains_its_own_expiry(token: str, expected: datetime | None) -> None:
    """RFC 7519, section 4.1.4; padding may be left out."""
    assert jwt_expiry(token) == expected
