"""Examines the machine and the network: each probe has a time limit and changes nothing.

No probe sends a credential where a call would not: the requests to hosts have none, and only a
token that is still valid is used. A token is not renewed, because the new one would be stored.
Only the configuration files of the user are read: a file in a project's folder may be from a
stranger, and the doctor runs the commands that it finds.
"""

import os
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from shutil import which
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

import anyio
from mcp import ClientSession, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client

from kiro_mcp.auth.credentials import Credential, as_access_token, known_profile
from kiro_mcp.auth.machine import Machine
from kiro_mcp.chat import AccessToken
from kiro_mcp.cli.clients import config_file
from kiro_mcp.cli.clients.config_file import servers
from kiro_mcp.cli.clients.edits import CannotEdit, Unparsable
from kiro_mcp.cli.clients.known import (
    CLIENTS,
    Client,
    finds_credential,
    inherited,
    is_ours,
    is_switched_off,
    launch_of,
    missing_credential_variable,
    user_file,
    variables_of,
)
from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.cli.doctor.checks import Check, Configured, Reached, Started, StoreSeen, warning
from kiro_mcp.client.endpoints import ENDPOINTS, LIST_MODELS, service_url
from kiro_mcp.client.http import HttpPool
from kiro_mcp.errors import InvalidRequest, KiroError, ServiceUnavailable, quoted
from kiro_mcp.regions import DEFAULT_REGION, region_of
from kiro_mcp.server.engine import STORE_NAME, Engine
from kiro_mcp.server.store import SCHEMA_VERSION, NewerStoreError
from kiro_mcp.settings import Settings, unknown_variables

NETWORK_SECONDS: Final = 10.0
"""How long a host may take to answer."""

START_SECONDS: Final = 30.0
"""How long a server may take to start; `uvx` may have to fetch it first."""

MAX_STDERR_BYTES: Final = 64 * 1024
"""How much of a server's stderr is read, from its end."""

Clock = Callable[[], float]
Answer = TypeVar("Answer")


# --- the network ---------------------------------------------------------------------------------


def token_as_it_is(settings: Settings, credential: Credential | None) -> AccessToken:
    """Return the token of a request, without a call; without a credential, only its region."""
    chosen = settings.profile_arn
    nobody = Credential(kind="access_token", source="")
    arn = known_profile(credential or nobody, chosen)
    region = settings.api_region or region_of(chosen)  # Calls with an API key name no profile.
    return as_access_token(credential or nobody, profile_arn=arn, api_region=region)


def hosts_in_use(settings: Settings, credential: Credential | None, region: str) -> dict[str, str]:
    """Return the URLs of the hosts that calls go to, each with its purpose.

    Raises:
        InvalidRequest: The service or the sign-in has no host in the region.
    """
    profiles = [(ENDPOINTS[name], "prompts") for name in settings.endpoint_names]
    used = [
        (service_url(one.host, "/", region=region, overrides=settings.endpoint_overrides), use)
        for one, use in (*profiles, (LIST_MODELS, "the account"))
    ]
    is_social = credential is not None and credential.kind == "social"
    sign_in = service_url(
        "auth" if is_social else "oidc",
        "/",
        region=(credential.region if credential else "") or settings.region or DEFAULT_REGION,
        overrides=settings.sign_in_overrides,
    )
    hosts: dict[str, list[str]] = {}
    for url, use in (*used, (sign_in, "sign-in")):
        uses = hosts.setdefault("{0.scheme}://{0.netloc}/".format(urlsplit(url)), [])
        if use not in uses:
            uses.append(use)
    return {url: ", ".join(uses) for url, uses in hosts.items()}


