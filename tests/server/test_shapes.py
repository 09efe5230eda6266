"""Messages and tool results in the shapes of other APIs, as they are sent to the service."""

import json
from base64 import b64encode
from typing import Any

import pytest

from kiro_mcp.emulator import RunningEmulator
from tests.support.mcp import ask, code, connected, sent, words

PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
AUDIO = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}
USE: dict[str, Any] = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
SERVER_USE: dict[str, Any] = {**USE, "type": "server_tool_use"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": b64encode(b"%PDF-1").decode()}


def turns(emulator: RunningEmulator) -> list[dict[str, Any]]:
    """Return the messages of the last request, without the union around each."""
    state = sent(emulator)["conversationState"]
    return [
        next(iter(union.values())) for union in (*state.get("history", ()), state["currentMessage"])
    ]


def results_of(turn: dict[str, Any]) -> list[dict[str, Any]]:
    return turn["userInputMessageContext"]["toolResults"]


async def sent_for(
    emulator: RunningEmulator, *messages: Any, **arguments: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ask with these messages, a text being the user's; return what was sent and the repairs."""
    given = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    async with connected(emulator) as client:
        answer = await ask(client, messages=given, **arguments)
    return turns(emulator), answer.get("repairs", [])


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": {"value": "hello", "annotations": []}}],
        [{"type": "text", "text": ["hello"]}],
        [{"type": "text", "text": [{"type": "text", "text": "hello"}]}],
        [{"type": "text", "content": "hello"}],
        [{"type": "text", "value": "hello"}],
        {"type": "text", "text": "", "content": "hello"},
    ],
    ids=str,
)
async def test_the_text_of_a_block_is_read_wherever_it_is(
    content: object, emulator: RunningEmulator
) -> None:
    """Seen: OpenAI's assistants wrap the text in an object; others use another key."""
    (turn,), repairs = await sent_for(emulator, {"role": "user", "content": content})
    assert (turn["content"], repairs) == ("hello", [])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "message": "hello"},
        {"role": "user", "content": None, "text": "hello"},
        {"role": "user", "content": [], "parts": [{"text": "hello"}]},
        {"message": {"role": "user", "content": "hello"}, "index": 0},
        {"type": "user", "message": {"role": "user", "content": "hello"}},
        {"type": "human", "content": "hello"},
        {"type": "message", "content": "hello"},
    ],
    ids=str,
)
async def test_the_text_of_a_message_is_read_wherever_it_is(
    message: object, emulator: RunningEmulator
) -> None:
    """Seen: dumps of other libraries' messages."""
    (turn,), repairs = await sent_for(emulator, message)
    assert (turn["content"], repairs) == ("hello", [])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "prompt": "hello"},
        {"role": "user", "content": [{"type": "text", "body": "hello"}]},
        {"role": "user", "content": [{"type": "text", "text": {"deep": {"er": "hello"}}}]},
        {"role": "user", "content": [{"type": "new", "a": ["hello"]}]},
        {"role": "user", "content": [{"text": "hel", "more": "hello"}]},
        {"role": "user", "content": [{"type": "tool_use", "id": "a", "input": {"a": "hello"}}]},
        {"role": "user", "content": "", "tool_calls": ["hello", {"args": {"b": "hello"}}]},
        {"type": "item", "id": "hello"},
        {"role": "system", "content": [{"type": "new", "a": "hello"}]},
    ],
    ids=str,
)
async def test_unknown_content_is_sent_as_json_with_a_note(
    message: dict[str, Any], emulator: RunningEmulator
) -> None:
    """Nothing from a caller may be lost: the model can read JSON."""
    sent_turns, repairs = await sent_for(emulator, message, {"role": "user", "content": "Go."})
    assert "hello" in json.dumps(sent_turns)
    assert {repair["rule"] for repair in repairs} >= {"unknown_content"}
    assert "messages[0]" in repairs[0]["detail"]


async def test_what_cannot_be_sent_beside_a_text_is_named_once_for_all(
    emulator: RunningEmulator,
) -> None:
    """A history repeats such members with every turn; one note for each name is enough."""
    block = {"type": "text", "text": "hello", "citations": [{"cited_text": "c"}]}
    message = {"role": "user", "name": "Ann", "content": [block, block]}
    (turn,), repairs = await sent_for(emulator, message, message)
    assert turn["content"].count("hello") == 4
    left_out = [repair["detail"] for repair in repairs if repair["rule"] == "left_out"]
    assert len(left_out) == 2
    assert "messages[0].content[0].citations and 3 more" in left_out[0]
    assert "messages[0].name and 1 more" in left_out[1]


