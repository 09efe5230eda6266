"""Chats in the shapes of Anthropic, OpenAI and MCP."""

import json
from base64 import b64encode
from typing import Any

import pytest

from kiro_mcp.chat import (
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.messages import MAX_NOTES, document_text, read_messages, read_tool_results

DATA = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
IMAGE = ImagePart(format="png", data=DATA)


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role="assistant", parts=parts)


def text(words: str) -> TextPart:
    return TextPart(text=words)


def read(*given: object) -> tuple[Message, ...]:
    return read_messages(given).messages


def repr_start(value: object) -> str:
    return repr(value)[:12]


def test_a_call_of_openais_own_tool_has_its_other_members_as_arguments() -> None:
    """OpenAI's Responses API: the call contains its result, too."""
    call = {"type": "file_search_call", "id": "c1", "queries": ["q"], "results": ["found"]}
    assert read("Search.", call) == (
        user(text("Search.")),
        assistant(
            ToolUse(id="c1", name="file_search", arguments={"queries": ["q"]}),
            ToolResult(id="c1", name="file_search", text="found"),
        ),
    )


def test_an_empty_block_is_nothing_and_many_repairs_are_counted() -> None:
    """A repair note for each of a hundred blocks would bury the others."""
    odd = [{"type": "odd", "n": number} for number in range(MAX_NOTES + 7)]
    chat = read_messages([{"role": "user", "content": [{}, *odd]}])
    assert len(chat.messages[0].parts) == len(odd)
    assert [repair.rule for repair in chat.repairs] == ["unknown_content"] * (MAX_NOTES + 1)
    assert chat.repairs[-1].detail == "The same applies to 7 more."


def test_anthropic_messages_with_tools_and_reasoning() -> None:
    """Anthropic's Messages API."""
    assert read(
        {"role": "user", "content": "Look."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "cg=="},
                {"type": "text", "text": "I will."},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                },
                {"type": "text", "text": "Well?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ) == (
        user(text("Look.")),
        assistant(
            ThinkingPart(text="hm", signature="s"),
            ThinkingPart(text="", redacted="cg=="),
            text("I will."),
            ToolUse(id="t1", name="look", arguments={"at": "x"}),
        ),
        user(ToolResult(id="t1", text="a\nb", is_error=True), text("Well?")),
    )


def test_openai_messages_with_parallel_tool_calls() -> None:
    """OpenAI's Chat Completions API: each result is a message of its own."""
    chat = read_messages(
        [
            {"role": "system", "content": "Be terse."},
            {"role": "developer", "content": [{"type": "text", "text": "No lists."}]},
            {"role": "user", "content": [{"type": "text", "text": "Look."}]},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "reasoning_content": "hm",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at": "x"}'},
                    },
                    {"id": "c2", "type": "function", "function": {"name": "stop"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "done"}]},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": "So.", "refusal": "No."},
        ]
    )
    assert chat.system == "Be terse.\n\nNo lists."
    assert chat.messages == (
        user(text("Look.")),
        assistant(
            ThinkingPart(text="hm"),
            ToolUse(id="c1", name="look", arguments={"at": "x"}),
            ToolUse(id="c2", name="stop", arguments={}),
        ),
        user(ToolResult(id="c1", text="seen"), ToolResult(id="c2", text="done"), text("Well?")),
        assistant(text("So."), text("No.")),
    )
    assert chat.repairs == ()


def test_openais_older_function_calls() -> None:
    """OpenAI's Chat Completions API before tools: a call and its result have no id."""
    assert read(
        {
            "role": "assistant",
            "content": "",
            "function_call": {"name": "look", "arguments": "{}"},
        },
        {"role": "function", "name": "look", "content": "seen"},
    ) == (
        assistant(ToolUse(id="", name="look", arguments={})),
        user(ToolResult(id="", name="look", text="seen")),
    )