async def reach(
    pool: HttpPool,
    url: str,
    used_for: str,
    *,
    now: Callable[[], datetime],
    clock: Clock,
    within_seconds: float = NETWORK_SECONDS,
) -> Reached:
    """Request a host's front page without a credential: any answer shows that it is reachable."""
    host = urlsplit(url).netloc
    began = clock()
    try:
        with anyio.fail_after(within_seconds):
            async with pool.request("GET", url, headers={}, body=b"") as response:
                return Reached(
                    host=host,
                    used_for=used_for,
                    status=response.status,
                    seconds=clock() - began,
                    skew_seconds=_skew(response.headers.get("date", ""), now()),
                )
    except KiroError as error:
        return Reached(host=host, used_for=used_for, error=error)
    except TimeoutError:
        return Reached(host=host, used_for=used_for, error=_too_slow(host, within_seconds))


def _skew(date: str, now: datetime) -> float | None:
    try:
        return (parsedate_to_datetime(date) - now).total_seconds()
    except (TypeError, ValueError):
        return None  # The host sent no date, or one without a time zone.


def _too_slow(host: str, seconds: float) -> KiroError:
    return ServiceUnavailable(
        f"{host} does not answer within {seconds:g} s.",
        next_step="Check the network, a proxy or firewall.",
        code="timeout",
    )


async def token_with_profile(engine: Engine, credential: Credential) -> AccessToken:
    """Return the current token with the profile that a call would name.

    Raises:
        KiroError: The profile is unknown, or the service did not answer.
    """
    token = token_as_it_is(engine.settings, credential)
    if token.profile_arn or credential.kind == "api_key":
        return token
    region = engine.settings.api_region or credential.region
    arn = await engine.tokens.management.find_profile(token, login_region=region)
    return as_access_token(credential, profile_arn=arn, api_region=engine.settings.api_region)


async def answer_or_error(call: Awaitable[Answer]) -> Answer | KiroError:
    """Return the result of a call to the service, or the error that it ended with."""
    try:
        with anyio.fail_after(NETWORK_SECONDS):
            return await call
    except KiroError as error:
        return error
    except TimeoutError:
        return _too_slow("the service", NETWORK_SECONDS)


# --- the disk ------------------------------------------------------------------------------------


