"""Engine: the settings, the client, the tokens, the store and the jobs that the tools use.

It is created at the first tool call. So starting the server reads and sends nothing, and an invalid
setting does not keep the server from starting: each call reports it.
"""

import logging
import os
import sys
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from pydantic import SecretStr

from kiro_mcp.auth.machine import Machine, own_home
from kiro_mcp.auth.provider import TokenProvider
from kiro_mcp.auth.sign_in import SignIn
from kiro_mcp.chat import ModelInfo
from kiro_mcp.client.client import KiroClient, ModelClient
from kiro_mcp.client.http import HttpPool
from kiro_mcp.client.telemetry import Telemetry
from kiro_mcp.errors import InvalidRequest, KiroError
from kiro_mcp.files import Sleep, warning_about
from kiro_mcp.server.captures import open_captures
from kiro_mcp.server.jobs import JOIN_AFTER_SECONDS, Jobs, settings_text
from kiro_mcp.server.owners import KEY_HEADER, OWN, installation_secret
from kiro_mcp.server.store import ConversationStore
from kiro_mcp.settings import Settings, unknown_variables
from kiro_mcp.wire.models import BUILTIN_MODELS, DEFAULT_NAME, ModelChoice, resolve_model

if TYPE_CHECKING:
    from kiro_mcp.acp.client import AcpClient

logger = logging.getLogger(__name__)

STORE_NAME = "conversations.sqlite3"

DEBUG_NAME = "debug"

SETTLING_SECONDS = 0.2
"""How long closing waits for refreshes, answers and captures together.

A server must be gone in half a second."""

