"""What the service says of a login: its profiles. Pure.

Profiles come from two regions, in pages; an API key asks for its own one instead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.regions import region_of

PROFILE_REGIONS: Final = ("us-east-1", "eu-central-1")
"""Where the vendor keeps profiles; which one is no matter of where the login was made."""

MAX_PROFILE_PAGES: Final = 20
"""Where a list of profiles that never ends is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A subscription that an organisation's user may bill."""

    arn: str
    name: str


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


def _objects(value: object) -> list[Mapping[str, object]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, object]", item) for item in items if isinstance(item, dict)]
