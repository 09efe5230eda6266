"""Refusals that bind all calls of a credential, remembered for as long as they bind.

A suspended account must not get one more request with each new call, and an account that was told
to wait must not be asked inside that wait by another call. Kept in memory, by credential: another
credential, a renewed one or a new process begins without holds.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kiro_mcp.chat import AccessToken
from kiro_mcp.client.classify import SUSPENDED_MINUTES, duration
from kiro_mcp.errors import KiroError, ServiceUnavailable

MAX_HOLDS: Final = 1_000
"""How many credentials are remembered; the oldest hold is forgotten first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a credential is left alone, and for how much longer."""

    error: KiroError
    seconds: float


class Holds:
    """The holds of one client."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._held: dict[str, tuple[KiroError, datetime]] = {}

    def add(self, token: AccessToken, error: KiroError) -> None:
        """Remember a refusal if it binds the whole account."""
        if error.code == "account_suspended":
            seconds = SUSPENDED_MINUTES * 60.0
        elif error.code == "rate_limited" and error.retry_after_seconds:
            seconds = error.retry_after_seconds
        else:
            return
        if len(self._held) >= MAX_HOLDS:
            del self._held[next(iter(self._held))]
        self._held[_key(token)] = (error, self._now() + timedelta(seconds=seconds))

    def on(self, token: AccessToken) -> Hold | None:
        """Return what holds a credential back now."""
        error, until = self._held.get(_key(token), (None, self._now()))
        seconds = (until - self._now()).total_seconds()
        if error is None or seconds <= 0:
            self._held.pop(_key(token), None)
            return None
        if error.code == "rate_limited":
            error = ServiceUnavailable(
                error.message,
                next_step=f"Wait for {duration(round(seconds, 1))} and call again.",
                code=error.code,
                reason=error.reason,
                status=error.status,
                request_id=error.request_id,
                retry_after_seconds=seconds,
            )
        return Hold(error=error, seconds=seconds)

    def clear(self) -> None:
        """Forget all holds: the next call asks the service again."""
        self._held.clear()


def _key(token: AccessToken) -> str:
    return hashlib.sha256(token.value.encode()).hexdigest()