CatalogueSource = Literal["live", "cache", "builtin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The known models, and where the list comes from."""

    models: tuple[ModelInfo, ...]
    source: CatalogueSource
    """`live`: just fetched. `cache`: fetched before. `builtin`: the snapshot in this package."""
    fetched_at: datetime | None = None
    """When the service sent the list; None for the snapshot."""
    default_model: str = DEFAULT_NAME
    """The service's own default."""
    fault: KiroError | None = None
    """Why no newer list could be fetched; None if that did not fail."""


class Engine:
    """One account and one client, shared by every call. An async context manager."""

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Sleep = anyio.sleep,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        telemetry: Telemetry | None = None,
        host: "Engine | None" = None,
        owner: str = OWN,
        join_after_seconds: float = JOIN_AFTER_SECONDS,
    ) -> None:
        """Prepare an engine; nothing is read, opened or sent yet.

        Args:
            settings: All settings.
            environ: The environment variables, which tell where the user's files are.
            now: The time.
            sleep: Waits. It must end at once if it is cancelled.
            new_id: Makes UUIDs.
            telemetry: Makes spans and metrics of calls.
            host: For the engine of a caller with its own key: the server's engine, whose
                connections, store and captures it shares.
            owner: The owner of its conversations and answers.
            join_after_seconds: How much later a call must begin to count as a repeated one.
        """
        environ = environ or {}
        machine = Machine.of(environ, sys.platform)
        home = own_home(machine, settings.home)
        self.settings = settings
        self.settings_text = settings_text(settings)
        """The settings as text, made once because each call needs them. Never show it."""
        self.owner = owner
        self.home = home
        telemetry = telemetry or Telemetry()
        self._http = host._http if host else HttpPool.of(settings)
        self.tokens = TokenProvider(
            settings,
            http=self._http,
            environ=environ,
            now=now,
            sleep=sleep,
            key_header=KEY_HEADER if host else "",
        )
        self.sign_in = SignIn(self.tokens.service, self.tokens.store, sleep=sleep)
        self.program: AcpClient | None = None
        """The engine kiro-cli; None for the direct one."""
        self.client: ModelClient
        if settings.engine == "kiro-cli":
            from kiro_mcp.acp import client as acp  # Few servers need it.

            self.client = self.program = acp.AcpClient(
                settings, environ, state_folder=home, now=now, telemetry=telemetry
            )
        else:
            self.client = KiroClient(
                self.tokens,
                settings,
                state_folder=home,
                now=now,
                sleep=sleep,
                telemetry=telemetry,
                http=self._http,
            )
        self.new_id = new_id
        if host:
            self.conversations, self.captures = host.conversations, host.captures
        else:
            self.conversations = ConversationStore(
                home / STORE_NAME if home and settings.store == "disk" else None,
                lifetime_seconds=settings.store_ttl_hours * 3600,
                now=lambda: now().timestamp(),
                new_id=new_id,
            )
            debug_folder = home / DEBUG_NAME if home else None
            if settings.debug_dir:
                debug_folder = machine.expanded(settings.debug_dir)
            self.captures = open_captures(settings, debug_folder, now=now, new_id=new_id)
        self._secret = host._secret if host else b""
        self._make_guest = partial(
            Engine,
            now=now,
            sleep=sleep,
            new_id=new_id,
            telemetry=telemetry,
            join_after_seconds=join_after_seconds,
        )
        self._join_after_seconds = join_after_seconds
        self._jobs: Jobs | None = None
        self._now = now
        self._catalogue = Catalogue(models=BUILTIN_MODELS, source="builtin")
        self._tasks: TaskGroup | None = None

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, join_after_seconds: float = JOIN_AFTER_SECONDS
    ) -> Self:
        """Make an engine from environment variables.

        Raises:
            InvalidRequest: A setting cannot be used.
        """
        for sentence in unknown_variables(environ):
            logger.warning("%s", sentence)
        settings = Settings.load(environ)
        home = own_home(Machine.of(environ, sys.platform), settings.home)
        if home and (why := warning_about(home)):
            logger.warning("%s. Run `chmod go-w` on it, or name another in KIRO_MCP_HOME.", why)
        return cls(settings, environ=environ, join_after_seconds=join_after_seconds)

    def for_key(self, key: SecretStr, owner: str) -> "Engine":
        """Make the engine of a caller with its own API key.

        It shares connections, store and captures with this one, but has its own list of models,
        credits and limits, and no access to the logins of this machine. It need not be closed.

        Raises:
            InvalidRequest: The engine is kiro-cli, which has a login of its own.
        """
        if self.program:
            raise InvalidRequest(
                "This server asks kiro-cli, which answers with its own login and takes no keys of"
                " callers.",
                next_step="Leave out the key, or use a server with KIRO_MCP_ENGINE=direct.",
            )
        return self._make_guest(self.settings.for_key(key), host=self, owner=owner)

    async def secret(self) -> bytes:
        """Return the secret of this installation."""
        if not self._secret:
            folder = self.home if self.settings.store == "disk" else None
            secret = await anyio.to_thread.run_sync(installation_secret, folder)
            self._secret = self._secret or secret  # Another call may have been first.
        return self._secret

    def run_in(self, tasks: TaskGroup) -> None:
        """Run what outlives a call, such as polling for a login, in a task group."""
        self.tokens.run_in(tasks)
        self.sign_in.run_in(tasks)
        if self.program:
            self.program.run_in(tasks)
        self._jobs = Jobs(tasks, join_after_seconds=self._join_after_seconds)

    @property
    def jobs(self) -> Jobs:
        """The answers in progress. They exist once the engine runs in a task group."""
        assert self._jobs is not None
        return self._jobs

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        self.run_in(await self._tasks.__aenter__())
        return self

    async def __aexit__(self, *_: object) -> None:
        # Shielded: cancelled in the middle of it, the group would never be left.
        with anyio.CancelScope(shield=True):
            await self.aclose()
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    async def aclose(self, guests: Sequence["Engine"] = ()) -> None:
        """Save refreshes, answers and captures, then close all connections and the store.

        One time limit applies to all of this together, so that closing always happens.

        Args:
            guests: The engines of callers with keys of their own, whose answers end with this one.
        """
        self.conversations.end_soon()
        with anyio.move_on_after(SETTLING_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.tokens.settle)
                tasks.start_soon(self._stop_jobs, guests)
        self.tokens.abandon()
        if self.program:
            await self.program.aclose()
        async with anyio.create_task_group() as tasks:
            for close in (self._http, self.conversations):
                tasks.start_soon(close.aclose)

    async def _stop_jobs(self, guests: Sequence["Engine"]) -> None:
        async with anyio.create_task_group() as tasks:
            for engine in (self, *guests):
                if engine._jobs is not None:
                    tasks.start_soon(engine._jobs.stop)
        if self.captures is not None:
            await self.captures.aclose()  # After the jobs, whose captures end with them.

    @property
    def known_models(self) -> tuple[ModelInfo, ...]:
        """The models to choose among without asking the service: the last list, or the snapshot."""
        return self._catalogue.models

    def choose_model(self, name: str) -> ModelChoice:
        """Choose among the known models: by name or, if it is "", the user's or else the default.

        The service's default counts once its list has been fetched.
        """
        return resolve_model(
            name or self.settings.model or self._catalogue.default_model,
            self.known_models,
            aliases=self.settings.model_aliases,
        )

    async def catalogue(self, *, refresh: bool) -> Catalogue:
        """Return the models: a fresh list, else the last one, else the snapshot.

        The last good list outlives a failure to fetch a new one.
        """
        kept = self._catalogue
        if kept.fetched_at and not refresh:
            lifetime = timedelta(seconds=self.settings.model_cache_ttl_seconds)
            if self._now() - kept.fetched_at < lifetime:
                return kept
        try:
            listed = await self.client.list_models()
        except KiroError as error:
            return replace(kept, fault=error)
        self._catalogue = Catalogue(
            models=listed.models,
            source="cache",
            fetched_at=self._now(),
            default_model=listed.default_model or DEFAULT_NAME,
        )
        return replace(self._catalogue, source="live")


@asynccontextmanager
async def open_client(environ: Mapping[str, str] | None = None) -> AsyncGenerator[ModelClient]:
    """Yield a client that finds and renews its login as the server does.

    Args:
        environ: The settings, as the README lists them; by default the process's variables.

    Raises:
        InvalidRequest: A setting cannot be used.
    """
    async with Engine.from_environ(os.environ if environ is None else environ) as engine:
        yield engine.client
