"""Models, profiles and credits, asked of the management host."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.auth.provider import TokenProvider
from kiro_mcp.chat import AccessToken
from kiro_mcp.client.endpoints import BUILDER_ID_PROFILE_ARN
from kiro_mcp.client.management import MAX_PROFILE_PAGES, Management, UsageLimits, read_usage_limits
from kiro_mcp.emulator import HttpAnswer, RunningEmulator, frames
from kiro_mcp.emulator.scripts import json_answer
from kiro_mcp.errors import InvalidRequest, KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.settings import Settings
from tests.client.driving import KEY, LOGIN, FixedToken, RenewableToken, driven, refusal

LIST = "ListAvailableModels"


@pytest.mark.parametrize("endpoints", ["runtime", "kas", "q"])
async def test_all_pages_of_the_list_come_together(
    endpoints: str, emulator: RunningEmulator
) -> None:
    """The service's list comes in pages."""
    async with driven(emulator.url, FixedToken(LOGIN), KIRO_MCP_ENDPOINTS=endpoints) as client:
        listed = await client.list_models()
    ids = [model["modelId"] for model in emulator.state.catalogue]
    assert [model.id for model in listed.models] == ids
    assert listed.default_model == "auto"
    assert len(emulator.state.requests_to(LIST)) == 2


async def test_the_form_of_the_official_client_is_the_default(emulator: RunningEmulator) -> None:
    """A capture of the official command line client (2026-07)."""
    async with driven(emulator.url, FixedToken(LOGIN)) as client:
        await client.list_models()
    first, second = emulator.state.requests
    assert (first.method, first.path, first.query) == ("POST", "/", {"origin": "KIRO_CLI"})
    assert first.body == {"origin": "KIRO_CLI"}
    assert first.headers["x-amzn-kiro-profile-arn"] == LOGIN.profile_arn
    assert "nextToken" in str(second.body)
    assert second.query == {"origin": "KIRO_CLI"}


async def test_the_older_endpoints_have_all_in_the_query(emulator: RunningEmulator) -> None:
    """The vendor's open source clients."""
    async with driven(emulator.url, FixedToken(LOGIN), KIRO_MCP_ENDPOINTS="q,runtime") as client:
        await client.list_models()
    first, _ = emulator.state.requests
    assert (first.method, first.path) == ("GET", "/List-Available-Models")
    assert first.query == {"origin": "AI_EDITOR", "profileArn": LOGIN.profile_arn}


async def test_a_list_whose_second_page_fails_is_an_error(emulator: RunningEmulator) -> None:
    """Half a list must not replace a whole one."""
    page = json_answer({"models": [{"modelId": "auto"}], "nextToken": "more"})
    emulator.state.enqueue(page, (refusal(400, "no"),), operation=LIST)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError):
            await client.list_models()


@pytest.mark.parametrize(
    "default",
    [{"defaultModel": {"modelId": "auto"}}, {"defaultModel": "auto"}, {"defaultModelId": "auto"}],
)
async def test_each_form_of_the_default_is_read(
    default: dict[str, object], emulator: RunningEmulator
) -> None:
    """Observed: the service's clients disagree on it."""
    emulator.state.enqueue(json_answer({"models": [], **default}), operation=LIST)
    async with driven(emulator.url) as client:
        assert (await client.list_models()).default_model == "auto"


async def test_a_list_without_end_is_cut(emulator: RunningEmulator) -> None:
    page = json_answer({"models": [{"modelId": "auto"}], "nextToken": "more"})
    emulator.state.enqueue(*[page] * 60, operation=LIST)
    async with driven(emulator.url) as client:
        assert len((await client.list_models()).models) == 1
    assert len(emulator.state.requests) == 50


async def test_faults_are_met_as_for_prompts(emulator: RunningEmulator) -> None:
    """A list is worth a second attempt too."""
    page = HttpAnswer(body=frames.compact_json({"models": []}).encode())
    emulator.state.enqueue((refusal(503),), (refusal(429),), (page,), operation=LIST)
    tokens = RenewableToken(token=replace(KEY, value="stale"))
    async with driven(emulator.url, tokens) as client:
        await client.list_models()
        await client.list_models()
    assert len(tokens.rejected) == 1


async def test_a_management_answer_that_is_not_an_object_is_an_error(
    emulator: RunningEmulator,
) -> None:
    """A proxy's page comes with status 200."""
    page = HttpAnswer(body=b"<html>", content_type="text/html")
    emulator.state.enqueue(*[(page,)] * 9, operation=LIST)
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError) as caught:
            await client.list_models()
    assert caught.value.code == "upstream_error"


