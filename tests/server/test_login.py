"""The tool `login`, for each way in which a client can show the sign-in page."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import mcp_types as types
import pytest
from anyio import fail_after
from anyio.lowlevel import checkpoint
from jsonschema import Draft202012Validator
from mcp.client import Client
from mcp.client.context import ClientRequestContext

from kiro_mcp.emulator import (
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    Accounts,
    EmulatorState,
    RunningEmulator,
    running,
)
from kiro_mcp.files import RETRY_SECONDS, hold_lock
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.tools import declarations
from kiro_mcp.settings import Settings
from tests.support.logins import Clock, ide_social, sign_in_before

Reply = Literal["accept", "decline", "cancel"]
OTHER_ARN = EMULATOR_PROFILE_ARN.replace("EMULATOR", "OTHER")
MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


class Person:
    """A person who gets sign-in pages and accepts or declines them."""

    def __init__(self, reply: Reply = "accept") -> None:
        self.reply: Reply = reply
        self.pages: list[types.ElicitRequestURLParams] = []

    async def __call__(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestURLParams)
        self.pages.append(params)
        return types.ElicitResult(action=self.reply)


@asynccontextmanager
async def connected(
    home: Path,
    emulator: RunningEmulator,
    *,
    mode: str = "2026-07-28",
    person: Person | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    **environ: str,
) -> AsyncGenerator[Client]:
    clock = Clock()
    given = {"HOME": str(home), "KIRO_MCP_ENDPOINT_URL": emulator.url, **environ}

    def engine() -> Engine:
        return Engine(Settings.load(given), environ=given, now=clock, sleep=sleep or clock.sleep)

    with fail_after(15):
        async with Client(build_server(engine), mode=mode, elicitation_callback=person) as client:
            yield client


async def call(client: Client, tool: str = "login", **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    if tool == "login":
        validator: Any = Draft202012Validator(declarations()[2].output_schema or False)
        validator.validate(result.structured_content)
    return result.structured_content


@MODES
async def test_without_a_way_to_ask_link_and_code_come_as_text(
    mode: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """This way must work in every client."""
    emulator.state.accounts.pending_polls = 0
    async with connected(tmp_path, emulator, mode=mode) as client:
        pending = await call(client)
        assert pending["state"] == "pending"
        assert pending["user_code"] in pending["verification_url"]
        assert pending["verification_url"] in pending["next_step"]
        await emulator.state.until(lambda state: bool(state.requests_to("CreateToken")))
        while (status := await call(client, action="status"))["state"] == "pending":
            pass
        assert status["state"] == "signed_in"
        assert status["account"] == "p…@example.com"
        assert status["credits"]["plan"] == "KIRO PRO"
        assert (await call(client, "ask_claude", prompt="hi"))["text"]


@MODES
@pytest.mark.parametrize("arguments", [{}, {"action": "start", "method": "google"}])
async def test_a_client_that_shows_pages_is_given_the_page_and_answers_signed_in(
    mode: str, arguments: dict[str, Any], tmp_path: Path, emulator: RunningEmulator
) -> None:
    """MCP 2026-07-28 by another round of the call; MCP 2025-11-25 by a request to the client."""
    person = Person()
    async with connected(tmp_path, emulator, mode=mode, person=person) as client:
        state = await call(client, **arguments)
    assert state["state"] == "signed_in"
    [page] = person.pages
    assert page.url.startswith("https://")
    assert "EMUL-" in page.message


@MODES
async def test_asking_claude_signed_out_leads_to_an_answer(
    mode: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The first call works."""
    person = Person()
    async with connected(tmp_path, emulator, mode=mode, person=person) as client:
        answer = await call(client, "ask_claude", prompt="Say hello")
    assert "Say hello" in answer["text"]
    assert len(person.pages) == 1


