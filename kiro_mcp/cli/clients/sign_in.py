"""Whether a server would find a credential, with the variables that a client gives it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings

LEADING_TO_ONE: Final = (
    *("KIRO_API_KEY", "KIRO_ACCESS_TOKEN", "KIRO_REFRESH_TOKEN", "REFRESH_TOKEN"),
    *("KIRO_CREDS_FILE", "KIRO_CLI_DB_FILE", "KIRO_MCP_HOME", "XDG_DATA_HOME"),
)
"""The variables that hold a credential, or say where one is."""


def not_handed_on(machine: Machine, given: Mapping[str, str]) -> str:
    """Return the variable that is set here and would have a server find a credential.

    Args:
        machine: This machine, with the variables that are set here.
        given: The variables that the server has from its client; with them it finds none.

    Returns:
        The variable's name; "" where there is none such. Blocking.
    """
    for name in LEADING_TO_ONE:
        value = machine.environ.get(name, "")
        is_new = value not in ("", given.get(name))
        if is_new and finds_credential({**given, name: value}, machine.platform):
            return name
    return ""


def finds_credential(environ: Mapping[str, str], platform: str) -> bool:
    """Look for a credential, without trying whether it is good. Blocking."""
    try:
        settings = Settings.load(environ)
    except InvalidRequest:
        return False  # Said elsewhere, in words.
    machine = Machine.of(environ, platform)
    home = own_home(machine, settings.home)
    store = OwnStore(home) if home else None
    sources = Sources(settings, machine, store, now=lambda: datetime.now(UTC))
    return sources.look().credential is not None