AMERICA = "https://management.us-east-1.kiro.dev/"
EUROPE = "https://management.eu-central-1.kiro.dev/"
HERE, THERE = (
    f"arn:aws:codewhisperer:{region}:111122223333:profile/EXAMPLE"
    for region in ("us-east-1", "eu-central-1")
)
NOW = datetime(2026, 11, 1, tzinfo=UTC)
TOKEN = AccessToken(value="aoa", region="us-east-1")
DOWN = (503, {"message": "Down."})
BUILDER_ID = (403, {"message": "AWS Builder ID is not supported for this operation."})

Answer = tuple[int, Mapping[str, object]]
NOTHING: Answer = (200, {})


class Regions:
    """Answers for each region in turn, and repeats the last answer. Records the requests."""

    def __init__(self, america: list[Answer], europe: list[Answer]) -> None:
        self.answers = {AMERICA: america, EUROPE: europe}
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.asked.append((url, json.loads(body)))
        self.headers.append(headers)
        left = self.answers[url]
        status, members = left.pop(0) if len(left) > 1 else left[0]
        return status, {"content-type": "application/json"}, json.dumps(members).encode()


def management(regions: Regions, **environ: str) -> Management:
    settings = Settings.load(environ)
    return Management(regions, settings, now=lambda: NOW, new_id=lambda: "id-1")


def page(*arns: str, after: str = "") -> Answer:
    return 200, {"profiles": [{"arn": arn} for arn in arns], "nextToken": after or None}


@pytest.mark.parametrize(
    ("america", "europe", "expected"),
    [
        ([page(HERE)], [page()], HERE),
        ([page()], [page(THERE)], THERE),
        ([page(HERE)], [page(HERE)], HERE),
        ([page(after="2"), page(HERE)], [page()], HERE),
        ([DOWN], [page(THERE)], THERE),
        ([page(HERE)], [DOWN], HERE),
        ([BUILDER_ID], [BUILDER_ID], BUILDER_ID_PROFILE_ARN),
    ],
)
async def test_the_only_profile_of_a_login_is_found_wherever_it_is_kept(
    america: list[Answer], europe: list[Answer], expected: str
) -> None:
    """Observed: the region of a profile need not be the region of the login."""
    assert await management(Regions(america, europe)).find_profile(TOKEN) == expected


@pytest.mark.parametrize(
    ("america", "europe", "error", "words"),
    [
        ([page(HERE)], [page(THERE)], InvalidRequest, "2 Kiro profiles"),
        ([page(HERE, after="2"), page(THERE)], [page()], InvalidRequest, "2 Kiro profiles"),
        ([page()], [page()], InvalidRequest, "no Kiro profile"),
        ([DOWN], [page()], ServiceUnavailable, "Down"),
        ([page()], [DOWN], ServiceUnavailable, "Down"),
        ([(403, {"message": "No."})], [page()], KiroError, "No"),
    ],
)
async def test_a_login_without_exactly_one_profile_is_an_error(
    america: list[Answer], europe: list[Answer], error: type[KiroError], words: str
) -> None:
    """No profile is guessed, and a request without an answer proves nothing."""
    with pytest.raises(error, match=words):
        await management(Regions(america, europe)).find_profile(TOKEN)


async def test_profiles_are_read_page_by_page_up_to_a_limit() -> None:
    """A list that never ends is cut."""
    regions = Regions([page(HERE, after="2"), page(HERE)], [page(HERE, after="more")])
    assert await management(regions).find_profile(TOKEN) == HERE
    assert regions.asked == [
        (AMERICA, {}),
        (AMERICA, {"nextToken": "2"}),
        (EUROPE, {}),
        *[(EUROPE, {"nextToken": "more"})] * (MAX_PROFILE_PAGES - 1),
    ]


@pytest.mark.parametrize(
    ("america", "europe", "expected"),
    [
        ((200, {"profile": {"arn": HERE}}), DOWN, HERE),
        (DOWN, (200, {"profile": {"arn": THERE}}), THERE),
        (NOTHING, (200, {"profile": {"arn": THERE}}), THERE),
        (NOTHING, (403, {"message": "No."}), ""),
        (DOWN, DOWN, ""),
    ],
)
async def test_the_profile_of_an_api_key_is_found_or_done_without(
    america: Answer, europe: Answer, expected: str
) -> None:
    """Observed: the question is refused for some keys that work."""
    service = management(Regions([america], [europe]))
    assert await service.find_key_profile(TOKEN) == expected


async def test_an_api_key_that_its_region_refuses_is_sent_to_the_one_that_knows_it(
    tmp_path: Path,
) -> None:
    """Observed: a bearer of another region is answered like one that is invalid."""
    regions = Regions([DOWN], [(200, {"profile": {"arn": THERE}})])
    tokens = TokenProvider(
        Settings.load({"KIRO_API_KEY": "ksk_x"}), http=regions, environ={"HOME": str(tmp_path)}
    )
    token = await tokens.access_token()
    assert (token.region, regions.asked) == ("us-east-1", [])
    renewed = await tokens.renew(token)
    assert (renewed.region, renewed.value, renewed.profile_arn) == ("eu-central-1", "ksk_x", "")
    assert (await tokens.access_token()).region == "eu-central-1"
    assert (regions.asked, regions.headers[0]["TokenType"]) == ([(EUROPE, {})], "API_KEY")
    with pytest.raises(SignInRequired, match="KIRO_API_KEY"):
        await tokens.renew(renewed)
    assert len(regions.asked) == 1


