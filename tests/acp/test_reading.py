"""What is read and written without a process: lines, prompts, conversations, words of errors."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.acp.errors import RpcError, error_of
from kiro_mcp.acp.rpc import LineReader
from kiro_mcp.acp.transcript import (
    SessionSpec,
    conversation_key,
    write_conversation,
    write_message,
)
from kiro_mcp.chat import (
    ImagePart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)

SPEC = SessionSpec(system="Be brief.", tools=(), model="auto", effort="")
BOUNDARY = "-----boundary-----"

LINES = b'{"a":1}\r\n\n{"b":"\xc3\xa4"}\n' + b"x" * 40 + b"\nlast\nrest"


@pytest.mark.parametrize("split", range(len(LINES) + 1))
def test_lines_are_the_same_wherever_the_bytes_are_split(split: int) -> None:
    reader = LineReader(limit=20)
    lines = [*reader.feed(LINES[:split]), *reader.feed(LINES[split:])]
    assert lines == [b'{"a":1}', b"", b'{"b":"\xc3\xa4"}', b"last"]


def said(role: Any, *parts: Any) -> Message:
    return Message(role=role, parts=tuple(parts))


TEXT = st.text(max_size=3)
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, text=TEXT),
    st.builds(ToolUse, id=TEXT, name=TEXT, arguments=st.dictionaries(TEXT, TEXT, max_size=1)),
    st.builds(ToolResult, id=TEXT, text=TEXT),
    st.builds(ImagePart, format=st.just("png"), data=TEXT),
)
MESSAGES = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["user", "assistant"]),
        parts=st.lists(PARTS, min_size=1, max_size=2).map(tuple),
    ),
    max_size=3,
)


def meaning(messages: list[Message]) -> list[Any]:
    """What a conversation says: the turns of one role as one, its texts joined."""
    turns: list[Any] = []
    role = ""
    for message in messages:
        turns += [message.role] * (message.role != role)
        role = message.role
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart)).strip()
        turns += [("text", text)] * bool(text)
        turns += [part for part in message.parts if not isinstance(part, TextPart)]
    return turns


@given(MESSAGES, MESSAGES)
def test_a_conversation_is_known_again_exactly_if_it_is_the_same(
    one: list[Message], other: list[Message]
) -> None:
    equal = conversation_key(SPEC, one) == conversation_key(SPEC, other)
    assert equal == (meaning(one) == meaning(other))


TOOL = ToolSpec(name="read", description="Read.", input_schema={"type": "object"})


@pytest.mark.parametrize(
    "change", [{"system": "x"}, {"model": "x"}, {"effort": "x"}, {"tools": (TOOL,)}]
)
def test_a_session_with_other_settings_has_another_conversation(change: Any) -> None:
    turns = [said("user", TextPart(text="Hi"))]
    assert conversation_key(SPEC, turns) != conversation_key(replace(SPEC, **change), turns)


def test_thinking_does_not_make_another_conversation() -> None:
    plain = [said("assistant", TextPart(text="Hi"))]
    thought = [said("assistant", ThinkingPart(text="Hm."), TextPart(text="Hi"))]
    assert conversation_key(SPEC, plain) == conversation_key(SPEC, thought)


def test_a_record_stands_between_boundaries_with_calls_results_and_images() -> None:
    turns = [
        said("user", TextPart(text="Read it"), ImagePart(format="png", data="AAAA")),
        said("assistant", ToolUse(id="t1", name="read", arguments={"path": "a"})),
        said("user", ToolResult(id="t1", text="It says hi."), TextPart(text="Well?")),
    ]
    record, old, last = write_conversation(turns, BOUNDARY)
    lines = str(record["text"]).splitlines()
    inside = lines[lines.index(BOUNDARY) + 1 : -lines[::-1].index(BOUNDARY) - 1]
    assert inside == [
        "[user]",
        "Read it",
        "[image 1 of the record]",
        "[assistant]",
        '[called the tool read, call t1, with] {"path":"a"}',
    ]
    assert old == {"type": "image", "mimeType": "image/png", "data": "AAAA"}
    assert last["text"] == "[result of the tool call t1]\nIt says hi.\nWell?"


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_every_message_becomes_a_prompt_that_is_not_empty(texts: list[str]) -> None:
    (block,) = write_message([TextPart(text=text) for text in texts])
    assert block["text"]
    json.dumps(block).encode()


@pytest.mark.parametrize(
    ("data", "hint", "code"),
    [
        ({"details": "AccessDenied: ExpiredTokenException"}, "", "auth_expired"),
        ("InvalidGrantException", "", "auth_expired"),
        ("Please log in with kiro-cli login", "", "auth_required"),
        ("Account SUSPENDED; the token has expired", "", "account_suspended"),
        ('message: "Your User ID (d-1) temporarily is suspended."', "", "account_suspended"),
        ("TEMPORARILY_SUSPENDED", "", "account_suspended"),
        ("Invalid tool name: list_suspended_users", "", "upstream_error"),
        ("You have reached the monthly limit", "", "quota_exhausted"),
        ("ThrottlingException", "", "rate_limited"),
        (None, "rate limit: wait", "rate_limited"),
        ("INSUFFICIENT_MODEL_CAPACITY", "", "model_busy"),
        ("Input is too long", "", "context_too_long"),
        ("INVALID_MODEL_ID", "", "model_unavailable"),
        ("Encountered an error in the response stream", "", "stream_broken"),
        ({"errorType": "ClientNetworkError"}, "", "network_error"),
        (None, "", "upstream_error"),
        (["anything"], "", "upstream_error"),
    ],
)
def test_the_words_of_an_error_say_what_it_is(data: Any, hint: str, code: str) -> None:
    error = RpcError({"code": -32603, "message": "Internal error", "data": data})
    found = error_of(error, hint)
    assert found.code == code
    assert found.next_step


def test_the_words_of_an_error_are_shown_without_a_secret() -> None:
    bearer = "Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789"
    shown = str(error_of(RpcError({"code": -32603, "message": f"Failed with {bearer}"})))
    assert "Failed with" in shown
    assert "abcdefghijklmnopqrstuvwxyz" not in shown
