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
from dataclasses import dataclass, field
from datetime import UTC, datetime

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from kiro_mcp.auth.credentials import Credential, as_access_token, known_profile, with_profile
from kiro_mcp.auth.files import Sleep
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.oidc import SignInService
from kiro_mcp.auth.refresh import (
    MAX_JITTER_SECONDS,
    Need,
    Refresher,
    how_to_renew,
    may_try_again,
    refresh_need,
)
from kiro_mcp.auth.sources import Resolution, Sources, require_profile_arn
from kiro_mcp.auth.store import OwnStore, digest, hosts_key
from kiro_mcp.chat import AccessToken, TokenType
from kiro_mcp.client.http import Fetcher
from kiro_mcp.client.management import Management
from kiro_mcp.errors import (
    CallCancelled,
    InternalFault,
    KiroError,
    ServiceUnavailable,
    SignInRequired,
)
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Refresh:
    """A refresh in progress, shared by all calls that need it."""

    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=lambda: anyio.CancelScope(shield=True))
    """Shielded from the call's cancellation: else the token that replaces a spent one is lost."""
    renewed: Credential | None = None
    error: KiroError | None = None


class TokenProvider:
    """Returns access tokens for the credential in use."""

    def __init__(
        self,
        settings: Settings,
        *,
        http: Fetcher,
        environ: Mapping[str, str],
        platform: str = sys.platform,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = lambda: random.uniform(0, MAX_JITTER_SECONDS),  # noqa: S311  # spreads load, guards nothing
        sleep: Sleep = anyio.sleep,
        key_header: str = "",
    ) -> None:
        machine = Machine.of(environ, platform)
        home = own_home(machine, settings.home)
        overrides = {**settings.endpoint_overrides, **settings.sign_in_overrides}
        self.store = OwnStore(home, hosts_key(overrides), sleep=sleep) if home else None
        self.service = SignInService(http, settings.sign_in_overrides, now=now)
        self.management = Management(http, settings, now=now)
        self._settings = settings
        self._sources = Sources(settings, machine, self.store, now=now, key_header=key_header)
        self._refresher = Refresher(
            sources=self._sources,
            store=self.store,
            service=self.service,
            machine=machine,
            may_write_back=settings.write_back == "all",
            now=now,
            sleep=sleep,
        )
        self._now = now
        self._jitter_seconds = jitter()
        self._tasks: TaskGroup | None = None
        self._resolution: Resolution | None = None
        self._refreshes: dict[str, _Refresh] = {}
        self._tried: dict[str, datetime] = {}
        self._types: dict[str, TokenType] = {}  # By identity; only the unusual ones.
        self._renewed_at: dict[str, datetime] = {}  # By the digest of the access token.
        self._profiles: dict[str, str] = {}  # By the access token's digest; only the latest.
        self._profile_lock = anyio.Lock()
        self._profile_asked_again_for = ""  # The digest of the access token.
        self._key_region = ""  # The region of an API key, from the service; "" if not yet asked.

    def run_in(self, tasks: TaskGroup) -> None:
        """Run refreshes in this task group. Without one, each runs in the call that starts it."""
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
        if credential.is_borrowed and self._need(credential) == "mandatory":
            # Since the last search, another login on this machine may have become the better one.
            credential = (await self.resolution(is_forced=True)).require()
        if not self._refreshes:
            await self._refresher.save_unsaved()
        need = self._need(credential)
        if need == "advisory" and self._refresher.can_refresh(credential):
            credential = await self._renew_early(credential)
        elif need == "mandatory":
            credential = await self._renew_if_possible(credential)
        try:
            return await self.token_for(credential)
        except SignInRequired as error:
            if error.status is None:  # Not refused by the service: the host may not receive it.
                raise
        # The service refused the token in the request for the profile.
        try:
            return await self.renew(as_access_token(credential))
        except SignInRequired:
            current = (await self.resolution()).require()
            token_type = self._types.get(current.identity, "")
            if typed := await self.add_type(as_access_token(current, token_type=token_type)):
                return typed
            raise

    async def renew(self, rejected: AccessToken) -> AccessToken:
        """Return a token that differs from the one that the service has just refused.

        Raises:
            KiroError: The credential has no other token.
        """
        credential = (await self.resolution(is_forced=True)).require()
        if await self._is_key_of_another_region(credential, rejected):
            return await self.token_for(credential)
        if credential.access_token == rejected.value:
            credential = await self._renew_by_force(credential)
        elif self._need(credential) == "mandatory":
            credential = await self._renew(credential, rejected=rejected.value)
        return await self.token_for(credential)

    async def add_type(self, rejected: AccessToken) -> AccessToken | None:
        """Return a refused token of IAM Identity Center with its `TokenType`.

        Observed: the service refuses some tokens without the type, and others with it.

        Returns:
            None if the token is of another kind, or if this was tried before.
        """
        credential = (await self.resolution()).require()
        is_same = credential.access_token == rejected.value
        if credential.kind == "idc" and is_same and not rejected.token_type:
            self._types[credential.identity] = "SSO_OIDC"
            with suppress(SignInRequired):
                return await self.token_for(credential)
        self._types.pop(credential.identity, None)
        return None

    async def change_profile(self, rejected: AccessToken) -> AccessToken | None:
        """Return the token with a profile that differs from the refused one.

        Returns:
            None if the profile is the user's choice or fixed for the kind of login, or if the
            login has no other profile, or several.
        """
        credential = (await self.resolution()).require()
        key = digest(credential.access_token)
        is_looked_up = credential.kind not in ("api_key", "builder_id", "social")
        is_chosen = bool(self._settings.profile_arn)
        is_same = credential.access_token == rejected.value
        if is_chosen or not (is_looked_up and is_same):
            return None
        async with self._profile_lock:  # Calls that are refused at the same time ask once.
            if self._profile_asked_again_for != key:
                self._profile_asked_again_for = key  # Ask once: the account may have no access.
                await self._look_for_other_profile(credential)
        is_other = self._profiles.get(key, rejected.profile_arn) != rejected.profile_arn
        return await self.token_for(credential) if is_other else None

    async def _look_for_other_profile(self, credential: Credential) -> None:
        try:
            arn = await self._ask_for_profile(credential)
        except KiroError as error:
            logger.warning("no other profile was found: %s", error)
            return
        self._profiles = {digest(credential.access_token): arn}
        await self._save_profile(credential, arn)

    async def token_for(self, credential: Credential) -> AccessToken:
        """Return the token of a credential with its profile. Ask the service for it if necessary.

        Raises:
            InvalidRequest: The login has no profile, or several.
            KiroError: The service did not return the profile.
        """
        chosen = require_profile_arn(self._settings.profile_arn)
        region = self._settings.api_region or region_of(chosen)
        if credential.kind == "api_key":
            return as_access_token(credential, api_region=region or self._key_region)
        chosen = chosen or self._profiles.get(digest(credential.access_token), "")
        arn = known_profile(credential, chosen) or await self._find_profile(credential)
        return as_access_token(
            credential,
            profile_arn=arn,
            api_region=region,
            token_type=self._types.get(credential.identity, ""),
        )

    async def _is_key_of_another_region(
        self, credential: Credential, rejected: AccessToken
    ) -> bool:
        """Whether an API key belongs to a region other than the one that refused it.

        Asks the service, unless the user has set the region.
        """
        is_set = self._settings.api_region or self._settings.profile_arn
        if credential.kind != "api_key" or is_set or credential.access_token != rejected.value:
            return False
        async with self._profile_lock:  # Calls that are refused at the same time ask once.
            if not self._key_region:
                arn = await self.management.find_key_profile(rejected, besides=rejected.region)
                self._key_region = region_of(arn)
        return self._key_region not in ("", rejected.region)

    def _need(self, credential: Credential) -> Need:
        if self._was_just_renewed(credential.access_token):
            return "none"
        return refresh_need(
            credential,
            self._now(),
            threshold_seconds=self._settings.token_refresh_threshold_seconds,
            jitter_seconds=self._jitter_seconds,
        )

    def _was_just_renewed(self, access_token: str) -> bool:
        return not may_try_again(self._renewed_at.get(digest(access_token)), self._now())

    async def _renew_early(self, credential: Credential) -> Credential:
        """Renew a token that is still valid, if possible without waiting for the new one."""
        if not may_try_again(self._tried.get(credential.identity), self._now()):
            return credential
        self._tried[credential.identity] = self._now()
        if self._tasks is None:
            return await self._renew_if_possible(credential)
        await self._start_refresh(credential)
        return credential

    async def _renew_if_possible(self, credential: Credential) -> Credential:
        try:
            return await self._renew(credential)
        except KiroError as error:
            if not credential.is_usable(self._now()):
                raise
            logger.warning("using a token that ends soon, because renewing it failed: %s", error)
            return credential

    async def _renew_by_force(self, credential: Credential) -> Credential:
        if not credential.can_refresh() and not credential.is_borrowed:
            raise _not_accepted(credential)
        if self._was_just_renewed(credential.access_token):
            raise SignInRequired(
                f"The service refused the login from {credential.source} again right after it was"
                " renewed. Another program may be renewing the same login.",
                next_step="End that program, or call `login` to give kiro-mcp its own login.",
                code="auth_expired",
            )
        renewed = await self._renew(credential, rejected=credential.access_token)
        if renewed.access_token == credential.access_token:
            raise _not_accepted(credential)
        return renewed

    async def _renew(self, credential: Credential, rejected: str = "") -> Credential:
        refresh = await self._start_refresh(credential, rejected)
        await refresh.done.wait()
        if refresh.renewed is None:
            assert refresh.error
            raise refresh.error
        return refresh.renewed

    async def _start_refresh(self, credential: Credential, rejected: str = "") -> _Refresh:
        """Return the refresh in progress; start one if none is."""
        refresh = self._refreshes.get(credential.identity)
        if refresh is None:
            refresh = self._refreshes[credential.identity] = _Refresh()
            if self._tasks is not None:
                self._tasks.start_soon(self._run_refresh, refresh, credential, rejected)
            else:
                await self._run_refresh(refresh, credential, rejected)
        return refresh

    async def _run_refresh(self, refresh: _Refresh, credential: Credential, rejected: str) -> None:
        try:
            with refresh.scope:
                renewed = await self._refresher.refresh(credential, rejected=rejected)
                self._renewed_at = {digest(renewed.access_token): self._now()}
                before, after = digest(credential.access_token), digest(renewed.access_token)
                if arn := self._profiles.get(before):
                    self._profiles = {before: arn, after: arn}
                await self.resolution(is_forced=True)
                refresh.renewed = renewed
        except KiroError as error:
            refresh.error = error
        except OSError as error:  # No token was spent: the lock is in the same folder.
            refresh.error = ServiceUnavailable(
                f"The login cannot be renewed, because its folder is not writable ({error}).",
                next_step="Make the folder writable, or set KIRO_MCP_HOME to another one.",
            )
        except Exception:
            logger.exception("a refresh failed")
            refresh.error = InternalFault(
                "Renewing the login met a defect of kiro-mcp.",
                next_step="Its log (stderr) has the details; please report them.",
            )
        finally:
            if refresh.renewed is None and refresh.error is None:
                refresh.error = CallCancelled("The server is ending.")
            del self._refreshes[credential.identity]
            refresh.done.set()

    async def _find_profile(self, credential: Credential) -> str:
        key = digest(credential.access_token)
        async with self._profile_lock:
            if (known := self._profiles.get(key)) is not None:
                return known
            arn = await self._ask_for_profile(credential)
            self._profiles = {key: arn}
            await self._save_profile(credential, arn)
            return arn

    async def _ask_for_profile(self, credential: Credential) -> str:
        region = self._settings.api_region or credential.region
        token = as_access_token(credential, token_type=self._types.get(credential.identity, ""))
        try:
            return await self.management.find_profile(token, login_region=region)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"The profile to bill could not be looked up: {error.message}",
                next_step=f"{error.next_step} Or set KIRO_PROFILE_ARN: then no look-up is needed.",
                code=error.code,
                status=error.status,
                request_id=error.request_id,
                retry_after_seconds=error.retry_after_seconds,
            ) from error

    async def _save_profile(self, credential: Credential, arn: str) -> None:
        """Save the profile of our own login, so that the next process need not look it up."""
        if credential.origin != "own" or self.store is None:
            return
        known = with_profile(credential, arn)
        try:
            await self.store.renew_login(known, spent_refresh_token=known.refresh_token)
        except KiroError as error:
            logger.warning("%s", error)


def _not_accepted(credential: Credential) -> KiroError:
    return SignInRequired(
        f"The service did not accept the credential from {credential.source}.",
        next_step=how_to_renew(credential),
        code="auth_expired",
    )
