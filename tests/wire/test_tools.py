"""Tools as callers declare them, as the service takes them."""

import copy
import json
from typing import Any

import pytest

from kiro_mcp.chat import ToolSpec
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.tools import (
    DESCRIPTION_MAX_BYTES,
    LEGAL_NAME,
    SentTools,
    read_tool_specs,
    sendable_tools,
    sent_names,
)

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}


def spec(name: str = "f", description: str = "Does it.", schema: Any = SCHEMA) -> ToolSpec:
    return ToolSpec(name=name, description=description, input_schema=schema)


def rules(tools: SentTools) -> list[str]:
    return [repair.rule for repair in tools.repairs]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"name": "f", "description": "Does it.", "inputSchema": SCHEMA}, id="mcp"),
        pytest.param(
            {"name": "f", "title": "Does it.", "inputSchema": SCHEMA, "annotations": {}},
            id="mcp-title",
        ),
        pytest.param(
            {"name": "f", "description": "Does it.", "input_schema": SCHEMA}, id="anthropic"
        ),
        pytest.param(
            {"type": "custom", "name": "f", "description": "Does it.", "input_schema": SCHEMA},
            id="anthropic-custom",
        ),
        pytest.param(
            {
                "type": "function",
                "function": {"name": "f", "description": "Does it.", "parameters": SCHEMA},
            },
            id="openai",
        ),
        pytest.param(
            {"type": "function", "name": "f", "description": "Does it.", "parameters": SCHEMA},
            id="openai-responses",
        ),
    ],
)
def test_tools_of_every_shape_are_read(given: dict[str, Any]) -> None:
    """MCP, Anthropic and OpenAI."""
    assert read_tool_specs([given]) == ((spec(),), ())


def test_a_tool_without_a_schema_takes_nothing() -> None:
    """OpenAI: a function without parameters may leave them out."""
    assert read_tool_specs([{"type": "function", "function": {"name": "f"}}])[0] == (
        ToolSpec(name="f", description="", input_schema={}),
    )


@pytest.mark.parametrize(
    "given",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "web_search"},
        {"type": "namespace", "name": "n", "tools": []},
    ],
)
def test_a_tool_that_no_caller_can_run_is_left_out_with_a_repair(given: dict[str, Any]) -> None:
    """A provider's own tools have no schema."""
    specs, repairs = read_tool_specs([given])
    assert specs == ()
    (repair,) = repairs
    assert repair.rule == "no_tool"
    assert "tools[0]" in repair.detail
    assert given["type"] in repair.detail


@pytest.mark.parametrize(
    "given",
    ["f", None, {}, {"name": ""}, {"description": "x" * 10**7}, {"function": {"parameters": {}}}],
    ids=lambda given: repr(given)[:30],
)
def test_a_tool_without_a_name_is_refused(given: object) -> None:
    """A tool that silently is not there makes an agent fail without a reason."""
    with pytest.raises(InvalidRequest, match=r"tools\[1\] has no name: ") as caught:
        read_tool_specs([{"name": "f"}, given])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["parameters", "inputSchema", "input_schema"])
def test_a_schema_may_be_json_text(key: str) -> None:
    """Seen: a client that hands the schema on as it came."""
    given = {"name": "f", "description": "Does it.", key: json.dumps(SCHEMA)}
    assert read_tool_specs([given]) == ((spec(),), ())


@pytest.mark.parametrize("schema", ["not json", "[1]", [1], 3, True])
def test_a_schema_that_is_not_an_object_is_refused_with_its_location(schema: object) -> None:
    """Without its schema, a tool is called with wrong arguments."""
    with pytest.raises(InvalidRequest, match=r"tools\[0\]\.parameters is not a JSON object: "):
        read_tool_specs([{"name": "f", "parameters": schema}])


GRAMMAR = {"syntax": "lark", "definition": "start: /a+/"}


