"""LiteLLM, which speaks either API by the name of the model."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
from checks import (
    ARGUMENTS,
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

TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA},
    }
]


class City(BaseModel):
    city: str
    days: list[int]


def add_checks(provider, base):
    def ask(*turns, **members):
        messages = [
            {"role": "user", "content": turn} if isinstance(turn, str) else turn for turn in turns
        ]
        return litellm.completion(
            model=f"{provider}/{MODEL}",
            api_base=base,
            api_key=KEY,
            messages=messages,
            max_retries=0,
            **members,
        )

    @check(f"{provider}/, answer")
    def _():
        answer = ask(HELLO)
        has(answer.choices[0].message.content, SAID)
        same(answer.choices[0].finish_reason, "stop")
        same(answer.usage.completion_tokens > 0, True)

    @check(f"{provider}/, stream")
    def _():
        chunks = list(ask(HELLO, stream=True))
        has("".join(chunk.choices[0].delta.content or "" for chunk in chunks), SAID)
        same(chunks[-1].choices[0].finish_reason, "stop")

    @check(f"{provider}/, tool call and result")
    def _():
        called = ask(CALL, tools=TOOLS).choices[0].message
        chunks = list(ask(CALL, tools=TOOLS, stream=True))
        whole = litellm.stream_chunk_builder(chunks).choices[0].message
        for message in (called, whole):
            [call] = message.tool_calls
            same(
                [call.function.name, json.loads(call.function.arguments)],
                ["get_weather", ARGUMENTS],
            )
            result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
            has(ask(CALL, message, result, tools=TOOLS).choices[0].message.content, RESULT)

    @check(f"{provider}/, structured output")
    def _():
        text = ask(TYPED, response_format=City).choices[0].message.content
        same(City.model_validate_json(text), City(**CITY))

    @check(f"{provider}/, thinking comes back")
    def _():
        asked = {"thinking": {"type": "enabled", "budget_tokens": 4000}}
        asked = asked if provider == "anthropic" else {}
        first = ask(THINK, **asked).choices[0].message
        same(first.reasoning_content, THOUGHT)
        same(bool(first.thinking_blocks[0]["signature"]), True)
        has(ask(THINK, first, HELLO, **asked).choices[0].message.content, SAID)

    @check(f"{provider}/, errors")
    def _():
        error = raises(openai.APIError, lambda: ask("/emulate quota"))
        same(isinstance(error, litellm.RateLimitError), False)
        raises(litellm.AuthenticationError, lambda: ask("/emulate expired"))
        raises(litellm.ContextWindowExceededError, lambda: ask("/emulate too_long"))


add_checks("openai", f"{BASE}/v1")
add_checks("anthropic", BASE)
main()
