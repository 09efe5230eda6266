"""`kiro-mcp install CLIENT`: add this server to a client's configuration, or remove it.

::

    read the file ─▶ edit its text ─▶ show the change ─▶ replace the file ─▶ say what comes next
                                       (no secrets)       (with a backup)
"""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Final

import anyio

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.cli.clients import config_file
from kiro_mcp.cli.clients.config_file import servers, with_server, without_server
from kiro_mcp.cli.clients.edits import CannotEdit, Unparsable
from kiro_mcp.cli.clients.known import CLIENTS, Client, Entry, missing_credential
from kiro_mcp.cli.clients.launch import PROGRAM, Launch, Running, lasting_launch
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
    is_removal: bool


def run_install(client_id: str, options: Options) -> int:
    """Install into a client, or remove from it, and return the exit code."""
    client = CLIENTS[client_id]
    machine = Machine.of(os.environ, sys.platform)
    try:
        if options.is_dry_run:
            return _change(client, machine, options)
        return anyio.run(_change_alone, client, machine, options)
    except InvalidRequest as error:
        return tell_error(error)


async def _change_alone(client: Client, machine: Machine, options: Options) -> int:
    """Wait for other installations: each one must read what the previous one has written."""
    home = own_home(machine, os.environ.get("KIRO_MCP_HOME", "").strip())
    try:
        async with AsyncExitStack() as stack:
            if home is not None:
                lock = hold_lock(home / "install.lock", timeout_seconds=_LOCK_SECONDS)
                with suppress(OSError):  # It cannot be written, as on a read-only disk.
                    await stack.enter_async_context(lock)
            return _change(client, machine, options)
    except ServiceUnavailable:
        raise InvalidRequest(
            f"Another `kiro-mcp install` has been running for {_LOCK_SECONDS:g} seconds.",
            next_step="End it, then run this again.",
        ) from None


def _change(client: Client, machine: Machine, options: Options) -> int:
    """Do the whole installation, or removal, and return the exit code."""
    name = options.name
    if not options.is_removal and not _SERVER_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a server.",
            next_step="Use letters, digits, - and _, at most 40.",
        )
    before = config_file.read(_config_path(client, machine, options))
    path = before.path
    variables = {} if options.is_removal else _variables(options.env, os.environ)
    try:
        existing = Entry(client, name, servers(before.text, client).get(name), path)
        if existing.members is not None and not existing.is_ours:
            what = f", which starts {existing.launch.command}" if existing.launch else ""
            raise InvalidRequest(
                f"{path} has another server {name!r}{what}. Nothing was changed.",
                next_step="Choose another name with --name.",
            )
        if options.is_removal:
            after = without_server(before.text, client, name)
        else:
            members = client.entry_of(_launch(), variables, name)
            if existing.members is None:
                members |= client.new_entry
            after = with_server(before.text, client, name, members)
    except Unparsable as fault:
        raise InvalidRequest(
            f"{path}, line {fault.line}, column {fault.column}: {fault}. Nothing was changed.",
            next_step="Correct that line, then run this again.",
        ) from fault
    except CannotEdit as fault:
        raise InvalidRequest(
            f"{path} cannot be edited: {fault}. Nothing was changed.",
            next_step="Add or remove the entry by hand (see README).",
        ) from fault
    is_new = before.data is None and not (options.is_removal or options.in_project or options.file)
    if is_new and not client.is_installed(machine):
        tell(f"{client.title} seems not to be installed here.")
    if after == before.text:
        what = f"it has no server {name!r}" if options.is_removal else f"{name!r} is there already"
        say(f"{path}: {what}; nothing changed.")
    else:
        for line in shown_change(before.text, after, str(path)):
            say(line)
        if not options.is_dry_run:
            backup = config_file.replace(before, after, datetime.now(UTC))
            saved = f" Backup: {backup}, which only you can read." if backup else ""
            say(f"Wrote {path}.{saved}")
            if options.is_removal:
                say("A running server ends when the client is restarted.")
        else:
            say("Nothing was written (--dry-run).")
    if not options.is_removal and not options.is_dry_run:
        entry = Entry(client, name, servers(after, client)[name], path)
        for line in _next_steps(entry, machine, in_project=options.in_project):
            say(line)
    return 0


def _config_path(client: Client, machine: Machine, options: Options) -> Path:
    if options.file and options.in_project:
        raise InvalidRequest("--file and --project cannot be used together.")
    if options.file:
        return machine.expanded(options.file).absolute()
    if not options.in_project:
        return client.user_file(machine)
    if not client.project_file:
        raise InvalidRequest(
            f"{client.title} has no configuration of its own for a project.",
            next_step="Leave --project out.",
        )
    return Path.cwd() / client.project_file


def _launch() -> Launch:
    how = Running()
    launch = lasting_launch(how)
    if launch is not None:
        return launch
    if how.source is None:
        raise InvalidRequest(
            "This kiro-mcp runs from a cache, and the source that it was built from is unknown or"
            " does not exist any more.",
            next_step="Run `uv tool install PATH` with the path of its checkout or wheel, then"
            " `kiro-mcp install` again.",
        )
    raise InvalidRequest(
        "This kiro-mcp runs from a cache, and neither an installed kiro-mcp nor uvx was found.",
        next_step=f"Run `uv tool install {quote(how.source or PROGRAM)}`, then"
        " `kiro-mcp install` again.",
    )


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


def _next_steps(entry: Entry, machine: Machine, *, in_project: bool) -> Iterable[str]:
    client = entry.client
    if in_project:
        yield "The path of the command is valid on this machine only; note that if you commit it."
        if any(name.endswith(("KEY", "TOKEN")) for name in entry.variables):
            yield "warning: the file contains a credential; do not commit it."
    if entry.is_switched_off:
        yield f"warning: {entry.name!r} is switched off in that file; switch it on there."
    yield client.next_step
    name = missing_credential(machine, {**client.inherited(machine), **entry.variables})
    if name:
        yield f"{name} is set here, but {client.title} does not pass it on: add `--env {name}`."
    elif name is not None:
        yield "Nobody is signed in yet: run `kiro-mcp login`, or add `--env KIRO_API_KEY=ksk_…`."


# --- the change, shown ---------------------------------------------------------------------------


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
        (?:(["'])(?:\\.|(?!\2).)*\2|(?<=:\ )[^\s"'].*)""",
    re.IGNORECASE | re.VERBOSE,
)
"""A value whose name sounds secret: the file contains variables of other servers, too. In YAML, it
may have no quotes."""


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
