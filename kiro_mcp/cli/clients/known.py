r"""The known MCP clients: their files, their entries, and the variables that they pass on.

::

    client          user's file                                           servers under
    claude-desktop  ~/Library/Application Support/Claude/                 mcpServers
                    %APPDATA%\Claude\  ~/.config/Claude/
                    + claude_desktop_config.json
    claude-code     ~/.claude.json                                        mcpServers
    vscode          …/Code/User/mcp.json                                  servers
    cursor          ~/.cursor/mcp.json                                    mcpServers
    zed             ~/.config/zed/settings.json  %APPDATA%\Zed\           context_servers
    codex           ~/.codex/config.toml                                  mcp_servers
    kiro            ~/.kiro/settings/mcp.json                             mcpServers
    windsurf        ~/.codeium/windsurf/mcp_config.json                   mcpServers

Sources (2026-11): the clients' own documentation; for Zed and Codex their source code.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, cast

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.cli.clients.text import as_object
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings

Format = Literal["json", "jsonc", "toml"]
Inherits = Literal["desktop", "basics", "shell"]
"""Which variables a client passes on to its servers. `desktop`: it starts without a shell, so with
a short `PATH`. `basics`: it passes on `PATH`, `HOME` and the like. `shell`: it passes on all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program that starts MCP servers."""

    id: str
    title: str
    key: str
    """The member of its configuration that contains the servers."""
    file: Callable[[Path, Machine], Path]
    """The user's configuration file, from the user's folder and the machine."""
    folder: Callable[[Path, Machine], Path]
    """The folder that exists once the client was used."""
    project_file: str = ""
    """Its file in a project's folder; "" if it has none."""
    format: Format = "json"
    """`jsonc` allows comments and a comma after the last member."""
    has_type: bool = False
    """Whether a server's entry contains `"type": "stdio"`."""
    packaged: str = ""
    """On Windows: the folder in `%LOCALAPPDATA%` that a packaged client uses instead."""
    new_entry: Mapping[str, object] = field(default_factory=dict[str, object])
    """The members of a new entry besides the command and the variables."""
    inherits: Inherits = "desktop"
    """The variables that its servers get besides those of their entry."""
    next_step: str
    """What the user has to do to start the server."""


def _config_home(home: Path, machine: Machine) -> Path:
    """The settings folder of programs that are made with Electron."""
    if machine.platform == "darwin":
        return home / "Library" / "Application Support"
    if machine.platform == "win32":
        return Path(machine.environ.get("APPDATA") or home / "AppData" / "Roaming")
    return Path(machine.environ.get("XDG_CONFIG_HOME") or home / ".config")


def _claude_code_home(home: Path, machine: Machine) -> Path:
    return Path(machine.environ.get("CLAUDE_CONFIG_DIR") or home / ".claude")


def _claude_code_file(home: Path, machine: Machine) -> Path:
    return Path(machine.environ.get("CLAUDE_CONFIG_DIR") or home) / ".claude.json"


def _zed_home(home: Path, machine: Machine) -> Path:
    if machine.platform == "darwin":
        return home / ".config" / "zed"
    return _config_home(home, machine) / ("Zed" if machine.platform == "win32" else "zed")


def _codex_home(home: Path, machine: Machine) -> Path:
    return Path(machine.environ.get("CODEX_HOME") or home / ".codex")


_ALL: Final = (
    Client(
        id="claude-desktop",
        title="Claude Desktop",
        key="mcpServers",
        file=lambda home, machine: (
            _config_home(home, machine) / "Claude" / "claude_desktop_config.json"
        ),
        folder=lambda home, machine: _config_home(home, machine) / "Claude",
        packaged="Packages/Claude_*/LocalCache/Roaming/Claude",
        next_step="Quit Claude Desktop (closing its window is not enough) and start it again.",
    ),
    Client(
        id="claude-code",
        title="Claude Code",
        key="mcpServers",
        file=_claude_code_file,
        folder=_claude_code_home,
        project_file=".mcp.json",
        has_type=True,
        inherits="shell",
        next_step="Start a new session of `claude`; `/mcp` shows the server.",
    ),
    Client(
        id="vscode",
        title="VS Code",
        key="servers",
        file=lambda home, machine: _config_home(home, machine) / "Code" / "User" / "mcp.json",
        folder=lambda home, machine: _config_home(home, machine) / "Code",
        project_file=".vscode/mcp.json",
        has_type=True,
        format="jsonc",
        next_step="In VS Code run `MCP: List Servers` from the Command Palette and start it.",
    ),
    Client(
        id="cursor",
        title="Cursor",
        key="mcpServers",
        file=lambda home, _: home / ".cursor" / "mcp.json",
        folder=lambda home, _: home / ".cursor",
        project_file=".cursor/mcp.json",
        format="jsonc",
        next_step="Restart Cursor; its settings list the server under MCP.",
    ),
    Client(
        id="zed",
        title="Zed",
        key="context_servers",
        file=lambda home, machine: _zed_home(home, machine) / "settings.json",
        folder=_zed_home,
        project_file=".zed/settings.json",
        format="jsonc",
        next_step="Zed reads its settings at once; those of the Agent Panel show the server.",
    ),
    Client(
        id="codex",
        title="Codex",
        key="mcp_servers",
        file=lambda home, machine: _codex_home(home, machine) / "config.toml",
        folder=_codex_home,
        project_file=".codex/config.toml",
        format="toml",
        inherits="basics",
        # A first start through uvx downloads the server, which takes longer than Codex waits.
        new_entry={"startup_timeout_sec": 60},
        # Observed with 0.171 and a server of 4 s: only `required` makes `codex exec` wait. It is
        # not written, because Codex does not start at all if a required server is broken.
        next_step="Start a new session of `codex`; `/mcp` shows the server. If `codex exec` asks"
        " its model before the server is there, add `required = true` to the entry.",
    ),
    Client(
        id="kiro",
        title="Kiro",
        key="mcpServers",
        file=lambda home, _: home / ".kiro" / "settings" / "mcp.json",
        folder=lambda home, _: home / ".kiro",
        project_file=".kiro/settings/mcp.json",
        format="jsonc",
        next_step="Kiro reads the file at once; for kiro-cli start a new session.",
    ),
    Client(
        id="windsurf",
        title="Windsurf (Devin Desktop)",
        key="mcpServers",
        file=lambda home, _: home / ".codeium" / "windsurf" / "mcp_config.json",
        folder=lambda home, _: home / ".codeium" / "windsurf",
        format="jsonc",
        next_step="Restart it; its settings list the server under MCP.",
    ),
)

