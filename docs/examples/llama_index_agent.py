# /// script
# dependencies = ["llama-index-tools-mcp==0.6.0"]
# ///
# LlamaIndex: Claude as a tool, over HTTP.
# Over stdio, LlamaIndex starts a server for each call, and ends it with the answer.
# Install kiro-mcp: `uv tool install .` in a clone. Choose a secret, serve, and run:
#     export KIRO_MCP_HTTP_TOKEN=secret
#     kiro-mcp serve --transport http --offline  # without --offline: your Kiro login
#     uv run docs/examples/llama_index_agent.py

import asyncio
import os
import sys

from llama_index.core.tools.calling import acall_tool
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

URL = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000") + "/mcp"
TOKEN = {"Authorization": f"Bearer {os.environ['KIRO_MCP_HTTP_TOKEN']}"}


async def main():
    # By default it gives up a call after 30 seconds.
    kiro = BasicMCPClient(URL, headers=TOKEN, timeout=120)
    tools = await McpToolSpec(kiro).to_tool_list_async()
    # With a model: FunctionAgent(tools=tools, llm=your_model).run("Ask Claude to say hello")
    [ask_claude] = [tool for tool in tools if tool.metadata.name == "ask_claude"]
    print((await acall_tool(ask_claude, {"prompt": "Say hello"})).content)


asyncio.run(main())
