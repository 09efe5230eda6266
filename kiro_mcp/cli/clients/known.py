"""The known MCP clients: their files, their entries, and the variables that they pass on.

`_TABLE` has a row for each client: a template of its user's file, the member that holds the
servers, and where it differs from the others. `_filled` fills the templates in.

Sources (2026-11): the clients' own documentation; for Zed, Codex and Goose their source code.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.cli.clients.edits import JSON, JSONC, TOML, YAML, Document, Format, as_object
from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings

_BASICS: Final = ("HOME", "LOGNAME", "USER", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ")
_SHORT_PATHS: Final = {"darwin": "/usr/bin:/bin:/usr/sbin:/sbin"}
_USUAL_SHORT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

_PLAIN: Final = {"command": "{command}", "args": "{args}", "env": "{variables}"}
_TYPED: Final = {"type": "stdio", **_PLAIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program that starts MCP servers."""

    id: str
    title: str
    file: str
    """The template of the user's configuration file (`_filled`)."""
    other_name: str = ""
    """Another name of the file, which is used if such a file exists."""
    trace: str = ""
    """The template of a folder that exists once the client was used; "" for that of the file."""
    packaged: str = ""
    """On Windows: the folder in `%LOCALAPPDATA%` that a packaged client uses instead."""
    project_file: str = ""
    """Its file in a project's folder; "" if it has none."""
    key: str = "mcpServers"
    """The member of its configuration that contains the servers."""
    format: Format = JSONC
    entry: Mapping[str, str] = field(default_factory=_PLAIN.copy)
    """The template of its entries (`entry_of`)."""
    new_entry: Mapping[str, object] = field(default_factory=dict[str, object])
    """The members of a new entry besides the command and the variables."""
    inherits: Literal["desktop", "basics", "shell"] = "desktop"
    """The variables that its servers get besides those of their entry.

    `desktop`: it starts without a shell, so with a short `PATH`. `basics`: it passes on `PATH`,
    `HOME` and the like. `shell`: it passes on all.
    """
    next_step: str
    """What the user has to do to start the server."""

    def user_file(self, machine: Machine) -> Path:
        """Return the path of the user's configuration of this client.

        Raises:
            InvalidRequest: HOME is not set.
        """
        usual = _filled(self.file, machine)
        if self.packaged and machine.platform == "win32":
            local = machine.environ.get("LOCALAPPDATA") or _filled("{home}/AppData/Local", machine)
            for folder in sorted(Path(local).glob(self.packaged)):
                return folder / usual.name
        other = usual.with_name(self.other_name or usual.name)
        return other if other.is_file() else usual

    def is_installed(self, machine: Machine) -> bool:
        """Whether a folder of the client shows that it was used on this machine."""
        folder = _filled(self.trace, machine) if self.trace else self.user_file(machine).parent
        return folder.is_dir()

    def inherited(self, machine: Machine) -> dict[str, str]:
        """Return the variables that the client's servers get besides those of their entry.

        Desktop programs on Windows pass on all variables; this server's are assumed to be unset
        there.
        """
        environ = machine.environ
        if self.inherits == "shell":
            return dict(environ)
        if machine.platform == "win32":
            return {name: value for name, value in environ.items() if not name.startswith("KIRO")}
        kept = {name: environ[name] for name in _BASICS if name in environ}
        short = _SHORT_PATHS.get(machine.platform, _USUAL_SHORT_PATH)
        return {**kept, "PATH": short if self.inherits == "desktop" else environ.get("PATH", short)}

    def entry_of(self, launch: Launch, variables: Mapping[str, str], name: str) -> Document:
        """Make the entry with which the client starts this server under a name.

        If there are no environment variables to set, the entry has no member for them.
        """
        values: Document = {
            "{command}": launch.command,
            "{args}": list(launch.args),
            "{words}": [launch.command, *launch.args],
            "{name}": name,
            "{variables}": dict(variables),
        }
        entry = {member: values.get(value, value) for member, value in self.entry.items()}
        return {member: value for member, value in entry.items() if value != {}}


