"""What `ask_claude` accepts: histories, tools, images, schemas, effort, dry runs."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client

from kiro_mcp.emulator import Cut, HttpAnswer, Pause, RunningEmulator, Script, Send, frames
from kiro_mcp.wire.arguments import MAX_ARGUMENTS_DEPTH
from tests.support.mcp import SLOW_TO_CHECK, ask, ask_with_id, code, connected, sent, words

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
READ_SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
}
TOOLS: dict[str, dict[str, Any]] = {
    "mcp": {"name": "read", "description": "Read.", "inputSchema": READ_SCHEMA},
    "anthropic": {"name": "read", "description": "Read.", "input_schema": READ_SCHEMA},
    "openai": {
        "type": "function",
        "function": {"name": "read", "description": "Read.", "parameters": READ_SCHEMA},
    },
}
HISTORIES: dict[str, list[dict[str, Any]]] = {
    "anthropic": [
        {"role": "user", "content": "Read a.txt"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Reading."},
                {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a.txt"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "It says hi."}],
        },
    ],
    "openai": [
        {"role": "user", "content": "Read a.txt"},
        {
            "role": "assistant",
            "content": "Reading.",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "read", "arguments": '{"path": "a.txt"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "It says hi."},
    ],
    "mcp": [
        {"role": "user", "content": {"type": "text", "text": "Read a.txt"}},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Reading."},
                {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a.txt"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "toolUseId": "t1",
                    "content": [{"type": "text", "text": "It says hi."}],
                }
            ],
        },
    ],
}
SUM_SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
}


def saying(text: str) -> tuple[Send]:
    return (Send(frames.text(text) + frames.ending("END_TURN")),)


@pytest.mark.parametrize("shape", HISTORIES)
async def test_a_history_is_taken_in_each_shape(shape: str, emulator: RunningEmulator) -> None:
    """Agents hold their histories as their own models need them."""
    async with connected(emulator) as client:
        answer = await ask(client, messages=HISTORIES[shape], tools=[TOOLS["mcp"]])
    assert answer["text"]
    state = sent(emulator)["conversationState"]
    (_, said) = state["history"]
    (tool_use,) = said["assistantResponseMessage"]["toolUses"]
    assert (tool_use["name"], tool_use["input"]) == ("read", {"path": "a.txt"})
    context = state["currentMessage"]["userInputMessage"]["userInputMessageContext"]
    (result,) = context["toolResults"]
    assert result["toolUseId"] == tool_use["toolUseId"]
    assert "It says hi." in json.dumps(result["content"])


async def test_a_prompt_follows_a_history(emulator: RunningEmulator) -> None:
    history = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "One."}]
    async with connected(emulator) as client:
        await ask(client, messages=history, prompt="Two?", system="Count.")
    state = sent(emulator)["conversationState"]
    assert state["history"][0]["userInputMessage"]["content"] == "Count.\n\nOne?"
    assert state["currentMessage"]["userInputMessage"]["content"] == "Two?"


@pytest.mark.parametrize("shape", TOOLS)
async def test_a_tool_is_offered_in_each_shape_and_its_call_comes_back(
    shape: str, emulator: RunningEmulator
) -> None:
    """The caller runs its tools itself; here nothing is run."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt="/emulate tool_use", tools=[TOOLS[shape]])
    (call,) = answer["tool_calls"]
    assert (call["name"], call["state"]) == ("read", "complete")
    assert isinstance(call["arguments"]["path"], str)
    assert "schema_errors" not in call
    assert answer["stop_reason"] == "tool_use"


async def test_a_tool_call_is_complete_in_the_text_of_the_result(
    emulator: RunningEmulator,
) -> None:
    """Observed: some clients show their model the content alone."""
    async with connected(emulator) as client:
        result = await client.call_tool(
            "ask_claude", {"prompt": "/emulate parallel_tools", "tools": [TOOLS["mcp"]]}
        )
    calls = result.structured_content["tool_calls"]
    assert len(calls) == 2
    assert all(call["id"] in words(result) for call in calls)


