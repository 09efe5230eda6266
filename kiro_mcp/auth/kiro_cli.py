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
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio

from kiro_mcp.auth.credentials import (
    BUILDER_ID_START_URL,
    Credential,
    merge_tokens,
    parse_object,
    read_credential,
    read_registration,
    text_of,
)
from kiro_mcp.auth.machine import KIRO_CLI, Machine, databases
from kiro_mcp.files import can_replace, read_regular_file

_TOKENS: Final = {
    "kirocli:social:token": "social",
    "kirocli:odic:token": "idc",
    "kirocli:external-idp:token": "external_idp",
    "codewhisperer:odic:token": "idc",
}
"""The keys of logins, each with the kind of its login."""
_REGISTRATIONS: Final = {
    f"{prefix}:odic:token": f"{prefix}:odic:device-registration"
    for prefix in ("kirocli", "codewhisperer")
}
"""The keys of the client registrations, by the keys of their logins."""
_PROFILE: Final = "api.codewhisperer.profile"
_REGION: Final = "auth.idc.region"

Rows = Mapping[str, bytes]

BUSY_SECONDS: Final = 2.0
"""How long to wait while another program writes. kiro-cli writes for a few milliseconds."""

MAX_COPIED_BYTES: Final = 256 * 1024 * 1024
"""The largest database that is copied. kiro-cli also stores conversations in it."""

_BUSY_CODES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def login_in(rows: Rows, where: Credential, now: datetime) -> Credential | None:
    """Return the login that is usable now, or else the one that ends last; None for none.

    Rows that cannot be read are skipped. `where` is an empty credential that says where they are.
    """
    found = (_login(key, rows, where) for key in _TOKENS if key in rows)
    return max(
        (login for login in found if login),
        key=lambda it: (it.is_usable(now), it.expires_at.timestamp() if it.expires_at else 0.0),
        default=None,
    )


def _login(key: str, rows: Rows, where: Credential) -> Credential | None:
    document = {**_object(rows, key), "auth_method": _TOKENS[key]}
    client = _object(rows, _REGISTRATIONS.get(key, ""))
    registration = read_registration(client, is_all=True)
    registered_in = registration.region if registration else ""
    if key in _REGISTRATIONS:
        # A login without a start URL is a Builder ID login.
        document["start_url"] = text_of(document, "start_url") or BUILDER_ID_START_URL
        latest = rows.get(_REGION, b"").decode("utf-8", "replace").strip().strip('"')
        document["region"] = text_of(document, "region") or registered_in or latest
    try:
        found = read_credential(document, replace(where, key=key), registration)
    except ValueError:
        return None
    if found is None:
        return None
    problem = found.problem
    # kiro-cli writes the same way to sign in as `Pkce` and as `PKCE`.
    flows = [text_of(one, "oauth_flow").lower() for one in (document, client)]
    if not problem and registered_in and found.region not in ("", registered_in):
        problem = f"its client is registered in {registered_in}, not in {found.region}"
    elif not problem and all(flows) and flows[0] != flows[1]:
        problem = "its client is registered for another way to sign in"
    profile_arn = found.profile_arn or text_of(_object(rows, _PROFILE), "arn")
    return replace(found, profile_arn=profile_arn, problem=problem)


def _object(rows: Rows, key: str) -> dict[str, object]:
    try:
        return parse_object(rows.get(key, b"null"))
    except ValueError:  # Malformed, or the literal `null`, which means "signed out".
        return {}


def read_rows(path: Path) -> Rows:
    """Read the rows about sign-in from the tables `auth_kv` and `state`.

    Raises:
        BlockingIOError: Another program keeps the database locked.
        OSError: The database cannot be opened or read.
    """
    try:
        return _select(path, "mode=ro")
    except (BlockingIOError, FileNotFoundError, IsADirectoryError):
        raise
    except OSError:
        log = path.with_name(f"{path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            return _select(path, "mode=ro&immutable=1")
        if path.stat().st_size + log.stat().st_size > MAX_COPIED_BYTES:
            raise
        with tempfile.TemporaryDirectory(prefix="kiro-mcp-") as folder:  # Only we can enter it.
            copy = Path(folder, path.name)
            for source in (path, log):
                shutil.copyfile(source, copy.with_name(source.name))
            return _select(copy, "mode=rw")


def _select(path: Path, how: str) -> Rows:
    keys = (*_TOKENS, *_REGISTRATIONS.values(), _PROFILE, _REGION)
    rows: dict[str, bytes] = {}
    with _open(path, how) as database:
        for table in ("auth_kv", "state"):
            try:
                rows |= _rows(database, table, keys)
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
    return rows


def _rows(database: sqlite3.Connection, table: str, keys: Sequence[str]) -> Rows:
    marks = ", ".join("?" * len(keys))
    statement = f"SELECT key, value FROM {table} WHERE key IN ({marks})"  # noqa: S608  # constants
    found: Iterable[tuple[bytes, object]] = database.execute(statement, keys)
    return {key.decode(): value for key, value in found if isinstance(value, bytes)}


def can_update(path: Path) -> bool:
    """Whether a row could be updated. This also needs write access to the folder, for a journal."""
    target = path.resolve()
    if not can_replace(target):
        return False
    try:
        with _open(target, "mode=rw") as database:
            database.execute("BEGIN IMMEDIATE")  # Closing the database ends it.
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
        document = _object(_rows(database, "auth_kv", [renewed.key]), renewed.key)
        if not document or text_of(document, "refresh_token") != renewed.held_refresh_token:
            return False
        text = json.dumps(merge_tokens(document, renewed), separators=(",", ":"))
        database.execute("UPDATE auth_kv SET value = ? WHERE key = ?", (text, renewed.key))
        database.commit()
        return True


@contextmanager
def _open(path: Path, how: str) -> Generator[sqlite3.Connection]:
    """Open an existing database and turn its errors into `OSError`."""
    read_regular_file(path, 0)  # If this were a pipe, SQLite would wait for a writer.
    address = f"file:{quote(os.fsencode(path))}?{how}"
    try:
        with closing(
            sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        ) as database:
            database.text_factory = bytes  # A text that is not UTF-8 hides only its own row.
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
    if databases(machine).get(Path(credential.path)) != KIRO_CLI:
        return ""
    found = shutil.which("kiro-cli", path=machine.environ.get("PATH", ""))
    return str(Path(found).absolute()) if found else ""


async def token_of_kiro_cli(
    program: str, credential: Credential, machine: Machine, *, is_refused: bool
) -> Credential | None:
    """Ask kiro-cli for the token of its login; have an older kiro-cli renew the login.

    Returns:
        The login with kiro-cli's token; None if kiro-cli returned none. Then its database may
        hold a renewed login.
    """
    force = ("--force-refresh",) if is_refused else ()
    output = await _output(program, (*_GIVE_TOKEN, *force), machine.environ)
    where = Credential(source=credential.source)
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
    await _output(program, _RENEW, machine.environ)
    return None


async def _output(program: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Run the program and return its output; "" if it failed or took too long."""
    output = b""
    with anyio.move_on_after(HELPER_SECONDS), suppress(OSError):
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
        if is_done and len(output) <= MAX_OUTPUT_BYTES:
            return output.decode("utf-8", "replace")
    return ""
