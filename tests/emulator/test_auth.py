"""The emulator's sign-in services: device logins, rotating refresh tokens, logout."""

from typing import Literal

import httpx
import pytest

from kiro_mcp.emulator import (
    BUILDER_ID_PROFILE_ARN,
    BUILDER_ID_START_URL,
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_BUILDER_ID_ACCESS_TOKEN,
    EMULATOR_CLIENT_ID,
    EMULATOR_CLIENT_SECRET,
    EMULATOR_PROFILE_ARN,
    EMULATOR_REFRESH_TOKEN,
    EMULATOR_SOCIAL_ACCESS_TOKEN,
    EMULATOR_SOCIAL_REFRESH_TOKEN,
    Accounts,
    EmulatorState,
    RunningEmulator,
    running,
)
from kiro_mcp.emulator.accounts import MAX_ENTRIES, SOCIAL_PROFILE_ARN, DeviceOutcome
from kiro_mcp.emulator.operations import DEVICE_GRANT
from tests.emulator.calls import REST_PATH, Json, body_of, connected

ORG_START_URL = "https://example.awsapps.com/start"
REGISTRATION: Json = {
    "clientName": "a test",
    "clientType": "public",
    "scopes": ["codewhisperer:completions", "codewhisperer:conversations"],
}
FIXED_CLIENT = {"clientId": EMULATOR_CLIENT_ID, "clientSecret": EMULATOR_CLIENT_SECRET}


