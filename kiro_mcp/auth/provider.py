"""Returns the token of the credential in use, and renews it in time: the entry to this layer.

Nothing is read or sent before the first call. Each call checks whether the files that decided on
the credential have changed, so the next call uses a login that was made elsewhere. All calls that
need a refresh share one, and cancelling a call does not cancel the refresh.
"""

import logging
import random
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kiro_mcp.auth.credentials import Credential, Resolution, as_access_token, known_profile
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.refresh import (
    MANDATORY_SECONDS,
    MAX_JITTER_SECONDS,
    Refresher,
    SignInService,
    has_cooled_down,
    must_sign_in,
)
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore, hosts_key
from kiro_mcp.chat import AccessToken, TokenType
from kiro_mcp.client.http import Fetcher
from kiro_mcp.client.management import Management
from kiro_mcp.client.retry import TokenRecovery
from kiro_mcp.errors import (
    CallCancelled,
    InternalFault,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.files import Sleep
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Refresh:
    """A refresh in progress, shared by all calls that need it."""

    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=lambda: anyio.CancelScope(shield=True))
    """Shielded from the call's cancellation: else the token that replaces a spent one is lost."""
    outcome: Credential | KiroError = field(
        default_factory=lambda: CallCancelled("The server is ending.")
    )


class TokenProvider:
    """Returns access tokens for the credential in use."""

    def __init__(
        self,
        settings: Settings,
        *,
        http: Fetcher,
        environ: Mapping[str, str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Sleep = anyio.sleep,
        key_header: str = "",
    ) -> None:
        machine = Machine.of(environ, sys.platform)
        home = own_home(machine, settings.home)
        overrides = {**settings.endpoint_overrides, **settings.sign_in_overrides}
        self.store = OwnStore(home, hosts_key(overrides), sleep=sleep) if home else None
        self.service = SignInService(http, settings.sign_in_overrides, now=now)
        self.management = Management(http, settings, now=now)
        self._settings = settings
        self._sources = Sources(settings, machine, self.store, now=now, key_header=key_header)
        self._refresher = Refresher(self._sources, self.service, sleep=sleep)
        self._now = now
        jitter_seconds = random.uniform(0, MAX_JITTER_SECONDS)  # noqa: S311  # spreads load only
        self._early_seconds = settings.token_refresh_threshold_seconds + jitter_seconds
        self._tasks: TaskGroup | None = None
        self._resolution: Resolution | None = None
        # In memory only. By identity:
        self._refreshes: dict[str, _Refresh] = {}
        self._tried_at: dict[str, datetime] = {}
        self._types: dict[str, TokenType] = {}  # Only the unusual ones.
        # By access token, only the latest:
        self._renewed_at: dict[str, datetime] = {}
        self._renewal_errors: dict[str, KiroError] = {}
        self._profiles: dict[str, str] = {}
        self._profile_asked_again_for = ""
        self._profile_lock = anyio.Lock()  # Calls that need the same answer ask once.
        self._key_region = ""  # The region of an API key, from the service; "" if not yet asked.

    def run_in(self, tasks: TaskGroup) -> None:
        """Run refreshes in this task group, which must outlive the calls."""
        self._tasks = tasks

    async def settle(self) -> None:
        """Wait for all refreshes in progress, so that no renewed token is lost."""
        for refresh in list(self._refreshes.values()):
            await refresh.done.wait()
        await self._refresher.save_unsaved()

    def abandon(self) -> None:
        """Cancel all refreshes in progress."""
        for refresh in self._refreshes.values():
            refresh.scope.cancel()

    async def resolution(self, *, is_forced: bool = False) -> Resolution:
        """Return which credential is in use, and why. Search again if a file has changed."""
        before = None if is_forced else self._resolution
        # An unreadable file may have become readable without a change of its content.
        if before is None or before.credential is None:
            self._resolution = await anyio.to_thread.run_sync(self._sources.look)
        elif before.watched:  # Without files, only the environment decides, and it cannot change.
            self._resolution = await anyio.to_thread.run_sync(self._sources.look_again, before)
        assert self._resolution
        return self._resolution

    async def access_token(self) -> AccessToken:
        """Return a token that the service should accept.

        Raises:
            SignInRequired: No credential was found, or only a person can renew it.
            InvalidRequest: The login has no profile, or several.
            ServiceUnavailable: It has expired and cannot be renewed now.
        """
        credential = (await self.resolution()).require()
        if self._ends_within(MANDATORY_SECONDS, credential) and credential.is_borrowed:
            # Since the last search, another login on this machine may have become the better one.
            credential = (await self.resolution(is_forced=True)).require()
        if self._refresher.unsaved and not self._refreshes:
            await self._refresher.save_unsaved()
        if self._ends_within(MANDATORY_SECONDS, credential):
            try:
                credential = await self._renew(credential)
            except KiroError as error:
                if not credential.is_usable(self._now()):
                    raise
                logger.warning("using a token that ends soon: renewing it failed: %s", error)
        elif self._ends_within(self._early_seconds, credential):
            last = self._tried_at.get(credential.identity)
            if self._refresher.can_refresh(credential) and has_cooled_down(last, self._now()):
                self._tried_at[credential.identity] = self._now()
                self._start_refresh(credential)  # Meanwhile, its old token is sent.
        try:
            return await self.token_for(credential)
        except SignInRequired as error:
            if error.status is None:  # Not refused by the service: the host may not receive it.
                raise
        # The service refused the token in the request for the profile.
        token = await self.recover(self._without_profile(credential), "fresh_token")
        assert token
        return token

    async def recover(self, rejected: AccessToken, recovery: TokenRecovery) -> AccessToken | None:
        """Return the token to send instead of one that the service has just refused.

        Args:
            rejected: The refused token.
            recovery: `fresh_token`: a renewed one. `token_type`: the same with its `TokenType`.
                `another_profile`: the same with another profile.

        Returns:
            None if this change cannot be made, or was made before.

        Raises:
            KiroError: The credential has no other token.
        """
        if recovery == "another_profile":
            return await self._change_profile(rejected)
        if recovery == "token_type":
            typed = await self._add_type(rejected)
            if typed is None and rejected.value in self._renewal_errors:
                # It names a next step; the service's refusal does not.
                raise self._renewal_errors[rejected.value]
            return typed
        try:
            return await self.renew(rejected)
        except SignInRequired as error:
            current = (await self.resolution()).require()
            typed = await self._add_type(replace(rejected, value=current.access_token))
            if typed is None:
                raise
            self._renewal_errors = {typed.value: error}
            return typed

    async def renew(self, rejected: AccessToken) -> AccessToken:
        """Return a token that differs from the one that the service has just refused.

        Raises:
            KiroError: The credential has no other token.
        """
        credential = (await self.resolution(is_forced=True)).require()
        if credential.access_token != rejected.value:
            if self._ends_within(MANDATORY_SECONDS, credential):
                credential = await self._renew(credential, rejected=rejected.value)
            return await self.token_for(credential)
        if credential.kind == "api_key" and not (
            self._settings.api_region or self._settings.profile_arn
        ):
            async with self._profile_lock:  # The key may belong to another region.
                if not self._key_region:
                    found = self.management.find_key_profile(rejected, besides=rejected.region)
                    self._key_region = region_of(await found)
            if self._key_region not in ("", rejected.region):
                return await self.token_for(credential)
        if credential.can_refresh() or credential.is_borrowed:
            if not has_cooled_down(self._renewed_at.get(rejected.value), self._now()):
                raise SignInRequired(
                    f"The service refused the login from {credential.source} again right after it"
                    " was renewed. Another program may be renewing the same login.",
                    next_step="End that program, or call `login` to give kiro-mcp its own login.",
                    code="auth_expired",
                )
            credential = await self._renew(credential, rejected=rejected.value)
            if credential.access_token != rejected.value:
                return await self.token_for(credential)
        raise must_sign_in(
            credential, f"The service did not accept the credential from {credential.source}."
        )

    async def token_for(self, credential: Credential) -> AccessToken:
        """Return the token of a credential with its profile. Ask the service for it if necessary.

        Raises:
            InvalidRequest: The login has no profile, or several.
            KiroError: The service did not return the profile.
        """
        chosen, key = self._settings.profile_arn, credential.access_token
        region = self._settings.api_region or region_of(chosen)
        if credential.kind == "api_key":
            return as_access_token(credential, api_region=region or self._key_region)
        arn = known_profile(credential, chosen or self._profiles.get(key, ""))
        if not arn:
            async with self._profile_lock:
                arn = self._profiles.get(key) or await self._ask_for_profile(credential)
        token_type = self._types.get(credential.identity, "")
        return as_access_token(
            credential, profile_arn=arn, api_region=region, token_type=token_type
        )

    def _without_profile(self, credential: Credential) -> AccessToken:
        return as_access_token(credential, token_type=self._types.get(credential.identity, ""))

    # --- changes to a refused token -----------------------------------------------------------

    async def _add_type(self, rejected: AccessToken) -> AccessToken | None:
        """Return a token of IAM Identity Center with its `TokenType`; None if that was refused.

        Observed: the service refuses some tokens without the type, and others with it.
        """
        credential = (await self.resolution()).require()
        is_same = credential.access_token == rejected.value
        if credential.kind == "idc" and is_same and not rejected.token_type:
            self._types[credential.identity] = "SSO_OIDC"
            with suppress(SignInRequired):
                return await self.token_for(credential)
        self._types.pop(credential.identity, None)
        return None

    async def _change_profile(self, rejected: AccessToken) -> AccessToken | None:
        """Return the token with another profile, if it was looked up and the login has one."""
        credential = (await self.resolution()).require()
        key = credential.access_token
        is_fixed = credential.kind in ("api_key", "builder_id", "social")
        if is_fixed or self._settings.profile_arn or key != rejected.value:
            return None
        async with self._profile_lock:
            if self._profile_asked_again_for != key:
                self._profile_asked_again_for = key  # Ask once: the account may have no access.
                try:
                    await self._ask_for_profile(credential)
                except KiroError as error:
                    logger.warning("no other profile was found: %s", error)
        is_other = self._profiles.get(key, rejected.profile_arn) != rejected.profile_arn
        return await self.token_for(credential) if is_other else None

    async def _ask_for_profile(self, credential: Credential) -> str:
        """Ask the service for the login's profile. Save it with our own login."""
        region = self._settings.api_region or credential.region
        try:
            token = self._without_profile(credential)
            arn = await self.management.find_profile(token, login_region=region)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"The profile to bill could not be looked up: {error.message}",
                next_step=f"{error.next_step} Or set KIRO_PROFILE_ARN: then no look-up is needed.",
                code=error.code,
                status=error.status,
                request_id=error.request_id,
                retry_after_seconds=error.retry_after_seconds,
            ) from error
        self._profiles = {credential.access_token: arn}
        if credential.origin == "own" and self.store:
            known = replace(credential, profile_arn=arn)
            try:
                await self.store.renew_login(known, spent_refresh_token=known.refresh_token)
            except KiroError as error:
                logger.warning("%s", error)
        return arn

    # --- renewal ------------------------------------------------------------------------------

    def _ends_within(self, seconds: float, credential: Credential) -> bool:
        """Whether a token is missing or ends so soon; not if it was renewed a moment ago."""
        if credential.is_usable(self._now(), for_seconds=seconds):
            return False
        return has_cooled_down(self._renewed_at.get(credential.access_token), self._now())

    async def _renew(self, credential: Credential, rejected: str = "") -> Credential:
        refresh = self._start_refresh(credential, rejected)
        await refresh.done.wait()
        if isinstance(refresh.outcome, KiroError):
            raise refresh.outcome
        return refresh.outcome

    def _start_refresh(self, credential: Credential, rejected: str = "") -> _Refresh:
        """Return the refresh in progress; start one if none is."""
        refresh = self._refreshes.get(credential.identity)
        if refresh is None:
            assert self._tasks, "run_in() comes before the first call"
            refresh = self._refreshes[credential.identity] = _Refresh()
            self._tasks.start_soon(self._run_refresh, refresh, credential, rejected)
        return refresh

    async def _run_refresh(self, refresh: _Refresh, credential: Credential, rejected: str) -> None:
        try:
            with refresh.scope:
                renewed = await self._refresher.refresh(credential, rejected=rejected)
                self._renewed_at = {renewed.access_token: self._now()}
                before, after = credential.access_token, renewed.access_token
                if arn := self._profiles.get(before):
                    self._profiles = {before: arn, after: arn}
                await self.resolution(is_forced=True)
                refresh.outcome = renewed
        except KiroError as error:
            refresh.outcome = error
        except OSError as error:  # No token was spent: the lock is in the same folder.
            refresh.outcome = ServiceUnavailable(
                f"The login cannot be renewed, because its folder is not writable ({error}).",
                next_step="Make the folder writable, or set KIRO_MCP_HOME to another one.",
            )
        except Exception:
            logger.exception("a refresh failed")
            refresh.outcome = InternalFault.met_by("Renewing the login")
        finally:
            del self._refreshes[credential.identity]
            refresh.done.set()
