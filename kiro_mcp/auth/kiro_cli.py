"""kiro-cli's login: its database, read and updated, and the program that renews it.

The table `auth_kv` holds JSON under the keys below; `odic` is the vendor's own spelling. `state`
holds the profile, as bytes. A registration belongs only to the token with the same prefix: a
stale one of the forerunner, Amazon Q, would make every refresh fail.

The database belongs to another program. It is opened read-only, with its write-ahead log, which
holds the newest data. SQLite makes a file beside the database to read that log; if it cannot, a
copy is read. An update happens only if the user allows it. It touches one existing row, if that
still holds the refresh token that was spent, and keeps every member that is unknown here.
Blocking: call it in a thread.

kiro-cli can renew its own login, so that its refresh token is not spent behind its back. It is the
only program that this package starts for a credential, by its full path and without a shell::

    kiro-cli chat _ get-kas-token [--force-refresh]    prints the token as JSON
    kiro-cli debug refresh-auth-token                  older versions; its output is not read
"""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

import anyio

from kiro_mcp.auth.credentials import BUILDER_ID_START_URL, ClientRegistration, Credential
from kiro_mcp.auth.documents import (
    CredentialSource,
    merged,
    parse_object,
    read_credential,
    read_registration_file,
    text_of,
)
from kiro_mcp.auth.machine import Machine, kiro_cli_databases
from kiro_mcp.regular_files import read_regular_file

TOKEN_KEYS: Final = (
    "kirocli:social:token",
    "kirocli:odic:token",
    "kirocli:external-idp:token",
    "codewhisperer:odic:token",
)
PROFILE_KEY: Final = "api.codewhisperer.profile"
STATE_KEYS: Final = (PROFILE_KEY, "auth.idc.start-url", "auth.idc.region")

_DEFAULTS: Final[Mapping[str, dict[str, object]]] = {
    "social": {"auth_method": "social"},
    "odic": {"auth_method": "idc"},
    "external-idp": {"auth_method": "external_idp"},
}

Rows = Mapping[str, str | bytes]


def registration_key(token_key: str) -> str:
    """Return the key of the registration that belongs to a token; "" where it has none."""
    prefix, family, _ = token_key.split(":")
    return f"{prefix}:odic:device-registration" if family == "odic" else ""


def credentials_in(rows: Rows, state: Rows, where: CredentialSource) -> list[Credential]:
    """Read every credential that the rows hold; a row that cannot be read is as if not there."""
    found = (_credential(key, rows, state, where) for key in TOKEN_KEYS if key in rows)
    return [credential for credential in found if credential]


def best(credentials: Sequence[Credential], now: datetime) -> Credential | None:
    """Choose where there are several: one that is good now, then the one that ends last."""
    return max(credentials, key=lambda one: (one.is_usable(now), _end(one)), default=None)


def _end(credential: Credential) -> float:
    return credential.expires_at.timestamp() if credential.expires_at else 0.0


def _credential(key: str, rows: Rows, state: Rows, where: CredentialSource) -> Credential | None:
    family = key.split(":")[1]
    document = {**_object(rows, key), **_DEFAULTS[family]}
    client = _object(rows, registration_key(key))
    registration = read_registration_file(client)
    if family == "odic":
        # A login without a start URL is Builder ID's.
        document["start_url"] = text_of(document, "start_url") or BUILDER_ID_START_URL
        document["region"] = (
            text_of(document, "region")
            or (registration.region if registration else "")
            or _quoted(state, "auth.idc.region")
        )
    try:
        found = read_credential(document, replace(where, key=key), registration)
    except ValueError:
        return None
    if found is None:
        return None
    profile_arn = found.profile_arn or text_of(_object(state, PROFILE_KEY), "arn")
    problem = found.problem or _mismatch(found, registration) or _other_flow(document, client)
    return replace(found, profile_arn=profile_arn, problem=problem)


def _mismatch(found: Credential, registration: ClientRegistration | None) -> str:
    if registration and registration.region and found.region not in ("", registration.region):
        return f"its client is registered in {registration.region}, not in {found.region}"
    return ""


def _other_flow(document: Mapping[str, object], client: Mapping[str, object]) -> str:
    """A client is registered for one way to sign in; the same one is spelt `Pkce` and `PKCE`."""
    flows = [text_of(one, "oauth_flow").lower() for one in (document, client)]
    is_other = all(flows) and flows[0] != flows[1]
    return "its client is registered for another way to sign in" if is_other else ""


def _object(rows: Rows, key: str) -> dict[str, object]:
    try:
        return parse_object(rows.get(key, "null"))
    except ValueError:  # Malformed, or the literal `null`, which means "signed out".
        return {}


def _quoted(rows: Rows, key: str) -> str:
    value = rows.get(key, b"")
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text.strip().strip('"')


BUSY_SECONDS: Final = 2.0
"""How long another program's write is waited for; kiro-cli's take milliseconds."""

MAX_COPIED_BYTES: Final = 256 * 1024 * 1024
"""The largest database that is copied to be read; kiro-cli keeps conversations in it, too."""

_BUSY_CODES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_KEYS: Final = (*TOKEN_KEYS, *(key for key in map(registration_key, TOKEN_KEYS) if key))