async def post(client: httpx.AsyncClient, path: str, body: Json) -> Json:
    """The answer to a call that is taken."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def error_of(client: httpx.AsyncClient, path: str, body: Json) -> tuple[int, str]:
    """The status and error of a call to AWS that is refused."""
    response = await client.post(path, json=body)
    return response.status_code, response.json()["error"]


async def is_taken(client: httpx.AsyncClient, token: str, profile: str) -> bool:
    """Whether a bearer is good for a prompt."""
    headers = {"Authorization": f"Bearer {token}"}
    body = body_of(profileArn=profile)
    return (await client.post(REST_PATH, json=body, headers=headers)).status_code == 200


async def start(client: httpx.AsyncClient, start_url: str) -> Json:
    """Register a client, start its device login, and give what polls send."""
    registered = await post(client, "/client/register", REGISTRATION)
    credentials = {name: registered[name] for name in ("clientId", "clientSecret")}
    device = await post(client, "/device_authorization", {**credentials, "startUrl": start_url})
    assert device["userCode"] in device["verificationUriComplete"]
    assert (device["expiresIn"], device["interval"]) == (600, 1)
    return {**credentials, "deviceCode": device["deviceCode"], "grantType": DEVICE_GRANT}


async def test_an_inactive_profile_is_listed_as_such_and_refused() -> None:
    """A client must not bill it."""
    other = EMULATOR_PROFILE_ARN.replace("EMULATOR", "OTHER")
    accounts = Accounts(profile_arns=(other, EMULATOR_PROFILE_ARN), inactive_profile_arns=(other,))
    state = EmulatorState(accounts=accounts)
    async with running(state) as emulator, connected(emulator.url) as client:
        headers = {"Authorization": f"Bearer {EMULATOR_ACCESS_TOKEN}"}
        listed = await client.post("/ListAvailableProfiles", json={}, headers=headers)
        [profile] = listed.json()["profiles"]
        assert (profile["arn"], profile["status"]) == (other, "INACTIVE")
        assert not await is_taken(client, EMULATOR_ACCESS_TOKEN, other)
        assert await is_taken(client, EMULATOR_ACCESS_TOKEN, EMULATOR_PROFILE_ARN)


@pytest.mark.parametrize(
    ("token", "arn", "says"),
    [
        (EMULATOR_BUILDER_ID_ACCESS_TOKEN, BUILDER_ID_PROFILE_ARN, ""),
        (EMULATOR_BUILDER_ID_ACCESS_TOKEN, SOCIAL_PROFILE_ARN, "bearer token"),
        (EMULATOR_SOCIAL_ACCESS_TOKEN, BUILDER_ID_PROFILE_ARN, "bearer token"),
        (EMULATOR_ACCESS_TOKEN, BUILDER_ID_PROFILE_ARN, "not authorized"),
    ],
)
async def test_a_profile_that_another_kind_of_login_shares_is_refused(
    token: str, arn: str, says: str
) -> None:
    """Observed: in the words for a void token, where both kinds have a shared profile."""
    headers = {"Authorization": f"Bearer {token}"}
    async with running() as emulator, connected(emulator.url) as client:
        answer = await client.post(REST_PATH, json=body_of(profileArn=arn), headers=headers)
        assert answer.status_code == (403 if says else 200)
        assert says in answer.text


@pytest.mark.parametrize(("status", "says"), [(400, "Invalid token"), (403, "is invalid")])
async def test_management_calls_refuse_a_bad_token_in_either_way(
    status: Literal[400, 403], says: str
) -> None:
    """Observed: both; prompts are refused with 403 alone."""
    state = EmulatorState(accounts=Accounts(bad_token_status=status))
    headers = {"Authorization": "Bearer aoaVoid"}
    async with running(state) as emulator, connected(emulator.url) as client:
        for path in ("/ListAvailableModels?origin=CLI", "/getUsageLimits?origin=CLI"):
            refused = await client.get(path, headers=headers)
            assert (refused.status_code, says in refused.text) == (status, True)
            assert refused.headers["x-amzn-errortype"] == "AccessDeniedException"
        refused = await client.post("/ListAvailableProfiles", json={}, headers=headers)
        assert refused.status_code == status
        refused = await client.post(REST_PATH, json=body_of(), headers=headers)
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("start_url", "profile"),
    [
        (BUILDER_ID_START_URL, BUILDER_ID_PROFILE_ARN),
        (f"{BUILDER_ID_START_URL}/#", BUILDER_ID_PROFILE_ARN),
        (ORG_START_URL, EMULATOR_PROFILE_ARN),
    ],
)
async def test_a_device_login_ends_in_tokens_of_its_identity(start_url: str, profile: str) -> None:
    """AWS SSO OIDC, the device grant: polls wait, slow down, and then find the tokens once."""
    state = EmulatorState(accounts=Accounts(pending_polls=2, slow_downs=1))
    async with running(state) as emulator, connected(emulator.url) as client:
        poll = await start(client, start_url)
        errors = [await error_of(client, "/token", poll) for _ in range(3)]
        tokens = await post(client, "/token", poll)
        again = await error_of(client, "/token", poll)
        assert await is_taken(client, tokens["accessToken"], profile)
    assert errors == [(400, "slow_down"), *[(400, "authorization_pending")] * 2]
    assert again == (400, "invalid_grant")
    assert (tokens["expiresIn"], tokens["tokenType"]) == (3600, "Bearer")


@pytest.mark.parametrize("outcome", ["access_denied", "expired_token"])
async def test_a_device_login_can_fail(outcome: DeviceOutcome) -> None:
    """AWS SSO OIDC, the device grant."""
    state = EmulatorState(accounts=Accounts(pending_polls=0, device_outcome=outcome))
    async with running(state) as emulator, connected(emulator.url) as client:
        poll = await start(client, ORG_START_URL)
        assert await error_of(client, "/token", poll) == (400, outcome)


async def test_a_registration_lives_for_months() -> None:
    """AWS SSO OIDC: epoch seconds."""
    state = EmulatorState(now=lambda: 1_000_000.5)
    async with running(state) as emulator, connected(emulator.url) as client:
        registered = await post(client, "/client/register", REGISTRATION)
    assert registered["clientIdIssuedAt"] == 1_000_000
    assert registered["clientSecretExpiresAt"] == 1_000_000 + 90 * 86_400


REFUSED = {
    "no name": ("/client/register", {**REGISTRATION, "clientName": ""}, 400, "invalid_request"),
    "no public client": (
        "/client/register",
        {**REGISTRATION, "clientType": "confidential"},
        400,
        "invalid_request",
    ),
    "another scope": (
        "/client/register",
        {**REGISTRATION, "scopes": ["sso:account:access"]},
        400,
        "invalid_scope",
    ),
    "unknown client": (
        "/device_authorization",
        {"clientId": "x", "clientSecret": "y", "startUrl": ORG_START_URL},
        401,
        "invalid_client",
    ),
    "wrong secret": (
        "/device_authorization",
        {**FIXED_CLIENT, "clientSecret": "y", "startUrl": ORG_START_URL},
        401,
        "invalid_client",
    ),
    "no start URL": ("/device_authorization", FIXED_CLIENT, 400, "invalid_request"),
    "another grant": (
        "/token",
        {**FIXED_CLIENT, "grantType": "password"},
        400,
        "unsupported_grant_type",
    ),
    "refresh by an unknown client": (
        "/token",
        {"clientId": "x", "grantType": "refresh_token", "refreshToken": EMULATOR_REFRESH_TOKEN},
        401,
        "invalid_client",
    ),
    "unknown device code": (
        "/token",
        {**FIXED_CLIENT, "grantType": DEVICE_GRANT, "deviceCode": "x"},
        400,
        "invalid_grant",
    ),
    "unknown refresh token": (
        "/token",
        {**FIXED_CLIENT, "grantType": "refresh_token", "refreshToken": "x"},
        400,
        "invalid_grant",
    ),
    "refresh token of the desktop service": (
        "/token",
        {
            **FIXED_CLIENT,
            "grantType": "refresh_token",
            "refreshToken": EMULATOR_SOCIAL_REFRESH_TOKEN,
        },
        400,
        "invalid_grant",
    ),
}


@pytest.mark.parametrize(("path", "body", "status", "error"), REFUSED.values(), ids=REFUSED)
async def test_aws_refuses_with_an_error_of_oauth(
    path: str, body: Json, status: int, error: str, emulator: RunningEmulator
) -> None:
    """AWS SSO OIDC: 400, but 401 for an unknown client."""
    async with connected(emulator.url) as client:
        assert await error_of(client, path, body) == (status, error)


async def test_an_error_of_aws_is_named_in_its_header(emulator: RunningEmulator) -> None:
    """AWS SSO OIDC, the REST protocol."""
    async with connected(emulator.url) as client:
        response = await client.post("/token", json={})
    assert response.headers["x-amzn-errortype"] == "UnsupportedGrantTypeException"
    assert response.json()["error_description"]


async def test_refresh_at_aws_rotates_both_tokens(emulator: RunningEmulator) -> None:
    """Observed: the old refresh token and the old access token are void at once."""
    async with connected(emulator.url) as client:
        body = {
            **FIXED_CLIENT,
            "grantType": "refresh_token",
            "refreshToken": EMULATOR_REFRESH_TOKEN,
        }
        assert await is_taken(client, EMULATOR_ACCESS_TOKEN, EMULATOR_PROFILE_ARN)
        tokens = await post(client, "/token", body)
        assert await is_taken(client, tokens["accessToken"], EMULATOR_PROFILE_ARN)
        assert not await is_taken(client, EMULATOR_ACCESS_TOKEN, EMULATOR_PROFILE_ARN)
        assert await error_of(client, "/token", body) == (400, "invalid_grant")
        await post(client, "/token", {**body, "refreshToken": tokens["refreshToken"]})


async def test_a_refresh_token_is_bound_to_its_client(emulator: RunningEmulator) -> None:
    """Observed: another client's registration does not refresh it."""
    async with connected(emulator.url) as client:
        registered = await post(client, "/client/register", REGISTRATION)
        body = {
            "clientId": registered["clientId"],
            "clientSecret": registered["clientSecret"],
            "grantType": "refresh_token",
            "refreshToken": EMULATOR_REFRESH_TOKEN,
        }
        assert await error_of(client, "/token", body) == (400, "invalid_grant")