def test_openai_responses_items() -> None:
    """OpenAI's Responses API: calls and results are items beside the messages."""
    assert read(
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I will."}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c1",
            "name": "look",
            "arguments": '{"at":1}',
        },
        {"type": "function_call_output", "call_id": "c1", "output": "seen"},
        {"type": "function_call_output", "call_id": "c2", "output": {"n": 1}},
    ) == (
        user(text("Look.")),
        assistant(
            ThinkingPart(text=""),
            text("I will."),
            ToolUse(id="c1", name="look", arguments={"at": 1}),
        ),
        user(ToolResult(id="c1", text="seen"), ToolResult(id="c2", data={"n": 1})),
    )


def test_mcp_messages_with_single_blocks_and_resources() -> None:
    """The Model Context Protocol's sampling and prompt messages."""
    assert read(
        {"role": "user", "content": {"type": "text", "text": "Look."}},
        {"role": "user", "content": {"type": "image", "data": DATA, "mimeType": "image/jpg"}},
        {
            "role": "user",
            "content": [
                {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "words"}},
                {
                    "type": "resource",
                    "resource": {"uri": "x:y", "mimeType": "image/png", "blob": DATA},
                },
                {"type": "resource_link", "uri": "x:z", "name": "z", "title": "Z"},
            ],
        },
        {
            "role": "assistant",
            "content": {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
        },
        {
            "role": "user",
            "content": {
                "type": "tool_result",
                "toolUseId": "t1",
                "content": [],
                "structuredContent": {"n": 1},
                "isError": True,
            },
        },
    ) == (
        user(text("Look.")),
        user(IMAGE),
        user(
            text('<document name="file:///a.txt">\nwords\n</document>'),
            IMAGE,
            text("Z z x:z"),
        ),
        assistant(ToolUse(id="t1", name="look", arguments={})),
        user(ToolResult(id="t1", data={"n": 1}, is_error=True)),
    )


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": DATA}},
        {"type": "image", "source": {"type": "url", "url": f"data:image/png;base64,{DATA}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{DATA}"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"},
        {"type": "image", "data": DATA, "mimeType": "image/png"},
    ],
)
def test_images_of_every_shape_are_read(block: dict[str, Any]) -> None:
    """The three APIs."""
    assert read({"role": "user", "content": [block]}) == (user(IMAGE),)


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        ({"type": "image"}, "holds no image"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "holds no image"),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "is a URL"),
        ({"type": "image", "data": "aGVsbG8="}, "is not a PNG"),
        ({"type": "input_audio", "input_audio": {}}, "is input_audio, which the service does not"),
        ({"type": "file", "file": {"file_id": "f"}}, "is a document without readable text"),
    ],
)
def test_media_that_cannot_be_sent_are_refused_with_their_location(
    block: dict[str, Any], cause: str
) -> None:
    """An error names the block and the cure."""
    with pytest.raises(InvalidRequest, match=rf"messages\[1\]\.content\[2\] {cause}") as caught:
        read("hi", {"role": "user", "content": ["a", "b", block]})
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(
            {"type": "document", "title": "T", "source": {"type": "text", "data": "words"}},
            '<document name="T">\nwords\n</document>',
            id="anthropic-text",
        ),
        pytest.param(
            {
                "type": "document",
                "source": {
                    "type": "base64",
                    "media_type": "text/csv",
                    "data": b64encode(b"a,b").decode(),
                },
            },
            "<document>\na,b\n</document>",
            id="anthropic-base64",
        ),
        pytest.param(
            {
                "type": "file",
                "file": {
                    "filename": "a.txt",
                    "file_data": f"data:text/plain;base64,{b64encode(b'words').decode()}",
                },
            },
            '<document name="a.txt">\nwords\n</document>',
            id="openai-file",
        ),
        pytest.param(
            {"type": "search_result", "source": "u", "title": "T", "content": [{"text": "words"}]},
            '<document name="T u">\nwords\n</document>',
            id="anthropic-search-result",
        ),
        pytest.param(
            {"type": "resource", "resource": {"uri": "u", "text": ""}},
            '<document name="u">\n\n</document>',
            id="mcp-empty",
        ),
    ],
)
def test_documents_become_text(block: dict[str, Any], expected: str) -> None:
    """The service's request model has no documents."""
    assert read({"role": "user", "content": [block]}) == (user(text(expected)),)


