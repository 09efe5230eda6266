"""smolagents with mcpadapt: a tool is called as the tool-calling agent does."""

from contextlib import asynccontextmanager

from mcp import StdioServerParameters
from questions import SERVER_WAITS, asyncio, main
from smolagents import MCPClient, ToolCallingAgent
from smolagents.models import (
    ChatMessage,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    Model,
)

EMPTY = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}


class Scripted(Model):
    """Calls `ask_claude` once, keeps what it got back, and ends."""

    def __init__(self, call):
        super().__init__()
        self.call, self.seen, self.tools = call, "", []

    def generate(self, messages, tools_to_call_from=(), **_):
        returned = [m for m in messages if m.role == MessageRole.TOOL_RESPONSE]
        if returned:
            self.seen = "\n".join(part["text"] for part in returned[-1].content)
            name, arguments = "final_answer", {"answer": "done"}
        else:
            # The agent adds a tool of its own.
            names = [tool.name for tool in tools_to_call_from]
            self.tools = [name for name in names if name != "final_answer"]
            name, arguments = "ask_claude", self.call
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        calls = [ChatMessageToolCall(id="call_1", type="function", function=function)]
        return ChatMessage(role=MessageRole.ASSISTANT, content="", tool_calls=calls)


@asynccontextmanager
async def connected(command, arguments, env):
    server = StdioServerParameters(command=command, args=arguments, env=env)
    with MCPClient(server, structured_output=False) as tools:
        [inputs] = [tool.inputs for tool in tools if tool.name == "ask_claude"]
        # smolagents takes a call only with every argument, so the model sends empty ones. For
        # `wait_seconds`, 0 would wait to the end.
        empty = {name: EMPTY[schema["type"]] for name, schema in inputs.items()}
        empty["wait_seconds"] = SERVER_WAITS
        names = []

        async def ask(call):
            model = Scripted({**empty, **call})
            agent = ToolCallingAgent(tools=tools, model=model, max_steps=3, verbosity_level=0)
            await asyncio.to_thread(agent.run, "go")
            names[:] = model.tools
            return model.seen

        yield names, ask


main(connected)
