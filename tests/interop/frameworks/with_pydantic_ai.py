"""pydantic-ai: an agent whose model is a function."""

from contextlib import asynccontextmanager

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from questions import main


@asynccontextmanager
async def connected(command, arguments, env):
    toolset = MCPToolset(StdioTransport(command, arguments, env=env))
    tools = []

    async def ask(call):
        seen = []

        def answer(messages, info):
            returned = [part for part in messages[-1].parts if part.part_kind != "user-prompt"]
            if not returned:
                tools[:] = [tool.name for tool in info.function_tools]
                return ModelResponse(parts=[ToolCallPart("ask_claude", call)])
            for part in returned:
                is_return = part.part_kind == "tool-return"
                seen.append(part.model_response_str() if is_return else part.model_response())
            return ModelResponse(parts=[TextPart("done")])

        await Agent(FunctionModel(answer), toolsets=[toolset]).run("go")
        return "\n".join(seen)

    async with toolset:
        yield tools, ask


main(connected)