async def test_refresh_at_the_desktop_service_rotates_and_names_the_profile(
    emulator: RunningEmulator,
) -> None:
    """Observed: the answer carries the profile."""
    body = {"refreshToken": EMULATOR_SOCIAL_REFRESH_TOKEN}
    async with connected(emulator.url) as client:
        tokens = await post(client, "/refreshToken", body)
        assert await is_taken(client, tokens["accessToken"], tokens["profileArn"])
        assert not await is_taken(client, EMULATOR_SOCIAL_ACCESS_TOKEN, EMULATOR_PROFILE_ARN)
        stale = await client.post("/refreshToken", json=body)
    assert (tokens["expiresIn"], tokens["profileArn"]) == (3600, EMULATOR_PROFILE_ARN)
    assert tokens["refreshToken"] != EMULATOR_SOCIAL_REFRESH_TOKEN
    assert (stale.status_code, stale.json()) == (401, {"message": "Bad credentials"})


@pytest.mark.parametrize("body", [{}, {"refreshToken": "x", "clientId": "y"}])
async def test_the_desktop_service_takes_a_refresh_token_and_nothing_else(
    body: Json, emulator: RunningEmulator
) -> None:
    """Observed: the body is exactly that."""
    async with connected(emulator.url) as client:
        assert (await client.post("/refreshToken", json=body)).status_code == 400


