"""`kiro-mcp emulate`: the stand-in for the service, until it is interrupted."""

import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from kiro_mcp.cli.session import run_command
from kiro_mcp.emulator import EMULATOR_API_KEY, EmulatorState, running
from kiro_mcp.emulator.script_files import read_script
from kiro_mcp.errors import InvalidRequest

_USAGE = 2


def run_emulate(port: int, scripts: Sequence[str] = ()) -> int:
    """Serve on 127.0.0.1 until interrupted and return the exit code."""
    try:
        files = [read_script(Path(script)) for script in scripts]
    except InvalidRequest as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return _USAGE

    async def command() -> int:
        async with running(EmulatorState(script_files=files), port=port) as emulator:
            print("Emulating the Kiro service. Ctrl-C ends it. To use it, set:", file=sys.stderr)
            print(f"KIRO_MCP_ENDPOINT_URL={emulator.url}")
            print(f"KIRO_API_KEY={EMULATOR_API_KEY}", flush=True)
            if files:
                names = ", ".join(file.name for file in files)
                print(f"Scripts, as in a prompt `/emulate NAME`: {names}", file=sys.stderr)
            await anyio.sleep_forever()
        return 0

    return run_command(command)