async def test_a_tool_whose_name_the_service_refuses_comes_back_under_its_own(
    emulator: RunningEmulator,
) -> None:
    """Observed: names over 64 characters, or with a dot, are refused."""
    name = "files.read:" + "x" * 80
    async with connected(emulator) as client:
        answer = await ask(
            client, prompt="/emulate tool_use", tools=[{**TOOLS["mcp"], "name": name}]
        )
    assert [call["name"] for call in answer["tool_calls"]] == [name]


async def test_arguments_that_break_the_callers_schema_are_reported(
    emulator: RunningEmulator,
) -> None:
    """The caller decides what to do with such a call."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt='/emulate tool_use {"path": 3}', tools=[TOOLS["mcp"]])
    (call,) = answer["tool_calls"]
    assert call["state"] == "complete"
    assert "path" in call["schema_errors"][0]


async def test_a_call_that_was_cut_off_is_never_complete(emulator: RunningEmulator) -> None:
    """Half of its arguments can do harm."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt="/emulate truncated_tool", tools=[TOOLS["mcp"]])
    (call,) = answer["tool_calls"]
    assert (call["state"], call["arguments"]) == ("truncated", {})
    assert call["raw"]
    assert answer["truncated"]


async def test_repaired_arguments_give_a_warning(emulator: RunningEmulator) -> None:
    """The caller must be able to tell them from the model's own JSON."""
    call = frames.tool_use("t1", "read", '{"path": "a",}') + frames.tool_use("t2", "list", "{}")
    emulator.state.enqueue((Send(call + frames.ending("TOOL_USE")),))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="x", tools=[TOOLS["mcp"]])
    assert [call["arguments"] for call in answer["tool_calls"]] == [{"path": "a"}, {}]
    (warning,) = answer["warnings"]
    assert "repaired, for: 'read'." in warning


