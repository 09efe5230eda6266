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

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from kiro_mcp.auth.credentials import (
    API_KEY_PREFIX,
    NOT_THERE,
    ClientRegistration,
    Credential,
    Finding,
    Resolution,
    Stamp,
    decode_refresh_token,
    jwt_expiry,
    parse_object,
    read_credential,
    read_registration,
    registration_name,
    text_of,
)
from kiro_mcp.auth.kiro_cli import login_in, read_rows
from kiro_mcp.auth.machine import Machine, databases, ide_file, ide_profile_file
from kiro_mcp.auth.store import OWN_SOURCE, OwnStore, digest
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.files import read_text
from kiro_mcp.redaction import redact
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings


class Sources:
    """All sources of one machine and one configuration.

    `key_header` is the HTTP header with the API key; "" if the key is in the environment.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        store: OwnStore | None,
        *,
        now: Callable[[], datetime],
        key_header: str = "",
    ) -> None:
        self.settings = settings
        self.machine = machine
        self.store = store
        self.now = now
        self.key_header = key_header
        self._newer: dict[str, tuple[Credential, str]] = {}

    def remember(self, newer: Credential, note: str) -> None:
        """Use newer tokens in this process for as long as their source holds the old ones.

        The note says to people why the source does not hold them.
        """
        self._newer[newer.identity] = (newer, note)

    def forget(self, renewed: Credential) -> None:
        """Use the tokens in the credential's source again."""
        self._newer.pop(renewed.identity, None)

    def recall(self, held: Credential) -> tuple[Credential | None, str]:
        """Return the newer tokens of a credential and the note; None if there are none."""
        newer, note = self._newer.get(held.identity, (None, ""))
        if newer is None or newer.held_refresh_token != held.refresh_token:
            return None, ""
        if not held.refresh_token and held.is_usable(self.now()):
            return None, ""  # No refresh token shows whether it changed, and it is usable.
        return newer, f"; {note}"

    def look(self) -> Resolution:
        """Look at each source in order until one holds a credential."""
        return _Search(self, self.now()).resolve()

    def look_again(self, before: Resolution) -> Resolution:
        """Look again if a file that decided has changed."""
        has_changed = any(_stamp(path) != stamp for path, stamp in before.watched)
        return self.look() if has_changed else before


