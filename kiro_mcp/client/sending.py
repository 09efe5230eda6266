"""One request to the service: the headers that go with a token, and what its answer is.

What an attempt changes from one to the next (token, endpoint, number) is a `Trial`.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from kiro_mcp._version import __version__
from kiro_mcp.chat import AccessToken, ChatRequest, Fault
from kiro_mcp.client.capture import RecordedPool, Recorder
from kiro_mcp.client.classify import fault_from_response
from kiro_mcp.client.endpoints import (
    Destination,
    EndpointProfile,
    destination,
    require_may_receive,
    with_headers,
)
from kiro_mcp.client.http import HttpPool, HttpResponse
from kiro_mcp.errors import SignInRequired
from kiro_mcp.settings import Settings

AGENT_MODE = "vibe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One attempt of a call: what is sent, where to, and as the how manyth."""

    token: AccessToken
    endpoints: tuple[EndpointProfile, ...]
    """Where it may go; `place` says which one is meant."""
    place: int = 0
    invocation_id: str
    """The same for all attempts of one call: so the service knows repeated ones."""
    attempt: int = 1
    max_attempts: int
    request: ChatRequest | None = None
    """The prompt; None for what has none."""
    sends_model_fields: bool = True
    not_renewed: SignInRequired | None = None
    """Why its token, which was refused before, could not be renewed."""
    recorder: Recorder | None = None
    """What notes it, where calls are captured."""

    @property
    def endpoint(self) -> EndpointProfile:
        """Where it goes."""
        return self.endpoints[self.place]


class RefusedError(Exception):
    """The service answered with an error; internal, turned into a `KiroError` by its catcher."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


class Sender:
    """Sends requests over a pool of connections, each with the headers that it must have."""

    def __init__(self, settings: Settings, http: HttpPool, *, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._http = http
        self._now = now

    def origin(self, endpoint: EndpointProfile) -> str:
        """Say where a request to an endpoint claims to come from."""
        return self._settings.origin or endpoint.origin

    def destination(self, trial: Trial) -> Destination:
        """Say where an attempt goes."""
        overrides = self._settings.endpoint_overrides
        return destination(trial.endpoint, region=trial.token.region, overrides=overrides)

    @asynccontextmanager
    async def send(
        self, trial: Trial, *, body: bytes = b"", query: Mapping[str, str] | None = None
    ) -> AsyncGenerator[HttpResponse]:
        """Send a request and yield the service's answer while it comes.

        Raises:
            RefusedError: The answer is an error.
            SignInRequired: The token may not go to the host.
            ServiceUnavailable: The host cannot be reached.
        """
        target = self.destination(trial)
        require_may_receive(target, trial.token)
        url = f"{target.url}?{urlencode(query)}" if query else target.url
        http = RecordedPool(self._http, trial.recorder) if trial.recorder else self._http
        async with http.request(
            trial.endpoint.method, url, headers=self._headers(trial), body=body
        ) as response:
            if response.status != 200:
                refusal = await response.beginning()
                raise RefusedError(
                    fault_from_response(response.status, response.headers, refusal, now=self._now())
                )
            yield response

    def _headers(self, trial: Trial) -> dict[str, str]:
        endpoint, token = trial.endpoint, trial.token
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Content-Type": endpoint.content_type,
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # Frames come as they are made, not as gzip fills up.
            "User-Agent": self._settings.user_agent or f"kiro-mcp/{__version__}",
            "amz-sdk-invocation-id": trial.invocation_id,
            "amz-sdk-request": f"attempt={trial.attempt}; max={trial.max_attempts}",
            "x-amzn-codewhisperer-optout": "true",
        }
        if token.token_type:
            headers["TokenType"] = token.token_type
        if endpoint.target:
            headers["X-Amz-Target"] = endpoint.target
        if endpoint.host != "management":
            headers.update(_mode(endpoint))
        elif token.profile_arn:
            headers["x-amzn-kiro-profile-arn"] = token.profile_arn
        return with_headers(headers, self._settings.headers_to_add)


def _mode(endpoint: EndpointProfile) -> dict[str, str]:
    # The other forms have it in the body, or not at all.
    return {"x-amzn-kiro-agent-mode": AGENT_MODE} if endpoint.form == "rest" else {}
