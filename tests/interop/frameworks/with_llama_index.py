"""llama-index-tools-mcp: a tool is called as LlamaIndex's agents do."""

from contextlib import asynccontextmanager

from llama_index.core.tools.calling import acall_tool
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec
from questions import main


@asynccontextmanager
async def connected(command, arguments, env):
    client = BasicMCPClient(command, args=arguments, env=env)
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client).to_tool_list_async()}

    async def ask(call):
        return (await acall_tool(tools["ask_claude"], call)).content

    yield list(tools), ask


main(connected, patience_seconds=30)
