"""A client of the Python SDK 1.30.0, run in an environment of its own; it prints what it saw.

`python_client.py PROMPT URL` over HTTP, `python_client.py PROMPT PROGRAM ARGUMENT …` over stdio.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


async def main(prompt, *command):
    calls = {"ask_claude": {"prompt": prompt}, "list_models": {}, "login": {}}
    async with AsyncExitStack() as stack:
        if command[0].startswith("http"):
            way = streamablehttp_client(command[0])
        else:
            way = stdio_client(StdioServerParameters(command=command[0], args=command[1:]))
        read, write, *_ = await stack.enter_async_context(way)
        session = await stack.enter_async_context(ClientSession(read, write))
        hello = await session.initialize()
        listed = await session.list_tools()
        progress = []

        async def note(value, total, message):
            progress.append(value)

        results = {
            tool: await session.call_tool(tool, arguments, progress_callback=note)
            for tool, arguments in calls.items()
        }
    report = {
        "revision": hello.protocolVersion,
        "tools": [tool.name for tool in listed.tools],
        "progress": progress,
        "results": {tool: result.structuredContent for tool, result in results.items()},
    }
    print(json.dumps(report))


asyncio.run(main(*sys.argv[1:]))