@dataclass(slots=True)
class _Search:
    """One search through the sources. It stamps each file before it reads the file."""

    sources: Sources
    now: datetime
    watched: dict[str, Stamp] = field(default_factory=dict[str, Stamp])

    def resolve(self) -> Resolution:
        """Return the first credential that the user set or named, else the best one found."""
        findings: list[Finding] = []
        for winner in self._named():
            findings.append(winner)
            if winner.credential or winner.problem:
                break
        else:
            found = list(self._found())
            findings += found
            winner = max(found, key=self._rank, default=None)
        credential = winner.credential if winner else None
        if credential and credential.kind != "api_key" and not credential.region:
            credential = replace(credential, region=self.sources.settings.region)
        return Resolution(
            credential=credential,
            findings=tuple(_explained(one, is_winner=one is winner) for one in findings),
            watched=tuple(self.watched.items()),
            problem=winner.problem if winner else None,
        )

    def _rank(self, finding: Finding) -> tuple[bool, bool, bool]:
        """Order what was found: usable now, can be renewed, any other login, a problem."""
        held = finding.credential
        if held is None:
            return False, False, finding.problem is not None
        return True, held.is_usable(self.now), held.can_refresh()

    # --- what the user named, and our own login ---------------------------------------------

    def _named(self) -> Iterator[Finding]:
        settings, header = self.sources.settings, self.sources.key_header
        if key := settings.api_key.get_secret_value():
            source, origin, why = "KIRO_API_KEY", "environment", "set for this run"
            if header:
                source, origin, why = header, "caller", "sent with this call"
            given = Credential(kind="api_key", access_token=key, source=source, origin=origin)
            yield Finding(source=source, credential=given, why=why)
        access_token = settings.access_token.get_secret_value()
        if refresh_token := settings.refresh_token.get_secret_value():
            yield self._refresh_token(refresh_token, access_token)
        if access_token:
            # The service accepts an API key only with the key's own `TokenType` header.
            kind = "api_key" if access_token.startswith(API_KEY_PREFIX) else "access_token"
            given = Credential(kind=kind, access_token=access_token, source="KIRO_ACCESS_TOKEN")
            yield Finding(source=given.source, credential=given, why="set for this run")
        expanded = self.sources.machine.expanded
        if settings.creds_file:
            path = expanded(settings.creds_file)
            yield self._borrowed("file", path, "KIRO_CREDS_FILE", is_explicit=True)
        if settings.cli_db_file:
            path = expanded(settings.cli_db_file)
            yield self._borrowed("database", path, "KIRO_CLI_DB_FILE", is_explicit=True)
        if self.sources.store:
            yield self._own(self.sources.store)

    def _refresh_token(self, text: str, access_token: str) -> Finding:
        source, why = "KIRO_REFRESH_TOKEN", "set for this run"
        given = decode_refresh_token(text, source=source, region=self.sources.settings.region)
        given = replace(
            given,
            access_token=access_token,
            expires_at=jwt_expiry(access_token),
            key=digest(given.refresh_token),
        )
        try:
            newest, note = self._newest(given)
        except (OSError, ValueError) as error:
            return Finding(source=source, problem=_unusable_store(self.sources.store, error))
        if newest is not given:
            why = f"{why}, renewed since{note}"
        return Finding(source=source, credential=newest, why=why)

    def _newest(self, held: Credential) -> tuple[Credential, str]:
        """Return a login with its newest tokens, and why its source does not hold them.

        Raises:
            OSError, ValueError: Our own store, which may hold them, cannot be read.
        """
        newer, note = self.sources.recall(held)
        store = self.sources.store
        if newer is None and held.origin != "own" and store:
            self._watch(store.path)
            newer = store.successor(digest(held.refresh_token))
        if newer is None:
            return held, ""
        newest = replace(
            held,
            access_token=newer.access_token,
            refresh_token=newer.refresh_token,
            held_refresh_token=held.refresh_token,
            expires_at=newer.expires_at,
            unreadable_end=newer.unreadable_end,
            profile_arn=newer.profile_arn or held.profile_arn,
        )
        return newest, note

    def _own(self, store: OwnStore) -> Finding:
        self._watch(store.path)
        try:
            credential = store.login()
        except (OSError, ValueError) as error:
            why, problem = _why_unreadable(error), _unusable_store(store, error)
            return Finding(source=OWN_SOURCE, problem=problem, why=why)
        if credential is None:
            return Finding(source=OWN_SOURCE, why="nobody has signed in here")
        credential, note = self._newest(credential)
        why = f"made here, kept in {store.path}{note}"
        return Finding(source=OWN_SOURCE, credential=credential, why=why)

    # --- other programs' stores ----------------------------------------------------------------

    def _found(self) -> Iterator[Finding]:
        machine = self.sources.machine
        if path := ide_file(machine):
            yield self._borrowed("file", path, "the Kiro IDE")
        for path, program in databases(machine).items():
            yield self._borrowed("database", path, program)

    def _borrowed(
        self,
        origin: Literal["file", "database"],
        path: Path,
        name: str,
        *,
        is_explicit: bool = False,
    ) -> Finding:
        source = f"{name} ({path})"
        where = Credential(source=source, origin=origin, path=str(path), is_explicit=is_explicit)
        credential, problem = None, None
        self._watch(path)
        try:
            if origin == "file":
                why = "holds no token"
                credential = self._in_file(path, where)
            else:
                why = "signed out there"
                self._watch(path.with_name(f"{path.name}-wal"))
                credential = login_in(read_rows(path), where, self.now)
        except BlockingIOError:
            why = "another program is writing to it"
            problem = ServiceUnavailable(
                f"The login in {path} cannot be read now: {why}.",
                next_step="Call again in a moment. If this happens again, end the program that has"
                " it open.",
            )
        except (OSError, ValueError) as error:
            why = _why_unreadable(error)
        if credential is not None:
            note = ""
            with suppress(OSError, ValueError):
                credential, note = self._newest(credential)
            if end := credential.unreadable_end:
                why = f"its end {end!r} is not a date that kiro-mcp can read, so its token is tried"
            else:
                why = f"its login {'is good' if credential.is_usable(self.now) else 'has expired'}"
            why += note
        elif is_explicit and problem is None:
            problem = SignInRequired(
                f"The credential that {source} names cannot be used: {redact(why)}.",
                next_step="Correct it, or remove the setting and call `login`.",
            )
        return Finding(source=source, credential=credential, why=why, problem=problem)

    def _in_file(self, path: Path, where: Credential) -> Credential | None:
        document = parse_object(read_text(path))
        registration = self._registration(path, registration_name(document))
        credential = read_credential(document, where, registration)
        machine = self.sources.machine
        is_ides = path == ide_file(machine)
        if credential and is_ides and credential.kind == "idc" and not credential.profile_arn:
            # For a login in another file, it could be the profile of another account.
            arn = text_of(self._object(ide_profile_file(machine)), "arn")
            credential = replace(credential, profile_arn=arn if region_of(arn) else "")
        return credential

    def _registration(self, path: Path, name: str) -> ClientRegistration | None:
        """Return a file's client registration. Without a registration, only a refresh fails."""
        ides = ide_file(self.sources.machine)
        for folder in (path.parent, *([ides.parent] if ides else [])):
            if name and (document := self._object(folder / name)):
                return read_registration(document, is_all=True)
        return None

    def _object(self, path: Path | None) -> dict[str, object]:
        """Read a file beside that of a login; {} if it cannot be read."""
        if path is None:
            return {}
        self._watch(path)
        try:
            return parse_object(read_text(path))
        except (OSError, ValueError):
            return {}

    def _watch(self, path: Path) -> None:
        # Stamp before reading: then a change during the reading is noticed.
        self.watched.setdefault(str(path), _stamp(str(path)))


def _explained(finding: Finding, *, is_winner: bool) -> Finding:
    """Return what people are shown of a finding: without secrets, and with why it lost."""
    is_held = finding.credential is not None
    why = finding.why if is_winner or not is_held else f"{finding.why}, but another one comes first"
    return Finding(source=finding.source, why=redact(why), is_used=is_winner and is_held)


def _unusable_store(store: OwnStore | None, error: Exception) -> KiroError:
    return SignInRequired(
        f"The file of logins {store and store.path} cannot be used:"
        f" {redact(_why_unreadable(error))}.",
        next_step="Make it readable, or move it away and call `login`.",
    )


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NOT_THERE
    if isinstance(error, PermissionError):
        return "kiro-mcp may not read it"
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return f"it cannot be read ({why})"


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
