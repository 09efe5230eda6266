"""Tool uses and results, in pairs."""

from dataclasses import replace

import pytest

from kiro_mcp.chat import ImagePart, Message, Part, TextPart, ToolResult, ToolUse, ToolUseState
from kiro_mcp.wire import history
from kiro_mcp.wire.history import (
    CUT_OFF,
    LEGAL_ID,
    NO_RESULT,
    Step,
    label_images,
    legal_id,
    result_text,
)
from kiro_mcp.wire.messages import read_messages

A = TextPart(text="a")
IMAGE = ImagePart(format="png", data="x")


def use(tool_use_id: str, state: ToolUseState = "complete") -> ToolUse:
    return ToolUse(id=tool_use_id, name="f", arguments={"n": 1}, state=state)


def result(tool_use_id: str, text: str = "r") -> ToolResult:
    return ToolResult(id=tool_use_id, text=text)


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role="assistant", parts=parts)


def after(step: Step, *turns: Message) -> tuple[list[Message], list[str]]:
    changed, repairs = step(turns)
    return list(changed), [repair.rule for repair in repairs]


@pytest.mark.parametrize(
    "step",
    [
        history.fill_missing_ids,
        history.make_ids_legal,
        history.make_ids_unique,
        history.orphans_to_text,
        history.answer_the_unanswered,
        history.order_results,
    ],
)
def test_pairs_are_left_alone(step: Step) -> None:
    """Equal histories give equal payloads."""
    turns = [user(A), assistant(use("t1"), use("t2")), user(result("t1"), result("t2"), A)]
    assert after(step, *turns) == (turns, [])


def test_results_without_ids_answer_the_uses_in_order() -> None:
    """OpenAI's older function calls have no ids."""
    turns, rules = after(
        history.fill_missing_ids,
        user(result("")),
        assistant(use("t1"), use(""), use("")),
        user(result(""), result("t1"), result(""), result("")),
    )
    assert turns == [
        user(result("")),
        assistant(use("t1"), use("use_1_1"), use("use_1_2")),
        user(result("use_1_1"), result("t1"), result("use_1_2"), result("")),
    ]
    assert rules == ["missing_id"]


def test_a_result_without_an_id_answers_the_tool_that_it_names() -> None:
    """OpenAI's older results have a name for an id, and Ollama's; tools may end in any order."""
    chat = read_messages(
        [
            "Go.",
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": name}} for name in ("a", "b", "a", "c")],
            },
            {"role": "function", "name": "b", "content": "1"},
            {"role": "tool", "tool_name": "a", "content": "2"},
            {"role": "tool", "content": "3"},
            {"role": "tool", "tool_name": "c", "content": "4"},
        ]
    )
    (_, _, answers), rules = after(history.fill_missing_ids, *chat.messages)
    said = {part.id: part.text for part in answers.parts if isinstance(part, ToolResult)}
    assert said == {"use_1_1": "1", "use_1_0": "2", "use_1_2": "3", "use_1_3": "4"}
    assert rules == ["missing_id"]


@pytest.mark.parametrize(
    "tool_use_id", ["call.1/x", "x" * 65, "fc ü", "", "functions.read:0", "a\nb"]
)
def test_foreign_ids_are_hashed_the_same_in_use_and_result(tool_use_id: str) -> None:
    """Observed: the service takes 1 to 64 letters, digits, `_` and `-`."""
    turns, rules = after(
        history.make_ids_legal, assistant(use(tool_use_id)), user(result(tool_use_id))
    )
    legal = legal_id(tool_use_id)
    assert turns == [assistant(use(legal)), user(result(legal))]
    assert LEGAL_ID.fullmatch(legal)
    assert rules == ["illegal_id"]


@pytest.mark.parametrize("tool_use_id", ["tooluse_A1", "a", "x" * 64, "-_"])
def test_legal_ids_stay(tool_use_id: str) -> None:
    """Observed: the service's own ids, and those of most providers."""
    assert legal_id(tool_use_id) == tool_use_id


def test_a_use_or_result_that_only_repeats_another_is_left_out() -> None:
    """Seen: a library keeps each call twice in one message, as a block and in a list."""
    turns, rules = after(
        history.make_ids_unique,
        assistant(use("t1"), A, use("t1"), use("t2")),
        user(result("t1"), result("t1"), result("t2"), result("t9"), result("t9")),
    )
    assert turns == [
        assistant(use("t1"), A, use("t2")),
        user(result("t1"), result("t2"), result("t9"), result("t9")),
    ]
    assert rules == ["repeated_tool_use"]


