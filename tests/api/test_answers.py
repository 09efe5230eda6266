"""The answers of the APIs, whole and as streams."""

import json
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.emulator import Cut, Pause, RunningEmulator, Send, frames
from kiro_mcp.emulator.catalogue import CATALOGUE
from kiro_mcp.emulator.request import Call, RestRequest, WireForm
from kiro_mcp.emulator.state import GENERATE
from kiro_mcp.wire.eventstream import encode_frame
from kiro_mcp.wire.schema import sendable_schema
from tests.support.api import (
    CHAT,
    MESSAGES,
    PATHS,
    RESPONSES,
    Json,
    ask,
    ending_of,
    events,
    question,
    serving_api,
    stream,
    streamed_text,
    text_of,
)

TEST_SECONDS = 30
END = Send(frames.ending("END_TURN"))
ARGUMENTS = '{"city":  "Paris",\n "days": [1, 2.0, 1e2], "note": "caf\\u00e9"}'
SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array"}},
}


def tool(path: str, name: str = "get_weather", schema: Json = SCHEMA) -> Json:
    """A tool in the shape of an API."""
    if path == MESSAGES:
        return {"name": name, "description": "The weather.", "input_schema": schema}
    function = {"name": name, "description": "The weather.", "parameters": schema}
    return (
        {"type": "function", **function}
        if path == RESPONSES
        else {
            "type": "function",
            "function": function,
        }
    )


def calls_of(path: str, answer: Json) -> list[tuple[str, str, Any]]:
    """Id, name and arguments of each call in a whole answer."""
    if path == CHAT:
        calls = answer["choices"][0]["message"].get("tool_calls", [])
        return [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in calls]
    if path == MESSAGES:
        uses = [block for block in answer["content"] if block["type"] == "tool_use"]
        return [(use["id"], use["name"], use["input"]) for use in uses]
    calls = [item for item in answer["output"] if item["type"] == "function_call"]
    return [(call["call_id"], call["name"], call["arguments"]) for call in calls]


def prompts(emulator: RunningEmulator) -> list[Call]:
    """The prompts that the service was sent."""
    bodies = [request.body for request in emulator.state.requests_to(GENERATE)]
    requests = [RestRequest.model_validate(body) for body in bodies]
    return [Call(request, WireForm.REST, CATALOGUE) for request in requests]


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_says_what_the_whole_answer_says(
    path: str, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "hello")
            seen = await stream(client, path, "hello")
    assert text_of(path, answer).endswith("You said: hello")
    assert streamed_text(path, seen) == text_of(path, answer)
    assert answer["model"] == "claude-sonnet-4.5"
    assert ending_of(path, answer) in ("stop", "end_turn", "completed")


async def test_the_usage_is_in_the_last_chunk_if_it_is_asked_for(
    emulator: RunningEmulator,
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            without = await stream(client, CHAT, "hello")
            options = {"include_usage": True}
            seen = await stream(client, CHAT, "hello", stream_options=options)
    assert not any("usage" in event for event in without)
    *_, last, done = seen
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0
    assert done == {}


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
async def test_the_last_event_of_a_stream_has_the_usage_of_the_whole_answer(
    path: str, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "hello")
            seen = await stream(client, path, "hello")
    streamed = seen[-1]["response"]["usage"] if path == RESPONSES else seen[-2]["usage"]
    assert streamed == answer["usage"]
    assert streamed["input_tokens"] > 0
    assert streamed["output_tokens"] > 0


async def test_64_questions_at_once_get_their_own_answers(emulator: RunningEmulator) -> None:
    said: dict[int, str] = {}

    async def ask_one(number: int, path: str) -> None:
        seen = await stream(client, path, f"mark-{number}.")
        said[number] = streamed_text(path, seen)

    with fail_after(TEST_SECONDS * 2):
        async with (
            serving_api(emulator, KIRO_MCP_MAX_CONCURRENCY="64") as client,
            anyio.create_task_group() as tasks,
        ):
            for number in range(64):
                tasks.start_soon(ask_one, number, PATHS[number % 3])
    assert len(said) == 64
    assert all(text.endswith(f"You said: mark-{number}.") for number, text in said.items())


async def test_each_event_of_the_responses_api_has_the_next_number(
    emulator: RunningEmulator,
) -> None:
    emulator.state.enqueue(
        (
            Send(frames.reasoning("I think.")),
            Send(frames.text("Hello.")),
            Send(frames.tool_use("tooluse_1", "get_weather", ARGUMENTS)),
            END,
        )
    )
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            seen = await stream(client, RESPONSES, "hello", tools=[tool(RESPONSES)])
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[0]["type"] == "response.created"
    done = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call"]
    assert seen[-1]["type"] == "response.completed"
    assert seen[-1]["response"]["output"] == done


# --- tools ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_arguments_are_those_that_the_model_wrote(
    path: str, emulator: RunningEmulator
) -> None:
    """Byte for byte where the API has them as text; several calls at once, each with its id."""
    emulator.state.enqueue(
        (
            Send(frames.tool_use("tooluse_A", "get_weather", ARGUMENTS)),
            Send(frames.tool_use("tooluse_B", "get_weather", "{}")),
            END,
        )
    )
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Weather?", tools=[tool(path)])
    expected: Any = json.loads(ARGUMENTS) if path == MESSAGES else ARGUMENTS
    empty: Any = {} if path == MESSAGES else "{}"
    assert calls_of(path, answer) == [
        ("tooluse_A", "get_weather", expected),
        ("tooluse_B", "get_weather", empty),
    ]
    assert ending_of(path, answer) in ("tool_calls", "tool_use", "completed")


