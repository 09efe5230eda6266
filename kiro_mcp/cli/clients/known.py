r"""The clients, and where each keeps the servers that it starts. Pure but for `Path`s.

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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from kiro_mcp.auth.machine import Machine

Format = Literal["json", "jsonc", "toml"]
Inherits = Literal["desktop", "basics", "shell"]
"""`desktop`: started without a shell, so with a short `PATH`. `basics`: started in a shell, of
which `PATH`, `HOME` and the like are passed on. `shell`: all of the shell's are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program that starts MCP servers."""

    id: str
    title: str
    key: str
    """The member of its configuration that holds the servers."""
    file: Callable[[Path, Machine], Path]
    """The user's configuration file, from the user's folder and the machine."""
    folder: Callable[[Path, Machine], Path]
    """The folder that is there once the client was used."""
    project_file: str = ""
    """Its file in a project's folder; "" where it has none."""
    format: Format = "json"
    """`jsonc` takes comments and a comma after the last member; not all clients do."""
    has_type: bool = False
    """Whether a server's entry says `"type": "stdio"`."""
    packaged: str = ""
    """On Windows: where in `%LOCALAPPDATA%` a package's own folder takes the usual one's place."""
    new_entry: Mapping[str, object] = field(default_factory=dict[str, object])
    """What a new entry says besides the command and the variables."""
    inherits: Inherits = "desktop"
    """Which variables its servers get besides those of their entry."""
    next_step: str
    """What a person does so that it starts the server."""


def _config_home(home: Path, machine: Machine) -> Path:
    """The folder that programs made with Electron keep their settings in."""
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

    On Windows a desktop hands on all that the user has set; of those, none is this server's.
    """
    environ = machine.environ
    if client.inherits == "shell":
        return dict(environ)
    if machine.platform == "win32":
        return {name: value for name, value in environ.items() if not name.startswith("KIRO")}
    kept = {name: environ[name] for name in _BASICS if name in environ}
    short = _SHORT_PATHS.get(machine.platform, _USUAL_SHORT_PATH)
    return {**kept, "PATH": short if client.inherits == "desktop" else environ.get("PATH", short)}
