"""`kiro-mcp install CLIENT`: add this server to a client's configuration, or remove it.

The file is read (`clients.files`), edited as a text (`clients.documents`), the change is shown
without secrets, and the file is replaced as a whole; a backup stays beside it.
"""

import difflib
import os
import re
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Final

import anyio

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.cli.clients import files
from kiro_mcp.cli.clients.documents import servers, with_server, without_server
from kiro_mcp.cli.clients.known import (
    CLIENTS,
    Client,
    entry_of,
    finds_credential,
    inherited,
    is_ours,
    launch_of,
    missing_credential_variable,
    variables_of,
)
from kiro_mcp.cli.clients.launch import PROGRAM, Launch, lasting_launch
from kiro_mcp.cli.clients.text import CannotEdit, Unparsable
from kiro_mcp.cli.terminal import say, tell, tell_error
from kiro_mcp.errors import InvalidRequest, ServiceUnavailable
from kiro_mcp.files import hold_lock
from kiro_mcp.redaction import HIDDEN, redact
from kiro_mcp.settings import Settings, unknown_variables

_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LOCK_SECONDS: Final = 30.0
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    name: str
    env: tuple[str, ...]
    in_project: bool
    file: str
    is_dry_run: bool


def run_install(client_id: str, options: Options, *, is_removal: bool) -> int:
    """Install into a client, or remove from it, and return the exit code."""
    client = CLIENTS[client_id]
    machine = Machine.of(os.environ, sys.platform)
    try:
        if options.is_dry_run:
            return _change(client, machine, options, is_removal=is_removal)

        async def change_locked() -> int:
            async with _install_lock(machine):
                return _change(client, machine, options, is_removal=is_removal)

        return anyio.run(change_locked)
    except InvalidRequest as error:
        return tell_error(error)


@asynccontextmanager
async def _install_lock(machine: Machine) -> AsyncGenerator[None]:
    """Wait for other installations: each one must read what the previous one has written."""
    home = own_home(machine, os.environ.get("KIRO_MCP_HOME", "").strip())
    async with AsyncExitStack() as stack:
        try:
            if home is not None:
                lock = hold_lock(home / "install.lock", timeout_seconds=_LOCK_SECONDS)
                await stack.enter_async_context(lock)
        except ServiceUnavailable:
            raise InvalidRequest(
                f"Another `kiro-mcp install` has been running for {_LOCK_SECONDS:g} seconds.",
                next_step="End it, then run this again.",
            ) from None
        except OSError:
            pass  # The lock file cannot be written, as on a read-only disk: go on without it.
        yield


def _change(client: Client, machine: Machine, options: Options, *, is_removal: bool) -> int:
    before = files.read(_config_path(client, machine, options))
    try:
        if is_removal:
            return _remove(client, before, options)
        return _install(client, machine, before, options)
    except Unparsable as fault:
        raise InvalidRequest(
            f"{before.path}, line {fault.line}, column {fault.column}: {fault}."
            " Nothing was changed.",
            next_step="Correct that line, then run this again.",
        ) from fault
    except CannotEdit as fault:
        raise InvalidRequest(
            f"{before.path} cannot be edited: {fault}. Nothing was changed.",
            next_step="Add or remove the entry by hand (see README).",
        ) from fault


def _config_path(client: Client, machine: Machine, options: Options) -> Path:
    if options.file and options.in_project:
        raise InvalidRequest("--file and --project cannot be used together.")
    if options.file:
        return machine.expanded(options.file).absolute()
    if not options.in_project:
        return files.user_file(client, machine)
    if not client.project_file:
        raise InvalidRequest(
            f"{client.title} has no configuration of its own for a project.",
            next_step="Leave --project out.",
        )
    return Path.cwd() / client.project_file


# --- adding the server ---------------------------------------------------------------------------


def _install(client: Client, machine: Machine, before: files.ConfigFile, options: Options) -> int:
    if not _SERVER_NAME.fullmatch(options.name):
        raise InvalidRequest(
            f"{options.name!r} cannot be the name of a server.",
            next_step="Use letters, digits, - and _, at most 40.",
        )
    variables = _variables(options.env, os.environ)
    existing = servers(before.text, client).get(options.name)
    if existing is not None and not is_ours(existing):
        raise _name_taken(before.path, options.name, launch_of(existing))
    entry = entry_of(_launch(), variables, has_type=client.has_type)
    if existing is None:
        entry = {**entry, **client.new_entry}
    after = with_server(before.text, client, options.name, entry)
    is_usual = not options.in_project and not options.file
    if is_usual and before.data is None and not files.is_installed(client, machine):
        tell(f"{client.title} seems not to be installed here.")
    _apply(before, after, options, unchanged=f"{options.name!r} is there already")
    after_variables = variables_of(servers(after, client)[options.name])
    for line in _next_steps(client, machine, after_variables, options):
        say(line)
    return 0


