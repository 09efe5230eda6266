"""A client against the emulator, with time and chance in the test's hands."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio.lowlevel
from anyio import fail_after

from kiro_mcp.chat import AccessToken, ChatRequest, Message, TextPart
from kiro_mcp.client.client import KiroClient, TokenSource
from kiro_mcp.client.retry import TokenRecovery
from kiro_mcp.client.telemetry import Telemetry
from kiro_mcp.emulator import (
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    EmulatorState,
    HttpAnswer,
    Script,
    Send,
    frames,
)
from kiro_mcp.settings import Settings

KEY = AccessToken(value=EMULATOR_API_KEY, token_type="API_KEY", is_explicit=True)
LOGIN = AccessToken(value=EMULATOR_ACCESS_TOKEN, profile_arn=EMULATOR_PROFILE_ARN, is_explicit=True)
NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)
CONVERSATION_ID = "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11"

ANSWER: Script = (Send(frames.text("One word.") + frames.ending()),)
NOTHING: Script = (Send(frames.ending()),)


@dataclass
class FixedToken:
    """A token source that has one token, and cannot renew it."""

    token: AccessToken = KEY

    async def access_token(self) -> AccessToken:
        return self.token


@dataclass
class RenewableToken:
    """A token source whose token can be renewed. It records refused tokens."""

    token: AccessToken = KEY
    renewed: AccessToken = KEY
    rejected: list[AccessToken] = field(default_factory=list[AccessToken])

    async def access_token(self) -> AccessToken:
        return self.token

    async def recover(self, rejected: AccessToken, recovery: TokenRecovery) -> AccessToken | None:
        if recovery != "fresh_token":
            return None
        self.rejected.append(rejected)
        return self.renewed


class Clock:
    """A clock that moves only while somebody waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += timedelta(seconds=seconds)
        await anyio.lowlevel.checkpoint()


def prompt(text: str = "hi") -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", parts=(TextPart(text=text),)),),
        conversation_id=CONVERSATION_ID,
    )


def thinking_prompt() -> ChatRequest:
    return replace(prompt(), model="claude-opus-4.6", effort="high")


def refusal(
    status: int, message: str = "", reason: str | None = None, **headers: str
) -> HttpAnswer:
    """An error answer in the service's usual form."""
    body = frames.compact_json({"message": message, "reason": reason}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status=status, body=body, headers=named)


@asynccontextmanager
async def driven(
    url: str,
    tokens: TokenSource | None = None,
    *,
    clock: Clock | None = None,
    jitter: float = 0.0,
    state_folder: Path | None = None,
    telemetry: Telemetry | None = None,
    seconds: float = 10,
    **environ: str,
) -> AsyncGenerator[KiroClient]:
    """A client of the emulator whose waits take no time."""
    settings = Settings.load({"KIRO_MCP_ENDPOINT_URL": url, **environ})
    clock = clock or Clock()
    with fail_after(seconds):
        async with KiroClient(
            tokens or FixedToken(),
            settings,
            state_folder=state_folder,
            now=clock.now,
            sleep=clock.sleep,
            random=lambda: jitter,
            telemetry=telemetry,
        ) as client:
            yield client


def attempts_seen(state: EmulatorState) -> list[str]:
    """What the prompts that arrived said of their number."""
    seen = state.requests_to("GenerateAssistantResponse")
    return [request.headers["amz-sdk-request"] for request in seen]
