"""Progress notifications: how often, and what they say.

They keep a client from giving up on a long answer, and show a person that it grows. The answer
itself is only in the result: no client is known to show a model what progress says. At once, then
on what arrives but at most four times a second, and at least every ten seconds of silence; the
value always grows, as the specification asks.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

MIN_INTERVAL_SECONDS = 0.25
"""The least time between two notifications."""

HEARTBEAT_SECONDS = 9.0
"""The most time between two: clients that count on progress give up after ten or more."""

TAIL_CHARACTERS = 80
"""How much of the end of the text is shown."""


class Report(Protocol):
    """What sends a notification, or does nothing where the caller did not ask for any."""

    def __call__(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> Awaitable[None]:
        """Send it."""
        ...


class ProgressReporter:
    """Reports on one call; knows when it last did."""

    def __init__(
        self,
        report: Report,
        *,
        answer_id: str,
        now: Callable[[], float],
        min_interval_seconds: float = MIN_INTERVAL_SECONDS,
    ) -> None:
        self._report = report
        self._min_interval_seconds = min_interval_seconds
        self._answer_id = answer_id
        self._now = now
        self._began_at = now()
        self._reported_at = float("-inf")
        self._progress = 0

    @property
    def seconds_until_due(self) -> float:
        """How long the next notification of something new has to wait."""
        return max(0.0, self._reported_at + self._min_interval_seconds - self._now())

    @property
    def seconds_until_heartbeat(self) -> float:
        """After how much silence there is to be one all the same."""
        return max(0.0, self._reported_at + HEARTBEAT_SECONDS - self._now())

    async def report(self, *, characters: int, tail: str) -> None:
        """Say how far the answer has come."""
        self._reported_at = self._now()
        elapsed = self._reported_at - self._began_at
        self._progress = max(self._progress + 1, round(elapsed * 1000))
        ending = " ".join(tail[-TAIL_CHARACTERS:].split())
        shown = f": …{ending}" if ending else ""
        message = f"{characters} characters, {elapsed:.1f} s, answer {self._answer_id}{shown}"
        await self._report(self._progress, message=message)
