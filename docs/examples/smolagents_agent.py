# /// script
# dependencies = ["smolagents[mcp]==1.26.0", "mcp<2"]
# ///
# Smolagents: Claude as a tool.
# Install kiro-mcp: `uv tool install .` in a clone. Without --offline, it uses your Kiro login.
# Run: `uv run docs/examples/smolagents_agent.py --offline`

import os
import sys

from mcp import StdioServerParameters
from smolagents import MCPClient

KIRO = StdioServerParameters(command="kiro-mcp", args=["serve", *sys.argv[1:]], env={**os.environ})

with MCPClient(KIRO, structured_output=False) as tools:
    # With a model: CodeAgent(tools=tools, model=your_model).run("Ask Claude to say hello")
    [ask_claude] = [tool for tool in tools if tool.name == "ask_claude"]
    print(ask_claude(prompt="Say hello"))
