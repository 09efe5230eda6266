"""Every spelling of a credential that is around, read."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kiro_mcp.auth.credentials import (
    BUILDER_ID_CLIENT_HASH,
    BUILDER_ID_START_URL,
    ClientRegistration,
    Credential,
    decode_refresh_token,
    format_time,
    merge_tokens,
    own_document,
    parse_object,
    read_credential,
    read_registration,
    read_time,
    registration_name,
)
from tests.support.logins import IDC_START_URL, idc_credential

PLACE = Credential(kind="access_token", source="a test", origin="file", path="/x")
TOKENS = {"accessToken": "aoa", "refreshToken": "aor", "expiresAt": "2026-01-01T00:00:00.000Z"}
CLIENT = {"clientId": "id", "clientSecret": "secret"}
_SOCIAL_WORDS = ("desktop", "social", "google", "github")


def read(document: dict[str, Any], registration: dict[str, Any] | None = None) -> Credential:
    client = read_registration(registration, is_all=True) if registration else None
    found = read_credential(document, PLACE, client)
    assert found
    return found


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"authMethod": "social", "provider": "Google"}, "social"),
        ({"authMethod": "social", **CLIENT}, "social"),
        ({"authMethod": "Social"}, "social"),
        *(({"authMethod": word, **CLIENT}, "social") for word in _SOCIAL_WORDS),
        ({"authMethod": "BuilderId", **CLIENT}, "builder_id"),
        ({"authMethod": "ApiKey"}, "api_key"),
        ({"authMethod": "IdC", "provider": "Enterprise", **CLIENT}, "idc"),
        ({"authMethod": "IdC", "provider": "Internal", "clientIdHash": "0" * 40}, "idc"),
        ({"authMethod": "IdC", "provider": "BuilderId", **CLIENT}, "builder_id"),
        ({"authMethod": "builder-id", **CLIENT}, "builder_id"),
        ({"authMethod": "iam", "startUrl": IDC_START_URL, **CLIENT}, "idc"),
        ({"authMethod": "idc", "startUrl": f"{BUILDER_ID_START_URL}/#", **CLIENT}, "builder_id"),
        ({"authMethod": "idc", "clientIdHash": BUILDER_ID_CLIENT_HASH}, "builder_id"),
        ({"authMethod": "external-idp", "clientId": "x"}, "external_idp"),
        ({"authMethod": "external_idp", "clientId": "x"}, "external_idp"),
        ({"authMethod": "imported"}, "social"),
        ({"authMethod": "imported", **CLIENT}, "idc"),
        ({"tokenEndpoint": "https://login.microsoftonline.com/t", **CLIENT}, "external_idp"),
        ({}, "social"),
        (CLIENT, "idc"),
        ({"authMethod": "api_key", "accessToken": "ksk_x"}, "api_key"),
        ({"accessToken": "ksk_x"}, "api_key"),
    ],
)
def test_the_kind_of_login_is_stated_by_the_document_or_else_follows_from_its_members(
    members: dict[str, Any], kind: str
) -> None:
    """Observed: Builder ID has a client, too: a client does not prove an organisation's login."""
    assert read({**TOKENS, **members}).kind == kind


def test_an_api_key_is_read_from_a_file() -> None:
    """Observed: other gateways keep it there."""
    assert read({"apiKey": "ksk_x"}).access_token == "ksk_x"
    assert not read({"api_key": "ksk_x"}).can_refresh()


def test_snake_case_and_nested_members_are_read_too() -> None:
    """Observed: files of other gateways; `metadata` comes before `attributes` and the top."""
    flat = read({"access_token": "a", "refresh_token": "r", "profile_arn": "p"})
    assert (flat.access_token, flat.refresh_token, flat.profile_arn) == ("a", "r", "p")
    nested = read({"metadata": {"access_token": "m"}, "attributes": {"profileArn": "p"}})
    assert (nested.access_token, nested.profile_arn) == ("m", "p")


def test_a_document_without_a_token_holds_no_credential() -> None:
    assert read_credential({"profileArn": "p", "accessToken": ""}, PLACE) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"x"', "[" * 100_000])
def test_text_that_is_not_a_json_object_is_a_value_error(text: str) -> None:
    """A file may hold anything."""
    with pytest.raises(ValueError):  # noqa: PT011  # its words are for people
        parse_object(text)


