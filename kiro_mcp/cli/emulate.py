"""`kiro-mcp emulate`: runs the emulator of the service until it is interrupted."""

from collections.abc import Sequence
from pathlib import Path

import anyio

from kiro_mcp.cli.output import NETWORK
from kiro_mcp.cli.session import run_command
from kiro_mcp.cli.terminal import say, tell, tell_error
from kiro_mcp.emulator import EMULATOR_API_KEY, EmulatorState, running
from kiro_mcp.emulator.script_files import read_script
from kiro_mcp.errors import InvalidRequest


def run_emulate(port: int, scripts: Sequence[str] = ()) -> int:
    """Serve on 127.0.0.1 until interrupted and return the exit code."""
    try:
        files = [read_script(Path(script)) for script in scripts]
    except InvalidRequest as error:
        return tell_error(error)

    async def command() -> int:
        async with running(EmulatorState(script_files=files), port=port) as emulator:
            tell("Emulating the Kiro service until Ctrl-C. To use it, set:")
            say(f"KIRO_MCP_ENDPOINT_URL={emulator.url}")
            say(f"KIRO_API_KEY={EMULATOR_API_KEY}")
            if files:
                names = ", ".join(file.name for file in files)
                tell(f"Scripts for prompts with `/emulate NAME`: {names}")
            await anyio.sleep_forever()
        return 0

    try:
        return run_command(command)
    except OSError as error:
        tell(f"Cannot listen on 127.0.0.1:{port}: {error.strerror}. Choose another with --port.")
        return NETWORK
