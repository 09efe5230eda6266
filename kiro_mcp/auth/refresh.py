"""When a token is refreshed, and how: one refresh that is safe across processes.

::

    ─────────── fresh ───────────┬──── advisory ────┬── mandatory ──┬── expired
                                 │ try, do not wait │ wait for it   │
                       threshold + jitter       60 s          expires_at

A refresh takes a lock across processes, reads the login again, sends one request, and saves the
new tokens before they are used::

    lock ─► read again ─► another process renewed it? ─► use that one
                │ no
                ▼
    borrowed: kiro-cli renews its own ─► may we write there? no ─► refuse, spend nothing
                │ yes
                ▼
    send ─► refused? ─► read again ─► changed? ─► use it, or send its refresh token, once
                │ renewed
                ▼
    write (shielded from cancellation) ─► return
      └── cannot be written ─► keep it in memory, write it again later ─► return

A refresh token that was refused is never sent again.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import anyio
import anyio.to_thread

from kiro_mcp._version import __version__
from kiro_mcp.auth.credentials import Credential, Origin, merge_tokens, parse_object, text_of
from kiro_mcp.auth.kiro_cli import can_update, helper_for, token_of_kiro_cli, update_row
from kiro_mcp.auth.oidc import Members, Refused, TokenRequest, read_answer, refresh_request
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import digest
from kiro_mcp.client.http import Fetcher
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.files import Sleep, can_replace, hold_lock, read_text, replace_text
from kiro_mcp.regions import DEFAULT_REGION

logger = logging.getLogger(__name__)

MANDATORY_SECONDS: Final = 60.0
"""A token with less time left than this is not sent: requests take time, and clocks differ."""

COOL_DOWN_SECONDS: Final = 30.0
"""The least time between two attempts to renew a token, unless no other token can be sent.

A token that was renewed within this time is sent even if it seems to have expired. Then the clock
of this machine or the stated lifetime is wrong, and another refresh would not change that."""

MAX_JITTER_SECONDS: Final = 10.0
"""Spreads the refreshes of servers that share a login."""

LOCK_SECONDS: Final = 90.0
"""How long to wait for another process's refresh: more than its two requests can take."""

_SAVING_SECONDS: Final = 1.0
"""How long to wait for the lock if only a write is repeated."""

REQUEST_SECONDS: Final = 30.0
"""How long a sign-in service may take. It usually answers within one second."""

_MAX_SWITCHES: Final = 3
"""How often the credential in use may change while a refresh waits for the lock."""


def has_cooled_down(last_attempt: datetime | None, now: datetime) -> bool:
    """Whether enough time has passed since an attempt; also if the clock was set back since."""
    if last_attempt is None:
        return True
    return not timedelta(0) <= now - last_attempt < timedelta(seconds=COOL_DOWN_SECONDS)


class SignInService:
    """Sends requests to AWS SSO OIDC, Kiro's own service or an organisation's own."""

    def __init__(
        self, http: Fetcher, overrides: Mapping[str, str], *, now: Callable[[], datetime]
    ) -> None:
        self._http = http
        self.overrides = overrides
        self.now = now

    async def send(self, request: TokenRequest) -> tuple[int, Members]:
        """Send a request and return the answer's status and JSON; {} if it is anything else.

        Raises:
            KiroError: No answer arrived in time.
        """
        text = urlencode(request.members) if request.is_form else json.dumps(request.members)
        form = "x-www-form-urlencoded" if request.is_form else "json"
        headers = {
            "Content-Type": f"application/{form}",
            "Accept": "application/json",
            "User-Agent": f"kiro-mcp/{__version__}",
        }
        try:
            with anyio.fail_after(REQUEST_SECONDS):
                status, _, body = await self._http.fetch(
                    "POST", request.url, headers=headers, body=text.encode()
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"The sign-in service did not answer within {REQUEST_SECONDS:g} seconds.",
                next_step="Call again.",
                code="timeout",
            ) from None
        try:
            return status, parse_object(body)
        except ValueError:
            return status, {}


