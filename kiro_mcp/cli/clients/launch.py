"""Finds the command that a client can start this server with, now and later.

Desktop programs start with a short `PATH`, so the command has to be an absolute path. It must also
still exist after this process, and a path in the cache of `uvx` or `pipx run` may not::

    installed                /home/me/.local/bin/kiro-mcp
    from a cache             /home/me/.local/bin/uvx --from /home/me/src/kiro-mcp kiro-mcp
    … and the package index  /home/me/.local/bin/uvx kiro-mcp

The name of a package is written only if this copy was installed by that name. Otherwise a stranger
could register the name, and their program would run with the user's key.
"""

import json
import ntpath
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

PROGRAM: Final = "kiro-mcp"

_UV_CACHE: Final = re.compile(r"(?:archive|builds|environments)-v\d+")
_PIPX_CACHES: Final = ({"pipx", ".cache"}, {"pipx", "Caches"}, {"pipx", "Cache"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A command and its arguments."""

    command: str
    args: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.command, *self.args))


def source() -> str | None:
    """Return the source that this copy was installed from: `Running.source`."""
    try:
        found = source_of(distribution("kiro-mcp").read_text("direct_url.json") or "")
    except PackageNotFoundError:  # It runs from a checkout that is not installed.
        checkout = Path(__file__).parents[3]
        found = str(checkout) if (checkout / "pyproject.toml").is_file() else None
    is_gone = found and "://" not in found and not os.path.exists(found)
    return None if is_gone else found


def _find(name: str) -> Iterator[str]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(folder) and (found := shutil.which(name, path=folder)):
            yield found


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How this process was started, and the programs of this machine."""

    argv0: str = field(default_factory=lambda: os.path.abspath(sys.argv[0]))
    executable: str = sys.executable
    platform: str = sys.platform
    uv: str = field(default_factory=lambda: os.environ.get("UV", ""))
    """The path of uv, if `uvx` started this process; else ""."""
    exists: Callable[[str], bool] = os.path.isfile
    """Whether a file exists."""
    find: Callable[[str], Iterable[str]] = _find
    """Returns all programs of a name on `PATH`, in its order."""
    source: str | None = field(default_factory=source)
    """What this copy was installed from, for `uvx --from`: a folder, a wheel or a URL.

    "" for the package index; None if it is unknown or does not exist any more.
    """


def lasting_launch(running: Running) -> Launch | None:
    """Return the command to write into a client's configuration; None if none was found.

    The first choice is the running program, if it is not in a cache; the second is `uvx` with the
    source of this copy. If the source is the package index, an installed `kiro-mcp` on `PATH` comes
    before `uvx`.
    """
    return next((one for one in _launches(running) if is_lasting(one.command)), None)


def _launches(running: Running) -> Iterator[Launch]:
    paths, suffix = (ntpath, ".exe") if running.platform == "win32" else (posixpath, "")
    # On Windows, the script that pip and uv write removes `.exe` from `sys.argv[0]`.
    argv0 = running.argv0.removesuffix(suffix) + suffix
    beside = paths.join(paths.dirname(running.executable), PROGRAM + suffix)
    for script in (argv0, beside if running.executable else ""):
        if paths.basename(script) == PROGRAM + suffix and running.exists(script):
            yield Launch(command=script)
    if running.executable:
        yield Launch(command=running.executable, args=("-m", "kiro_mcp"))
    if not running.source:
        for script in running.find(PROGRAM):
            yield Launch(command=script)
    if running.source is None:
        return
    source = ("--from", running.source) if running.source else ()
    for uvx in running.find("uvx"):
        yield Launch(command=uvx, args=(*source, PROGRAM))
    uvx = paths.join(paths.dirname(running.uv), "uvx" + suffix)
    if running.uv and running.exists(uvx):
        yield Launch(command=uvx, args=(*source, PROGRAM))


def source_of(direct_url: str) -> str | None:
    """Read the source that a package was installed from: "" for the index, None if it is unknown.

    Installers write `direct_url.json` for a package that is not from an index; "" if they did not:
    https://packaging.python.org/en/latest/specifications/direct-url-data-structure/
    """
    if not direct_url:
        return ""
    try:
        document: Any = json.loads(direct_url)
        url = urlsplit(cast("str", document["url"]))
        if url.scheme == "file" and "vcs_info" not in document:
            path = unquote(url.path)
            return path[1:] if re.match(r"/[A-Za-z]:", path) else path  # `/C:/src` on Windows.
        part = f"#subdirectory={document['subdirectory']}" if "subdirectory" in document else ""
        if vcs := document.get("vcs_info"):
            return f"{vcs['vcs']}+{document['url']}@{vcs['commit_id']}{part}"
        return f"{document['url']}{part}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def is_lasting(path: str) -> bool:
    """Whether a path is outside of the caches of uv and pipx, which may be emptied."""
    parts = re.split(r"[\\/]+", path)
    if any(_UV_CACHE.fullmatch(part) for part in parts):
        return False
    return not any({one, other} in _PIPX_CACHES for one, other in pairwise(parts))