@pytest.mark.parametrize("path", PATHS)
async def test_arguments_have_the_callers_names_of_properties(
    path: str, emulator: RunningEmulator
) -> None:
    """The service refuses such a name, so the model reads and writes another one."""
    schema: Json = {"type": "object", "properties": {"$filter": {"type": "string"}}}
    _, callers_names, _ = sendable_schema(schema)
    written = json.dumps(dict.fromkeys(callers_names, "x"))
    emulator.state.enqueue((Send(frames.tool_use("tooluse_A", "get_weather", written)), END))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Weather?", tools=[tool(path, schema=schema)])
    ((_, _, arguments),) = calls_of(path, answer)
    assert (arguments if path == MESSAGES else json.loads(arguments)) == {"$filter": "x"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fragments", "expected"),
    [
        ([" "], {}),
        (['{"city":', '"Rome"}', '{"city":"Rome"}'], {"city": "Rome"}),
        (['{"city":"\ud83c', '\udf55"}'], {"city": "🍕"}),
    ],
    ids=["only-white-space", "the-last-fragment-repeats-all", "a-character-in-two-fragments"],
)
async def test_arguments_are_json_whatever_their_fragments_are(
    path: str, fragments: list[str], expected: dict[str, str], emulator: RunningEmulator
) -> None:
    call = {"toolUseId": "tooluse_A", "name": "get_weather"}
    events = [*({**call, "input": fragment} for fragment in fragments), {**call, "stop": True}]
    headers = {":message-type": "event", ":event-type": "toolUseEvent"}
    sent = [Send(encode_frame(headers, json.dumps(one).encode())) for one in events]
    emulator.state.enqueue((*sent, END))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Weather?", tools=[tool(path)])
    ((_, _, arguments),) = calls_of(path, answer)
    assert (arguments if path == MESSAGES else json.loads(arguments)) == expected


async def test_streamed_calls_have_the_arguments_that_the_model_wrote(
    emulator: RunningEmulator,
) -> None:
    script = (
        Send(frames.tool_use("tooluse_A", "get_weather", ARGUMENTS)),
        Send(frames.tool_use("tooluse_B", "get_weather", "{}")),
        END,
    )
    emulator.state.enqueue(script, script, script)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            chat, responses, messages = [
                await stream(client, path, "Weather?", tools=[tool(path)])
                for path in (CHAT, RESPONSES, MESSAGES)
            ]
    deltas = [event["choices"][0]["delta"] for event in chat if event.get("choices")]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [
        (0, ARGUMENTS),
        (1, "{}"),
    ]
    pieces = [event for event in responses if event["type"].endswith("arguments.delta")]
    assert [(event["output_index"], event["delta"]) for event in pieces] == [
        (0, ARGUMENTS),
        (1, "{}"),
    ]
    inputs = [event for event in messages if event["type"] == "content_block_delta"]
    assert [(event["index"], event["delta"]["partial_json"]) for event in inputs] == [
        (0, ARGUMENTS),
        (1, "{}"),
    ]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_text_that_could_begin_a_stop_sequence_comes_before_the_call_that_follows(
    path: str, emulator: RunningEmulator
) -> None:
    call = Send(frames.tool_use("tooluse_A", "get_weather", "{}"))
    emulator.state.enqueue((Send(frames.text("Let me ST")), call, END))
    name = "stop" if path == CHAT else "stop_sequences"
    members = {"tools": [tool(path)], name: ["STOP"]}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            seen = await stream(client, path, "Weather?", **members)
    assert streamed_text(path, seen) == "Let me ST"
    in_order = json.dumps(seen)
    assert in_order.index("ST") < in_order.index("tooluse_A")


