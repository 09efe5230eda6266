"""The server on a real port of this machine, and raw JSON-RPC to it over HTTP."""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
from starlette.types import ASGIApp

from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.http import MAX_SESSIONS, Transport, serving
from kiro_mcp.server.http_gate import AllowedNames, Token
from kiro_mcp.server.jobs import JOIN_AFTER_SECONDS
from kiro_mcp.server.owners import MAX_KEYS
from kiro_mcp.web_server import HttpLimits, listen
from tests.support.stdio import ENVELOPE, MODERN

NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The parameter that MCP 2026-07-28 repeats in the header Mcp-Name, by method."""

MAX_BODY_BYTES = 64 * 1024
TOKEN = "a token that only tests know"


def against(emulator: RunningEmulator, **variables: str) -> dict[str, str]:
    return {
        "KIRO_MCP_ENDPOINT_URL": emulator.url,
        "KIRO_API_KEY": EMULATOR_API_KEY,
        **variables,
    }


class WebServer:
    """A running server and a client of it."""

    def __init__(self, client: httpx.AsyncClient, path: str) -> None:
        self.client = client
        self.path = path
        self._session: dict[str, str] = {}
        self._last_id = 0

    @property
    def url(self) -> str:
        return str(self.client.base_url.join(self.path))

    @property
    def session(self) -> dict[str, str]:
        """The headers of the session that is open."""
        return self._session

    @property
    def port(self) -> int:
        return cast("int", self.client.base_url.port)

    def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        is_notification: bool = False,
    ) -> httpx.Request:
        """Build a POST of one message, in the session if there is one."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if not is_notification:
            self._last_id += 1
            message["id"] = self._last_id
        sent = {**self._session, "Content-Type": "application/json", **(headers or {})}
        # Not httpx's own JSON, which is UTF-8 and cannot hold half a character.
        return self.client.build_request(
            "POST", self.path, content=json.dumps(message), headers=sent
        )

    async def post(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        return await self.client.send(self.request(method, params, headers))

    async def post_bytes(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Make a POST of anything that claims to be JSON."""
        sent = {**self._session, "Content-Type": "application/json", **headers}
        return await self.client.post(self.path, content=body, headers=sent)

    async def initialize(
        self, version: str = "2025-11-25", capabilities: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Open a session, which later requests are made in."""
        client = {"name": "tests", "version": "1"}
        can = capabilities or {}
        self._session = {}
        response = await self.post(
            "initialize", {"protocolVersion": version, "capabilities": can, "clientInfo": client}
        )
        hello = answer(response)
        self._session = {
            "Mcp-Session-Id": response.headers["mcp-session-id"],
            "MCP-Protocol-Version": hello["result"]["protocolVersion"],
        }
        await self.notify("notifications/initialized")
        return hello

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        accepted = await self.client.send(self.request(method, params, is_notification=True))
        assert accepted.status_code == 202

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool in the session and return the result."""
        response = await self.post("tools/call", {"name": tool, "arguments": arguments})
        return cast("dict[str, Any]", answer(response)["result"])

    def modern_request(
        self, method: str, headers: Mapping[str, str] | None = None, **params: Any
    ) -> httpx.Request:
        """Build a request of MCP 2026-07-28, which needs no session."""
        named = {"Mcp-Name": params[NAMED[method]]} if method in NAMED else {}
        sent = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **named, **(headers or {})}
        kept, self._session = self._session, {}
        try:
            return self.request(method, {"_meta": ENVELOPE, **params}, sent)
        finally:
            self._session = kept

    async def post_modern(
        self, method: str, headers: Mapping[str, str] | None = None, **params: Any
    ) -> httpx.Response:
        return await self.client.send(self.modern_request(method, headers, **params))


def messages(response: httpx.Response) -> list[dict[str, Any]]:
    """The messages of a body that is JSON or a stream of events, in their order."""
    if response.headers["content-type"].startswith("application/json"):
        return [response.json()]
    # Not `splitlines`, which also cuts at characters that JSON may hold as they are.
    lines = re.split(r"\r\n|\n|\r", response.text)
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def answer(response: httpx.Response) -> dict[str, Any]:
    """The message that answers."""
    return next(message for message in messages(response) if "id" in message)


@asynccontextmanager
async def serving_http(
    environ: Mapping[str, str] | None = None,
    *,
    transport: Transport = "http",
    token: str = "",
    also: tuple[str, ...] = (),
    limits: HttpLimits | None = None,
    max_keys: int = MAX_KEYS,
    max_sessions: int = MAX_SESSIONS,
    body_wait_seconds: float = 30.0,
    join_after_seconds: float = JOIN_AFTER_SECONDS,
    mounted: Mapping[str, ASGIApp] | None = None,
) -> AsyncGenerator[WebServer]:
    """Serve on a free port while the block runs."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = build_server(
        lambda: Engine.from_environ(environ or {}, join_after_seconds=join_after_seconds),
        max_keys=max_keys,
    )
    path = "/mcp" if transport == "http" else "/sse"
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Accept": "application/json, text/event-stream"},
            timeout=None,
        ) as client,
        serving(
            server,
            listener,
            transport=transport,
            token=Token(secret=token, where="the tests"),
            names=AllowedNames("127.0.0.1", port, also),
            max_body_bytes=MAX_BODY_BYTES,
            max_sessions=max_sessions,
            body_wait_seconds=body_wait_seconds,
            mounted=mounted,
            limits=limits,
        ),
    ):
        yield WebServer(client, path)
