"""A server with the APIs, and a client that speaks raw HTTP to it."""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from kiro_mcp.api.app import API_PATH, KEEP_ALIVE_SECONDS, build_api
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from tests.support.http import MAX_BODY_BYTES, serving_http
from tests.support.stdio import COMMAND, environment

Json = dict[str, Any]

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
PATHS = (CHAT, RESPONSES, MESSAGES)


@asynccontextmanager
async def serving_api(
    emulator: RunningEmulator,
    *,
    token: str = "",
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    max_body_bytes: int = MAX_BODY_BYTES,
    **settings: str,
) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve the APIs on a free port while the block runs."""
    environ = {
        "KIRO_MCP_ENDPOINT_URL": emulator.url,
        "KIRO_API_KEY": EMULATOR_API_KEY,
        "KIRO_MCP_MAX_RETRIES": "0",
        **settings,
    }
    mounted = {API_PATH: build_api(max_body_bytes, keep_alive_seconds)}
    async with serving_http(environ, token=token, mounted=mounted) as web:
        yield web.client


@asynccontextmanager
async def apis_offline(**variables: str) -> AsyncGenerator[tuple[Process, httpx.AsyncClient]]:
    """Run `kiro-mcp serve --offline --api`; yield the process and a client of it."""
    options = ["--transport", "http", "--api", "--offline", "--no-auth", "--port", "0"]
    async with await anyio.open_process(
        [*COMMAND, "serve", *options], env=environment(**variables), stderr=-1
    ) as server:
        assert server.stderr
        said = ""
        async for piece in TextReceiveStream(server.stderr):
            said += piece
            if "until Ctrl-C" in said:
                break
        (url,) = re.findall(r"Anthropic's at (http://\S+)\.", said)
        async with httpx.AsyncClient(base_url=url, timeout=None) as client:
            yield server, client


def question(path: str, text: str, /, **members: Any) -> Json:
    """The body of a request to one of the APIs that says just this."""
    body: Json = {"model": "claude-sonnet-4.5", **members}
    if path == RESPONSES:
        return {"input": text, **body}
    if path == MESSAGES:
        body = {"max_tokens": 1000, **body}
    return {"messages": [{"role": "user", "content": text}], **body}


async def ask(client: httpx.AsyncClient, path: str, text: str, /, **members: Any) -> Json:
    """Ask, and return the whole answer."""
    response = await client.post(path, json=question(path, text, **members))
    assert response.status_code == 200, response.text
    return response.json()


async def stream(client: httpx.AsyncClient, path: str, text: str, /, **members: Any) -> list[Json]:
    """Ask, and return the events of the stream."""
    response = await client.post(path, json=question(path, text, stream=True, **members))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events(response.text)


def events(text: str) -> list[Json]:
    """The data of the events of a stream; `[DONE]` is `{}`."""
    return [event_data(block) for block in text.split("\n\n") if "data: " in block]


def event_data(block: str) -> Json:
    """The data of one event."""
    data = block.rpartition("data: ")[2]
    return {} if data == "[DONE]" else json.loads(data)


def text_of(path: str, answer: Mapping[str, Any]) -> str:
    """The text of a whole answer."""
    if path == CHAT:
        return answer["choices"][0]["message"]["content"] or ""
    if path == MESSAGES:
        return "".join(block.get("text", "") for block in answer["content"])
    parts = [part for item in answer["output"] for part in item.get("content", ())]
    return "".join(part.get("text", "") for part in parts)


def streamed_text(path: str, seen: list[Json]) -> str:
    """The text of a stream."""
    if path == CHAT:
        choices = [choice for event in seen for choice in event.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)
    if path == MESSAGES:
        deltas = [event["delta"] for event in seen if event["type"] == "content_block_delta"]
        return "".join(delta.get("text", "") for delta in deltas)
    return "".join(
        event["delta"] for event in seen if event["type"] == "response.output_text.delta"
    )


def ending_of(path: str, answer: Mapping[str, Any]) -> str:
    """Why a whole answer ended, in the words of its API."""
    if path == CHAT:
        return answer["choices"][0]["finish_reason"]
    if path == MESSAGES:
        return answer["stop_reason"]
    details = answer["incomplete_details"]
    return details["reason"] if details else answer["status"]
