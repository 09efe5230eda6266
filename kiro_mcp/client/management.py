"""Asks the management host about an account: its models, profiles and credits.

Each function sends a request once, with the given token; `KiroClient` adds the retries for the
list of models. Every member of an answer may be missing. Sources: the service's published model,
and observed answers.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeAlias, cast

import anyio

from kiro_mcp.chat import AccessToken, ModelInfo
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.client.endpoints import (
    BUILDER_ID_PROFILE_ARN,
    GET_PROFILE,
    LIST_MODELS,
    LIST_PROFILES,
    USAGE_LIMITS,
    EndpointProfile,
    Invocation,
    build_request,
    destination,
)
from kiro_mcp.client.http import Fetcher
from kiro_mcp.errors import AccountBlocked, InvalidRequest, KiroError, ServiceUnavailable
from kiro_mcp.regions import is_govcloud, region_of
from kiro_mcp.settings import Settings
from kiro_mcp.wire.json_values import finite_number
from kiro_mcp.wire.models import models_from_page

ANSWER_SECONDS: Final = 30.0
"""How long an answer may take. It usually takes less than one second."""

PROFILE_REGIONS: Final = ("us-east-1", "eu-central-1")
"""Where the vendor keeps profiles, in whatever region the login was made."""

GOVCLOUD_REGIONS: Final = ("us-gov-west-1", "us-gov-east-1")
"""The same for logins that were made in AWS GovCloud."""

MAX_PROFILE_PAGES: Final = 20
"""How many pages of a list of profiles are read at most."""

_BUILDER_ID_WORDS: Final = "Builder ID is not supported"

_RESOURCES: Final = ("CREDIT", "AGENTIC_REQUEST", "VIBE", "SPEC")
"""The resources that a plan may count. The first one in an answer is used."""

_MILLISECONDS_FROM: Final = 1e11
"""A larger time is in milliseconds: in seconds it would be in the year 5138."""

Page: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """The models that the service offers to an account."""

    models: tuple[ModelInfo, ...]
    default_model: str
    """The service's own default; "" if the service does not name one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What requests of a login are billed to."""

    arn: str
    name: str
    is_active: bool = True


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
    is_overage_allowed: bool | None = None
    """Whether the service answers, and bills, calls beyond the limit."""
    overage_used: float | None = None
    """Credits beyond the limit."""
    overage_cap: float | None = None


