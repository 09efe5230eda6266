"""What a caller of `ask_claude` gets is the same on both engines.

One table: each test runs on the direct engine with the emulator of the service, and on the engine
kiro-cli with the stand-in of the program in its two dialects.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from mcp.client import Client

from kiro_mcp.emulator import running
from tests.support.kiro_cli import stand_in
from tests.support.mcp import ask, code, connected, words

pytestmark = pytest.mark.anyio

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
READ: dict[str, Any] = {
    "name": "read",
    "description": "Read a file.",
    "inputSchema": {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
    },
}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "One."},
]


class Connect(Protocol):
    """Connects a client to a server on the engine of the test."""

    def __call__(self, **settings: str) -> AbstractAsyncContextManager[Client]: ...


@pytest.fixture(params=["direct", "v2", "v3"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    """Say how a client gets a server on each engine."""

    @asynccontextmanager
    async def direct(**settings: str) -> AsyncGenerator[Client]:
        async with running() as emulator, connected(emulator, **settings) as client:
            yield client

    @asynccontextmanager
    async def program(**settings: str) -> AsyncGenerator[Client]:
        environ: dict[str, Any] = {
            "KIRO_MCP_ENGINE": "kiro-cli",
            "KIRO_MCP_KIRO_CLI": stand_in(dialect=request.param),
            "HOME": str(tmp_path),
            **settings,
        }
        async with connected(**environ) as client:
            yield client

    return direct if request.param == "direct" else program


async def test_an_answer_has_its_text_its_reason_and_its_credits(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt="Hi", system="Be brief.")
    assert answer["text"].startswith("This is a canned answer of the emulator. You said: ")
    assert answer["text"].endswith("Hi")
    assert (answer["status"], answer["stop_reason"]) == ("completed", "end_turn")
    assert answer["usage"]["credits"] > 0
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["context_percent"] > 0


async def test_a_conversation_goes_on_and_a_fork_leaves_it_as_it_was(engine: Connect) -> None:
    async with engine() as client:
        first = await ask(client, prompt="One?")
        name = first["conversation_id"]
        second = await ask(client, prompt="Two?", conversation_id=name)
        fork = await ask(client, prompt="Else?", conversation_id=name, from_turn=1)
        third = await ask(client, prompt="Three?", conversation_id=name)
    assert second["conversation_id"] == third["conversation_id"] == name
    assert fork["conversation_id"] != name
    turns = [answer["turn"] for answer in (first, second, fork, third)]
    assert turns == [1, 2, 2, 3]
    said = [answer["text"].rpartition(": ")[2] for answer in (second, fork, third)]
    assert said == ["Two?", "Else?", "Three?"]


async def test_a_prompt_follows_a_history_of_the_caller(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, messages=HISTORY, prompt="Two?")
    assert answer["text"].endswith("You said: Two?")


@pytest.mark.parametrize("count", [1, 2])
async def test_the_results_of_the_callers_tools_reach_the_model(
    count: int, engine: Connect
) -> None:
    script = "tool_use" if count == 1 else "parallel_tools"
    async with engine() as client:
        first = await ask(client, prompt=f"/emulate {script}", tools=[READ])
        calls = first["tool_calls"]
        results = [
            {"id": call["id"], "content": f"result {number}", "is_error": number == 1}
            for number, call in enumerate(calls)
        ]
        last = await ask(client, tool_results=results, conversation_id=first["conversation_id"])
    assert first["stop_reason"] == "tool_use"
    assert [(call["name"], call["state"]) for call in calls] == [("read", "complete")] * count
    assert all(isinstance(call["arguments"]["path"], str) for call in calls)
    assert last["stop_reason"] == "end_turn"
    assert all(f"result {number}" in last["text"] for number in range(count))


async def test_a_tool_comes_back_under_the_callers_own_name(engine: Connect) -> None:
    tool = {**READ, "name": "read the file"}
    async with engine() as client:
        answer = await ask(client, prompt="/emulate tool_use", tools=[tool])
    assert [call["name"] for call in answer["tool_calls"]] == ["read the file"]


async def test_a_tool_choice_that_is_not_followed_gives_a_warning(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt="Hi", tools=[READ], tool_choice="required")
    assert not answer.get("tool_calls")
    assert any("tool_choice" in warning for warning in answer["warnings"])


async def test_a_tool_result_in_a_history_of_the_caller_reaches_the_model(engine: Connect) -> None:
    messages = [
        {"role": "user", "content": "Read a.txt"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "It says hi."}],
        },
    ]
    async with engine() as client:
        answer = await ask(client, messages=messages, tools=[READ])
    assert "It says hi." in answer["text"]


async def test_an_answer_that_is_not_data_is_returned_with_what_it_breaks(engine: Connect) -> None:
    schema = {"type": "object", "required": ["sum"]}
    async with engine() as client:
        answer = await ask(client, prompt="2 + 2", output_schema=schema)
    assert answer["data"] is None
    assert answer["text"]
    assert "JSON" in answer["warnings"][0]


async def test_an_image_goes_with_the_prompt_and_a_bad_one_is_refused(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt="What is it?", images=[PIXEL])
        refused = await client.call_tool("ask_claude", {"prompt": "x", "images": ["?"]})
    assert "What is it?" in answer["text"]
    assert code(refused) == "invalid_request"
    assert "images[0]" in words(refused)


@pytest.mark.parametrize("script", ["thinking", "reasoning"])
async def test_thinking_is_separate_from_the_text(script: str, engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt=f"/emulate {script}")
    assert answer["thinking"]
    assert "<thinking>" not in answer["text"]
    assert answer["text"]


async def test_an_effort_is_accepted_without_a_warning(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt="Hi", model="claude-opus-4.8", effort="high")
    assert answer["text"].endswith("Hi")
    assert not answer.get("warnings")


async def test_an_answer_that_runs_is_collected_under_its_id(engine: Connect) -> None:
    async with engine() as client:
        early = await ask(client, prompt="/emulate slow 0.3\nhello", wait_seconds=0.01)
        assert early["status"] == "running"
        while early["status"] == "running":
            early = await ask(client, answer_id=early["answer_id"], wait_seconds=5)
    assert early["status"] == "completed"
    assert "hello" in early["text"]


async def test_after_a_call_that_stalls_and_is_cancelled_the_next_one_is_answered(
    engine: Connect,
) -> None:
    async with engine() as client:
        with anyio.move_on_after(1) as waiting:
            await client.call_tool("ask_claude", {"prompt": "/emulate stall"})
        answer = await ask(client, prompt="Still there?")
    assert waiting.cancelled_caught
    assert answer["text"].endswith("Still there?")


async def test_a_dry_run_shows_the_structure_and_no_content(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt="my secret", system="my own", dry_run=True, tools=[READ])
    assert answer["status"] == "dry_run"
    shown = json.dumps(answer["payload"])
    assert "characters>" in shown
    for hidden in ("my secret", "my own", "Read a file.", "Bearer"):
        assert hidden not in shown


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("throttle", "rate_limited"),
        ("suspended", "account_suspended"),
        ("expired", "auth_expired"),
        ("quota", "quota_exhausted"),
        ("busy", "model_busy"),
        ("too_long", "context_too_long"),
        ("empty", "empty_response"),
        ("invalid_model", "model_unavailable"),
    ],
)
async def test_a_failure_has_the_same_code(script: str, expected: str, engine: Connect) -> None:
    async with engine() as client:
        result = await client.call_tool("ask_claude", {"prompt": f"/emulate {script}"})
    assert code(result) == expected, words(result)


async def test_nothing_is_asked_after_a_suspension(engine: Connect) -> None:
    """More requests could make it worse."""
    async with engine() as client:
        await client.call_tool("ask_claude", {"prompt": "/emulate suspended"})
        result = await client.call_tool("ask_claude", {"prompt": "Hello"})
    assert code(result) == "account_suspended", words(result)


async def test_a_refusal_says_why(engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt="/emulate refusal")
    assert answer["stop_reason"] == "refusal"
    assert "The emulator refuses to answer this." in json.dumps(answer)


@pytest.mark.parametrize("script", ["reset", "exception"])
async def test_the_part_before_a_fault_is_returned_and_marked(script: str, engine: Connect) -> None:
    async with engine() as client:
        answer = await ask(client, prompt=f"/emulate {script}")
    assert answer["truncated"] is True
    assert answer["warnings"]
    assert "canned answer" in answer["text"]


async def test_a_model_that_is_not_listed_is_named(engine: Connect) -> None:
    """The service refuses it. The program does not check it, so the answer has a warning."""
    async with engine() as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "model": "gpt-4"})
        offered = await client.call_tool("list_models", {})
    assert "gpt-4" in words(result)
    assert "claude-sonnet" in words(offered)