def read_rows(path: Path) -> tuple[Rows, Rows]:
    """Read the rows of sign-in: `auth_kv` and `state`.

    Raises:
        BlockingIOError: Another program writes to it for too long.
        OSError: It cannot be opened or read.
    """
    try:
        return _rows_of(path, "mode=ro")
    except (BlockingIOError, FileNotFoundError, IsADirectoryError):
        raise
    except OSError:
        log = path.with_name(f"{path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            return _rows_of(path, "mode=ro&immutable=1")
        if path.stat().st_size + log.stat().st_size > MAX_COPIED_BYTES:
            raise
        with tempfile.TemporaryDirectory(prefix="kiro-mcp-") as folder:  # Only we can enter it.
            copy = Path(folder, path.name)
            for source in (path, log):
                shutil.copyfile(source, copy.with_name(source.name))
            return _rows_of(copy, "mode=rw")


def _rows_of(path: Path, how: str) -> tuple[Rows, Rows]:
    with _opened(path, how) as database:
        return (
            _select(database, "SELECT key, value FROM auth_kv WHERE key IN ({})", _KEYS),
            _select(database, "SELECT key, value FROM state WHERE key IN ({})", STATE_KEYS),
        )


def _select(database: sqlite3.Connection, statement: str, keys: Sequence[str]) -> Rows:
    marks = ", ".join("?" * len(keys))
    try:
        found = database.execute(statement.format(marks), keys).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return {}
        raise
    rows = cast("list[tuple[str, object]]", found)
    return {key: value for key, value in rows if isinstance(value, str | bytes)}


def can_update(path: Path) -> bool:
    """Whether a row could be updated: a writer needs the folder too, for its journal."""
    target = path.resolve()
    if not (os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
        return False
    try:
        with _opened(target, "mode=rw") as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except OSError:
        return False
    return True


def update_row(path: Path, renewed: Credential, *, spent_refresh_token: str) -> bool:
    """Put a renewed login into its row, if that still holds the refresh token that was spent.

    Returns:
        Whether it did; if not, another program was there first.

    Raises:
        OSError: It cannot be written.
    """
    with _opened(path.resolve(), "mode=rw") as database:
        database.execute("BEGIN IMMEDIATE")
        document = _document(database, renewed.key)
        if document is None or text_of(document, "refresh_token") != spent_refresh_token:
            database.rollback()
            return False
        text = json.dumps(merged(document, renewed), separators=(",", ":"))
        done = database.execute("UPDATE auth_kv SET value = ? WHERE key = ?", (text, renewed.key))
        database.commit()
        return done.rowcount == 1


def _document(database: sqlite3.Connection, key: str) -> Mapping[str, object] | None:
    row = cast(
        "tuple[str | bytes] | None",
        database.execute("SELECT value FROM auth_kv WHERE key = ?", (key,)).fetchone(),
    )
    try:
        return parse_object(row[0]) if row else None
    except ValueError:
        return None


@contextmanager
def _opened(path: Path, how: str) -> Generator[sqlite3.Connection]:
    """Open a database that is there already; translate its errors."""
    read_regular_file(path, 0)  # SQLite would wait for a writer if this is a pipe.
    address = f"file:{quote(str(path))}?{how}"
    try:
        with closing(
            sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        ) as database:
            yield database
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY_CODES:
            raise BlockingIOError(errno.EAGAIN, f"{error}") from error
        raise OSError(f"{error}") from error


HELPER_SECONDS: Final = 20.0
"""How long kiro-cli may take; observed are 2 to 15 seconds."""

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""How much of its output is read. A token takes about 2 KiB."""

_GIVE_TOKEN: Final = ("chat", "_", "get-kas-token")
_RENEW: Final = ("debug", "refresh-auth-token")


def helper_for(credential: Credential, machine: Machine) -> str:
    """Return the full path of the program that can renew this login, "" for none. Blocking."""
    if credential.path not in map(str, kiro_cli_databases(machine)):
        return ""
    found = shutil.which("kiro-cli", path=machine.environ.get("PATH", ""))
    return str(Path(found).absolute()) if found else ""


async def token_of_kiro_cli(
    program: str, credential: Credential, machine: Machine, *, is_refused: bool
) -> Credential | None:
    """Ask kiro-cli for the token of its login.

    Args:
        program: Its full path.
        credential: The login as it is known here.
        machine: Whose environment the program gets.
        is_refused: Whether the service refused the token that is known, however new it seems.

    Returns:
        The login with that token; None where kiro-cli gave none.
    """
    force = ("--force-refresh",) if is_refused else ()
    output = await _output(program, (*_GIVE_TOKEN, *force), machine.environ)
    where = CredentialSource(name=credential.source, origin=credential.origin)
    for line in (output, *reversed(output.splitlines())):  # Notices may stand before the JSON.
        try:
            document = parse_object(line)
            given = read_credential(document, where)
        except ValueError:
            continue
        if given is not None and given.access_token:
            return replace(
                credential,
                kind=given.kind if text_of(document, "auth_method") else credential.kind,
                access_token=given.access_token,
                held_refresh_token=credential.held_refresh_token or credential.refresh_token,
                expires_at=given.expires_at,
                profile_arn=given.profile_arn or credential.profile_arn,
            )
    return None


async def renew_by_kiro_cli(program: str, machine: Machine) -> None:
    """Have an older kiro-cli renew its login; its database has to be read again afterwards."""
    await _output(program, _RENEW, machine.environ)


async def _output(program: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Run the program and return what it printed; "" where it failed or took too long."""
    output = b""
    with anyio.move_on_after(HELPER_SECONDS):
        try:
            async with await anyio.open_process(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(environ),
            ) as process:
                assert process.stdout
                async for chunk in process.stdout:
                    output = (output + chunk)[: MAX_OUTPUT_BYTES + 1]
                is_done = await process.wait() == 0
        except OSError:
            return ""
        is_whole = is_done and len(output) <= MAX_OUTPUT_BYTES
        return output.decode("utf-8", "replace") if is_whole else ""
    return ""
