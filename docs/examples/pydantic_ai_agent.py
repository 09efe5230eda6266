# /// script
# dependencies = ["pydantic-ai-slim[mcp]==2.68.0"]
# ///
# Pydantic AI: an agent with Claude as a tool.
# Install kiro-mcp: `uv tool install .` in a clone. Without --offline, it uses your Kiro login.
# Run: `uv run docs/examples/pydantic_ai_agent.py --offline`

import asyncio
import os
import sys

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

KIRO = StdioTransport("kiro-mcp", ["serve", *sys.argv[1:]], env={**os.environ})


# Calls ask_claude, as a paid model would, and repeats what it read.
def stand_in(messages, info):
    [part] = messages[-1].parts
    if part.part_kind == "user-prompt":
        return ModelResponse(parts=[ToolCallPart("ask_claude", {"prompt": part.content})])
    return ModelResponse(parts=[TextPart(part.model_response_str())])


async def main():
    # "failed" shows our error text to the model; by default it is lost after some retries.
    kiro = MCPToolset(KIRO, tool_error_behavior="failed")
    # Put your model's name in the place of the stand-in.
    agent = Agent(FunctionModel(stand_in), toolsets=[kiro])
    async with kiro:
        print((await agent.run("Say hello")).output)


asyncio.run(main())