def test_a_registration_belongs_to_its_token_and_its_lack_only_stops_a_refresh() -> None:
    """Observed: the access token still works."""
    document = {**TOKENS, "authMethod": "IdC", "clientIdHash": "a" * 40, "region": "eu-west-2"}
    whole = read(document, {**CLIENT, "expiresAt": "2027-01-01T00:00:00Z"})
    assert whole.can_refresh()
    assert whole.region == "eu-west-2"
    assert whole.client
    assert whole.client.has_expired(datetime(2028, 1, 1, tzinfo=UTC))
    assert whole.expires_at == datetime(2026, 1, 1, tzinfo=UTC)
    placeless = read({**document, "region": ""}, {**CLIENT, "region": "eu-west-3"})
    assert placeless.region == "eu-west-3"
    partial = read(document, {"clientId": "id"})
    assert partial.access_token == "aoa"
    assert not partial.can_refresh()
    assert "registration" in partial.problem


def test_the_hash_of_a_start_url_is_the_ides() -> None:
    """Observed: SHA-1 of the compact JSON; Builder ID's is a constant."""
    text = f'{{"startUrl":"{BUILDER_ID_START_URL}"}}'
    assert hashlib.sha1(text.encode()).hexdigest() == BUILDER_ID_CLIENT_HASH


@pytest.mark.parametrize("named", ["../../etc/passwd", "A" * 40, "a" * 39, "/abs", "", "a" * 41])
def test_only_a_hash_becomes_the_name_of_a_file(named: str) -> None:
    """Strangers may have written the file, so its members must not choose a path."""
    assert registration_name({"clientIdHash": named}) == ""
    assert registration_name({"clientIdHash": "a" * 40}) == f"{'a' * 40}.json"


# --- dates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T10:20:30.123456789Z", datetime(2026, 3, 1, 10, 20, 30, 123456, UTC)),
        ("2026-03-01T10:20:30.786627Z", datetime(2026, 3, 1, 10, 20, 30, 786627, UTC)),
        ("2026-03-01T10:20:30.123Z", datetime(2026, 3, 1, 10, 20, 30, 123000, UTC)),
        ("2026-03-01T10:20:30.12Z", datetime(2026, 3, 1, 10, 20, 30, 120000, UTC)),
        ("2026-03-01T12:20:30.1234567+02:00", datetime(2026, 3, 1, 10, 20, 30, 123456, UTC)),
        ("2026-03-01T10:20:30.1Z", datetime(2026, 3, 1, 10, 20, 30, 100000, UTC)),
        ("2026-03-01T10:20:30Z", datetime(2026, 3, 1, 10, 20, 30, tzinfo=UTC)),
        ("2026-03-01T12:20:30+02:00", datetime(2026, 3, 1, 10, 20, 30, tzinfo=UTC)),
        ("2026-03-01T10:20:30", datetime(2026, 3, 1, 10, 20, 30, tzinfo=UTC)),
        ("2026-03-01 10:20:30.5", datetime(2026, 3, 1, 10, 20, 30, 500000, UTC)),
        (1_800_000_000, datetime(2027, 1, 15, 8, tzinfo=UTC)),
        (1_800_000_000_000, datetime(2027, 1, 15, 8, tzinfo=UTC)),
        ("1800000000", datetime(2027, 1, 15, 8, tzinfo=UTC)),
        (1_800_000_000.5, datetime(2027, 1, 15, 8, 0, 0, 500000, UTC)),
        (None, None),
        ("", None),
    ],
)
def test_every_known_form_of_a_date_is_read(value: object, expected: datetime | None) -> None:
    """Observed: nanoseconds, offsets and epochs."""
    assert read_time(value) == expected


@pytest.mark.parametrize("value", ["soon", "2026-13-45", True, [], 10**40, float("nan")])
def test_a_date_that_cannot_be_read_is_named_and_its_token_is_tried(value: object) -> None:
    found = read({"accessToken": "aoa", "expiresAt": value})
    assert (found.expires_at, found.unreadable_end) == (None, str(value)[:80])


def test_a_date_is_written_in_the_form_that_every_reader_accepts() -> None:
    """Observed: milliseconds and Z, as the IDE writes it."""
    moment = datetime(2026, 3, 1, 10, 20, 30, 123456, UTC)
    assert format_time(moment) == "2026-03-01T10:20:30.123Z"


