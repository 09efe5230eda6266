"""The official conformance suite and a Node that runs it, in a cache outside of the project."""

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio

VERSION = "0.2.0-alpha.12"
NODE_MAJOR = 22
INSTALL_SECONDS = 300

_PACKAGE = "@modelcontextprotocol/conformance"
_SYSTEMS = {"linux": "linux", "darwin": "darwin"}
_MACHINES = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite that can be run."""

    node: Path
    entry: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(self.node), str(self.entry), "server", *arguments]


async def installed() -> Suite | str:
    """The suite, installed if it is not; or why there is none."""
    folder = _cache()
    entry = folder / "node_modules" / _PACKAGE / "dist" / "index.js"
    if not _is_installed(folder) and (fault := await _install(folder)):
        return fault
    node = await _node(folder)
    if node is None:
        return f"no Node {NODE_MAJOR} or newer for this machine"
    return Suite(node=node, entry=entry)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kiro-mcp-ci"


def _is_installed(folder: Path) -> bool:
    manifest = folder / "node_modules" / _PACKAGE / "package.json"
    return manifest.exists() and json.loads(manifest.read_text("utf-8"))["version"] == VERSION


async def _install(folder: Path) -> str:
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm"
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
    # The package of the platform holds the program itself; `node` only fetches it in a script
    # that runs at installation, which many machines forbid.
    with anyio.fail_after(INSTALL_SECONDS):
        done = await anyio.run_process(
            [*command, f"{_PACKAGE}@{VERSION}", f"{_node_package()}@{NODE_MAJOR}"],
            check=False,
            stdin=None,
        )
    return "" if done.returncode == 0 else f"npm failed:\n{done.stderr.decode()}"


def _node_package() -> str:
    system, machine = _SYSTEMS.get(sys.platform), _MACHINES.get(platform.machine())
    return f"node-{system}-{machine}" if system and machine else "node"


async def _node(folder: Path) -> Path | None:
    found = [folder / "node_modules" / name / "bin" / "node" for name in (_node_package(), "node")]
    on_path = shutil.which("node")
    for node in [*found, *([Path(on_path)] if on_path else [])]:
        if node.exists() and await _major(node) >= NODE_MAJOR:
            return node
    return None


async def _major(node: Path) -> int:
    done = await anyio.run_process([str(node), "--version"], check=False)
    major = done.stdout.decode().removeprefix("v").partition(".")[0]
    return int(major) if major.isdecimal() else 0