CLIENTS: Final[Mapping[str, Client]] = MappingProxyType({client.id: client for client in _ALL})
"""The clients by the names that `kiro-mcp install` takes."""


_BASICS: Final = ("HOME", "LOGNAME", "USER", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ")
_SHORT_PATHS: Final = {"darwin": "/usr/bin:/bin:/usr/sbin:/sbin"}
_USUAL_SHORT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def inherited(client: Client, machine: Machine) -> dict[str, str]:
    """Return the variables that a client's servers get besides those of their entry.

    Desktop programs on Windows pass on all variables; this server's are assumed to be unset there.
    """
    environ = machine.environ
    if client.inherits == "shell":
        return dict(environ)
    if machine.platform == "win32":
        return {name: value for name, value in environ.items() if not name.startswith("KIRO")}
    basics = {name: environ[name] for name in _BASICS if name in environ}
    short = _SHORT_PATHS.get(machine.platform, _USUAL_SHORT_PATH)
    path = short if client.inherits == "desktop" else environ.get("PATH", short)
    return {**basics, "PATH": path}


# --- entries ------------------------------------------------------------------------------


_NAMES: Final = ("kiro-mcp", "kiro_mcp")

Entry = Mapping[str, object]


def entry_of(launch: Launch, variables: Mapping[str, str], *, has_type: bool) -> dict[str, object]:
    """Make the entry that starts this server.

    Args:
        launch: The command.
        variables: The environment variables that the client sets for it; {} leaves them out.
        has_type: Whether the client's entries name the transport.
    """
    entry: dict[str, object] = {"type": "stdio"} if has_type else {}
    entry.update(command=launch.command, args=list(launch.args))
    return {**entry, "env": dict(variables)} if variables else entry


def launch_of(entry: object) -> Launch | None:
    """Read the command of an entry; None if it has no command.

    Older Zed entries are read, too: `{"command": {"path": …, "args": […]}}`.
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
    """Whether an entry starts this server."""
    launch = launch_of(entry)
    return launch is not None and any(name in str(launch) for name in _NAMES)


def is_switched_off(entry: object) -> bool:
    """Whether the entry is disabled in the client."""
    members = as_object(entry)
    return members.get("disabled") is True or members.get("enabled") is False


def _texts(value: object) -> Iterator[str]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return (item for item in items if isinstance(item, str))


# --- credentials --------------------------------------------------------------------------


CREDENTIAL_VARIABLES: Final = (
    *("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN", "REFRESH_TOKEN"),
    *("KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE", "KIRO_MCP_HOME", "XDG_DATA_HOME"),
)
"""The variables that contain a credential or the path of one."""


def missing_credential_variable(machine: Machine, given: Mapping[str, str]) -> str:
    """Return the variable that is set here and with which a server would find a credential.

    Blocking.

    Args:
        machine: This machine, with the variables that are set here.
        given: The variables that the server gets from its client; with them it finds none.

    Returns:
        The variable's name; "" if no variable would help.
    """
    for name in CREDENTIAL_VARIABLES:
        value = machine.environ.get(name, "")
        is_new = value not in ("", given.get(name))
        if is_new and finds_credential({**given, name: value}, machine.platform):
            return name
    return ""


def finds_credential(environ: Mapping[str, str], platform: str) -> bool:
    """Whether a server with these variables finds a credential, valid or not. Blocking."""
    try:
        settings = Settings.load(environ)
    except InvalidRequest:
        return False  # The check of the settings reports this.
    machine = Machine.of(environ, platform)
    home = own_home(machine, settings.home)
    store = OwnStore(home) if home else None
    sources = Sources(settings, machine, store, now=lambda: datetime.now(UTC))
    return sources.look().credential is not None
