"""What an account has used of its plan: the service's `GetUsageLimits` answer -> `UsageLimits`.

Every member may be missing, numbers come whole or exact (`…WithPrecision`), and a plan's credits
are what the plan gives, plus an active trial's and active bonuses'. `daysUntilReset` is often 0
and never read. Source of truth: the service's published model, and its answers as observed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, cast

from kiro_mcp.wire.json_values import finite_number

Members: TypeAlias = Mapping[str, object]

_RESOURCES: Final = ("CREDIT", "AGENTIC_REQUEST", "VIBE", "SPEC")
"""What a plan counts, the most telling first."""

_MILLISECONDS_FROM: Final = 1e11
"""A time from here on is in milliseconds: in seconds it would be in the year 5138."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimits:
    """How much of a plan is used; None where the service does not say."""

    used: float | None = None
    """Credits of the period, of trial and bonuses too."""
    limit: float | None = None
    resets_at: datetime | None = None
    """When the next period begins; aware, UTC."""
    plan: str = ""
    """The plan's name, such as `KIRO PRO`; "" where the service does not say."""
    email: str = ""
    """The account's address, to be masked before it is shown; "" where it was not asked for."""
    is_overage_allowed: bool | None = None
    """Whether calls beyond the limit are made, and billed."""
    overage_used: float | None = None
    """Credits beyond the limit."""
    overage_cap: float | None = None


def read_usage_limits(answer: Members) -> UsageLimits:
    """Read the answer, whichever of its parts are there."""
    chosen = _chosen(answer)
    pots = (chosen, *_extras(chosen))
    subscription = _object(answer.get("subscriptionInfo"))
    overage = _object(answer.get("overageConfiguration"))
    status = overage.get("overageStatus")
    return UsageLimits(
        used=_sum(pots, "currentUsage"),
        limit=_sum(pots, "usageLimit", "totalUsageLimit"),
        resets_at=_time(chosen.get("nextDateReset")) or _time(answer.get("nextDateReset")),
        plan=_text(subscription.get("subscriptionTitle")) or _text(subscription.get("type")),
        email=_text(_object(answer.get("userInfo")).get("email")),
        is_overage_allowed=status == "ENABLED" if isinstance(status, str) else None,
        overage_used=_amount(chosen, "currentOverages"),
        overage_cap=_first(_amount(chosen, "overageCap"), _amount(overage, "overageLimit")),
    )


def _chosen(answer: Members) -> Members:
    """Return the breakdown of what the plan counts, in whichever of three forms it is there."""
    breakdowns = _objects(answer.get("usageBreakdownList"))
    breakdowns = breakdowns or _objects([answer.get("usageBreakdown")])
    breakdowns = breakdowns or _objects(answer.get("limits"))
    by_resource = {_text(one.get("resourceType") or one.get("type")): one for one in breakdowns}
    known = (by_resource[name] for name in _RESOURCES if name in by_resource)
    return next(known, breakdowns[0] if breakdowns else {})


def _extras(breakdown: Members) -> Iterable[Members]:
    trial = _object(breakdown.get("freeTrialInfo"))
    if trial.get("freeTrialStatus") == "ACTIVE":
        yield trial
    bonuses = _objects(breakdown.get("bonuses"))
    yield from (bonus for bonus in bonuses if bonus.get("status") == "ACTIVE")


def _sum(pots: Iterable[Members], *names: str) -> float | None:
    amounts = [_first(*(_amount(pot, name) for name in names)) for pot in pots]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _amount(members: Members, name: str) -> float | None:
    return _first(
        finite_number(members.get(f"{name}WithPrecision")), finite_number(members.get(name))
    )


def _first(*numbers: float | None) -> float | None:
    return next((number for number in numbers if number is not None), None)


def _time(value: object) -> datetime | None:
    seconds = finite_number(value)
    if not seconds or seconds < 0:
        return None
    try:
        return datetime.fromtimestamp(
            seconds / 1000 if seconds > _MILLISECONDS_FROM else seconds, UTC
        )
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(value: object) -> Members:
    return cast("Members", value) if isinstance(value, dict) else {}


def _objects(value: object) -> Sequence[Members]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Members", item) for item in items if isinstance(item, dict)]
