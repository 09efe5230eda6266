"""Device logins, and who is signed in, from where, and what is left of the plan."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from anyio import fail_after
from anyio.lowlevel import checkpoint

from kiro_mcp.auth.oidc import Method
from kiro_mcp.auth.sign_in import sign_in_status
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    Cut,
    HttpAnswer,
    RunningEmulator,
    Send,
)
from kiro_mcp.errors import InternalFault, InvalidRequest, KiroError, SignInRequired
from kiro_mcp.files import RETRY_SECONDS, hold_lock
from tests.auth.test_provider import engine_of, own_folder, refreshes
from tests.support.logins import IDC_START_URL, Clock, ide_social, sign_in_before


@pytest.mark.parametrize("method", ["builder_id", "idc", "google", "github"])
async def test_a_confirmed_login_is_on_disk_and_gives_tokens(
    method: Method, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The published model of AWS SSO OIDC; observed for Kiro's own service."""
    async with engine_of(tmp_path, emulator) as engine:
        start_url = IDC_START_URL if method == "idc" else ""
        login = await engine.sign_in.start(method, start_url=start_url)
        assert login.user_code in login.verification_url
        assert (await engine.sign_in.wait(5)).state == "done"
        token = await engine.tokens.access_token()
        assert token.is_explicit
        assert (await engine.client.list_models()).models
    kept = own_folder(tmp_path) / "credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert token.value in kept.read_text("utf-8")


