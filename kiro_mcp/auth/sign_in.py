"""A device login from its start to its end, polled for in the background.

::

    idle ──start──► pending ──confirmed──► done      the login is on disk before it says so
                      └─────refused, expired──► failed

Starting returns as soon as there is a link to show; polling belongs to a task group that outlives
the call, so that a client which gives up on a call does not give up the login.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kiro_mcp.auth.device_flow import (
    SLOW_DOWN_SECONDS,
    DeviceLogin,
    LoginPlan,
    Method,
    expired,
    plan_login,
)
from kiro_mcp.auth.lock import Sleep
from kiro_mcp.auth.oidc import SignInService
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.auth.tokens import ClientRegistration, Credential
from kiro_mcp.errors import InternalFault, InvalidRequest, KiroError

logger = logging.getLogger(__name__)

SPARE_LIFETIME: Final = timedelta(days=1)
"""How long a kept registration must still live to start a login with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInState:
    """How the latest login of this process stands."""

    state: Literal["idle", "pending", "done", "failed"]
    login: DeviceLogin | None = None
    error: KiroError | None = None


class SignIn:
    """The one login that may be under way."""

    def __init__(
        self,
        service: SignInService,
        store: OwnStore | None,
        overrides: dict[str, str],
        *,
        now: Callable[[], datetime],
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._service = service
        self._store = store
        self._overrides = overrides
        self._now = now
        self._sleep = sleep
        self._tasks: TaskGroup | None = None
        self._polling = anyio.CancelScope()
        self._settled = anyio.Event()
        self._saving: set[anyio.Event] = set()
        self._starting = anyio.Lock()
        self.state = SignInState(state="idle")

    def run_in(self, tasks: TaskGroup) -> None:
        """Poll in a group that outlives the calls."""
        self._tasks = tasks

    async def start(self, method: Method, *, start_url: str = "", region: str = "") -> DeviceLogin:
        """Return a login for a person to confirm: the one under way, if it is the same.

        Raises:
            KiroError: It cannot be started.
        """
        plan = plan_login(method, start_url=start_url, region=region, overrides=self._overrides)
        async with self._starting:
            pending = self.state.login if self.state.state == "pending" else None
            if pending and pending.plan == plan and pending.expires_at > self._now():
                return pending
            self.cancel()
            login = await self._begun(plan)
            self._follow(login)
            return login

    def cancel(self) -> None:
        """Forget the login under way, if there is one."""
        self._polling.cancel()
        if self.state.state == "pending":
            self.state = SignInState(state="idle")
        self._settled.set()

    async def stop(self) -> None:
        """Forget the login under way; return when none can reach the disk any more."""
        self.cancel()
        for saved in list(self._saving):
            await saved.wait()

    async def wait(self, seconds: float) -> SignInState:
        """Wait until the login under way has ended, but no longer than this."""
        with anyio.move_on_after(seconds):
            await self._settled.wait()
        return self.state

    def _follow(self, login: DeviceLogin) -> None:
        if self._tasks is None:
            raise RuntimeError("call run_in() before a login is started")
        self.state = SignInState(state="pending", login=login)
        self._settled = anyio.Event()
        self._polling = anyio.CancelScope()
        self._tasks.start_soon(self._poll_in_background, login, self._polling, self._settled)

    async def _begun(self, plan: LoginPlan) -> DeviceLogin:
        if self._store is None:
            raise InvalidRequest(
                "There is no folder to keep a login in.", next_step="Name one in KIRO_MCP_HOME."
            )
        if plan.is_social:
            return await self._service.authorize(plan, None)
        kept = await self._kept_client(self._store, plan)
        if kept is not None:
            with suppress(InvalidRequest):  # The service may no longer know it: a new one, then.
                return await self._service.authorize(plan, kept)
        client = await self._service.register(plan)
        await self._store.save_client(plan.client_key, client)
        return await self._service.authorize(plan, client)

    async def _kept_client(self, store: OwnStore, plan: LoginPlan) -> ClientRegistration | None:
        try:
            kept = await anyio.to_thread.run_sync(store.client, plan.client_key)
        except (OSError, ValueError):
            return None
        is_good = kept is not None and not kept.has_expired(self._now() + SPARE_LIFETIME)
        return kept if is_good else None

    async def _poll_in_background(
        self, login: DeviceLogin, scope: anyio.CancelScope, settled: anyio.Event
    ) -> None:
        with scope:
            try:
                await self._poll(login)
                ended = SignInState(state="done", login=login)
            except KiroError as error:
                ended = SignInState(state="failed", login=login, error=error)
            except Exception:
                logger.exception("a login failed")
                fault = InternalFault(
                    "The login met a defect of kiro-mcp.",
                    next_step="Its log (stderr) has the details; please report them.",
                )
                ended = SignInState(state="failed", login=login, error=fault)
            if self.state.login is login:  # Another one may have begun while it was saved.
                self.state = ended
        settled.set()

    async def _poll(self, login: DeviceLogin) -> None:
        """Poll as often as the service allows until the login is confirmed, and keep it."""
        assert self._store
        interval_seconds = login.interval_seconds
        while self._now() < login.expires_at:
            await self._sleep(interval_seconds)
            found = await self._service.poll(login)
            if isinstance(found, KiroError):
                raise found
            if isinstance(found, Credential):
                await self._save(self._store, found)
                return
            if found.is_too_fast:
                interval_seconds += SLOW_DOWN_SECONDS
        raise expired(login)

    async def _save(self, store: OwnStore, login: Credential) -> None:
        saved = anyio.Event()
        self._saving.add(saved)
        try:
            with anyio.CancelScope(shield=True):  # The service gives it out once.
                await store.save_login(login)
        finally:
            self._saving.discard(saved)
            saved.set()
