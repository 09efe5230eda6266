"""When a request may be sent: slots, holds and budgets.

`FairSlots` limits how many answers run at once, and lets callers take turns.

`Holds` remembers refusals that apply to every call of a credential. While an account is suspended,
or has to wait, no request may be sent for it.

`Budget` counts the credits that answers cost. The service states the cost at the end of an answer,
so a budget cannot cut an answer short: it blocks the next request. The sum of each day (UTC) is in
an SQLite database, which survives a restart and which all servers of an account share::

    days     day ("2026-11-21"), credits
"""

import logging
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from kiro_mcp.chat import AccessToken
from kiro_mcp.client.classify import SUSPENDED_MINUTES, duration
from kiro_mcp.errors import AccountBlocked, KiroError

logger = logging.getLogger(__name__)

MAX_HOLDS: Final = 1_000
"""How many holds are remembered; the oldest is forgotten first."""

FILE_NAME: Final = "credits.sqlite3"

BUSY_SECONDS: Final = 2.0
"""How long to wait while another server writes, which takes a few milliseconds."""


class FairSlots:
    """A limit on concurrent answers that no single caller can use up.

    While a slot is free, a call takes it at once. Otherwise the waiting callers take turns: a slot
    that becomes free goes to the oldest call of the next caller.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[str, deque[anyio.Event]] = {}
        """The waiting calls of each caller. The first caller is the next one."""

    @asynccontextmanager
    async def taken_by(self, caller: str) -> AsyncGenerator[bool]:
        """Wait for a slot and hold it. Yields whether the call had to wait."""
        has_to_wait = not self._free
        if has_to_wait:
            turn, turns = anyio.Event(), self._waiting.setdefault(caller, deque())
            turns.append(turn)
            try:
                await turn.wait()
            except BaseException:
                if turn.is_set():
                    self._pass_on()  # The slot came at the moment of the cancellation.
                else:
                    turns.remove(turn)
                    if not turns:
                        del self._waiting[caller]
                raise
        else:
            self._free -= 1
        try:
            yield has_to_wait
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        caller = next(iter(self._waiting))
        turns = self._waiting.pop(caller)
        turns.popleft().set()
        if turns:
            self._waiting[caller] = turns  # At the end of the queue: the other callers are next.


class Holds:
    """The refusals that apply to all calls of a credential, for as long as they apply.

    They are in memory, by token: a renewed credential and a new process start without holds.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._held: dict[str, tuple[Callable[..., KiroError], datetime]] = {}
        """What makes the error anew for each call, because a raised error keeps its call in
        memory; and when the hold ends."""

    def add(self, token: AccessToken, error: KiroError) -> None:
        """Remember a refusal if it applies to every call of the account."""
        if error.code == "account_suspended":
            seconds = SUSPENDED_MINUTES * 60.0
        elif error.code == "rate_limited" and error.retry_after_seconds:
            seconds = error.retry_after_seconds
        else:
            return
        if len(self._held) >= MAX_HOLDS:
            del self._held[next(iter(self._held))]
        make = partial(
            type(error),
            error.message,
            next_step=error.next_step,
            code=error.code,
            reason=error.reason,
            status=error.status,
            request_id=error.request_id,
            retry_after_seconds=error.retry_after_seconds,
        )
        self._held[token.value] = (make, self._now() + timedelta(seconds=seconds))

    def on(self, token: AccessToken) -> tuple[KiroError, float] | None:
        """Return why a credential may not be used, and for how many seconds; None if it may."""
        if token.value not in self._held:
            return None
        make, until = self._held[token.value]
        seconds = (until - self._now()).total_seconds()
        if seconds <= 0:
            del self._held[token.value]
            return None
        error = make()
        if error.code == "rate_limited":
            wait = f"Wait for {duration(round(seconds, 1))} and call again."
            error = make(next_step=wait, retry_after_seconds=seconds)
        return error, seconds

    def clear(self) -> None:
        """Forget all holds: the next call asks the service again."""
        self._held.clear()


@dataclass(slots=True)
class CallSpending:
    """What all requests of one call have cost so far.

    Pass the same object to several requests to count them as one call.
    """

    credits: float = 0.0


class Budget:
    """Counts credits, and refuses requests after a limit is reached. A limit of 0 means no limit.

    The day's sum is saved in the folder; without one, it is in memory only.
    """

    def __init__(
        self, *, per_call: float, per_day: float, folder: Path | None, now: Callable[[], datetime]
    ) -> None:
        self._per_call = per_call
        self._per_day = per_day
        self._file = folder / FILE_NAME if folder else None
        self._now = now
        self._day: str = ""
        self._credits = 0.0

    async def require_left(self, call: CallSpending) -> None:
        """Require that a request may be sent.

        Raises:
            AccountBlocked: A budget is used up (`budget_exceeded`).
        """
        _require_below(self._per_call, "call", call.credits, "Ask for less")
        if self._per_day:
            await self._count(0.0)  # Other servers may have added to it.
            _require_below(self._per_day, "day", self._credits, "Call again tomorrow (UTC)")

    async def add(self, credits_used: float, call: CallSpending) -> None:
        """Count what an answer cost, even while its call is being cancelled."""
        call.credits += credits_used
        if self._per_day and credits_used:
            with anyio.CancelScope(shield=True):
                await self._count(credits_used)

    async def _count(self, credits_used: float) -> None:
        """Add to the day's sum, here and in the file, and take over what others added there."""
        day = self._now().date().isoformat()
        if day != self._day:
            self._day, self._credits = day, 0.0
        self._credits += credits_used
        if self._file is None:
            return
        try:
            saved = await anyio.to_thread.run_sync(_add, self._file, day, credits_used)
            if day == self._day:  # A new day may have begun meanwhile.
                # Our sum is larger if the file could not be written.
                self._credits = max(self._credits, saved)
        except (OSError, sqlite3.Error) as error:
            logger.warning(
                "the day's credits cannot be shared with other servers of this account: %s", error
            )


def _require_below(limit: float, what: str, used: float, advice: str) -> None:
    if limit and used >= limit:
        raise AccountBlocked(
            f"This {what} has used {used:.4g} of the {limit:g} credits that your settings"
            " allow it.",
            next_step=f"{advice}, or raise KIRO_MCP_MAX_CREDITS_PER_{what.upper()}.",
            code="budget_exceeded",
        )


def _add(file: Path, day: str, credits_used: float) -> float:
    """Add to a day's sum and return the new sum. Safe while other servers do the same."""
    if credits_used:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)  # If SQLite created it, other users could read it.
    elif not file.exists():
        return 0.0
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)) as db:
        if credits_used:
            db.execute(
                "CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, credits REAL NOT NULL)"
            )
            db.execute(
                "INSERT INTO days VALUES (?, ?)"
                " ON CONFLICT (day) DO UPDATE SET credits = credits + excluded.credits",
                (day, credits_used),
            )
        (credits,) = db.execute("SELECT total(credits) FROM days WHERE day = ?", (day,)).fetchone()
        return credits
