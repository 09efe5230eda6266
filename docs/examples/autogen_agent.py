# /// script
# dependencies = ["autogen-agentchat==0.7.5", "autogen-ext[mcp]==0.7.5", "mcp<2"]
# ///
# AutoGen: an agent with Claude as a tool.
# Install kiro-mcp: `uv tool install .` in a clone. Without --offline, it uses your Kiro login.
# Run: `uv run docs/examples/autogen_agent.py --offline`

import asyncio
import os
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_core import FunctionCall
from autogen_core.models import CreateResult, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient
from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams

SERVE = ["serve", *sys.argv[1:]]
KIRO = StdioServerParams(command="kiro-mcp", args=SERVE, env={**os.environ})
KIRO.read_timeout_seconds = 120  # By default it gives up a call after 5 seconds.
CALL = FunctionCall(id="1", name="ask_claude", arguments='{"prompt": "Say hello"}')
USAGE = RequestUsage(prompt_tokens=0, completion_tokens=0)


async def main():
    # Replays a call of ask_claude, as a paid model would make it. Put your model in its place.
    reply = CreateResult(finish_reason="function_calls", content=[CALL], usage=USAGE, cached=False)
    info = {"vision": False, "function_calling": True, "json_output": False, "family": "unknown"}
    stand_in = ReplayChatCompletionClient([reply], {**info, "structured_output": False})
    async with McpWorkbench(KIRO) as kiro:
        agent = AssistantAgent("helper", stand_in, workbench=kiro)
        print((await agent.run(task="Ask Claude to say hello")).messages[-1].content)


asyncio.run(main())
