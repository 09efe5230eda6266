"""Requests, repaired."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from kiro_mcp.chat import (
    ChatRequest,
    ImagePart,
    Message,
    ModelInfo,
    Part,
    TextPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.request import PayloadOptions, Prepared, prepare

CONVERSATION = "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11"
A = TextPart(text="a")
USE = ToolUse(id="t1", name="my.tool", arguments={})
SPEC = ToolSpec(name="my.tool", description="Does it.", input_schema={})


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role="assistant", parts=parts)


def request(*messages: Message, **members: Any) -> ChatRequest:
    asked = ChatRequest(messages=messages, conversation_id=CONVERSATION, model="auto")
    return replace(asked, **members)


def rules(prepared: Prepared) -> list[str]:
    return [repair.rule for repair in prepared.repairs]


def test_a_good_request_needs_no_repair() -> None:
    prepared = prepare(request(user(A), system="Be terse."))
    assert prepared.turns == (user(A),)
    assert (prepared.system, prepared.model.id) == ("Be terse.", "auto")
    assert prepared.conversation_id == CONVERSATION
    assert (prepared.tools, prepared.fields, prepared.tool_names) == ((), {}, {})
    assert (prepared.repairs, prepared.warnings) == ((), ())


@pytest.mark.parametrize(
    "messages",
    [
        (user(TextPart(text="\0")),),
        (user(ImagePart(format="png", data="x")), assistant(TextPart(text=" "))),
    ],
)
def test_what_says_nothing_once_it_is_repaired_is_refused(messages: tuple[Message, ...]) -> None:
    """A character that cannot be sent, an old image for a model that reads text only."""
    text_only = ModelInfo(id="m", name="M", input_types=("TEXT",))
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        prepare(request(*messages, model_info=text_only))


def test_a_request_without_a_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        prepare(request())


def test_a_model_is_looked_up_by_its_name_where_nothing_is_known_of_it() -> None:
    """For those who use the engine as a library."""
    prepared = prepare(request(user(A), model="claude-opus-4-6-high"))
    assert prepared.model.id == "claude-opus-4.6"
    assert prepared.fields["output_config"] == {"effort": "high"}
    assert prepare(request(user(A), model="x")).warnings[0].startswith("'x' is not in the list")


def test_what_is_known_of_the_model_stands() -> None:
    """The server has the live list."""
    known = ModelInfo(id="claude-opus-4.6", name="Known")
    prepared = prepare(request(user(A), model="claude-opus-4.6", model_info=known, effort="high"))
    assert prepared.model == known
    assert prepared.fields == {}
    assert len(prepared.warnings) == 1


def test_a_conversation_of_the_assistant_alone_is_sent() -> None:
    """Never refused for its form."""
    prepared = prepare(request(assistant(A)))
    assert prepared.turns == (user(), assistant(A), user())


def test_a_prefill_is_kept_as_a_turn_of_the_history() -> None:
    """Some clients end with words to be put into the model's mouth."""
    asked = request(user(A), assistant(TextPart(text="{")))
    assert prepare(asked).turns[-2:] == (assistant(TextPart(text="{")), user())


def test_parts_of_the_other_role_are_moved_to_turns_of_its_own() -> None:
    """The service's schema: results and images are the user's, uses the assistant's."""
    result, image = ToolResult(id="t1", text="r"), ImagePart(format="png", data="x")
    prepared = prepare(request(user(A), assistant(A, USE, result, image, A)))
    assert [turn.role for turn in prepared.turns] == ["user", "assistant"] * 2 + ["user"]
    assert prepared.turns[2] == user(result, image)
    assert "misplaced_part" in rules(prepared)


def test_names_are_mapped_in_tools_and_history_and_back() -> None:
    """Observed: the service takes 64 letters, digits, `_` and `-`."""
    turns = (user(A), assistant(USE), user(ToolResult(id="t1", text="r")))
    prepared = prepare(request(*turns, tools=(SPEC,)))
    assert prepared.turns[1] == assistant(replace(USE, name="my_tool"))
    assert [tool.name for tool in prepared.tools] == ["my_tool"]
    assert prepared.tool_names == {"my_tool": "my.tool"}


def test_tools_of_the_history_are_declared() -> None:
    """Observed: a tool use without its spec is refused."""
    prepared = prepare(request(user(A), assistant(USE), user(ToolResult(id="t1", text="r"))))
    assert [tool.name for tool in prepared.tools] == ["my_tool"]
    assert "stub_tool" in rules(prepared)


def test_without_tools_nothing_of_them_is_left() -> None:
    """What `-chat` asks for."""
    turns = (user(A), assistant(USE), user(ToolResult(id="t1", text="r")))
    prepared = prepare(request(*turns, tools=(SPEC,), allows_tools=False))
    assert prepared.tools == ()
    assert all(isinstance(part, TextPart) for turn in prepared.turns for part in turn.parts)
    assert rules(prepared) == ["tools_as_text"]


@pytest.mark.parametrize("given", ["", CONVERSATION, CONVERSATION.upper()])
def test_a_uuid_or_nothing_stays(given: str) -> None:
    """The service takes a UUID for a conversation's id."""
    prepared = prepare(request(user(A), conversation_id=given))
    assert (prepared.conversation_id, prepared.repairs) == (given, ())


@pytest.mark.parametrize("given", ["my chat", "\ud800", "0"])
def test_another_id_becomes_the_same_uuid_each_time(given: str) -> None:
    """A stable id lets the service cache."""
    first, second = (prepare(request(user(A), conversation_id=given)) for _ in range(2))
    assert uuid.UUID(first.conversation_id)
    assert first.conversation_id == second.conversation_id
    assert rules(first) == ["conversation_id"]


@pytest.mark.parametrize("where", ["system", "prompt", "nowhere"])
def test_tags_that_the_caller_has_put_in_are_not_put_in_twice(where: str) -> None:
    tags = "<thinking_mode>enabled</thinking_mode>"
    prepared = prepare(
        request(
            user(TextPart(text=tags if where == "prompt" else "a")),
            system=tags if where == "system" else "",
            model="claude-sonnet-4.5",
            effort="medium",
        ),
        PayloadOptions(thinking_budget=5_000),
    )
    assert prepared.system.count("<thinking_mode>") == (where != "prompt")
    assert ("<max_thinking_length>5000<" in prepared.system) == (where == "nowhere")


def test_the_model_is_told_of_an_answer_that_was_cut_off_unless_that_is_off() -> None:
    """A setting."""
    turns = (user(A), replace(assistant(A), is_truncated=True), user(A))
    assert rules(prepare(request(*turns))) == ["truncation_notice"]
    off = PayloadOptions(tells_of_truncation=False)
    assert prepare(request(*turns), off).turns == turns


def test_old_images_go_for_a_model_that_reads_text_alone() -> None:
    """A chat can go on with another model."""
    image = ImagePart(format="png", data="x")
    turns = (user(image), assistant(A), user(A))
    assert prepare(request(*turns)).turns == turns
    prepared = prepare(request(*turns, model="deepseek-3.2"))
    assert prepared.turns == (user(), assistant(A), user(A))


def test_a_system_prompt_made_by_hand_is_made_fit_to_send() -> None:
    assert prepare(request(user(A), system="\ud800Be terse.\0")).system == "Be terse."
