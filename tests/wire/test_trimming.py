"""Conversations that are too large."""

from kiro_mcp.chat import Message, TextPart, ToolResult, ToolUse
from kiro_mcp.wire.history import trim_oldest


def conversation(pairs: int) -> list[Message]:
    turns: list[Message] = []
    for index in range(pairs):
        turns.append(Message(role="user", parts=(TextPart(text=f"q{index}"),)))
        turns.append(Message(role="assistant", parts=(TextPart(text=f"a{index}"),)))
    return [*turns, Message(role="user", parts=(TextPart(text="now"),))]


def test_as_few_of_the_oldest_pairs_go_as_will_do() -> None:
    """The first turn that is left is the user's."""
    turns = conversation(4)
    kept, repairs = trim_oldest(turns, [10] * 8, excess_bytes=21)
    assert list(kept) == turns[4:]
    assert [repair.rule for repair in repairs] == ["trimmed_history"]
    assert repairs[0].detail.startswith("4 oldest turns")
    assert list(trim_oldest(turns, [10] * 8, excess_bytes=20)[0]) == turns[2:]


def test_the_last_turn_always_stays() -> None:
    """It is what is asked."""
    turns = conversation(2)
    assert list(trim_oldest(turns, [10] * 4, excess_bytes=10**6)[0]) == turns[-1:]


def test_a_result_whose_use_went_becomes_text() -> None:
    """Observed: the service refuses results without their uses."""
    turns = [
        Message(role="user", parts=(TextPart(text="q"),)),
        Message(role="assistant", parts=(ToolUse(id="t", name="f", arguments={}),)),
        Message(role="user", parts=(ToolResult(id="t", text="r"),)),
    ]
    kept, repairs = trim_oldest(turns, [10, 10], excess_bytes=1)
    assert kept == [Message(role="user", parts=(TextPart(text="Result of a tool (t):\nr"),))]
    assert [repair.rule for repair in repairs] == ["trimmed_history", "orphan_result"]
