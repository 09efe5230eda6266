"""Turns in any order, as a conversation that the service takes."""

from dataclasses import replace
from functools import partial

import pytest

from kiro_mcp.chat import (
    ImagePart,
    Message,
    Part,
    Repair,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.wire import history
from kiro_mcp.wire.history import TRUNCATION_NOTICE, Step, run_steps

FORGET_ALL = partial(history.forget_old_images, limit=0)
"""For a model that reads text only."""

A, B, C = (TextPart(text=letter) for letter in "abc")
USE = ToolUse(id="t1", name="f", arguments={})
RESULT = ToolResult(id="t1", text="r")
SIGNED = ThinkingPart(text="hm", signature="s")
REDACTED = ThinkingPart(text="", redacted="cg==")
UNSIGNED = ThinkingPart(text="hm")


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part, cut: bool = False) -> Message:
    return Message(role="assistant", parts=parts, is_truncated=cut)


def image(name: str) -> ImagePart:
    return ImagePart(format="png", data=name)


def after(step: Step, *turns: Message) -> tuple[list[Message], list[str]]:
    """Return the turns after a step, and the rules of its repairs."""
    changed, repairs = step(turns)
    return list(changed), [repair.rule for repair in repairs]


STEPS: list[Step] = [
    history.drop_unsigned_thinking,
    history.split_by_role,
    history.merge_turns,
    history.start_with_user,
    history.end_with_user,
    history.keep_one_reasoning,
    history.tell_of_truncation,
    history.hoist_images,
    history.forget_old_images,
    FORGET_ALL,
    history.tell_images_apart,
]


@pytest.mark.parametrize("step", STEPS)
def test_what_is_right_is_left_alone(step: Step) -> None:
    """Equal histories give equal payloads, and no step speaks up for nothing."""
    turns = [user(A, image("x")), assistant(SIGNED, B, USE), user(RESULT, C)]
    if step is FORGET_ALL:
        turns[0] = user(A)
    assert after(step, *turns) == (turns, [])


def test_steps_run_in_order_and_add_up_their_repairs() -> None:
    turns, repairs = run_steps(
        [assistant(A), assistant(B)], [history.merge_turns, history.end_with_user]
    )
    assert list(turns) == [assistant(A, B), user()]
    assert repairs == [
        Repair(rule="merged_turns", detail="1 turn(s) joined to the one before."),
        Repair(
            rule="user_last",
            detail="The assistant spoke last; an empty user turn was put after it.",
        ),
    ]


def test_reasoning_without_a_signature_is_left_out() -> None:
    """Observed: the service verifies signatures; what was never signed cannot go back."""
    turns, rules = after(
        history.drop_unsigned_thinking, user(A), assistant(UNSIGNED, SIGNED, REDACTED, B)
    )
    assert turns == [user(A), assistant(SIGNED, REDACTED, B)]
    assert rules == ["unsigned_reasoning"]


def test_parts_go_to_the_role_that_may_say_them() -> None:
    """The service's schema: uses belong to the assistant, results and images to the user."""
    turns, rules = after(
        history.split_by_role,
        user(A, USE),
        assistant(B, RESULT, image("x"), C, cut=True),
        assistant(image("y"), cut=True),
        user(),
    )
    assert turns == [
        user(A),
        assistant(USE),
        assistant(B),
        user(RESULT, image("x")),
        assistant(C, cut=True),
        user(image("y")),
        user(),
    ]
    assert rules == ["misplaced_part"]


def test_turns_of_one_role_are_joined() -> None:
    """The invariant of the service's official clients: the roles take turns."""
    turns, rules = after(
        history.merge_turns,
        user(A, image("x")),
        user(RESULT),
        assistant(B, USE),
        assistant(C, cut=True),
        user(A),
    )
    assert turns == [user(A, image("x"), RESULT), assistant(B, USE, C, cut=True), user(A)]
    assert rules == ["merged_turns"]


def test_an_answer_that_was_cut_off_and_then_went_on_is_whole() -> None:
    turns, _ = after(history.merge_turns, assistant(A, cut=True), assistant(B))
    assert turns == [assistant(A, B)]


