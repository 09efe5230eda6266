"""Callers over HTTP that bring an API key of their own: which key it is, and what is kept for it.

Each key has an engine, so that nobody's calls wait for, learn from or are billed to anybody
else's. The engine holds the key in memory, and nowhere else. It is dropped when the key was not
used for a while, or when room is needed for another key.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from kiro_mcp.errors import InvalidRequest, ServiceUnavailable
from kiro_mcp.server.owners import KEY_HEADER, owner_of
from kiro_mcp.setting_values import read_bearer

if TYPE_CHECKING:
    from kiro_mcp.server.engine import Engine

MIN_KEY_CHARACTERS: Final = 16
"""A key in use is hidden wherever it is quoted. An ordinary word must not be hidden as one."""

KEY_IDLE_SECONDS: Final = 15 * 60
"""How long a key may be unused before its state is dropped."""


def key_of(request: HTTPConnection) -> SecretStr | None:
    """Return the API key that a request brings; None if it brings none.

    Raises:
        InvalidRequest: It cannot be a key. The server's own credential must not take its place,
            because that would bill somebody else.
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
        return not self.calls and not self.engine.answers.is_busy


class Guests:
    """The engines of callers with keys of their own, by the owner that stands for the key."""

    def __init__(self, host: "Engine", tasks: TaskGroup, *, max_keys: int) -> None:
        """Prepare for guests.

        Args:
            host: The engine that they share connections, store and captures with.
            tasks: Where what outlives a call runs.
            max_keys: How many keys may be in use at once.
        """
        self._host = host
        self._tasks = tasks
        self._max_keys = max_keys
        self._guests: OrderedDict[str, _Guest] = OrderedDict()
        self._is_dropping = False

    @asynccontextmanager
    async def engine_for(self, key: SecretStr) -> AsyncGenerator["Engine"]:
        """Yield the engine of a key for the time of one call.

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
            self._drop_oldest()
        engine = self._host.for_key(key, owner)
        engine.run_in(self._tasks)
        guest = self._guests[owner] = _Guest(engine)
        self._host.guests.add(engine)
        if not self._is_dropping:
            self._is_dropping = True
            self._tasks.start_soon(self._drop_idle)
        return guest

    def _drop_oldest(self) -> None:
        for owner, guest in self._guests.items():
            if guest.is_idle:
                self._drop(owner)
                return
        raise ServiceUnavailable(
            f"{self._max_keys} other API keys are in use on this server, which is its limit.",
            next_step="Call again in a few minutes.",
            code="rate_limited",
        )

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
