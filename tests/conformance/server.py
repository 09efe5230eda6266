"""Our server, made by its own factory, with the fixtures that the conformance suite wants.

The suite calls tools, resources and prompts by fixed names. They are added to the server that
ships, so what is tested around them is what ships: the factory, the web application with its
gates, the sessions, both eras.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import mcp_types as types
from mcp.server.context import HandlerResult
from mcp.server.lowlevel import Server

from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.http import STREAMABLE_PATH, serving
from kiro_mcp.server.http_gate import AllowedNames, Token
from kiro_mcp.server.owners import Engines
from kiro_mcp.server.tools import declarations
from kiro_mcp.web_server import listen
from tests.conformance import documents, rounds, tools
from tests.conformance.tools import Context

_FIXTURES = {**tools.TOOLS, **rounds.TOOLS}


@asynccontextmanager
async def serving_fixtures() -> AsyncGenerator[str]:
    """Serve on a free port while the block runs; yield the address."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with serving(
        _build(),
        listener,
        transport="http",
        token=Token(secret="", where=""),
        names=AllowedNames("127.0.0.1", port),
        max_body_bytes=1024 * 1024,
    ):
        # By this name, because the suite's test of rebinding wants to see it.
        yield f"http://localhost:{port}{STREAMABLE_PATH}"


def _build() -> Server[Engines]:
    server = build_server(lambda: Engine.from_environ({}))
    _add_tools(server)
    _add_documents(server)
    return server


def _add_tools(server: Server[Engines]) -> None:
    shipped = server.get_request_handler("tools/call")
    assert shipped

    async def list_tools(
        context: Context, params: types.PaginatedRequestParams
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[*declarations(), *map(_declared, _FIXTURES)])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> HandlerResult:
        if params.name in _FIXTURES:
            return await _FIXTURES[params.name](context, params)
        return await shipped.handler(context, params)

    server.add_request_handler("tools/list", types.PaginatedRequestParams, list_tools)
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)


def _declared(name: str) -> types.Tool:
    schema = tools.SCHEMAS.get(name, {"type": "object"})
    return types.Tool(name=name, description="For the suite.", input_schema=schema)


def _add_documents(server: Server[Engines]) -> None:
    add = server.add_request_handler
    add("resources/list", types.PaginatedRequestParams, documents.list_resources)
    add("resources/templates/list", types.PaginatedRequestParams, documents.list_templates)
    add("resources/read", types.ReadResourceRequestParams, documents.read_resource)
    add("resources/subscribe", types.SubscribeRequestParams, documents.subscribe)
    add("resources/unsubscribe", types.UnsubscribeRequestParams, documents.unsubscribe)
    add("prompts/list", types.PaginatedRequestParams, documents.list_prompts)
    add("prompts/get", types.GetPromptRequestParams, documents.get_prompt)
    add("completion/complete", types.CompleteRequestParams, documents.complete)
    add("logging/setLevel", types.SetLevelRequestParams, _set_level)


async def _set_level(context: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    return types.EmptyResult()
