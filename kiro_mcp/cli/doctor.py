"""`kiro-mcp doctor`: finds what keeps this server from working, without a change to anything.

::

    settings ─▶ account, network ┐
                store            ├─▶ checks (ok, warning, failed, skipped; with a cure) ─▶ table,
                starts           ┘   all at the same time                          lines, JSON

Each section probes and judges; each probe has a time limit. Nothing is written, renewed or signed
in, and no secret is shown. No probe sends a credential where a call would not: the requests to
hosts have none, and only a token that is still valid is used. Only the configuration files of the
user are read: a file in a project's folder may be from a stranger, and the doctor runs the commands
that it finds.
"""

import logging
import os
import platform
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Final, Literal, TypeVar
from urllib.parse import quote as quote_url
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from mcp import ClientSession, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from rich.table import Table
from rich.text import Text

from kiro_mcp._version import __version__
from kiro_mcp.acp.program import LEAST_VERSION, dialect_of, find_program, read_version
from kiro_mcp.auth.credentials import (
    BUILDER_ID_PROFILE_ARN,
    SOCIAL_PROFILE_ARN,
    Credential,
    Resolution,
    as_access_token,
    known_profile,
)
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.refresh import how_to_renew
from kiro_mcp.chat import AccessToken
from kiro_mcp.cli.clients import config_file
from kiro_mcp.cli.clients.config_file import servers
from kiro_mcp.cli.clients.edits import CannotEdit, Unparsable
from kiro_mcp.cli.clients.known import CLIENTS, Entry, missing_credential
from kiro_mcp.cli.clients.launch import PROGRAM, Launch, source
from kiro_mcp.cli.output import CODES, REFUSED, SIGN_IN, USAGE, harmless_json
from kiro_mcp.cli.serve import service_environ
from kiro_mcp.cli.session import run_command
from kiro_mcp.cli.terminal import is_terminal, say, show, waiting
from kiro_mcp.client.endpoints import (
    ENDPOINTS,
    LIST_MODELS_KAS,
    HostName,
    list_models_beside,
    service_url,
)
from kiro_mcp.client.http import HttpPool
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.client.retry import recovery_for
from kiro_mcp.errors import (
    InvalidRequest,
    KiroError,
    ServiceUnavailable,
    name_login_command,
    quoted,
)
from kiro_mcp.redaction import redact
from kiro_mcp.regions import DEFAULT_REGION, is_govcloud, region_of
from kiro_mcp.server.engine import STORE_NAME, Engine
from kiro_mcp.server.login import LOGIN_COMMANDS
from kiro_mcp.server.store import SCHEMA_VERSION, NewerStoreError
from kiro_mcp.settings import Settings, unknown_variables

NETWORK_SECONDS: Final = 10.0
"""How long a host may take to answer."""

START_SECONDS: Final = 30.0
"""How long a server may take to start; `uvx` may have to fetch it first."""

SLOW_START_SECONDS: Final = 10.0
"""Some clients do not wait longer for a server to answer."""

MAX_SKEW_SECONDS: Final = 60.0
"""The tolerated error of the clock. By this clock, tokens are renewed a minute before they end."""

ENDING_SECONDS: Final = 5.0
"""How long the doctor may take to end after Ctrl-C. A server that it has started has two seconds to
end by itself and two more after SIGTERM (`mcp.client.stdio`). Otherwise it could stay for ever."""