async def test_images_of_a_system_prompt_are_seen_as_images(emulator: RunningEmulator) -> None:
    """The service has no system prompt, and base64 as text would mean nothing to a model."""
    image = {"type": "image", "data": PNG}
    (turn,), _ = await sent_for(
        emulator,
        {"role": "developer", "content": [{"type": "input_text", "text": "Be terse."}, image]},
        {"role": "user", "content": "hello"},
    )
    assert turn["content"] == "Be terse.\n\nhello"
    assert turn["images"][0]["source"]["bytes"] == PNG


async def test_empty_messages_are_not_sent(emulator: RunningEmulator) -> None:
    """A paid answer to a blank prompt helps nobody."""
    async with connected(emulator) as client:
        for messages in (
            [{"role": "user", "content": ""}],
            [{"role": "user", "content": [{"type": "text", "text": " "}]}],
            [{"role": "user"}],
        ):
            result = await client.call_tool("ask_claude", {"messages": messages})
            assert code(result) == "invalid_request"
            assert "Nothing was asked" in words(result)
    assert not emulator.state.requests


CUSTOM_CALLS: dict[str, list[dict[str, Any]]] = {
    "responses": [
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": '{"a": 1}\n+x'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done."},
    ],
    "chat completions": [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": '{"a": 1}\n+x'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Done."},
    ],
}


@pytest.mark.parametrize("shape", CUSTOM_CALLS)
async def test_a_call_of_a_custom_tool_is_a_call_with_one_text(
    shape: str, emulator: RunningEmulator
) -> None:
    """OpenAI's custom tools take text; the service's take an object."""
    (_, said, answer), repairs = await sent_for(emulator, "Go.", *CUSTOM_CALLS[shape])
    (use,) = said["toolUses"]
    assert (use["name"], use["input"]) == ("patch", {"input": '{"a": 1}\n+x'})
    (result,) = results_of(answer)
    assert result["toolUseId"] == use["toolUseId"]
    assert result["content"] == [{"text": "Done."}]
    assert [repair["rule"] for repair in repairs] == ["stub_tool"]


async def test_a_custom_tool_is_offered_and_its_call_comes_back(
    emulator: RunningEmulator,
) -> None:
    """The text that the model writes is the one argument of the call."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    tool = {"type": "custom", "name": "patch", "description": "Patches.", "format": grammar}
    async with connected(emulator) as client:
        answer = await ask(client, prompt="/emulate tool_use", tools=[tool])
    (call,) = answer["tool_calls"]
    assert (call["name"], call["state"]) == ("patch", "complete")
    assert isinstance(call["arguments"]["input"], str)
    assert not call.get("schema_errors")
    (turn,) = turns(emulator)
    (declared,) = turn["userInputMessageContext"]["tools"]
    assert "start: /.+/" in declared["toolSpecification"]["description"]


OWN_TOOLS: dict[str, list[dict[str, Any]]] = {
    "local shell": [
        {
            "type": "local_shell_call",
            "call_id": "c1",
            "action": {"type": "exec", "command": ["ls", "hello"]},
        },
        {"type": "local_shell_call_output", "call_id": "c1", "output": "found"},
    ],
    "apply patch": [
        {"type": "apply_patch_call", "call_id": "c1", "operation": {"diff": "hello"}},
        {"type": "apply_patch_call_output", "call_id": "c1", "output": "found"},
    ],
    "mcp with its result": [
        {
            "type": "mcp_call",
            "id": "c1",
            "name": "look",
            "arguments": '{"at": "hello"}',
            "output": "found",
            "error": None,
        },
    ],
    "code interpreter with its result": [
        {
            "type": "code_interpreter_call",
            "id": "c1",
            "code": "hello",
            "outputs": [{"type": "logs", "logs": "found"}],
        },
    ],
    "ai sdk": [
        {
            "role": "assistant",
            "content": [
                {"type": "tool-call", "toolCallId": "c1", "toolName": "f", "input": {"a": "hello"}}
            ],
        },
        {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "c1",
                    "toolName": "f",
                    "output": {"type": "text", "value": "found"},
                }
            ],
        },
    ],
}


@pytest.mark.parametrize("shape", OWN_TOOLS)
async def test_calls_of_every_kind_are_paired_with_their_results(
    shape: str, emulator: RunningEmulator
) -> None:
    """OpenAI's Responses has a kind of item for each of its own tools."""
    (_, said, answer), repairs = await sent_for(emulator, "Go.", *OWN_TOOLS[shape])
    (use,) = said["toolUses"]
    assert "hello" in json.dumps(use["input"])
    (result,) = results_of(answer)
    assert (result["toolUseId"], result["status"]) == (use["toolUseId"], "success")
    assert "found" in json.dumps(result["content"])
    assert {repair["rule"] for repair in repairs} <= {"stub_tool", "misplaced_part"}


