"""What the service says of a login: its profiles, and its credits. Pure.

Profiles come from two regions, in pages; an API key asks for its own one instead. Credits are
the plan's, plus an active trial's and active bonuses', with the exact figures where both are sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from kiro_mcp.auth.timestamps import LONG_AGO, parse_time
from kiro_mcp.auth.tokens import region_of
from kiro_mcp.errors import InvalidRequest

PROFILE_REGIONS: Final = ("us-east-1", "eu-central-1")
"""Where the vendor keeps profiles; which one is no matter of where the login was made."""

MAX_PROFILE_PAGES: Final = 20
"""Where a list of profiles that never ends is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A subscription that an organisation's user may bill."""

    arn: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """What the account has used of its plan; None where the service does not say."""

    used: float | None = None
    limit: float | None = None
    resets_at: datetime | None = None
    plan: str = ""
    email: str = ""
    """The account's address, to be masked before it is shown."""


def read_profiles(page: Mapping[str, object]) -> tuple[list[Profile], str]:
    """Read one page of profiles, and the token of the next page, "" for none."""
    found = [_profile(one) for one in _objects(page.get("profiles"))]
    token = page.get("nextToken")
    return [one for one in found if one], token if isinstance(token, str) else ""


def read_profile(answer: Mapping[str, object]) -> str:
    """Read the ARN of the one profile that an API key has; "" for none."""
    found = [_profile(one) for one in _objects([answer.get("profile")])]
    return found[0].arn if found and found[0] else ""


def _profile(members: Mapping[str, object]) -> Profile | None:
    arn, name = members.get("arn"), members.get("profileName")
    if not isinstance(arn, str) or not region_of(arn):
        return None
    return Profile(arn=arn, name=name if isinstance(name, str) else "")


def choose_profile(profiles: Iterable[Profile]) -> str:
    """Return the ARN of the only profile.

    Raises:
        InvalidRequest: There is none, or there are several: which is billed is the user's to say.
    """
    by_arn = {profile.arn: profile for profile in profiles}
    if len(by_arn) == 1:
        return next(iter(by_arn))
    if not by_arn:
        raise InvalidRequest(
            "This login has no Kiro profile in us-east-1 or eu-central-1.",
            next_step="Ask your administrator for a Kiro subscription, or set KIRO_PROFILE_ARN.",
        )
    listed = "; ".join(f"{one.name or 'unnamed'}: {one.arn}" for one in by_arn.values())
    raise InvalidRequest(
        f"This login has {len(by_arn)} Kiro profiles. Which one is to be billed? {listed}.",
        next_step="Set KIRO_PROFILE_ARN to its ARN where this server is configured.",
    )


def read_credits(answer: Mapping[str, object]) -> Credits:
    """Read the account's credits from the answer of GetUsageLimits."""
    breakdowns = _objects(answer.get("usageBreakdownList")) or _objects(
        [answer.get("usageBreakdown")]
    )
    chosen = next((one for one in breakdowns if one.get("resourceType") == "CREDIT"), None)
    chosen = chosen or (breakdowns[0] if breakdowns else {})
    pots = [chosen, *_extras(chosen)]
    plan = _first(_objects([answer.get("subscriptionInfo")]), "subscriptionTitle", "type")
    resets_at = parse_time(chosen.get("nextDateReset") or answer.get("nextDateReset"))
    return Credits(
        used=_sum(pots, "currentUsage"),
        limit=_sum(pots, "usageLimit"),
        resets_at=None if resets_at == LONG_AGO else resets_at,
        plan=plan,
        email=_first(_objects([answer.get("userInfo")]), "email"),
    )


def _extras(breakdown: Mapping[str, object]) -> list[Mapping[str, object]]:
    trials = _objects([breakdown.get("freeTrialInfo")])
    bonuses = _objects(breakdown.get("bonuses"))
    active = [one for one in trials if one.get("freeTrialStatus") == "ACTIVE"]
    return [*active, *(one for one in bonuses if one.get("status") == "ACTIVE")]


def _sum(pots: Iterable[Mapping[str, object]], name: str) -> float | None:
    amounts = [_amount(pot, name) for pot in pots]
    known = [amount for amount in amounts if amount is not None]
    return float(sum(known)) if known else None


def _amount(pot: Mapping[str, object], name: str) -> float | None:
    for spelling in (f"{name}WithPrecision", name):
        value = pot.get(spelling)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _first(objects: Iterable[Mapping[str, object]], *names: str) -> str:
    texts = (one.get(name) for one in objects for name in names)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _objects(value: object) -> list[Mapping[str, object]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, object]", item) for item in items if isinstance(item, dict)]