MAX_STDERR_BYTES: Final = 64 * 1024
"""How much of a server's stderr is read, from its end."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    outcome: Literal["ok", "warning", "failed", "skipped"]
    """What failed keeps the server from working. What was skipped could not, or need not, be
    checked."""
    name: str
    found: str
    cure: str = ""
    """What the user should do; "" if nothing."""
    details: tuple[str, ...] = ()
    exit_code: int = 0
    """The exit code of the process, unless another check has a higher one; 0 unless it failed."""


failed = partial(Check, "failed", exit_code=REFUSED)
skipped = partial(Check, "skipped")


def judge(name: str, found: str, cure: str = "", details: tuple[str, ...] = ()) -> Check:
    """Make a check of something that works; a warning, if the user should still do something."""
    return Check("warning" if cure else "ok", name, found, cure, details)


def fault(name: str, error: KiroError, details: tuple[str, ...] = ()) -> Check:
    """Make a failed check from an error."""
    code = CODES.get(error.code, REFUSED)
    code = REFUSED if code == USAGE else code  # USAGE would mean a wrong use of the doctor itself.
    return failed(name, error.message, error.next_step, details, exit_code=code)


# --- the command ---------------------------------------------------------------------------------


def run_doctor(*, as_json: bool, offline: bool) -> int:
    """Run all checks, print them, and return the exit code."""

    async def command() -> int:
        # The checks report what a server sends instead of MCP, so the SDK need not log it.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        with waiting("checking"):
            async with service_environ(offline=offline) as environ:
                own = {name: one for name, one in os.environ.items() if not name.startswith("KIRO")}
                found = await examine({**own, **environ}, offline=offline)
        checks = [redacted(check) for check in found]
        if as_json:
            say(checks_as_json(checks))
        else:
            if is_terminal(sys.stdout):
                show(checks_as_table(checks))
            else:
                say("\n".join(checks_as_lines(checks)))
            say(summary(checks))
        return exit_code_of(checks)

    return run_command(command, ending_seconds=ENDING_SECONDS)


async def examine(environ: Mapping[str, str], *, offline: bool) -> list[Check]:
    """Check everything that this server needs, for a process with these variables."""
    machine = Machine.of(environ, sys.platform)
    entries, faults = await anyio.to_thread.run_sync(find_entries, machine)
    python = f"Python {platform.python_version()}, {platform.platform()}"
    versions = f"kiro-mcp {__version__}, mcp {version('mcp')}, {python}; started as {sys.argv[0]}"
    checks, settings = settings_checks(environ)
    found = [judge("versions", versions), *checks]
    sections = [_start_checks(environ, machine, entries, offline=offline)]
    if settings is None:
        found.append(skipped("account, network, store", "correct the settings first"))
    elif settings.engine == "kiro-cli":
        sections = [_program_checks(settings, environ), _store_checks(settings, machine), *sections]
    else:
        elsewhere = sorted({entry.client.title for entry in entries if entry.brings_credential})
        service = _service_checks(settings, environ, elsewhere, offline=offline)
        sections = [service, _store_checks(settings, machine), *sections]
    *others, starts = await _together(sections)
    return [*found, *chain(*others), *faults, *starts]


async def _together(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """Return the results of calls that run at the same time.

    Unlike `asyncio.gather`, a task group lets a server be ended when the calls are cancelled.
    """
    results: dict[int, Answer] = {}

    async def run(index: int, call: Awaitable[Answer]) -> None:
        results[index] = await call

    async with anyio.create_task_group() as tasks:
        for index, call in enumerate(calls):
            tasks.start_soon(run, index, call)
    return [results[index] for index in sorted(results)]


# --- settings ------------------------------------------------------------------------------------


def settings_checks(environ: Mapping[str, str]) -> tuple[list[Check], Settings | None]:
    """Check names, values and folders of the settings, and return them if they are valid."""
    cure = "Correct the name where it is set."
    unknown = [judge("settings", one, cure) for one in unknown_variables(environ)]
    try:
        settings = Settings.load(environ)
    except InvalidRequest as error:
        return [*unknown, fault("settings", error)], None
    cure = "Make the folder, or correct KIRO_MCP_ROOTS."
    missing = [judge("settings", one, cure) for one in _missing_roots(settings)]
    return [*unknown, *missing] or [judge("settings", "all are valid")], settings


def _missing_roots(settings: Settings) -> Iterator[str]:
    for root in settings.roots:
        if not os.path.isdir(root):
            yield f"KIRO_MCP_ROOTS names {quoted(root)}, which is not a folder on this machine."


def endpoint_check(settings: Settings, region: str, *, offline: bool) -> Check:
    """Report where prompts go; warn about a URL that replaces the service."""
    found, cure = f"{', '.join(settings.endpoint_names)} in {region}", ""
    if offline:
        found += ", emulated on this machine"
    elif hosts := sorted({url for url in settings.endpoint_overrides.values() if url}):
        found += f", but at {', '.join(hosts)}"
        cure = "Unset KIRO_MCP_ENDPOINT_URL… to ask the service itself."
    elif is_govcloud(region):
        found += ", which is AWS GovCloud: it is not confirmed that its hosts answer"
        cure = "If calls fail, check the hosts below, or use a profile in another region"
        cure += " (KIRO_PROFILE_ARN)."
    return judge("endpoint", found, cure)


# --- the program of the engine kiro-cli ----------------------------------------------------------


_NOT_WITH_PROGRAM: Final = (
    "max_tokens, effort off, images in the results of tools, API keys of callers,"
    " counts of tokens (they are estimates), credits left (see the account's page)"
)


async def _program_checks(settings: Settings, environ: Mapping[str, str]) -> list[Check]:
    """Check the vendor's program; its login is its own, so none of ours is looked for."""
    checks: list[Check] = []
    name = "program"
    try:
        program = find_program(settings.kiro_cli, environ, depth=settings.depth)
        found = await program.describe(dialect_of(await program.flags()))
        is_old = () < read_version(found.partition(",")[0]) < read_version(LEAST_VERSION)
        update = f"Update it: {LEAST_VERSION} or later is known to work."
        checks.append(judge(name, found, update if is_old else ""))
        name = "sign-in"
        if await program.is_signed_in():
            checks.append(judge(name, "the program is signed in"))
            name = "models"
            models, default = await program.list_models()
            listed = f"the program lists {len(models)}; its default is {default or 'not named'}"
            checks.append(judge(name, listed))
        elif settings.api_key.get_secret_value():
            found = "it gets KIRO_API_KEY, and speaks v2 with it"
            checks.append(judge(name, f"nobody is signed in to the program; {found}"))
        else:
            found = "nobody is signed in to the program"
            checks.append(failed(name, found, f"Run {LOGIN_COMMANDS}.", exit_code=SIGN_IN))
    except KiroError as error:
        checks.append(fault(name, error))
    if name == "program":
        return [*checks, skipped("sign-in", "not checked without the program")]
    return [*checks, skipped("limits", f"not with this engine: {_NOT_WITH_PROGRAM}")]


