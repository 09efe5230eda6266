"""Searches the sources of credentials in order, and returns what each of them holds.

::

    KIRO_API_KEY, KIRO_ACCESS_TOKEN, KIRO_REFRESH_TOKEN     set for this run
    KIRO_CREDS_FILE, KIRO_CLI_DB_FILE                       named for this run
    kiro-mcp's own login
    logins of the Kiro IDE, kiro-cli and Amazon Q           found on the machine

If a source that the user names has no usable credential, that is an error: the next source may
belong to another account, which would then be billed.
The search blocks: run it in a worker thread.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from kiro_mcp.auth.credentials import ClientRegistration, Credential, jwt_expiry
from kiro_mcp.auth.documents import (
    API_KEY_PREFIX,
    CredentialSource,
    decode_refresh_token,
    parse_object,
    read_credential,
    read_registration_file,
    registration_name,
    text_of,
)
from kiro_mcp.auth.files import read_text
from kiro_mcp.auth.kiro_cli import best, credentials_in, read_rows
from kiro_mcp.auth.machine import (
    Machine,
    amazon_q_databases,
    ide_file,
    ide_profile_file,
    kiro_cli_databases,
)
from kiro_mcp.auth.store import OWN_SOURCE, OwnStore, digest
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.redaction import redact
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings

Stamp: TypeAlias = tuple[int, int, int] | None
"""Time, size and inode of a file, to notice that it has changed; None if it does not exist."""

_NOT_THERE: Final = "not there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the search found at one source."""

    source: str
    is_used: bool
    why: str

    def __str__(self) -> str:
        return f"{self.source}: {'used, ' if self.is_used else ''}{self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which credential is used, and why."""

    credential: Credential | None
    findings: tuple[Finding, ...]
    watched: tuple[tuple[Path, Stamp], ...]
    """The files that decided, each with its stamp at the time of the search."""
    problem: KiroError | None = None
    """Why the source that the user named cannot be used."""

    def require(self) -> Credential:
        """Return the credential.

        Raises:
            KiroError: No credential was found, or the source that the user named cannot be used.
        """
        if self.problem:
            raise self.problem
        if self.credential is None:
            raise SignInRequired(
                "No Kiro credential was found.",
                next_step="Call the tool `login` (or run `kiro-mcp login`), or set KIRO_API_KEY"
                " (made at https://app.kiro.dev) where this server is configured.",
            )
        return self.credential


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The result of looking at one source."""

    source: str
    credential: Credential | None = None
    why: str = _NOT_THERE
    problem: KiroError | None = None


class Sources:
    """All sources of one machine and one configuration."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        store: OwnStore | None,
        *,
        now: Callable[[], datetime],
        key_header: str = "",
    ) -> None:
        """Store the parameters of the search. Nothing is read yet.

        Args:
            settings: All settings.
            machine: Where the user's files are.
            store: Our own logins; None if no folder for them is known.
            now: Returns the time.
            key_header: The HTTP header with the API key; "" if the key is in the environment.
        """
        self._key_header = key_header
        self._settings = settings
        self._machine = machine
        self._store = store
        self._now = now
        self._newer: dict[str, tuple[Credential, str]] = {}

    def remember(self, newer: Credential, note: str) -> None:
        """Use newer tokens in this process for as long as their source holds the old ones.

        Args:
            newer: The credential with the newer tokens.
            note: Why the source does not hold them, for people.
        """
        self._newer[newer.identity] = (newer, note)

    def forget(self, renewed: Credential) -> None:
        """Use the tokens in the credential's source again."""
        self._newer.pop(renewed.identity, None)

    def look(self) -> Resolution:
        """Look at each source in order until one holds a credential."""
        return _Search(
            self._settings, self._machine, self._store, self._now(), self._newer, self._key_header
        ).resolve()

    def look_again(self, before: Resolution) -> Resolution:
        """Look again if a file that decided has changed."""
        has_changed = any(_stamp(path) != stamp for path, stamp in before.watched)
        return self.look() if has_changed else before