class Management:
    """Asks the management host about an account.

    Args:
        http: Sends the requests.
        settings: All settings.
        now: Returns the time.
        new_id: Returns a new UUID.
    """

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

        Args:
            token: The login's token.
            login_region: Where the login was made. GovCloud has separate profiles.

        Raises:
            InvalidRequest: The login has no active profile, or several.
            KiroError: No region answered.
        """
        found: list[Profile] = []
        faults: list[KiroError] = []
        regions = self._profile_regions(login_region)
        for region in regions:
            try:
                found.extend(await self._profiles(replace(token, region=region)))
            except AccountBlocked as error:
                if _BUILDER_ID_WORDS in error.message:
                    return BUILDER_ID_PROFILE_ARN
                faults.append(error)
            except KiroError as error:
                faults.append(error)
        # If one region did not answer, the login may have another profile there. Accept that.
        if not found and faults:
            raise faults[0]
        return choose_profile(found, regions)

    async def find_key_profile(self, token: AccessToken, *, besides: str = "") -> str:
        """Return the ARN of an API key's profile; "" if the service does not say. Never raises.

        Args:
            token: The key.
            besides: A region to skip.
        """
        for region in self._profile_regions(token.region):
            if region == besides:
                continue
            try:
                answer = await self.ask(GET_PROFILE, replace(token, region=region))
            except KiroError:
                continue  # Observed for some keys that work without a profile.
            found = read_profiles([answer.get("profile")])
            if found:
                return found[0].arn
        return ""

    async def usage_limits(self, token: AccessToken) -> UsageLimits:
        """Return what the account has used of its plan, and the account's e-mail address.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        members = {"origin": self.origin(USAGE_LIMITS), "isEmailRequired": True}
        return read_usage_limits(await self.ask(USAGE_LIMITS, token, members))

    async def count_models(self, token: AccessToken) -> int:
        """Return how many models are on the first page of the service's list.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        page = await self.ask(LIST_MODELS, token, {"origin": self.origin(LIST_MODELS)})
        return len(models_from_page(page)[0])

    def origin(self, endpoint: EndpointProfile) -> str:
        """Return the program that a request names as its origin."""
        return self._settings.origin or endpoint.origin

    async def ask(
        self,
        endpoint: EndpointProfile,
        token: AccessToken,
        members: Mapping[str, str | bool] | None = None,
        invocation: Invocation | None = None,
    ) -> Page:
        """Send one request and return the JSON object of its answer.

        Args:
            endpoint: The operation.
            token: The token to send.
            members: The operation's members.
            invocation: Which attempt of which call it is; None for a call with one attempt.

        Raises:
            SignInRequired: This host may not receive the token, or the service refused it.
            KiroError: The service refused, did not answer in time or could not be reached.
        """
        members = members or {}
        query = {
            name: str(it).lower() if isinstance(it, bool) else it for name, it in members.items()
        }
        body = b""
        if endpoint.method == "GET":
            if token.profile_arn:
                query["profileArn"] = token.profile_arn
        else:
            query.pop("nextToken", None)  # The official client sends it only in the body.
            body = json.dumps(members).encode()
        invocation = invocation or Invocation(id=self._new_id())
        url, headers = build_request(endpoint, token, self._settings, invocation, query)
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
            document = json.loads(answer)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ServiceUnavailable(
                "The service's answer is not a JSON object.", next_step="Call again in a moment."
            )
        return cast("Page", document)

    def _profile_regions(self, login_region: str) -> tuple[str, ...]:
        """Return the regions to ask for profiles: one only, if a setting replaces their hosts."""
        regions = GOVCLOUD_REGIONS if is_govcloud(login_region) else PROFILE_REGIONS
        is_overridden = destination(
            LIST_PROFILES, region=regions[0], overrides=self._settings.endpoint_overrides
        ).is_overridden
        return regions[:1] if is_overridden else regions

    async def _profiles(self, token: AccessToken) -> list[Profile]:
        found: list[Profile] = []
        next_token = ""
        for _ in range(MAX_PROFILE_PAGES):
            members = {"nextToken": next_token} if next_token else {}
            page = await self.ask(LIST_PROFILES, token, members)
            found.extend(read_profiles(page.get("profiles")))
            next_token = _text(page.get("nextToken"))
            if not next_token:
                break
        return found


# --- reading answers ----------------------------------------------------------------------


def read_profiles(listed: object) -> list[Profile]:
    """Read a list of profiles. Skip those without a valid ARN: its region becomes a host name."""
    return [
        Profile(
            arn=_text(one.get("arn")),
            name=_text(one.get("profileName")),
            is_active=_text(one.get("status")).upper() in ("", "ACTIVE"),
        )
        for one in _objects(listed)
        if region_of(_text(one.get("arn")))
    ]


def choose_profile(profiles: Iterable[Profile], regions: Sequence[str]) -> str:
    """Return the ARN of the only active profile.

    Args:
        profiles: The profiles of the login.
        regions: The regions that were asked.

    Raises:
        InvalidRequest: No profile is active, or several are: then the user decides.
    """
    by_arn = {profile.arn: profile for profile in profiles}
    active = [profile for profile in by_arn.values() if profile.is_active]
    if len(active) == 1:
        return active[0].arn
    if active:
        raise InvalidRequest(
            f"You are signed in, and this login has {len(active)} Kiro profiles. Which one should"
            f" be billed? {_names(active)}.",
            next_step="Set KIRO_PROFILE_ARN to its ARN where this server is configured.",
        )
    if by_arn:
        raise InvalidRequest(
            "You are signed in, but no Kiro profile of this login is active:"
            f" {_names(by_arn.values())}.",
            next_step="Ask your administrator to activate the profile or your subscription.",
        )
    raise InvalidRequest(
        f"You are signed in, but this login has no Kiro profile in {' or '.join(regions)}.",
        next_step="Ask your administrator for a Kiro subscription, or set KIRO_PROFILE_ARN.",
    )


def _names(profiles: Iterable[Profile]) -> str:
    return "; ".join(f"{one.name or 'unnamed'}: {one.arn}" for one in profiles)


def read_usage_limits(answer: Page) -> UsageLimits:
    """Read the answer to `GetUsageLimits`. Any part of it may be missing.

    Numbers are rounded or exact (`…WithPrecision`). The credits of an account are the sum of its
    plan, an active trial and active bonuses. `daysUntilReset` is not read: it is often 0.
    """
    breakdowns = (
        _objects(answer.get("usageBreakdownList"))
        or _objects([answer.get("usageBreakdown")])
        or _objects(answer.get("limits"))
        or [{}]
    )
    by_resource = {_text(one.get("resourceType") or one.get("type")): one for one in breakdowns}
    known = (by_resource[name] for name in _RESOURCES if name in by_resource)
    chosen = next(known, breakdowns[0])
    trial = _object(chosen.get("freeTrialInfo"))
    trials = [trial] if trial.get("freeTrialStatus") == "ACTIVE" else []
    bonuses = [one for one in _objects(chosen.get("bonuses")) if one.get("status") == "ACTIVE"]
    pots = (chosen, *trials, *bonuses)
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


def _sum(pots: Iterable[Page], *names: str) -> float | None:
    amounts = [_first(*(_amount(pot, name) for name in names)) for pot in pots]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _amount(members: Page, name: str) -> float | None:
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


def _object(value: object) -> Page:
    return cast("Page", value) if isinstance(value, dict) else {}


def _objects(value: object) -> Sequence[Page]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Page", item) for item in items if isinstance(item, dict)]