# --- the account ---------------------------------------------------------------------------------


_KINDS: Final = {
    "api_key": "an API key",
    "access_token": "an access token",
    "social": "a Google or GitHub login",
    "builder_id": "an AWS Builder ID login",
    "idc": "an IAM Identity Center login",
    "external_idp": "a login of an organisation's own sign-in",
}

_SHARED_PROFILES: Final = {
    BUILDER_ID_PROFILE_ARN: ("builder_id", "all AWS Builder IDs"),
    SOCIAL_PROFILE_ARN: ("social", "Google and GitHub logins"),
}
"""The profiles that all logins of a kind share, with the kind and its users."""


async def _service_checks(
    settings: Settings, environ: Mapping[str, str], elsewhere: Sequence[str], *, offline: bool
) -> list[Check]:
    async with Engine(settings, environ=environ) as engine:
        resolution = await engine.tokens.resolution()
        region = token_as_it_is(settings, resolution.credential).region
        account = _account_checks(engine, resolution, elsewhere)
        network = _network_checks(settings, resolution.credential, region, environ)
        checks = chain(*await _together((account, network)))
    return [endpoint_check(settings, region, offline=offline), *checks]


async def _account_checks(
    engine: Engine, resolution: Resolution, elsewhere: Sequence[str]
) -> list[Check]:
    now = datetime.now(UTC)
    found = sign_in_checks(resolution, now, elsewhere=elsewhere)
    credential = resolution.credential
    if credential is None or not credential.is_usable(now):
        return [*found, skipped("credits", "not checked without a valid token")]
    settings, management = engine.settings, engine.tokens.management
    token = token_as_it_is(settings, credential)
    if not token.profile_arn and credential.kind != "api_key":
        region = settings.api_region or credential.region
        arn = await _answer_or_error(management.find_profile(token, login_region=region))
        if isinstance(arn, KiroError):
            return [*found, fault("profile", arn)]
        token = as_access_token(credential, profile_arn=arn, api_region=settings.api_region)
    limits = await _answer_or_error(management.usage_limits(token))
    is_error = isinstance(limits, KiroError)
    credits = fault("credits", limits) if is_error else credits_check(limits, now)
    endpoint = list_models_beside(settings.endpoint_names[0])
    older = await _answer_or_error(management.count_models(token, endpoint))
    newer = await _answer_or_error(management.count_models(token, LIST_MODELS_KAS))
    models = judge("models", "the service lists models for this login")
    if isinstance(older, KiroError):
        models = fault("models", older)
        if older.status in (400, 401, 403):  # Some tokens can only query usage.
            which_token = _token_and_profile(credential, token.profile_arn)
            models = replace(models, found=f"{older.message} {which_token}")
            if credential.kind == "builder_id" and token.profile_arn == BUILDER_ID_PROFILE_ARN:
                cure = (
                    "This was seen with AWS Builder ID logins: usage works, but models and prompts"
                    " are refused. Create an API key at https://app.kiro.dev and set KIRO_API_KEY."
                )
                models = replace(models, cure=cure)
    form = judge(
        "newer form", "the service lists models in the form of KIRO_MCP_ENDPOINTS=kas, too"
    )
    if isinstance(newer, KiroError):
        why = f"KIRO_MCP_ENDPOINTS=kas would not work here: {newer.message}"
        form = skipped("newer form", why)
    elif isinstance(older, KiroError) and recovery_for(older) == "newer_form":
        cure = "Set KIRO_MCP_ENDPOINTS=kas: calls go on in the newer form anyway."
        models = judge("models", models.found, cure)
    return [*found, profile_check(credential, token.profile_arn), credits, models, form]