def test_two_uses_with_one_id_are_two_with_their_own_results() -> None:
    """Seen: some models give all of their parallel calls one id."""
    other = replace(use("t1"), arguments={"n": 2})
    turns, rules = after(
        history.make_ids_unique,
        assistant(use("t1"), other),
        user(result("t1", "one"), result("t1", "two"), result("t1", "three")),
    )
    ids = [part.id for part in turns[0].parts if isinstance(part, ToolUse)]
    assert ids[0] == "t1" != ids[1]
    assert turns[0] == assistant(use("t1"), replace(other, id=ids[1]))
    answers = [part for part in turns[1].parts if isinstance(part, ToolResult)]
    assert [(part.id, part.text) for part in answers[:2]] == [("t1", "one"), (ids[1], "two")]
    assert answers[2].text == "three"
    assert answers[2].id not in ids
    assert rules == ["repeated_id"]


def test_results_stand_in_the_order_of_their_uses() -> None:
    """Observed: models attribute what tools answered by its order."""
    turns, rules = after(
        history.order_results,
        assistant(use("t1"), use("t2"), use("t3")),
        user(result("t3"), A, result("t1"), result("t2")),
    )
    assert turns[1] == user(result("t1"), A, result("t2"), result("t3"))
    assert rules == ["result_order"]


def test_an_id_that_a_later_turn_uses_again_gets_another_with_its_result() -> None:
    """Some models number their calls anew in each turn."""
    turns, rules = after(
        history.make_ids_unique,
        assistant(use("0")),
        user(result("0")),
        assistant(use("0"), use("1")),
        user(result("1"), result("0")),
        assistant(use("0")),
        user(result("0", "third")),
    )
    ids = [part.id for turn in turns for part in turn.parts if isinstance(part, ToolUse)]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "0"
    assert turns[3] == user(result("1"), result(ids[1]))
    assert turns[5] == user(result(ids[3], "third"))
    assert rules == ["repeated_id"]


def test_a_result_that_nothing_asked_for_becomes_text() -> None:
    """Observed: the service refuses it; its content may matter all the same."""
    orphan = ToolResult(id="t9", text="r", data={"n": 1}, images=(IMAGE,))
    failed = ToolResult(id="t8", text="boom", is_error=True)
    turns, rules = after(
        history.orphans_to_text,
        user(result("t1")),
        assistant(use("t1")),
        user(orphan, result("t1"), failed, A),
    )
    assert turns == [
        user(TextPart(text="Result of a tool (t1):\nr")),
        assistant(use("t1")),
        user(
            TextPart(text='Result of a tool (t9):\nr\n{"n":1}'),
            *label_images([IMAGE], "the result of a tool (t9)"),
            result("t1"),
            TextPart(text="Error of a tool (t8):\nboom"),
            A,
        ),
    ]
    assert rules == ["orphan_result"]


def test_a_use_without_a_result_is_answered_with_an_error() -> None:
    """Observed: the service refuses it; the model learns why there is no result."""
    turns, rules = after(
        history.answer_the_unanswered,
        user(A),
        assistant(use("t1"), use("t2"), use("t3", "truncated")),
        user(result("t2"), A),
    )
    assert turns[2] == user(
        result("t2"),
        A,
        ToolResult(id="t1", text=NO_RESULT, is_error=True),
        ToolResult(id="t3", text=CUT_OFF, is_error=True),
    )
    assert rules == ["missing_result"]


def test_without_tools_the_history_tells_of_them_in_text() -> None:
    """For models that are to have no tools at all."""
    turns, rules = after(
        history.tool_uses_to_text,
        assistant(A, use("t1")),
        user(ToolResult(id="t1", text="r", images=(IMAGE,))),
    )
    assert turns == [
        assistant(A, TextPart(text='Tool f was used with {"n":1}')),
        user(
            TextPart(text="Result of a tool (t1):\nr"),
            *label_images([IMAGE], "the result of a tool (t1)"),
        ),
    ]
    assert rules == ["tools_as_text"]


def test_all_that_a_result_says_can_be_told_as_text() -> None:
    assert result_text(ToolResult(id="t", text="r", data={"a": 1})) == 'r\n{"a":1}'
    assert result_text(ToolResult(id="t")) == ""