@pytest.mark.parametrize("path", PATHS)
async def test_a_result_finds_its_call_by_the_id_that_came_out(
    path: str, emulator: RunningEmulator
) -> None:
    emulator.state.enqueue((Send(frames.tool_use("tooluse_A", "get_weather", ARGUMENTS)), END))
    body = question(path, "Weather?", tools=[tool(path)])
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = (await client.post(path, json=body)).json()
            ((call_id, _, _),) = calls_of(path, answer)
            if path == CHAT:
                result: Json = {"role": "tool", "tool_call_id": call_id, "content": "rain"}
                body["messages"] += [answer["choices"][0]["message"], result]
            elif path == MESSAGES:
                block = {"type": "tool_result", "tool_use_id": call_id, "content": "rain"}
                body["messages"] += [
                    {"role": "assistant", "content": answer["content"]},
                    {"role": "user", "content": [{**block, "is_error": True}]},
                ]
            else:
                result = {"type": "function_call_output", "call_id": call_id, "output": "rain"}
                asked = {"role": "user", "content": "Weather?"}
                body["input"] = [asked, *answer["output"], result]
            second = (await client.post(path, json=body)).json()
    assert "Your tools said: rain" in text_of(path, second)
    (sent,) = prompts(emulator)[-1].current.context.tool_results
    assert sent.tool_use_id == call_id
    assert sent.status == ("error" if path == MESSAGES else "success")


@pytest.mark.parametrize("path", PATHS)
async def test_a_call_that_was_cut_off_is_not_handed_over(
    path: str, emulator: RunningEmulator
) -> None:
    cut = frames.unfinished_tool_use("tooluse_A", "get_weather", '{"city": "Par')
    script = (Send(frames.text("Let me look.")), Send(cut), Send(frames.ending("MAX_TOKENS")))
    emulator.state.enqueue(script, script)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Weather?", tools=[tool(path)])
            seen = await stream(client, path, "Weather?", tools=[tool(path)])
    assert calls_of(path, answer) == []
    assert ending_of(path, answer) in ("length", "max_tokens", "max_output_tokens")
    assert "tooluse_A" not in json.dumps(seen)


@pytest.mark.parametrize("path", PATHS)
async def test_a_call_in_an_answer_that_breaks_off_is_not_handed_over(
    path: str, emulator: RunningEmulator
) -> None:
    cut = frames.unfinished_tool_use("tooluse_A", "get_weather", '{"city": "Par')
    script = (Send(frames.text("Let me look.")), Send(cut), Cut())
    emulator.state.enqueue(script, script)
    body = question(path, "Weather?", tools=[tool(path)])
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            whole = await client.post(path, json=body)
            seen = await stream(client, path, "Weather?", tools=[tool(path)])
    assert whole.status_code == 502
    assert "tooluse_A" not in whole.text
    assert "tooluse_A" not in json.dumps(seen)
    assert "stream_broken" in json.dumps(seen[-1])


async def test_a_custom_tool_takes_text_and_a_namespace_keeps_its_name(
    emulator: RunningEmulator,
) -> None:
    """As Codex offers them."""
    inner = {"type": "function", "name": "list_files", "parameters": {"type": "object"}}
    tools = [
        {"type": "custom", "name": "apply_patch", "description": "Patch files."},
        {"type": "namespace", "name": "repo", "description": "x", "tools": [inner]},
    ]
    emulator.state.enqueue(
        (
            Send(frames.tool_use("tooluse_A", "apply_patch", '{"input": "*** Begin"}')),
            Send(frames.tool_use("tooluse_B", "repo__list_files", "{}")),
            END,
        )
    )
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, RESPONSES, "Patch it.", tools=tools)
            patch, listing = answer["output"]
            results = [
                {"type": "custom_tool_call_output", "call_id": "tooluse_A", "output": "done"},
                {"type": "function_call_output", "call_id": "tooluse_B", "output": "a.py"},
            ]
            items = [{"role": "user", "content": "Patch it."}, *answer["output"], *results]
            body = {"model": "auto", "input": items, "tools": tools}
            second = (await client.post(RESPONSES, json=body)).json()
    assert (patch["type"], patch["name"], patch["input"]) == (
        "custom_tool_call",
        "apply_patch",
        "*** Begin",
    )
    assert (listing["namespace"], listing["name"]) == ("repo", "list_files")
    assert "done" in text_of(RESPONSES, second)
    assert "a.py" in text_of(RESPONSES, second)