async def _answer_or_error(
    call: Awaitable[Answer], *, asked: str = "the service", within_seconds: float = NETWORK_SECONDS
) -> Answer | KiroError:
    """Return the result of a call to the service, or the error that it ended with."""
    try:
        with anyio.fail_after(within_seconds):
            return await call
    except KiroError as error:
        return error
    except TimeoutError:
        return ServiceUnavailable(
            f"{asked} does not answer within {within_seconds:g} s.",
            next_step="Check the network, a proxy or firewall.",
            code="timeout",
        )


def sign_in_checks(
    resolution: Resolution, now: datetime, *, elsewhere: Sequence[str] = ()
) -> list[Check]:
    """Check which credential is used, and how long it is valid.

    Args:
        resolution: The credentials that were found.
        now: The time, aware UTC.
        elsewhere: The clients that have a credential of their own in their configuration.
    """
    details = tuple(
        f"{finding.source}, {'used, ' if finding.is_used else ''}{finding.why}"
        for finding in resolution.findings
    )
    nothing = skipped("token", "no token to check")
    if resolution.problem:
        return [fault("sign-in", resolution.problem, details), nothing]
    credential = resolution.credential
    if credential is None:
        cure = "Run `kiro-mcp login`, or set KIRO_API_KEY."
        if elsewhere:
            found = "nobody is signed in here; clients with their own credential: "
            return [judge("sign-in", found + ", ".join(elsewhere), cure), nothing]
        found = "nobody is signed in"
        return [failed("sign-in", found, cure, details, exit_code=SIGN_IN), nothing]
    found = f"{_KINDS[credential.kind]} from {credential.source}"
    return [judge("sign-in", found, details=details), _token_check(credential, now)]


def _token_check(credential: Credential, now: datetime) -> Check:
    ends = credential.expires_at
    if credential.kind == "api_key":
        return judge("token", "an API key does not expire")
    if credential.is_usable(now):
        found, cure = f"valid for {_span(ends - now)}" if ends else "its expiry is unknown", ""
        if credential.unreadable_end:
            found = f"its expiry date {credential.unreadable_end!r} cannot be read"
            cure = f"The token is used anyway. Correct the date in {credential.path}."
        return judge("token", found, cure)
    ended = f"expired {_span(now - ends)} ago" if ends else "unused"
    if credential.is_borrowed:
        found = f"{ended}; the program it is from renews it"
        return judge("token", found, how_to_renew(credential))
    if credential.can_refresh():
        return judge("token", f"{ended}; the next call renews it")
    found = f"{ended}, and cannot be renewed"
    return failed("token", found, how_to_renew(credential), exit_code=SIGN_IN)