@MODES
@pytest.mark.parametrize("reply", ["decline", "cancel"])
async def test_polling_stops_when_the_person_declines(
    mode: str, reply: Reply, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """No means no."""
    emulator.state.accounts.pending_polls = 10_000
    person = Person(reply)
    async with connected(tmp_path, emulator, mode=mode, person=person) as client:
        assert (await call(client))["state"] == "signed_out"
        result = await client.call_tool("ask_claude", {"prompt": "hi"})
    assert result.is_error
    assert "auth_required" in str(result.content)
    assert len(person.pages) == 2


@MODES
async def test_a_second_login_while_one_is_pending_shows_the_same_page(
    mode: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The page that the person has open must stay the right one."""

    async def never(_: float) -> None:
        await anyio.sleep_forever()

    async with connected(tmp_path, emulator, mode=mode, sleep=never) as client:
        pages = [
            (await call(client, **arguments))["verification_url"]
            for arguments in ({}, {"action": "start"}, {"action": "status"}, {})
        ]
        other = await call(client, action="start", method="github")
    assert pages == [pages[0]] * 4
    assert other["verification_url"] != pages[0]


@MODES
async def test_somebody_who_is_signed_in_is_not_asked_again(
    mode: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """`login` without an action says who is signed in; only `start` begins another login."""
    person = Person()
    store = await sign_in_before(tmp_path / "own", emulator.url)
    async with connected(
        tmp_path, emulator, mode=mode, person=person, KIRO_MCP_HOME=str(store.folder)
    ) as client:
        assert (await call(client))["state"] == "signed_in"
        assert person.pages == []
        assert (await call(client, action="start"))["state"] == "signed_in"
    assert len(person.pages) == 1


@MODES
async def test_asking_signed_out_is_auth_required_if_the_client_cannot_show_a_page(
    mode: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """It names the tool to call."""
    async with connected(tmp_path, emulator, mode=mode) as client:
        result = await client.call_tool("ask_claude", {"prompt": "hi"})
    assert "auth_required" in str(result.content)
    assert "`login`" in str(result.content)
    assert len(emulator.state.requests) == 0


async def test_a_login_is_not_offered_where_it_would_not_be_used(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A key in the settings comes first, so it must be renewed."""
    person = Person()
    async with connected(tmp_path, emulator, person=person, KIRO_API_KEY="ksk_bad") as client:
        result = await client.call_tool("ask_claude", {"prompt": "hi"})
        status = await call(client)
    assert "auth_expired" in str(result.content)
    assert status["state"] == "signed_out"
    assert "KIRO_API_KEY" in status["next_step"]
    assert person.pages == []


async def test_an_organisations_login_without_a_start_url_says_what_is_missing(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    async with connected(tmp_path, emulator) as client:
        result = await client.call_tool("login", {"action": "start", "method": "idc"})
    assert result.is_error
    assert "start_url" in str(result.content)


@pytest.mark.parametrize(
    ("arns", "inactive", "says"),
    [
        ((), (), "has no Kiro profile"),
        ((EMULATOR_PROFILE_ARN, OTHER_ARN), (), "Which one should be billed"),
        ((EMULATOR_PROFILE_ARN,), (EMULATOR_PROFILE_ARN,), "no Kiro profile of this login is"),
    ],
    ids=["none", "two", "one that is not active"],
)
async def test_a_login_without_a_profile_to_bill_is_signed_in_and_says_what_is_missing(
    arns: tuple[str, ...], inactive: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    state = EmulatorState(accounts=Accounts(profile_arns=arns, inactive_profile_arns=inactive))
    async with (
        running(state) as emulator,
        connected(tmp_path, emulator, KIRO_ACCESS_TOKEN=EMULATOR_ACCESS_TOKEN) as client,
    ):
        status = await call(client, action="status")
        assert status["state"] == "signed_in"
        [warning] = status["warnings"]
        assert says in warning
        assert status["next_step"]
        assert "ask_claude" not in status["next_step"]
        assert (await call(client))["state"] == "signed_in"


async def test_a_profile_that_is_not_active_does_not_count(tmp_path: Path) -> None:
    accounts = Accounts(
        profile_arns=(OTHER_ARN, EMULATOR_PROFILE_ARN), inactive_profile_arns=(OTHER_ARN,)
    )
    async with (
        running(EmulatorState(accounts=accounts)) as emulator,
        connected(tmp_path, emulator, KIRO_ACCESS_TOKEN=EMULATOR_ACCESS_TOKEN) as client,
    ):
        status = await call(client, action="status")
        assert (status["state"], status["profile_arn"]) == ("signed_in", EMULATOR_PROFILE_ARN)
        assert (await call(client, "ask_claude", prompt="hi"))["text"]


async def test_a_login_that_is_being_saved_does_not_outlive_a_logout(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    emulator.state.accounts.pending_polls = 0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await checkpoint()

    folder = tmp_path / ".local/share/kiro-mcp"
    async with connected(tmp_path, emulator, sleep=sleep) as client:
        async with (
            anyio.create_task_group() as tasks,
            hold_lock(folder / "credentials.json.lock", timeout_seconds=1),
        ):
            await call(client, action="start", method="google")
            while RETRY_SECONDS not in slept:  # It is confirmed, and waits for the lock.
                await checkpoint()
            tasks.start_soon(partial(call, client, action="logout"))
            for _ in range(50):
                await checkpoint()
        assert (await call(client, action="status"))["state"] == "signed_out"


async def test_logging_out_removes_only_our_own_login(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Logins of other programs stay."""
    ide = ide_social(tmp_path, expires_at="2099-01-01T00:00:00Z")
    before = ide.read_bytes()
    store = await sign_in_before(tmp_path / "own", emulator.url)
    async with connected(tmp_path, emulator, KIRO_MCP_HOME=str(store.folder)) as client:
        state = await call(client, action="logout")
        again = await call(client, action="logout")
    assert state["state"] == "signed_out"
    assert "the Kiro IDE" in state["next_step"]
    assert "no login of our own" in again["next_step"]
    assert ide.read_bytes() == before
    assert store.login() is None
    assert len(emulator.state.requests) == 0


async def test_the_status_shows_everything_but_secrets(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Source, expiry, region, profile, account, credits, and the sources that were skipped."""
    ide_social(tmp_path)
    store = await sign_in_before(tmp_path / "own", emulator.url)
    async with connected(tmp_path, emulator, KIRO_MCP_HOME=str(store.folder)) as client:
        result = await client.call_tool("login", {"action": "status"})
    status = result.structured_content
    assert status["state"] == "signed_in"
    assert (status["method"], status["region"]) == ("idc", "us-east-1")
    assert status["expires_at"] > "2026-11-01T00:59"
    assert status["credits"]["used"] == 12.5
    assert status["credits"]["resets_at"]
    assert "used, made here" in status["looked_at"][0]
    shown = result.model_dump_json()
    login = store.login()
    assert login
    assert login.client
    for secret in (login.access_token, login.refresh_token, login.client.client_secret):
        assert secret not in shown
    assert "person@example.com" not in shown


async def test_an_api_keys_profile_is_asked_for_and_credits_that_fail_are_only_a_warning(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: an API key may not list profiles, but has one."""
    async with connected(tmp_path, emulator, KIRO_API_KEY=EMULATOR_API_KEY) as client:
        status = await call(client)
        assert status["profile_arn"].endswith("profile/EMULATOR")
    assert len(emulator.state.requests_to("ListAvailableProfiles")) == 0
    async with connected(
        tmp_path,
        emulator,
        KIRO_API_KEY=EMULATOR_API_KEY,
        KIRO_MCP_ENDPOINT_URL="http://127.0.0.1:1",
    ) as client:
        status = await call(client)
    assert status["state"] == "signed_in"
    assert "credits" in status["warnings"][0]