@pytest.mark.parametrize(
    ("name", "opening"),
    [("", "<document>"), ("a.md", '<document name="a.md">'), ('a"\nb', '<document name="a\' b">')],
)
def test_a_document_stands_between_tags_with_its_name(name: str, opening: str) -> None:
    """The model can tell it from the prompt."""
    assert document_text(name, "words").text == f"{opening}\nwords\n</document>"


ENCODED = b64encode("\ufeffgrüß\0".encode()).decode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (f"{ENCODED[:4]}\n{ENCODED[4:]}", "grüß"),
        (f"data:text/plain;base64,{ENCODED}", "grüß"),
        ("data:text/plain,a%20b", "a b"),
    ],
)
def test_the_text_of_a_file_is_decoded(data: str, expected: str) -> None:
    """Plain base64, wrapped or not, and data URLs."""
    block = {"type": "file", "file": {"file_data": data}}
    assert read({"role": "user", "content": [block]}) == (
        user(text(f"<document>\n{expected}\n</document>")),
    )


@pytest.mark.parametrize("data", ["", "JVBERi0xLjcgd29yZHM=", "//4Adw==", "???", "YQ", "YWJj!"])
def test_a_file_without_readable_text_is_refused(data: str) -> None:
    """Nothing, a PDF, UTF-16, and what is not base64."""
    block = {"type": "file", "file": {"file_data": data}}
    with pytest.raises(InvalidRequest, match="without readable text"):
        read({"role": "user", "content": [block]})


def test_a_document_of_blocks_keeps_its_images() -> None:
    """Anthropic's Messages API."""
    content = [{"type": "text", "text": "words"}, {"type": "image", "data": DATA}]
    block = {"type": "document", "source": {"type": "content", "content": content}}
    assert read({"role": "user", "content": [block]}) == (
        user(text("<document>\nwords\n</document>"), IMAGE),
    )


@pytest.mark.parametrize(
    ("item", "role", "words"),
    [
        pytest.param("hi", "user", "hi", id="bare-text"),
        pytest.param(7, "user", "7", id="bare-number"),
        pytest.param({"type": "text", "text": "hi"}, "user", "hi", id="bare-block"),
        pytest.param({"content": "hi"}, "user", "hi", id="no-role"),
        pytest.param({"role": "human", "content": "hi"}, "user", "hi", id="human"),
        pytest.param({"role": "model", "parts": [{"text": "hi"}]}, "assistant", "hi", id="parts"),
        pytest.param({"role": "user", "text": "hi"}, "user", "hi", id="text-member"),
        pytest.param({"role": "user", "content": 7}, "user", "7", id="number"),
        pytest.param({"role": "user", "content": {"a": 1}}, "user", '{"a":1}', id="data"),
        pytest.param({"a": 1}, "user", '{"a":1}', id="nothing-known"),
        pytest.param({"type": []}, "user", '{"type":[]}', id="no-type"),
        pytest.param({"role": "User", "content": "hi"}, "user", "hi", id="capital"),
        pytest.param(
            {"role": "user", "content": [{"type": "new", "text": "hi"}]},
            "user",
            "hi",
            id="new-text",
        ),
    ],
)
def test_a_message_of_any_form_is_read(item: object, role: Role, words: str) -> None:
    assert read(item) == (Message(role=role, parts=(text(words),)),)


def test_a_repair_names_each_guess() -> None:
    """With its location."""
    chat = read_messages(
        [
            {"role": "user", "content": [{"type": "new", "a": 1}, None, ""]},
            {"role": "", "content": "b", "stop_reason": []},
            None,
        ]
    )
    assert chat.messages == (user(text('{"type":"new","a":1}')), user(text("b")))
    (repair,) = chat.repairs
    assert repair.rule == "unknown_content"
    assert "messages[0].content[0]" in repair.detail