@pytest.mark.parametrize(
    ("given", "description"),
    [
        pytest.param({"name": "f", "description": "Does it."}, "Does it.", id="plain"),
        pytest.param(
            {"name": "f", "description": "Does it.", "format": {"type": "text"}},
            "Does it.",
            id="text",
        ),
        pytest.param(
            {"name": "f", "description": "Does it.", "format": {"type": "grammar", **GRAMMAR}},
            "Does it.\n\nThe input must match this grammar (lark):\nstart: /a+/",
            id="responses-grammar",
        ),
        pytest.param(
            {"custom": {"name": "f", "format": {"type": "grammar", "grammar": GRAMMAR}}},
            "The input must match this grammar (lark):\nstart: /a+/",
            id="chat-completions-grammar",
        ),
    ],
)
def test_a_custom_tool_becomes_a_tool_with_one_text(
    given: dict[str, Any], description: str
) -> None:
    """OpenAI's custom tools take text; the service knows only JSON arguments."""
    ((tool,), repairs) = read_tool_specs([{"type": "custom", **given}])
    assert (tool.name, tool.description, repairs) == ("f", description, ())
    schema: dict[str, Any] = tool.input_schema
    assert schema["required"] == list(schema["properties"]) == ["input"]
    assert schema["properties"]["input"]["type"] == "string"


def test_a_good_tool_is_sent_as_it_is() -> None:
    tools = sendable_tools([spec()], ["f"])
    assert tools.specs == (spec(),)
    assert tools.names == {"f": "f"}
    assert (rules(tools), tools.long_descriptions) == ([], ())


@pytest.mark.parametrize("description", ["", " \n"])
def test_a_tool_without_a_description_gets_its_name(description: str) -> None:
    """The service requires one."""
    tools = sendable_tools([spec(description=description)], [])
    assert tools.specs[0].description == "Tool: f"
    assert rules(tools) == ["empty_description"]


