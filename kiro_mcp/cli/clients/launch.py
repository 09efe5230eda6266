"""Which command starts this server, and goes on doing so. Pure.

Programs with windows are started with a short `PATH`, so the command has to be an absolute path;
and it must outlive this process, which one in the cache of `uvx` or `pipx run` need not::

    installed                /home/me/.local/bin/kiro-mcp
    from a cache             /home/me/.local/bin/uvx --from /home/me/src/kiro-mcp kiro-mcp
    … and the package index  /home/me/.local/bin/uvx kiro-mcp

A client is never pointed at a package's name that this copy did not come from: whoever registered
that name would be run with the user's key.
"""

import json
import ntpath
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How this very process was started, and what its machine has."""

    argv0: str
    """`sys.argv[0]`, made absolute."""
    executable: str
    """`sys.executable`: the Python that runs it."""
    platform: str
    environ: Mapping[str, str]
    exists: Callable[[str], bool]
    """Whether a file is there."""
    find: Callable[[str], Iterable[str]]
    """Every program of a name on `PATH`, the first one first."""
    source: str | None = None
    """Where this copy came from, as `uvx --from` takes it: a folder, a wheel, an address.

    "" for the package index; None where nobody knows, or it is not there any more.
    """


def lasting_launch(running: Running) -> Launch | None:
    """Return the command to write into a client's configuration; None where there is none.

    What runs now comes first, if it lasts; else `uvx` with the source that it came from. Where
    that is the package index, a `kiro-mcp` that is installed comes before it.
    """
    for script in _own_scripts(running):
        if is_lasting(script) and running.exists(script):
            return Launch(command=script)
    if running.executable and is_lasting(running.executable):
        return Launch(command=running.executable, args=("-m", "kiro_mcp"))
    if not running.source:
        for script in running.find(PROGRAM):
            if is_lasting(script):
                return Launch(command=script)
    if running.source is None:
        return None
    source = ("--from", running.source) if running.source else ()
    for uvx in (*running.find("uvx"), *_uvx_beside(running)):
        if is_lasting(uvx):
            return Launch(command=uvx, args=(*source, PROGRAM))
    return None


def source_of(direct_url: str) -> str | None:
    """Read where an installed package came from.

    Args:
        direct_url: The file that installers write for what is not from an index; "" for none.
            https://packaging.python.org/en/latest/specifications/direct-url-data-structure/

    Returns:
        What `uvx --from` takes: "" for the index, None where the file cannot be read.
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
    """Whether a path is outside of the caches whose contents come and go."""
    parts = re.split(r"[\\/]+", path)
    if any(_UV_CACHE.fullmatch(part) for part in parts):
        return False
    return not any({one, other} in _PIPX_CACHES for one, other in pairwise(parts))


def _own_scripts(running: Running) -> Iterator[str]:
    paths = ntpath if running.platform == "win32" else posixpath
    suffix = ".exe" if running.platform == "win32" else ""
    # On Windows the script that pip and uv write cuts `.exe` off.
    argv0 = running.argv0.removesuffix(suffix) + suffix
    if paths.basename(argv0) == PROGRAM + suffix:
        yield argv0
    if running.executable:
        yield paths.join(paths.dirname(running.executable), PROGRAM + suffix)


def _uvx_beside(running: Running) -> Iterator[str]:
    """`uvx` says in `UV` where it lies, even where `PATH` does not lead there."""
    uv = running.environ.get("UV", "")
    if uv:
        paths = ntpath if running.platform == "win32" else posixpath
        uvx = paths.join(paths.dirname(uv), "uvx.exe" if running.platform == "win32" else "uvx")
        if running.exists(uvx):
            yield uvx
