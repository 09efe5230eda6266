"""Turns in any order become a conversation that the service takes."""

from dataclasses import replace
from typing import Any

import pytest

from kiro_mcp.chat import (
    ImagePart,
    Message,
    ModelInfo,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
    ToolUseState,
)
from kiro_mcp.wire.history import (
    CUT_OFF,
    LEGAL_ID,
    NO_RESULT,
    TRUNCATION_NOTICE,
    legal_id,
    repair_history,
    result_text,
    trim_oldest,
)
from kiro_mcp.wire.messages import read_messages

MODEL = ModelInfo(id="m", name="M", input_types=("TEXT", "IMAGE"))
TEXT_MODEL = ModelInfo(id="m", name="M", input_types=("TEXT",))

A, B, C = (TextPart(text=letter) for letter in "abc")
SIGNED = ThinkingPart(text="hm", signature="s")
REDACTED = ThinkingPart(text="", redacted="cg==")
UNSIGNED = ThinkingPart(text="hm")


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part, cut: bool = False) -> Message:
    return Message(role="assistant", parts=parts, is_truncated=cut)


def image(name: str) -> ImagePart:
    return ImagePart(format="png", data=name)


def use(tool_use_id: str, state: ToolUseState = "complete") -> ToolUse:
    return ToolUse(id=tool_use_id, name="f", arguments={"n": 1}, state=state)


def result(tool_use_id: str, text: str = "r") -> ToolResult:
    return ToolResult(id=tool_use_id, text=text)


def repaired(
    *messages: Message, model: ModelInfo = MODEL, **options: Any
) -> tuple[list[Message], list[str]]:
    """Return the repaired turns, and the rules of the repairs."""
    turns, repairs = repair_history(messages, model, **options)
    return list(turns), [repair.rule for repair in repairs]


def test_a_good_history_is_left_alone() -> None:
    """Equal histories give equal payloads."""
    turns = [
        user(A, image("x")),
        assistant(SIGNED, B, use("t1"), use("t2")),
        user(result("t1"), result("t2"), C),
    ]
    assert repaired(*turns) == (turns, [])


def test_a_repair_says_how_much_was_changed() -> None:
    _, repairs = repair_history([user(A), assistant(A), assistant(B)], MODEL)
    assert [(repair.rule, repair.detail) for repair in repairs] == [
        ("merged_turns", "1 turn(s) joined to the one before."),
        ("user_last", "The assistant spoke last; an empty user turn was put after it."),
    ]


# --- values -------------------------------------------------------------------------------


def test_every_text_and_value_is_made_fit_to_send() -> None:
    """Observed: one stored value that cannot be sent breaks every later call of the chat."""
    turns, repairs = repair_history(
        [
            user(TextPart(text="grüß 🙂\0")),
            assistant(
                ThinkingPart(text="\ud800a", signature="s\0", redacted="r\0"),
                ToolUse(id="t\0", name="f\0", arguments={"a\0": ["\udc00", None], "n": None}),
            ),
            user(ToolResult(id="t\0", text="r\0", data={"a": "\0"}), image("x")),
        ],
        MODEL,
    )
    assert list(turns) == [
        user(TextPart(text="grüß 🙂")),
        assistant(
            ThinkingPart(text="a", signature="s", redacted="r"),
            ToolUse(id="t", name="f", arguments={"a": [""]}),
        ),
        user(ToolResult(id="t", text="r", data={"a": ""}), image("x")),
    ]
    assert [(repair.rule, repair.detail[:1]) for repair in repairs] == [("unsendable_value", "4")]


def test_data_with_a_null_is_sent_as_text() -> None:
    """The service takes no null, and a result must not be changed."""
    turns, _ = repaired(
        user(A),
        assistant(use("t"), use("u")),
        user(
            ToolResult(id="t", data={"a": None}), ToolResult(id="u", text="r", data={"b": [None]})
        ),
    )
    assert turns[2] == user(
        ToolResult(id="t", text='{"a":null}'), ToolResult(id="u", text='r\n{"b":[null]}')
    )


# --- turns --------------------------------------------------------------------------------


def test_reasoning_without_a_signature_is_left_out() -> None:
    """Observed: the service verifies signatures."""
    turns, rules = repaired(user(A), assistant(UNSIGNED, REDACTED, B), user(C))
    assert turns[1] == assistant(REDACTED, B)
    assert rules == ["unsigned_reasoning"]


