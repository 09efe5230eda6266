"""autogen-ext: a workbench's tool is called as AutoGen's assistant does."""

from contextlib import asynccontextmanager

from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams
from questions import main


@asynccontextmanager
async def connected(command, arguments, env):
    server = StdioServerParams(command=command, args=arguments, env=env)
    async with McpWorkbench(server) as workbench:

        async def ask(call):
            result = await workbench.call_tool("ask_claude", call)
            return result.to_text()

        yield [tool["name"] for tool in await workbench.list_tools()], ask


main(connected, patience_seconds=5)
