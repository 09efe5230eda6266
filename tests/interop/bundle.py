"""Check a release's bundle with the official tool: `python -m tests.interop.bundle`.

`packaging/release.py` makes a release of an example. MCPB's own program validates the manifest and
unpacks the bundle. Then the bundle is started as a host does, by the manifest's command, and must
list its tools. npm and uv install what is needed; what cannot be had is skipped. Exits with 0 if
all is ok.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import STDOUT
from typing import Any

import anyio

from tests.support.npm import program
from tests.support.optional import exit_code
from tests.support.stdio import environment, started

TOOL, VERSION = "@anthropic-ai/mcpb", "2.1.2"
ROOT = Path(__file__).parents[2]
RUN_SECONDS = 180


async def works() -> bool:
    """Make a release, check its bundle, and start it."""
    mcpb = await program(TOOL, VERSION)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        release, unpacked = Path(folder) / "release", Path(folder) / "unpacked"
        script = [sys.executable, str(ROOT / "packaging" / "release.py")]
        await _run([*script, "example-owner/example-repository", "--out", str(release)])
        await _run([*mcpb, "validate", str(release / "bundle" / "manifest.json")])
        [packed] = release.glob("*.mcpb")
        await _run([*mcpb, "unpack", str(packed), str(unpacked)])
        tools = await _tools(unpacked)
    expected = [tool["name"] for tool in _manifest(ROOT / "packaging" / "mcpb")["tools"]]
    verdict = "ok" if tools == expected else f"FAILED: the tools are {tools}"
    print(f"bundle: {TOOL} {VERSION}: {verdict}, {time.monotonic() - began:.1f} s", flush=True)
    return tools == expected


async def _run(command: Sequence[str]) -> str:
    with anyio.fail_after(RUN_SECONDS):
        done = await anyio.run_process(command, check=False, stderr=STDOUT)
    said = done.stdout.decode()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{said}")
    return said


async def _tools(bundle: Path) -> list[str]:
    """Start the server of a bundle, with the options that its user leaves empty."""
    config = _manifest(bundle)["server"]["mcp_config"]
    words = [config["command"], *config["args"]]
    command = tuple(word.replace("${__dirname}", str(bundle)) for word in words)
    cache = (await _run(["uv", "cache", "dir"])).strip()
    options = dict.fromkeys(config["env"], "")
    with anyio.fail_after(RUN_SECONDS):
        async with started(environment(UV_CACHE_DIR=cache, **options), command) as server:
            await server.initialize()
            listed = await server.request("tools/list", {})
    return [tool["name"] for tool in listed["result"]["tools"]]


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text("utf-8"))


if __name__ == "__main__":
    sys.exit(exit_code("bundle", works))
