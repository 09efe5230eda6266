"""What the service says about itself and about the account: models, usage, profiles.

On the management host, in either form of the wire: RPC, as the official command line client
sends it, and REST for those who use the older endpoints.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import anyio

from kiro_mcp.chat import ModelInfo
from kiro_mcp.client.attempts import Attempts, attempted
from kiro_mcp.client.endpoints import (
    GET_PROFILE,
    LIST_MODELS,
    LIST_MODELS_REST,
    LIST_PROFILES,
    USAGE_LIMITS,
    USAGE_LIMITS_REST,
    EndpointProfile,
)
from kiro_mcp.client.retry import Failure
from kiro_mcp.client.sending import Sender, Trial
from kiro_mcp.client.usage_limits import UsageLimits, read_usage_limits
from kiro_mcp.errors import KiroError, ServiceUnavailable
from kiro_mcp.regions import region_of
from kiro_mcp.settings import Settings
from kiro_mcp.wire.models import default_model, models_from_page

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""How much of one answer is read. The service's whole list of models is about 20 KiB."""

MAX_MODEL_PAGES = 50
"""Where a list of models that never ends is cut. The service sends one or two pages."""

Page = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """The models that the service offers to an account."""

    models: tuple[ModelInfo, ...]
    default_model: str
    """The service's own default, or "" where it names none."""


class Management:
    """Asks the management host."""

    def __init__(self, settings: Settings, sender: Sender, attempts: Attempts) -> None:
        self._is_rest = settings.endpoint_names[0] != "runtime"
        self._timeout_seconds = settings.first_token_timeout_seconds
        self._sender = sender
        self._attempts = attempts
        self._listing = anyio.Lock()
        self._listed_ids: frozenset[str] | None = None
        """The models of the last list that the service sent."""

    async def models(self) -> ModelList:
        """Return all pages of the list of models, or nothing of it.

        Raises:
            KiroError: A page cannot be had.
        """
        models: dict[str, ModelInfo] = {}
        default = ""
        next_token = ""
        for _ in range(MAX_MODEL_PAGES):
            page = await self._page(next_token)
            found, next_token = models_from_page(page)
            models.update((model.id, model) for model in found)
            default = default or default_model(page)
            if not next_token:
                break
        self._listed_ids = frozenset(models)
        return ModelList(models=tuple(models.values()), default_model=default)

    async def usage_limits(self) -> UsageLimits:
        """Return what the account has used of its plan.

        Raises:
            KiroError: It cannot be had.
        """
        if self._is_rest:
            members = {"resourceType": "CREDIT", "isEmailRequired": "false"}
            return read_usage_limits(await self._asked(USAGE_LIMITS_REST, members))
        return read_usage_limits(await self._asked(USAGE_LIMITS, {"isEmailRequired": False}))

    async def with_profile(self, trial: Trial) -> Trial | None:
        """Return an attempt with the only profile of its account; None where that is unclear."""
        # The service lists no profiles for a key, but says its own.
        operation = GET_PROFILE if trial.token.token_type == "API_KEY" else LIST_PROFILES  # noqa: S105  # names a kind
        page = await self._attempted(replace(trial, endpoints=(operation,), place=0), {})
        arns = [] if isinstance(page, Failure) else _arns(page)
        if len(arns) != 1:
            return None
        token = replace(trial.token, profile_arn=arns[0], region=region_of(arns[0]))
        return replace(trial, token=token)

    async def with_listed_model(self, trial: Trial) -> Trial | None:
        """Return the same attempt if the service lists its model, else None.

        Under load the service may call a model invalid that it offers.
        """
        assert trial.request
        async with self._listing:  # Calls that are refused together ask for one list.
            if self._listed_ids is None:
                try:
                    await self.models()
                except KiroError:
                    return None
        return trial if trial.request.model in (self._listed_ids or ()) else None

    async def _page(self, next_token: str) -> Page:
        members = {"nextToken": next_token} if next_token else {}
        return await self._asked(LIST_MODELS_REST if self._is_rest else LIST_MODELS, members)

    async def _asked(self, endpoint: EndpointProfile, members: Mapping[str, str | bool]) -> Page:
        trial = await self._attempts.first_trial(lambda _region, _preferred: (endpoint,))
        named = {"origin": self._sender.origin(endpoint), **members}
        return await self._attempts.until_done(lambda one: self._attempted(one, named), trial)

    async def _attempted(self, trial: Trial, members: Mapping[str, str | bool]) -> Page | Failure:
        async def make() -> Page:
            body, query = _written(trial, members)
            async with self._sender.send(trial, body=body, query=query) as response:
                return _json_object(await response.beginning(MAX_PAGE_BYTES))

        return await attempted(make, anyio.current_time() + self._timeout_seconds)


def _written(trial: Trial, members: Mapping[str, str | bool]) -> tuple[bytes, dict[str, str]]:
    """Write an operation's members down, as body and query, in the form of its endpoint."""
    query = {
        name: value if isinstance(value, str) else str(value).lower()
        for name, value in members.items()
    }
    if trial.endpoint.method == "GET":
        profile = {"profileArn": trial.token.profile_arn} if trial.token.profile_arn else {}
        return b"", {**query, **profile}
    query.pop("nextToken", None)  # The official client has it in the body alone.
    return json.dumps(members).encode(), query


def _arns(page: Page) -> list[str]:
    listed = page.get("profiles", [page.get("profile")])
    profiles = cast("list[object]", listed) if isinstance(listed, list) else []
    members = [cast("Page", one) for one in profiles if isinstance(one, dict)]
    arns = (one.get("arn") for one in members if str(one.get("status", "ACTIVE")) == "ACTIVE")
    return [arn for arn in arns if isinstance(arn, str) and region_of(arn)]


def _json_object(body: bytes) -> Page:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ServiceUnavailable(
            "The service's answer is not a JSON object.", next_step="Call again in a moment."
        )
    return cast("Page", document)
