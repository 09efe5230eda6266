"""kiro-cli renews its own login when asked: then its refresh token is not spent behind its back.

The only program that this package starts for a credential, by its full path and without a shell::

    kiro-cli chat _ get-kas-token [--force-refresh]    prints the token as JSON
    kiro-cli debug refresh-auth-token                  older versions; what it prints is not read
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio

from kiro_mcp.auth.credential_files import Place, parse_object, read_credential, text_of
from kiro_mcp.auth.places import Machine, kiro_cli_databases
from kiro_mcp.auth.tokens import Credential

HELPER_SECONDS: Final = 20.0
"""How long kiro-cli may take; observed are 2 to 15 seconds."""

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""How much of its output is read. A token takes about 2 KiB."""

_GIVE_TOKEN: Final = ("chat", "_", "get-kas-token")
_RENEW: Final = ("debug", "refresh-auth-token")


def helper_for(credential: Credential, machine: Machine) -> str:
    """Return the full path of the program that can renew this login, "" for none. Blocking."""
    if credential.path not in map(str, kiro_cli_databases(machine)):
        return ""
    found = shutil.which("kiro-cli", path=machine.environ.get("PATH", ""))
    return str(Path(found).absolute()) if found else ""


async def token_of_kiro_cli(
    program: str, credential: Credential, machine: Machine, *, is_refused: bool
) -> Credential | None:
    """Ask kiro-cli for the token of its login.

    Args:
        program: Its full path.
        credential: The login as it is known here.
        machine: Whose environment the program gets.
        is_refused: Whether the service refused the token that is known, however new it seems.

    Returns:
        The login with that token; None where kiro-cli gave none.
    """
    force = ("--force-refresh",) if is_refused else ()
    output = await _output(program, (*_GIVE_TOKEN, *force), machine.environ)
    place = Place(source=credential.source, origin=credential.origin)
    for line in (output, *reversed(output.splitlines())):  # Notices may stand before the JSON.
        try:
            document = parse_object(line)
            given = read_credential(document, place)
        except ValueError:
            continue
        if given is not None and given.access_token:
            return replace(
                credential,
                kind=given.kind if text_of(document, "auth_method") else credential.kind,
                access_token=given.access_token,
                held_refresh_token=credential.held_refresh_token or credential.refresh_token,
                expires_at=given.expires_at,
                profile_arn=given.profile_arn or credential.profile_arn,
            )
    return None


async def renew_by_kiro_cli(program: str, machine: Machine) -> None:
    """Have an older kiro-cli renew its login; its database has to be read again afterwards."""
    await _output(program, _RENEW, machine.environ)


async def _output(program: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Run the program and return what it printed; "" where it failed or took too long."""
    output = b""
    with anyio.move_on_after(HELPER_SECONDS):
        try:
            async with await anyio.open_process(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(environ),
            ) as process:
                assert process.stdout
                async for chunk in process.stdout:
                    output = (output + chunk)[: MAX_OUTPUT_BYTES + 1]
                is_done = await process.wait() == 0
        except OSError:
            return ""
        is_whole = is_done and len(output) <= MAX_OUTPUT_BYTES
        return output.decode("utf-8", "replace") if is_whole else ""
    return ""
