"""LangChain's chat models for both APIs, and for OpenAI's in both of its forms."""

import anthropic
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
    TYPED,
    check,
    has,
    main,
    raises,
    same,
)
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

OPENAI = {"model": MODEL, "base_url": f"{BASE}/v1", "api_key": KEY, "max_retries": 0}
MODELS = {
    "ChatOpenAI": ChatOpenAI(**OPENAI),
    "ChatOpenAI, responses": ChatOpenAI(**OPENAI, use_responses_api=True),
    "ChatAnthropic": ChatAnthropic(model=MODEL, base_url=BASE, api_key=KEY, max_retries=0),
}
TOOL = {"title": "get_weather", "description": "The weather.", **SCHEMA}


class City(BaseModel):
    """A city."""

    city: str
    days: list[int]


def add_checks(name, model):
    @check(f"{name}, answer")
    def _():
        answer = model.invoke(HELLO)
        has(answer.text, SAID)
        same(answer.usage_metadata["output_tokens"] > 0, True)

    @check(f"{name}, stream")
    def _():
        pieces = [chunk.text for chunk in model.stream(HELLO)]
        has("".join(pieces), SAID)
        same(len(pieces) > 2, True)

    @check(f"{name}, tool call and result")
    def _():
        with_tools = model.bind_tools([TOOL])
        called = with_tools.invoke(CALL)
        [call] = called.tool_calls
        same([call["name"], call["args"]], ["get_weather", ARGUMENTS])
        chunks = list(with_tools.stream(CALL))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        same([call["args"] for call in whole.tool_calls], [ARGUMENTS])
        for answered in (called, whole):
            result = ToolMessage(RESULT, tool_call_id=answered.tool_calls[0]["id"])
            has(with_tools.invoke([HumanMessage(CALL), answered, result]).text, RESULT)

    @check(f"{name}, structured output")
    def _():
        method = {"method": "json_schema"}
        same(model.with_structured_output(City, **method).invoke(TYPED), City(**CITY))
        by_call = model.with_structured_output(City, method="function_calling")
        prompt = '/emulate tool_use {"city": "Paris", "days": [1, 2]}'
        same(by_call.invoke(prompt), City(**CITY))


for one in MODELS.items():
    add_checks(*one)


@check("errors")
def _():
    kinds = (openai.APIStatusError, openai.APIStatusError, anthropic.APIStatusError)
    for model, kind in zip(MODELS.values(), kinds, strict=True):
        raises(kind, lambda model=model: model.invoke("/emulate quota"))


main()
