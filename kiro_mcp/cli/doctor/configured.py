"""The entries for this server in the clients' configurations, as each client would start them.

Only the user's own files are read: one in a project's folder may be a stranger's, and what is in
it would be run.
"""

import os
from collections.abc import Iterator
from shutil import which

from kiro_mcp.auth.machine import Machine
from kiro_mcp.cli.clients import files
from kiro_mcp.cli.clients.documents import servers
from kiro_mcp.cli.clients.entries import is_ours, is_switched_off, launch_of, variables_of
from kiro_mcp.cli.clients.known import CLIENTS, Client, inherited
from kiro_mcp.cli.clients.sign_in import finds_credential, not_handed_on
from kiro_mcp.cli.clients.text import CannotEdit, Unparsable
from kiro_mcp.cli.doctor.checks import Check, Configured, warning
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.settings import Settings, unknown_variables

_PLACEHOLDER = "${"
"""What begins a part that only the client can fill in, such as `${input:kiro-key}`."""

_CREDENTIALS = ("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN")


def entries_on(machine: Machine) -> tuple[list[Configured], list[Check]]:
    """Find the entries of every known client, and the files that cannot be read. Blocking."""
    entries: list[Configured] = []
    faults: list[Check] = []
    if machine.home is None:
        return entries, faults
    for client in CLIENTS.values():
        path = files.user_file(client, machine)
        try:
            found = servers(files.read(path).text, client)
        except Unparsable as error:
            place = f"{path}, line {error.line}, column {error.column}: {error}"
            faults.append(warning(client.title, place, "Correct that place."))
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
        not_handed_on="" if has_credential else not_handed_on(machine, environ),
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
    """Yield a sentence for each folder in KIRO_MCP_ROOTS that is not there. Blocking."""
    for root in settings.roots:
        if not os.path.isdir(root):
            yield f"KIRO_MCP_ROOTS names {quoted(root)}, which is not a folder on this machine."