def test_a_conversation_begins_and_ends_with_the_user() -> None:
    """The invariant of the service's official clients; what is put in holds no words."""
    assert after(history.start_with_user, assistant(A), user(B)) == (
        [user(), assistant(A), user(B)],
        ["user_first"],
    )
    assert after(history.end_with_user, user(A), assistant(B)) == (
        [user(A), assistant(B), user()],
        ["user_last"],
    )


def test_one_block_of_reasoning_is_kept() -> None:
    """The service's schema: a message has room for one."""
    turns, rules = after(history.keep_one_reasoning, assistant(SIGNED, A, REDACTED, SIGNED, USE))
    assert turns == [assistant(SIGNED, A, USE)]
    assert rules == ["one_reasoning"]


def test_the_model_is_told_of_each_answer_that_was_cut_off() -> None:
    """It does not know, and would take its fragment for the whole."""
    turns, rules = after(
        history.tell_of_truncation,
        user(A),
        assistant(B, cut=True),
        user(RESULT, C),
        assistant(A),
        user(B),
    )
    assert turns[2] == user(TextPart(text=TRUNCATION_NOTICE), RESULT, C)
    assert [turn.parts for turn in (turns[0], turns[4])] == [(A,), (B,)]
    assert rules == ["truncation_notice"]


def test_images_of_tool_results_stand_beside_them() -> None:
    """Observed: the service accepts images in a tool result and drops them in silence."""
    result = ToolResult(id="t1", text="r", images=(image("x"),))
    turns, rules = run_steps(
        [assistant(USE), user(A, result)], [history.hoist_images, history.tell_images_apart]
    )
    assert list(turns) == [assistant(USE), user(A, RESULT, image("x"))]
    assert [repair.rule for repair in rules] == ["hoisted_image"]


def test_a_line_tells_which_image_is_which_tool_results() -> None:
    """Observed: with six images of six tools, models were wrong 4 of 4 times without it."""
    results = [
        ToolResult(id="t1", images=(image("x"), image("y"))),
        ToolResult(id="t2"),
        ToolResult(id="t3", images=(image("z"),)),
    ]
    uses = [replace(USE, id=result.id, name=f"look{result.id}") for result in results]
    turns, repairs = run_steps(
        [assistant(*uses), user(A, *results, image("own"))],
        [history.hoist_images, history.tell_images_apart],
    )
    legend, *parts = turns[1].parts
    assert parts == [
        A,
        *(ToolResult(id=result.id) for result in results),
        *map(image, ("own", "x", "y", "z")),
    ]
    assert isinstance(legend, TextPart)
    for words in (
        "image 1 is from the user",
        "image 2 is tool result 1 (lookt1, t1)",
        "image 3 is tool result 1 (lookt1, t1)",
        "image 4 is tool result 3 (lookt3, t3)",
    ):
        assert words in legend.text
    assert "\n" not in legend.text
    assert [repair.rule for repair in repairs] == ["hoisted_image", "image_legend"]


def test_the_oldest_images_go_when_there_are_too_many() -> None:
    """The limit of the service's official client counts the history too."""
    turns = [
        user(A, image("1"), image("2")),
        assistant(B),
        user(image("3"), image("4"), image("5")),
        assistant(B),
        user(image("6")),
    ]
    kept, repairs = history.forget_old_images(turns, limit=3)
    assert list(kept) == [
        user(A),
        assistant(B),
        user(image("4"), image("5")),
        assistant(B),
        user(image("6")),
    ]
    assert repairs == [Repair(rule="old_image", detail="3 image(s) of earlier turns left out.")]


def test_the_last_turn_keeps_its_images_be_they_too_many() -> None:
    """What is asked now is for its caller to cut, with an error that says so."""
    last = user(*(image(str(number)) for number in range(12)))
    turns, rules = after(history.forget_old_images, user(image("x")), assistant(A), last)
    assert turns == [user(), assistant(A), last]
    assert rules == ["old_image"]


def test_a_model_that_reads_text_alone_gets_no_old_images() -> None:
    """A chat can go on with another model."""
    turns, _ = after(FORGET_ALL, user(image("x")), assistant(A), user(B))
    assert turns == [user(), assistant(A), user(B)]
