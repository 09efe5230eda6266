"""The tools' results are complete for clients that show a model only a part of them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.client import Client

from kiro_mcp.emulator import Pause, RunningEmulator, Script, Send, frames
from tests.support.mcp import ask, ask_with_id, assert_valid, connected, extras

ALWAYS = {
    "status",
    "text",
    "tool_calls",
    "stop_reason",
    "truncated",
    "model",
    "conversation_id",
    "turn",
}
TOOL = {
    "name": "read",
    "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}},
}
SUM = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


def saying(text: str, *frames_between: bytes, stop_reason: str = "END_TURN") -> Script:
    sent = frames.text(text) + b"".join(frames_between)
    return (Send(sent + frames.ending(stop_reason)),)


async def halves(client: Client, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask; return the structured result and what the content says beside the text."""
    result = await client.call_tool("ask_claude", arguments)
    return structured(result), said(result)


def structured(result: types.CallToolResult) -> dict[str, Any]:
    """Return a structured result that has passed the checks for all results."""
    found: dict[str, Any] = result.structured_content
    assert_valid("ask_claude", found)
    assert set(found) >= ALWAYS
    for name in set(found) - ALWAYS - {"data"}:
        assert found[name] not in (None, "", [], {}), name
    assert None not in found.get("usage", {}).values()
    return found


def said(result: types.CallToolResult) -> dict[str, Any]:
    text = result.structured_content["text"]
    blocks = [block.text for block in result.content if isinstance(block, types.TextContent)]
    assert len(blocks) == len(result.content)
    return extras(blocks, text)


async def test_a_plain_answer_is_its_text_and_the_id_of_its_conversation(
    emulator: RunningEmulator,
) -> None:
    """Clients put both halves into the context of a model, which pays for each member."""
    emulator.state.enqueue(saying("Paris."))
    async with connected(emulator) as client:
        answer, beside = await halves(client, prompt="What is the capital of France?")
    assert set(answer) == ALWAYS | {"usage"}
    assert beside == {"conversation_id": answer["conversation_id"]}
    assert (answer["text"], answer["turn"], answer["tool_calls"]) == ("Paris.", 1, [])


async def test_the_only_block_of_every_answer_says_what_a_model_must_know(
    emulator: RunningEmulator,
) -> None:
    """Some clients keep the first block of a result and nothing else."""
    async with connected(emulator) as client:
        for kind in ("tool_use", "parallel_tools", "truncated_tool"):
            answer, beside = await halves(client, prompt=f"/emulate {kind}", tools=[TOOL])
            assert beside["tool_calls"] == answer["tool_calls"] != []
            assert all("schema_errors" not in call for call in answer["tool_calls"])
            assert "stop_reason" not in beside or answer["truncated"]

        for kind in ("reset", "bad_crc", "exception"):
            answer, beside = await halves(client, prompt=f"/emulate {kind}")
            assert beside["truncated"] is answer["truncated"] is True
            assert beside["stop_reason"] == answer["stop_reason"]
            assert beside["warnings"] == answer["warnings"] != []

        emulator.state.enqueue(saying("Once upon", stop_reason="MAX_TOKENS"))
        answer, beside = await halves(client, prompt="Tell.")
        assert (beside["stop_reason"], beside["truncated"]) == ("max_tokens", True)

        answer, beside = await halves(client, prompt="/emulate refusal claude-sonnet-4")
        assert beside["stop_reason"] == answer["stop_reason"] == "refusal"
        assert "claude-sonnet-4" in beside["next_step"]
        assert beside["warnings"] == answer["warnings"] != []

        answer, beside = await halves(client, prompt="/emulate reasoning")
        assert answer["thinking"]
        assert set(beside) == {"conversation_id"}

        answer, beside = await halves(client, prompt="Hi", model="sonnet-5")
        assert answer["model_requested"] == "sonnet-5"
        assert answer["model"].startswith("claude-sonnet")
        assert set(beside) == {"conversation_id"}

        answer, beside = await halves(client, prompt="Hi", dry_run=True, model="auto")
        assert answer["status"] == beside["status"] == "dry_run"
        assert answer["payload"] == beside["payload"]
        assert not {"model_requested", "findings", "conversation_id"} & set(beside)
        assert "Nothing was sent." in answer["text"]
        answer, beside = await halves(client, prompt="/emulate text", messages=[TOOL], dry_run=True)
        assert beside["repairs"] == [repair["detail"] for repair in answer["repairs"]] != []


async def test_a_running_answer_names_its_id_and_turn_and_a_finished_one_does_not(
    emulator: RunningEmulator,
) -> None:
    """The id is needed only to collect the rest; a stored answer has it for programs."""
    async with connected(emulator) as client:
        first = await ask(client, prompt="Hi")
        emulator.state.enqueue((Send(frames.text("Once")), Pause(0.5), *saying(" more.")))
        arguments = {"prompt": "Tell.", "conversation_id": first["conversation_id"]}
        early, beside = await halves(client, **arguments, wait_seconds=0.01)
        assert set(early) == ALWAYS | {"answer_id", "next_step"}
        assert (early["status"], early["turn"]) == ("running", 2)
        assert set(beside) == {"status", "answer_id", "next_step", "conversation_id"}
        late, answer_id = await ask_with_id(client, answer_id=early["answer_id"])
    assert "answer_id" not in late
    assert late["turn"] == 2
    assert answer_id == early["answer_id"]


