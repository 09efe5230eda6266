"""What the tools work with: settings, the account, the client and the list of models.

Made at the first tool call, not before: starting the server reads nothing and sends nothing,
and a setting that cannot be used is told to whoever calls, in words, instead of keeping the
server from starting.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Literal, Self

from kiro_mcp.auth.provider import TokenProvider
from kiro_mcp.errors import KiroError
from kiro_mcp.models import ModelInfo
from kiro_mcp.protocol.models_catalog import BUILTIN_MODELS
from kiro_mcp.settings import Settings, unknown_variables
from kiro_mcp.transport.client import KiroClient

logger = logging.getLogger(__name__)

CatalogueSource = Literal["live", "cache", "builtin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The models as they are known now, and how."""

    models: tuple[ModelInfo, ...]
    source: CatalogueSource
    """`live`: just fetched. `cache`: fetched before. `builtin`: the snapshot in this package."""
    fetched_at: datetime | None = None
    """When the service said so; None for the snapshot."""
    fault: KiroError | None = None
    """Why it is not fresher than it is."""


class Engine:
    """One account and one client, shared by every call. An async context manager."""

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self.tokens = TokenProvider(settings)
        self.client = KiroClient(self.tokens, settings)
        self._now = now
        self._fetched: Catalogue | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Make an engine from environment variables.

        Raises:
            InvalidRequest: A setting cannot be used.
        """
        for sentence in unknown_variables(environ):
            logger.warning("%s", sentence)
        return cls(Settings.load(environ))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.client.aclose()

    async def catalogue(self, *, refresh: bool) -> Catalogue:
        """Return the models: fresh, kept from before, or the snapshot, whichever can be had.

        The last good list outlives a failure to fetch a new one.
        """
        kept = self._fetched
        if kept and not refresh and self._is_fresh(kept):
            return kept
        try:
            listed = await self.client.list_models()
        except KiroError as error:
            return Catalogue(
                models=kept.models if kept else BUILTIN_MODELS,
                source="cache" if kept else "builtin",
                fetched_at=kept.fetched_at if kept else None,
                fault=error,
            )
        fetched_at = self._now()
        self._fetched = Catalogue(models=listed.models, source="cache", fetched_at=fetched_at)
        return Catalogue(models=listed.models, source="live", fetched_at=fetched_at)

    def _is_fresh(self, kept: Catalogue) -> bool:
        lifetime = timedelta(seconds=self.settings.model_cache_ttl_seconds)
        return kept.fetched_at is not None and self._now() - kept.fetched_at < lifetime
