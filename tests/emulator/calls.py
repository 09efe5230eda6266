"""Calls to an emulator, as a client of the service would make them, and their answers read."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx

from kiro_mcp.emulator import EMULATOR_ACCESS_TOKEN, EMULATOR_API_KEY, EMULATOR_PROFILE_ARN
from kiro_mcp.wire.eventstream import FrameDecoder

REST_PATH = "/generateAssistantResponse"
AS_USER = {"Authorization": f"Bearer {EMULATOR_ACCESS_TOKEN}"}
WITH_KEY = {"Authorization": f"Bearer {EMULATOR_API_KEY}", "TokenType": "API_KEY"}
RPC_CONTENT = {"Content-Type": "application/x-amz-json-1.0"}
PNG = "iVBORw0KGgo="

Json = dict[str, Any]
Event = tuple[str, Json]


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client that knows no proxy, and loads no certificates: all is on loopback."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5, verify=False) as client:
        yield client


def user(content: str = "Hello", **members: Any) -> Json:
    """A user message of the wire."""
    message = {"content": content, "origin": "KIRO_CLI", **members}
    return {"userInputMessage": message}


def assistant(content: str = "Hi.", **members: Any) -> Json:
    """An assistant message of the wire."""
    return {"assistantResponseMessage": {"content": content, **members}}


def body_of(current: Json | str = "Hello", *history: Json, **members: Any) -> Json:
    """A whole body that the emulator takes, with other members where they are named."""
    message = user(current) if isinstance(current, str) else current
    state: Json = {
        "chatTriggerType": "MANUAL",
        "conversationId": "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
        "currentMessage": message,
    }
    if history:
        state["history"] = list(history)
    return {"conversationState": state, "profileArn": EMULATOR_PROFILE_ARN, **members}


def tool(name: str = "read_log", **members: Any) -> Json:
    """The declaration of a tool, with other members where they are named."""
    schema: Json = {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
    }
    spec = {"name": name, "description": "Reads a log.", "inputSchema": {"json": schema}, **members}
    return {"toolSpecification": spec}


def use(tool_use_id: str = "tooluse_1", name: str = "read_log", **members: Any) -> Json:
    """A tool use of an assistant message."""
    return {"toolUseId": tool_use_id, "name": name, "input": {"path": "ci.log"}, **members}


def result(tool_use_id: str = "tooluse_1", text: str = "All green.") -> Json:
    """A tool result of a user message."""
    return {"toolUseId": tool_use_id, "status": "success", "content": [{"text": text}]}


def context(**members: Any) -> Json:
    """The context of a user message, as its member."""
    return {"userInputMessageContext": members}


def events_of(raw: bytes) -> list[Event]:
    """The frames of a whole stream, as names and payloads."""
    decoder = FrameDecoder()
    frames = decoder.feed(raw)
    decoder.close()
    return [
        (
            str(frame.headers.get(":event-type", frame.headers.get(":exception-type"))),
            cast("Json", json.loads(frame.payload)),
        )
        for frame in frames
    ]


def text_of(events: list[Event]) -> str:
    """The visible text of an answer."""
    return "".join(payload["content"] for name, payload in events if name == TEXT_EVENT)


TEXT_EVENT = "assistantResponseEvent"


async def ask(client: httpx.AsyncClient, prompt: Json | str) -> httpx.Response:
    """Ask in the REST form, with an access token."""
    return await client.post(REST_PATH, json=body_of(prompt), headers=AS_USER)