async def test_calls_at_once_with_a_key_of_another_region_all_find_it(tmp_path: Path) -> None:
    """A call that is refused while another one looks must not ask for a new key."""
    regions = Regions([DOWN], [(200, {"profile": {"arn": THERE}})])
    settings = Settings.load({"KIRO_API_KEY": "ksk_x"})
    tokens = TokenProvider(settings, http=regions, environ={"HOME": str(tmp_path)})
    refused = await tokens.access_token()
    found: list[str] = []

    async def renew() -> None:
        found.append((await tokens.renew(refused)).region)

    with fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(renew)
    assert found == ["eu-central-1"] * 8
    assert len(regions.asked) == 1


@pytest.mark.parametrize("said", [{"KIRO_API_REGION": "us-east-1"}, {"KIRO_PROFILE_ARN": HERE}])
async def test_an_api_key_stays_in_the_region_that_its_user_names(
    tmp_path: Path, said: dict[str, str]
) -> None:
    """A region that is set is not guessed."""
    regions = Regions([DOWN], [(200, {"profile": {"arn": THERE}})])
    settings = Settings.load({"KIRO_API_KEY": "ksk_x", **said})
    tokens = TokenProvider(settings, http=regions, environ={"HOME": str(tmp_path)})
    with pytest.raises(SignInRequired, match="KIRO_API_KEY"):
        await tokens.renew(await tokens.access_token())
    assert regions.asked == []


async def test_an_api_key_goes_to_the_region_of_the_profile_that_is_set(tmp_path: Path) -> None:
    """Observed: the key itself goes without the profile."""
    settings = Settings.load({"KIRO_API_KEY": "ksk_x", "KIRO_PROFILE_ARN": THERE})
    tokens = TokenProvider(settings, http=Regions([DOWN], [DOWN]), environ={"HOME": str(tmp_path)})
    token = await tokens.access_token()
    assert (token.region, token.profile_arn) == ("eu-central-1", "")


async def test_one_override_for_all_regions_gets_one_request() -> None:
    """A second region would give the same answer."""
    regions = Regions([page(HERE)], [DOWN])
    service = management(regions, KIRO_MCP_ENDPOINT_URL_MANAGEMENT=AMERICA.rstrip("/"))
    token = AccessToken(value="aoa", region="us-east-1", is_explicit=True)
    assert await service.find_profile(token) == HERE
    assert [url for url, _ in regions.asked] == [AMERICA]


async def test_the_request_for_credits_also_asks_for_the_accounts_address() -> None:
    """Observed: the official client says the same in body and query."""
    email = {"userInfo": {"email": "a@example.com"}}
    regions = Regions([(200, email)], [DOWN])
    url = f"{AMERICA}?origin=KIRO_CLI&isEmailRequired=true"
    regions.answers[url] = regions.answers[AMERICA]
    assert (await management(regions).usage_limits(TOKEN)).email == "a@example.com"
    assert regions.asked == [(url, {"origin": "KIRO_CLI", "isEmailRequired": True})]


async def test_a_management_request_has_the_official_clients_headers() -> None:
    """Observed: JSON 1.0 with the operation in a header, and an id for each request."""
    regions = Regions([(200, {"profile": {"arn": HERE}})], [DOWN])
    service = management(regions, KIRO_MCP_USER_AGENT="me/1")
    key = AccessToken(value="ksk_x", token_type="API_KEY", region="us-east-1")
    assert await service.find_key_profile(key) == HERE
    assert regions.headers == [
        {
            "Authorization": "Bearer ksk_x",
            "Content-Type": "application/x-amz-json-1.0",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "X-Amz-Target": "AmazonCodeWhispererService.GetProfile",
            "User-Agent": "me/1",
            "amz-sdk-invocation-id": "id-1",
            "amz-sdk-request": "attempt=1; max=1",
            "x-amzn-codewhisperer-optout": "true",
            "TokenType": "API_KEY",
        }
    ]


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ([], r"signed in.*no Kiro profile in us-east-1 or eu-central-1"),
        ([{"arn": HERE, "profileName": "Team"}, {"arn": THERE}], r"2 Kiro profiles.*Team: "),
        ([{"arn": HERE, "profileName": "Old", "status": "PENDING"}], r"signed in.*active: Old: "),
    ],
)
async def test_a_login_without_exactly_one_active_profile_is_told_what_it_has(
    profiles: list[dict[str, str]], words: str
) -> None:
    """The user decides which one is billed."""
    regions = Regions([(200, {"profiles": profiles})], [page()])
    with pytest.raises(InvalidRequest, match=words):
        await management(regions).find_profile(TOKEN)


