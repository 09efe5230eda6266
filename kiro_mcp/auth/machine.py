"""Where each system stores logins. Pure: home, platform and environment are parameters.

::

    Linux    $XDG_DATA_HOME or ~/.local/share     kiro-cli/data.sqlite3
    macOS    ~/Library/Application Support        kiro-cli/data.sqlite3
    Windows  %LOCALAPPDATA%, then %APPDATA%       Kiro-Cli/data.sqlite3

The Kiro IDE's file is `~/.aws/sso/cache/kiro-auth-token.json` everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_IDE_FILE: Final = Path(".aws", "sso", "cache", "kiro-auth-token.json")
_IDE_PROFILE: Final = Path("Kiro", "User", "globalStorage", "kiro.kiroagent", "profile.json")
_DATABASE: Final = "data.sqlite3"
KIRO_CLI: Final = "kiro-cli"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts about a machine that decide where logins may be."""

    home: Path | None
    """The user's home folder; None if unknown: then logins of other programs are not found."""
    platform: str
    """A value of `sys.platform`: `linux`, `darwin`, `win32`."""
    environ: Mapping[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str], platform: str) -> "Machine":
        """Read the facts from the environment."""
        named = environ.get("HOME") or environ.get("USERPROFILE") or ""
        return cls(home=Path(named) if named else None, platform=platform, environ=environ)

    def expanded(self, path: str) -> Path:
        """Return a path that a person wrote, with `~` replaced by the home folder."""
        if path == "~" or path.startswith(("~/", "~\\")):
            return (self.home or Path("~")) / path[2:]
        return Path(path)


def data_folders(machine: Machine) -> tuple[Path, ...]:
    """Return the folders in which programs store their data, the usual one first."""
    if machine.home is None:
        return ()
    if machine.platform == "darwin":
        return (machine.home / "Library" / "Application Support",)
    if machine.platform == "win32":
        local = machine.environ.get("LOCALAPPDATA") or machine.home / "AppData" / "Local"
        roaming = machine.environ.get("APPDATA") or machine.home / "AppData" / "Roaming"
        return (Path(local), Path(roaming))
    usual = machine.home / ".local" / "share"
    return tuple(dict.fromkeys((Path(machine.environ.get("XDG_DATA_HOME") or usual), usual)))


def own_home(machine: Machine, named: str = "") -> Path | None:
    """Return the folder for our own login; None if neither home folder nor setting is known."""
    if named:
        return machine.expanded(named)
    folders = data_folders(machine)
    return folders[0] / "kiro-mcp" if folders else None


def ide_file(machine: Machine) -> Path | None:
    """Return the Kiro IDE's file."""
    return machine.home / _IDE_FILE if machine.home else None


def ide_profile_file(machine: Machine) -> Path | None:
    """Return where the Kiro IDE stores the profile of an organisation's login."""
    if machine.home is None:
        return None
    if machine.platform == "linux":
        base = Path(machine.environ.get("XDG_CONFIG_HOME") or machine.home / ".config")
    else:
        base = data_folders(machine)[-1]  # Roaming on Windows.
    return base / _IDE_PROFILE


def databases(machine: Machine) -> dict[Path, str]:
    """Return where databases with logins may be, each with the name of its program."""
    folder = "Kiro-Cli" if machine.platform == "win32" else "kiro-cli"
    found = {data / folder / _DATABASE: KIRO_CLI for data in data_folders(machine)}
    if machine.home:
        found[machine.home / ".kiro-cli" / "auth.db"] = KIRO_CLI
    return found | {data / "amazon-q" / _DATABASE: "Amazon Q" for data in data_folders(machine)}
