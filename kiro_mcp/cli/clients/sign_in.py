"""Whether a server would find a credential, with the variables that a client gives it."""

from collections.abc import Mapping
from datetime import UTC, datetime

from kiro_mcp.auth.places import Machine, own_home
from kiro_mcp.auth.sources import Sources
from kiro_mcp.auth.store import OwnStore
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.settings import Settings


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