def look_at_store(folder: Path) -> StoreSeen:
    """Examine the folder for logins and conversations. Blocking."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    files = sorted(one for one in folder.iterdir() if one.is_file()) if folder.is_dir() else []
    database = folder / STORE_NAME
    database_error, is_newer = _database_error(database) if database.is_file() else ("", False)
    return StoreSeen(
        folder=str(folder),
        is_there=folder.is_dir(),
        is_writable=nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK),
        open_to_others=tuple(_open_to_others([folder, *files] if folder.is_dir() else [])),
        size_bytes=sum(one.stat().st_size for one in files),
        database_error=database_error,
        is_newer=is_newer,
        is_in_use=database.with_name(f"{STORE_NAME}-wal").is_file(),
    )


def _open_to_others(paths: list[Path]) -> Iterator[str]:
    if sys.platform == "win32":
        return  # File modes do not tell that on Windows.
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield f"{path.name} ({mode:o}{', writable' if mode & 0o022 else ''})"


def _database_error(path: Path) -> tuple[str, bool]:
    """Return why the database cannot be used, and whether a newer version created it."""
    # Opened as immutable, because even a reader would create a write-ahead log otherwise.
    address = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        return f"{path.name} cannot be read ({error})", False
    if version > SCHEMA_VERSION:
        return f"{path.name} is not for this version: {NewerStoreError(version)}", True
    return "", False


# --- a start of the server -----------------------------------------------------------------------


async def start(
    launch: Launch,
    environ: Mapping[str, str],
    *,
    clock: Clock,
    within_seconds: float = START_SECONDS,
) -> Started:
    """Start a server as a client does, list its tools, and end it."""
    parameters = StdioServerParameters(
        command=launch.command,
        args=list(launch.args),
        env=dict(environ),
        encoding_error_handler="replace",
    )
    began = clock()
    started = Started(error=f"no answer within {within_seconds:g} s")
    noises: list[Exception] = []

    async def listen(message: object) -> None:
        noises.extend([message] if isinstance(message, Exception) else [])

    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        try:
            with anyio.move_on_after(within_seconds):
                async with (
                    stdio_client(parameters, errlog=stderr) as streams,
                    ClientSession(*streams, message_handler=listen) as session,
                ):
                    started = await _list_tools(session, began, clock)
        except (OSError, ValueError, ExceptionGroup) as error:
            return Started(error=f"it cannot be started ({error})")
        if not started.error:
            return started
        noise = "; its standard output contains something other than MCP" if noises else ""
        return Started(error=f"{started.error}{noise}{_last_line(stderr.fileno())}")


async def _list_tools(session: ClientSession, began: float, clock: Clock) -> Started:
    try:
        await session.initialize()
        listed = await session.list_tools()
    except MCPError as error:
        return Started(error=f"it does not answer ({error})")
    return Started(seconds=clock() - began, tools=tuple(tool.name for tool in listed.tools))


def _last_line(stderr: int) -> str:
    """Quote the last line that a server wrote to stderr."""
    size = os.lseek(stderr, 0, os.SEEK_END)
    os.lseek(stderr, max(0, size - MAX_STDERR_BYTES), os.SEEK_SET)
    lines = os.read(stderr, MAX_STDERR_BYTES).decode("utf-8", errors="replace").split("\n")
    written = [line.strip() for line in lines if line.strip()]
    return f"; it said: {written[-1]}" if written else ""


# --- the entries of clients ---------------------------------------------------------------


_PLACEHOLDER = "${"
"""The start of a placeholder that only the client can fill in, such as `${input:kiro-key}`."""

_CREDENTIALS = ("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN")


def entries_on(machine: Machine) -> tuple[list[Configured], list[Check]]:
    """Return the entries of all known clients, and a check for each unreadable file. Blocking."""
    entries: list[Configured] = []
    faults: list[Check] = []
    if machine.home is None:
        return entries, faults
    for client in CLIENTS.values():
        path = user_file(client, machine)
        try:
            found = servers(config_file.read(path).text, client)
        except Unparsable as error:
            found = f"{path}, line {error.line}, column {error.column}: {error}"
            faults.append(warning(client.title, found, "Correct that line."))
        except (InvalidRequest, CannotEdit) as error:
            faults.append(warning(client.title, f"{path}: {error}", "Correct the file."))
        else:
            ours = {name: entry for name, entry in found.items() if is_ours(entry)}
            entries.extend(
                _configured(client, name, entry, machine, str(path)) for name, entry in ours.items()
            )
    return entries, faults


def _configured(
    client: Client, name: str, entry: object, machine: Machine, file: str
) -> Configured:
    launch = launch_of(entry)
    assert launch  # An entry without one is not ours.
    every = variables_of(entry)
    variables = {key: value for key, value in every.items() if _PLACEHOLDER not in value}
    environ = {**inherited(client, machine), **variables}
    brings = any(every.get(key) for key in _CREDENTIALS)
    has_credential = brings or finds_credential(environ, machine.platform)
    return Configured(
        client=client.id,
        title=client.title,
        name=name,
        file=file,
        launch=launch,
        environ=environ,
        is_absolute=os.path.isabs(launch.command),
        is_there=which(launch.command, path=environ.get("PATH", "")) is not None,
        is_switched_off=is_switched_off(entry),
        has_placeholders=_PLACEHOLDER in str(launch),
        has_credential=has_credential,
        missing_variable="" if has_credential else missing_credential_variable(machine, environ),
        brings_credential=brings,
        faults=tuple(_faults(variables)),
    )


def _faults(variables: dict[str, str]) -> Iterator[str]:
    yield from unknown_variables(variables)
    try:
        yield from missing_roots(Settings.load(variables))
    except InvalidRequest as error:
        yield error.message


def missing_roots(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each folder in KIRO_MCP_ROOTS that does not exist. Blocking."""
    for root in settings.roots:
        if not os.path.isdir(root):
            yield f"KIRO_MCP_ROOTS names {quoted(root)}, which is not a folder on this machine."
