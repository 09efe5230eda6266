# /// script
# dependencies = ["langchain-mcp-adapters==0.3.2", "langchain==1.5.2"]
# ///
# LangChain and LangGraph: an agent with Claude as a tool.
# Install kiro-mcp: `uv tool install .` in a clone. Without --offline, it uses your Kiro login.
# Run: `uv run docs/examples/langchain_agent.py --offline`

import asyncio
import os
import sys

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

KIRO = {"transport": "stdio", "command": "kiro-mcp", "args": ["serve", *sys.argv[1:]]}
CALL = {"id": "1", "name": "ask_claude", "args": {"prompt": "Say hello"}}


# Calls ask_claude, as a paid model would. Put your chat model in its place.
class StandIn(GenericFakeChatModel):
    def bind_tools(self, tools, **_):
        return self


async def main():
    client = MultiServerMCPClient({"kiro": {**KIRO, "env": {**os.environ}}})
    async with client.session("kiro") as session:  # One server for all calls.
        model = StandIn(messages=iter([AIMessage("", tool_calls=[CALL]), AIMessage("Done.")]))
        agent = create_agent(model, await load_mcp_tools(session))
        question = {"role": "user", "content": "Ask Claude to say hello"}
        for message in (await agent.ainvoke({"messages": [question]}))["messages"]:
            message.pretty_print()


asyncio.run(main())