SERVER_RESULTS: dict[str, tuple[object, str]] = {
    "web_search_tool_result": ([{"type": "web_search_result", "url": "u:x"}], "u:x"),
    "web_fetch_tool_result": (
        {
            "type": "web_fetch_result",
            "url": "u:x",
            "content": {"type": "document", "source": {"type": "text", "data": "words"}},
        },
        "words",
    ),
    "code_execution_tool_result": (
        {"type": "code_execution_result", "stdout": "out", "return_code": 0},
        "out",
    ),
    "bash_code_execution_tool_result": (
        {"type": "bash_code_execution_result", "stdout": "out", "stderr": ""},
        "out",
    ),
    "text_editor_code_execution_tool_result": (
        {"type": "text_editor_code_execution_view_result", "content": "out"},
        "out",
    ),
    "tool_search_tool_result": (
        {
            "type": "tool_search_tool_search_result",
            "tool_references": [{"type": "tool_reference", "tool_name": "look"}],
        },
        "look",
    ),
}


@pytest.mark.parametrize("kind", SERVER_RESULTS)
async def test_results_of_anthropics_own_tools_answer_their_calls(
    kind: str, emulator: RunningEmulator
) -> None:
    """Anthropic runs these tools itself: call and result are in one message."""
    content, said_by_it = SERVER_RESULTS[kind]
    result_block: dict[str, Any] = {"type": kind, "tool_use_id": "t1", "content": content}
    blocks = [SERVER_USE, result_block, {"type": "text", "text": "So."}]
    history = {"role": "assistant", "content": blocks}
    (_, _, answer, after, _), _ = await sent_for(emulator, "Go.", history, "And?")
    (result,) = results_of(answer)
    assert (result["toolUseId"], result["status"]) == ("t1", "success")
    assert said_by_it in json.dumps(result["content"])
    assert after["content"] == "So."
    result_block["content"] = {"type": f"{kind}_error", "error_code": "unavailable"}
    (_, _, answer, *_), _ = await sent_for(emulator, "Go.", history, "And?")
    (result,) = results_of(answer)
    assert result["status"] == "error"
    assert "unavailable" in json.dumps(result["content"])


async def test_an_unreadable_page_is_left_out_with_a_note(emulator: RunningEmulator) -> None:
    """A PDF as base64 is many tokens that mean nothing to the model."""
    page = {"type": "document", "source": PDF}
    fetched = {
        "type": "web_fetch_tool_result",
        "tool_use_id": "t1",
        "content": {"type": "web_fetch_result", "url": "u:x", "content": page},
    }
    (_, _, answer), repairs = await sent_for(
        emulator, "Go.", {"role": "assistant", "content": [SERVER_USE, fetched]}
    )
    said = json.dumps(results_of(answer))
    assert "u:x" in said
    assert "Left out: " in said
    assert PDF["data"] not in said
    assert "media_left_out" in {repair["rule"] for repair in repairs}


async def test_a_whole_call_result_of_mcp_is_opened(emulator: RunningEmulator) -> None:
    """Seen: agents hand over what their MCP client returned as the content of a result."""
    image = {"type": "image", "data": PNG, "mimeType": "image/png"}
    call_result = {
        "content": [
            {"type": "text", "text": "Cannot look."},
            image,
            AUDIO,
            {"type": "resource", "resource": {"uri": "u:x", "text": "words"}},
        ],
        "isError": True,
        "structuredContent": {"reason": "dark"},
        "_meta": {"a": 1},
    }
    for member in ("content", "result", "output"):
        (_, _, answer), repairs = await sent_for(
            emulator,
            "Go.",
            {"role": "assistant", "content": [USE]},
            tool_results=[{"id": "t1", member: call_result}],
        )
        (result,) = results_of(answer)
        assert result["status"] == "error"
        text, data = result["content"]
        assert text["text"].startswith("Cannot look.\n(Left out: ")
        assert text["text"].endswith('<document name="u:x">\nwords\n</document>')
        assert data == {"json": {"reason": "dark"}}
        assert answer["images"] == [{"format": "png", "source": {"bytes": PNG}}]
        assert {repair["rule"] for repair in repairs} >= {"media_left_out", "hoisted_image"}


