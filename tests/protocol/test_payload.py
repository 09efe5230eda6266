"""What is asked, as the service's JSON."""

import json
from typing import Any, cast

import pytest

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.models import ChatRequest, Message, Role, TextPart
from kiro_mcp.protocol.payload import build_payload, encode_payload

CONVERSATION = "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11"
ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"


def request(*turns: tuple[Role, str], system: str = "") -> ChatRequest:
    messages = tuple(Message(role=role, parts=(TextPart(text=text),)) for role, text in turns)
    return ChatRequest(messages=messages, conversation_id=CONVERSATION, system=system, model="m")


def state_of(request: ChatRequest) -> dict[str, Any]:
    payload = build_payload(request, origin="O", profile_arn="")
    return cast("dict[str, Any]", payload["conversationState"])


def user_turn(text: str) -> dict[str, object]:
    return {"userInputMessage": {"content": text, "modelId": "m", "origin": "O"}}


def test_one_prompt_has_no_history_and_no_nulls() -> None:
    """The service's published schema."""
    payload = build_payload(request(("user", "hi")), origin="O", profile_arn=ARN)
    assert payload == {
        "profileArn": ARN,
        "conversationState": {
            "conversationId": CONVERSATION,
            "chatTriggerType": "MANUAL",
            "currentMessage": user_turn("hi"),
        },
    }


def test_without_a_profile_the_member_is_left_out() -> None:
    """Observed: API keys must omit it."""
    assert "profileArn" not in build_payload(request(("user", "hi")), origin="O", profile_arn="")


def test_the_system_prompt_goes_before_the_first_user_turn() -> None:
    """Observed: the request has no member for it, and there it stays cacheable."""
    alone = state_of(request(("user", "hi"), system="Be terse."))
    assert alone["currentMessage"] == user_turn("Be terse.\n\nhi")
    turns: list[tuple[Role, str]] = [("user", "a"), ("assistant", "b"), ("user", "c")]
    longer = state_of(request(*turns, system="Be terse."))
    assert longer["history"] == [
        user_turn("Be terse.\n\na"),
        {"assistantResponseMessage": {"content": "b"}},
    ]
    assert longer["currentMessage"] == user_turn("c")


def test_an_empty_turn_is_sent_as_a_space() -> None:
    """Observed: empty content is refused, and readable fillers are imitated by the model."""
    assert state_of(request(("user", "")))["currentMessage"] == user_turn(" ")


@pytest.mark.parametrize("turns", [[], [("user", "a"), ("assistant", "b")]])
def test_there_must_be_something_to_answer(turns: list[tuple[Role, str]]) -> None:
    """Ours."""
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        build_payload(request(*turns), origin="O", profile_arn="")


def test_equal_requests_give_equal_bytes() -> None:
    """Ours: the service's prompt cache holds only for identical prefixes."""
    made = [
        encode_payload(build_payload(request(("user", "grüß 🙂")), origin="O", profile_arn=ARN))
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert json.loads(made[0])
    assert "grüß 🙂".encode() in made[0]
