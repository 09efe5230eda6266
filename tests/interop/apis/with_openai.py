"""OpenAI's Python SDK."""

import asyncio
import json

import openai
from checks import (
    ARGUMENTS,
    AT_ONCE,
    BASE,
    CALL,
    CITY,
    HELLO,
    KEY,
    MODEL,
    RESULT,
    SAID,
    SCHEMA,
    THINK,
    THOUGHT,
    TYPED,
    check,
    has,
    main,
    raises,
    same,
)
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0)
FUNCTION = {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
FLAT_TOOLS = [{"type": "function", **FUNCTION}]
GRAMMAR_TOOL = {"type": "custom", "name": "apply_patch", "description": "Patches."}


class City(BaseModel):
    city: str
    days: list[int]


def ask(text, **members):
    turns = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=turns, **members)


def message_of(answer):
    return answer.choices[0].message


@check("answer")
def _():
    answer = ask(HELLO)
    has(message_of(answer).content, SAID)
    same(answer.choices[0].finish_reason, "stop")
    same(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


@check("stream")
def _():
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": HELLO}],
        stream_options={"include_usage": True},
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    has("".join(pieces), SAID)
    same(message_of(final).content, "".join(pieces))
    same(len(pieces) > 1, True)
    same(final.usage.completion_tokens > 0, True)


@check("tool call and result")
def _():
    called = message_of(ask(CALL, tools=TOOLS))
    [call] = called.tool_calls
    same([call.function.name, json.loads(call.function.arguments)], ["get_weather", ARGUMENTS])
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    turns = [{"role": "user", "content": CALL}, called, result]
    answer = client.chat.completions.create(model=MODEL, messages=turns, tools=TOOLS)
    has(message_of(answer).content, RESULT)


@check("streamed tool calls, two at once")
def _():
    other = {"type": "function", "function": {**FUNCTION, "name": "get_tide"}}
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": CALL.replace("tool_use", "parallel_tools")}],
        tools=[*TOOLS, other],
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    same([event.name for event in done], ["get_weather", "get_tide"])
    calls = message_of(final).tool_calls
    same([json.loads(call.function.arguments) for call in calls], [ARGUMENTS, ARGUMENTS])
    same(final.choices[0].finish_reason, "tool_calls")
    results = [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in calls]
    turns = [{"role": "user", "content": "go"}, message_of(final), *results]
    answer = client.chat.completions.create(model=MODEL, messages=turns, tools=[*TOOLS, other])
    has(message_of(answer).content, f"{RESULT} {RESULT}")


@check("parsed answer")
def _():
    turns = [{"role": "user", "content": TYPED}]
    answer = client.chat.completions.parse(model=MODEL, messages=turns, response_format=City)
    same(message_of(answer).parsed, City(**CITY))
    with client.chat.completions.stream(
        model=MODEL, messages=turns, response_format=City
    ) as stream:
        final = stream.until_done().get_final_completion()
    same(message_of(final).parsed, City(**CITY))


@check("thinking comes back")
def _():
    said = message_of(ask(THINK, reasoning_effort="high"))
    same(said.reasoning_content, THOUGHT)
    turns = [{"role": "user", "content": THINK}, said, {"role": "user", "content": HELLO}]
    answer = client.chat.completions.create(model=MODEL, messages=turns)
    has(message_of(answer).content, SAID)


@check("stop sequences")
def _():
    answer = ask(HELLO, stop=["nowhere", " emulator"])
    same(message_of(answer).content, "This is a canned answer of the")
    same(answer.choices[0].finish_reason, "stop")
    chunks = list(ask(HELLO, stop=" emulator", stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    same(text, "This is a canned answer of the")


@check("response")
def _():
    response = client.responses.create(model=MODEL, input=HELLO, instructions="Be brief.")
    has(response.output_text, HELLO)
    same(response.status, "completed")
    same(response.usage.output_tokens > 0, True)


@check("response stream")
def _():
    with client.responses.stream(model=MODEL, input=HELLO) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    has("".join(pieces), SAID)
    same(final.output_text, "".join(pieces))


@check("response with a tool call and its result, streamed")
def _():
    with client.responses.stream(model=MODEL, input=CALL, tools=FLAT_TOOLS) as stream:
        final = stream.until_done().get_final_response()
    [call] = [item for item in final.output if item.type == "function_call"]
    same([call.name, json.loads(call.arguments)], ["get_weather", ARGUMENTS])
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    turns = [{"role": "user", "content": CALL}, *final.output, result]
    answer = client.responses.create(model=MODEL, input=turns, tools=FLAT_TOOLS)
    has(answer.output_text, RESULT)


@check("response with a custom tool")
def _():
    prompt = '/emulate tool_use {"input": "*** Begin Patch"}'
    response = client.responses.create(model=MODEL, input=prompt, tools=[GRAMMAR_TOOL])
    [call] = [item for item in response.output if item.type == "custom_tool_call"]
    same([call.name, call.input], ["apply_patch", "*** Begin Patch"])
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": RESULT}
    turns = [{"role": "user", "content": prompt}, *response.output, result]
    answer = client.responses.create(model=MODEL, input=turns, tools=[GRAMMAR_TOOL])
    has(answer.output_text, RESULT)


@check("response parsed")
def _():
    answer = client.responses.parse(model=MODEL, input=TYPED, text_format=City)
    same(answer.output_parsed, City(**CITY))


@check("response with reasoning, which comes back")
def _():
    effort = {"effort": "high", "summary": "auto"}
    include = ["reasoning.encrypted_content"]
    first = client.responses.create(model=MODEL, input=THINK, reasoning=effort, include=include)
    [thought] = [item for item in first.output if item.type == "reasoning"]
    same(thought.summary[0].text, THOUGHT)
    turns = [{"role": "user", "content": THINK}, *first.output, {"role": "user", "content": HELLO}]
    has(client.responses.create(model=MODEL, input=turns).output_text, SAID)


@check("errors")
def _():
    kinds = {
        "quota": openai.APIStatusError,
        "throttle": openai.RateLimitError,
        "busy": openai.InternalServerError,
        "failed": openai.InternalServerError,
        "reset": openai.InternalServerError,
        "expired": openai.AuthenticationError,
        "too_long": openai.BadRequestError,
        "malformed": openai.BadRequestError,
        "invalid_model": openai.NotFoundError,
    }
    for name, kind in kinds.items():
        error = raises(kind, lambda name=name: ask(f"/emulate {name}"))
        same(bool(error.request_id), True)
        if name != "reset":  # Streamed, it breaks after the status.
            raises(kind, lambda name=name: ask(f"/emulate {name}", stream=True))
    error = raises(openai.APIStatusError, lambda: ask("/emulate quota"))
    same([error.status_code, error.code, error.type], [402, *["insufficient_quota"] * 2])
    error = raises(openai.BadRequestError, lambda: ask("/emulate too_long"))
    same(error.code, "context_length_exceeded")
    raises(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    raises(openai.BadRequestError, lambda: ask(HELLO, n=2))


@check("a broken stream raises")
def _():
    raises(openai.APIError, lambda: list(ask("/emulate reset", stream=True)))
    seen = list(client.responses.create(model=MODEL, input="/emulate reset", stream=True))
    same(seen[-1].type, "response.failed")
    same(seen[-1].response.status, "failed")


@check("models")
def _():
    same(MODEL in [model.id for model in client.models.list()], True)
    same(client.models.retrieve(MODEL).id, MODEL)


@check(f"{AT_ONCE} at once, each with its own answer")
def _():
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0) as at_once:

            async def one(number):
                turns = [{"role": "user", "content": f"question {number}"}]
                stream = await at_once.chat.completions.create(
                    model=MODEL, messages=turns, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(AT_ONCE)))

    for number, text in enumerate(asyncio.run(all_of_them())):
        same(text.rpartition("said: ")[2], f"question {number}")


@check("a suspended account")  # The last check: nothing more is sent for this account.
def _():
    raises(openai.PermissionDeniedError, lambda: ask("/emulate suspended"))


main()