@pytest.mark.parametrize(
    ("depth", "state"),
    [(MAX_ARGUMENTS_DEPTH, "complete"), (MAX_ARGUMENTS_DEPTH + 1, "invalid"), (400, "invalid")],
)
async def test_an_answer_is_returned_although_a_call_nests_too_deeply_for_a_result(
    depth: int, state: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Neither a client nor our own store reads JSON of any depth."""
    arguments = '{"a":' * depth + "1" + "}" * depth
    call = frames.text("Look.") + frames.tool_use("t1", "read", arguments)
    emulator.state.enqueue((Send(call + frames.ending("TOOL_USE")),))
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        answer, answer_id = await ask_with_id(client, prompt="x", tools=[TOOLS["mcp"]])
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        again = await ask(client, answer_id=answer_id)
    (called,) = answer["tool_calls"]
    assert (answer["text"], called["state"]) == ("Look.", state)
    assert called.get("raw", json.dumps(called["arguments"], separators=(",", ":"))) == arguments
    assert again == answer


async def test_an_image_goes_with_the_prompt(emulator: RunningEmulator) -> None:
    """The service's schema."""
    async with connected(emulator) as client:
        await ask(client, prompt="What is it?", images=[PIXEL])
    message = sent(emulator)["conversationState"]["currentMessage"]["userInputMessage"]
    (image,) = message["images"]
    assert image["format"] == "png"


@pytest.mark.parametrize("image", ["data:image/png;base64,AAAA", "https://a.example/b.png", "?"])
async def test_an_image_that_cannot_be_sent_is_refused_by_its_place(
    image: str, emulator: RunningEmulator
) -> None:
    """The service would call the whole request improperly formed."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "images": [image]})
    assert code(result) == "invalid_request"
    assert "images[0]" in words(result)
    assert not emulator.state.requests


async def test_an_answer_by_a_schema_comes_back_as_data(emulator: RunningEmulator) -> None:
    emulator.state.enqueue(saying('```json\n{"sum": 4}\n```'))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="2 + 2", output_schema=SUM_SCHEMA)
    assert answer["data"] == {"sum": 4}
    assert len(emulator.state.requests) == 1


async def test_an_answer_that_breaks_its_schema_is_mended_in_one_turn(
    emulator: RunningEmulator,
) -> None:
    """And both turns are counted."""
    emulator.state.enqueue(saying('{"sum": "four"}'), saying('{"sum": 4}'))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="2 + 2", output_schema=SUM_SCHEMA)
    assert answer["data"] == {"sum": 4}
    assert len(emulator.state.requests) == 2
    told = sent(emulator)["conversationState"]["currentMessage"]["userInputMessage"]["content"]
    assert "sum" in told
    assert answer["usage"]["credits"] == pytest.approx(2 * 0.0148)


async def test_an_answer_that_stays_wrong_is_returned_with_what_it_breaks(
    emulator: RunningEmulator,
) -> None:
    """It has been paid for, and a person can still read it."""
    emulator.state.enqueue(saying("four"), saying('{"sum": "four"}'))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="2 + 2", output_schema=SUM_SCHEMA)
    assert answer["data"] is None
    assert answer["text"] == '{"sum": "four"}'
    assert "$.sum" in answer["warnings"][0]


@pytest.mark.parametrize(
    ("second", "environ", "says"),
    [
        pytest.param((HttpAnswer(status=500),), {}, "500", id="refused"),
        pytest.param((Send(frames.ending("END_TURN")),), {}, "empty answer", id="empty"),
        pytest.param((Send(frames.text("12")), Cut()), {}, "broke off", id="broken-off"),
        pytest.param(
            (Send(frames.text("12") + frames.ending("MAX_TOKENS")),), {}, "limit", id="too-long"
        ),
        pytest.param(
            saying("12"), {"KIRO_MCP_MAX_CREDITS_PER_CALL": "0.01"}, "credits", id="over-budget"
        ),
    ],
)
async def test_an_answer_outlives_a_repair_turn_that_fails(
    second: Script, environ: dict[str, str], says: str, emulator: RunningEmulator
) -> None:
    """It has been paid for; and half of a number is a number, but not the answer's."""
    emulator.state.enqueue(saying("about 123"), second)
    async with connected(emulator, **environ) as client:
        answer = await ask(client, prompt="x", output_schema={"type": "integer"})
    assert (answer["text"], answer["data"]) == ("about 123", None)
    assert (answer["stop_reason"], answer["truncated"]) == ("end_turn", False)
    assert says in answer["warnings"][0]
    assert "output_schema" in answer["warnings"][1]


async def test_an_answer_outlives_a_repair_turn_that_is_cancelled(
    emulator: RunningEmulator,
) -> None:
    emulator.state.enqueue(saying("about 123"), (Send(frames.text("12")), Pause(60)))
    answer_id = ""

    async def note(progress: float, total: float | None, message: str | None) -> None:
        nonlocal answer_id
        answer_id = (message or "").split("answer ")[1].split(":")[0]

    async def call(client: Client) -> None:
        arguments = {"prompt": "x", "output_schema": {"type": "integer"}}
        await client.call_tool("ask_claude", arguments, progress_callback=note)

    async with connected(emulator) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, client)
            await emulator.state.until(
                lambda state: len(state.requests) == 2 and state.open_streams == 1
            )
            tasks.cancel_scope.cancel()
        await emulator.state.until(lambda state: state.open_streams == 0)
        kept = await ask(client, answer_id=answer_id)
    assert (kept["text"], kept["data"], kept["truncated"]) == ("about 123", None, False)
    assert "cancelled" in kept["warnings"][0]


