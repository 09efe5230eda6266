"""Credit budgets: how much calls may cost, by what the service says that they did.

The service says what an answer costs at its end, so a budget cannot cut a call short: it keeps
the next request from being sent. The sum of each day, one of UTC, outlives a restart, in an SQLite
database that all servers of an account add to::

    days     day ("2026-11-21"), credits
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.errors import AccountBlocked

logger = logging.getLogger(__name__)

FILE_NAME: Final = "credits.sqlite3"

BUSY_SECONDS: Final = 2.0
"""How long another server's addition is waited for, which takes a few milliseconds."""


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
        today = self._today()
        self._credits += credits_used
        if self._file:
            with anyio.CancelScope(shield=True):
                await self._learn(today, partial(_add, self._file, today, credits_used))

    async def _used_today(self) -> float:
        """Return the day's sum: the file's, where another server has added to it."""
        today = self._today()
        if self._file:
            await self._learn(today, partial(_read, self._file, today))
        return self._credits

    def _today(self) -> str:
        """Return the day, and begin its sum where it is a new one."""
        today = self._now().date().isoformat()
        if today != self._day:
            self._day = today
            self._credits = 0.0
        return today

    async def _learn(self, day: str, read_sum: Callable[[], float]) -> None:
        """Take the file's sum, unless ours is larger because it could not be added there."""
        try:
            kept = await anyio.to_thread.run_sync(read_sum)
            if day == self._day:  # Not another one by now.
                self._credits = max(self._credits, kept)
        except (OSError, sqlite3.Error) as error:
            logger.warning("the day's credits are known to this server alone: %s", error)


def _exceeded(what: str, used: float, limit: float, setting: str) -> AccountBlocked:
    later = "Call again tomorrow (UTC), or raise" if what == "day" else "Ask for less, or raise"
    return AccountBlocked(
        f"This {what} has used {used:.4g} of the {limit:g} credits that you allow it.",
        next_step=f"{later} {setting}.",
        code="budget_exceeded",
    )


def _read(file: Path, day: str) -> float:
    """Return a day's sum; 0 where nothing was added."""
    if not file.exists():
        return 0.0
    with closing(_opened(file)) as db:
        return _sum(db, day)


def _add(file: Path, day: str, credits_used: float) -> float:
    """Add to a day's sum, be it in the same moment as another server, and return it."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)  # Made before SQLite does, so that it is never readable by others.
    with closing(_opened(file)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, credits REAL NOT NULL)")
        db.execute(
            "INSERT INTO days VALUES (?, ?)"
            " ON CONFLICT (day) DO UPDATE SET credits = credits + excluded.credits",
            (day, credits_used),
        )
        return _sum(db, day)


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)


def _sum(db: sqlite3.Connection, day: str) -> float:
    (credits,) = db.execute("SELECT total(credits) FROM days WHERE day = ?", (day,)).fetchone()
    return credits
