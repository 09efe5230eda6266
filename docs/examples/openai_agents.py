# /// script
# dependencies = ["openai-agents==0.24.0"]
# ///
# OpenAI Agents SDK: an agent with Claude as a tool.
# Install kiro-mcp: `uv tool install .` in a clone. Without --offline, it uses your Kiro login.
# Run: `uv run docs/examples/openai_agents.py --offline`

import asyncio
import os
import sys

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai.types.responses import ResponseFunctionToolCall

KIRO = {"command": "kiro-mcp", "args": ["serve", *sys.argv[1:]], "env": {**os.environ}}
set_tracing_disabled(True)  # Tracing needs an OpenAI key.


# Calls ask_claude, as a paid model would. Put your model's name in its place.
class StandIn(Model):
    stream_response = None

    async def get_response(self, *_, **__):
        call = {"call_id": "1", "name": "ask_claude", "arguments": '{"prompt": "Say hello"}'}
        output = [ResponseFunctionToolCall(type="function_call", **call)]
        return ModelResponse(output=output, usage=Usage(), response_id=None)


async def main():
    # By default it gives up a call after 5 seconds.
    async with MCPServerStdio(KIRO, client_session_timeout_seconds=120) as kiro:
        agent = Agent("helper", model=StandIn(), mcp_servers=[kiro])
        agent.tool_use_behavior = "stop_on_first_tool"  # Only for the stand-in.
        print((await Runner.run(agent, "Ask Claude to say hello")).final_output)


asyncio.run(main())
