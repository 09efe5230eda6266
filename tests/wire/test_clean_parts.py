"""Parts of a message, made fit to send."""

from kiro_mcp.chat import ImagePart, Message, Part, TextPart, ThinkingPart, ToolResult, ToolUse
from kiro_mcp.wire.history import clean_turns

IMAGE = ImagePart(format="png", data="x")


def turn(*parts: Part) -> list[Message]:
    return [Message(role="user", parts=parts, is_truncated=True)]


def test_what_is_clean_is_left_alone() -> None:
    turns = turn(
        TextPart(text="grüß 🙂"),
        ThinkingPart(text="a", signature="s"),
        ToolUse(id="t", name="f", arguments={"a": [1, {"b": "c"}]}),
        ToolResult(id="t", text="r", data={"a": 1}),
        IMAGE,
    )
    assert clean_turns(turns) == (turns, [])


def test_every_text_and_value_is_made_fit_to_send() -> None:
    """Observed: one stored value that cannot be sent poisons the chat for good."""
    turns, repairs = clean_turns(
        turn(
            TextPart(text="a\0"),
            ThinkingPart(text="\ud800a", signature="s\0", redacted="r\0"),
            ToolUse(id="t\0", name="f\0", arguments={"a\0": ["\udc00", None], "n": None}),
            ToolResult(id="t\0", text="r\0", data={"a": "\0"}),
            IMAGE,
        )
    )
    assert turns == turn(
        TextPart(text="a"),
        ThinkingPart(text="a", signature="s", redacted="r"),
        ToolUse(id="t", name="f", arguments={"a": [""]}),
        ToolResult(id="t", text="r", data={"a": ""}),
        IMAGE,
    )
    assert [(repair.rule, repair.detail[:1]) for repair in repairs] == [("unsendable_value", "4")]


def test_data_with_a_null_is_sent_as_text() -> None:
    """The service takes no null, and a result must not be changed."""
    turns, _ = clean_turns(
        turn(ToolResult(id="t", data={"a": None}), ToolResult(id="u", text="r", data={"b": [None]}))
    )
    assert turns == turn(
        ToolResult(id="t", text='{"a":null}'), ToolResult(id="u", text='r\n{"b":[null]}')
    )
