"""A sign-in service that nobody reaches."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from kiro_mcp.auth.device_flow import DeviceLogin, KeepPolling, plan_login
from kiro_mcp.auth.oidc import SignInService
from kiro_mcp.auth.token_requests import Refused
from kiro_mcp.auth.tokens import ClientRegistration
from kiro_mcp.errors import ServiceUnavailable
from tests.support.logins import idc_credential

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Nobody:
    """A way to the service that leads nowhere."""

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        raise ServiceUnavailable("Nobody answers.", next_step="Call again.")


SERVICE = SignInService(Nobody(), {}, now=lambda: NOW)
PLAN = plan_login("builder_id", start_url="", region="", overrides={})


async def test_a_refresh_that_reaches_nobody_may_be_tried_again() -> None:
    """Ours: a network that is down says nothing of a token."""
    outcome = await SERVICE.refresh(idc_credential())
    assert outcome == Refused(is_final=False, why="Nobody answers")


async def test_a_poll_that_reaches_nobody_is_followed_by_another() -> None:
    """RFC 8628, section 3.5: after a connection timeout the client polls on."""
    login = DeviceLogin(
        plan=PLAN,
        client=ClientRegistration(client_id="c", client_secret="s"),
        device_code="d",
        user_code="AB-CD",
        verification_url="https://app.kiro.dev/",
        interval_seconds=5,
        expires_at=NOW + timedelta(minutes=5),
    )
    assert await SERVICE.poll(login) == KeepPolling()


async def test_a_login_that_reaches_nobody_is_not_begun() -> None:
    """Ours: whoever wants it has to know at once."""
    with pytest.raises(ServiceUnavailable, match="Nobody answers"):
        await SERVICE.register(PLAN)
    with pytest.raises(ServiceUnavailable, match="Nobody answers"):
        await SERVICE.authorize(PLAN, ClientRegistration(client_id="c"))
