"""What captures calls, as the rest of the server sees it; None where that is off.

What writes captures, `kiro_mcp.captures`, is loaded only where it is on.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from kiro_mcp.captures import Outcome
from kiro_mcp.client.capture import Recorder
from kiro_mcp.settings import Settings

logger = logging.getLogger(__name__)


class CallCapture(Recorder, Protocol):
    """The capture of one call."""

    outlives_call: bool
    """Whether an answer ends it, and not the call that asked for that."""

    def log(self) -> AbstractContextManager[None]:
        """Make what is logged in a block part of the capture."""
        ...

    def finish(
        self, outcome: Outcome, error: Mapping[str, Any] | None = None, *, is_odd: bool = False
    ) -> None:
        """End it, with what is said of a call that failed; an odd one is worth keeping, too."""
        ...


class Captures(Protocol):
    """The captures of one server."""

    def begin(self, arguments: Mapping[str, Any]) -> CallCapture | None:
        """Begin to capture a call, if it can be."""
        ...

    async def aclose(self) -> None:
        """Wait until all is written."""
        ...


def captures_of(
    settings: Settings,
    folder: Path | None,
    *,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> Captures | None:
    """Return what captures calls, as it is set; None where it is off.

    Args:
        settings: All settings.
        folder: Where captures go; None where the machine has no place for them.
        now: The time, with its zone.
        new_id: Makes UUIDs.
    """
    if settings.debug_mode == "off":
        return None
    if folder is None:
        logger.warning("Calls are not captured: set KIRO_MCP_DEBUG_DIR to a folder for them.")
        return None
    # Imported here to keep the start of a server light, which seldom needs it.
    from kiro_mcp.captures.recording import Captures as Recording

    return Recording(folder, settings.debug_mode, now=now, new_id=new_id)
