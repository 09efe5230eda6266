"""`kiro-mcp doctor`: every probe at once, each within its time, judged and printed."""

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
from kiro_mcp.cli.clients import files
from kiro_mcp.cli.clients.known import CLIENTS
from kiro_mcp.cli.clients.launch import PROGRAM, Launch
from kiro_mcp.cli.doctor import checks
from kiro_mcp.cli.doctor.checks import Check, Configured, Reached, Started
from kiro_mcp.cli.doctor.probes import (
    answered,
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
    """Look at everything, print it, and return the exit code."""

    async def command() -> int:
        # What a server that is tried sends instead of MCP is told in the checks.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        with waiting("looking"):
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
    """Yield this process's variables, or those of somebody who uses an emulator here."""
    if not offline:
        yield dict(os.environ)
        return
    async with running() as emulator:
        own = {name: value for name, value in os.environ.items() if not name.startswith("KIRO")}
        service = offline_environ(os.environ, emulator.url)
        yield {**own, **service, "KIRO_API_KEY": EMULATOR_API_KEY}


async def examine(environ: Mapping[str, str], *, offline: bool) -> list[Check]:
    """Look at everything that this server needs, as a process with these variables sees it."""
    machine = Machine.of(environ, sys.platform)
    entries, faults = await anyio.to_thread.run_sync(entries_on, machine)
    found = [_versions(), *_settings_checks(environ)]

    async def starts() -> list[Check]:
        return [*faults, *await _starts(environ, entries, offline=offline)]

    try:
        settings = Settings.load(environ)
    except InvalidRequest:
        nothing = checks.skipped("account, network, store", "the settings come first")
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
    """Run the sections at once and return their checks in order."""
    outcomes: dict[int, list[Check]] = {}

    async def run(place: int, section: Section) -> None:
        outcomes[place] = await section()

    async with anyio.create_task_group() as tasks:
        for place, section in enumerate(sections):
            tasks.start_soon(run, place, section)
    return [check for place in sorted(outcomes) for check in outcomes[place]]


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
    return [*unknown, *missing] or [checks.ok("settings", "all can be used")]


async def _account(engine: Engine, resolution: Resolution, elsewhere: Sequence[str]) -> list[Check]:
    found = [*checks.judge_credential(resolution, _now(), elsewhere=elsewhere)]
    credential = resolution.credential
    if credential is None or not credential.is_usable(_now()):
        return [*found, checks.skipped("credits", "not asked without a token that is good now")]
    token = await answered(token_with_profile(engine, credential))
    if isinstance(token, KiroError):
        return [*found, checks.fault("profile", token)]
    found.append(checks.judge_profile(credential, token.profile_arn))
    management = engine.tokens.management
    credits = await answered(management.usage_limits(token))
    if isinstance(credits, KiroError):
        found.append(checks.fault("credits", credits))
    else:
        found.append(checks.judge_credits(credits, _now()))
    models = await answered(management.count_models(token))
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
        found = "this machine has no folder for it (HOME is not set)"
        return [checks.warning("store", found, "Name one in KIRO_MCP_HOME.")]
    try:
        return [checks.judge_store(await anyio.to_thread.run_sync(look_at_store, folder))]
    except OSError as error:
        cure = "Make it readable, or name another one in KIRO_MCP_HOME."
        return [checks.failed("store", f"{folder} cannot be looked at ({error.strerror})", cure)]


async def _starts(
    environ: Mapping[str, str], entries: Sequence[Configured], *, offline: bool
) -> list[Check]:
    """Start this installation, and then what each client would start.

    One after the other, so that the seconds are those of one start alone; the same one once.
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
        # The emulator is not the clients' service, so what they would find says nothing.
        judged = replace(entry, has_credential=True) if offline else entry
        found.append(checks.judge_client(judged, started))
    if not entries:
        none = f"none of the {len(CLIENTS)} known ones starts this server"
        found.append(checks.skipped("clients", none, "`kiro-mcp install CLIENT` adds it to one."))
    return found


def _starts_alike(one: Configured, other: Configured) -> bool:
    return one.launch == other.launch and one.environ == other.environ


def _how_to_reinstall() -> str:
    source = files.source()
    if source is None:
        return "Install it anew from where it came: `uv tool install --reinstall PATH`."
    return f"Install it anew: `uv tool install --reinstall {quote(source or PROGRAM)}`."
