"""kiro-cli renews its own login when asked: then its refresh token is not spent behind its back.

The only program that this package ever starts, by its full path and without a shell; what it
prints is thrown away, for it may hold a token.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.auth.places import Machine, kiro_cli_databases
from kiro_mcp.auth.tokens import Credential

HELPER_SECONDS: Final = 20.0
"""How long kiro-cli may take; observed are 2 to 15 seconds."""

_ARGUMENTS: Final = ("debug", "refresh-auth-token")


def helper_for(credential: Credential, machine: Machine) -> str:
    """Return the full path of the program that can renew this login, "" for none. Blocking."""
    if credential.path not in map(str, kiro_cli_databases(machine)):
        return ""
    found = shutil.which("kiro-cli", path=machine.environ.get("PATH", ""))
    return str(Path(found).absolute()) if found else ""


async def renew_by_kiro_cli(credential: Credential, machine: Machine) -> bool:
    """Have kiro-cli renew its login, where that is its own and the program is there.

    Returns:
        Whether it says that it did; the database has to be read again either way.
    """
    program = await anyio.to_thread.run_sync(helper_for, credential, machine)
    return await _succeeds(program, machine.environ) if program else False


async def _succeeds(program: str, environ: Mapping[str, str]) -> bool:
    with anyio.move_on_after(HELPER_SECONDS):
        try:
            done = await anyio.run_process(
                [program, *_ARGUMENTS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                env=dict(environ),
            )
        except OSError:
            return False
        return done.returncode == 0
    return False