async def test_data_is_given_once_if_the_call_has_a_schema(
    emulator: RunningEmulator,
) -> None:
    """A text that is the JSON value itself needs no second copy beside it."""
    async with connected(emulator) as client:
        emulator.state.enqueue(saying('{ "sum": 4 }'))
        answer, beside = await halves(client, prompt="2 + 2", output_schema=SUM)
        assert answer["data"] == {"sum": 4}
        assert "data" not in beside

        emulator.state.enqueue(saying('It is:\n```json\n{"sum": 4}\n```'))
        answer, beside = await halves(client, prompt="2 + 2", output_schema=SUM)
        assert answer["data"] == beside["data"] == {"sum": 4}

        emulator.state.enqueue(saying("It is []"))
        answer, beside = await halves(client, prompt="2 + 2", output_schema={"type": "array"})
        assert answer["data"] == beside["data"] == []

        emulator.state.enqueue(saying("four"), saying("vier"))
        answer, beside = await halves(client, prompt="2 + 2", output_schema=SUM)
        assert answer["data"] is None
        assert "data" not in beside
        assert "output_schema" in beside["warnings"][0]


async def test_pages_and_licences_that_come_with_an_answer_are_its_citations(
    emulator: RunningEmulator,
) -> None:
    """A user of licensed code, or of a claim, must be able to name its source."""
    page = {"url": "https://a.example/x", "title": "X", "snippet": "An x."}
    pages = frames.event("supplementaryWebLinksEvent", {"supplementaryWebLinks": [page]})
    cited = frames.event("citationEvent", {"citationLink": "https://b.example/"})
    code = {"licenseName": "MIT", "repository": "a/b", "url": "https://c.example/"}
    licensed = frames.event("codeReferenceEvent", {"references": [code, {}]})
    many = [{"url": f"https://a.example/{number}"} for number in range(40)]
    long = frames.event("supplementaryWebLinksEvent", {"supplementaryWebLinks": many})
    async with connected(emulator) as client:
        emulator.state.enqueue(saying("So.", pages, pages, cited, licensed))
        answer, beside = await halves(client, prompt="Why?")
        emulator.state.enqueue(saying("So.", long))
        other, beside_other = await halves(client, prompt="Why?")
    assert answer["citations"] == [
        page,
        {"url": "https://b.example/"},
        {"license": "MIT", "repository": "a/b", "url": "https://c.example/"},
    ]
    short = ["https://a.example/x", "https://b.example/", "MIT a/b https://c.example/"]
    assert beside["citations"] == short
    assert other["citations"] == many
    assert beside_other["citations"] == 40


async def test_the_other_tools_put_everything_in_one_block_without_empty_members(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        listed = await client.call_tool("list_models", {})
        status = await client.call_tool("login", {})
    for tool, result in (("list_models", listed), ("login", status)):
        assert_valid(tool, result.structured_content)
        assert len(result.content) == 1
        (block,) = result.content
        assert isinstance(block, types.TextContent)
        facts = result.structured_content
        inner = [facts, *facts.get("models", []), facts.get("credits", {"plan": "x"})]
        assert all(value not in (None, "", [], {}) for one in inner for value in one.values())
        if tool == "list_models":
            head, _, line = block.text.partition("\n\n")
            assert head.startswith(f"{len(facts['models'])} models, live list")
            assert json.loads(line) == facts
        else:
            assert all(name in block.text for name in facts)
            assert facts["next_step"] in block.text


async def test_an_answer_that_an_older_version_stored_is_still_read(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """An update must lose no answer that was paid for."""
    old: dict[str, Any] = {
        "content": [{"type": "text", "text": "Hi."}, {"type": "text", "text": '{"model":"auto"}'}],
        "structuredContent": {
            "status": "completed",
            "text": "Hi.",
            "thinking": "",
            "tool_calls": [],
            "stop_reason": "end_turn",
            "truncated": False,
            "model": "auto",
            "conversation_id": "8c0a1f0e-9f57-4d2e-8a43-0b8e6a3d5a11",
            "warnings": [],
            "repairs": [],
            "data": None,
            "model_requested": "",
            "turn": 1,
            "answer_id": "8c0a1f0e-9f57-4d2e-8a43-0b8e6a3d5a12",
            "usage": {"input_tokens": 1, "estimated": True, "context_percent": None},
        },
        "isError": False,
    }
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        _, answer_id = await ask_with_id(client, prompt="Hi")
    (file,) = tmp_path.glob("*.sqlite*")
    with sqlite3.connect(file) as db:
        done = db.execute("UPDATE answers SET result = ?", [json.dumps(old).encode()])
        assert done.rowcount == 1
    db.close()
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        assert await ask(client, answer_id=answer_id) == old["structuredContent"]
        read = await client.read_resource(f"kiro://answers/{answer_id}")
    (contents,) = read.contents
    assert isinstance(contents, types.TextResourceContents)
    assert json.loads(contents.text) == old
