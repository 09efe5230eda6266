"""`kiro-mcp emulate`: the stand-in for the service, until it is interrupted."""

import sys

import anyio

from kiro_mcp.cli.session import run_command
from kiro_mcp.emulator import EMULATOR_API_KEY, running


def run_emulate(port: int) -> int:
    """Serve on 127.0.0.1 until interrupted and return the exit code."""

    async def command() -> int:
        async with running(port=port) as emulator:
            print("Emulating the Kiro service. Ctrl-C ends it. To use it, set:", file=sys.stderr)
            print(f"KIRO_MCP_ENDPOINT_URL={emulator.url}")
            print(f"KIRO_API_KEY={EMULATOR_API_KEY}", flush=True)
            await anyio.sleep_forever()
        return 0

    return run_command(command)