@pytest.mark.parametrize(
    "description",
    [
        pytest.param("x" * DESCRIPTION_MAX_BYTES, id="ascii"),
        pytest.param("ü" * (DESCRIPTION_MAX_BYTES // 2), id="two-bytes"),
    ],
)
def test_a_description_at_the_limit_is_whole(description: str) -> None:
    """The limit counts bytes of UTF-8, as the service's official client does."""
    tools = sendable_tools([spec(description=description)], [])
    assert tools.specs[0].description == description
    assert rules(tools) == []


@pytest.mark.parametrize(
    "description",
    [
        pytest.param("x" * (DESCRIPTION_MAX_BYTES + 1), id="ascii"),
        pytest.param("x" + "ü" * (DESCRIPTION_MAX_BYTES // 2), id="two-bytes"),
        pytest.param("🙂" * DESCRIPTION_MAX_BYTES, id="four-bytes"),
    ],
)
def test_a_longer_description_is_cut_on_a_character_and_kept_whole_elsewhere(
    description: str,
) -> None:
    """The whole of it goes to the system prompt."""
    tools = sendable_tools([spec(name="my.f", description=description)], [])
    sent = tools.specs[0].description
    assert len(sent.encode()) <= DESCRIPTION_MAX_BYTES
    beginning, _, pointer = sent.rpartition("\n")
    assert description.startswith(beginning)
    assert len(beginning.encode()) > DESCRIPTION_MAX_BYTES - 80
    assert "system prompt" in pointer
    assert tools.long_descriptions == (("my_f", description),)
    assert rules(tools) == ["tool_name", "long_description"]


@pytest.mark.parametrize("limit", range(1, 100))
def test_whatever_the_limit_a_description_uses_all_of_it(limit: int) -> None:
    """The limit is a setting; where it is small, words come before the pointer."""
    tools = sendable_tools([spec(description="x" * 100)], [], description_max_bytes=limit)
    description = tools.specs[0].description
    pointer = description.lstrip("x")
    assert len(description) == limit
    assert description.startswith("x")
    assert ("system prompt" in pointer) is (limit > 65)
    assert bool(pointer) is (limit > 65)


def test_a_limit_within_one_character_leaves_the_name() -> None:
    tools = sendable_tools([spec(description="🙂🙂")], [], description_max_bytes=3)
    assert tools.specs[0].description == "Tool: f"


def test_of_tools_with_one_name_the_first_is_sent() -> None:
    """Observed: the service refuses a name that is declared twice."""
    tools = sendable_tools([spec(description="first"), spec(description="second")], [])
    assert [tool.description for tool in tools.specs] == ["first"]
    assert rules(tools) == ["repeated_tool"]


def test_a_tool_that_only_the_history_uses_is_declared() -> None:
    """Observed: a tool use without its spec is refused."""
    tools = sendable_tools([spec()], ["old.tool", "f", "old.tool"])
    assert [tool.name for tool in tools.specs] == ["f", "old_tool"]
    stub = tools.specs[1]
    assert stub.input_schema == {"type": "object", "properties": {}}
    assert "not available" in stub.description
    assert tools.names == {"f": "f", "old.tool": "old_tool"}
    assert rules(tools) == ["stub_tool", "tool_name"]
    assert tools.repairs[0].detail.startswith("1 tool(s)")


def test_a_changed_schema_is_reported_and_the_callers_own_stays() -> None:
    """Callers keep what they hand over."""
    schema = {"$schema": "x", "type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    before = copy.deepcopy(schema)
    tools = sendable_tools([spec(schema=schema)], [])
    assert tools.specs[0].input_schema == SCHEMA
    assert rules(tools) == ["tool_schema"]
    assert schema == before


def test_a_tool_made_by_hand_is_cleaned() -> None:
    """A library's user can put anything in."""
    odd = ToolSpec(name="f\0", description="\ud800x", input_schema={"a": "\0"})
    listed = ToolSpec(name="g", description="y", input_schema=["x"])  # pyright: ignore[reportArgumentType]
    empty: dict[str, Any] = {"type": "object", "properties": {}}
    assert sendable_tools([odd, listed], []).specs == (
        spec("f", "x", {**empty, "a": ""}),
        spec("g", "y", empty),
    )


# --- names of tools, and back -------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "read_log", "mcp__server__tool", "X-1", "n" * 64])
def test_legal_names_are_sent_as_they_are(name: str) -> None:
    """The pattern of the service's official client; double underscores mean something."""
    assert sent_names([name]) == {name: name}


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("my.tool", "my_tool"),
        ("a/b c", "a_b_c"),
        ("9lives", "t_9lives"),
        ("_private", "t__private"),
        ("", "t_"),
        ("天气", "t___"),
        ("é" * 3, "t____"),
        ("a." + "n" * 62, "a_" + "n" * 62),
        ("9" * 62, "t_" + "9" * 62),
    ],
)
def test_illegal_names_are_changed_as_little_as_can_be(name: str, sent: str) -> None:
    """The model reads names."""
    assert sent_names([name]) == {name: sent}


@pytest.mark.parametrize("name", ["n" * 65, "server." + "n" * 200, "9" * 64])
def test_long_names_are_cut_and_differ_by_a_hash(name: str) -> None:
    """The pattern of the service's official client: 64 characters."""
    sent = sent_names([name])[name]
    assert len(sent) == 64
    assert LEGAL_NAME.fullmatch(sent)
    assert sent != sent_names([name + "x"])[name + "x"]


def test_different_names_are_sent_as_different_names() -> None:
    """The answer must lead back to one tool."""
    names = ["my.tool", "my/tool", "my_tool", "my tool", "n" * 70, "n" * 71, "my.tool"]
    sent = sent_names(names)
    assert len(set(sent.values())) == len(sent) == 6
    assert sent["my_tool"] == "my_tool"
    assert all(LEGAL_NAME.fullmatch(name) for name in sent.values())
    back = {other: name for name, other in sent.items()}
    assert {back[sent_name] for sent_name in sent.values()} == set(names)


def test_a_tool_added_at_the_end_changes_no_other() -> None:
    """The service's prompt cache holds only for identical prefixes."""
    names = ["my.tool", "my/tool", "n" * 70]
    before = sent_names(names)
    assert {**before, **sent_names([*names, "another.tool"])} == sent_names(
        [*names, "another.tool"]
    )
    assert all(sent_names([*names, "x.y"])[name] == sent for name, sent in before.items())
