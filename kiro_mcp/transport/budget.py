"""Credit budgets: how much calls may cost, by what the service says that they did.

The service says what an answer costs at its end, so a budget cannot cut a call short: it keeps
the next request from being sent. The day's sum outlives a restart, in a file of one line::

    credits.json   {"credits": 1.25, "day": "2026-11-21"}

A day is one of UTC. Of two servers that add to the file in the same instant, one addition may be
lost; each still knows its own.
"""

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, cast

import anyio
import anyio.to_thread

from kiro_mcp.errors import AccountBlocked

logger = logging.getLogger(__name__)

FILE_NAME: Final = "credits.json"
MAX_FILE_BYTES: Final = 4096
"""How much of the file is read; ours have 40 bytes."""


@dataclass(slots=True)
class CallSpending:
    """What one call has cost so far, over all the requests that it took.

    Give the same one to several requests to have them count as one call.
    """

    credits: float = 0.0


class Budget:
    """Counts credits, and refuses what would go over.

    Args:
        per_call: Credits that one call may cost; 0 is no limit.
        per_day: Credits that a day may cost; 0 is no limit.
        folder: Where the day's sum is kept; None keeps it in memory alone.
        now: The time.
    """

    def __init__(
        self, *, per_call: float, per_day: float, folder: Path | None, now: Callable[[], datetime]
    ) -> None:
        self._per_call = per_call
        self._per_day = per_day
        self._file = folder / FILE_NAME if folder and per_day else None
        self._now = now
        self._day = ""
        self._credits = 0.0
        self._writing = anyio.Lock()

    async def require_left(self, call: CallSpending) -> None:
        """Let a request be sent.

        Raises:
            AccountBlocked: A budget is used up (`budget_exceeded`).
        """
        if self._per_call and call.credits >= self._per_call:
            raise _exceeded("call", call.credits, self._per_call, "KIRO_MCP_MAX_CREDITS_PER_CALL")
        if not self._per_day:
            return
        used = await self._used_today()
        if used >= self._per_day:
            raise _exceeded("day", used, self._per_day, "KIRO_MCP_MAX_CREDITS_PER_DAY")

    async def add(self, credits_used: float, call: CallSpending) -> None:
        """Count what an answer cost, also while the call is being cancelled."""
        call.credits += credits_used
        if not self._per_day or not credits_used:
            return
        with anyio.CancelScope(shield=True):
            async with self._writing:
                used = await self._used_today()
                self._credits = used + credits_used
                if self._file:
                    await anyio.to_thread.run_sync(self._save, self._file)

    async def _used_today(self) -> float:
        """Return the day's sum: the file's, where another server has added to it."""
        today = self._now().date().isoformat()
        if today != self._day:
            self._day, self._credits = today, 0.0
        if self._file:
            kept = await anyio.to_thread.run_sync(_read, self._file, today)
            self._credits = max(self._credits, kept)
        return self._credits

    def _save(self, file: Path) -> None:
        try:
            _replace(file, json.dumps({"credits": self._credits, "day": self._day}))
        except OSError as error:
            logger.warning("the day's credits are not kept: %s", error)


def _exceeded(what: str, used: float, limit: float, setting: str) -> AccountBlocked:
    later = "Call again tomorrow (UTC), or raise" if what == "day" else "Ask for less, or raise"
    return AccountBlocked(
        f"This {what} has used {used:.4g} of the {limit:g} credits that you allow it.",
        next_step=f"{later} {setting}.",
        code="budget_exceeded",
    )


def _read(file: Path, today: str) -> float:
    """Return the sum that is kept for a day; 0 where there is none that can be read."""
    try:
        with file.open("rb") as opened:
            document = json.loads(opened.read(MAX_FILE_BYTES))
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError) as error:
        logger.warning("the day's credits cannot be read: %s", error)
        return 0.0
    members = cast("dict[str, object]", document) if isinstance(document, dict) else {}
    kept = members.get("credits")
    if members.get("day") != today or not isinstance(kept, int | float):
        return 0.0
    return float(kept) if math.isfinite(kept) else 0.0


def _replace(file: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
