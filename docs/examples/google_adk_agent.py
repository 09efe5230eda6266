# /// script
# dependencies = ["google-adk[mcp]==2.13.0"]
# ///
# Google ADK: an agent with Claude as a tool.
# Install kiro-mcp: `uv tool install .` in a clone. Without --offline, it uses your Kiro login.
# Run: `uv run docs/examples/google_adk_agent.py --offline`

import asyncio
import os
import sys

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters

KIRO = StdioServerParameters(command="kiro-mcp", args=["serve", *sys.argv[1:]], env={**os.environ})


# Calls ask_claude, and repeats what it read. Put your model's name in its place.
class StandIn(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        result = llm_request.contents[-1].parts[0].function_response
        call = types.FunctionCall(id="1", name="ask_claude", args={"prompt": "Say hello"})
        part = types.Part(text=str(result.response)) if result else types.Part(function_call=call)
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


async def main():
    # By default it gives up a call after 5 seconds.
    kiro = McpToolset(connection_params=StdioConnectionParams(server_params=KIRO, timeout=120))
    agent = LlmAgent(name="helper", model=StandIn(model="stand-in"), tools=[kiro])
    await InMemoryRunner(agent=agent).run_debug("Ask Claude to say hello")
    await kiro.close()


asyncio.run(main())
