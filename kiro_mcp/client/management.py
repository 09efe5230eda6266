"""Asks the management host about an account: its models, profiles and credits.

Each function sends a request once, with the given token; `KiroClient` adds the retries for the
list of models. Every member of an answer may be missing. Sources: the service's published model,
and observed answers.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import anyio

from kiro_mcp.chat import AccessToken, JsonObject
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.client.endpoints import (
    BUILDER_ID_PROFILE_ARN,
    GET_PROFILE,
    LIST_PROFILES,
    USAGE_LIMITS,
    EndpointProfile,
    build_request,
)
from kiro_mcp.client.http import Fetcher
from kiro_mcp.errors import AccountBlocked, InvalidRequest, KiroError, ServiceUnavailable
from kiro_mcp.regions import is_govcloud, region_of
from kiro_mcp.settings import Settings
from kiro_mcp.wire.json_values import (
    UnreadableError,
    number_member,
    object_member,
    object_members,
    parse_object,
    word_member,
)
from kiro_mcp.wire.models import models_from_page

ANSWER_SECONDS: Final = 30.0
"""How long an answer may take. It usually takes less than one second."""

PROFILE_REGIONS: Final = ("us-east-1", "eu-central-1")
"""Where the vendor keeps profiles, in whatever region the login was made."""

GOVCLOUD_REGIONS: Final = ("us-gov-west-1", "us-gov-east-1")
"""The same for logins that were made in AWS GovCloud."""

MAX_PROFILE_PAGES: Final = 20
"""How many pages of a list of profiles are read at most."""

MILLISECONDS_FROM: Final = 100_000_000_000
"""A larger time is in milliseconds: in seconds it would be in the year 5138."""

_BUILDER_ID_WORDS: Final = "Builder ID is not supported"

_RESOURCES: Final = ("CREDIT", "AGENTIC_REQUEST", "VIBE", "SPEC")
"""The resources that a plan may count. The first one in an answer is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimits:
    """How much of a plan is used. A value is None or "" if the service did not send it."""

    used: float | None = None
    """Credits used in this period, including those of a trial and of bonuses."""
    limit: float | None = None
    resets_at: datetime | None = None
    """When the next period begins; aware, UTC."""
    plan: str = ""
    """The plan's name, such as `KIRO PRO`."""
    email: str = ""
    """The account's e-mail address. Mask it before you show it."""
    is_overage_allowed: bool = False
    """Whether the service answers, and bills, calls beyond the limit."""