async def test_tools_in_an_item_of_the_input_are_offered(emulator: RunningEmulator) -> None:
    """Codex offers them so for the models of its own catalogue, and may offer them again."""
    run = {"type": "custom", "name": "exec", "description": "Run it."}
    wait = {"type": "function", "name": "wait", "parameters": {"type": "object"}}
    space = {"type": "namespace", "name": "functions", "description": "", "tools": [run, wait]}
    offer = {"type": "additional_tools", "role": "developer", "tools": [space]}
    items = [offer, {"role": "user", "content": "Go."}, offer]
    emulator.state.enqueue(
        (Send(frames.tool_use("tooluse_A", "functions__exec", '{"input": "ls()"}')), END)
    )
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(RESPONSES, json={"model": "auto", "input": items})
    [asked] = prompts(emulator)
    assert [tool.name for tool in asked.tools] == ["functions__exec", "functions__wait"]
    [call] = response.json()["output"]
    assert (call["type"], call["namespace"], call["name"]) == (
        "custom_tool_call",
        "functions",
        "exec",
    )
    assert call["input"] == "ls()"


@pytest.mark.parametrize(
    ("path", "choice", "told"),
    [
        (CHAT, {"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
        (CHAT, "required", "tool"),
        (RESPONSES, {"type": "function", "name": "get_weather"}, "get_weather"),
        (MESSAGES, {"type": "tool", "name": "get_weather"}, "get_weather"),
        (MESSAGES, {"type": "any"}, "tool"),
    ],
)
async def test_the_model_is_told_which_tool_to_call(
    path: str, choice: object, told: str, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            plain = {"tools": [tool(path)]}
            await ask(client, path, "Weather?", **plain)
            await ask(client, path, "Weather?", **plain, tool_choice=choice)
    without, with_choice = (json.dumps(one.body) for one in emulator.state.requests_to(GENERATE))
    assert with_choice.count(told) > without.count(told)


@pytest.mark.parametrize("path", PATHS)
async def test_with_tool_choice_none_no_tool_is_offered(
    path: str, emulator: RunningEmulator
) -> None:
    choice: Any = {"type": "none"} if path == MESSAGES else "none"
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            await ask(client, path, "Weather?", tools=[tool(path)], tool_choice=choice)
    assert prompts(emulator)[0].tools == []


@pytest.mark.parametrize("path", PATHS)
async def test_the_model_is_told_to_call_one_tool_at_a_time(
    path: str, emulator: RunningEmulator
) -> None:
    members: Json = {"parallel_tool_calls": False}
    if path == MESSAGES:
        members = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            await ask(client, path, "Weather?", tools=[tool(path)], **members)
    assert "at most one tool" in json.dumps(emulator.state.requests_to(GENERATE)[0].body)


# --- thinking -------------------------------------------------------------------------------


async def test_thinking_and_its_signature_come_back_in(emulator: RunningEmulator) -> None:
    """Over each API, in the form in which its clients send an answer back."""
    script = (Send(frames.reasoning("I think.")), Send(frames.text("Hello.")), END)
    emulator.state.enqueue(script, (), script, (), script, ())
    model, more = "claude-opus-4.8", {"role": "user", "content": "Go on."}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            chat = await ask(client, CHAT, "hello", model=model, reasoning_effort="high")
            message = chat["choices"][0]["message"]
            first = {"role": "user", "content": "hello"}
            await client.post(CHAT, json={"model": model, "messages": [first, message, more]})
            answer = await ask(client, RESPONSES, "hello", model=model)
            await client.post(
                RESPONSES, json={"model": model, "input": [first, *answer["output"], more]}
            )
            thinking = {"thinking": {"type": "adaptive"}}
            said = await ask(client, MESSAGES, "hello", model=model, **thinking)
            turn = {"role": "assistant", "content": said["content"]}
            body = {"model": model, "max_tokens": 100, "messages": [first, turn, more]}
            await client.post(MESSAGES, json=body)
    assert message["reasoning_content"] == "I think."
    assert [block["type"] for block in said["content"]] == ["thinking", "text"]
    assert said["content"][0]["signature"] == frames.sign("I think.")
    for second in emulator.state.requests_to(GENERATE)[1::2]:
        assert frames.sign("I think.") in json.dumps(second.body)


async def test_streamed_thinking_ends_with_its_signature(emulator: RunningEmulator) -> None:
    script = (Send(frames.reasoning("I think.")), Send(frames.text("Hello.")), END)
    emulator.state.enqueue(script, script, script)
    model, signature = "claude-opus-4.8", frames.sign("I think.")
    thinking = {"type": "adaptive"}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            chat = await stream(client, CHAT, "hello", model=model)
            answer = await stream(client, RESPONSES, "hello", model=model)
            said = await stream(client, MESSAGES, "hello", model=model, thinking=thinking)
    deltas = [event["choices"][0]["delta"] for event in chat if event.get("choices")]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "I think."
    blocks = [block for delta in deltas for block in delta.get("thinking_blocks", ())]
    assert [block["signature"] for block in blocks] == [signature]
    summaries = [one["delta"] for one in answer if one["type"].endswith("summary_text.delta")]
    assert "".join(summaries) == "I think."
    parts = [one["delta"] for one in said if one["type"] == "content_block_delta"]
    assert "".join(part.get("thinking", "") for part in parts) == "I think."
    assert [part["signature"] for part in parts if "signature" in part] == [signature]


@pytest.mark.parametrize(
    ("path", "members", "level"),
    [
        (CHAT, {"reasoning_effort": "high"}, "high"),
        (CHAT, {"reasoning_effort": "minimal"}, "low"),
        (RESPONSES, {"reasoning": {"effort": "medium"}}, "medium"),
        (MESSAGES, {"output_config": {"effort": "max"}}, "max"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 60_000}}, "max"),
    ],
)
async def test_an_effort_and_a_longest_answer_reach_the_service(
    path: str, members: Json, level: str, emulator: RunningEmulator
) -> None:
    name = {CHAT: "max_completion_tokens", RESPONSES: "max_output_tokens"}.get(path, "max_tokens")
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            model = {"model": "claude-opus-4.8", name: 4321}
            await ask(client, path, "hello", **model, **members)
    sent = json.dumps(emulator.state.requests_to(GENERATE)[0].body)
    assert f'"effort": "{level}"' in sent
    assert "4321" in sent


async def test_thinking_that_nobody_asked_for_is_left_out_of_messages(
    emulator: RunningEmulator,
) -> None:
    emulator.state.enqueue((Send(frames.reasoning("I think.")), Send(frames.text("Hello.")), END))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, MESSAGES, "hello", model="claude-opus-4.8")
    assert [block["type"] for block in answer["content"]] == ["text"]


