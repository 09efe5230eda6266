"""What only the service knows of a login: its profile, and its credits, asked for.

Requests go to the management host with the bearer, under the same rule as every other call: a
credential that was found on the machine never goes to an overridden host.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, cast
from urllib.parse import urlencode

from kiro_mcp._version import __version__
from kiro_mcp.auth.account import (
    MAX_PROFILE_PAGES,
    Profile,
    choose_profile,
    profile_regions,
    read_profile,
    read_profiles,
)
from kiro_mcp.auth.credential_files import parse_object
from kiro_mcp.auth.oidc import Poster, send
from kiro_mcp.auth.token_requests import TokenRequest
from kiro_mcp.auth.tokens import BUILDER_ID_PROFILE_ARN
from kiro_mcp.chat import AccessToken
from kiro_mcp.client.classify import classify, fault_from_response
from kiro_mcp.client.endpoints import (
    GET_PROFILE,
    LIST_MODELS,
    LIST_PROFILES,
    USAGE_LIMITS,
    EndpointProfile,
    destination,
    require_may_receive,
    with_headers,
)
from kiro_mcp.client.usage_limits import UsageLimits, read_usage_limits
from kiro_mcp.errors import AccountBlocked, KiroError, ServiceUnavailable

_BUILDER_ID_WORDS: Final = "Builder ID is not supported"


class AccountService:
    """The part of the management host that speaks of the account."""

    def __init__(
        self,
        poster: Poster,
        overrides: Mapping[str, str],
        *,
        user_agent: str = "",
        origin: str = "",
        headers_to_add: Mapping[str, str] = MappingProxyType({}),
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._poster = poster
        self._overrides = overrides
        self._user_agent = user_agent or f"kiro-mcp/{__version__}"
        self._origin = origin or USAGE_LIMITS.origin
        self._headers_to_add = headers_to_add
        self._new_id = new_id

    async def find_profile(self, token: AccessToken, *, login_region: str = "") -> str:
        """Find the profile that a login may bill, in every region where it can be.

        Args:
            token: The login's token.
            login_region: Where the login was made; GovCloud keeps profiles of its own.

        Raises:
            InvalidRequest: There is none, or there are several.
            KiroError: No region could be asked.
        """
        found: list[Profile] = []
        faults: list[KiroError] = []
        regions = self._regions(login_region)
        for region in regions:
            try:
                found.extend(await self._profiles(replace(token, region=region)))
            except AccountBlocked as error:
                if _BUILDER_ID_WORDS in error.message:
                    return BUILDER_ID_PROFILE_ARN
                faults.append(error)
            except KiroError as error:
                faults.append(error)
        # With one region silent, one profile is no proof that it is the only one; it will do.
        if not found and faults:
            raise faults[0]
        return choose_profile(found, regions)

    async def find_key_profile(self, token: AccessToken, *, besides: str = "") -> str:
        """Return the profile of an API key, "" where the service will not say; never an error.

        Args:
            token: The key.
            besides: A region that is not to be asked.
        """
        for region in self._regions(token.region):
            if region == besides:
                continue
            try:
                answer = await self._call(GET_PROFILE, replace(token, region=region), {})
            except KiroError:
                continue  # Observed: refused for some keys that work; they go without a profile.
            if arn := read_profile(answer):
                return arn
        return ""

    async def credits(self, token: AccessToken) -> UsageLimits:
        """Return what the account has used of its plan.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        body = {"origin": self._origin, "isEmailRequired": True}
        query = f"?{urlencode({'origin': self._origin, 'isEmailRequired': 'true'})}"
        return read_usage_limits(await self._call(USAGE_LIMITS, token, body, query))

    async def models_offered(self, token: AccessToken) -> int:
        """Return how many models the first page of the service's list has for a token.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        query = f"?{urlencode({'origin': self._origin})}"
        page = await self._call(LIST_MODELS, token, {"origin": self._origin}, query)
        models = page.get("models")
        return len(cast("list[object]", models)) if isinstance(models, list) else 0

    def _regions(self, login_region: str) -> tuple[str, ...]:
        """Return the regions to ask; only one where an override answers for all."""
        urls = {
            destination(LIST_PROFILES, region=region, overrides=self._overrides).url: region
            for region in reversed(profile_regions(login_region))
        }
        return tuple(reversed(urls.values()))

    async def _profiles(self, token: AccessToken) -> list[Profile]:
        found: list[Profile] = []
        next_token = ""
        for _ in range(MAX_PROFILE_PAGES):
            body = {"nextToken": next_token} if next_token else {}
            page, next_token = read_profiles(await self._call(LIST_PROFILES, token, body))
            found.extend(page)
            if not next_token:
                break
        return found

    async def _call(
        self,
        operation: EndpointProfile,
        token: AccessToken,
        body: Mapping[str, object],
        query: str = "",
    ) -> Mapping[str, object]:
        target = destination(operation, region=token.region, overrides=self._overrides)
        require_may_receive(target, token)
        request = TokenRequest(
            url=target.url + query,
            headers=self._headers(operation, token),
            body=json.dumps(body).encode(),
        )
        status, headers, answer = await send(self._poster, request)
        if status != 200:
            raise classify(fault_from_response(status, headers, answer))
        try:
            return parse_object(answer)
        except ValueError:
            raise ServiceUnavailable(
                "The service's answer about the account is not JSON.",
                next_step="Call again in a moment.",
            ) from None

    def _headers(self, operation: EndpointProfile, token: AccessToken) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Content-Type": operation.content_type,
            "X-Amz-Target": operation.target,
            "User-Agent": self._user_agent,
            "amz-sdk-invocation-id": self._new_id(),
        }
        if token.token_type:
            headers["TokenType"] = token.token_type
        if token.profile_arn:
            headers["x-amzn-kiro-profile-arn"] = token.profile_arn
        return with_headers(headers, self._headers_to_add)