class Management:
    """Asks the management host about an account."""

    def __init__(
        self,
        http: Fetcher,
        settings: Settings,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._http = http
        self._settings = settings
        self._now = now
        self._new_id = new_id

    async def find_profile(self, token: AccessToken, *, login_region: str = "") -> str:
        """Return the ARN of the login's profile, after asking every region that may have it.

        A login that was made in a GovCloud region has its profile in one, too.

        Raises:
            InvalidRequest: The login has no active profile, or several: then the user decides.
            KiroError: No region answered.
        """
        found: dict[str, JsonObject] = {}
        faults: list[KiroError] = []
        regions = self._profile_regions(login_region)
        for region in regions:
            try:
                found |= await self._profiles(replace(token, region=region))
            except KiroError as error:
                if isinstance(error, AccountBlocked) and _BUILDER_ID_WORDS in error.message:
                    return BUILDER_ID_PROFILE_ARN
                faults.append(error)
        # If one region did not answer, the login may have another profile there. Accept that.
        if not found and faults:
            raise faults[0]
        active = {
            arn: profile
            for arn, profile in found.items()
            if word_member(profile, "status").upper() in ("", "ACTIVE")
        }
        if len(active) == 1:
            return next(iter(active))
        names = "; ".join(
            f"{word_member(profile, 'profileName') or 'unnamed'}: {arn}"
            for arn, profile in (active or found).items()
        )
        if active:
            raise InvalidRequest(
                f"You are signed in, and this login has {len(active)} Kiro profiles. Which one"
                f" should be billed? {names}.",
                next_step="Set KIRO_PROFILE_ARN to its ARN where this server is configured.",
            )
        if found:
            raise InvalidRequest(
                f"You are signed in, but no Kiro profile of this login is active: {names}.",
                next_step="Ask your administrator to activate the profile or your subscription.",
            )
        raise InvalidRequest(
            f"You are signed in, but this login has no Kiro profile in {' or '.join(regions)}.",
            next_step="Ask your administrator for a Kiro subscription, or set KIRO_PROFILE_ARN.",
        )

    async def find_key_profile(self, token: AccessToken, *, besides: str = "") -> str:
        """Return the ARN of an API key's profile; "" if the service does not say. Never raises.

        `besides` is a region to skip.
        """
        for region in self._profile_regions(token.region):
            if region != besides:
                with suppress(KiroError):  # Observed for some keys that work without a profile.
                    answer = await self.ask(GET_PROFILE, replace(token, region=region))
                    arn = word_member(object_member(answer, "profile"), "arn")
                    if region_of(arn):
                        return arn
        return ""

    async def usage_limits(self, token: AccessToken) -> UsageLimits:
        """Return what the account has used of its plan, and the account's e-mail address.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        return read_usage_limits(await self.ask(USAGE_LIMITS, token, {"isEmailRequired": True}))

    async def count_models(self, token: AccessToken, endpoint: EndpointProfile) -> int:
        """Return how many models are on the first page of the service's list.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        return len(models_from_page(await self.ask(endpoint, token))[0])

    async def ask(
        self,
        endpoint: EndpointProfile,
        token: AccessToken,
        members: Mapping[str, str | bool] | None = None,
        *,
        call_id: str = "",
        attempt: int = 1,
        max_attempts: int = 1,
    ) -> JsonObject:
        """Send one request and return the JSON object of its answer.

        The operation's origin is added to its members. A call with one attempt needs no id.

        Raises:
            SignInRequired: This host may not receive the token, or the service refused it.
            KiroError: The service refused, did not answer in time or could not be reached.
        """
        members = dict(members or {})
        is_kas, arn = endpoint.form == "kas", token.profile_arn
        if endpoint.origin:
            members = {"origin": self._settings.origin or endpoint.origin, **members}
        if arn and (is_kas or endpoint.method == "GET"):
            members["profileArn"] = arn
        # With a POST, the official client sends `nextToken` only in the body; with `kas`, all.
        query = {
            name: str(it).lower() if isinstance(it, bool) else it
            for name, it in members.items()
            if endpoint.method == "GET" or not (is_kas or name == "nextToken")
        }
        body = b"" if endpoint.method == "GET" else json.dumps(members).encode()
        url, headers = build_request(
            endpoint,
            token,
            self._settings,
            call_id=call_id or self._new_id(),
            attempt=attempt,
            max_attempts=max_attempts,
            query=query,
        )
        seconds = min(ANSWER_SECONDS, self._settings.first_token_timeout_seconds)
        try:
            with anyio.fail_after(seconds):
                status, answer_headers, answer = await self._http.fetch(
                    endpoint.method, url, headers=headers, body=body
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"The service did not answer within {seconds:g} seconds.",
                next_step="Call again.",
                code="timeout",
            ) from None
        if status != 200:
            raise classify(fault_from_response(status, answer_headers, answer, now=self._now()))
        try:
            return parse_object(answer or b"null")
        except UnreadableError:
            raise ServiceUnavailable(
                "The service's answer is not a JSON object.", next_step="Call again in a moment."
            ) from None

    def _profile_regions(self, login_region: str) -> tuple[str, ...]:
        """Return the regions to ask for profiles: one only, if a setting replaces their hosts."""
        regions = GOVCLOUD_REGIONS if is_govcloud(login_region) else PROFILE_REGIONS
        return regions[:1] if self._settings.endpoint_overrides["management"] else regions

    async def _profiles(self, token: AccessToken) -> dict[str, JsonObject]:
        """Return a region's profiles by ARN. Others' regions would become part of a host name."""
        found: dict[str, JsonObject] = {}
        next_token = ""
        for _ in range(MAX_PROFILE_PAGES):
            members = {"nextToken": next_token} if next_token else {}
            page = await self.ask(LIST_PROFILES, token, members)
            for profile in object_members(page, "profiles"):
                arn = word_member(profile, "arn")
                if region_of(arn):
                    found[arn] = profile
            next_token = word_member(page, "nextToken")
            if not next_token:
                break
        return found


def read_usage_limits(answer: JsonObject) -> UsageLimits:
    """Read the answer to `GetUsageLimits`. Any part of it may be missing.

    The credits of an account are the sum of its plan, an active trial and active bonuses.
    `daysUntilReset` is not read: it is often 0.
    """
    single = object_member(answer, "usageBreakdown")
    breakdowns = (
        object_members(answer, "usageBreakdownList")
        or ([single] if single else object_members(answer, "limits"))
        or [{}]
    )
    by_resource = {
        word_member(one, "resourceType") or word_member(one, "type"): one for one in breakdowns
    }
    known = (by_resource[name] for name in _RESOURCES if name in by_resource)
    plan = next(known, breakdowns[0])
    trial = object_member(plan, "freeTrialInfo")
    bonuses = object_members(plan, "bonuses")
    pots = [plan]
    pots += [trial] if trial.get("freeTrialStatus") == "ACTIVE" else []
    pots += [bonus for bonus in bonuses if bonus.get("status") == "ACTIVE"]
    subscription = object_member(answer, "subscriptionInfo")
    overage = object_member(answer, "overageConfiguration")
    return UsageLimits(
        used=_sum(pots, "currentUsage"),
        limit=_sum(pots, "usageLimit", "totalUsageLimit"),
        resets_at=_time(plan, "nextDateReset") or _time(answer, "nextDateReset"),
        plan=word_member(subscription, "subscriptionTitle") or word_member(subscription, "type"),
        email=word_member(object_member(answer, "userInfo"), "email"),
        is_overage_allowed=overage.get("overageStatus") == "ENABLED",
    )


def _sum(pots: Sequence[JsonObject], *names: str) -> float | None:
    """Add up the first of the numbers in each, exact (`…WithPrecision`) rather than rounded."""
    spellings = [spelling for name in names for spelling in (f"{name}WithPrecision", name)]
    amounts: list[float] = []
    for pot in pots:
        numbers = (number_member(pot, spelling) for spelling in spellings)
        amounts += [number for number in numbers if number is not None][:1]
    return sum(amounts) if amounts else None


def _time(members: JsonObject, name: str) -> datetime | None:
    number = number_member(members, name) or 0.0
    return time_since_epoch(number) if number > 0 else None


def time_since_epoch(number: float) -> datetime | None:
    """Return the time of a number of seconds or milliseconds since 1970; None if out of range."""
    try:
        return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS_FROM else number, UTC)
    except (ValueError, OverflowError, OSError):
        return None
