"""Signing in: runs a device login, and returns who is signed in.

::

    idle ──start──► pending ──confirmed──► done      only after the login is on disk
                      └─────refused, expired──► failed

`start` returns as soon as a link can be shown. Polling runs in a task group that outlives the call,
so the login goes on if a client cancels the call.
`sign_in_status` returns who is signed in, from which source, and what the plan has left.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kiro_mcp.auth import oidc
from kiro_mcp.auth.credentials import ClientRegistration, Credential, Resolution
from kiro_mcp.auth.oidc import DeviceLogin, LoginPlan, Method
from kiro_mcp.auth.provider import TokenProvider
from kiro_mcp.auth.refresh import SignInService
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.errors import (
    InternalFault,
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.files import Sleep
from kiro_mcp.redaction import mask, mask_address

logger = logging.getLogger(__name__)

SPARE_LIFETIME: Final = timedelta(days=1)
"""How much longer a saved client registration must be valid to start a login with it."""


@dataclass(slots=True)
class SignInState:
    """The latest login of this process."""

    state: Literal["idle", "pending", "done", "failed"]
    login: DeviceLogin | None = None
    error: KiroError | None = None
    polling: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    has_ended: anyio.Event = field(default_factory=anyio.Event)


class SignIn:
    """Runs at most one device login at a time."""

    def __init__(
        self, service: SignInService, store: OwnStore | None, *, sleep: Sleep = anyio.sleep
    ) -> None:
        self._service = service
        self._store = store
        self._now = service.now
        self._sleep = sleep
        self._tasks: TaskGroup | None = None
        self._saving = anyio.Lock()
        self._starting = anyio.Lock()
        self.state = SignInState("idle")

    def run_in(self, tasks: TaskGroup) -> None:
        """Poll in this task group, which must outlive the calls."""
        self._tasks = tasks

    async def start(self, method: Method, *, start_url: str = "", region: str = "") -> DeviceLogin:
        """Return a login for a person to confirm: the pending one, if it has the same arguments.

        Raises:
            KiroError: The login cannot be started.
        """
        overrides = self._service.overrides
        plan = oidc.plan_login(method, start_url=start_url, region=region, overrides=overrides)
        async with self._starting:
            pending = self.pending
            if pending and pending.plan == plan and pending.expires_at > self._now():
                return pending
            self.cancel()
            assert self._tasks, "run_in() comes before the first login"
            login = await self._begin(plan)
            self.state = SignInState("pending", login)
            self._tasks.start_soon(self._poll, self.state, login)
            return login

    @property
    def pending(self) -> DeviceLogin | None:
        """The login that waits for a person to confirm it."""
        return self.state.login if self.state.state == "pending" else None

    def cancel(self) -> None:
        """Cancel the pending login, if any."""
        if self.pending:
            self.state.polling.cancel()
            self.state.has_ended.set()
            self.state = SignInState("idle")

    async def stop(self) -> None:
        """Cancel the pending login, and wait until no login is being saved."""
        self.cancel()
        async with self._saving:
            pass

    async def wait(self, seconds: float) -> SignInState:
        """Wait until the pending login has ended, at most this long, and return the state."""
        if self.pending:
            with anyio.move_on_after(seconds):
                await self.state.has_ended.wait()
        return self.state

    async def _begin(self, plan: LoginPlan) -> DeviceLogin:
        """Get a link and a code, with a saved client registration or a new one."""
        if self._store is None:
            raise InvalidRequest(
                "No folder is known in which a login can be saved.",
                next_step="Set KIRO_MCP_HOME to a folder.",
            )
        if plan.is_social:
            return await self._authorize(plan, None)
        saved = None
        with suppress(OSError, ValueError):
            saved = await anyio.to_thread.run_sync(self._store.client, plan.client_key)
        if saved is not None and not saved.has_expired(self._now() + SPARE_LIFETIME):
            with suppress(InvalidRequest):  # The service may no longer know it: register again.
                return await self._authorize(plan, saved)
        answer = await self._service.send(oidc.registration_request(plan))
        client = oidc.read_registration_answer(plan, *answer)
        await self._store.save_client(plan.client_key, client)
        return await self._authorize(plan, client)

    async def _authorize(self, plan: LoginPlan, client: ClientRegistration | None) -> DeviceLogin:
        answer = await self._service.send(oidc.authorization_request(plan, client))
        return oidc.read_authorization_answer(plan, client, *answer, self._now())

    async def _poll(self, run: SignInState, login: DeviceLogin) -> None:
        """Poll as often as the service allows until the login has ended; save a confirmed one."""
        assert self._store
        interval_seconds = login.interval_seconds
        with run.polling:
            try:
                while run.state == "pending":
                    if self._now() >= login.expires_at:
                        raise SignInRequired(
                            f"The sign-in code {login.user_code} was not confirmed in time.",
                            next_step="Start again: call `login` with action `start`, or run"
                            " `kiro-mcp login`.",
                        )
                    await self._sleep(interval_seconds)
                    try:
                        answer = await self._service.send(oidc.poll_request(login))
                    except ServiceUnavailable:
                        continue  # RFC 8628, section 3.5: poll again after a failure.
                    found = oidc.read_poll_answer(login, *answer, self._now())
                    if not isinstance(found, Credential):
                        interval_seconds += found
                        continue
                    with anyio.CancelScope(shield=True):  # The service sends the tokens only once.
                        async with self._saving:
                            if run is self.state:  # Not cancelled, as by a logout.
                                await self._store.save_login(found)
                    run.state = "done"
            except KiroError as error:
                run.state, run.error = "failed", error
            except Exception:
                logger.exception("a login failed")
                run.state, run.error = "failed", InternalFault.met_by("The login")
        run.has_ended.set()


# --- who is signed in ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInStatus:
    """What `login` and `kiro-mcp status` show of a login. Its texts contain no secret."""

    is_signed_in: bool
    resolution: Resolution
    account: str = ""
    """The masked e-mail address or token: enough to distinguish two accounts."""
    profile_arn: str = ""
    region: str = ""
    credits: UsageLimits = field(default_factory=UsageLimits)
    problem: KiroError | None = None
    """Why nobody is signed in, why calls cannot be made, or why the credits are unknown."""
    is_usable: bool = True
    """Whether calls can be made with it. If not, `problem` says what is missing."""


async def sign_in_status(tokens: TokenProvider) -> SignInStatus:
    """Return who is signed in. Renews an expired login first, and asks the service for credits."""
    try:
        token = await tokens.access_token()
    except KiroError as error:
        resolution = await tokens.resolution()
        credential = resolution.credential
        # A person can be signed in although calls fail, for example without a profile.
        is_in = credential is not None and not isinstance(error, SignInRequired)
        return SignInStatus(
            is_signed_in=is_in,
            is_usable=False,
            account=mask(credential.access_token) if credential and is_in else "",
            resolution=resolution,
            problem=error,
        )
    resolution = await tokens.resolution()
    credential = resolution.credential
    credits, problem = UsageLimits(), None
    try:
        try:
            credits = await tokens.management.usage_limits(token)
        except SignInRequired as error:
            if error.status is None:  # Not refused by the service: the host may not receive it.
                raise
            credits = await tokens.management.usage_limits(await tokens.renew(token))
    except KiroError as error:
        problem = error
    arn = token.profile_arn
    if credential and credential.kind == "api_key" and problem is None:
        token = await tokens.access_token()  # The renewal may have found the key's region.
        arn = await tokens.management.find_key_profile(token)
    return SignInStatus(
        is_signed_in=not isinstance(problem, SignInRequired) or problem.code != "auth_expired",
        resolution=resolution,
        account=mask_address(credits.email) if credits.email else mask(token.value),
        profile_arn=arn,
        region=token.region,
        credits=credits,
        problem=problem,
    )