async def test_a_schema_that_is_invalid_is_refused_before_anything_is_sent(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        result = await client.call_tool(
            "ask_claude", {"prompt": "x", "output_schema": {"type": "nonsense"}}
        )
    assert code(result) == "invalid_request"
    assert not emulator.state.requests


async def test_an_answer_outlives_a_check_that_takes_too_long(emulator: RunningEmulator) -> None:
    """The answer has been paid for, and nobody else waits for its check."""
    emulator.state.enqueue(saying('{"sum": 4}'))
    answers: list[dict[str, Any]] = []
    async with connected(emulator) as client, anyio.create_task_group() as tasks:

        async def ask_typed() -> None:
            answers.append(await ask(client, prompt="2 + 2", output_schema=SLOW_TO_CHECK))

        tasks.start_soon(ask_typed)
        await client.list_tools()
        assert not answers
    assert (answers[0]["text"], answers[0]["data"]) == ('{"sum": 4}', None)
    assert "not checked by output_schema" in answers[0]["warnings"][0]
    assert len(emulator.state.requests) == 1


async def test_a_call_outlives_a_check_that_takes_too_long(emulator: RunningEmulator) -> None:
    """The tool may be a third party's."""
    emulator.state.enqueue((Send(frames.tool_use("t1", "look", '{"sum": 4}') + frames.ending()),))
    async with connected(emulator) as client:
        answer = await ask(
            client, prompt="x", tools=[{"name": "look", "inputSchema": SLOW_TO_CHECK}]
        )
    (call,) = answer["tool_calls"]
    assert (call["arguments"], call["state"]) == ({"sum": 4}, "complete")
    assert "schema_errors" not in call
    assert "not checked by its schema" in answer["warnings"][0]


async def test_a_schema_that_refers_to_itself_is_checked(emulator: RunningEmulator) -> None:
    """Trees are common values."""
    schema = {"type": "object", "properties": {"left": {"$ref": "#"}}}
    emulator.state.enqueue(saying('{"left": {"left": 1}}'))
    emulator.state.enqueue(saying('{"left": {"left": {}}}'))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="a tree", output_schema=schema)
    assert answer["data"] == {"left": {"left": {}}}
    assert len(emulator.state.requests) == 2


async def test_a_partial_answer_is_not_measured_by_its_schema(emulator: RunningEmulator) -> None:
    """Asking again would bill a second time for a fault of the network."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt="/emulate reset", output_schema=SUM_SCHEMA)
    assert (answer["data"], answer["truncated"]) == (None, True)
    assert len(emulator.state.requests) == 1


async def test_a_rehearsal_sends_nothing_and_shows_no_content() -> None:
    """It works signed out, too."""
    async with connected() as client:
        answer = await ask(client, prompt="my secret", dry_run=True, tools=[TOOLS["mcp"]])
    assert answer["status"] == "dry_run"
    assert answer["payload_bytes"] > 0
    assert answer["usage"]["input_tokens"] > 0
    assert "findings" not in answer
    assert "my secret" not in json.dumps(answer)


async def test_a_rehearsal_names_what_the_service_would_refuse() -> None:
    """And where, and what to do."""
    async with connected() as client:
        result = await client.call_tool(
            "ask_claude", {"prompt": "x", "images": [PIXEL] * 11, "dry_run": True}
        )
    (finding, *_) = result.structured_content["findings"]
    assert finding["cause"]
    assert finding["cure"]
    assert "refuse" in words(result)


async def test_what_cannot_be_repaired_is_refused_by_its_name(emulator: RunningEmulator) -> None:
    """A user must not get "Improperly formed request" without the reason."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "images": [PIXEL] * 11})
    assert code(result) == "invalid_request"
    assert "10" in words(result)
    assert not emulator.state.requests