class Refresher:
    """Renews credentials of any origin."""

    def __init__(self, sources: Sources, service: SignInService, *, sleep: Sleep) -> None:
        self._sources = sources
        self._store = sources.store
        self._service = service
        self._may_write_back = sources.settings.write_back == "all"
        self._now = sources.now
        self._sleep = sleep
        self._helped_at: datetime | None = None
        self._refused: dict[str, Refused] = {}  # By refresh token.
        self.unsaved: dict[str, Credential] = {}
        """The renewed logins that could not be saved yet, by identity."""
        self._saving = anyio.Lock()

    def can_refresh(self, credential: Credential) -> bool:
        """Whether this process may renew the credential before it expires."""
        return credential.can_refresh() and (self._may_write_back or not credential.is_borrowed)

    async def refresh(self, credential: Credential, *, rejected: str = "") -> Credential:
        """Return the credential after a refresh by this process or by another one.

        `rejected` is an access token that the service refused although it has not expired.

        Raises:
            SignInRequired: Only a person can renew this login.
            ServiceUnavailable: It could not be renewed now.
        """
        for _ in range(_MAX_SWITCHES):
            if credential.origin == "environment":
                _require_renewable(credential)
            async with self._hold_lock(credential):
                current = await self._read_again()
                if self._is_newer(current, credential, rejected):
                    return current
                if current.identity == credential.identity:
                    if current.is_borrowed and current.kind != "api_key":
                        renewed = await self._have_owner_renew(current, rejected)
                        if renewed is not None:
                            return renewed
                        await self._require_may_write_back(current)
                    _require_renewable(current)
                    return await self._spend(current)
            credential = current
        raise ServiceUnavailable(
            "The login in use changes again and again.", next_step="Call again in a moment."
        )

    async def save_unsaved(self) -> None:
        """Try again to save the renewed logins that could not be saved at first."""
        if self._saving.locked():
            return
        async with self._saving:
            for identity, renewed in list(self.unsaved.items()):
                try:
                    async with self._hold_lock(renewed, timeout_seconds=_SAVING_SECONDS):
                        if self.unsaved.get(identity) is renewed:  # Not renewed again meanwhile.
                            await self._save(renewed)
                except (KiroError, OSError) as error:
                    logger.warning("the renewed login is still in memory only: %s", error)

    async def _read_again(self) -> Credential:
        return (await anyio.to_thread.run_sync(self._sources.look)).require()

    def _hold_lock(
        self, credential: Credential, timeout_seconds: float = LOCK_SECONDS
    ) -> AbstractAsyncContextManager[None]:
        if self._store is None:
            raise ServiceUnavailable(
                "No folder is known in which a renewed login can be saved.",
                next_step="Set KIRO_MCP_HOME to a folder.",
            )
        # All names of a file share one lock.
        file = os.path.realpath(credential.path) if credential.path else ""
        name = digest(replace(credential, path=file).identity)[:16]
        path = self._store.folder / f"refresh-{name}.lock"
        return hold_lock(path, timeout_seconds=timeout_seconds, sleep=self._sleep)

    def _is_newer(self, current: Credential, before: Credential, rejected: str) -> bool:
        """Whether another program has renewed a credential, so that its token can be sent."""
        return current.access_token != before.access_token and self._can_send(current, rejected)

    def _can_send(self, credential: Credential, rejected: str) -> bool:
        is_refused = credential.access_token == rejected
        return not is_refused and credential.is_usable(self._now(), for_seconds=MANDATORY_SECONDS)

    async def _have_owner_renew(self, credential: Credential, rejected: str) -> Credential | None:
        """Have kiro-cli renew its login; None if the login is not kiro-cli's, or if that failed."""
        machine = self._sources.machine
        program = await anyio.to_thread.run_sync(helper_for, credential, machine)
        if not program or not has_cooled_down(self._helped_at, self._now()):
            return None
        self._helped_at = self._now()
        is_refused = credential.access_token == rejected
        given = await token_of_kiro_cli(program, credential, machine, is_refused=is_refused)
        current = await self._read_again()
        if self._is_newer(current, credential, rejected):
            return current
        if given is None or not self._can_send(given, rejected):
            return None
        self._sources.remember(given, "its token comes from kiro-cli itself")
        return given

    async def _require_may_write_back(self, credential: Credential) -> None:
        """Require that the owner of a login can get the renewed one: else it is signed out.

        Raises:
            SignInRequired: The user does not allow it, or the owner's copy cannot be replaced.
        """
        if not self._may_write_back:
            raise must_sign_in(
                credential,
                f"The login from {credential.source} has expired. It belongs to another program,"
                " and renewing it here would sign that program out.",
                hint="With KIRO_MCP_WRITE_BACK=all, kiro-mcp renews it.",
            )
        if not await anyio.to_thread.run_sync(can_write_back, credential):
            raise SignInRequired(
                f"The login from {credential.source} has expired. kiro-mcp cannot write the"
                " renewed login there, so renewing it would sign its owner out.",
                next_step="Make the file and its folder writable, or call `login` to give"
                " kiro-mcp its own login.",
                code="auth_expired",
            )

    async def _spend(self, credential: Credential) -> Credential:
        """Renew a login with its refresh token, and save the result."""
        outcome = await self._send(credential)
        if isinstance(outcome, Refused) and outcome.is_final:
            current = await self._read_again()
            if self._is_newer(current, credential, credential.access_token):
                return current
            is_same = current.identity == credential.identity  # Not one of another program.
            if is_same and current.can_refresh():
                credential = current  # If its refresh token is the old one, it is not sent again.
                outcome = await self._send(credential)
        if isinstance(outcome, Refused):
            if not outcome.is_final:
                raise ServiceUnavailable(
                    f"The login from {credential.source} could not be renewed now ({outcome.why}).",
                    next_step="Call again in a moment.",
                    code="network_error",
                )
            hint = ""
            if credential.kind == "idc" and credential.origin == "environment":
                # AWS answers the same in a wrong region. Logins from other sources state theirs.
                hint = (
                    f"The refresh was sent to {credential.region or DEFAULT_REGION}. If you signed"
                    " in elsewhere, set KIRO_REGION."
                )
            raise must_sign_in(
                credential,
                f"The login from {credential.source} has ended ({outcome.why}).",
                hint=hint,
            )
        held = credential.held_refresh_token or credential.refresh_token
        renewed = replace(outcome, held_refresh_token=held)
        is_ours = False
        with anyio.CancelScope(shield=True):
            is_ours = await self._save(renewed)
        return renewed if is_ours else await self._read_again()

    async def _send(self, credential: Credential) -> Credential | Refused:
        """Send a refresh token, unless the service refused it before."""
        if refused := self._refused.get(credential.refresh_token):
            return refused
        request = refresh_request(credential, self._service.overrides)
        try:
            answer = await self._service.send(request)
        except KiroError as error:
            return Refused(is_final=False, why=error.message.rstrip("."))
        outcome = read_answer(credential, *answer, self._now())
        if isinstance(outcome, Refused) and outcome.is_final:
            self._refused[credential.refresh_token] = outcome
        return outcome

    async def _save(self, renewed: Credential) -> bool:
        """Save a renewed login. If that fails, keep it in memory: the old token is spent.

        Returns:
            Whether the renewed login is in use. If not, its owner renewed it first, and ours is
            discarded.
        """
        assert self._store
        spent = renewed.held_refresh_token
        is_ours = True
        try:
            if renewed.origin == "own":
                is_ours = await self._store.renew_login(renewed, spent_refresh_token=spent)
            elif renewed.origin == "environment":
                await self._store.save_successor(renewed.key, renewed)
            else:
                try:
                    is_ours = await anyio.to_thread.run_sync(write_back, renewed)
                except OSError as error:
                    logger.warning("%s could not be written (%s)", renewed.source, error)
                    await self._store.save_successor(digest(spent), renewed)
        except (KiroError, OSError) as error:
            logger.warning("the renewed login stays in memory only: %s", error)
            self.unsaved[renewed.identity] = renewed
            self._sources.remember(renewed, "its newest tokens could not be saved yet")
            return True
        self.unsaved.pop(renewed.identity, None)
        self._sources.forget(renewed)
        return is_ours