@pytest.mark.parametrize("role", ["narrator", 3, [3], "x" * 10_000_000], ids=repr_start)
def test_an_unknown_role_is_refused_with_its_location_and_value(role: object) -> None:
    """A message of the wrong speaker would change what the conversation means."""
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.role is ") as caught:
        read("hi", {"role": role, "content": "a"})
    assert str(role)[:20] in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "assistant" in caught.value.next_step


@pytest.mark.parametrize(
    ("given", "arguments", "state", "repairs"),
    [
        pytest.param({"a": 1}, {"a": 1}, "complete", 0, id="object"),
        pytest.param('{"a": 1}', {"a": 1}, "complete", 0, id="text"),
        pytest.param('{"a": "x\ny",}', {"a": "x\ny"}, "complete", 1, id="mended"),
        pytest.param('{"a": "cut', {}, "truncated", 1, id="cut-off"),
        pytest.param("nonsense", {}, "invalid", 1, id="no-json"),
        pytest.param("", {}, "complete", 0, id="empty"),
        pytest.param(None, {}, "complete", 0, id="null"),
        pytest.param([1], {"value": [1]}, "complete", 1, id="list"),
    ],
)
def test_arguments_of_any_form_become_an_object(
    given: object, arguments: object, state: str, repairs: int
) -> None:
    """Observed: the service refuses anything but an object, also in every later call."""
    call = {"id": "c1", "function": {"name": "f", "arguments": given}}
    chat = read_messages([{"role": "assistant", "content": "", "tool_calls": [call]}])
    (use,) = chat.messages[0].parts
    assert isinstance(use, ToolUse)
    assert (use.arguments, use.state) == (arguments, state)
    assert [repair.rule for repair in chat.repairs] == ["malformed_input"] * repairs


def test_a_result_of_ask_claude_can_be_sent_back() -> None:
    """`tool_calls` as ask_claude returned them, one of them cut off."""
    call: dict[str, Any] = {
        "id": "c1",
        "name": "f",
        "arguments": {},
        "state": "truncated",
        "raw": '{"a',
    }
    message = {"role": "assistant", "content": "So", "tool_calls": [call], "truncated": True}
    assert read(message) == (
        Message(
            role="assistant",
            parts=(text("So"), ToolUse(id="c1", name="f", arguments={}, state="truncated")),
            is_truncated=True,
        ),
    )


@pytest.mark.parametrize(
    "mark", [{"stop_reason": "max_tokens"}, {"finish_reason": "length"}, {"truncated": True}]
)
def test_the_stop_reason_tells_that_an_answer_was_cut_off(mark: dict[str, Any]) -> None:
    """The APIs' own words for it."""
    assert read({"role": "assistant", "content": "a", **mark})[0].is_truncated
    assert not read({"role": "user", "content": "a", **mark})[0].is_truncated


