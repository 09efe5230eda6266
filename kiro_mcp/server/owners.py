"""The owners of conversations and answers, and the HTTP callers with their own API keys.

Conversations and answers belong to the credential that created them. Those of the server's own
credential have the owner `OWN`. A caller that sends its own API key is another owner, with its own
engine, so that its calls share no queue, state or bill with those of others. The key is kept only
in memory, in that engine. The engine is dropped when its key has not been used for a while, or to
make room for another key.
"""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup
from pydantic import SecretStr

from kiro_mcp.errors import InvalidRequest, ServiceUnavailable
from kiro_mcp.settings import read_bearer

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from kiro_mcp.server.engine import Engine

logger = logging.getLogger(__name__)

OWN: Final = ""
"""The owner for the server's own credential, which all calls over stdio use."""

KEY_HEADER: Final = "X-Kiro-Api-Key"
"""The header of an HTTP request with the caller's own API key."""

MIN_KEY_CHARACTERS: Final = 16
"""Keys are redacted everywhere, so an ordinary word must not be accepted as one."""

MAX_KEYS: Final = 100
"""How many callers' keys may have an engine at once."""

KEY_IDLE_SECONDS: Final = 15 * 60
"""The engine of a key that was not used for this time is dropped."""

CLOSING_SECONDS: Final = 0.3
"""How long closing the engines may take: the server must end within half a second."""

SECRET_FILE: Final = "owner-secret"  # noqa: S105  # a name
"""The file with the secret of this installation, in the folder of the package's data."""

SECRET_BYTES: Final = 32


def owner_of(credential: str, secret: bytes) -> str:
    """Return the owner of a credential.

    The secret prevents that somebody who has only the store tests which credentials were used.
    """
    return hmac.new(secret, credential.encode(), hashlib.sha256).hexdigest()


def installation_secret(folder: Path | None) -> bytes:
    """Return the secret of this installation; create it if it is missing. Call it in a thread.

    Args:
        folder: The folder with the secret; None for a new secret that is not stored.
    """
    if folder is None:
        return secrets.token_bytes(SECRET_BYTES)
    file = folder / SECRET_FILE
    try:
        if not file.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{SECRET_FILE}.")
            try:
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(secrets.token_bytes(SECRET_BYTES))
                with suppress(FileExistsError):  # Another server was first; its secret is used.
                    file.hardlink_to(temporary)
            finally:
                Path(temporary).unlink(missing_ok=True)
        secret = file.read_bytes()
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"it does not have {SECRET_BYTES} bytes")
    except (OSError, ValueError) as error:
        logger.warning(
            "%s cannot be used (%s): callers with a key of their own will not find their"
            " conversations after a restart.",
            file,
            error,
        )
        return secrets.token_bytes(SECRET_BYTES)
    return secret


def key_of(request: "HTTPConnection") -> SecretStr | None:
    """Return the API key in a request's header; None if there is none.

    Raises:
        InvalidRequest: It cannot be a key. Using the server's own credential instead would charge
            somebody else.
    """
    given = request.headers.getlist(KEY_HEADER)
    if not given:
        return None
    try:
        if len(given) > 1:
            raise ValueError("must be sent once")
        if not given[0].strip():
            raise ValueError("is empty")
        key = read_bearer(given[0])
        if len(key.get_secret_value()) < MIN_KEY_CHARACTERS:
            raise ValueError("is too short for an API key")
        return key
    except ValueError as error:
        raise InvalidRequest(
            f"The header {KEY_HEADER} {error}.",
            next_step="Put your Kiro API key into it where your client configures this server, or"
            " leave the header out to use the server's own credential.",
        ) from None


@dataclass(slots=True, eq=False)
class _Guest:
    engine: "Engine"
    calls: int = 0
    idle_since: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not self.calls and not self.engine.jobs.running


class Engines:
    """The server's engine, created at its first use, and those of callers with their own keys."""

    def __init__(
        self,
        make_engine: Callable[[], "Engine"],
        tasks: TaskGroup,
        *,
        max_keys: int,
        arrivals: dict[str, float],
    ) -> None:
        """Begin without engines.

        Args:
            make_engine: Creates the server's engine.
            tasks: The server's tasks, which may outlive a call.
            max_keys: How many keys may be in use at once.
            arrivals: See `KiroServer.arrivals`.
        """
        self.arrivals = arrivals
        self._make_engine = make_engine
        self._tasks = tasks
        self._max_keys = max_keys
        self._host: Engine | None = None
        self._guests: OrderedDict[str, _Guest] = OrderedDict()
        self._is_dropping = False

    @asynccontextmanager
    async def engine_for(self, request: "HTTPConnection | None") -> AsyncGenerator["Engine"]:
        """Yield the engine for one message: the server's, or that of the key in its HTTP request.

        Args:
            request: The HTTP request that brought the message; None on other transports.

        Raises:
            InvalidRequest: A setting or the key is invalid. For a setting, the next call tries
                again.
            ServiceUnavailable: Too many other keys are in use.
        """
        if (host := self._host) is None:
            host = self._host = self._make_engine()
            host.run_in(self._tasks)
        if request is None or (key := key_of(request)) is None:
            yield host
            return
        owner = owner_of(key.get_secret_value(), await host.secret())
        guest = self._guests.get(owner) or self._admit(host, key, owner)
        self._guests.move_to_end(owner)
        guest.calls += 1
        try:
            yield guest.engine
        finally:
            guest.calls -= 1
            guest.idle_since = anyio.current_time()

    async def aclose(self) -> None:
        """Close the engines, even while the server is cancelled."""
        if self._host is not None:
            with anyio.move_on_after(CLOSING_SECONDS, shield=True):
                await self._host.aclose([guest.engine for guest in self._guests.values()])

    def _admit(self, host: "Engine", key: SecretStr, owner: str) -> _Guest:
        if len(self._guests) >= self._max_keys:
            idle = (owner for owner, guest in self._guests.items() if guest.is_idle)
            if (oldest := next(idle, None)) is None:
                raise ServiceUnavailable(
                    f"{self._max_keys} other API keys are in use on this server, which is its"
                    " limit.",
                    next_step="Call again in a few minutes.",
                    code="rate_limited",
                )
            del self._guests[oldest]
        engine = host.for_key(key, owner)
        engine.run_in(self._tasks)
        guest = self._guests[owner] = _Guest(engine)
        if not self._is_dropping:
            self._is_dropping = True
            self._tasks.start_soon(self._drop_idle)
        return guest

    async def _drop_idle(self) -> None:
        while self._guests:
            await anyio.sleep(KEY_IDLE_SECONDS)
            latest = anyio.current_time() - KEY_IDLE_SECONDS
            for owner, guest in tuple(self._guests.items()):
                if guest.is_idle and guest.idle_since <= latest:
                    del self._guests[owner]
        self._is_dropping = False
