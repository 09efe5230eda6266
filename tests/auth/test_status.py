"""Who is signed in, from where, and what is left of the plan."""

from pathlib import Path

from kiro_mcp.auth.sign_in import sign_in_status
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    HttpAnswer,
    RunningEmulator,
)
from kiro_mcp.errors import SignInRequired
from tests.auth.test_provider import engine_of, own_folder, refreshes
from tests.support.logins import ide_social, sign_in_before


async def test_a_login_is_shown_with_its_profile_and_its_credits(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    await sign_in_before(own_folder(tmp_path), emulator.url, is_expired=False)
    async with engine_of(tmp_path, emulator) as engine:
        status = await sign_in_status(engine.tokens)
    assert status.is_signed_in
    assert status.credential
    assert (status.credential.kind, status.profile_arn) == ("idc", EMULATOR_PROFILE_ARN)
    assert status.credits.limit
    assert (status.problem, status.is_misconfigured) == (None, False)
    assert not emulator.state.requests_to("GetProfile")


async def test_an_api_key_is_shown_with_the_profile_that_it_belongs_to(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Observed: the service knows it, and no request carries it."""
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
    assert status.credential
    assert status.credential.kind == "social"
    assert isinstance(status.problem, SignInRequired)
    assert not status.is_misconfigured


async def test_a_token_that_is_refused_is_renewed_before_anything_is_said(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """It may have been voided elsewhere."""
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


async def test_a_source_that_the_user_named_and_that_cannot_be_used_is_said_so(
    tmp_path: Path,
) -> None:
    """No new login would be used before it."""
    async with engine_of(tmp_path, KIRO_CREDS_FILE=str(tmp_path / "missing")) as engine:
        status = await sign_in_status(engine.tokens)
    assert (status.is_signed_in, status.is_misconfigured) == (False, True)
    assert status.credential is None