_TABLE: Final = (
    Client(
        id="claude-desktop",
        title="Claude Desktop",
        file="{config}/Claude/claude_desktop_config.json",
        packaged="Packages/Claude_*/LocalCache/Roaming/Claude",
        format=JSON,
        next_step="Quit Claude Desktop (closing its window is not enough) and start it again.",
    ),
    Client(
        id="claude-code",
        title="Claude Code",
        file="{claude_file}/.claude.json",
        trace="{claude}",
        project_file=".mcp.json",
        format=JSON,
        entry=_TYPED,
        inherits="shell",
        next_step="Start a new session of `claude`; `/mcp` shows the server.",
    ),
    Client(
        id="vscode",
        title="VS Code",
        file="{config}/Code/User/mcp.json",
        trace="{config}/Code",
        project_file=".vscode/mcp.json",
        key="servers",
        entry=_TYPED,
        next_step="In VS Code run `MCP: List Servers` from the Command Palette and start it.",
    ),
    Client(
        id="cursor",
        title="Cursor",
        file="{home}/.cursor/mcp.json",
        project_file=".cursor/mcp.json",
        next_step="Restart Cursor; its settings list the server under MCP.",
    ),
    Client(
        id="zed",
        title="Zed",
        file="{zed}/settings.json",
        project_file=".zed/settings.json",
        key="context_servers",
        next_step="Zed reads its settings at once; those of the Agent Panel show the server.",
    ),
    Client(
        id="codex",
        title="Codex",
        file="{codex}/config.toml",
        project_file=".codex/config.toml",
        key="mcp_servers",
        format=TOML,
        # A first start through uvx downloads the server, which takes longer than Codex waits.
        new_entry={"startup_timeout_sec": 60},
        inherits="basics",
        # Observed with 0.171 and a server of 4 s: only `required` makes `codex exec` wait. It is
        # not written, because Codex does not start at all if a required server is broken.
        next_step="Start a new session of `codex`; `/mcp` shows the server. If `codex exec` asks"
        " its model before the server is there, add `required = true` to the entry.",
    ),
    Client(
        id="kiro",
        title="Kiro",
        file="{home}/.kiro/settings/mcp.json",
        trace="{home}/.kiro",
        project_file=".kiro/settings/mcp.json",
        next_step="Kiro reads the file at once; for kiro-cli start a new session.",
    ),
    Client(
        id="windsurf",
        title="Windsurf (Devin Desktop)",
        file="{home}/.codeium/windsurf/mcp_config.json",
        next_step="Restart it; its settings list the server under MCP.",
    ),
    Client(
        id="gemini",
        title="Gemini CLI",
        file="{home}/.gemini/settings.json",
        project_file=".gemini/settings.json",
        inherits="basics",  # It leaves out variables that are named like secrets.
        next_step="Start a new session of `gemini`; `/mcp` shows the server.",
    ),
    Client(
        id="qwen",
        title="Qwen Code",
        file="{home}/.qwen/settings.json",
        project_file=".qwen/settings.json",
        inherits="basics",
        next_step="Start a new session of `qwen`; `/mcp` shows the server.",
    ),
    Client(
        id="opencode",
        title="opencode",
        file="{xdg_config}/opencode/opencode.json",
        other_name="opencode.jsonc",
        project_file="opencode.json",
        key="mcp",  # Version 2 has `mcp.servers`, and reads this, too.
        entry={"type": "local", "command": "{words}", "environment": "{variables}"},
        inherits="shell",
        next_step="Start a new session of `opencode`; `opencode mcp list` shows the server.",
    ),
    Client(
        id="cline",
        title="Cline",
        file="{cline}/settings/cline_mcp_settings.json",
        trace="{cline}",
        inherits="basics",
        next_step="Cline lists the server under its MCP servers; start a new session of its CLI.",
    ),
    Client(
        id="goose",
        title="Goose",
        file="{goose}/config.yaml",
        key="extensions",
        format=YAML,
        entry={
            "name": "{name}",
            "type": "stdio",
            "cmd": "{command}",
            "args": "{args}",
            "envs": "{variables}",
        },
        new_entry={
            "description": "Claude through your own Kiro subscription",
            "enabled": True,
            "timeout": 300,  # Seconds for a call of a tool; what Goose writes itself.
        },
        inherits="shell",
        next_step="Start a new session of `goose`; `goose info -v` shows the extension.",
    ),
    Client(
        id="lm-studio",
        title="LM Studio",
        file="{home}/.lmstudio/mcp.json",
        next_step="In LM Studio switch the server on under Program.",
    ),
)

CLIENTS: Final[Mapping[str, Client]] = {client.id: client for client in _TABLE}
"""The clients by the names that `kiro-mcp install` takes."""


