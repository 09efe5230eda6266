"""Resources and prompts."""

import json
from typing import Any

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from kiro_mcp.emulator import RunningEmulator
from tests.support.mcp import ask, ask_with_id, connected


def text_of(result: types.ReadResourceResult) -> str:
    (contents,) = result.contents
    assert isinstance(contents, types.TextResourceContents)
    return contents.text


async def test_conversations_are_listed_and_read(emulator: RunningEmulator) -> None:
    """A person whose client lost an id finds it again."""
    tool = {"name": "read", "description": "Read.", "inputSchema": {"type": "object"}}
    async with connected(emulator) as client:
        first = await ask(client, prompt="/emulate tool_use", tools=[tool])
        name = first["conversation_id"]
        results = [{"id": first["tool_calls"][0]["id"], "content": "It says hi."}]
        await ask(client, conversation_id=name, tool_results=results)
        (listed,) = json.loads(text_of(await client.read_resource("kiro://conversations")))
        words = text_of(await client.read_resource(listed["uri"]))
    assert (listed["id"], listed["turns"]) == (name, 2)
    assert "# Turn 2" in words
    assert "[asks for read" in words
    assert "[result: It says hi.]" in words


async def test_a_finished_answer_is_read_by_its_id(emulator: RunningEmulator) -> None:
    """A client that gave up finds the answer under the id that progress named."""
    async with connected(emulator) as client:
        answer, answer_id = await ask_with_id(client, prompt="Say hello")
        kept = text_of(await client.read_resource(f"kiro://answers/{answer_id}"))
    assert json.loads(kept)["structuredContent"] == answer


@pytest.mark.parametrize(
    "uri",
    [
        "kiro://answers/gone",
        "kiro://conversations/gone",
        "kiro://answers/\ufffd",
        "kiro://conversations/\ufffd",
        "kiro://else",
        "kiro://answers",
    ],
)
async def test_a_resource_that_does_not_exist_is_a_protocol_error(uri: str) -> None:
    """MCP 2026-07-28: -32602, and the data names what was asked for."""
    async with connected() as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.error.code == types.INVALID_PARAMS
    assert caught.value.error.data == {"uri": uri}


async def test_resources_and_templates_are_listed() -> None:
    async with connected() as client:
        listed = await client.list_resources()
        templates = await client.list_resource_templates()
    assert [resource.uri for resource in listed.resources] == ["kiro://conversations"]
    assert [template.uri_template for template in templates.resource_templates] == [
        "kiro://conversations/{id}",
        "kiro://answers/{id}",
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("question-for-claude", {"question": "Why?", "model": "auto"}, "Why?"),
        ("question-for-claude", {"question": "Why?", "model": "auto"}, "'auto'"),
        ("second-opinion", {}, "latest work"),
        ("second-opinion", {"about": "the parser"}, "the parser"),
    ],
)
async def test_a_prompt_is_filled_in(name: str, arguments: dict[str, str], says: str) -> None:
    async with connected() as client:
        assert name in [prompt.name for prompt in (await client.list_prompts()).prompts]
        result = await client.get_prompt(name, arguments)
    (message,) = result.messages
    content: Any = message.content
    assert says in content.text
    assert "ask_claude" in content.text


@pytest.mark.parametrize(
    ("name", "says"), [("question-for-claude", "question"), ("sing", "'sing'")]
)
async def test_a_prompt_that_cannot_be_filled_in_is_refused(name: str, says: str) -> None:
    """The MCP specification: -32602."""
    async with connected() as client:
        with pytest.raises(MCPError, match=says):
            await client.get_prompt(name, {})


@pytest.mark.parametrize(
    ("typed", "argument", "some"), [("haiku-4", "model", "claude-haiku-4.5"), ("x", "question", "")]
)
async def test_models_are_completed(typed: str, argument: str, some: str) -> None:
    async with connected() as client:
        result = await client.complete(
            types.PromptReference(type="ref/prompt", name="question-for-claude"),
            {"name": argument, "value": typed},
        )
    assert result.completion.values == ([some] if some else [])


async def test_a_wrong_setting_is_reported_there_too() -> None:
    async with connected(KIRO_MCP_CONNECT_TIMEOUT="soon") as client:
        with pytest.raises(MCPError, match="KIRO_MCP_CONNECT_TIMEOUT"):
            await client.read_resource("kiro://conversations")
