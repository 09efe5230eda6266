"""The requests of sign-in and refresh, sent. What they say is built and read by pure modules."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

import anyio

from kiro_mcp.auth import device_flow
from kiro_mcp.auth.token_requests import Refused, TokenRequest, read_answer, refresh_request
from kiro_mcp.auth.tokens import ClientRegistration, Credential
from kiro_mcp.errors import KiroError, ServiceUnavailable

REQUEST_SECONDS: Final = 30.0
"""How long a sign-in service may take; it usually answers within one second."""


class Poster(Protocol):
    """Whatever can send a POST. The composition root makes it from the HTTP pool."""

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; return status, headers (names in lower case) and body.

        Raises:
            KiroError: There was no answer.
        """
        ...


class SignInService:
    """AWS SSO OIDC, Kiro's own sign-in service, and an organisation's own, behind one poster."""

    def __init__(
        self, poster: Poster, overrides: Mapping[str, str], *, now: Callable[[], datetime]
    ) -> None:
        self._poster = poster
        self._overrides = overrides
        self._now = now

    async def refresh(self, credential: Credential) -> Credential | Refused:
        """Spend a refresh token: return the renewed credential, or why there is none.

        Raises:
            SignInRequired: It must not be sent where settings say.
        """
        request = refresh_request(credential, self._overrides)
        try:
            status, body = await self._send(request)
        except KiroError as error:
            return Refused(is_final=False, why=error.message.rstrip("."))
        return read_answer(credential, status, body, self._now())

    async def register(self, plan: device_flow.LoginPlan) -> ClientRegistration:
        """Register a client of our own.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        status, body = await self._send(device_flow.registration_request(plan))
        return device_flow.read_registration_answer(plan, status, body)

    async def authorize(
        self, plan: device_flow.LoginPlan, client: ClientRegistration | None
    ) -> device_flow.DeviceLogin:
        """Ask for a link and a code.

        Raises:
            KiroError: The service refused, or could not be reached.
        """
        status, body = await self._send(device_flow.authorization_request(plan, client))
        return device_flow.read_authorization_answer(plan, client, status, body, self._now())

    async def poll(self, login: device_flow.DeviceLogin) -> device_flow.PollResult:
        """Ask once whether a login has been confirmed. A service that fails is asked again."""
        try:
            status, body = await self._send(device_flow.poll_request(login))
        except ServiceUnavailable:
            return device_flow.KeepPolling()
        return device_flow.read_poll_answer(login, status, body, self._now())

    async def _send(self, request: TokenRequest) -> tuple[int, bytes]:
        status, _, body = await send(self._poster, request)
        return status, body


async def send(poster: Poster, request: TokenRequest) -> tuple[int, Mapping[str, str], bytes]:
    """Send a request, for so long as a sign-in service may take.

    Raises:
        KiroError: There was no answer, or not in time.
    """
    try:
        with anyio.fail_after(REQUEST_SECONDS):
            return await poster.post(request.url, headers=request.headers, body=request.body)
    except TimeoutError:
        raise ServiceUnavailable(
            f"The sign-in service did not answer within {REQUEST_SECONDS:g} seconds.",
            next_step="Call again.",
            code="timeout",
        ) from None
