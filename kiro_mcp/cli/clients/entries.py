"""The entry of a server in a client's configuration. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final, cast

from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.cli.clients.text import as_object

_NAMES: Final = ("kiro-mcp", "kiro_mcp")

Entry = Mapping[str, object]


def entry_of(launch: Launch, variables: Mapping[str, str], *, has_type: bool) -> dict[str, object]:
    """Make the entry that starts this server.

    Args:
        launch: The command.
        variables: The environment variables that the client sets for it; {} leaves them out.
        has_type: Whether the client wants to be told the transport.
    """
    entry: dict[str, object] = {"type": "stdio"} if has_type else {}
    entry.update(command=launch.command, args=list(launch.args))
    return {**entry, "env": dict(variables)} if variables else entry


def launch_of(entry: object) -> Launch | None:
    """Read the command of an entry; None where it starts none.

    Zed used to have `{"command": {"path": …, "args": […]}}`, which is read, too.
    """
    members = as_object(entry)
    if isinstance(members.get("command"), dict):
        members = as_object(members["command"])
    command = members.get("command", members.get("path"))
    if not isinstance(command, str) or not command:
        return None
    return Launch(command=command, args=tuple(_texts(members.get("args"))))


def variables_of(entry: object) -> dict[str, str]:
    """Read the environment variables of an entry."""
    members = as_object(entry)
    inner = as_object(members.get("command"))
    variables = as_object(members.get("env")) or as_object(inner.get("env"))
    return {name: value for name, value in variables.items() if isinstance(value, str)}


def is_ours(entry: object) -> bool:
    """Whether an entry starts this server, in whatever way."""
    launch = launch_of(entry)
    return launch is not None and any(name in str(launch) for name in _NAMES)


def is_switched_off(entry: object) -> bool:
    """Whether the client has been told not to start it."""
    members = as_object(entry)
    return members.get("disabled") is True or members.get("enabled") is False


def _texts(value: object) -> Iterator[str]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return (item for item in items if isinstance(item, str))