# --- encoded refresh tokens ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "token", "client_id", "last"),
    [
        ("aorX:sig", "social", "aorX:sig", "", ""),
        *((f"aorX|{word}", "social", "aorX", "", "") for word in _SOCIAL_WORDS),
        *((f"aorX|id|secret|{word}", "idc", "aorX", "id", "secret") for word in ("IdC ", "iam")),
        ("aorX|id|secret|builder_id", "builder_id", "aorX", "id", "secret"),
        ("aorX|id|https://x.okta.com/t|external_idp", "external_idp", "aorX", "id", ""),
        ("aorX|id|secret|idc", "idc", "aorX", "id", "secret"),
        ("aorX|id|secret|builder-id", "builder_id", "aorX", "id", "secret"),
        ("a|b|c|id|secret|idc", "idc", "a|b|c", "id", "secret"),
        ("a|b|desktop", "social", "a|b", "", ""),
        ("aorX|id|https://x.okta.com/t|external-idp", "external_idp", "aorX", "id", ""),
        ("a|b|c|unknown", "social", "a|b|c|unknown", "", ""),
        ("id|secret|idc", "social", "id|secret|idc", "", ""),
    ],
)
def test_an_encoded_refresh_token_is_read_from_the_right(
    text: str, kind: str, token: str, client_id: str, last: str
) -> None:
    """Observed: forms of other tools; a bar inside the token does no harm."""
    found = decode_refresh_token(text, source="KIRO_REFRESH_TOKEN", region="eu-west-1")
    assert (found.kind, found.refresh_token) == (kind, token)
    assert (found.client.client_id if found.client else "") == client_id
    assert (found.client.client_secret if found.client else "") == last
    assert found.token_endpoint == ("https://x.okta.com/t" if kind == "external_idp" else "")
    assert (found.source, found.region) == ("KIRO_REFRESH_TOKEN", "eu-west-1")
    assert found.can_refresh()


# --- writing back -------------------------------------------------------------------------

RENEWED = Credential(
    kind="idc",
    access_token="new-access",
    refresh_token="new-refresh",
    expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    profile_arn="arn:new",
    source="a test",
)


def test_only_tokens_and_their_end_change_in_the_documents_own_spelling() -> None:
    """Observed: owners lose fields to tools that write only what they know."""
    before = {"access_token": "a", "refresh_token": "r", "region": "eu-west-1", "x": [1]}
    assert merge_tokens(before, RENEWED) == {
        "access_token": "new-access",
        "refresh_token": "new-refresh",
        "expires_at": "2030-01-01T00:00:00.000Z",
        "region": "eu-west-1",
        "x": [1],
    }
    camel = merge_tokens({"accessToken": "a", "expiresAt": 5}, RENEWED)
    assert camel["expiresAt"] == int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())
    inner = {"access_token": "a", "expires_at": 5_000_000_000_000}
    nested = merge_tokens({"metadata": inner, "refreshToken": "r"}, RENEWED)
    ends = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert nested["metadata"] == {"access_token": "new-access", "expires_at": ends}
    assert nested["refreshToken"] == "new-refresh"


FULL = replace(
    idc_credential(),
    region="eu-central-1",
    client=ClientRegistration(
        client_id="id", client_secret="secret", expires_at=datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    ),
)
OWN_ENTRIES: list[Credential] = [
    idc_credential(),
    FULL,
    replace(FULL, kind="builder_id", start_url=BUILDER_ID_START_URL),
    replace(FULL, kind="builder_id", start_url=""),
    replace(FULL, kind="social", client=None, start_url="", expires_at=None),
    replace(
        FULL,
        kind="external_idp",
        client=ClientRegistration(client_id="id"),
        start_url="",
        token_endpoint="https://acme.okta.com/oauth2/v1/token",
        issuer_url="https://acme.okta.com",
        scopes=("openid", "offline_access"),
    ),
]


@pytest.mark.parametrize("before", OWN_ENTRIES, ids=lambda before: before.kind)
def test_our_own_entry_is_read_as_it_was_written(before: Credential) -> None:
    """The stored login equals the login that was made."""
    where = Credential(kind="access_token", source=before.source, origin=before.origin)
    found = read_credential(json.loads(json.dumps(own_document(before))), where)
    assert found
    if found.client and before.client:  # Its region is the login's.
        found = replace(found, client=replace(found.client, region=before.client.region))
    assert found == before


def test_only_a_renewed_social_login_writes_its_profile() -> None:
    """Observed: the social refresh alone names the profile; elsewhere it is the owner's choice."""
    before = {"accessToken": "a", "profileArn": "arn:old"}
    assert merge_tokens(before, RENEWED)["profileArn"] == "arn:old"
    social = replace(RENEWED, kind="social")
    assert merge_tokens(before, social)["profileArn"] == "arn:new"
    assert merge_tokens(before, replace(social, profile_arn=""))["profileArn"] == "arn:old"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (5, 1_893_456_000),
        (1_700_000_000, 1_893_456_000),
        (1_700_000_000_000, 1_893_456_000_000),
        ("1700000000", "2030-01-01T00:00:00.000Z"),
        (True, "2030-01-01T00:00:00.000Z"),
        (None, "2030-01-01T00:00:00.000Z"),
    ],
)
def test_a_date_is_written_back_in_its_owners_unit(before: object, after: object) -> None:
    """A date in another unit would be the year 1970, or never."""
    for name in ("expiresAt", "expires_at"):
        assert merge_tokens({name: before}, RENEWED)[name] == after
        assert merge_tokens({name: before}, replace(RENEWED, expires_at=None))[name] == before