async def test_a_block_that_cannot_be_sent_does_not_stop_the_others(
    emulator: RunningEmulator,
) -> None:
    """A document of blocks keeps its text when its audio is left out."""
    blocks = [{"type": "text", "text": "words"}, AUDIO]
    document = {"type": "document", "source": {"type": "content", "content": blocks}}
    (_, _, answer), _ = await sent_for(
        emulator,
        "Go.",
        {"role": "assistant", "content": [USE]},
        tool_results=[{"id": "t1", "content": [document]}],
    )
    ((text,),) = (result["content"] for result in results_of(answer))
    assert "words" in text["text"]
    assert "Left out: " in text["text"]


async def test_parallel_calls_and_their_images_are_told_apart(emulator: RunningEmulator) -> None:
    """Two calls with one id, results in any order, an image from each and one from the user."""
    calls = [{**USE, "input": {"at": at}} for at in ("north", "south")]
    other = {**USE, "id": "t2", "input": {"at": "east"}}
    image = {"type": "image", "data": PNG}
    (_, said, answer), repairs = await sent_for(
        emulator,
        "Go.",
        {"role": "assistant", "content": [*calls, other]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t2", "content": [image]},
                {"type": "tool_result", "tool_use_id": "t1", "content": "snow"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [image]},
                image,
                {"type": "text", "text": "Which is mine?"},
            ],
        },
    )
    uses = said["toolUses"]
    assert [use["input"]["at"] for use in uses] == ["north", "south", "east"]
    assert len({use["toolUseId"] for use in uses}) == 3
    results = results_of(answer)
    assert [result["toolUseId"] for result in results] == [use["toolUseId"] for use in uses]
    assert results[0]["content"] == [{"text": "snow"}]
    legend, question = answer["content"].split("\n")
    assert question == "Which is mine?"
    places = [legend.index(words) for words in ("from the user", "tool result 2", "tool result 3")]
    assert places == sorted(places)
    assert len(answer["images"]) == 3
    rules = {repair["rule"] for repair in repairs}
    assert rules >= {"repeated_id", "result_order", "hoisted_image", "image_legend"}


async def test_a_dry_run_warns_of_an_image_that_models_find_too_large(
    emulator: RunningEmulator,
) -> None:
    """It may work all the same, so it is not refused."""
    wide = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (9000).to_bytes(4) + (10).to_bytes(4)
    content = [{"type": "image", "data": b64encode(wide).decode()}]
    async with connected(emulator) as client:
        answer = await ask(client, messages=[{"role": "user", "content": content}], dry_run=True)
    assert not answer.get("findings")
    (warning,) = answer["warnings"]
    assert "Image 1 of 1 is 9000 x 10 pixels" in warning
    assert "8000" in warning


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "arguments",
    [
        {"messages": [{"role": LONG, "content": "hi"}]},
        {"messages": [{"role": "user", LONG: "hi"}]},
        {"messages": [{"role": "user", "content": "hi", LONG: "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": LONG, "a": 1}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "data": f"https:{LONG}"}]}]},
        {"messages": [{"type": "function_call", "name": LONG, "arguments": "nonsense"}]},
        {"messages": [{"type": "function_call", "call_id": LONG, "name": "f", "arguments": LONG}]},
        {"prompt": "hi", "tools": [{"name": LONG, "inputSchema": {"$ref": LONG}}]},
        {"prompt": "hi", "tools": [{"type": LONG}]},
        {"prompt": "hi", "tools": [{"description": LONG}]},
        {"prompt": "hi", "tools": [{"name": "f", "parameters": LONG}]},
    ],
    ids=lambda arguments: json.dumps(arguments).replace(LONG, "LONG"),
)
async def test_no_message_quotes_a_long_input(
    arguments: dict[str, Any], emulator: RunningEmulator
) -> None:
    """A model pays for each character of what it is told."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {**arguments, "dry_run": True})
    facts: Any = result.structured_content or {}
    told = (
        [words(result)]
        if result.is_error
        else [*facts.get("warnings", ()), *facts.get("repairs", ())]
    )
    assert max(map(len, map(str, told)), default=0) < 500