async def test_polls_keep_the_interval_and_slow_down_for_good(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """RFC 8628, section 3.5: each slow_down adds five seconds to every later poll."""
    emulator.state.accounts.slow_downs = 2
    emulator.state.accounts.pending_polls = 2
    clock = Clock()
    async with engine_of(tmp_path, emulator, clock) as engine:
        await engine.sign_in.start("builder_id")
        assert (await engine.sign_in.wait(5)).state == "done"
    assert clock.slept == [1, 6, 11, 11, 11]


async def test_polling_goes_on_after_the_service_fails(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A minute of trouble must not cost the login."""
    emulator.state.enqueue(
        (HttpAnswer(status=503),),
        (HttpAnswer(status=500),),
        (Send(b"{"), Cut()),
        operation="CreateToken",
    )
    async with engine_of(tmp_path, emulator) as engine:
        await engine.sign_in.start("builder_id")
        assert (await engine.sign_in.wait(5)).state == "done"


async def test_a_login_that_nobody_confirms_ends_at_its_time(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """RFC 8628, section 3.2: the time decides, not the number of polls."""
    emulator.state.accounts.pending_polls = 10_000
    emulator.state.accounts.device_login_seconds = 60
    emulator.state.accounts.poll_interval_seconds = 7
    clock = Clock()
    async with engine_of(tmp_path, emulator, clock) as engine:
        await engine.sign_in.start("builder_id")
        state = await engine.sign_in.wait(5)
    assert state.state == "failed"
    assert "not confirmed in time" in str(state.error)
    assert len(clock.slept) == 9


@pytest.mark.parametrize("outcome", ["access_denied", "expired_token"])
async def test_a_login_that_is_refused_ends_at_once(
    outcome: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """RFC 8628, section 3.5."""
    emulator.state.accounts.device_outcome = outcome  # pyright: ignore[reportAttributeAccessIssue]  # one of its words
    async with engine_of(tmp_path, emulator) as engine:
        await engine.sign_in.start("builder_id")
        assert (await engine.sign_in.wait(5)).state == "failed"
        with pytest.raises(SignInRequired):
            await engine.tokens.access_token()


async def test_starting_twice_is_one_login_and_starting_another_ends_the_first(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Clients repeat calls."""
    emulator.state.accounts.pending_polls = 10_000
    async with engine_of(tmp_path, emulator) as engine:
        first = await engine.sign_in.start("builder_id")
        assert await engine.sign_in.start("builder_id") == first
        other = await engine.sign_in.start("github")
        assert other != first
        assert engine.sign_in.state.login == other


async def test_a_login_that_is_being_saved_says_nothing_of_the_one_that_replaced_it(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    emulator.state.accounts.pending_polls = 0
    clock = Clock()
    async with engine_of(tmp_path, emulator, clock) as engine:
        assert engine.tokens.store
        lock = own_folder(tmp_path) / "credentials.json.lock"
        async with hold_lock(lock, timeout_seconds=1):
            await engine.sign_in.start("google")
            while RETRY_SECONDS not in clock.slept:  # It is confirmed, and waits for the lock.
                await checkpoint()
            emulator.state.accounts.pending_polls = 10_000
            other = await engine.sign_in.start("github")
        while engine.tokens.store.login() is None:
            await checkpoint()
        for _ in range(50):
            await checkpoint()
        assert (engine.sign_in.state.state, engine.sign_in.state.login) == ("pending", other)


async def test_a_registration_is_used_again_until_the_service_forgets_it(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A registration is valid for months."""
    async with engine_of(tmp_path, emulator, clock := Clock()) as engine:
        for _ in range(2):
            await engine.sign_in.start("builder_id")
            assert (await engine.sign_in.wait(5)).state == "done"
        assert len(emulator.state.requests_to("RegisterClient")) == 1
        unknown = HttpAnswer(status=401, body=b'{"error": "invalid_client"}')
        emulator.state.enqueue((unknown,), operation="StartDeviceLogin")
        await engine.sign_in.start("builder_id")
        assert (await engine.sign_in.wait(5)).state == "done"
        assert len(emulator.state.requests_to("RegisterClient")) == 2
        clock.advance(400 * 24 * 3600)
        await engine.sign_in.start("builder_id")
        assert len(emulator.state.requests_to("RegisterClient")) == 3


@pytest.mark.parametrize(("hours", "count"), [(-1, 1), (12, 1), (23, 1), (25, 0), (48, 0)])
async def test_a_registration_that_ends_within_a_day_is_not_used_again(
    hours: int, count: int, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The client has to stay valid for refreshes, not only for the first token."""
    async with engine_of(tmp_path, emulator, clock := Clock()) as engine:
        login = await engine.sign_in.start("builder_id")
        assert (await engine.sign_in.wait(5)).state == "done"
        assert login.client
        assert engine.tokens.store
        ends = clock.now + timedelta(hours=hours)
        client = replace(login.client, expires_at=ends)
        await engine.tokens.store.save_client(login.plan.client_key, client)
        await engine.sign_in.start("builder_id")
        assert len(emulator.state.requests_to("RegisterClient")) == 1 + count


class BrokenClock(Clock):
    """A clock for code that must not sleep."""

    async def sleep(self, seconds: float) -> None:
        raise RuntimeError("broken")


async def test_a_defect_ends_a_login_with_an_error_and_not_in_silence(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A waiting caller must not wait for ever."""
    async with engine_of(tmp_path, emulator, BrokenClock()) as engine:
        await engine.sign_in.start("builder_id")
        state = await engine.sign_in.wait(5)
    assert state.state == "failed"
    assert isinstance(state.error, InternalFault)
    assert "broken" not in str(state.error)


async def test_a_login_that_could_not_be_saved_is_not_started(emulator: RunningEmulator) -> None:
    """It would be lost with the process."""
    async with engine_of(Path("/"), emulator, HOME="") as engine:
        with pytest.raises(InvalidRequest, match="KIRO_MCP_HOME"):
            await engine.sign_in.start("builder_id")
    assert len(emulator.state.requests) == 0


async def test_a_store_that_holds_something_else_is_not_overwritten(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """It may be the only copy of a login."""
    path = own_folder(tmp_path) / "credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text("not json", "utf-8")
    async with engine_of(tmp_path, emulator) as engine:
        with pytest.raises(KiroError, match=r"credentials\.json"):
            await engine.tokens.access_token()
        with pytest.raises(KiroError, match=r"credentials\.json.* Move it away"):
            await engine.sign_in.start("builder_id")
    assert path.read_text("utf-8") == "not json"


async def test_members_of_a_later_version_in_our_store_survive_a_change(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Two versions may run side by side."""
    path = own_folder(tmp_path) / "credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 9, "future": {"a": 1}}', "utf-8")
    with fail_after(10):
        async with engine_of(tmp_path, emulator) as engine:
            await engine.sign_in.start("builder_id")
            assert (await engine.sign_in.wait(5)).state == "done"
    assert '"future"' in path.read_text("utf-8")
    assert '"version": 9' in path.read_text("utf-8")


async def test_a_login_is_shown_with_its_profile_and_its_credits(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    await sign_in_before(own_folder(tmp_path), emulator.url, is_expired=False)
    async with engine_of(tmp_path, emulator) as engine:
        status = await sign_in_status(engine.tokens)
    assert status.is_signed_in
    assert status.resolution.credential
    assert (status.resolution.credential.kind, status.profile_arn) == ("idc", EMULATOR_PROFILE_ARN)
    assert status.credits.limit
    assert (status.problem, status.resolution.problem) == (None, None)
    assert not emulator.state.requests_to("GetProfile")


async def test_an_api_key_is_shown_with_the_profile_that_it_belongs_to(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: the service knows the profile, but no request names it."""
    async with engine_of(tmp_path, emulator, KIRO_API_KEY=EMULATOR_API_KEY) as engine:
        status = await sign_in_status(engine.tokens)
    assert (status.is_signed_in, status.profile_arn) == (True, EMULATOR_PROFILE_ARN)
    assert len(emulator.state.requests_to("GetProfile")) == 1


async def test_an_expired_login_of_another_program_is_shown_with_why_it_is_not_used(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A person wants to know which login it is."""
    ide_social(tmp_path)
    async with engine_of(tmp_path, emulator) as engine:
        status = await sign_in_status(engine.tokens)
    assert not status.is_signed_in
    assert status.resolution.credential
    assert status.resolution.credential.kind == "social"
    assert isinstance(status.problem, SignInRequired)
    assert status.resolution.problem is None


async def test_a_token_that_is_refused_is_renewed_before_anything_is_reported(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Another program may have invalidated it."""
    await sign_in_before(own_folder(tmp_path), emulator.url, is_expired=False)
    emulator.state.enqueue((HttpAnswer(status=401),), operation="GetUsageLimits")
    async with engine_of(tmp_path, emulator) as engine:
        status = await sign_in_status(engine.tokens)
    assert (status.is_signed_in, status.problem) == (True, None)
    assert status.credits.limit
    assert refreshes(emulator) == 1


async def test_a_login_that_may_not_be_sent_there_is_neither_sent_nor_renewed(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A setting in a project's folder must not send a login elsewhere."""
    ide_social(tmp_path, expires_at="2099-01-01T00:00:00Z")
    async with engine_of(tmp_path, emulator, KIRO_MCP_WRITE_BACK="all") as engine:
        status = await sign_in_status(engine.tokens)
    assert isinstance(status.problem, SignInRequired)
    assert "127.0.0.1" in str(status.problem)
    assert status.credits == UsageLimits()
    assert not emulator.state.requests


async def test_a_source_that_the_user_named_and_that_cannot_be_used_is_reported(
    tmp_path: Path,
) -> None:
    """No new login would be used before it."""
    async with engine_of(tmp_path, KIRO_CREDS_FILE=str(tmp_path / "missing")) as engine:
        status = await sign_in_status(engine.tokens)
    assert not status.is_signed_in
    assert status.resolution.problem
    assert status.resolution.credential is None
