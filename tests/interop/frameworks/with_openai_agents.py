"""openai-agents: an agent whose model is scripted."""

from contextlib import asynccontextmanager

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from questions import json, main


class Scripted(Model):
    """Calls `ask_claude` once, and keeps what it got back."""

    def __init__(self, call):
        self.call, self.tools, self.seen = call, [], ""

    async def get_response(self, system_instructions, input, model_settings, tools, *_, **__):
        outputs = [] if isinstance(input, str) else [item.get("output") for item in input]
        outputs = [output for output in outputs if output]
        if outputs:
            parts = outputs[-1] if isinstance(outputs[-1], list) else [{"text": outputs[-1]}]
            self.seen = "\n".join(part["text"] for part in parts)
            text = ResponseOutputText(text="done", type="output_text", annotations=[])
            item = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            self.tools = [tool.name for tool in tools]
            item = ResponseFunctionToolCall(
                call_id="call_1",
                name="ask_claude",
                arguments=json.dumps(self.call),
                type="function_call",
            )
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *_, **__):
        raise NotImplementedError


@asynccontextmanager
async def connected(command, arguments, env):
    set_tracing_disabled(True)
    async with MCPServerStdio({"command": command, "args": arguments, "env": env}) as server:
        tools = []

        async def ask(call):
            model = Scripted(call)
            await Runner.run(Agent("agent", model=model, mcp_servers=[server]), "go")
            tools[:] = model.tools
            return model.seen

        yield tools, ask


main(connected, patience_seconds=5)
