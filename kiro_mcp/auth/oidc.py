"""The requests of sign-in and refresh, sent. What they say is built and read by pure modules."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import anyio

from kiro_mcp.auth import device_flow
from kiro_mcp.auth.token_requests import Refused, TokenRequest, read_answer, refresh_request
from kiro_mcp.auth.tokens import ClientRegistration, Credential
from kiro_mcp.client.http import Fetcher
from kiro_mcp.errors import KiroError, ServiceUnavailable

REQUEST_SECONDS: Final = 30.0
"""How long a sign-in service may take; it usually answers within one second."""


class SignInService:
    """The sign-in services: AWS SSO OIDC, Kiro's own, and an organisation's own."""

    def __init__(
        self, http: Fetcher, overrides: Mapping[str, str], *, now: Callable[[], datetime]
    ) -> None:
        self._http = http
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
        """Send a request and return status and body of the answer.

        Raises:
            KiroError: There was no answer, or not in time.
        """
        try:
            with anyio.fail_after(REQUEST_SECONDS):
                status, _, body = await self._http.fetch(
                    "POST", request.url, headers=request.headers, body=request.body
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"The sign-in service did not answer within {REQUEST_SECONDS:g} seconds.",
                next_step="Call again.",
                code="timeout",
            ) from None
        return status, body
