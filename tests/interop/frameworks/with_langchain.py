"""langchain-mcp-adapters: a tool is called as LangGraph's tool node does."""

from contextlib import asynccontextmanager

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from questions import main


@asynccontextmanager
async def connected(command, arguments, env):
    server = {"transport": "stdio", "command": command, "args": arguments, "env": env}
    async with MultiServerMCPClient({"kiro": server}).session("kiro") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}

        async def ask(call):
            message = await tools["ask_claude"].ainvoke(
                {"type": "tool_call", "id": "call_1", "name": "ask_claude", "args": call}
            )
            # The artifact of the message never reaches the model.
            if isinstance(message.content, str):
                return message.content
            return "\n".join(block["text"] for block in message.content)

        yield list(tools), ask


main(connected)