def _filled(template: str, machine: Machine) -> Path:
    """Fill the folders of this machine in. `config` has the settings of Electron programs."""
    home, environ = machine.home, machine.environ
    if home is None:
        raise InvalidRequest(
            "HOME is not set, so the client's configuration cannot be found.",
            next_step="Set it, or name the file with --file.",
        )
    xdg_config = config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    zed, goose = config / "zed", config / "goose"
    if machine.platform == "darwin":
        config = home / "Library" / "Application Support"
        zed = home / ".config" / "zed"
    elif machine.platform == "win32":
        config = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
        zed, goose = config / "Zed", config / "Block" / "goose" / "config"
    goose_root = Path(environ.get("GOOSE_PATH_ROOT", ""))
    filled = template.format(
        home=home,
        config=config,
        xdg_config=xdg_config,
        zed=zed,
        claude=environ.get("CLAUDE_CONFIG_DIR") or home / ".claude",
        claude_file=environ.get("CLAUDE_CONFIG_DIR") or home,
        codex=environ.get("CODEX_HOME") or home / ".codex",
        cline=environ.get("CLINE_DATA_DIR") or home / ".cline" / "data",
        goose=goose_root / "config" if goose_root.is_absolute() else goose,
    )
    return Path(filled)


class Entry(NamedTuple):
    """An entry in a client's configuration, which may have any form."""

    client: Client
    name: str
    members: object
    """What the file says; None if it has no such entry."""
    file: Path

    @property
    def launch(self) -> Launch | None:
        """The command; None if the entry has none.

        Older Zed entries are read, too: `{"command": {"path": …, "args": […]}}`.
        """
        members = as_object(self.members)
        if isinstance(members.get("command"), dict):
            members = as_object(members["command"])
        command = members.get("command", members.get("path", members.get("cmd")))
        words = [*_texts(command), *_texts(members.get("args"))]
        if isinstance(command, str):
            words = [command, *words]
        return Launch(command=words[0], args=tuple(words[1:])) if command and words else None

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that the entry sets."""
        members = as_object(self.members)
        inner = as_object(members.get("command"))
        names = ("env", "environment", "envs")
        found = next((members[name] for name in names if members.get(name)), inner.get("env"))
        return {name: value for name, value in as_object(found).items() if isinstance(value, str)}

    @property
    def is_ours(self) -> bool:
        """Whether the entry starts this server."""
        return any(name in str(self.launch or "") for name in ("kiro-mcp", "kiro_mcp"))

    @property
    def is_switched_off(self) -> bool:
        """Whether the entry is disabled in the client."""
        members = as_object(self.members)
        return members.get("disabled") is True or members.get("enabled") is False

    @property
    def brings_credential(self) -> bool:
        """Whether the entry's own variables contain a credential."""
        names = ("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN")
        return any(self.variables.get(name) for name in names)


def _texts(value: object) -> Iterator[str]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return (item for item in items if isinstance(item, str))


# --- credentials ---------------------------------------------------------------------------------


_CREDENTIAL_VARIABLES: Final = (
    *("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN", "REFRESH_TOKEN"),
    *("KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE", "KIRO_MCP_HOME", "XDG_DATA_HOME"),
)
"""The variables that contain a credential or the path of one."""


def missing_credential(machine: Machine, given: Mapping[str, str]) -> str | None:
    """Look for a credential, valid or not, as a server with these variables does. Blocking.

    Args:
        machine: This machine, with the variables that are set here.
        given: The variables that the server gets from its client.

    Returns:
        None if the server finds one. Otherwise the variable that is set here and with which it
        would find one, "" if no variable would help.
    """
    if _finds_credential(given, machine.platform):
        return None
    for name in _CREDENTIAL_VARIABLES:
        value = machine.environ.get(name, "")
        is_new = value not in ("", given.get(name))
        if is_new and _finds_credential({**given, name: value}, machine.platform):
            return name
    return ""


def _finds_credential(environ: Mapping[str, str], platform: str) -> bool:
    try:
        settings = Settings.load(environ)
    except InvalidRequest:
        return False  # The check of the settings reports this.
    if settings.engine == "kiro-cli":
        return True  # The program has its own login.
    machine = Machine.of(environ, platform)
    home = own_home(machine, settings.home)
    store = OwnStore(home) if home else None
    sources = Sources(settings, machine, store, now=lambda: datetime.now(UTC))
    return sources.look().credential is not None
