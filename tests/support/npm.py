"""Programs from npm, and a Node that runs them, in a cache outside of the project."""

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import anyio

from tests.support.optional import InstallFailed, Unavailable

NODE_MAJOR = 22
INSTALL_SECONDS = 300

_SYSTEMS = {"linux": "linux", "darwin": "darwin"}
_MACHINES = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}

_NO_REGISTRY = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ENOTCACHED)\b"
)
"""What npm says where nothing answers; a registry that answers with a refusal is there."""


async def program(package: str, version: str) -> list[str]:
    """Return the command that runs a package, which is installed if it is not yet.

    Raises:
        Unavailable: There is no npm, no Node for this machine, or no way to a registry.
        InstallFailed: npm failed for another reason.
    """
    folder = await _installed(package, version) / "node_modules" / package
    declared: str | dict[str, str] = json.loads((folder / "package.json").read_text("utf-8"))["bin"]
    entry = declared if isinstance(declared, str) else next(iter(declared.values()))
    return [str(await _node()), str(folder / entry)]


async def _installed(package: str, version: str) -> Path:
    """Return the folder of a package, which is there only if it is whole."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kiro-mcp-ci"
    folder = cache / f"{package.rpartition('/')[2]}-{version}"
    if folder.exists():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("there is no npm")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        await _install(npm, made, f"{package}@{version}")
        with suppress(OSError):  # Another run was quicker.
            made.rename(folder)
    return folder


async def _install(npm: str, folder: Path, what: str) -> None:
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), what]
    done: CompletedProcess[bytes] | None = None
    with anyio.move_on_after(INSTALL_SECONDS):
        done = await anyio.run_process(command, check=False, stdin=None)
    if done is None:
        raise InstallFailed(f"npm did not install {what} in {INSTALL_SECONDS} s")
    said = done.stderr.decode(errors="replace")
    if done.returncode and (found := _NO_REGISTRY.search(said)):
        raise Unavailable(f"npm cannot reach a registry ({found[1]}), so there is no {what}")
    if done.returncode:
        raise InstallFailed(f"npm could not install {what}:\n{said}")


async def _node() -> Path:
    on_path = shutil.which("node")
    if on_path and await _major(Path(on_path)) >= NODE_MAJOR:
        return Path(on_path)
    system, machine = _SYSTEMS.get(sys.platform), _MACHINES.get(platform.machine())
    if system is None or machine is None:
        raise Unavailable(f"there is no Node {NODE_MAJOR}, nor a package of it for this machine")
    # The package of the platform holds the program itself; the one named `node` only fetches it
    # in a script that runs at installation, which many machines forbid.
    package = f"node-{system}-{machine}"
    return await _installed(package, str(NODE_MAJOR)) / "node_modules" / package / "bin" / "node"


async def _major(node: Path) -> int:
    done = await anyio.run_process([str(node), "--version"], check=False)
    major = done.stdout.decode().removeprefix("v").partition(".")[0]
    return int(major) if major.isdecimal() else 0