def test_reasoning_of_another_model_is_left_out() -> None:
    """Its signature means nothing to this model."""
    answers = [replace(assistant(SIGNED, B), model=model) for model in ("other", "m", "")]
    turns, rules = repaired(user(A), answers[0], user(A), answers[1], user(A), answers[2], user(A))
    assert turns[1::2] == [assistant(B), assistant(SIGNED, B), assistant(SIGNED, B)]
    assert rules == ["foreign_reasoning"]


def test_each_part_goes_to_the_role_that_may_say_it() -> None:
    """The service's schema: uses belong to the assistant, results and images to the user."""
    turns, rules = repaired(
        user(A, use("t1")),
        assistant(B, result("t1"), image("x"), C, cut=True),
        assistant(image("y"), cut=True),
    )
    assert turns == [
        user(A),
        assistant(use("t1"), B),
        user(result("t1"), image("x")),
        assistant(C, cut=True),
        user(TextPart(text=TRUNCATION_NOTICE), image("y")),
    ]
    assert rules == ["misplaced_part", "merged_turns", "truncation_notice"]


def test_turns_of_one_role_are_joined() -> None:
    """The service's official clients let the roles take turns."""
    turns, rules = repaired(
        user(A, image("x")), user(B), assistant(B), assistant(C, use("t1")), user(result("t1"))
    )
    assert turns == [
        user(A, image("x"), B),
        assistant(B, C, use("t1")),
        user(result("t1")),
    ]
    assert rules == ["merged_turns"]


def test_a_conversation_begins_and_ends_with_the_user() -> None:
    """The turns that are put in hold no words."""
    assert repaired(assistant(A)) == ([user(), assistant(A), user()], ["user_first", "user_last"])


def test_only_the_first_block_of_reasoning_of_a_turn_stays() -> None:
    """The service has room for one."""
    turns, rules = repaired(user(A), assistant(SIGNED, A, REDACTED, SIGNED), user(B))
    assert turns[1] == assistant(SIGNED, A)
    assert rules == ["one_reasoning"]


def test_the_model_is_told_of_each_answer_that_was_cut_off() -> None:
    """It would take its fragment for the whole."""
    messages = [user(A), assistant(B, cut=True), user(C), assistant(A), user(B)]
    turns, rules = repaired(*messages)
    assert turns[2] == user(TextPart(text=TRUNCATION_NOTICE), C)
    assert [turn.parts for turn in (turns[0], turns[4])] == [(A,), (B,)]
    assert rules == ["truncation_notice"]
    assert repaired(*messages, tells_of_truncation=False) == (messages, [])


def test_an_answer_that_was_cut_off_and_then_went_on_is_whole() -> None:
    turns, _ = repaired(user(A), assistant(A, cut=True), assistant(B), user(A))
    assert turns == [user(A), assistant(A, B), user(A)]


# --- tool uses and results ----------------------------------------------------------------


def test_results_without_ids_answer_the_uses_in_order() -> None:
    """OpenAI's older function calls have no ids."""
    turns, rules = repaired(
        user(A),
        assistant(use("t1"), use(""), use("")),
        user(result("", "one"), result("t1"), result("", "two"), result("", "three")),
    )
    first, second = "use_1_1", "use_1_2"
    assert turns[1:] == [
        assistant(use("t1"), use(first), use(second)),
        user(
            result("t1"),
            result(first, "one"),
            result(second, "two"),
            TextPart(text="Result of a tool ():\nthree"),
        ),
    ]
    assert rules == ["missing_id", "orphan_result", "result_order"]


@pytest.mark.parametrize(
    ("names", "positions"),
    [(["b", "a", "", "c"], [1, 0, 2, 3]), (["", "a", "c", "b"], [0, 2, 3, 1])],
)
def test_a_result_without_an_id_answers_the_tool_that_it_names(
    names: list[str], positions: list[int]
) -> None:
    """OpenAI's older results have a name for an id, and Ollama's; tools may end in any order."""
    chat = read_messages(
        [
            "Go.",
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": name}} for name in ("a", "b", "a", "c")],
            },
            {"role": "function", "name": names[0], "content": "0"},
            *(
                {"role": "tool", "tool_name": name, "content": str(number)}
                for number, name in enumerate(names[1:], start=1)
            ),
        ]
    )
    (_, _, answers), _ = repaired(*chat.messages)
    said = {part.id: part.text for part in answers.parts if isinstance(part, ToolResult)}
    assert said == {f"use_1_{at}": str(number) for number, at in enumerate(positions)}


