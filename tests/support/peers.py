"""A server as its client sees it, over stdio or HTTP, with older or newer MCP."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import anyio

from kiro_mcp.emulator import RunningEmulator
from tests.support.http import WebServer, against, messages, serving_http
from tests.support.stdio import ENVELOPE, StdioServer, environment, started

Transport = Literal["stdio", "http"]
Era = Literal["legacy", "modern"]
Message = dict[str, Any]

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


class Peer(ABC):
    """A server, over one transport, in one era. Requests are raw; so are the answers."""

    def __init__(self, era: Era, capabilities: Mapping[str, Any]) -> None:
        self.era: Era = era
        self._capabilities = capabilities

    @abstractmethod
    async def exchange_all(self, requests: Sequence[tuple[str, Message]]) -> list[list[Message]]:
        """Make requests at once; return for each what came of it, its answer last."""

    async def exchange(self, method: str, **params: Any) -> list[Message]:
        """Make a request; return all that came until its answer, which is the last."""
        [came] = await self.exchange_all([(method, params)])
        return came

    async def ask(self, method: str, **params: Any) -> Message:
        """Make a request; return the message that answers it."""
        return (await self.exchange(method, **params))[-1]

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return its result."""
        answer = await self.ask("tools/call", name=tool, arguments=arguments)
        return cast("dict[str, Any]", answer["result"])

    def params(self, given: Mapping[str, Any]) -> Message:
        """Add what each request of the era carries."""
        if self.era == "legacy":
            return dict(given)
        envelope = {**ENVELOPE, CAPABILITIES: self._capabilities}
        return {**given, "_meta": {**envelope, **given.get("_meta", {})}}


class OverStdio(Peer):
    """A server process."""

    def __init__(self, era: Era, capabilities: Mapping[str, Any], server: StdioServer) -> None:
        super().__init__(era, capabilities)
        self.server = server

    async def exchange_all(self, requests: Sequence[tuple[str, Message]]) -> list[list[Message]]:
        """Write all requests, then read until all are answered."""
        came: dict[int, list[Message]] = {}
        for method, given in requests:
            came[await self.server.post(method, self.params(given))] = []
        waiting = set(came)
        while waiting:
            message = await self.server.receive()
            answered = message.get("id")
            # A notification is counted to the request that is answered next.
            came[answered if answered in waiting else min(waiting)].append(message)
            waiting.discard(cast("int", answered))
        return list(came.values())


class OverHttp(Peer):
    """A server on a port."""

    def __init__(self, era: Era, capabilities: Mapping[str, Any], server: WebServer) -> None:
        super().__init__(era, capabilities)
        self.server = server

    async def exchange_all(self, requests: Sequence[tuple[str, Message]]) -> list[list[Message]]:
        """Make a POST for each."""
        came = [list[Message]() for _ in requests]

        async def post(number: int, method: str, given: Message) -> None:
            params = self.params(given)
            if self.era == "legacy":
                response = await self.server.post(method, params)
            else:
                response = await self.server.post_modern(method, **params)
            came[number] = messages(response)

        async with anyio.create_task_group() as tasks:
            for number, (method, given) in enumerate(requests):
                tasks.start_soon(post, number, method, given)
        return came


@asynccontextmanager
async def peer(
    transport: Transport,
    era: Era,
    emulator: RunningEmulator,
    capabilities: Mapping[str, Any] | None = None,
    **variables: str,
) -> AsyncGenerator[Peer]:
    """Start a server with an emulator behind it, and say hello to it where the era wants that."""
    can = capabilities or {}
    environ = against(emulator, **variables)
    if transport == "stdio":
        async with started(environment(**environ)) as process:
            if era == "legacy":
                await process.initialize(capabilities=can)
            yield OverStdio(era, can, process)
    else:
        async with serving_http({"KIRO_MCP_MAX_RETRIES": "0", **environ}) as server:
            if era == "legacy":
                await server.initialize(capabilities=can)
            yield OverHttp(era, can, server)
