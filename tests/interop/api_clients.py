"""What the vendors' own Python SDKs make of the API: run by `tests.interop.run` with a base URL.

It prints one JSON object: for each check, what the SDK returned.
"""

import asyncio
import json
import sys
from typing import Any

import anthropic
import openai

BASE = sys.argv[1]
MODEL = "claude-sonnet-4.5"
HELLO: Any = [{"role": "user", "content": "hello"}]
ARGUMENTS = '{"city": "Paris", "days": [1, 2]}'
CALL: Any = [{"role": "user", "content": f"/emulate tool_use {ARGUMENTS}"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array"}},
}
FUNCTION: Any = {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}


def with_openai() -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="x", max_retries=0)
    tools: Any = [{"type": "function", "function": FUNCTION}]
    seen: dict[str, Any] = {}
    plain = client.chat.completions.create(model=MODEL, messages=HELLO)
    seen["answer"] = plain.choices[0].message.content
    with client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:
        seen["stream"] = stream.until_done().get_final_completion().choices[0].message.content
    called = client.chat.completions.create(model=MODEL, messages=CALL, tools=tools)
    call: Any = (called.choices[0].message.tool_calls or [])[0]
    seen["call"] = [call.function.name, json.loads(call.function.arguments)]
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "two avocets"}
    turns: Any = [*CALL, called.choices[0].message, result]
    answer = client.chat.completions.create(model=MODEL, messages=turns, tools=tools)
    seen["result"] = answer.choices[0].message.content
    response = client.responses.create(model=MODEL, input="hello")
    seen["response"] = response.output_text
    with client.responses.stream(model=MODEL, input="hello") as events:
        seen["response stream"] = events.until_done().get_final_response().output_text
    seen["models"] = MODEL in [model.id for model in client.models.list()]
    for name, words in (("quota", "/emulate quota"), ("reset", "/emulate reset")):
        try:
            turn: Any = [{"role": "user", "content": words}]
            chunks = client.chat.completions.create(model=MODEL, messages=turn, stream=True)
            seen[name] = [chunk.model_dump() for chunk in chunks][-1]
        except openai.APIError as error:
            seen[name] = type(error).__name__
    return seen


def with_anthropic() -> dict[str, Any]:
    client = anthropic.Anthropic(base_url=BASE, api_key="x", max_retries=0)
    tools: Any = [{"name": "get_weather", "description": "x", "input_schema": SCHEMA}]
    seen: dict[str, Any] = {}
    plain: Any = client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    seen["answer"] = plain.content[0].text
    with client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
        seen["stream"] = stream.get_final_text()
    called: Any = client.messages.create(model=MODEL, max_tokens=100, messages=CALL, tools=tools)
    use = called.content[-1]
    seen["call"] = [use.name, use.input]
    block = {"type": "tool_result", "tool_use_id": use.id, "content": "two avocets"}
    turns: Any = [
        *CALL,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [block]},
    ]
    answer: Any = client.messages.create(model=MODEL, max_tokens=100, messages=turns, tools=tools)
    seen["result"] = answer.content[0].text
    counted = client.messages.count_tokens(model=MODEL, messages=HELLO)
    seen["tokens"] = counted.input_tokens > 0
    seen["models"] = MODEL in [model.id for model in client.models.list()]
    for name, words in (("quota", "/emulate quota"), ("reset", "/emulate reset")):
        try:
            turn: Any = [{"role": "user", "content": words}]
            with client.messages.stream(model=MODEL, max_tokens=100, messages=turn) as stream:
                seen[name] = stream.get_final_text()
        except anthropic.APIError as error:
            seen[name] = type(error).__name__
    return seen


async def at_once() -> list[bool]:
    """Ask 64 questions at once, with both SDKs; each must get its own answer."""
    theirs = openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key="x", max_retries=0)
    ours = anthropic.AsyncAnthropic(base_url=BASE, api_key="x", max_retries=0)

    async def ask(number: int) -> bool:
        turn: Any = [{"role": "user", "content": f"question {number}"}]
        if number % 2:
            answer = await theirs.chat.completions.create(model=MODEL, messages=turn)
            text = answer.choices[0].message.content or ""
        else:
            said: Any = await ours.messages.create(model=MODEL, max_tokens=9, messages=turn)
            text = said.content[0].text
        return text.endswith(f"question {number}")

    return list(await asyncio.gather(*map(ask, range(64))))


print(
    json.dumps(
        {"openai": with_openai(), "anthropic": with_anthropic(), "at once": asyncio.run(at_once())}
    )
)