# --- results of tools ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"id": "a", "content": "x"}, ToolResult(id="a", text="x"), id="ours"),
        pytest.param(
            {"tool_use_id": "a", "content": "x", "is_error": True},
            ToolResult(id="a", text="x", is_error=True),
            id="anthropic",
        ),
        pytest.param(
            {"role": "tool", "id": "m", "tool_call_id": "a", "content": "x"},
            ToolResult(id="a", text="x"),
            id="openai",
        ),
        pytest.param(
            {"toolUseId": "a", "status": "error", "content": [{"text": "x"}, {"text": "y"}]},
            ToolResult(id="a", text="x\ny", is_error=True),
            id="untyped-text",
        ),
        pytest.param(
            {"id": "a", "content": {"n": 1}}, ToolResult(id="a", data={"n": 1}), id="data"
        ),
        pytest.param(
            {"id": "a", "content": {"type": "file", "name": "x"}},
            ToolResult(id="a", data={"type": "file", "name": "x"}),
            id="data-with-a-type",
        ),
        pytest.param(
            {"id": "a", "content": [{"type": "dir", "name": "x"}]},
            ToolResult(id="a", text='[{"type":"dir","name":"x"}]'),
            id="list-of-data",
        ),
        pytest.param(
            {"id": "a", "content": [1, 2]}, ToolResult(id="a", text="[1,2]"), id="numbers"
        ),
        pytest.param({"id": "a", "content": []}, ToolResult(id="a"), id="empty"),
        pytest.param({"id": "a"}, ToolResult(id="a"), id="missing"),
        pytest.param(
            {"id": "a", "content": "x", "structuredContent": {"n": 1}},
            ToolResult(id="a", text="x", data={"n": 1}),
            id="text-beside-data",
        ),
        pytest.param(
            {"id": "a", "content": '{"n": 1}', "structuredContent": {"n": 1}},
            ToolResult(id="a", text='{"n": 1}'),
            id="text-that-is-the-data",
        ),
        pytest.param(
            {
                "id": "a",
                "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "x"}],
                "structuredContent": {"result": [1, "x"]},
            },
            ToolResult(id="a", text="1\nx"),
            id="texts-that-are-the-wrapped-data",
        ),
        pytest.param(
            {"id": "a", "content": [], "structuredContent": {}},
            ToolResult(id="a", data={}),
            id="empty-data",
        ),
        pytest.param({"id": "a", "result": 42}, ToolResult(id="a", text="42"), id="result"),
        pytest.param(
            {"id": "a", "response": {"n": [1]}}, ToolResult(id="a", data={"n": [1]}), id="response"
        ),
        pytest.param(
            {"id": "a", "error": "boom"}, ToolResult(id="a", text="boom", is_error=True), id="error"
        ),
        pytest.param(
            {"id": "a", "error": {"code": 3, "message": "boom"}, "content": None},
            ToolResult(id="a", data={"code": 3, "message": "boom"}, is_error=True),
            id="error-object",
        ),
        pytest.param(
            {"id": "a", "content": "half", "error": "boom"},
            ToolResult(id="a", text="half\nboom", is_error=True),
            id="error-beside-content",
        ),
        pytest.param(
            {"id": "a", "content": "x", "error": None, "is_error": "false"},
            ToolResult(id="a", text="x"),
            id="no-error",
        ),
        pytest.param(
            {"id": "a", "content": "x", "error": False}, ToolResult(id="a", text="x"), id="false"
        ),
        *(
            pytest.param(
                {"id": "a", "content": "x", **flag},
                ToolResult(id="a", text="x", is_error=True),
                id=f"flag-{flag}",
            )
            for flag in (
                {"is_error": "true"},
                {"isError": "True"},
                {"is_error": 1},
                {"error": True},
                {"status": "failed"},
            )
        ),
        pytest.param("x", ToolResult(id="", text="x"), id="bare"),
        pytest.param(
            {
                "id": "a",
                "content": [{"type": "image", "data": DATA}, {"type": "text", "text": "x"}],
            },
            ToolResult(id="a", text="x", images=(IMAGE,)),
            id="image",
        ),
    ],
)
def test_results_of_every_shape_are_read(given: object, expected: ToolResult) -> None:
    """The three APIs, and plain data as tools return it."""
    assert read_tool_results([given]) == ((expected,), ())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"structuredContent": [1, 2]}, "[1,2]", id="mcp-list"),
        pytest.param({"structuredContent": False, "content": []}, "false", id="mcp-value"),
        pytest.param({"content": None, "output": "x"}, "x", id="null-beside-output"),
    ],
)
def test_a_result_may_be_any_json_value(given: dict[str, Any], said: str) -> None:
    """MCP 2026-07-28: structured content is any JSON value."""
    assert read_tool_results([{"id": "a", **given}]) == ((ToolResult(id="a", text=said),), ())