def token_as_it_is(settings: Settings, credential: Credential | None) -> AccessToken:
    """Return the token of a request, without a call; without a credential, only its region."""
    credential = credential or Credential(source="")
    arn = known_profile(credential, settings.profile_arn)
    # Calls with an API key name no profile.
    region = settings.api_region or region_of(settings.profile_arn)
    return as_access_token(credential, profile_arn=arn, api_region=region)


def profile_check(credential: Credential, profile_arn: str) -> Check:
    """Check whether the profile in the calls fits this kind of token."""
    if credential.kind == "api_key":
        return judge("profile", "an API key has its own profile, so calls name none")
    found, cure = _token_and_profile(credential, profile_arn), ""
    kind, _ = _SHARED_PROFILES.get(profile_arn, (credential.kind, ""))
    if credential.kind not in (kind, "access_token"):
        found += ": the service refuses this combination or calls the token invalid"
        cure = "Unset KIRO_PROFILE_ARN, or sign in with the kind of login that the profile is for."
    return judge("profile", found, cure)


def _token_and_profile(credential: Credential, profile_arn: str) -> str:
    _, users = _SHARED_PROFILES.get(profile_arn, ("", ""))
    whose = f"the profile that {users} share" if users else f"the profile {profile_arn}"
    return f"The token belongs to {_KINDS[credential.kind]}, with {whose}"


def credits_check(credits: UsageLimits, now: datetime) -> Check:
    """Check how many credits of the plan are left."""
    if credits.used is None or credits.limit is None:
        return judge("credits", "the service does not say how many are left")
    plan = f"{credits.plan}: " if credits.plan else ""
    resets = f", reset in {_span(credits.resets_at - now)}" if credits.resets_at else ""
    found, cure = f"{plan}{credits.used:g} of {credits.limit:g} used{resets}", ""
    if credits.used >= credits.limit:
        cure = "Wait for the reset, or see your account page."
        if credits.is_overage_allowed:
            found, cure = f"{found}; more is billed", "See your account page."
    return judge("credits", found, cure)


# --- the network ---------------------------------------------------------------------------------


async def _network_checks(
    settings: Settings, credential: Credential | None, region: str, environ: Mapping[str, str]
) -> list[Check]:
    try:
        hosts = hosts_in_use(settings, credential, region)
    except InvalidRequest as error:
        return [fault("network", error)]
    variables = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    proxies = (settings.proxy_url.get_secret_value(), *(environ.get(name) for name in variables))
    is_proxied = any(proxies)
    async with aclosing(HttpPool.of(settings)) as pool:
        found = await _together(
            host_check(pool, url, use, is_proxied=is_proxied) for url, use in hosts.items()
        )
    skews = [skew for _, skew in found if skew is not None]
    return [*(check for check, _ in found), clock_check(skews)]


def hosts_in_use(settings: Settings, credential: Credential | None, region: str) -> dict[str, str]:
    """Return the URLs of the hosts that calls go to, each with its purpose.

    Raises:
        InvalidRequest: The service or the sign-in has no host in the region.
    """
    is_social = credential is not None and credential.kind == "social"
    home = (credential.region if credential else "") or settings.region or DEFAULT_REGION
    overrides = settings.endpoint_overrides | settings.sign_in_overrides
    uses: dict[str, dict[str, None]] = {}  # By the URL of the host, without duplicates.
    used: list[tuple[HostName, str, str]] = [
        *((ENDPOINTS[name].host, "prompts", region) for name in settings.endpoint_names),
        ("management", "the account", region),
        ("auth" if is_social else "oidc", "sign-in", home),
    ]
    for host, use, where in used:
        url = urlsplit(service_url(host, "/", region=where, overrides=overrides))
        uses.setdefault(f"{url.scheme}://{url.netloc}/", {})[use] = None
    return {url: ", ".join(names) for url, names in uses.items()}