def must_sign_in(credential: Credential, message: str, *, hint: str = "") -> SignInRequired:
    """Return the error for a credential that only a person can renew."""
    return SignInRequired(
        message, next_step=f"{how_to_renew(credential)} {hint}".strip(), code="auth_expired"
    )


_HOW_TO_RENEW: Final[Mapping[Origin, str]] = {
    "environment": "Renew {} where this server is configured, or call `login`.",
    "caller": "Set a valid key in {} where your client is configured.",
    "own": "Call the tool `login` with action `start`, or run `kiro-mcp login`.",
    "database": "Run `kiro-cli login`, or call `login` to give kiro-mcp its own login.",
    "file": "Sign in again in its program, or call `login` to give kiro-mcp its own login.",
}


def how_to_renew(credential: Credential) -> str:
    """Return what a person must do to renew a login that only a person can renew."""
    return _HOW_TO_RENEW[credential.origin].format(credential.source)


def _require_renewable(credential: Credential) -> None:
    if not credential.can_refresh():
        why = f": {credential.problem}" if credential.problem else ""
        raise must_sign_in(
            credential,
            f"The credential from {credential.source} has expired and cannot be renewed{why}.",
        )


def can_write_back(credential: Credential) -> bool:
    """Whether the owner's copy can be replaced. If not, a refresh would sign the owner out."""
    path = Path(credential.path)
    return can_update(path) if credential.origin == "database" else can_replace(path)


def write_back(renewed: Credential) -> bool:
    """Write a renewed login to its source, if that still holds the refresh token that was spent.

    Returns:
        Whether it was written. If not, its owner renewed it first, and ours must be discarded.

    Raises:
        OSError: It cannot be written.
    """
    path = Path(renewed.path)
    if renewed.origin == "database":
        return update_row(path, renewed)
    try:
        document = parse_object(read_text(path))
    except ValueError as error:
        raise OSError(f"{error}") from error
    if text_of(document, "refresh_token") != renewed.held_refresh_token:
        return False
    replace_text(path, json.dumps(merge_tokens(document, renewed), indent=2))
    return True