async def test_what_was_repaired_is_reported(emulator: RunningEmulator) -> None:
    history = [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Go on."}]
    async with connected(emulator) as client:
        answer = await ask(client, messages=history)
    assert answer["repairs"]
    assert all(repair["rule"] and repair["detail"] for repair in answer["repairs"])


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4.5"),
        ("kiro-claude-haiku-4-5", "claude-haiku-4.5"),
        ("claude-opus-4-6[1m]", "claude-opus-4.6"),
    ],
)
async def test_a_model_may_go_by_the_names_of_other_programs(
    given: str, model: str, emulator: RunningEmulator
) -> None:
    """And both names are told."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt="x", model=given)
    assert (answer["model"], answer["model_requested"]) == (model, given)


async def test_effort_goes_to_the_models_own_field(emulator: RunningEmulator) -> None:
    """The service's published schemas."""
    async with connected(emulator) as client:
        await ask(client, prompt="x", model="claude-opus-5", effort="high", max_tokens=2000)
    fields = sent(emulator)["additionalModelRequestFields"]
    assert fields["output_config"] == {"effort": "high"}
    assert fields["max_tokens"] == 2000


async def test_an_effort_that_a_model_does_not_offer_is_clamped_with_a_warning(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        answer = await ask(client, prompt="x", model="claude-opus-4.6", effort="xhigh")
    assert answer["warnings"]


@pytest.mark.parametrize("script", ["thinking", "reasoning", "split_tags"])
async def test_thinking_comes_apart_from_the_text(script: str, emulator: RunningEmulator) -> None:
    """In either of the ways in which the service sends it."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt=f"/emulate {script}")
    assert answer["thinking"]
    assert "<think" not in answer["text"]


async def test_the_users_own_names_of_models_stand_above_all(emulator: RunningEmulator) -> None:
    async with connected(emulator, KIRO_MCP_MODEL_ALIASES="fast=claude-haiku-4.5") as client:
        answer = await ask(client, prompt="x", model="fast")
    assert (answer["model"], answer["model_requested"]) == ("claude-haiku-4.5", "fast")


async def test_the_effort_of_the_settings_is_used_where_a_call_names_none(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator, KIRO_MCP_THINKING="low") as client:
        await ask(client, prompt="x", model="claude-opus-5")
        assert sent(emulator)["additionalModelRequestFields"]["output_config"] == {"effort": "low"}
        await ask(client, prompt="x", model="claude-opus-5", effort="high")
        assert sent(emulator)["additionalModelRequestFields"]["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("handling", "has_thinking", "has_tags"),
    [
        ("separate", True, False),
        ("remove", False, False),
        ("inline", False, True),
        ("strip_tags", False, False),
    ],
)
async def test_thinking_is_handled_as_the_setting_says(
    handling: str, has_thinking: bool, has_tags: bool, emulator: RunningEmulator
) -> None:
    """The same four ways that users of other programs know."""
    async with connected(emulator, KIRO_MCP_THINKING_HANDLING=handling) as client:
        answer = await ask(client, prompt="/emulate thinking")
    assert ("thinking" in answer) is has_thinking
    assert ("<thinking>" in answer["text"]) is has_tags


@pytest.mark.parametrize(("setting", "calls"), [("true", 1), ("false", 0)])
async def test_calls_that_were_written_as_text_are_read_only_where_asked(
    setting: str, calls: int, emulator: RunningEmulator
) -> None:
    """Observed: some models write a call as text. A text about a call is not a call."""
    emulator.state.enqueue(saying('[Called read with args: {"path": "a"}]'))
    async with connected(emulator, KIRO_MCP_TEXT_TOOL_CALLS=setting) as client:
        answer = await ask(client, prompt="x", tools=[TOOLS["mcp"]])
    assert len(answer["tool_calls"]) == calls


async def test_a_frame_over_the_limit_of_the_settings_ends_the_answer(
    emulator: RunningEmulator,
) -> None:
    """Every buffer has a limit, and the user may move this one."""
    emulator.state.enqueue((Send(frames.text("x" * 3000, delta_characters=3000)),))
    async with connected(emulator, KIRO_MCP_MAX_FRAME_PAYLOAD_BYTES="1000") as client:
        result = await client.call_tool("ask_claude", {"prompt": "x"})
    assert code(result) == "stream_broken"
    assert "1000" in words(result)
