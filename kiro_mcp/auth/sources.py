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
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from kiro_mcp.auth.credentials import (
    NOT_THERE,
    ClientRegistration,
    Credential,
    Finding,
    Resolution,
    Stamp,
    jwt_expiry,
)
from kiro_mcp.auth.documents import (
    API_KEY_PREFIX,
    decode_refresh_token,
    parse_object,
    read_credential,
    read_registration,
    registration_name,
    text_of,
)
from kiro_mcp.auth.kiro_cli import login_in, read_rows
from kiro_mcp.auth.machine import (
    Machine,
    databases,
    ide_file,
    ide_profile_file,
)
from kiro_mcp.auth.store import OWN_SOURCE, OwnStore, digest
from kiro_mcp.errors import KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.files import read_text
from kiro_mcp.redaction import redact
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings

_Borrowed: TypeAlias = Literal["file", "database"]


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
        return _Search(self).resolve()

    def look_again(self, before: Resolution) -> Resolution:
        """Look again if a file that decided has changed."""
        has_changed = any(_stamp(path) != stamp for path, stamp in before.watched)
        return self.look() if has_changed else before


class _Search:
    """One search through the sources. It stamps each file before it reads the file."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._settings = sources.settings
        self._machine = sources.machine
        self._store = sources.store
        self._now = sources.now()
        self._watched: dict[str, Stamp] = {}

    def resolve(self) -> Resolution:
        """Return the first credential that the user set or named, else the best one found."""
        findings: list[Finding] = []
        winner: Finding | None = None
        for finding in self._named():
            findings.append(finding)
            if finding.credential or finding.problem:
                winner = finding
                break
        else:
            found = list(self._found())
            findings += found
            held = [(one, one.credential) for one in found if one.credential]
            # The first that is usable now; else the first that can be renewed; else any.
            winner, _ = max(
                held,
                key=lambda it: (it[1].is_usable(self._now), it[1].can_refresh()),
                default=(next((one for one in found if one.problem), None), None),
            )
        credential = winner.credential if winner else None
        if credential and credential.kind != "api_key" and not credential.region:
            credential = replace(credential, region=self._settings.region)
        return Resolution(
            credential=credential,
            findings=tuple(_explained(one, is_winner=one is winner) for one in findings),
            watched=tuple(self._watched.items()),
            problem=winner.problem if winner else None,
        )

    # --- what the user named, and our own login ---------------------------------------------

    def _named(self) -> Iterator[Finding]:
        settings, key_header = self._settings, self._sources.key_header
        if api_key := settings.api_key.get_secret_value():
            credential = Credential(
                kind="api_key",
                access_token=api_key,
                source=key_header or "KIRO_API_KEY",
                origin="caller" if key_header else "environment",
            )
            why = "sent with this call" if key_header else "set for this run"
            yield Finding(source=credential.source, credential=credential, why=why)
        access_token = settings.access_token.get_secret_value()
        if refresh_token := settings.refresh_token.get_secret_value():
            yield self._refresh_token(refresh_token, access_token)
        if access_token:
            # The service accepts an API key only with the key's own `TokenType` header.
            kind = "api_key" if access_token.startswith(API_KEY_PREFIX) else "access_token"
            source = "KIRO_ACCESS_TOKEN"
            credential = Credential(kind=kind, access_token=access_token, source=source)
            yield Finding(source=source, credential=credential, why="set for this run")
        named: tuple[tuple[str, str, _Borrowed], ...] = (
            ("KIRO_CREDS_FILE", settings.creds_file, "file"),
            ("KIRO_CLI_DB_FILE", settings.cli_db_file, "database"),
        )
        for variable, path, origin in named:
            if path:
                full = self._machine.expanded(path)
                finding = self._borrowed(origin, full, f"{variable} ({full})", is_explicit=True)
                if finding.credential is None and finding.problem is None:
                    problem = SignInRequired(
                        f"The credential that {finding.source} names cannot be used:"
                        f" {redact(finding.why)}.",
                        next_step="Correct it, or remove the setting and call `login`.",
                    )
                    finding = replace(finding, problem=problem)
                yield finding
        if self._store:
            yield self._own(self._store)

    def _refresh_token(self, text: str, access_token: str) -> Finding:
        source, why = "KIRO_REFRESH_TOKEN", "set for this run"
        given = decode_refresh_token(text, source=source, region=self._settings.region)
        given = replace(
            given,
            access_token=access_token,
            expires_at=jwt_expiry(access_token),
            key=digest(given.refresh_token),
        )
        newer, note = self._sources.recall(given)
        try:
            newer = newer or self._successor(given.key)
        except (OSError, ValueError) as error:
            return Finding(source=source, problem=self._unusable_store(error))
        if newer is not None:
            given, why = _with_tokens_of(newer, given), f"{why}, renewed since{note}"
        return Finding(source=source, credential=given, why=why)

    def _newest(self, held: Credential) -> tuple[Credential, str]:
        """Return the newest tokens of a login, and why its source does not hold them."""
        newer, note = self._sources.recall(held)
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

    def _own(self, store: OwnStore) -> Finding:
        self._watch(store.path)
        try:
            credential = store.login()
        except (OSError, ValueError) as error:
            why = _why_unreadable(error)
            return Finding(source=OWN_SOURCE, problem=self._unusable_store(error), why=why)
        if credential is None:
            return Finding(source=OWN_SOURCE, why="nobody has signed in here")
        credential, note = self._newest(credential)
        why = f"made here, kept in {store.path}{note}"
        return Finding(source=OWN_SOURCE, credential=credential, why=why)

    def _unusable_store(self, error: Exception) -> KiroError:
        path = self._store.path if self._store else None
        return SignInRequired(
            f"The file of logins {path} cannot be used: {redact(_why_unreadable(error))}.",
            next_step="Make it readable, or move it away and call `login`.",
        )

    # --- other programs' stores ----------------------------------------------------------------

    def _found(self) -> Iterator[Finding]:
        if path := ide_file(self._machine):
            yield self._borrowed("file", path, f"the Kiro IDE ({path})")
        for path, program in databases(self._machine).items():
            yield self._borrowed("database", path, f"{program} ({path})")

    def _borrowed(
        self, origin: _Borrowed, path: Path, source: str, *, is_explicit: bool = False
    ) -> Finding:
        self._watch(path)
        where = Credential(source=source, origin=origin, path=str(path), is_explicit=is_explicit)
        try:
            if origin == "file":
                credential = self._in_file(path, where)
            else:
                self._watch(path.with_name(f"{path.name}-wal"))
                credential = login_in(read_rows(path), where, self._now)
        except BlockingIOError:
            why = "another program is writing to it"
            busy = ServiceUnavailable(
                f"The login in {path} cannot be read now: {why}.",
                next_step="Call again in a moment. If this happens again, end the program that has"
                " it open.",
            )
            return Finding(source=source, why=why, problem=busy)
        except (OSError, ValueError) as error:
            return Finding(source=source, why=_why_unreadable(error))
        if credential is None:
            why = "holds no token" if origin == "file" else "signed out there"
            return Finding(source=source, why=why)
        credential, note = self._newest(credential)
        if credential.unreadable_end:
            end = credential.unreadable_end
            why = f"its end {end!r} is not a date that kiro-mcp can read, so its token is tried"
        else:
            why = f"its login {'is good' if credential.is_usable(self._now) else 'has expired'}"
        return Finding(source=source, credential=credential, why=f"{why}{note}")

    def _in_file(self, path: Path, where: Credential) -> Credential | None:
        document = parse_object(read_text(path))
        registration = self._registration(path, registration_name(document))
        credential = read_credential(document, where, registration)
        is_ides = path == ide_file(self._machine)
        if credential and is_ides and credential.kind == "idc" and not credential.profile_arn:
            # For a login in another file, it could be the profile of another account.
            arn = text_of(self._object(ide_profile_file(self._machine)), "arn")
            credential = replace(credential, profile_arn=arn if region_of(arn) else "")
        return credential

    def _registration(self, path: Path, name: str) -> ClientRegistration | None:
        """Return a file's client registration. Without a registration, only a refresh fails."""
        ides = ide_file(self._machine)
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
        self._watched.setdefault(str(path), _stamp(str(path)))


def _explained(finding: Finding, *, is_winner: bool) -> Finding:
    """Return what people are shown of a finding: without secrets, and with why it lost."""
    is_held = finding.credential is not None
    why = finding.why if is_winner or not is_held else f"{finding.why}, but another one comes first"
    return Finding(source=finding.source, why=redact(why), is_used=is_winner and is_held)


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