@pytest.mark.parametrize("status", ["ACTIVE", "active", None])
async def test_profiles_that_are_malformed_or_not_active_are_left_out(status: str | None) -> None:
    """An ARN's region becomes part of a host name."""
    off = {"arn": f"{HERE}2", "status": "INACTIVE"}
    listed = [{"arn": HERE, "status": status}, off, {"arn": "x"}, 1, {}]
    regions = Regions([(200, {"profiles": listed})], [(200, {"profiles": None})])
    assert await management(regions).find_profile(TOKEN) == HERE


RESET = datetime(2026, 12, 1, tzinfo=UTC)
RESET_SECONDS = RESET.timestamp()

POT = {"currentUsage": 10, "usageLimit": 50}


def breakdown(**members: Any) -> dict[str, Any]:
    return {"usageBreakdownList": [{"resourceType": "CREDIT", **members}]}


@pytest.mark.parametrize(
    ("answer", "used", "limit"),
    [
        ({}, None, None),
        ({"usageBreakdownList": None}, None, None),
        ({"usageBreakdownList": ["?"]}, None, None),
        (breakdown(**POT), 10.0, 50.0),
        (
            breakdown(**POT, currentUsageWithPrecision=10.25, usageLimitWithPrecision=50.5),
            10.25,
            50.5,
        ),
        (breakdown(currentUsage=0, usageLimit=50, currentUsageWithPrecision=None), 0.0, 50.0),
        (breakdown(currentUsage=True, usageLimit="50"), None, None),
        (breakdown(currentUsage=float("inf"), usageLimit=10**400), None, None),
        (breakdown(**POT, freeTrialInfo={"freeTrialStatus": "ACTIVE", **POT}), 20.0, 100.0),
        (breakdown(**POT, freeTrialInfo={"freeTrialStatus": "EXPIRED", **POT}), 10.0, 50.0),
        (
            breakdown(
                **POT,
                freeTrialInfo={"freeTrialStatus": "ACTIVE", **POT},
                bonuses=[
                    {"status": "ACTIVE", "currentUsage": 1.5, "usageLimit": 2.5},
                    {"status": "EXPIRED", **POT},
                    {"status": "EXHAUSTED", **POT},
                ],
            ),
            21.5,
            102.5,
        ),
        ({"usageBreakdown": {"resourceType": "AGENTIC_REQUEST", **POT}}, 10.0, 50.0),
        (
            {"limits": [{"type": "AGENTIC_REQUEST", "currentUsage": 3, "totalUsageLimit": 9}]},
            3.0,
            9.0,
        ),
        (
            {
                "usageBreakdownList": [
                    {"resourceType": "SPEC", "currentUsage": 1},
                    {"resourceType": "CREDIT", "currentUsage": 2},
                ]
            },
            2.0,
            None,
        ),
    ],
)
def test_used_credits_and_limit_include_active_trials_and_bonuses(
    answer: dict[str, Any], used: float | None, limit: float | None
) -> None:
    """The service's published model; exact figures are preferred."""
    found = read_usage_limits(answer)
    assert (found.used, found.limit) == (used, limit)


@pytest.mark.parametrize(
    ("answer", "resets_at"),
    [
        ({"nextDateReset": RESET_SECONDS, "daysUntilReset": 0}, RESET),
        ({"nextDateReset": int(RESET_SECONDS)}, RESET),
        ({"nextDateReset": RESET_SECONDS * 1000}, RESET),
        (breakdown(nextDateReset=RESET_SECONDS), RESET),
        ({"daysUntilReset": 7}, None),
        ({"nextDateReset": 0}, None),
        ({"nextDateReset": 1e300}, None),
        ({"nextDateReset": float("nan")}, None),
        ({"nextDateReset": "soon"}, None),
    ],
)
def test_the_reset_is_a_time_and_never_the_days_until_it(
    answer: dict[str, Any], resets_at: datetime | None
) -> None:
    """Observed: `daysUntilReset` is often 0; times come with fractions."""
    assert read_usage_limits(answer).resets_at == resets_at


def test_plan_overage_and_address_are_read() -> None:
    """The service's published model."""
    answer: dict[str, Any] = {
        "subscriptionInfo": {"subscriptionTitle": "KIRO PRO", "type": "KIRO_PRO"},
        "overageConfiguration": {"overageStatus": "ENABLED"},
        "userInfo": {"email": "a@b.example"},
    }
    assert read_usage_limits(answer) == UsageLimits(
        plan="KIRO PRO",
        email="a@b.example",
        is_overage_allowed=True,
    )