@pytest.mark.parametrize("tool_use_id", ["call.1/x", "x" * 65, "fc ü", "functions.read:0", "a\nb"])
def test_an_illegal_id_has_the_same_hash_in_use_and_result(tool_use_id: str) -> None:
    """Observed: the service takes 1 to 64 letters, digits, `_` and `-`."""
    turns, rules = repaired(user(A), assistant(use(tool_use_id)), user(result(tool_use_id)))
    legal = legal_id(tool_use_id)
    assert turns[1:] == [assistant(use(legal)), user(result(legal))]
    assert LEGAL_ID.fullmatch(legal)
    assert rules == ["illegal_id"]


@pytest.mark.parametrize("tool_use_id", ["tooluse_A1", "a", "x" * 64, "-_"])
def test_legal_ids_stay(tool_use_id: str) -> None:
    """The service's own ids, and those of most providers."""
    assert legal_id(tool_use_id) == tool_use_id


def test_a_use_or_result_that_only_repeats_another_is_left_out() -> None:
    """Seen: a library keeps each call twice in one message, as a block and in a list."""
    turns, rules = repaired(
        user(A),
        assistant(use("t1"), A, use("t1"), use("t2")),
        user(result("t1"), result("t1"), result("t2")),
    )
    assert turns[1:] == [assistant(use("t1"), A, use("t2")), user(result("t1"), result("t2"))]
    assert rules == ["repeated_tool_use"]


def test_two_uses_with_one_id_are_two_with_their_own_results() -> None:
    """Seen: some models give all of their parallel calls one id."""
    other = replace(use("t1"), arguments={"n": 2})
    turns, rules = repaired(
        user(A),
        assistant(use("t1"), other),
        user(result("t1", "one"), result("t1", "two"), result("t1", "three")),
    )
    ids = [part.id for part in turns[1].parts if isinstance(part, ToolUse)]
    assert ids[0] == "t1" != ids[1]
    assert turns[1:] == [
        assistant(use("t1"), replace(other, id=ids[1])),
        user(
            result("t1", "one"),
            result(ids[1], "two"),
            TextPart(text="Result of a tool (t1):\nthree"),
        ),
    ]
    assert rules == ["repeated_id", "orphan_result"]


def test_an_id_that_a_later_turn_uses_again_gets_another_with_its_result() -> None:
    """Some models number their calls anew in each turn."""
    turns, rules = repaired(
        user(A),
        assistant(use("0")),
        user(result("0")),
        assistant(use("0"), use("1")),
        user(result("0"), result("1")),
        assistant(use("0")),
        user(result("0", "third")),
    )
    ids = [part.id for turn in turns for part in turn.parts if isinstance(part, ToolUse)]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "0"
    assert turns[4] == user(result(ids[1]), result("1"))
    assert turns[6] == user(result(ids[3], "third"))
    assert rules == ["repeated_id"]


def test_results_stand_in_the_order_of_their_uses() -> None:
    """Observed: models attribute what tools answered by its order."""
    turns, rules = repaired(
        user(A),
        assistant(use("t1"), use("t2"), use("t3")),
        user(result("t3"), A, result("t1"), result("t2")),
    )
    assert turns[2] == user(result("t1"), A, result("t2"), result("t3"))
    assert rules == ["result_order"]


def test_a_result_without_a_use_becomes_text() -> None:
    """Observed: the service refuses it; its content may matter all the same."""
    orphan = ToolResult(id="t9", text="r", data={"n": 1}, images=(image("x"),))
    failed = ToolResult(id="t8", text="boom", is_error=True, name="g")
    turns, rules = repaired(
        user(result("t1")), assistant(use("t1")), user(orphan, result("t1"), failed, A)
    )
    assert turns == [
        user(TextPart(text="Result of a tool (t1):\nr")),
        assistant(use("t1")),
        user(
            TextPart(text='Result of a tool (t9):\nr\n{"n":1}'),
            image("x"),
            result("t1"),
            TextPart(text="Error of a tool (g, t8):\nboom"),
            A,
        ),
    ]
    assert rules == ["orphan_result"]


def test_a_use_without_a_result_gets_an_error() -> None:
    """Observed: the service refuses a tool use without a result. The model learns what happened."""
    turns, rules = repaired(
        user(A), assistant(use("t1"), use("t2"), use("t3", "truncated")), user(result("t1"), A)
    )
    assert turns[2] == user(
        result("t1"),
        A,
        ToolResult(id="t2", text=NO_RESULT, is_error=True),
        ToolResult(id="t3", text=CUT_OFF, is_error=True),
    )
    assert rules == ["missing_result"]