async def host_check(
    pool: HttpPool,
    url: str,
    used_for: str,
    *,
    is_proxied: bool = False,
    within_seconds: float = NETWORK_SECONDS,
) -> tuple[Check, float | None]:
    """Request a host's front page without a credential: any answer shows that it is reachable.

    Returns:
        The check, and by how many seconds the host's clock is ahead of this machine's; None if it
        sent no date.
    """
    name, host = f"host for {used_for}", urlsplit(url).netloc
    began = time.monotonic()

    async def ask() -> tuple[float, int, str]:
        async with pool.request("GET", url, headers={}, body=b"") as response:
            return time.monotonic() - began, response.status, response.headers.get("date", "")

    answer = await _answer_or_error(ask(), asked=host, within_seconds=within_seconds)
    if isinstance(answer, KiroError):
        return fault(name, answer), None
    seconds, status, date = answer
    try:
        skew = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        skew = None  # The host sent no date, or one without a time zone.
    route = " through the proxy" if is_proxied else ""
    found = f"{host} answers{route} in {seconds:.2f} s (HTTP {status})"
    cure = ""
    if status in (407, 502, 503, 504):  # A proxy that cannot, or will not, forward a request.
        cure = "That may be a proxy's answer: check KIRO_MCP_PROXY_URL and HTTPS_PROXY."
    return judge(name, found, cure), skew


def clock_check(skews: Sequence[float]) -> Check:
    """Check this machine's clock by how many seconds the hosts' clocks are ahead of it."""
    if not skews:
        return skipped("clock", "no host sent the time")
    skew = min(skews, key=abs)  # One host, or a proxy, may have a wrong clock itself.
    if abs(skew) <= MAX_SKEW_SECONDS:
        return judge("clock", f"right to {abs(skew):.0f} s")
    found = f"{_span(timedelta(seconds=abs(skew)))} {'slow' if skew > 0 else 'fast'}"
    cure = "Let the system set its clock: otherwise tokens are renewed too late, or all the time."
    return judge("clock", found, cure)


# --- the store -----------------------------------------------------------------------------------


async def _store_checks(settings: Settings, machine: Machine) -> list[Check]:
    folder = own_home(machine, settings.home)
    if folder is None:
        found = "it has no folder, because HOME is not set"
        return [judge("store", found, "Name one in KIRO_MCP_HOME.")]
    try:
        return [await anyio.to_thread.run_sync(store_check, folder)]
    except OSError as error:
        cure = "Make it readable, or name another one in KIRO_MCP_HOME."
        return [failed("store", f"{folder} cannot be read ({error.strerror})", cure)]


