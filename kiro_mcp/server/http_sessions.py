"""Whose a legacy session is, and which one ends when there are too many.

The SDK keeps the sessions. It answers 503 when there are too many, although most clients never
end a session, so here the session that was unused for longest is ended to make room.
"""

import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kiro_mcp.server.owners import KEY_HEADER

_SESSION: Final = "mcp-session-id"


class SessionOwners:
    """ASGI middleware: only the API key that opened a session can use it.

    The SDK compares the users of a session's requests. A request without a key has no user.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the user of a request that brings a key of its own."""
        if keys := Headers(scope=scope).getlist(KEY_HEADER):
            user = hmac.digest(self._secret, "\n".join(keys).encode(), "sha256").hex()
            token = AccessToken(token="", client_id=user, scopes=[])
            scope = {**scope, "user": AuthenticatedUser(token)}
        await self._app(scope, receive, send)


@dataclass(slots=True)
class _Session:
    user: Any
    requests: int = 0
    """How many are being answered; an open stream is one."""


class RoomForSessions:
    """ASGI middleware: ends the session that was unused for longest when there are too many."""

    def __init__(self, app: ASGIApp, max_sessions: int) -> None:
        self._app = app
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note which session a request uses, opens or ends."""
        given = Headers(scope=scope).get(_SESSION, "")
        if session := self._sessions.get(given):
            session.requests += 1
            self._sessions.move_to_end(given)
        elif not given and _may_open_session(scope):
            await self._make_room(scope)

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                opened = Headers(raw=message["headers"]).get(_SESSION, "")
                if opened and not given and message["status"] < 400:
                    self._sessions[opened] = _Session(scope.get("user"))
                elif message["status"] == 404 or scope["method"] == "DELETE":
                    self._sessions.pop(given, None)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if session:
                session.requests -= 1

    async def _make_room(self, scope: Scope) -> None:
        while len(self._sessions) >= self._max_sessions:
            unused = (name for name, session in self._sessions.items() if not session.requests)
            name = next(unused, None)
            if name is None:
                return
            user = self._sessions.pop(name).user
            host = Headers(scope=scope).get("host", "")
            ending: Scope = {
                **scope,
                "method": "DELETE",
                "headers": [(b"host", host.encode()), (_SESSION.encode(), name.encode())],
                "user": user,
            }
            await self._app(ending, _nothing, _ignore)


def _may_open_session(scope: Scope) -> bool:
    version = Headers(scope=scope).get("mcp-protocol-version")
    has_sessions = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
    return scope["method"] == "POST" and has_sessions


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(message: Message) -> None:
    pass
