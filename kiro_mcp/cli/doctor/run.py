"""`kiro-mcp doctor`: runs all probes at the same time, judges the results and prints them."""

import logging
import os
import platform
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from shlex import quote
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp._version import __version__
from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.sources import Resolution
from kiro_mcp.cli.clients.known import CLIENTS
from kiro_mcp.cli.clients.launch import PROGRAM, Launch, source
from kiro_mcp.cli.doctor import checks
from kiro_mcp.cli.doctor.checks import Check, Configured, Reached, Started
from kiro_mcp.cli.doctor.probes import (
    answer_or_error,
    entries_on,
    hosts_in_use,
    look_at_store,
    missing_roots,
    reach,
    start,
    token_as_it_is,
    token_with_profile,
)
from kiro_mcp.cli.serve import offline_environ
from kiro_mcp.cli.session import run_command
from kiro_mcp.cli.terminal import is_terminal, say, show, waiting
from kiro_mcp.client.http import HttpPool
from kiro_mcp.emulator import EMULATOR_API_KEY, running
from kiro_mcp.errors import InvalidRequest, KiroError
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings, unknown_variables

_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

Section = Callable[[], Awaitable[list[Check]]]


def run_doctor(*, as_json: bool, offline: bool) -> int:
    """Run all checks, print them, and return the exit code."""

    async def command() -> int:
        # The checks report what a server sends instead of MCP, so the SDK need not log it.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        with waiting("checking"):
            async with _environ(offline=offline) as environ:
                found = await examine(environ, offline=offline)
        _show([checks.redacted(check) for check in found], as_json=as_json)
        return checks.exit_code_of(found)

    return run_command(command)