# --- what the caller wants of the answer ------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_an_answer_ends_before_a_stop_sequence(path: str, emulator: RunningEmulator) -> None:
    pieces = [Send(frames.text(piece)) for piece in ("One ST", "O", "P two", " STO.")]
    emulator.state.enqueue((*pieces, END), (*pieces, END), (*pieces, END))
    name = "stop" if path == CHAT else "stop_sequences"
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Count.", **{name: ["STOP", "never"]})
            seen = await stream(client, path, "Count.", **{name: ["STOP"]})
            other = await ask(client, path, "Count.", **{name: ["STOX"]})
    assert text_of(path, answer) == streamed_text(path, seen) == "One "
    assert ending_of(path, answer) == ("stop" if path == CHAT else "stop_sequence")
    assert text_of(path, other) == "One STOP two STO."
    if path == MESSAGES:
        assert answer["stop_sequence"] == "STOP"


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_by_a_schema_is_json_alone(path: str, emulator: RunningEmulator) -> None:
    """What stands around it is taken off; what breaks the schema is asked for once more."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    formats: dict[str, Json] = {
        CHAT: {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
        RESPONSES: {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}},
        MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    }
    prose = (Send(frames.text('Here you are:\n```json\n{"n": 1}\n```')), END)
    wrong = (Send(frames.text('{"n": "one"}')), END)
    right = (Send(frames.text('{"n":  2.0e0}')), END)
    emulator.state.enqueue(prose, wrong, right)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            first = await ask(client, path, "Count.", **formats[path])
            seen = await stream(client, path, "Count.", **formats[path])
    assert json.loads(text_of(path, first)) == {"n": 1}
    assert streamed_text(path, seen) == '{"n":  2.0e0}'
    assert emulator.state.prompts == 3


@pytest.mark.parametrize("path", PATHS)
async def test_a_schema_that_cannot_be_used_is_refused_before_anything_is_paid(
    path: str, emulator: RunningEmulator
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "whole"}}}
    given = {
        "type": "json_schema",
        "name": "x",
        "schema": schema,
        "json_schema": {"schema": schema},
    }
    members: Json = {"response_format": given}
    if path != CHAT:
        name = "text" if path == RESPONSES else "output_config"
        members = {name: {"format": given}}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(path, json=question(path, "Count.", **members))
    assert response.status_code == 400
    assert "schema" in response.json()["error"]["message"]
    assert emulator.state.prompts == 0


@pytest.mark.parametrize("path", PATHS)
async def test_a_system_message_in_the_middle_stays_there(
    path: str, emulator: RunningEmulator
) -> None:
    turns = [
        {"role": "system", "content": "First rule."},
        {"role": "user", "content": "Question one."},
        {"role": "assistant", "content": "Answer one."},
        {"role": "developer", "content": "Later rule."},
        {"role": "user", "content": "Question two."},
    ]
    name = "input" if path == RESPONSES else "messages"
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(path, json={"model": "auto", name: turns})
    assert response.status_code == 200
    sent = json.dumps(prompts(emulator)[0].current.content)
    assert sent.index("Later rule.") < sent.index("Question two.")
    assert "First rule." not in sent


# --- the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_breaks_ends_with_an_error_and_never_with_a_success(
    path: str, emulator: RunningEmulator
) -> None:
    script = (Send(frames.text("One ")), Pause(0.05), Cut())
    emulator.state.enqueue(script, script)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            body = question(path, "Count.", stream=True)
            async with client.stream("POST", path, json=body) as response:
                text = "".join([chunk async for chunk in response.aiter_text()])
            whole = await client.post(path, json=question(path, "Count."))
    assert response.status_code == 200
    seen = events(text)
    assert streamed_text(path, seen) == "One "
    last = seen[-1]
    if path == RESPONSES:
        assert last["type"] == "response.failed"
        assert last["response"]["error"]["message"].startswith("stream_broken")
    else:
        assert last["error"]["message"].startswith("stream_broken")
    ends = ("[DONE]", "message_stop", "response.completed", '"finish_reason":"stop"')
    assert not any(end in text for end in ends)
    assert whole.status_code == 502
    assert whole.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_is_too_long_says_so(path: str, emulator: RunningEmulator) -> None:
    script = (Send(frames.text("One ")), Send(frames.ending("MAX_TOKENS")))
    emulator.state.enqueue(script, script)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Count.")
            seen = await stream(client, path, "Count.")
    assert ending_of(path, answer) in ("length", "max_tokens", "max_output_tokens")
    if path == CHAT:
        assert seen[-2]["choices"][0]["finish_reason"] == "length"
    elif path == MESSAGES:
        assert seen[-2]["delta"]["stop_reason"] == "max_tokens"
    else:
        assert seen[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize("path", PATHS)
async def test_a_refused_answer_is_not_a_success(path: str, emulator: RunningEmulator) -> None:
    why = {"category": "CYBER", "explanation": "Not this."}
    script = (Send(frames.ending("CONTENT_FILTERED", refusal=why)),)
    emulator.state.enqueue(script, script)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "Break in.")
            seen = await stream(client, path, "Break in.")
    assert ending_of(path, answer) in ("content_filter", "refusal")
    if path == CHAT:
        assert answer["choices"][0]["message"]["refusal"] == "Not this."
        assert [event["choices"][0]["delta"].get("refusal") for event in seen[:-1]] == [
            None,
            "Not this.",
            None,
        ]
    elif path == RESPONSES:
        refusal = {"type": "refusal", "refusal": "Not this."}
        assert [item["content"] for item in answer["output"]] == [[refusal]]
        assert [item["content"] for item in seen[-1]["response"]["output"]] == [[refusal]]
