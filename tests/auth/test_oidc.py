"""Sign-in services that cannot be reached."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio import fail_after

from kiro_mcp.auth.machine import Machine
from kiro_mcp.auth.oidc import Method, TokenRequest
from kiro_mcp.auth.refresh import Refresher, SignInService
from kiro_mcp.auth.sign_in import SignIn
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.errors import ServiceUnavailable, SignInRequired
from kiro_mcp.settings import Settings
from tests.support.logins import idc_credential, ide_social

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Network:
    """Gives one answer after the other. After the last one, the service cannot be reached."""

    def __init__(self, *answers: dict[str, str] | None) -> None:
        self.answers = list(answers)

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            raise ServiceUnavailable("Nobody answers.", next_step="Call again.")
        return 200, {}, json.dumps(answer).encode()


@asynccontextmanager
async def signing_in(network: Network, folder: Path) -> AsyncGenerator[SignIn]:
    async def sleep(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    service = SignInService(network, {}, now=lambda: NOW)
    sign_in = SignIn(service, OwnStore(folder), sleep=sleep)
    with fail_after(10):
        async with anyio.create_task_group() as tasks:
            sign_in.run_in(tasks)
            yield sign_in
            tasks.cancel_scope.cancel()


async def test_a_refresh_without_an_answer_can_be_tried_again(tmp_path: Path) -> None:
    """A network that is down says nothing about a token."""
    store = OwnStore(tmp_path)
    await store.save_login(idc_credential())
    network = Network(None, {"accessToken": "new"})
    machine = Machine(home=tmp_path, platform="linux", environ={})
    sources = Sources(Settings.load({}), machine, store, now=lambda: NOW)
    service = SignInService(network, {}, now=lambda: NOW)
    refresher = Refresher(sources, service, sleep=anyio.sleep)
    held = sources.look().require()
    with fail_after(10):
        with pytest.raises(ServiceUnavailable, match=r"renewed now \(Nobody answers\)"):
            await refresher.refresh(held)
        assert (await refresher.refresh(held)).access_token == "new"
    assert network.answers == []


async def test_a_refused_refresh_does_not_spend_the_token_of_another_program(
    tmp_path: Path,
) -> None:
    """The user signs out of kiro-mcp meanwhile, so the Kiro IDE's login is the next one."""
    ide_social(tmp_path)
    store = OwnStore(tmp_path / "own")
    await store.save_login(idc_credential())
    sent: list[bytes] = []

    class Service:
        async def fetch(
            self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
        ) -> tuple[int, Mapping[str, str], bytes]:
            sent.append(body)
            await store.remove_login("")
            return 400, {}, b'{"error": "invalid_grant"}'

    machine = Machine(home=tmp_path, platform="linux", environ={})
    sources = Sources(Settings.load({}), machine, store, now=lambda: NOW)
    refresher = Refresher(sources, SignInService(Service(), {}, now=lambda: NOW), sleep=anyio.sleep)
    with fail_after(10), pytest.raises(SignInRequired, match="kiro-mcp's own login has ended"):
        await refresher.refresh(sources.look().require())
    assert len(sent) == 1


async def test_two_names_of_one_file_share_one_refresh(tmp_path: Path) -> None:
    """Dot files are often links: two refreshes of one token would end the login."""
    file = ide_social(tmp_path)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    network = Network({"accessToken": "new", "refreshToken": "next"})
    service = SignInService(network, {}, now=lambda: NOW)
    machine = Machine(home=None, platform="linux", environ={})
    renewed: list[str] = []

    async def refresh(path: Path) -> None:
        settings = Settings.load({"KIRO_CREDS_FILE": str(path), "KIRO_MCP_WRITE_BACK": "all"})
        sources = Sources(settings, machine, OwnStore(tmp_path / "own"), now=lambda: NOW)
        held = sources.look().require()
        refresher = Refresher(sources, service, sleep=anyio.sleep)
        renewed.append((await refresher.refresh(held)).access_token)

    with fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refresh, file)
            tasks.start_soon(refresh, link)
    assert renewed == ["new", "new"]


@pytest.mark.parametrize("method", ["builder_id", "google"])
async def test_a_login_does_not_start_without_the_sign_in_service(
    method: Method, tmp_path: Path
) -> None:
    """The user has to know at once."""
    async with signing_in(Network(), tmp_path) as sign_in:
        with pytest.raises(ServiceUnavailable, match="Nobody answers"):
            await sign_in.start(method)
        assert sign_in.state.state == "idle"


async def test_waiting_without_a_pending_login_ends_at_once(tmp_path: Path) -> None:
    """The server may have been started again since it showed the page."""
    async with signing_in(Network(), tmp_path) as sign_in:
        assert (await sign_in.wait(60)).state == "idle"


async def test_polling_continues_after_a_poll_without_an_answer(tmp_path: Path) -> None:
    """RFC 8628, section 3.5: after a connection timeout the client polls on."""
    page = "https://app.kiro.dev/account/device"
    begun = {"deviceCode": "d", "userCode": "AB-CD", "verificationUri": page}
    network = Network(begun, None, {"accessToken": "a", "refreshToken": "r"})
    async with signing_in(network, tmp_path) as sign_in:
        await sign_in.start("google")
        assert (await sign_in.wait(10)).state == "done"
    assert network.answers == []


async def test_a_login_that_is_confirmed_as_it_is_cancelled_is_not_saved(tmp_path: Path) -> None:
    """After a logout, nobody is signed in."""

    class LateNetwork(Network):
        async def fetch(
            self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
        ) -> tuple[int, Mapping[str, str], bytes]:
            if len(self.answers) == 1:
                logout.set()
                with anyio.CancelScope(shield=True):
                    await cancelled.wait()
            return await super().fetch(method, url, headers=headers, body=body)

    logout, cancelled = anyio.Event(), anyio.Event()
    page = "https://app.kiro.dev/account/device"
    begun = {"deviceCode": "d", "userCode": "AB-CD", "verificationUri": page}
    network = LateNetwork(begun, {"accessToken": "a", "refreshToken": "r"})
    async with signing_in(network, tmp_path) as sign_in:
        await sign_in.start("google")
        await logout.wait()
        await sign_in.stop()
        cancelled.set()
        await anyio.wait_all_tasks_blocked()
    assert network.answers == []
    assert OwnStore(tmp_path).login() is None


async def test_an_organisations_own_service_gets_a_form_and_may_answer_with_a_page() -> None:
    """RFC 6749, section 6; a proxy's page is read as an answer that says nothing."""

    class Proxy:
        async def fetch(
            self, method: str, url: str, *, headers: Mapping[str, str], body: bytes
        ) -> tuple[int, Mapping[str, str], bytes]:
            assert (method, url) == ("POST", "https://acme.okta.com/t")
            assert headers["Content-Type"] == "application/x-www-form-urlencoded"
            assert body == b"scope=a+b&refresh_token=r%26%3D"
            return 403, {}, b"<html>blocked by a proxy</html>"

    service = SignInService(Proxy(), {}, now=lambda: NOW)
    members = {"scope": "a b", "refresh_token": "r&="}
    request = TokenRequest("https://acme.okta.com/t", members, is_form=True)
    assert await service.send(request) == (403, {})
