"""When a token is to be refreshed. Pure: the time is a parameter.

::

    ─────────── fresh ───────────┬──── advisory ────┬── mandatory ──┬── expired
                                 │ try, do not wait │ wait for it   │
                       threshold + jitter       60 s          expires_at
"""

from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from kiro_mcp.auth.tokens import Credential

MANDATORY_SECONDS: Final = 60.0
"""How long before its end a token is no longer sent: a request must arrive, and clocks differ."""

COOL_DOWN_SECONDS: Final = 30.0
"""How long after an attempt the next one waits, unless there is nothing else to send.

A token that was renewed within this time is sent even if it seems to have ended: then the clock of
this machine or the stated lifetime is wrong, and another refresh would give the same again."""

MAX_JITTER_SECONDS: Final = 10.0
"""Spreads the attempts of servers that share a login."""

Need: TypeAlias = Literal["none", "advisory", "mandatory"]


def refresh_need(
    credential: Credential, now: datetime, *, threshold_seconds: float, jitter_seconds: float = 0.0
) -> Need:
    """Tell whether a credential is to be refreshed, and whether that can wait."""
    if not credential.access_token:
        return "mandatory"
    if credential.expires_at is None:
        return "none"
    left = credential.expires_at - now
    if left <= timedelta(seconds=MANDATORY_SECONDS):
        return "mandatory"
    is_soon = left <= timedelta(seconds=threshold_seconds + jitter_seconds)
    return "advisory" if is_soon else "none"


def may_try_again(last_attempt: datetime | None, now: datetime) -> bool:
    """Whether enough time has passed since the last attempt.

    A clock that was set back meanwhile says nothing about that, so then it has.
    """
    if last_attempt is None:
        return True
    return not timedelta(0) <= now - last_attempt < timedelta(seconds=COOL_DOWN_SECONDS)
