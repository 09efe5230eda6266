"""kiro-cli's login: reads and updates its database, and runs kiro-cli to renew the login.

The table `auth_kv` holds JSON under the keys below; the vendor writes `odic`, not `oidc`. `state`
holds the profile, as bytes. A registration belongs only to the token with the same prefix: with
an old one of its predecessor, Amazon Q, every refresh would fail.

The database belongs to another program. It is opened read-only, together with its write-ahead log,
which holds the newest data. To read the log, SQLite creates a file beside the database; if it
cannot, a copy is read. An update happens only if the user allows it. It changes one existing row,
if that row still holds the refresh token that was spent, and keeps all unknown members.
These functions block: call them in a thread.

kiro-cli can renew its own login, so that nobody else spends its refresh token. It is the only
program that this package starts for a credential, by its full path and without a shell::

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
    merge_tokens,
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
    """Return the key of the registration that belongs to a token; "" for none."""
    prefix, family, _ = token_key.split(":")
    return f"{prefix}:odic:device-registration" if family == "odic" else ""


def credentials_in(rows: Rows, state: Rows, where: CredentialSource) -> list[Credential]:
    """Read all credentials in the rows. Rows that cannot be read are skipped."""
    found = (_credential(key, rows, state, where) for key in TOKEN_KEYS if key in rows)
    return [credential for credential in found if credential]


def best(credentials: Sequence[Credential], now: datetime) -> Credential | None:
    """Return the credential that is usable now, or else the one that ends last; None for none."""
    return max(credentials, key=lambda one: (one.is_usable(now), _end(one)), default=None)


def _end(credential: Credential) -> float:
    return credential.expires_at.timestamp() if credential.expires_at else 0.0


def _credential(key: str, rows: Rows, state: Rows, where: CredentialSource) -> Credential | None:
    family = key.split(":")[1]
    document = {**_object(rows, key), **_DEFAULTS[family]}
    client = _object(rows, registration_key(key))
    registration = read_registration_file(client)
    if family == "odic":
        # A login without a start URL is a Builder ID login.
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
    """Return the problem if token and client registration are for different ways to sign in.

    kiro-cli writes the same way as `Pkce` and as `PKCE`.
    """
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
"""How long to wait while another program writes. kiro-cli writes for a few milliseconds."""

MAX_COPIED_BYTES: Final = 256 * 1024 * 1024
"""The largest database that is copied. kiro-cli also stores conversations in it."""

_BUSY_CODES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_KEYS: Final = (*TOKEN_KEYS, *(key for key in map(registration_key, TOKEN_KEYS) if key))


def read_rows(path: Path) -> tuple[Rows, Rows]:
    """Read the rows about sign-in from the tables `auth_kv` and `state`.

    Raises:
        BlockingIOError: Another program keeps the database locked.
        OSError: The database cannot be opened or read.
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
    with _open(path, how) as database:
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
    """Whether a row could be updated. This also needs write access to the folder, for a journal."""
    target = path.resolve()
    if not (os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
        return False
    try:
        with _open(target, "mode=rw") as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except OSError:
        return False
    return True


def update_row(path: Path, renewed: Credential) -> bool:
    """Write a renewed login to its row, if the row still holds the refresh token that was spent.

    Returns:
        Whether the row was updated; if not, another program has changed it.

    Raises:
        OSError: The database cannot be written.
    """
    with _open(path.resolve(), "mode=rw") as database:
        database.execute("BEGIN IMMEDIATE")
        document = _document(database, renewed.key)
        if document is None or text_of(document, "refresh_token") != renewed.held_refresh_token:
            database.rollback()
            return False
        text = json.dumps(merge_tokens(document, renewed), separators=(",", ":"))
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
def _open(path: Path, how: str) -> Generator[sqlite3.Connection]:
    """Open an existing database and turn its errors into `OSError`."""
    read_regular_file(path, 0)  # If this were a pipe, SQLite would wait for a writer.
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
"""How long kiro-cli may take. Observed: 2 to 15 seconds."""

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""How much of its output is read. A token has about 2 KiB."""

_GIVE_TOKEN: Final = ("chat", "_", "get-kas-token")
_RENEW: Final = ("debug", "refresh-auth-token")


def helper_for(credential: Credential, machine: Machine) -> str:
    """Return the full path of the program that can renew this login; "" for none. Blocking."""
    if credential.path not in map(str, kiro_cli_databases(machine)):
        return ""
    found = shutil.which("kiro-cli", path=machine.environ.get("PATH", ""))
    return str(Path(found).absolute()) if found else ""


async def token_of_kiro_cli(
    program: str, credential: Credential, machine: Machine, *, is_refused: bool
) -> Credential | None:
    """Ask kiro-cli for the token of its login.

    Args:
        program: The full path of kiro-cli.
        credential: The login as it is known here.
        machine: Provides the environment of the program.
        is_refused: Whether the service refused the login's token, even if it has not expired.

    Returns:
        The login with kiro-cli's token; None if kiro-cli returned none.
    """
    force = ("--force-refresh",) if is_refused else ()
    output = await _output(program, (*_GIVE_TOKEN, *force), machine.environ)
    where = CredentialSource(name=credential.source, origin=credential.origin)
    for line in (output, *reversed(output.splitlines())):  # Other output may precede the JSON.
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
    """Have an older kiro-cli renew its login. Read its database again afterwards."""
    await _output(program, _RENEW, machine.environ)


async def _output(program: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Run the program and return its output; "" if it failed or took too long."""
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