def _launch() -> Launch:
    running = files.running()
    launch = lasting_launch(running)
    if launch is None and running.source is None:
        raise InvalidRequest(
            "This kiro-mcp runs from a cache, and the source that it was built from is unknown or"
            " does not exist any more.",
            next_step="Run `uv tool install PATH` with the path of its checkout or wheel, then"
            " `kiro-mcp install` again.",
        )
    if launch is None:
        source = quote(running.source or PROGRAM)
        raise InvalidRequest(
            "This kiro-mcp runs from a cache, and neither an installed kiro-mcp nor uvx was found.",
            next_step=f"Run `uv tool install {source}`, then `kiro-mcp install` again.",
        )
    return launch


def _variables(given: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Read `NAME=VALUE`, or `NAME` for the value that it has here, and check the settings."""
    variables: dict[str, str] = {}
    for one in given:
        name, has_value, value = one.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise InvalidRequest(f"--env {name!r} is not the name of a variable; give NAME=VALUE.")
        if not has_value and name not in environ:
            raise InvalidRequest(f"--env {name}: it is not set here; give {name}=VALUE.")
        variables[name] = value if has_value else environ[name]
        if not variables[name].isprintable():
            raise InvalidRequest(f"The value of --env {name} contains unprintable characters.")
    for sentence in unknown_variables(variables):
        tell(f"warning: {sentence}")
    # The client replaces values such as ${input:kiro-key}.
    Settings.load({name: value for name, value in variables.items() if "${" not in value})
    return variables


def _name_taken(path: Path, name: str, launch: Launch | None) -> InvalidRequest:
    what = f", which starts {launch.command}" if launch else ""
    return InvalidRequest(
        f"{path} has another server {name!r}{what}. Nothing was changed.",
        next_step="Choose another name with --name.",
    )


# --- removing the server -------------------------------------------------------------------------


def _remove(client: Client, before: files.ConfigFile, options: Options) -> int:
    existing = servers(before.text, client).get(options.name)
    if existing is not None and not is_ours(existing):
        raise _name_taken(before.path, options.name, launch_of(existing))
    after = without_server(before.text, client, options.name)
    _apply(before, after, options, unchanged=f"it has no server {options.name!r}")
    if after != before.text and not options.is_dry_run:
        say("A running server ends when the client is restarted.")
    return 0


# --- writing the file ----------------------------------------------------------------------------


def _apply(before: files.ConfigFile, after: str, options: Options, *, unchanged: str) -> None:
    """Show the change and write it; if nothing changes, print why: `unchanged`."""
    if after == before.text:
        say(f"{before.path}: {unchanged}; nothing changed.")
        return
    for line in shown_change(before.text, after, str(before.path)):
        say(line)
    if options.is_dry_run:
        say("Nothing was written (--dry-run).")
        return
    backup = files.write(before, after, datetime.now(UTC))
    saved = f" Backup: {backup}, which only you can read." if backup else ""
    say(f"Wrote {before.path}.{saved}")


def _next_steps(
    client: Client, machine: Machine, variables: Mapping[str, str], options: Options
) -> Iterable[str]:
    if options.is_dry_run:
        return
    if options.in_project:
        yield "The path of the command is valid on this machine only; note that if you commit it."
        if any(name.endswith(("KEY", "TOKEN")) for name in variables):
            yield "warning: the file contains a credential; do not commit it."
    yield client.next_step
    given = {**inherited(client, machine), **variables}
    if finds_credential(given, machine.platform):
        return
    if name := missing_credential_variable(machine, given):
        yield f"{name} is set here, but {client.title} does not pass it on: add `--env {name}`."
    else:
        yield "Nobody is signed in yet: run `kiro-mcp login`, or add `--env KIRO_API_KEY=ksk_…`."


# --- showing the change -------------------------------------------------------------------


MAX_LINE: Final = 200
"""How many characters of a line are shown; some clients write their file as one line."""

_CONTEXT_LINES: Final = 3

_URL_LOGIN: Final = re.compile(r"(?<=://)[^/@\s\"']+(?=@)")
"""A user's name and password in a URL, such as a proxy's."""

_HEADERS: Final = re.compile(r"""((?<!\w)["']?\w*HEADERS?["']?\s*[:=]\s*)\S.*""", re.IGNORECASE)
"""HTTP headers as one string. Its names do not tell which header is secret, so the rest of the line
is hidden."""

_SECRET: Final = re.compile(
    r"""((?<![\w.-])["']?[\w.-]*(?:auth\w*|cookie|credential|key|pass\w*|pat|secret|token)s?["']?\s*[:=]\s*)
        (["'])(?:\\.|(?!\2).)*\2""",
    re.IGNORECASE | re.VERBOSE,
)
"""A string whose name sounds secret: the file contains variables of other servers, too."""


def shown_change(before: str, after: str, name: str) -> Iterator[str]:
    """Yield the lines of a unified diff, with all secrets hidden."""
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        fromfile=name,
        tofile=name,
        n=_CONTEXT_LINES,
        lineterm="",
    )
    for line in lines:
        # Secrets are hidden after the comparison, so that a change of a secret is still shown.
        hidden = _HEADERS.sub(rf"\1{HIDDEN}", _URL_LOGIN.sub(HIDDEN, line))
        hidden = redact(_SECRET.sub(rf"\1\2{HIDDEN}\2", hidden))
        rest = len(hidden) - MAX_LINE
        yield hidden if rest <= 0 else f"{hidden[:MAX_LINE]} … ({rest} more characters)"
