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
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
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


class _Guest:
    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.calls = 0
        self.idle_since = anyio.current_time()

    @property
    def is_idle(self) -> bool:
        return not self.calls and not self.engine.jobs.running


class Guests:
    """The engines of callers with their own keys, by the owner of the key."""

    def __init__(self, host: "Engine", tasks: TaskGroup, *, max_keys: int) -> None:
        """Begin without guests.

        Args:
            host: The server's engine, whose connections, store and captures they share.
            tasks: The server's tasks, which may outlive a call.
            max_keys: How many keys may be in use at once.
        """
        self._host = host
        self._tasks = tasks
        self._max_keys = max_keys
        self._guests: OrderedDict[str, _Guest] = OrderedDict()
        self._is_dropping = False

    @asynccontextmanager
    async def engine_for(self, key: SecretStr) -> AsyncGenerator["Engine"]:
        """Yield the engine of a key for one call.

        Raises:
            ServiceUnavailable: Too many other keys are in use.
        """
        owner = owner_of(key.get_secret_value(), await self._host.secret())
        guest = self._guests.get(owner) or self._admit(key, owner)
        self._guests.move_to_end(owner)
        guest.calls += 1
        try:
            yield guest.engine
        finally:
            guest.calls -= 1
            guest.idle_since = anyio.current_time()

    def _admit(self, key: SecretStr, owner: str) -> _Guest:
        if len(self._guests) >= self._max_keys:
            idle = (owner for owner, guest in self._guests.items() if guest.is_idle)
            oldest = next(idle, None)
            if oldest is None:
                raise ServiceUnavailable(
                    f"{self._max_keys} other API keys are in use on this server, which is its"
                    " limit.",
                    next_step="Call again in a few minutes.",
                    code="rate_limited",
                )
            self._drop(oldest)
        engine = self._host.for_key(key, owner)
        engine.run_in(self._tasks)
        guest = self._guests[owner] = _Guest(engine)
        self._host.guests.add(engine)
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
                    self._drop(owner)
        self._is_dropping = False

    def _drop(self, owner: str) -> None:
        self._host.guests.discard(self._guests.pop(owner).engine)