def test_without_tools_uses_and_results_become_text() -> None:
    """For models that are to have no tools at all."""
    turns, rules = repaired(
        user(A),
        assistant(A, use("t1")),
        user(ToolResult(id="t1", text="r", images=(image("x"),))),
        allows_tools=False,
    )
    assert turns[1:] == [
        assistant(A, TextPart(text='Tool f was used with {"n":1}')),
        user(TextPart(text="Result of a tool (t1):\nr"), image("x")),
    ]
    assert rules == ["tools_as_text"]


def test_a_result_as_text_holds_its_text_and_its_data() -> None:
    assert result_text(ToolResult(id="t", text="r", data={"a": 1})) == 'r\n{"a":1}'
    assert result_text(ToolResult(id="t")) == ""


# --- images -------------------------------------------------------------------------------


def test_an_image_of_a_tool_result_stands_beside_it() -> None:
    """Observed: the service accepts images in a tool result and drops them in silence."""
    answer = ToolResult(id="t1", text="r", images=(image("x"),))
    turns, rules = repaired(user(A), assistant(use("t1")), user(A, answer))
    assert turns[2] == user(A, result("t1"), image("x"))
    assert rules == ["hoisted_image"]


def test_a_line_tells_which_image_is_which_tool_results() -> None:
    """Observed: with six images of six tools, models were wrong 4 of 4 times without it."""
    results = [
        ToolResult(id="t1", images=(image("x"), image("y"))),
        ToolResult(id="t2"),
        ToolResult(id="t3", images=(image("z"),)),
    ]
    uses = [replace(use(answer.id), name=f"look{answer.id}") for answer in results]
    turns, rules = repaired(user(A), assistant(*uses), user(A, *results, image("own")))
    legend, *parts = turns[2].parts
    assert parts == [
        A,
        *(ToolResult(id=answer.id) for answer in results),
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
    assert rules == ["hoisted_image", "image_legend"]


def test_the_oldest_images_go_when_there_are_too_many() -> None:
    """The limit of the service's official client counts the history too."""
    images = [image(str(number)) for number in range(13)]
    turns, rules = repaired(
        user(A, *images[:2]), assistant(B), user(*images[2:12]), assistant(B), user(images[12])
    )
    assert turns == [user(A), assistant(B), user(*images[3:12]), assistant(B), user(images[12])]
    assert rules == ["old_image"]


def test_the_last_turn_keeps_its_images_even_if_they_are_too_many() -> None:
    """Its caller gets an error instead."""
    last = user(*(image(str(number)) for number in range(12)))
    turns, rules = repaired(user(image("x")), assistant(A), last)
    assert turns == [user(), assistant(A), last]
    assert rules == ["old_image"]


def test_a_model_that_reads_only_text_gets_no_old_images() -> None:
    """A chat can go on with another model."""
    turns, _ = repaired(user(image("x")), assistant(A), user(B), model=TEXT_MODEL)
    assert turns == [user(), assistant(A), user(B)]


# --- trimming -----------------------------------------------------------------------------


def conversation(pairs: int) -> list[Message]:
    turns: list[Message] = []
    for index in range(pairs):
        turns += [user(TextPart(text=f"q{index}")), assistant(TextPart(text=f"a{index}"))]
    return [*turns, user(TextPart(text="now"))]


def test_as_few_of_the_oldest_pairs_go_as_needed() -> None:
    """The first turn that is left is the user's."""
    turns = conversation(4)
    kept, repairs = trim_oldest(turns, [10] * 8, excess_bytes=21)
    assert list(kept) == turns[4:]
    assert [repair.rule for repair in repairs] == ["trimmed_history"]
    assert repairs[0].detail.startswith("4 oldest turns")
    assert list(trim_oldest(turns, [10] * 8, excess_bytes=20)[0]) == turns[2:]


def test_trimming_keeps_the_last_turn() -> None:
    """It is the question."""
    turns = conversation(2)
    assert list(trim_oldest(turns, [10] * 4, excess_bytes=10**6)[0]) == turns[-1:]


def test_a_result_becomes_text_when_its_use_is_trimmed() -> None:
    """Observed: the service refuses results without their uses."""
    turns = [user(A), assistant(use("t")), user(result("t"))]
    kept, repairs = trim_oldest(turns, [10, 10], excess_bytes=1)
    assert list(kept) == [user(TextPart(text="Result of a tool (t):\nr"))]
    assert [repair.rule for repair in repairs] == ["trimmed_history", "orphan_result"]