async def start_social(client: httpx.AsyncClient) -> Json:
    """Start a device login at the desktop service, and give what polls send."""
    body = {"clientId": "kiro-cli", "loginProvider": "Github"}
    device = await post(client, "/oauth/device/authorization", body)
    assert device["expiresInMilliseconds"] == 600_000
    assert device["intervalInMilliseconds"] == 1_000
    assert device["verificationUriComplete"].endswith(
        f"?user_code={device['userCode']}&login_provider=Github"
    )
    return {"clientId": "kiro-cli", "deviceCode": device["deviceCode"]}


async def test_a_social_login_is_polled_with_status_200() -> None:
    """Observed: null tokens until it is confirmed, and the profile with them."""
    state = EmulatorState(accounts=Accounts(pending_polls=1, slow_downs=1))
    async with running(state) as emulator, connected(emulator.url) as client:
        poll = await start_social(client)
        answers = [await post(client, "/oauth/device/poll", poll) for _ in range(4)]
        assert await is_taken(client, answers[2]["accessToken"], answers[2]["profileArn"])
    assert [answer["status"] for answer in answers] == [
        "slow_down",
        "authorization_pending",
        "authorized",
        "invalid_token",
    ]
    assert (answers[0]["accessToken"], answers[0]["refreshToken"]) == (None, None)


@pytest.mark.parametrize(
    ("outcome", "status"), [("access_denied", "invalid_token"), ("expired_token", "expired_token")]
)
async def test_a_social_login_can_fail(outcome: DeviceOutcome, status: str) -> None:
    """Observed: still with status 200."""
    state = EmulatorState(accounts=Accounts(pending_polls=0, device_outcome=outcome))
    async with running(state) as emulator, connected(emulator.url) as client:
        poll = await start_social(client)
        assert (await post(client, "/oauth/device/poll", poll))["status"] == status


async def test_a_social_login_needs_a_known_provider(emulator: RunningEmulator) -> None:
    """Observed: Google and Github."""
    body = {"clientId": "kiro-cli", "loginProvider": "Nonsense"}
    async with connected(emulator.url) as client:
        assert (await client.post("/oauth/device/authorization", json=body)).status_code == 400


async def test_a_logout_ends_both_tokens(emulator: RunningEmulator) -> None:
    """Observed: 200 and empty; once more does no harm."""
    body = {"refreshToken": EMULATOR_SOCIAL_REFRESH_TOKEN}
    async with connected(emulator.url) as client:
        for _ in range(2):
            answer = await client.post("/logout", json=body)
            assert (answer.status_code, answer.content) == (200, b"")
        assert not await is_taken(client, EMULATOR_SOCIAL_ACCESS_TOKEN, EMULATOR_PROFILE_ARN)
        assert (await client.post("/refreshToken", json=body)).status_code == 401


async def test_access_tokens_expire_when_a_test_says_so(emulator: RunningEmulator) -> None:
    """No test waits for a clock; keys and refresh tokens stay good."""
    emulator.state.accounts.expire_access_tokens()
    async with connected(emulator.url) as client:
        assert not await is_taken(client, EMULATOR_ACCESS_TOKEN, EMULATOR_PROFILE_ARN)
        tokens = await post(
            client, "/refreshToken", {"refreshToken": EMULATOR_SOCIAL_REFRESH_TOKEN}
        )
        assert await is_taken(client, tokens["accessToken"], EMULATOR_PROFILE_ARN)
    assert emulator.state.accounts.identify(EMULATOR_API_KEY, "API_KEY")


def test_a_key_can_be_revoked() -> None:
    """For tests of what follows."""
    accounts = Accounts()
    accounts.revoke(EMULATOR_API_KEY)
    assert accounts.identify(EMULATOR_API_KEY, "API_KEY") is None


def test_the_number_of_registered_clients_is_bounded() -> None:
    """An emulator may run for days."""
    accounts = Accounts()
    first, secret = accounts.register_client()
    for _ in range(MAX_ENTRIES):
        accounts.register_client()
    assert not accounts.is_client(first, secret)
