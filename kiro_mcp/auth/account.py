"""What the service says of a login: its profiles. Pure.

Profiles come from two regions, in pages; an API key asks for its own one instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.regions import is_govcloud, region_of

PROFILE_REGIONS: Final = ("us-east-1", "eu-central-1")
"""Where the vendor keeps profiles, wherever in the world the login was made."""

GOVCLOUD_REGIONS: Final = ("us-gov-west-1", "us-gov-east-1")
"""Where it keeps those of logins that were made in AWS GovCloud."""

MAX_PROFILE_PAGES: Final = 20
"""Where a list of profiles that never ends is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A subscription that an organisation's user may bill."""

    arn: str
    name: str
    is_active: bool = True


def profile_regions(login_region: str) -> tuple[str, ...]:
    """Return the regions in which the profiles of a login can be."""
    return GOVCLOUD_REGIONS if is_govcloud(login_region) else PROFILE_REGIONS


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
    status = members.get("status")
    return Profile(
        arn=arn,
        name=name if isinstance(name, str) else "",
        is_active=not isinstance(status, str) or status.upper() in ("", "ACTIVE"),
    )


def choose_profile(profiles: Iterable[Profile], regions: Sequence[str]) -> str:
    """Return the ARN of the only active profile.

    Args:
        profiles: What was found.
        regions: Where it was looked for.

    Raises:
        InvalidRequest: There is none, or there are several: the user decides which one is billed.
    """
    by_arn = {profile.arn: profile for profile in profiles}
    active = [profile for profile in by_arn.values() if profile.is_active]
    if len(active) == 1:
        return active[0].arn
    if active:
        raise InvalidRequest(
            f"You are signed in, and this login has {len(active)} Kiro profiles. Which one is to be"
            f" billed? {_listed(active)}.",
            next_step="Set KIRO_PROFILE_ARN to its ARN where this server is configured.",
        )
    if by_arn:
        raise InvalidRequest(
            "You are signed in, but no Kiro profile of this login is active:"
            f" {_listed(by_arn.values())}.",
            next_step="Ask your administrator to activate the profile or your subscription.",
        )
    raise InvalidRequest(
        f"You are signed in, but this login has no Kiro profile in {' or '.join(regions)}.",
        next_step="Ask your administrator for a Kiro subscription, or set KIRO_PROFILE_ARN.",
    )


def _listed(profiles: Iterable[Profile]) -> str:
    return "; ".join(f"{one.name or 'unnamed'}: {one.arn}" for one in profiles)


def _objects(value: object) -> list[Mapping[str, object]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, object]", item) for item in items if isinstance(item, dict)]