@pytest.mark.parametrize("said", [{"found": 42}, {"why": "boom", "rows": {"n": [1]}}])
def test_unknown_members_of_a_result_are_sent_as_json(said: dict[str, Any]) -> None:
    """An empty result would tell the model that its tool had nothing to say."""
    ((result,), repairs) = read_tool_results([{"id": "a", "is_error": True, "name": "f", **said}])
    assert (json.loads(result.text), result.is_error) == (said, True)
    assert [repair.rule for repair in repairs] == ["unknown_content"]
    assert "tool_results[0]" in repairs[0].detail


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "x"}, "x"),
        ({"type": "input_text", "text": "x"}, "x"),
        ({"type": "output_text", "text": "x"}, "x"),
        ({"text": "x"}, "x"),
        ({"type": "document", "source": {"type": "text", "data": "x"}}, "<document>"),
        ({"type": "file", "file": {"file_data": "data:,x"}}, "<document>"),
        ({"type": "resource", "resource": {"text": "x"}}, "<document>"),
        ({"type": "resource_link", "uri": "u:x", "name": "x"}, "x u:x"),
        ({"type": "search_result", "title": "x", "content": "y"}, '<document name="x">'),
        (
            {"type": "web_fetch_result", "url": "u:x", "content": {"type": "text", "text": "y"}},
            "u:x\ny",
        ),
        ({"type": "image", "source": {"data": DATA}}, ""),
        ({"type": "image", "data": DATA}, ""),
        ({"type": "image_url", "image_url": {"url": f"data:;base64,{DATA}"}}, ""),
        ({"type": "input_image", "image_url": f"data:;base64,{DATA}"}, ""),
        ({"type": "audio", "data": "AA=="}, "(Left out: "),
    ],
)
def test_data_with_a_type_is_not_read_as_a_content_block(block: dict[str, Any], text: str) -> None:
    """A block has the member that its type needs; other objects with a `type` are data."""
    for content in (block, [block]):
        ((result,), _) = read_tool_results([{"id": "a", "content": content}])
        assert result.text.startswith(text)
        assert result.images == (() if text else (IMAGE,))
        assert result.data is None
    if "type" in block:
        bare = {"type": block["type"], "x": 1}
        ((result,), _) = read_tool_results([{"id": "a", "content": bare}])
        assert result == ToolResult(id="a", data=bare)


def test_the_model_is_told_which_media_of_a_result_were_left_out() -> None:
    """The caller cannot change what its tools answered."""
    content = [{"type": "text", "text": "x"}, {"type": "audio", "data": "AA=="}]
    block = {"type": "tool_result", "tool_use_id": "a", "content": content}
    chat = read_messages([{"role": "user", "content": [block]}])
    (result,) = chat.messages[0].parts
    assert isinstance(result, ToolResult)
    assert result.text.startswith("x\n(Left out: ")
    assert [repair.rule for repair in chat.repairs] == ["media_left_out"]


def test_a_tool_use_inside_a_result_becomes_its_arguments() -> None:
    content = ["x", {"type": "tool_use", "id": "b", "name": "f", "input": {"a": 1}}]
    ((result,), _) = read_tool_results([{"id": "a", "content": content}])
    assert result.text == 'x\nf {"a":1}'


# --- the system prompt --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ""),
        ("", ""),
        ("Be terse.", "Be terse."),
        ([{"type": "text", "text": "A"}, "B", {"type": "text", "text": " "}, None], "A\n\nB"),
        ({"type": "text", "text": "A"}, "A"),
        ([{"type": "new", "a": 1}], '{"type":"new","a":1}'),
        ([{"type": "text", "text": "x-anthropic-billing-header: v=1"}, "A"], "A"),
        ("x-anthropic-billing-header: v=1\nA", "A"),
    ],
)
def test_the_system_prompt_is_text_or_blocks(given: Any, expected: str) -> None:
    """Anthropic's Messages API; observed: one client adds a line that differs each time."""
    assert read_messages(["hi"], system=given).system == expected


def test_system_prompts_are_joined_in_order() -> None:
    chat = read_messages([{"role": "system", "content": "B"}, "hi"], system=["A"])
    assert chat.system == "A\n\nB"
    assert chat.messages == (user(text("hi")),)


def test_the_callers_messages_are_not_changed() -> None:
    """Callers keep their own objects."""
    given = [{"role": "user", "content": [{"type": "new", "a": None, "b": "\0"}]}]
    before = json.dumps(given)
    read_messages(given)
    assert json.dumps(given) == before
