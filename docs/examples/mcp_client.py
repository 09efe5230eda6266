# Plain MCP (`mcp` 2): give Claude a tool of your own, and collect an answer that takes long.
# Run in a clone: `uv run docs/examples/mcp_client.py --offline` (without it: your Kiro login).

import asyncio
import os
import sys

from mcp import Client, StdioServerParameters, stdio_client

KIRO = StdioServerParameters(command="kiro-mcp", args=["serve", *sys.argv[1:]], env={**os.environ})
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Get the weather of a city.", "inputSchema": CITY}
WEATHER, CURLEW = "What is the weather in Paris?", "Describe the curlew."
if "--offline" in sys.argv:  # The emulator needs to be told how to answer.
    WEATHER, CURLEW = '/emulate tool_use {"city": "Paris"}', "/emulate slow 3"


async def ask(client, **arguments):
    result = await client.call_tool("ask_claude", arguments)
    if result.is_error:
        sys.exit(result.content[0].text)
    return result.structured_content


async def main():
    async with Client(stdio_client(KIRO)) as client:
        answer = await ask(client, prompt=WEATHER, tools=[TOOL])
        while calls := answer["tool_calls"]:  # Run your tool with call["arguments"] for each.
            results = [{"id": call["id"], "content": "sunny, 18 °C"} for call in calls]
            same = answer["conversation_id"]
            answer = await ask(client, conversation_id=same, tool_results=results)
        print(answer["text"])
        answer = await ask(client, prompt=CURLEW, wait_seconds=1)
        while answer["status"] == "running":  # It takes longer than the call waits: collect it.
            print("running:", answer["text"])
            answer = await ask(client, answer_id=answer["answer_id"])
        print(answer["text"])


asyncio.run(main())
