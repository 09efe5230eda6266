"""Tokens handed out and kept fresh, over HTTP against the emulator, with real files."""

import base64
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, cast

import anyio
import pytest
from anyio import fail_after
from anyio.abc import SocketAttribute, SocketStream

from kiro_mcp.auth.sign_in import sign_in_status
from kiro_mcp.auth.store import OwnStore, digest
from kiro_mcp.chat import AccessToken, ChatRequest, Message, TextPart
from kiro_mcp.client.endpoints import BUILDER_ID_PROFILE_ARN
from kiro_mcp.emulator import (
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_BUILDER_ID_ACCESS_TOKEN,
    EMULATOR_CLIENT_ID,
    EMULATOR_CLIENT_SECRET,
    EMULATOR_PROFILE_ARN,
    EMULATOR_REFRESH_TOKEN,
    EMULATOR_SOCIAL_REFRESH_TOKEN,
    HttpAnswer,
    Pause,
    RunningEmulator,
)
from kiro_mcp.emulator.scripts import Cut, Script, Send, json_answer
from kiro_mcp.errors import (
    AccountBlocked,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings
from tests.support.logins import (
    LONG_AGO,
    Clock,
    accepted_refresh_tokens,
    idc_credential,
    ide_social,
    kiro_cli_database,
    odic_rows,
    row_of,
    sign_in_before,
    write_json,
)

CLI_DB = ".local/share/kiro-cli/data.sqlite3"
REFUSED = json_answer({"error": "invalid_grant"}, status=400)
HELLO = ChatRequest(messages=(Message(role="user", parts=(TextPart(text="hi"),)),))
REFRESHES = ("CreateToken", "RefreshToken")


@asynccontextmanager
async def engine_of(
    home: Path,
    emulator: RunningEmulator | None = None,
    clock: Clock | None = None,
    /,
    **environ: str,
) -> AsyncGenerator[Engine]:
    given = {"HOME": str(home), **environ}
    if emulator:
        given["KIRO_MCP_ENDPOINT_URL"] = emulator.url
    clock = clock or Clock()
    with fail_after(10):
        async with Engine(
            Settings.load(given), environ=given, now=clock, sleep=clock.sleep
        ) as engine:
            yield engine


def own_folder(home: Path) -> Path:
    return home / ".local/share/kiro-mcp"


def refreshes(emulator: RunningEmulator) -> int:
    return sum(len(emulator.state.requests_to(name)) for name in REFRESHES)


def encoded() -> str:
    return f"{EMULATOR_REFRESH_TOKEN}|{EMULATOR_CLIENT_ID}|{EMULATOR_CLIENT_SECRET}|idc"


# --- what is handed out ---------------------------------------------------------------------


async def test_a_call_without_a_login_names_the_tool_and_the_variable(tmp_path: Path) -> None:
    """The first call works, or says exactly what to do."""
    async with engine_of(tmp_path) as engine:
        with pytest.raises(SignInRequired, match=r"login.*KIRO_API_KEY"):
            await engine.tokens.access_token()
    assert list(tmp_path.iterdir()) == []


async def test_an_api_key_is_sent_nowhere_before_it_is_used_and_never_refreshed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: a key has no refresh; another identity must not take its place."""
    ide_social(tmp_path, expires_at="2099-01-01T00:00:00Z")
    async with engine_of(tmp_path, emulator, KIRO_API_KEY="ksk_x") as engine:
        token = await engine.tokens.access_token()
        assert (token.value, token.token_type, token.is_explicit) == ("ksk_x", "API_KEY", True)
        for _ in range(2):
            with pytest.raises(SignInRequired, match="KIRO_API_KEY") as caught:
                await engine.tokens.renew(token)
            assert caught.value.code == "auth_expired"
    assert len(emulator.state.requests) == 0


async def test_an_api_key_given_as_an_access_token_is_sent_as_a_key(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: read as an access token, it is answered like one that is invalid."""
    async with engine_of(tmp_path, emulator, KIRO_ACCESS_TOKEN=EMULATOR_API_KEY) as engine:
        token = await engine.tokens.access_token()
        assert (token.token_type, token.profile_arn) == ("API_KEY", "")
        assert await engine.client.list_models()


async def test_an_access_token_without_a_profile_has_it_looked_up(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: without one the service answers "profileArn is required for this request"."""
    async with engine_of(tmp_path, emulator, KIRO_ACCESS_TOKEN=EMULATOR_ACCESS_TOKEN) as engine:
        for _ in range(3):
            assert (await engine.tokens.access_token()).profile_arn == EMULATOR_PROFILE_ARN
    assert len(emulator.state.requests_to("ListAvailableProfiles")) == 1


async def test_requests_about_the_account_use_the_headers_and_origin_of_the_settings(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """What the service takes differs by account, so it is a setting."""
    environ = {
        "KIRO_ACCESS_TOKEN": EMULATOR_ACCESS_TOKEN,
        "KIRO_MCP_EXTRA_HEADERS": '{"x-team": "blue", "user-agent": "me/1"}',
        "KIRO_MCP_ORIGIN": "AI_EDITOR",
    }
    async with engine_of(tmp_path, emulator, **environ) as engine:
        await engine.tokens.management.usage_limits(await engine.tokens.access_token())
    profiles, credits_asked = emulator.state.requests
    for seen in (profiles, credits_asked):
        assert (seen.headers["x-team"], seen.headers["user-agent"]) == ("blue", "me/1")
    assert credits_asked.query["origin"] == "AI_EDITOR"
    assert credits_asked.body == {"origin": "AI_EDITOR", "isEmailRequired": True}


async def test_builder_ids_refusal_to_list_profiles_is_the_answer(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: 403 "AWS Builder ID is not supported for this operation." in each region."""
    async with engine_of(
        tmp_path, emulator, KIRO_ACCESS_TOKEN=EMULATOR_BUILDER_ID_ACCESS_TOKEN
    ) as engine:
        assert (await engine.tokens.access_token()).profile_arn == BUILDER_ID_PROFILE_ARN


async def test_several_profiles_are_an_error_until_the_setting_names_one(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The user decides which one is billed. The service lists them in pages."""
    other = EMULATOR_PROFILE_ARN.replace("EMULATOR", "OTHER")
    emulator.state.accounts.profile_arns = (EMULATOR_PROFILE_ARN, other)
    environ = {"KIRO_ACCESS_TOKEN": EMULATOR_ACCESS_TOKEN}
    async with engine_of(tmp_path, emulator, **environ) as engine:
        with pytest.raises(InvalidRequest, match="Which one") as caught:
            await engine.tokens.access_token()
        assert other in str(caught.value)
    async with engine_of(tmp_path, emulator, **environ, KIRO_PROFILE_ARN=other) as engine:
        assert (await engine.tokens.access_token()).profile_arn == other


STALE_ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/STALE"


async def test_a_profile_that_no_longer_exists_is_looked_up_again_once_and_saved(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: a profile that is not the account's own is not authorized to make the call."""
    store = OwnStore(own_folder(tmp_path), emulator.url)
    login = replace(idc_credential(is_expired=False), profile_arn=STALE_ARN)
    await store.save_login(login)
    async with engine_of(tmp_path, emulator) as engine:
        assert (await engine.client.ask(HELLO)).text
        assert (await engine.client.ask(HELLO)).text
    assert [seen.operation for seen in emulator.state.requests] == [
        "GenerateAssistantResponse",
        "ListAvailableProfiles",
        "GenerateAssistantResponse",
        "GenerateAssistantResponse",
    ]
    kept = store.login()
    assert kept
    assert kept.profile_arn == EMULATOR_PROFILE_ARN
    assert kept.refresh_token == login.refresh_token


async def test_concurrent_calls_with_a_profile_that_no_longer_exists_all_get_the_new_one(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A call that is refused during another call's look-up waits for its result."""
    store = OwnStore(own_folder(tmp_path), emulator.url)
    await store.save_login(replace(idc_credential(is_expired=False), profile_arn=STALE_ARN))
    answers: list[str] = []
    async with engine_of(tmp_path, emulator, KIRO_MCP_MAX_CONCURRENCY="8") as engine:

        async def call() -> None:
            answers.append((await engine.client.ask(HELLO)).text)

        with fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(call)
    assert all(answers)
    assert len(answers) == 8
    assert len(emulator.state.requests_to("ListAvailableProfiles")) == 1


async def test_another_programs_outdated_profile_is_looked_up_and_its_file_stays(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The file belongs to another program, so it must not be changed."""
    login = {"accessToken": EMULATOR_ACCESS_TOKEN, "authMethod": "IdC", "profileArn": STALE_ARN}
    path = write_json(tmp_path / "login.json", login)
    async with engine_of(tmp_path, emulator, KIRO_CREDS_FILE=str(path)) as engine:
        for _ in range(2):
            assert (await engine.client.ask(HELLO)).text
    assert len(emulator.state.requests_to("ListAvailableProfiles")) == 1
    assert json.loads(path.read_text()) == login


@pytest.mark.parametrize(
    ("arns", "environ", "lookups"),
    [
        ((EMULATOR_PROFILE_ARN,), {"KIRO_PROFILE_ARN": STALE_ARN}, 0),
        ((EMULATOR_PROFILE_ARN, BUILDER_ID_PROFILE_ARN), {}, 2),
        ((), {}, 1),
    ],
)
async def test_a_refused_profile_is_not_replaced_by_a_guess(
    arns: tuple[str, ...],
    environ: dict[str, str],
    lookups: int,
    tmp_path: Path,
    emulator: RunningEmulator,
) -> None:
    """The user's choice stays, and only the user may choose among several profiles."""
    emulator.state.accounts.profile_arns = arns
    login = {"accessToken": EMULATOR_ACCESS_TOKEN, "authMethod": "IdC", "profileArn": STALE_ARN}
    path = write_json(tmp_path / "login.json", login)
    async with engine_of(tmp_path, emulator, KIRO_CREDS_FILE=str(path), **environ) as engine:
        for _ in range(2):
            with pytest.raises(AccountBlocked, match="KIRO_PROFILE_ARN"):
                await engine.client.ask(HELLO)
    assert len(emulator.state.requests_to("ListAvailableProfiles")) == lookups
    assert len(emulator.state.requests_to("GenerateAssistantResponse")) == 2


async def test_a_file_may_say_which_endpoint_its_login_is_for(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: files of other gateways name the endpoint that a login works with."""
    login = {"accessToken": EMULATOR_ACCESS_TOKEN, "profileArn": EMULATOR_PROFILE_ARN}
    preferring = {**login, "metadata": {"preferred_endpoint": "AmazonQ"}}
    paths: list[str] = []
    for document in (login, preferring):
        file = write_json(tmp_path / "login", document)
        async with engine_of(tmp_path, emulator, KIRO_CREDS_FILE=str(file)) as engine:
            message = Message(role="user", parts=(TextPart(text="hi"),))
            await engine.client.ask(ChatRequest(messages=(message,)))
        paths.append(emulator.state.requests[-1].path)
    assert paths == ["/generateAssistantResponse", "/"]


# --- refresh --------------------------------------------------------------------------------


@pytest.mark.parametrize(("exp", "count"), [(1_700_000_000, 1), (4_000_000_000, 0), (None, 0)])
async def test_a_given_token_that_says_it_has_ended_is_renewed_before_it_is_sent(
    exp: int | None, count: int, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """RFC 7519, section 4.1.4; the service decides about a token without an end."""
    payload = base64.urlsafe_b64encode(json.dumps({"exp": exp}).encode()).decode().rstrip("=")
    given = f"eyJhbGciOiJub25lIn0.{payload}.sig"
    environ = {
        "KIRO_ACCESS_TOKEN": given,
        "KIRO_REFRESH_TOKEN": EMULATOR_SOCIAL_REFRESH_TOKEN,
        "KIRO_PROFILE_ARN": EMULATOR_PROFILE_ARN,
    }
    async with engine_of(tmp_path, emulator, **environ) as engine:
        token = await engine.tokens.access_token()
    assert refreshes(emulator) == count
    assert (token.value == given) is (count == 0)


async def test_an_expired_token_that_cannot_be_renewed_is_an_error_before_it_is_sent(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The service would only say that it is invalid."""
    file = write_json(tmp_path / "login", {"accessToken": "aoa", "expiresAt": LONG_AGO})
    async with engine_of(tmp_path, emulator, KIRO_CREDS_FILE=str(file)) as engine:
        with pytest.raises(SignInRequired, match="login") as caught:
            await engine.tokens.access_token()
    assert caught.value.next_step
    assert not emulator.state.requests


@pytest.mark.parametrize(("threshold", "count"), [("600", 1), ("60", 0)])
async def test_a_setting_decides_how_early_a_token_is_renewed(
    threshold: str, count: int, tmp_path: Path, emulator: RunningEmulator
) -> None:
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    soon = replace(idc_credential(), expires_at=datetime(2026, 11, 1, 0, 8, tzinfo=UTC))
    await store.save_login(soon)
    environ = {"KIRO_MCP_TOKEN_REFRESH_THRESHOLD": threshold}
    async with engine_of(tmp_path, emulator, **environ) as engine:
        await engine.tokens.access_token()
        await engine.tokens.settle()
    assert refreshes(emulator) == count


@pytest.mark.parametrize("given", [EMULATOR_SOCIAL_REFRESH_TOKEN, encoded()], ids=["bare", "idc"])
async def test_a_refresh_token_of_the_environment_is_renewed_once_and_its_successor_saved(
    given: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The environment cannot be changed, so our own store gets the new token."""
    for _ in range(2):
        async with engine_of(tmp_path, emulator, KIRO_REFRESH_TOKEN=given) as engine:
            token = await engine.tokens.access_token()
            assert token.value.startswith("aoa")
            assert (token.profile_arn, token.is_explicit) == (EMULATOR_PROFILE_ARN, True)
            renewed = (await engine.tokens.resolution()).credential
            assert renewed
            assert renewed.expires_at
    assert refreshes(emulator) == 1
    kept = (own_folder(tmp_path) / "credentials.json").read_text("utf-8")
    assert given not in kept


async def test_64_calls_with_one_expired_token_make_one_refresh(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Calls at the same time share one refresh."""
    await sign_in_before(own_folder(tmp_path), emulator.url)
    values: set[str] = set()

    async def call(engine: Engine) -> None:
        values.add((await engine.tokens.access_token()).value)

    async with engine_of(tmp_path, emulator) as engine, anyio.create_task_group() as calls:
        for _ in range(64):
            calls.start_soon(call, engine)
    assert refreshes(emulator) == 1
    assert len(values) == 1


async def test_a_token_that_somebody_else_has_renewed_is_used_without_a_request(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The source is read again before a refresh."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    async with engine_of(tmp_path, emulator) as engine:
        await engine.tokens.resolution()
        await store.save_login(replace(idc_credential(is_expired=False), access_token="theirs"))
        assert (await engine.tokens.access_token()).value == "theirs"
    assert refreshes(emulator) == 0


async def test_a_rejected_token_is_renewed_once_and_a_second_rejection_ends_it(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: two programs with one login refuse each other for ever."""
    await sign_in_before(own_folder(tmp_path), emulator.url, is_expired=False)
    clock = Clock()
    async with engine_of(tmp_path, emulator, clock) as engine:
        first = await engine.tokens.access_token()
        second = await engine.tokens.renew(first)
        assert second.value != first.value
        assert (await engine.tokens.renew(first)).value == second.value
        with pytest.raises(SignInRequired, match="Another program") as caught:
            await engine.tokens.renew(second)
        assert caught.value.code == "auth_expired"
        assert refreshes(emulator) == 1
        clock.advance(31)
        third = await engine.tokens.renew(second)
        assert third.value not in (first.value, second.value)


async def test_a_token_that_is_refused_in_the_request_for_its_profile_is_renewed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: an access token can become invalid before its stated end."""
    environ = {"KIRO_REFRESH_TOKEN": encoded(), "KIRO_ACCESS_TOKEN": "aoaVoid"}
    async with engine_of(tmp_path, emulator, **environ) as engine:
        token = await engine.tokens.access_token()
        assert (token.value != "aoaVoid", token.profile_arn) == (True, EMULATOR_PROFILE_ARN)
        assert refreshes(emulator) == 1


async def test_a_bare_token_that_is_refused_in_the_request_for_its_profile_is_named_in_the_error(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The error names the variable to renew."""
    async with engine_of(tmp_path, emulator, KIRO_ACCESS_TOKEN="aoaVoid") as engine:
        with pytest.raises(SignInRequired, match="Renew KIRO_ACCESS_TOKEN"):
            await engine.tokens.access_token()
    assert refreshes(emulator) == 0


async def test_the_expired_successor_of_a_rejected_token_is_renewed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A laptop may sleep between a call and its second try."""
    await sign_in_before(own_folder(tmp_path), emulator.url)
    async with engine_of(tmp_path, emulator) as engine:
        token = await engine.tokens.renew(AccessToken(value="long gone"))
    assert token.value not in ("long gone", EMULATOR_ACCESS_TOKEN)
    assert refreshes(emulator) == 1


async def test_a_token_that_ends_soon_is_renewed_while_it_is_still_used(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Botocore's advisory window: try to renew, but do not make anyone wait."""
    clock = Clock()
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    soon = replace(idc_credential(), expires_at=datetime(2026, 11, 1, 0, 3, tzinfo=UTC))
    await store.save_login(soon)
    async with engine_of(tmp_path, emulator, clock) as engine:
        assert (await engine.tokens.access_token()).value == EMULATOR_ACCESS_TOKEN
        await engine.tokens.settle()
        assert (await engine.tokens.access_token()).value != EMULATOR_ACCESS_TOKEN
    assert refreshes(emulator) == 1


@pytest.mark.parametrize(
    "failure",
    [(HttpAnswer(status=500),), (HttpAnswer(status=429),), (Send(b"{"), Cut())],
    ids=["fails", "throttles", "breaks off"],
)
async def test_a_token_is_used_to_its_end_while_it_cannot_be_renewed(
    failure: Script, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """If the sign-in service fails, calls that do not need it must still work."""
    clock = Clock()
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    soon = replace(idc_credential(), expires_at=datetime(2026, 11, 1, 0, 0, 50, tzinfo=UTC))
    await store.save_login(soon)
    emulator.state.enqueue(*[failure] * 3, operation="CreateToken")
    async with engine_of(tmp_path, emulator, clock) as engine:
        assert (await engine.tokens.access_token()).value == EMULATOR_ACCESS_TOKEN
        clock.advance(60)
        with pytest.raises(ServiceUnavailable, match="could not be renewed now"):
            await engine.tokens.access_token()
    login = store.login()
    assert login
    assert login.refresh_token == EMULATOR_REFRESH_TOKEN


async def test_a_refused_refresh_token_is_sent_once_and_never_deleted(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: a wrong region is answered exactly like a revoked token."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    await store.save_login(replace(idc_credential(), refresh_token="aor-stale-token"))
    async with engine_of(tmp_path, emulator) as engine:
        for _ in range(3):
            with pytest.raises(SignInRequired, match="Invalid refresh token") as caught:
                await engine.tokens.access_token()
            assert caught.value.code == "auth_expired"
            assert "aor-stale-token" not in str(caught.value)
    assert refreshes(emulator) == 1
    assert store.login()


@pytest.mark.parametrize("environ", [{}, {"KIRO_REGION": "eu-west-2"}])
async def test_the_error_for_a_refused_token_without_a_region_names_the_region_that_was_tried(
    environ: dict[str, str], tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: a wrong region is answered exactly like a token that has ended."""
    emulator.state.enqueue(REFUSED, operation="CreateToken")
    async with engine_of(tmp_path, emulator, KIRO_REFRESH_TOKEN=encoded(), **environ) as engine:
        with pytest.raises(SignInRequired) as caught:
            await engine.tokens.access_token()
    region = environ.get("KIRO_REGION", "us-east-1")
    assert f"sent to {region}" in caught.value.next_step
    assert "set KIRO_REGION" in caught.value.next_step


async def test_a_refresh_token_that_its_source_has_rotated_meanwhile_is_tried_once(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The source is read again after a refusal."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    await store.save_login(replace(idc_credential(), refresh_token="aor-stale-token"))

    async def rotate() -> None:
        await emulator.state.until(lambda state: bool(state.requests))
        await store.save_login(idc_credential())

    async with engine_of(tmp_path, emulator) as engine, anyio.create_task_group() as others:
        emulator.state.enqueue((Pause(0.5), *REFUSED), operation="CreateToken")
        others.start_soon(rotate)
        assert (await engine.tokens.access_token()).value.startswith("aoa")
    assert refreshes(emulator) == 2


async def test_a_login_that_its_source_has_renewed_meanwhile_is_used(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A refusal that another program's refresh caused must not end the login."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)

    async def renew() -> None:
        await emulator.state.until(lambda state: bool(state.requests))
        await store.save_login(replace(idc_credential(is_expired=False), access_token="theirs"))

    async with engine_of(tmp_path, emulator) as engine, anyio.create_task_group() as others:
        emulator.state.enqueue((Pause(0.5), *REFUSED), operation="CreateToken")
        others.start_soon(renew)
        assert (await engine.tokens.access_token()).value == "theirs"
    assert refreshes(emulator) == 1


async def test_a_cancelled_call_does_not_lose_the_successor_of_a_spent_token(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: if a rotated token is not saved, the login is lost."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    async with engine_of(tmp_path, emulator) as engine:
        async with anyio.create_task_group() as calls:
            calls.start_soon(engine.tokens.access_token)
            await emulator.state.until(lambda state: bool(state.requests))
            calls.cancel_scope.cancel()
        await engine.tokens.settle()
    login = store.login()
    assert login
    assert login.refresh_token in accepted_refresh_tokens(emulator.state)
    assert refreshes(emulator) == 1


async def test_a_logout_during_a_refresh_stays_a_logout(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The file is written only if it still holds the token that was spent."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    assert await store.remove_login(emulator.url)
    renewed = replace(idc_credential(), key=emulator.url, access_token="late")
    assert not await store.renew_login(renewed, spent_refresh_token=EMULATOR_REFRESH_TOKEN)
    assert store.login() is None


# --- a full disk ----------------------------------------------------------------------------


@contextmanager
def full_disk() -> Generator[None]:
    """Let no file of this process grow beyond a few bytes, as on a disk without space."""
    resource = pytest.importorskip("resource", reason="This system has no limits of this kind.")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiles = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # A module that is imported meanwhile would be cut.
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = compiles


def spent(emulator: RunningEmulator) -> list[str]:
    """The refresh tokens that were sent, in order."""
    seen = [one for name in REFRESHES for one in emulator.state.requests_to(name)]
    return [cast("dict[str, str]", one.body)["refreshToken"] for one in seen]


@pytest.mark.parametrize("origin", ["own", "environment", "file", "database"])
async def test_a_login_that_is_renewed_while_the_disk_is_full_is_not_lost(
    origin: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Its old token is spent: only the new one renews it again, and it is written down later."""
    clock = Clock()
    environ = {"KIRO_MCP_WRITE_BACK": "all"}
    if origin == "own":
        await sign_in_before(own_folder(tmp_path), emulator.url)
    elif origin == "environment":
        environ["KIRO_REFRESH_TOKEN"] = encoded()
    else:
        environ |= (_named_ide if origin == "file" else _named_database)(tmp_path)
    async with engine_of(tmp_path, emulator, clock, **environ) as engine:
        with full_disk():
            first = await engine.tokens.access_token()
            assert (await engine.client.ask(HELLO)).text
            assert refreshes(emulator) == 1
            clock.advance(3600)
            second = await engine.tokens.access_token()
            assert (await engine.client.ask(HELLO)).text
        assert first.value != second.value
        assert len(set(spent(emulator))) == refreshes(emulator) == 2
        found = await engine.tokens.resolution()
        assert "could not be saved yet" in "".join(map(str, found.findings))
        assert await engine.tokens.access_token() == second
    async with engine_of(tmp_path, emulator, clock, **environ) as engine:
        assert await engine.tokens.access_token() == second
        clock.advance(3600)
        assert (await engine.tokens.access_token()).value != second.value
    assert len(set(spent(emulator))) == refreshes(emulator) == 3


async def test_a_renewed_login_that_could_not_be_saved_is_dropped_after_a_new_login(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    async with engine_of(tmp_path, emulator) as engine:
        with full_disk():
            await engine.tokens.access_token()
        made = replace(
            idc_credential(is_expired=False), access_token="theirs", refresh_token="aorTheirs"
        )
        await store.save_login(made)
        assert (await engine.tokens.access_token()).value == "theirs"
    login = store.login()
    assert login
    assert login.refresh_token == "aorTheirs"


@pytest.mark.skipif(os.name != "posix", reason="links are those of POSIX")
@pytest.mark.parametrize("renewals", [2, 3])
async def test_the_successor_in_our_own_store_is_renewed_and_not_the_spent_token(
    renewals: int, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Where the file of another program could not be written, our own store has the newest."""
    clock = Clock()
    named = _named_ide(tmp_path)
    path = Path(named["KIRO_CREDS_FILE"])
    async with engine_of(tmp_path, emulator, clock, **named, KIRO_MCP_WRITE_BACK="all") as engine:
        before = path.read_text("utf-8")
        await engine.tokens.access_token()
        # As if that had failed, and only the successor had been kept.
        kept = (await engine.tokens.resolution()).credential
        assert kept
        assert engine.tokens.store
        held = json.loads(before)["refreshToken"]
        await engine.tokens.store.save_successor(digest(held), kept)
        path.write_text(before, "utf-8")
        for count in range(2, renewals + 1):
            clock.advance(3600)
            await engine.tokens.access_token()
            assert len(set(spent(emulator))) == refreshes(emulator) == count
            refresh_token = json.loads(path.read_text("utf-8"))["refreshToken"]
            assert refresh_token in accepted_refresh_tokens(emulator.state)


async def test_a_token_whose_end_cannot_be_read_is_tried_and_the_end_is_named(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """It may still be valid; the service decides."""
    path = ide_social(tmp_path, expires_at="next Tuesday")
    async with engine_of(tmp_path, emulator, KIRO_CREDS_FILE=str(path)) as engine:
        assert (await engine.client.ask(HELLO)).text
        found = await engine.tokens.resolution()
        assert "'next Tuesday' is not a date" in "".join(map(str, found.findings))
    assert refreshes(emulator) == 0


@pytest.mark.parametrize("status", [400, 403])
async def test_a_token_that_a_management_call_refuses_is_renewed_once(
    status: Literal[400, 403], tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: 400 AccessDeniedException "Invalid token" beside the usual 403."""
    emulator.state.accounts.bad_token_status = status
    await sign_in_before(own_folder(tmp_path), emulator.url, is_expired=False)
    clock = Clock()
    async with engine_of(tmp_path, emulator, clock) as engine:
        for count, request in enumerate(
            (
                engine.client.list_models,
                lambda: sign_in_status(engine.tokens),
            ),
            start=1,
        ):
            emulator.state.accounts.expire_access_tokens()
            assert await request()
            assert refreshes(emulator) == count
            clock.advance(60)
        emulator.state.accounts.expire_access_tokens()
        assert (await sign_in_status(engine.tokens)).is_usable
    emulator.state.accounts.expire_access_tokens()
    given = {"KIRO_REFRESH_TOKEN": EMULATOR_SOCIAL_REFRESH_TOKEN, "KIRO_ACCESS_TOKEN": "aoaVoid"}
    async with engine_of(tmp_path / "2", emulator, **given) as engine:
        assert (await engine.client.list_models()).models


@pytest.mark.parametrize("is_renewable", [True, False])
@pytest.mark.parametrize("arn", [EMULATOR_PROFILE_ARN, ""])
async def test_a_token_of_identity_center_is_sent_with_its_type_only_after_a_refusal(
    arn: str, is_renewable: bool, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: some of these logins need `TokenType: SSO_OIDC`, others are refused with it."""
    login = {
        "accessToken": EMULATOR_ACCESS_TOKEN,
        "authMethod": "IdC",
        "profileArn": arn,
        "expiresAt": "2099-01-01T00:00:00Z",
    }
    clock = Clock()
    environ = {"KIRO_CREDS_FILE": str(write_json(tmp_path / "login.json", login))}
    if is_renewable:
        own = replace(idc_credential(is_expired=False), profile_arn=arn)
        await OwnStore(own_folder(tmp_path), emulator.url).save_login(own)
        environ = {}

    def types() -> set[str]:
        seen = [one for one in emulator.state.requests if one.operation not in REFRESHES]
        return {one.headers.get("tokentype", "") for one in seen}

    async with engine_of(tmp_path, emulator, clock, **environ) as engine:
        assert (await engine.client.ask(HELLO)).text
        assert types() == {""}
    emulator.state.accounts.identity_center_token_type = "SSO_OIDC"
    clock.advance(60)
    async with engine_of(tmp_path, emulator, clock, **environ) as engine:
        assert (await engine.client.ask(HELLO)).text
        emulator.state.requests.clear()
        assert (await engine.client.ask(HELLO)).text
        assert (await engine.client.list_models()).models
        assert types() == {"SSO_OIDC"}


async def test_a_token_that_is_refused_with_and_without_its_type_is_an_error_with_a_next_step(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    login = {
        "accessToken": "aoaVoid",
        "authMethod": "IdC",
        "profileArn": EMULATOR_PROFILE_ARN,
        "expiresAt": "2099-01-01T00:00:00Z",
    }
    environ = {"KIRO_CREDS_FILE": str(write_json(tmp_path / "login.json", login))}
    async with engine_of(tmp_path, emulator, **environ) as engine:
        for _ in range(2):
            emulator.state.requests.clear()
            with pytest.raises(SignInRequired, match="KIRO_MCP_WRITE_BACK=all"):
                await engine.client.ask(HELLO)
            seen = [one.headers.get("tokentype", "") for one in emulator.state.requests]
            assert seen == ["", "SSO_OIDC"]


# --- clocks -----------------------------------------------------------------------------------


def jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.sig"


@pytest.mark.parametrize(
    ("members", "count"),
    [({"expiresIn": 3600}, 1), ({"expiresIn": 1}, 1), ({}, 1)],
    ids=["with a lifetime", "with a lifetime that is over", "without a lifetime"],
)
async def test_a_fast_clock_does_not_renew_a_token_twice(
    members: dict[str, object], count: int, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A JWT that seems to be expired when it arrives shows that the clock is wrong."""
    clock = Clock()
    await sign_in_before(own_folder(tmp_path), emulator.url)
    ended = (clock() - timedelta(hours=2)).timestamp()
    for number in range(3):
        answer = {"accessToken": jwt(exp=ended, n=number), "refreshToken": f"aor{number}"}
        emulator.state.enqueue(json_answer({**answer, **members}), operation="CreateToken")
    async with engine_of(tmp_path, emulator, clock) as engine:
        values: set[str] = set()
        for _ in range(4):
            values.add((await engine.tokens.access_token()).value)
            clock.advance(5)
    assert len(values) == 1
    assert refreshes(emulator) == count


async def test_a_clock_that_is_set_back_does_not_keep_a_token_from_being_renewed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    clock = Clock()
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    async with engine_of(tmp_path, emulator, clock) as engine:
        first = await engine.tokens.access_token()
        clock.advance(-86400)
        login = store.login()
        assert login
        soon = replace(login, expires_at=clock() + timedelta(seconds=30))
        await store.save_login(soon)
        assert (await engine.tokens.access_token()).value != first.value


async def test_a_refused_refresh_token_is_not_sent_again_while_its_access_token_lives(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: using it again can sign out the program that has the current one."""
    clock = Clock()
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    soon = replace(idc_credential(), expires_at=clock() + timedelta(minutes=4))
    await store.save_login(replace(soon, refresh_token="aor-stale-token"))
    async with engine_of(tmp_path, emulator, clock) as engine:
        for _ in range(6):
            assert (await engine.tokens.access_token()).value == EMULATOR_ACCESS_TOKEN
            await engine.tokens.settle()
            clock.advance(31)
        clock.advance(120)
        with pytest.raises(SignInRequired, match="Invalid refresh token"):
            await engine.tokens.access_token()
    assert refreshes(emulator) == 1


# --- borrowed logins ------------------------------------------------------------------------


def _named_ide(home: Path) -> dict[str, str]:
    return {"KIRO_CREDS_FILE": str(ide_social(home, machine="kept", region="us-east-1"))}


def _named_database(home: Path) -> dict[str, str]:
    state = {"api.codewhisperer.profile": {"arn": EMULATOR_PROFILE_ARN}}
    return {"KIRO_CLI_DB_FILE": str(kiro_cli_database(home / "x.sqlite3", odic_rows(), state))}


BORROWED = pytest.mark.parametrize("named", [_named_ide, _named_database], ids=["file", "database"])


@BORROWED
async def test_another_programs_login_is_not_renewed_by_default(
    named: Callable[[Path], dict[str, str]], tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: that would sign out the other program."""
    async with engine_of(tmp_path, emulator, **named(tmp_path)) as engine:
        with pytest.raises(SignInRequired, match="KIRO_MCP_WRITE_BACK=all") as caught:
            await engine.tokens.access_token()
        assert caught.value.code == "auth_expired"
    assert refreshes(emulator) == 0


@BORROWED
async def test_with_write_back_another_programs_login_is_renewed_in_its_own_file(
    named: Callable[[Path], dict[str, str]], tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: owners lose fields, region and scopes to tools that write only what they know."""
    environ = named(tmp_path)
    async with engine_of(tmp_path, emulator, **environ, KIRO_MCP_WRITE_BACK="all") as engine:
        token = await engine.tokens.access_token()
    assert refreshes(emulator) == 1
    assert token.profile_arn == EMULATOR_PROFILE_ARN
    if "KIRO_CREDS_FILE" in environ:
        path = Path(environ["KIRO_CREDS_FILE"])
        kept = json.loads(path.read_text("utf-8"))
        assert (kept["machine"], kept["provider"]) == ("kept", "Google")
        assert kept["accessToken"] == token.value
        assert path.stat().st_mode & 0o777 == 0o600
        assert [other.name for other in path.parent.iterdir()] == [path.name]
        refresh_token = kept["refreshToken"]
    else:
        row = row_of(Path(environ["KIRO_CLI_DB_FILE"]), "kirocli:odic:token")
        assert row["scopes"] == ["codewhisperer:completions"]
        assert (row["region"], row["access_token"]) == ("us-east-1", token.value)
        refresh_token = row["refresh_token"]
    assert refresh_token in accepted_refresh_tokens(emulator.state)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
@BORROWED
async def test_no_refresh_token_is_spent_if_the_renewed_login_could_not_be_written_back(
    named: Callable[[Path], dict[str, str]], tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: a read-only mount, and a login that is dead after a restart."""
    home = tmp_path / "read-only"
    environ = named(home)
    folder = Path(next(iter(environ.values()))).parent
    folder.chmod(0o500)
    try:
        async with engine_of(tmp_path, emulator, **environ, KIRO_MCP_WRITE_BACK="all") as engine:
            with pytest.raises(SignInRequired, match="cannot be written") as caught:
                await engine.tokens.access_token()
            assert caught.value.code == "auth_expired"
    finally:
        folder.chmod(0o700)
    assert refreshes(emulator) == 0


async def test_a_found_login_never_goes_to_an_overridden_host(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A setting in a project's folder must not send a login elsewhere."""
    ide_social(tmp_path, expires_at="2099-01-01T00:00:00Z")
    async with engine_of(tmp_path, emulator, KIRO_MCP_WRITE_BACK="all") as engine:
        token = await engine.tokens.access_token()
        assert not token.is_explicit
        with pytest.raises(SignInRequired, match=r"127\.0\.0\.1"):
            await engine.client.list_models()
        with pytest.raises(SignInRequired, match=r"127\.0\.0\.1"):
            await engine.tokens.renew(token)
        with pytest.raises(SignInRequired, match=r"127\.0\.0\.1"):
            await engine.tokens.management.usage_limits(token)
    assert len(emulator.state.requests) == 0


@asynccontextmanager
async def watched_network() -> AsyncGenerator[tuple[str, list[str]]]:
    """Yield a proxy's address, and the hosts that it was asked to connect to; it refuses all."""
    asked: list[str] = []

    async def refuse(stream: SocketStream) -> None:
        async with stream:
            asked.append((await stream.receive()).split()[1].decode())
            await stream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, refuse)
        port = listener.extra(SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", asked
        tasks.cancel_scope.cancel()


async def every_request_of(engine: Engine) -> list[KiroError]:
    """Make each kind of request that carries a token; return what each one met."""
    token = await engine.tokens.access_token()
    met: list[KiroError] = []
    for request in (
        lambda: engine.client.ask(HELLO),
        engine.client.list_models,
        lambda: engine.tokens.management.usage_limits(token),
        lambda: engine.tokens.management.find_profile(token),
        lambda: engine.tokens.renew(token),
    ):
        with pytest.raises(KiroError) as caught:
            await request()
        met.append(caught.value)
    return met


@pytest.mark.parametrize("is_own", [False, True], ids=["the IDE's", "our own"])
async def test_a_login_of_this_machine_goes_to_the_vendors_hosts_and_to_no_other(
    is_own: bool, tmp_path: Path
) -> None:
    """Anybody can rent a name under amazonaws.com, and a project's settings can name it."""
    if is_own:
        login = replace(idc_credential(is_expired=False), kind="social", client=None)
        await OwnStore(own_folder(tmp_path)).save_login(login)
    else:
        ide_social(tmp_path, expires_at="2099-01-01T00:00:00Z")
    usual = {"KIRO_MCP_MAX_RETRIES": "0", "KIRO_MCP_WRITE_BACK": "all"}
    async with watched_network() as (proxy, asked):
        for host in (
            "abc.execute-api.us-east-1.amazonaws.com",
            "q.s3.amazonaws.com",
            "evil.kiro.dev",
            "runtime.us-east-1.kiro.dev:8443",
        ):
            environ = {"KIRO_MCP_ENDPOINT_URL": f"https://{host}", "KIRO_MCP_PROXY_URL": proxy}
            async with engine_of(tmp_path, **usual, **environ) as engine:
                for error in await every_request_of(engine):
                    assert isinstance(error, SignInRequired)
                    assert "does not send" in error.message
        assert asked == []
        async with engine_of(tmp_path, **usual, KIRO_MCP_PROXY_URL=proxy) as engine:
            await every_request_of(engine)
        assert set(asked) == {
            "runtime.us-east-1.kiro.dev:443",
            "management.us-east-1.kiro.dev:443",
            "management.eu-central-1.kiro.dev:443",
            "prod.us-east-1.auth.desktop.kiro.dev:443",
        }


async def test_a_credential_that_is_given_with_a_host_goes_to_that_host(tmp_path: Path) -> None:
    """A user who sets both wants this."""
    async with watched_network() as (proxy, asked):
        environ = {"KIRO_MCP_ENDPOINT_URL": "https://kiro.example", "KIRO_MCP_PROXY_URL": proxy}
        async with engine_of(tmp_path, KIRO_API_KEY="ksk_x", **environ) as engine:
            with pytest.raises(KiroError):
                await engine.client.ask(HELLO)
        assert set(asked) == {"kiro.example:443"}


async def test_our_default_login_never_goes_to_an_overridden_host(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Only a login that was made at that host may be sent there."""
    await OwnStore(own_folder(tmp_path)).save_login(idc_credential())
    async with engine_of(tmp_path, emulator) as engine:
        with pytest.raises(SignInRequired, match=r"127\.0\.0\.1"):
            await engine.tokens.access_token()
    assert len(emulator.state.requests) == 0


async def test_a_bearer_does_not_follow_a_redirect(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The token would go to any host that the answer names."""
    elsewhere = HttpAnswer(status=307, headers={"location": f"{emulator.url}/elsewhere"})
    emulator.state.enqueue((elsewhere,), operation="GetUsageLimits")
    async with engine_of(tmp_path, emulator, KIRO_API_KEY=EMULATOR_API_KEY) as engine:
        token = await engine.tokens.access_token()
        with pytest.raises(KiroError):
            await engine.tokens.management.usage_limits(token)
    assert len(emulator.state.requests) == 1


async def test_unchanged_files_are_not_read_again(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Each call checks the times of the files and reads only files that have changed."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url, is_expired=False)
    async with engine_of(tmp_path, emulator) as engine:
        first = await engine.tokens.resolution()
        assert await engine.tokens.resolution() is first
        await store.save_login(replace(idc_credential(), access_token="theirs"))
        second = await engine.tokens.resolution()
        assert second is not first
        assert await engine.tokens.resolution() is second
        assert await engine.tokens.resolution(is_forced=True) is not second


@pytest.mark.skipif(os.name != "posix", reason="the permission bits of POSIX")
async def test_only_the_user_can_read_the_saved_files(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The folder, too, because the names of its files reveal logins."""
    store = await sign_in_before(own_folder(tmp_path), emulator.url)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in store.folder.iterdir()} == {0o600}


async def test_a_login_made_elsewhere_is_picked_up_by_the_next_call(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """No restart is needed."""
    async with engine_of(tmp_path, emulator) as engine:
        with pytest.raises(SignInRequired):
            await engine.tokens.access_token()
        ide_social(tmp_path, expires_at="2099-01-01T00:00:00Z")
        assert (await engine.tokens.access_token()).profile_arn == EMULATOR_PROFILE_ARN


async def test_kiro_cli_renews_its_own_login_if_it_is_installed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Then kiro-cli knows about the refresh. Here a script replaces kiro-cli."""
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows(profile_arn=EMULATOR_PROFILE_ARN))
    program = tmp_path / "bin" / "kiro-cli"
    program.parent.mkdir()
    update = f"UPDATE auth_kv SET value = replace(value, '{LONG_AGO}', '2099-01-01T00:00:00Z')"
    fresh = f"UPDATE auth_kv SET value = replace(value, '{EMULATOR_ACCESS_TOKEN}', 'aoa-fresh')"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$*" = "debug refresh-auth-token" ] || exit 9\n'
        f"exec python3 -c \"import sqlite3; d = sqlite3.connect('{path}');"
        f' d.execute(\\"{update}\\"); d.execute(\\"{fresh}\\"); d.commit()"\n',
        "utf-8",
    )
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    async with engine_of(tmp_path, emulator, **environ) as engine:
        assert (await engine.tokens.access_token()).value == "aoa-fresh"
    assert refreshes(emulator) == 0


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the program")
@pytest.mark.parametrize("before", ["", "A notice about a new version.\n"])
async def test_the_token_that_kiro_cli_prints_is_used(
    before: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Newer versions print it; it may no longer be in the database."""
    clock = Clock()
    path = kiro_cli_database(tmp_path / CLI_DB, odic_rows())
    program, log = tmp_path / "bin" / "kiro-cli", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >> {log}\n'
        f"printf '{before}'\n"
        f"n=$(($(wc -l < {log})))\n"
        f'printf \'{{"accessToken": "aoa-%s", "expiresAt": "2026-11-01T00:%s0:00Z",'
        f' "profileArn": "{EMULATOR_PROFILE_ARN}"}}\' $n $n\n',
        "utf-8",
    )
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    before_bytes = path.read_bytes()
    async with engine_of(tmp_path, emulator, clock, **environ) as engine:
        token = await engine.tokens.access_token()
        assert (token.value, token.profile_arn) == ("aoa-1", EMULATOR_PROFILE_ARN)
        assert await engine.tokens.access_token() == token
        clock.advance(40)
        assert (await engine.tokens.renew(token)).value == "aoa-2"
        clock.advance(1150)
        assert (await engine.tokens.access_token()).value == "aoa-3"
    assert log.read_text().splitlines() == [
        "chat _ get-kas-token",
        "chat _ get-kas-token --force-refresh",
        "chat _ get-kas-token",
    ]
    assert path.read_bytes() == before_bytes
    assert refreshes(emulator) == 0


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the program")
@pytest.mark.parametrize(
    "output",
    [
        "{}",
        "[]",
        '{"accessToken": "a\\nb"}',
        '{"accessToken": "aoa", "expiresAt": "2020-01-01T00:00:00Z"}',
        "yes",
    ],
)
async def test_the_output_of_kiro_cli_is_used_only_if_it_is_a_valid_token(
    output: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(profile_arn=EMULATOR_PROFILE_ARN))
    program = tmp_path / "bin" / "kiro-cli"
    program.parent.mkdir()
    printed = "yes | head -c 200000" if output == "yes" else f"cat <<'END'\n{output}\nEND\n"
    program.write_text(f"#!/bin/sh\n{printed}\n", "utf-8")
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    async with engine_of(tmp_path, emulator, **environ) as engine:
        with pytest.raises(SignInRequired, match="KIRO_MCP_WRITE_BACK=all"):
            await engine.tokens.access_token()
    assert refreshes(emulator) == 0


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexit 1\n", "no program"])
async def test_kiro_clis_login_is_not_renewed_without_a_working_kiro_cli(
    script: str | None, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """kiro-cli may have been removed, or may be signed out."""
    kiro_cli_database(tmp_path / CLI_DB, odic_rows(profile_arn=EMULATOR_PROFILE_ARN))
    program = tmp_path / "bin" / "kiro-cli"
    program.parent.mkdir()
    if script is not None:
        program.write_text(script, "utf-8")
        program.chmod(0o755)
    async with engine_of(tmp_path, emulator, PATH=str(program.parent)) as engine:
        with pytest.raises(SignInRequired, match="KIRO_MCP_WRITE_BACK=all"):
            await engine.tokens.access_token()
    assert refreshes(emulator) == 0