def _show(found: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        say(checks.as_json(found))
        return
    if is_terminal(sys.stdout):
        show(checks.as_table(found))
    else:
        say("\n".join(checks.as_lines(found)))
    say(checks.summary(found))


@asynccontextmanager
async def _environ(*, offline: bool) -> AsyncGenerator[Mapping[str, str]]:
    """Yield this process's variables; offline, with an emulator instead of the service."""
    if not offline:
        yield dict(os.environ)
        return
    async with running() as emulator:
        own = {name: value for name, value in os.environ.items() if not name.startswith("KIRO")}
        service = offline_environ(os.environ, emulator.url)
        yield {**own, **service, "KIRO_API_KEY": EMULATOR_API_KEY}


async def examine(environ: Mapping[str, str], *, offline: bool) -> list[Check]:
    """Check everything that this server needs, for a process with these variables."""
    machine = Machine.of(environ, sys.platform)
    entries, faults = await anyio.to_thread.run_sync(entries_on, machine)
    found = [_versions(), *_settings_checks(environ)]

    async def starts() -> list[Check]:
        return [*faults, *await _starts(environ, entries, offline=offline)]

    try:
        settings = Settings.load(environ)
    except InvalidRequest:
        nothing = checks.skipped("account, network, store", "correct the settings first")
        return [*found, nothing, *await starts()]
    elsewhere = sorted({entry.title for entry in entries if entry.brings_credential})
    async with Engine(settings, environ=environ) as engine:
        try:
            resolution = await engine.tokens.resolution()
            region = token_as_it_is(settings, resolution.credential).region
        except KiroError as error:
            return [*found, checks.fault("sign-in", error), *await starts()]
        found.append(checks.judge_endpoint(settings, region, offline=offline))
        sections: list[Section] = [
            lambda: _account(engine, resolution, elsewhere),
            lambda: _network(engine, resolution, region, environ),
            lambda: _store(settings, machine),
            starts,
        ]
        return [*found, *await _all_of(sections)]


async def _all_of(sections: Sequence[Section]) -> list[Check]:
    """Run the sections at the same time and return their checks in order."""
    outcomes: dict[int, list[Check]] = {}

    async def run(index: int, section: Section) -> None:
        outcomes[index] = await section()

    async with anyio.create_task_group() as tasks:
        for index, section in enumerate(sections):
            tasks.start_soon(run, index, section)
    return [check for index in sorted(outcomes) for check in outcomes[index]]


def _now() -> datetime:
    return datetime.now(UTC)


# --- the sections --------------------------------------------------------------------------------


def _versions() -> Check:
    python = platform.python_version()
    found = f"kiro-mcp {__version__}, mcp {version('mcp')}, Python {python}, {platform.platform()}"
    return checks.ok("versions", f"{found}; started as {sys.argv[0]}")


def _settings_checks(environ: Mapping[str, str]) -> list[Check]:
    cure = "Correct the name where it is set."
    unknown = [checks.warning("settings", one, cure) for one in unknown_variables(environ)]
    try:
        settings = Settings.load(environ)
    except InvalidRequest as error:
        return [*unknown, checks.fault("settings", error)]
    cure = "Make the folder, or correct KIRO_MCP_ROOTS."
    missing = [checks.warning("settings", one, cure) for one in missing_roots(settings)]
    return [*unknown, *missing] or [checks.ok("settings", "all are valid")]


async def _account(engine: Engine, resolution: Resolution, elsewhere: Sequence[str]) -> list[Check]:
    found = [*checks.judge_credential(resolution, _now(), elsewhere=elsewhere)]
    credential = resolution.credential
    if credential is None or not credential.is_usable(_now()):
        return [*found, checks.skipped("credits", "not checked without a valid token")]
    token = await answer_or_error(token_with_profile(engine, credential))
    if isinstance(token, KiroError):
        return [*found, checks.fault("profile", token)]
    found.append(checks.judge_profile(credential, token.profile_arn))
    management = engine.tokens.management
    credits = await answer_or_error(management.usage_limits(token))
    if isinstance(credits, KiroError):
        found.append(checks.fault("credits", credits))
    else:
        found.append(checks.judge_credits(credits, _now()))
    models = await answer_or_error(management.count_models(token))
    return [*found, checks.judge_models(models, credential, token.profile_arn)]


async def _network(
    engine: Engine, resolution: Resolution, region: str, environ: Mapping[str, str]
) -> list[Check]:
    settings = engine.settings
    try:
        hosts = hosts_in_use(settings, resolution.credential, region)
    except InvalidRequest as error:
        return [checks.fault("network", error)]
    proxy = settings.proxy_url.get_secret_value()
    pool = HttpPool(connect_timeout_seconds=settings.connect_timeout_seconds, proxy_url=proxy)
    reached: dict[str, Reached] = {}

    async def ask(url: str, used_for: str) -> None:
        reached[url] = await reach(pool, url, used_for, now=_now, clock=time.monotonic)

    try:
        async with anyio.create_task_group() as tasks:
            for url, used_for in hosts.items():
                tasks.start_soon(ask, url, used_for)
    finally:
        await pool.aclose()
    seen = [reached[url] for url in hosts]
    is_proxied = bool(proxy or any(environ.get(name) for name in _PROXY_VARIABLES))
    return [*checks.judge_hosts(seen, is_proxied=is_proxied), checks.judge_clock(seen)]


async def _store(settings: Settings, machine: Machine) -> list[Check]:
    folder = own_home(machine, settings.home)
    if folder is None:
        found = "it has no folder, because HOME is not set"
        return [checks.warning("store", found, "Name one in KIRO_MCP_HOME.")]
    try:
        return [checks.judge_store(await anyio.to_thread.run_sync(look_at_store, folder))]
    except OSError as error:
        cure = "Make it readable, or name another one in KIRO_MCP_HOME."
        return [checks.failed("store", f"{folder} cannot be read ({error.strerror})", cure)]


async def _starts(
    environ: Mapping[str, str], entries: Sequence[Configured], *, offline: bool
) -> list[Check]:
    """Start this installation, and then the commands of the clients.

    One after the other, so that they do not slow each other down. Equal commands start once.
    """
    own = Launch(command=sys.executable, args=("-m", "kiro_mcp"))
    found = [
        checks.judge_start(
            await start(own, environ, clock=time.monotonic),
            "this installation",
            _how_to_reinstall(),
        )
    ]
    known: list[tuple[Configured, Started]] = []
    for entry in entries:
        started: Started | None = None
        if entry.is_startable:
            same = [one for other, one in known if _starts_alike(entry, other)]
            started = (
                same[0] if same else await start(entry.launch, entry.environ, clock=time.monotonic)
            )
            known.append((entry, started))
        # Offline, the clients' credentials are not checked: they are for the service.
        judged = replace(entry, has_credential=True) if offline else entry
        found.append(checks.judge_client(judged, started))
    if not entries:
        none = f"none of the {len(CLIENTS)} known clients starts this server"
        found.append(checks.skipped("clients", none, "`kiro-mcp install CLIENT` adds it to one."))
    return found


def _starts_alike(one: Configured, other: Configured) -> bool:
    return one.launch == other.launch and one.environ == other.environ


def _how_to_reinstall() -> str:
    came_from = source()
    if came_from is None:
        return "Reinstall it from its source: `uv tool install --reinstall PATH`."
    return f"Reinstall it: `uv tool install --reinstall {quote(came_from or PROGRAM)}`."