class _Search:
    """One search through the sources. It stamps each file before it reads the file."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        store: OwnStore | None,
        now: datetime,
        newer: Mapping[str, tuple[Credential, str]],
        key_header: str,
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._store = store
        self._now = now
        self._newer = newer
        self._key_header = key_header
        self._watched: dict[Path, Stamp] = {}

    def resolve(self) -> Resolution:
        """Return the first credential that the user set or named, else the best one found."""
        looks: list[_Look] = []
        winner: _Look | None = None
        for look in self._look_at_named():
            looks.append(look)
            if look.credential or look.problem:
                winner = look
                break
        else:
            looks.extend(found := list(self._look_at_found()))
            busy = next((look for look in found if look.problem), None)
            winner = _choose(found, self._now) or busy
        findings: list[Finding] = []
        for look in looks:
            is_used = look is winner and look.credential is not None
            is_lost = look is not winner and look.credential is not None
            why = f"{look.why}, but another one comes first" if is_lost else look.why
            findings.append(Finding(source=look.source, is_used=is_used, why=redact(why)))
        credential = winner.credential if winner else None
        if credential and credential.kind != "api_key" and not credential.region:
            credential = replace(credential, region=self._settings.region)
        return Resolution(
            credential=credential,
            findings=tuple(findings),
            watched=tuple(self._watched.items()),
            problem=winner.problem if winner else None,
        )

    # --- what the user named, and our own login ---------------------------------------------

    def _look_at_named(self) -> Iterator[_Look]:
        yield from self._look_at_environment()
        settings = self._settings
        for variable, path, read in (
            ("KIRO_CREDS_FILE", settings.creds_file, self._look_at_file),
            ("KIRO_CLI_DB_FILE", settings.cli_db_file, self._look_at_database),
        ):
            if path:
                full = self._machine.expanded(path)
                yield _require_credential(read(full, f"{variable} ({full})", is_explicit=True))
        if self._store:
            yield self._look_at_own(self._store)

    def _look_at_environment(self) -> Iterator[_Look]:
        settings = self._settings
        if api_key := settings.api_key.get_secret_value():
            credential = Credential(
                kind="api_key",
                access_token=api_key,
                source=self._key_header or "KIRO_API_KEY",
                origin="caller" if self._key_header else "environment",
            )
            why = "sent with this call" if self._key_header else "set for this run"
            yield _Look(source=credential.source, credential=credential, why=why)
        access_token = settings.access_token.get_secret_value()
        if refresh_token := settings.refresh_token.get_secret_value():
            yield self._look_at_refresh_token(refresh_token, access_token)
        if access_token:
            # The service accepts an API key only with the key's own `TokenType` header.
            kind = "api_key" if access_token.startswith(API_KEY_PREFIX) else "access_token"
            credential = Credential(
                kind=kind, access_token=access_token, source="KIRO_ACCESS_TOKEN"
            )
            yield _Look(source=credential.source, credential=credential, why="set for this run")

    def _look_at_refresh_token(self, text: str, access_token: str) -> _Look:
        source = "KIRO_REFRESH_TOKEN"
        given = decode_refresh_token(text, source=source, region=self._settings.region)
        given = replace(
            given,
            access_token=access_token,
            expires_at=jwt_expiry(access_token),
            key=digest(given.refresh_token),
        )
        newer, note = self._recall(given)
        try:
            newer = newer or self._successor(given.key)
        except (OSError, ValueError) as error:
            return _Look(source=source, problem=self._unusable_store(error))
        if newer is None:
            return _Look(source=source, credential=given, why="set for this run")
        credential = _with_tokens_of(newer, given)
        why = f"set for this run, renewed since{note}"
        return _Look(source=source, credential=credential, why=why)

    def _recall(self, held: Credential) -> tuple[Credential | None, str]:
        newer, note = self._newer.get(held.identity, (None, ""))
        if newer is None or newer.held_refresh_token != held.refresh_token:
            return None, ""
        if not held.refresh_token and held.is_usable(self._now):
            return None, ""  # No refresh token shows whether it changed, and it is usable.
        return newer, f"; {note}"

    def _newest(self, held: Credential) -> tuple[Credential, str]:
        """Return the newest tokens of a login, and why its source does not hold them."""
        newer, note = self._recall(held)
        if newer is None and held.is_borrowed:
            try:
                newer = self._successor(digest(held.refresh_token))
            except (OSError, ValueError):
                newer = None
        return (_with_tokens_of(newer, held), note) if newer else (held, "")

    def _successor(self, key: str) -> Credential | None:
        if self._store is None:
            return None
        self._watch(self._store.path)
        return self._store.successor(key)

    def _look_at_own(self, store: OwnStore) -> _Look:
        self._watch(store.path)
        try:
            credential = store.login()
        except (OSError, ValueError) as error:
            why = _why_unreadable(error)
            return _Look(source=OWN_SOURCE, problem=self._unusable_store(error), why=why)
        if credential is None:
            return _Look(source=OWN_SOURCE, why="nobody has signed in here")
        credential, note = self._newest(credential)
        why = f"made here, kept in {store.path}{note}"
        return _Look(source=OWN_SOURCE, credential=credential, why=why)

    def _unusable_store(self, error: Exception) -> KiroError:
        path = self._store.path if self._store else None
        return SignInRequired(
            f"The file of logins {path} cannot be used: {redact(_why_unreadable(error))}.",
            next_step="Make it readable, or move it away and call `login`.",
        )

    # --- other programs' stores ----------------------------------------------------------------

    def _look_at_found(self) -> Iterator[_Look]:
        machine = self._machine
        if path := ide_file(machine):
            yield self._look_at_file(path, f"the Kiro IDE ({path})", is_explicit=False)
        for path in kiro_cli_databases(machine):
            yield self._look_at_database(path, f"kiro-cli ({path})", is_explicit=False)
        for path in amazon_q_databases(machine):
            yield self._look_at_database(path, f"Amazon Q ({path})", is_explicit=False)

    def _look_at_file(self, path: Path, source: str, *, is_explicit: bool) -> _Look:
        self._watch(path)
        where = CredentialSource(
            name=source, origin="file", path=str(path), is_explicit=is_explicit
        )
        try:
            document = parse_object(read_text(path))
            registration = self._registration(path, registration_name(document))
            credential = read_credential(document, where, registration)
        except (OSError, ValueError) as error:
            return _Look(source=source, why=_why_unreadable(error))
        if credential is None:
            return _Look(source=source, why="holds no token")
        is_ides = path == ide_file(self._machine)
        if is_ides and credential.kind == "idc" and not credential.profile_arn:
            # For a login in another file, it could be the profile of another account.
            credential = replace(credential, profile_arn=self._ide_profile())
        return self._describe(source, credential)

    def _registration(self, path: Path, name: str) -> ClientRegistration | None:
        if not name:
            return None
        ides = ide_file(self._machine)
        folders = [path.parent, *([ides.parent] if ides else [])]
        for folder in folders:
            self._watch(folder / name)
            try:
                return read_registration_file(parse_object(read_text(folder / name)))
            except (OSError, ValueError):
                continue  # Without a registration, only a refresh fails.
        return None

    def _ide_profile(self) -> str:
        path = ide_profile_file(self._machine)
        if path is None:
            return ""
        self._watch(path)
        try:
            arn = text_of(parse_object(read_text(path)), "arn")
        except (OSError, ValueError):
            return ""
        return arn if region_of(arn) else ""

    def _look_at_database(self, path: Path, source: str, *, is_explicit: bool) -> _Look:
        self._watch(path)
        self._watch(path.with_name(f"{path.name}-wal"))
        if self._watched[path] is None:
            return _Look(source=source)
        where = CredentialSource(
            name=source, origin="database", path=str(path), is_explicit=is_explicit
        )
        try:
            rows, state = read_rows(path)
        except BlockingIOError:
            why = "another program is writing to it"
            busy = ServiceUnavailable(
                f"The login in {path} cannot be read now: {why}.",
                next_step="Call again in a moment. If this happens again, end the program that has"
                " it open.",
            )
            return _Look(source=source, why=why, problem=busy)
        except OSError as error:
            return _Look(source=source, why=_why_unreadable(error))
        credential = best(credentials_in(rows, state, where), self._now)
        if credential is None:
            return _Look(source=source, why="signed out there")
        return self._describe(source, credential)

    def _describe(self, source: str, credential: Credential) -> _Look:
        credential, note = self._newest(credential)
        is_good = credential.is_usable(self._now)
        why = "its login is good" if is_good else "its login has expired"
        if credential.unreadable_end:
            end = credential.unreadable_end
            why = f"its end {end!r} is not a date that kiro-mcp can read, so its token is tried"
        return _Look(source=source, credential=credential, why=f"{why}{note}")

    def _watch(self, path: Path) -> None:
        # Stamp before reading: then a change during the reading is noticed.
        self._watched.setdefault(path, _stamp(path))


def _with_tokens_of(newer: Credential, credential: Credential) -> Credential:
    return replace(
        credential,
        access_token=newer.access_token,
        refresh_token=newer.refresh_token,
        held_refresh_token=credential.refresh_token,
        expires_at=newer.expires_at,
        unreadable_end=newer.unreadable_end,
        profile_arn=newer.profile_arn or credential.profile_arn,
    )


def _choose(found: list[_Look], now: datetime) -> _Look | None:
    """Return the first login that is usable now; else one that can be renewed; else any."""
    held = [(look, look.credential) for look in found if look.credential]
    tests: tuple[Callable[[Credential], bool], ...] = (
        partial(Credential.is_usable, now=now),
        Credential.can_refresh,
        lambda _: True,
    )
    for test in tests:
        for look, credential in held:
            if test(credential):
                return look
    return None


def _require_credential(look: _Look) -> _Look:
    if look.credential or look.problem:
        return look
    problem = SignInRequired(
        f"The credential that {look.source} names cannot be used: {redact(look.why)}.",
        next_step="Correct it, or remove the setting and call `login`.",
    )
    return replace(look, problem=problem)


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return _NOT_THERE
    if isinstance(error, PermissionError):
        return "kiro-mcp may not read it"
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return f"it cannot be read ({why})"


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
