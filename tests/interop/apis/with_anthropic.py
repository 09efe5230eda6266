"""Anthropic's Python SDK."""

import asyncio

import anthropic
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

client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0)
TOOL = {"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}


class City(BaseModel):
    city: str
    days: list[int]


def request(*turns, **members):
    messages = [
        {"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in turns
    ]
    return {"model": MODEL, "max_tokens": 8000, "messages": messages, **members}


def ask(*turns, **members):
    return client.messages.create(**request(*turns, **members))


def stream(*turns, **members):
    with client.messages.stream(**request(*turns, **members)) as events:
        return events.get_final_message()


def results_of(answer):
    uses = [block for block in answer.content if block.type == "tool_use"]
    blocks = [{"type": "tool_result", "tool_use_id": use.id, "content": RESULT} for use in uses]
    return {"role": "user", "content": blocks}


def said(answer):
    return {"role": "assistant", "content": answer.content}


@check("answer")
def _():
    answer = ask(HELLO, system="Be brief.")
    has(answer.content[0].text, HELLO)
    same(answer.stop_reason, "end_turn")
    same(answer.usage.output_tokens > 0, True)


@check("stream")
def _():
    with client.messages.stream(**request(HELLO)) as events:
        pieces = list(events.text_stream)
        final = events.get_final_message()
    has("".join(pieces), SAID)
    same(final.content[0].text, "".join(pieces))
    same(final.usage.output_tokens > 0, True)
    same(final.usage.input_tokens > 0, True)


@check("tool call and result")
def _():
    for way in (ask, stream):
        called = way(CALL, tools=[TOOL])
        [use] = [block for block in called.content if block.type == "tool_use"]
        same([use.name, use.input], ["get_weather", ARGUMENTS])
        same(called.stop_reason, "tool_use")
        answer = way(CALL, said(called), results_of(called), tools=[TOOL])
        has(answer.content[0].text, RESULT)


@check("two tool calls at once")
def _():
    tools = [TOOL, {**TOOL, "name": "get_tide"}]
    called = stream(CALL.replace("tool_use", "parallel_tools"), tools=tools)
    uses = [block for block in called.content if block.type == "tool_use"]
    same([use.name for use in uses], ["get_weather", "get_tide"])
    same([use.input for use in uses], [ARGUMENTS, ARGUMENTS])
    answer = ask("go", said(called), results_of(called), tools=tools)
    has(answer.content[0].text, f"{RESULT} {RESULT}")


@check("parsed answer")
def _():
    answer = client.messages.parse(**request(TYPED), output_format=City)
    same(answer.parsed_output, City(**CITY))


@check("thinking comes back")
def _():
    for way in (ask, stream):
        thinking = {"type": "enabled", "budget_tokens": 4000}
        answer = way(THINK, thinking=thinking)
        same([block.type for block in answer.content], ["thinking", "text"])
        same(answer.content[0].thinking, THOUGHT)
        same(bool(answer.content[0].signature), True)
        has(way(THINK, said(answer), HELLO, thinking=thinking).content[0].text, SAID)


@check("stop sequences")
def _():
    for way in (ask, stream):
        answer = way(HELLO, stop_sequences=["nowhere", " emulator"])
        same(answer.content[0].text, "This is a canned answer of the")
        same([answer.stop_reason, answer.stop_sequence], ["stop_sequence", " emulator"])


@check("errors")
def _():
    kinds = {
        "quota": anthropic.PaymentRequiredError,
        "throttle": anthropic.RateLimitError,
        "busy": anthropic.OverloadedError,
        "failed": anthropic.InternalServerError,
        "reset": anthropic.InternalServerError,
        "expired": anthropic.AuthenticationError,
        "too_long": anthropic.BadRequestError,
        "malformed": anthropic.BadRequestError,
        "invalid_model": anthropic.NotFoundError,
    }
    for name, kind in kinds.items():
        error = raises(kind, lambda name=name: ask(f"/emulate {name}"))
        same(bool(error.request_id), True)
        if name != "reset":  # Streamed, it breaks after the status.
            raises(kind, lambda name=name: stream(f"/emulate {name}"))
    raises(anthropic.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    raises(anthropic.BadRequestError, lambda: ask())


@check("a broken stream raises")
def _():
    raises(anthropic.APIStatusError, lambda: stream("/emulate reset"))


@check("models")
def _():
    same(MODEL in [model.id for model in client.models.list()], True)
    same(client.models.retrieve(MODEL).id, MODEL)


@check("count_tokens")
def _():
    def count(text):
        turns = [{"role": "user", "content": text}]
        return client.messages.count_tokens(model=MODEL, messages=turns, tools=[TOOL]).input_tokens

    same(0 < count("hello") < count("hello " * 1000), True)


@check(f"{AT_ONCE} at once, each with its own answer")
def _():
    async def all_of_them():
        async with anthropic.AsyncAnthropic(base_url=BASE, api_key=KEY, max_retries=0) as at_once:

            async def one(number):
                answer = await at_once.messages.create(**request(f"question {number}"))
                return answer.content[0].text

            return await asyncio.gather(*map(one, range(AT_ONCE)))

    for number, text in enumerate(asyncio.run(all_of_them())):
        same(text.rpartition("said: ")[2], f"question {number}")


@check("a suspended account")  # The last check: nothing more is sent for this account.
def _():
    raises(anthropic.PermissionDeniedError, lambda: ask("/emulate suspended"))


main()
