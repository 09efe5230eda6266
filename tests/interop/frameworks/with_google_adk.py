"""google-adk: an agent whose model is scripted."""

from contextlib import asynccontextmanager

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters
from questions import json, main


class Scripted(BaseLlm):
    """Calls `ask_claude` once, and keeps what it got back."""

    call: dict
    seen: list
    tools: list

    async def generate_content_async(self, llm_request, stream=False):
        returned = [
            part.function_response.response
            for part in llm_request.contents[-1].parts
            if part.function_response
        ]
        if returned:
            self.seen.append(json.dumps(returned[0]))
            part = types.Part(text="done")
        else:
            self.tools += llm_request.tools_dict
            part = types.Part(
                function_call=types.FunctionCall(name="ask_claude", args=self.call, id="call_1")
            )
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


@asynccontextmanager
async def connected(command, arguments, env):
    server = StdioServerParameters(command=command, args=arguments, env=env)
    toolset = McpToolset(connection_params=StdioConnectionParams(server_params=server))

    tools = []

    async def ask(call):
        model = Scripted(model="scripted", call=call, seen=[], tools=[])
        agent = LlmAgent(name="agent", model=model, tools=[toolset])
        await InMemoryRunner(agent=agent).run_debug("go", quiet=True)
        tools[:] = model.tools
        return "\n".join(model.seen)

    yield tools, ask
    await toolset.close()


main(connected, patience_seconds=5)