def store_check(folder: Path) -> Check:
    """Check the folder for logins, conversations and answers. Blocking."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        cure = "Make it writable, or name another folder in KIRO_MCP_HOME."
        return failed("store", f"{folder} is not writable", cure)
    if not folder.is_dir():
        return judge("store", f"{folder} will be created at the first use")
    database = folder / STORE_NAME
    is_in_use = database.with_name(f"{STORE_NAME}-wal").is_file()
    if database.is_file() and not is_in_use:
        # Opened as immutable, because even a reader would create a write-ahead log otherwise.
        address = f"file:{quote_url(os.fsencode(database))}?mode=ro&immutable=1"
        error, remedy = "", "Move the database away"
        try:
            with closing(sqlite3.connect(address, uri=True)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema > SCHEMA_VERSION:
                error = f"is not for this version: {NewerStoreError(schema)}"
                remedy = "Update kiro-mcp"
        except sqlite3.Error as problem:
            error = f"cannot be read ({problem})"
        if error:
            cure = f"{remedy}, or set KIRO_MCP_STORE=memory."
            return failed("store", f"{folder}: {database.name} {error}", cure)
    files = sorted(one for one in folder.iterdir() if one.is_file())
    opened: list[str] = []
    for path in [folder, *files] if sys.platform != "win32" else ():  # There, modes say nothing.
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            opened.append(f"{path.name} ({mode:o}{', writable' if mode & 0o022 else ''})")
    if opened:
        cure = f"Run `chmod -R go= {quote(str(folder))}`."
        return judge("store", f"{folder}: other users can read: {', '.join(opened)}", cure)
    size = sum(one.stat().st_size for one in files)
    return judge("store", f"{folder}, {size / 1_000_000:.1f} MB")


# --- starts of the server ------------------------------------------------------------------------


_PLACEHOLDER: Final = "${"
"""The start of a placeholder that only the client can fill in, such as `${input:kiro-key}`."""

_SLOW_START: Final = (
    "Some clients wait no longer than that. The quickest start is an installed one: use"
    " `uv tool install --compile-bytecode` with the path or name that this one came from."
)


async def _start_checks(
    environ: Mapping[str, str], machine: Machine, entries: Sequence[Entry], *, offline: bool
) -> list[Check]:
    """Start this installation, and then the commands of the clients.

    One after the other, so that they do not slow each other down. Equal commands start once.
    """
    known: dict[tuple[Launch, frozenset[tuple[str, str]]], Check] = {}

    async def start_once(launch: Launch, variables: Mapping[str, str]) -> Check:
        how = (launch, frozenset(variables.items()))
        if how not in known:
            known[how] = await start(launch, variables)
        return known[how]

    own = Launch(command=sys.executable, args=("-m", "kiro_mcp"))
    came_from = source()
    cure = "Reinstall it from its source: `uv tool install --reinstall PATH`."
    if came_from is not None:
        cure = f"Reinstall it: `uv tool install --reinstall {quote(came_from or PROGRAM)}`."
    found = [_start_check("this installation", await start(own, environ), cure)]
    found += [await entry_check(one, machine, start_once, offline=offline) for one in entries]
    if not entries:
        none = f"none of the {len(CLIENTS)} known clients starts this server"
        found.append(skipped("clients", none, "`kiro-mcp install CLIENT` adds it to one."))
    return found


def _start_check(name: str, check: Check, cure: str) -> Check:
    return replace(check, name=name, cure=cure if check.outcome == "failed" else check.cure)


def find_entries(machine: Machine) -> tuple[list[Entry], list[Check]]:
    """Return the entries of all known clients, and a check for each unreadable file. Blocking."""
    entries: list[Entry] = []
    faults: list[Check] = []
    for client in CLIENTS.values() if machine.home else ():
        path = client.user_file(machine)
        try:
            found = servers(config_file.read(path).text, client)
        except Unparsable as error:
            where = f"{path}, line {error.line}, column {error.column}: {error}"
            faults.append(judge(client.title, where, "Correct that line."))
        except (InvalidRequest, CannotEdit) as error:
            faults.append(judge(client.title, f"{path}: {error}", "Correct the file."))
        else:
            every = [Entry(client, name, members, path) for name, members in found.items()]
            entries += [entry for entry in every if entry.is_ours]
    return entries, faults


async def entry_check(
    entry: Entry,
    machine: Machine,
    start: Callable[[Launch, Mapping[str, str]], Awaitable[Check]],
    *,
    offline: bool = False,
) -> Check:
    """Check an entry of a client: its command, a start of it, its variables and its credential."""
    client, launch, file = entry.client, entry.launch, entry.file
    assert launch  # An entry without a command is not ours.
    name, command = f"{client.title}: {entry.name}", launch.command
    install = f"kiro-mcp install {client.id} --name {entry.name}"
    again = f"Run `{install}`, which corrects it."
    variables = {
        name: value for name, value in entry.variables.items() if _PLACEHOLDER not in value
    }
    environ = {**client.inherited(machine), **variables}
    is_absolute = os.path.isabs(command)
    if entry.is_switched_off:
        return judge(name, f"it is switched off in {file}", "Switch it on in the client.")
    if _PLACEHOLDER in str(launch):
        return skipped(name, f"only the client can complete its command ({file})")
    if which(command, path=environ.get("PATH", "")) is None:
        why = "does not exist" if is_absolute else "is not on the client's PATH"
        return failed(name, f"its command {command} {why} ({file})", again)
    check = _start_check(name, await start(launch, environ), again)
    if check.outcome != "ok":
        return check
    faults = [*unknown_variables(variables)]
    try:
        faults += _missing_roots(Settings.load(variables))
    except InvalidRequest as error:
        faults.append(error.message)
    # Offline, the clients' credentials are not checked: they are for the service.
    missing = None
    if not (offline or entry.brings_credential):
        missing = await anyio.to_thread.run_sync(missing_credential, machine, environ)
    if faults:
        found, cure = f"but: {' '.join(faults)}", f"Correct it in {file}."
    elif missing is not None:
        found = "but it finds no credential there"
        cure = f"Run `kiro-mcp login`; or set KIRO_API_KEY and run `{install} --env KIRO_API_KEY`."
        if missing:
            cure = f"{missing} is set here only: run `{install} --env {missing}`."
    elif not is_absolute:
        found, cure = f"but {command} is not an absolute path", again
    else:
        return check
    return judge(name, f"{check.found}, {found}", cure)


async def start(
    launch: Launch,
    environ: Mapping[str, str],
    *,
    within_seconds: float = START_SECONDS,
    slow_seconds: float = SLOW_START_SECONDS,
) -> Check:
    """Start a server as a client does, list its tools and end it; the check has no name yet."""
    parameters = StdioServerParameters(
        command=launch.command,
        args=list(launch.args),
        env=dict(environ),
        encoding_error_handler="replace",
    )
    began = time.monotonic()
    error = f"no answer within {within_seconds:g} s"
    has_noise = False

    async def listen(message: object) -> None:
        nonlocal has_noise
        has_noise = has_noise or isinstance(message, Exception)

    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", newline="") as stderr:
        try:
            with anyio.move_on_after(within_seconds):
                async with (
                    stdio_client(parameters, errlog=stderr) as streams,
                    ClientSession(*streams, message_handler=listen) as session,
                ):
                    try:
                        await session.initialize()
                        tools = (await session.list_tools()).tools
                        seconds = time.monotonic() - began
                        found = f"answers in {seconds:.1f} s, with {len(tools)} tools"
                        return judge("", found, _SLOW_START if seconds > slow_seconds else "")
                    except MCPError as problem:
                        error = f"it does not answer ({problem})"
                    except (RuntimeError, ValueError) as problem:
                        # It speaks an unknown version of MCP, or a result lacks something.
                        reason, _, _ = str(problem).partition("\n")
                        error = f"its answer cannot be used ({reason})"
        except (OSError, ValueError, ExceptionGroup) as problem:
            return failed("", f"it cannot be started ({problem})")
        size = stderr.seek(0, os.SEEK_END)
        stderr.seek(max(0, size - MAX_STDERR_BYTES))
        written = [
            line.strip() for line in stderr.read(MAX_STDERR_BYTES).split("\n") if line.strip()
        ]
    if has_noise:
        error += "; its standard output contains something other than MCP"
    return failed("", f"{error}; it said: {written[-1]}" if written else error)


# --- showing -------------------------------------------------------------------------------------


_NAME_WIDTH: Final = 24
_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def redacted(check: Check) -> Check:
    """Return a check without secrets, and for a reader who has no tools."""
    cure = redact(name_login_command(check.cure))
    details = tuple(redact(detail) for detail in check.details)
    return replace(check, found=redact(check.found), cure=cure, details=details)


def exit_code_of(checks: Iterable[Check]) -> int:
    """Return the exit code of the worst check; 0 if none failed."""
    return max((check.exit_code for check in checks), default=0)


def checks_as_json(checks: Sequence[Check]) -> str:
    """Return the checks as JSON."""
    members = ("name", "outcome", "found", "cure", "details")
    report = [{name: getattr(check, name) for name in members} for check in checks]
    return harmless_json({"exit_code": exit_code_of(checks), "checks": report})


def checks_as_lines(checks: Iterable[Check]) -> Iterator[str]:
    """Yield the lines for a pipe."""
    for check in checks:
        yield f"{check.outcome:<8} {check.name}: {check.found}"
        for detail in (*check.details, *([f"→ {check.cure}"] if check.cure else [])):
            yield f"{'':<8}   {detail}"


def checks_as_table(checks: Iterable[Check]) -> Table:
    """Return the table for a terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in checks:
        said = Text(check.found)
        for detail in check.details:
            said.append(f"\n{detail}", style="dim")
        if check.cure:
            said.append(f"\n→ {check.cure}")
        table.add_row(Text(check.outcome, style=_STYLES[check.outcome]), check.name, said)
    return table


def summary(checks: Iterable[Check]) -> str:
    """Return the number of failures and warnings as one line."""
    outcomes = [check.outcome for check in checks]
    failures, warnings = outcomes.count("failed"), outcomes.count("warning")
    parts = [f"{failures} failed"] if failures else []
    if warnings:
        parts.append(f"{warnings} warning{'s' if warnings > 1 else ''}")
    return f"{', '.join(parts)}." if parts else "Everything is in order."


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
