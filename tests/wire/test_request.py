"""What is asked, as the service's JSON."""

import json
import uuid
from base64 import b64encode
from dataclasses import replace
from typing import Any, cast

import pytest

from kiro_mcp.chat import (
    ChatRequest,
    ImagePart,
    Message,
    ModelInfo,
    Part,
    Role,
    TextPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.history import TRUNCATION_NOTICE
from kiro_mcp.wire.images import MAX_IMAGE_BYTES, image_from_bytes
from kiro_mcp.wire.messages import read_messages
from kiro_mcp.wire.models import resolve_model
from kiro_mcp.wire.request import (
    MAX_DESCRIPTION_BYTES,
    TOKENS_PER_IMAGE,
    WRITE_IN_CHUNKS,
    Envelope,
    Payload,
    PayloadOptions,
    Prepared,
    RequestWriter,
    WireForm,
    compose_system,
    encode_payload,
    history_head,
    prepare,
    without_content,
    write_payload,
)
from kiro_mcp.wire.tools import read_tool_specs, sendable_tools

CONVERSATION = "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11"
ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"
PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
SPEC: dict[str, Any] = {
    "name": "look",
    "description": "Looks.",
    "inputSchema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
SENT_SPEC = {
    "toolSpecification": {
        "name": "look",
        "description": "Looks.",
        "inputSchema": {"json": SPEC["inputSchema"]},
    }
}
ROUND_TRIP: list[dict[str, Any]] = [
    {"role": "user", "content": "Look."},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I will."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "x"}},
        ],
    },
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "seen"}],
    },
]


def request(*turns: tuple[Role, str], system: str = "") -> ChatRequest:
    messages = tuple(Message(role=role, parts=(TextPart(text=text),)) for role, text in turns)
    return ChatRequest(messages=messages, conversation_id=CONVERSATION, system=system, model="m")


def asked(*given: Any, tools: list[Any] | None = None, model: str = "auto") -> ChatRequest:
    """Return the request that a stranger's messages and tools make."""
    chat = read_messages(given)
    specs, _ = read_tool_specs(tools or [])
    bare = ChatRequest(
        messages=chat.messages, system=chat.system, tools=specs, conversation_id=CONVERSATION
    )
    return resolve_model(model).applied_to(bare)


def sent(request: ChatRequest, options: PayloadOptions | None = None, **envelope: Any) -> Payload:
    members: dict[str, Any] = {"origin": "O", "profile_arn": "", **envelope}
    to = Envelope(**members)
    return RequestWriter(options or PayloadOptions()).write(request, to)


def state_of(request: ChatRequest, options: PayloadOptions | None = None) -> dict[str, Any]:
    return cast("dict[str, Any]", sent(request, options).body["conversationState"])


def current_of(request: ChatRequest) -> dict[str, Any]:
    return state_of(request)["currentMessage"]["userInputMessage"]


def rules(repaired: Payload | Prepared) -> list[str]:
    return [repair.rule for repair in repaired.repairs]


def user_turn(text: str, **members: Any) -> dict[str, object]:
    return {"userInputMessage": {"content": text, "modelId": "m", "origin": "O", **members}}


# --- the outline --------------------------------------------------------------------------


def test_a_single_prompt_has_no_history_and_no_nulls() -> None:
    """The service's published schema."""
    payload = (
        RequestWriter().write(request(("user", "hi")), Envelope(origin="O", profile_arn=ARN)).body
    )
    assert payload == {
        "profileArn": ARN,
        "conversationState": {
            "conversationId": CONVERSATION,
            "chatTriggerType": "MANUAL",
            "currentMessage": user_turn("hi"),
        },
    }


def test_without_a_profile_or_an_id_the_members_are_left_out() -> None:
    """Observed: API keys must omit the profile; absent members are never null."""
    bare = replace(request(("user", "hi")), conversation_id="")
    payload = RequestWriter().write(bare, Envelope(origin="O", profile_arn="")).body
    assert payload == {
        "conversationState": {"chatTriggerType": "MANUAL", "currentMessage": user_turn("hi")}
    }


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
    state = state_of(request(("user", "hi"), ("assistant", "a"), ("user", "")))
    assert state["currentMessage"] == user_turn(" ")


@pytest.mark.parametrize("said", [(), (("user", ""),), (("user", " \n"), ("assistant", ""))])
def test_a_request_that_says_nothing_is_refused(said: tuple[tuple[Role, str], ...]) -> None:
    """The user would pay for the answer."""
    with pytest.raises(InvalidRequest, match="Nothing was asked"):
        RequestWriter().write(request(*said), Envelope(origin="O", profile_arn=""))


def test_only_the_rpc_body_holds_the_agents_mode() -> None:
    """The service's published schema: the REST form has a header for it."""
    asked = replace(request(("user", "hi")), model="claude-opus-4.6", effort="low")
    bodies: dict[WireForm, Any] = {
        form: sent(asked, form=form).body for form in ("rest", "rpc", "send_message")
    }
    assert "agentMode" not in bodies["rest"]
    assert bodies["rpc"] == {**bodies["rest"], "agentMode": "vibe"}
    assert bodies["send_message"].keys() == {"conversationState"}


def test_a_warning_names_the_fields_that_an_endpoint_does_not_take() -> None:
    """The service's published schema: `SendMessage` has no fields for a model."""
    asked = replace(request(("user", "hi")), model="claude-opus-4.6", effort="low")
    assert len(sent(asked, form="send_message").warnings) == 1
    assert sent(asked).warnings == ()


def test_every_turn_has_the_origin_of_the_endpoint() -> None:
    """Observed: origin and endpoint must match; a payload is built for each endpoint."""
    text = encode_payload(sent(asked(*ROUND_TRIP, tools=[SPEC]), origin="CLI").body)
    assert text.count(b'"origin":"CLI"') == text.count(b'"origin"') == 2


def test_inference_settings_are_never_sent() -> None:
    """The service's schema has none."""
    asked_for = replace(asked("hi", model="claude-sonnet-4.5"), max_tokens=500)
    assert b"inferenceConfig" not in encode_payload(sent(asked_for).body)


def test_equal_requests_give_equal_bytes() -> None:
    """The service's prompt cache holds only for identical prefixes."""
    made = [
        RequestWriter()
        .write(request(("user", "grüß 🙂")), Envelope(origin="O", profile_arn=ARN))
        .encoded
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert json.loads(made[0])
    assert "grüß 🙂".encode() in made[0]


def test_a_later_turn_repeats_the_earlier_ones_byte_by_byte() -> None:
    """The service's prompt cache holds only for identical prefixes."""
    cut = {"role": "assistant", "content": "b", "truncated": True}
    earlier = state_of(asked("a", cut, "c"))["history"]
    later = state_of(asked("a", cut, "c", {"role": "assistant", "content": "d"}, "e"))["history"]
    assert encode_payload({"h": later[:2]}) == encode_payload({"h": earlier})


# --- turns --------------------------------------------------------------------------------


def test_turns_of_one_role_are_merged_with_all_their_parts() -> None:
    """The invariant of the service's official clients."""
    image = {"type": "image", "data": PNG}
    state = state_of(
        asked(
            {"role": "user", "content": ["a", image]},
            {"role": "user", "content": ["b", image]},
            {"role": "assistant", "content": "c"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}],
            },
            {"role": "user", "content": "d"},
        )
    )
    first, second = state["history"]
    assert first["userInputMessage"]["content"] == "a\nb"
    assert len(first["userInputMessage"]["images"]) == 2
    assert second["assistantResponseMessage"]["content"] == "c"
    assert len(second["assistantResponseMessage"]["toolUses"]) == 1


def test_an_assistant_turn_at_the_end_goes_to_the_history() -> None:
    """The current message is the user's, and it is empty."""
    state = state_of(asked("a", {"role": "assistant", "content": "b"}))
    assert len(state["history"]) == 2
    assert state["currentMessage"]["userInputMessage"]["content"] == " "


def test_the_turn_after_a_cut_off_answer_says_so() -> None:
    """The model cannot know that its answer did not arrive."""
    cut = {"role": "assistant", "content": "b", "stop_reason": "max_tokens"}
    assert current_of(asked("a", cut, "c"))["content"] == f"{TRUNCATION_NOTICE}\nc"


def test_signed_reasoning_is_sent_in_its_nested_form() -> None:
    """Observed: a flat form is refused, and unsigned reasoning cannot be verified."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    unsigned = {"type": "thinking", "thinking": "hm"}
    redacted = {"type": "redacted_thinking", "data": "cg=="}
    for blocks, expected in (
        ([unsigned, thinking, "b"], {"reasoningText": {"text": "hm", "signature": "s"}}),
        ([thinking, redacted, "b"], {"reasoningText": {"text": "hm", "signature": "s"}}),
        ([redacted, "b"], {"redactedContent": "cg=="}),
        ([unsigned, "b"], None),
    ):
        _, answer = state_of(asked("a", {"role": "assistant", "content": blocks}, "c"))["history"]
        assert answer["assistantResponseMessage"].get("reasoningContent") == expected


# --- tools --------------------------------------------------------------------------------


def test_a_tool_use_and_its_result_are_sent() -> None:
    """The service's published schema: tools and results come with the current message."""
    state = state_of(asked(*ROUND_TRIP, tools=[SPEC]))
    assert state["history"][1]["assistantResponseMessage"] == {
        "content": "I will.",
        "toolUses": [{"toolUseId": "t1", "name": "look", "input": {"at": "x"}}],
    }
    assert state["currentMessage"]["userInputMessage"] == {
        "content": " ",
        "modelId": "auto",
        "origin": "O",
        "userInputMessageContext": {
            "toolResults": [
                {"toolUseId": "t1", "status": "success", "content": [{"text": "seen"}]}
            ],
            "tools": [SENT_SPEC],
        },
    }
    assert sent(asked(*ROUND_TRIP, tools=[SPEC])).repairs == ()


@pytest.mark.parametrize(
    ("result", "content", "status"),
    [
        ({"content": ""}, [{"text": " "}], "success"),
        ({"content": {"n": 1}}, [{"json": {"n": 1}}], "success"),
        ({"content": {"n": None}}, [{"text": '{"n":null}'}], "success"),
        ({"content": "boom", "is_error": True}, [{"text": "boom"}], "error"),
        ({"content": [{"type": "image", "data": PNG}]}, [{"text": " "}], "success"),
    ],
)
def test_results_are_text_or_json(result: dict[str, Any], content: Any, status: str) -> None:
    """The service's published schema: no images in a result, and no null anywhere."""
    block = {"type": "tool_result", "tool_use_id": "t1", **result}
    current = current_of(asked(*ROUND_TRIP[:2], {"role": "user", "content": [block]}))
    assert current["userInputMessageContext"]["toolResults"] == [
        {"toolUseId": "t1", "status": status, "content": content}
    ]
    assert ("images" in current) == (result["content"] == [{"type": "image", "data": PNG}])


def test_a_result_without_an_id_answers_the_call_before_it() -> None:
    """OpenAI's older function calls have no ids, and some clients forget them."""
    function = {"name": "look", "arguments": "{}"}
    for call in ({"function_call": function}, {"tool_calls": [{"id": "t1", "function": function}]}):
        result = {"role": "function", "name": "look", "content": "seen"}
        state = state_of(asked("a", {"role": "assistant", **call}, result))
        (use,) = state["history"][1]["assistantResponseMessage"]["toolUses"]
        context = state["currentMessage"]["userInputMessage"]["userInputMessageContext"]
        assert context["toolResults"] == [
            {"toolUseId": use["toolUseId"], "status": "success", "content": [{"text": "seen"}]}
        ]


def test_a_tool_is_sent_under_a_legal_name() -> None:
    """Observed: the service takes 64 letters, digits, `_` and `-`."""
    payload = sent(asked("hi", tools=[{**SPEC, "name": "server/look.at"}]))
    text = encode_payload(payload.body)
    assert b"server/look.at" not in text
    assert b'"name":"server_look_at"' in text
    assert payload.tools.caller_names == {"server_look_at": "server/look.at"}


def test_faulty_tool_uses_are_repaired_together() -> None:
    """Observed: each of these alone is answered with "Improperly formed request"."""
    payload = sent(
        asked(
            {"role": "assistant", "content": "I speak first."},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "call.1/x", "function": {"name": "old.tool", "arguments": "{,"}},
                    {"id": "call.1/x", "function": {"name": "old.tool", "arguments": "{}"}},
                    {"id": "b", "function": {"name": "old.tool", "arguments": '{"a": null}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "call.1/x", "content": "seen"},
            {"role": "tool", "tool_call_id": "call.1/x", "content": "again"},
            {"role": "tool", "tool_call_id": "zz", "content": "orphan"},
        )
    )
    assert payload.findings == ()
    assert rules(payload) == [
        "unsendable_value",
        "merged_turns",
        "user_first",
        "illegal_id",
        "repeated_id",
        "orphan_result",
        "missing_result",
        "stub_tool",
        "tool_name",
    ]


# --- thinking -----------------------------------------------------------------------------


def test_a_model_with_a_schema_gets_fields_and_no_tags() -> None:
    """Such a model ignores tags."""
    body = sent(asked("hi", model="claude-opus-4.8-high")).body
    assert body["additionalModelRequestFields"] == {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "high"},
    }
    assert b"thinking_mode" not in encode_payload(body)


def test_a_model_without_a_schema_gets_tags_and_no_fields() -> None:
    """Observed: it refuses extra fields, and thinks when tags begin the prompt."""
    body = sent(asked({"role": "system", "content": "Be terse."}, "hi", model="opus-4.5-thinking"))
    current = cast("Any", body.body)["conversationState"]["currentMessage"]["userInputMessage"]
    assert current["content"] == (
        "<thinking_mode>enabled</thinking_mode><max_thinking_length>4000</max_thinking_length>"
        "\n\nBe terse.\n\nhi"
    )
    assert "additionalModelRequestFields" not in body.body


# --- images -------------------------------------------------------------------------------


def images(count: int) -> tuple[ImagePart, ...]:
    return (image_from_bytes(b"GIF89a......", location="it"),) * count


def test_images_go_with_their_turn() -> None:
    """The service's published schema."""
    image = image_from_bytes(b"\xff\xd8\xff", location="it")
    alone = ChatRequest(
        messages=(Message(role="user", parts=(image,)),), conversation_id=CONVERSATION
    )
    current = current_of(alone)
    assert current["content"] == " "
    assert current["images"] == [{"format": "jpeg", "source": {"bytes": "/9j/"}}]


@pytest.mark.parametrize(
    ("parts", "model", "rule"),
    [
        (images(11), "auto", "image_count"),
        (images(1), "deepseek-3.2", "images_unseen"),
        ((ImagePart(format="png", data="???"),), "auto", "image"),
        ((ImagePart(format="png", data="aGVsbG8="),), "auto", "image"),
        ((ImagePart(format=cast("Any", "jpg"), data=PNG),), "auto", "image"),
        ((ImagePart(format="png", data="A" * (MAX_IMAGE_BYTES // 3 * 4 + 8)),), "auto", "image"),
    ],
)
def test_an_image_that_cannot_be_sent_is_refused_with_its_location(
    parts: tuple[ImagePart, ...], model: str, rule: str
) -> None:
    """The limits of the service; it would only say "Improperly formed request"."""
    turn = Message(role="user", parts=parts)
    asked = ChatRequest(messages=(turn,), conversation_id=CONVERSATION, model=model)
    with pytest.raises(InvalidRequest, match=rf"\({rule}\)") as caught:
        RequestWriter().write(asked, Envelope(origin="O", profile_arn=""))
    assert caught.value.next_step
    findings = write_payload(prepare(asked), Envelope(origin="O", profile_arn="")).findings
    assert [finding.rule for finding in findings] == [rule]
    images_at = ".images[0]" if rule == "image" else ""
    assert findings[0].location == f"currentMessage.userInputMessage{images_at}"


def test_a_description_over_the_services_limit_is_refused() -> None:
    """The user's setting may be too high."""
    spec = {**SPEC, "description": "ü" * (MAX_DESCRIPTION_BYTES // 2 + 1)}
    options = PayloadOptions(description_max_bytes=50_000)
    with pytest.raises(InvalidRequest, match=r"tools\.look\.description is over"):
        sent(asked("hi", tools=[spec]), options)


def test_another_attempt_writes_only_what_changed() -> None:
    """A history is repaired once for a call."""
    writer, prompt = RequestWriter(), request(("user", "hi"))
    here, there = (Envelope(origin=origin, profile_arn="") for origin in ("A", "B"))
    payload = writer.write(prompt, here)
    assert writer.write(prompt, replace(here)) is payload
    assert writer.write(prompt, there).encoded == RequestWriter().write(prompt, there).encoded
    assert writer.write(prompt, here).encoded == payload.encoded
    other = request(("user", "ho"))
    assert writer.write(other, here).encoded == RequestWriter().write(other, here).encoded
    renamed = writer.write(other, replace(here, conversation_id="c"))
    assert state_of(other)["conversationId"] == CONVERSATION
    assert cast("Any", renamed.body)["conversationState"]["conversationId"] == "c"


# --- size ---------------------------------------------------------------------------------


def long_chat(pairs: int) -> ChatRequest:
    turns: list[tuple[Role, str]] = []
    for index in range(pairs):
        turns.append(("user", f"question {index} ü" * 10))
        turns.append(("assistant", f"answer {index}" * 10))
    return request(*turns, ("user", "now"), system="Be terse.")


def test_nothing_is_trimmed_unless_a_limit_is_set() -> None:
    """The model would silently forget."""
    payload = sent(long_chat(50))
    assert payload.repairs == ()
    assert len(cast("Any", payload.body)["conversationState"]["history"]) == 100


@pytest.mark.parametrize("limit", [1_000, 3_000, 10_000])
def test_the_oldest_pairs_are_trimmed_to_the_limit(limit: int) -> None:
    """No more than needed, and the system prompt stays first."""
    options = PayloadOptions(max_payload_bytes=limit)
    payload = sent(long_chat(50), options)
    size = len(encode_payload(payload.body))
    assert limit - 600 < size <= limit
    history = cast("Any", payload.body)["conversationState"]["history"]
    assert history[0]["userInputMessage"]["content"].startswith("Be terse.\n\nquestion")
    assert [repair.rule for repair in payload.repairs] == ["trimmed_history"]


def test_the_whole_history_may_be_trimmed() -> None:
    state = state_of(long_chat(3), PayloadOptions(max_payload_bytes=250))
    assert "history" not in state
    assert state["currentMessage"] == user_turn("Be terse.\n\nnow")


@pytest.mark.parametrize("chat", [long_chat(3), long_chat(0)])
def test_a_request_that_is_too_large_without_its_history_is_refused(chat: ChatRequest) -> None:
    with pytest.raises(InvalidRequest, match="over the limit of 100") as caught:
        sent(chat, PayloadOptions(max_payload_bytes=100))
    assert caught.value.code == "context_too_long"


@pytest.mark.parametrize("is_sound", [True, False])
@pytest.mark.parametrize("text", ["x", "\\u0000image\\u0000", "\0image\0"])
def test_large_images_are_encoded_as_they_are(text: str, is_sound: bool) -> None:
    """Base64 has nothing to escape. A library's user may hand over what is not base64."""
    beginning = b"\x89PNG\r\n\x1a\n"
    images = [image_from_bytes(beginning + bytes([n]) * 90_000, location="x") for n in range(8)]
    if not is_sound:
        images.append(replace(images[0], data='"' + images[0].data))
    said = TextPart(text=text)
    turns = (
        Message(role="user", parts=(said, *images[:3])),
        Message(role="assistant", parts=(said,)),
        Message(role="user", parts=(said, *images[3:])),
    )
    payload = write_payload(
        prepare(ChatRequest(messages=turns), PayloadOptions()),
        Envelope(origin="CLI", profile_arn=ARN),
    )
    body = payload.body
    assert any(finding.rule == "image" for finding in payload.findings) == (not is_sound)
    assert payload.encoded.count(b'"bytes"') == len(images)
    assert payload.encoded == json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    body["text"] = text
    assert json.loads(encode_payload(body)) == body
    expected = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert encode_payload(body) == expected.encode()


def test_histories_with_other_borders_between_texts_have_other_heads() -> None:
    """Else the service's cache would take one for the other."""
    heads = {
        history_head([Message(role="user", parts=tuple(TextPart(text=text) for text in texts))], "")
        for texts in (["ab", "c"], ["a", "bc"], ["abc"])
    }
    assert len(heads) == 3


# --- requests, repaired -------------------------------------------------------------------


A = TextPart(text="a")
USE = ToolUse(id="t1", name="my.tool", arguments={})
MY_TOOL = ToolSpec(name="my.tool", description="Does it.", input_schema={})


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role="assistant", parts=parts)


def chat(*messages: Message, **members: Any) -> ChatRequest:
    asked = ChatRequest(messages=messages, conversation_id=CONVERSATION, model="auto")
    return replace(asked, **members)


def test_a_good_request_needs_no_repair() -> None:
    prepared = prepare(chat(user(A), system="Be terse."))
    assert prepared.turns == (user(A),)
    assert (prepared.system, prepared.model.id) == ("Be terse.", "auto")
    assert prepared.conversation_id == CONVERSATION
    assert (prepared.tools.specs, prepared.fields) == ((), {})
    assert (prepared.repairs, prepared.warnings) == ((), ())


@pytest.mark.parametrize(
    "messages",
    [
        (user(TextPart(text="\0")),),
        (user(ImagePart(format="png", data="x")), assistant(TextPart(text=" "))),
    ],
)
def test_a_request_that_says_nothing_after_its_repair_is_refused(
    messages: tuple[Message, ...],
) -> None:
    """A character that cannot be sent; an old image for a model that reads only text."""
    text_only = ModelInfo(id="m", name="M", input_types=("TEXT",))
    with pytest.raises(InvalidRequest, match="Nothing was asked"):
        prepare(chat(*messages, model_info=text_only))


def test_a_request_without_a_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Nothing was asked"):
        prepare(chat())


def test_a_model_without_details_is_looked_up_by_its_name() -> None:
    """For those who use the engine as a library."""
    prepared = prepare(chat(user(A), model="claude-opus-4-6-high"))
    assert prepared.model.id == "claude-opus-4.6"
    assert prepared.fields["output_config"] == {"effort": "high"}
    assert prepare(chat(user(A), model="x")).warnings[0].startswith("'x' is not in the list")


def test_given_details_of_a_model_are_used() -> None:
    """The server has the live list."""
    known = ModelInfo(id="claude-opus-4.6", name="Known")
    prepared = prepare(chat(user(A), model="claude-opus-4.6", model_info=known, effort="high"))
    assert prepared.model == known
    assert prepared.fields == {}
    assert len(prepared.warnings) == 1


def test_tools_have_the_same_name_in_declarations_and_history() -> None:
    """Observed: the service takes 64 letters, digits, `_` and `-`."""
    turns = (user(A), assistant(USE), user(ToolResult(id="t1", text="r")))
    prepared = prepare(chat(*turns, tools=(MY_TOOL,)))
    assert prepared.turns[1] == assistant(replace(USE, name="my_tool"))
    assert [tool.name for tool in prepared.tools.specs] == ["my_tool"]
    assert prepared.tools.caller_names == {"my_tool": "my.tool"}


def test_tools_of_the_history_are_declared() -> None:
    """Observed: a tool use without its spec is refused."""
    prepared = prepare(chat(user(A), assistant(USE), user(ToolResult(id="t1", text="r"))))
    assert [tool.name for tool in prepared.tools.specs] == ["my_tool"]
    assert "stub_tool" in rules(prepared)


def test_a_request_without_tools_has_only_text() -> None:
    """What `-chat` asks for."""
    turns = (user(A), assistant(USE), user(ToolResult(id="t1", text="r")))
    prepared = prepare(chat(*turns, tools=(MY_TOOL,), allows_tools=False))
    assert prepared.tools.specs == ()
    assert all(isinstance(part, TextPart) for turn in prepared.turns for part in turn.parts)
    assert rules(prepared) == ["tools_as_text"]


@pytest.mark.parametrize("given", ["", CONVERSATION, CONVERSATION.upper()])
def test_a_uuid_as_conversation_id_is_sent_unchanged(given: str) -> None:
    """The service takes a UUID for a conversation's id."""
    prepared = prepare(chat(user(A), conversation_id=given))
    assert (prepared.conversation_id, prepared.repairs) == (given, ())


@pytest.mark.parametrize("given", ["my chat", "\ud800", "0"])
def test_any_other_conversation_id_becomes_a_stable_uuid(given: str) -> None:
    """A stable id lets the service cache."""
    first, second = (prepare(chat(user(A), conversation_id=given)) for _ in range(2))
    assert uuid.UUID(first.conversation_id)
    assert first.conversation_id == second.conversation_id
    assert rules(first) == ["conversation_id"]


@pytest.mark.parametrize("where", ["system", "prompt", "nowhere"])
def test_the_callers_own_thinking_tags_are_not_repeated(where: str) -> None:
    tags = "<thinking_mode>enabled</thinking_mode>"
    prepared = prepare(
        chat(
            user(TextPart(text=tags if where == "prompt" else "a")),
            system=tags if where == "system" else "",
            model="claude-sonnet-4.5",
            effort="medium",
        ),
        PayloadOptions(thinking_budget=5_000),
    )
    assert prepared.system.count("<thinking_mode>") == (where != "prompt")
    assert ("<max_thinking_length>5000<" in prepared.system) == (where == "nowhere")


def test_a_system_prompt_made_by_hand_is_cleaned() -> None:
    assert prepare(chat(user(A), system="\ud800Be terse.\0")).system == "Be terse."


# --- what is said to the model before the conversation ------------------------------------


NO_TOOLS = sendable_tools([], [])


def test_a_blank_system_prompt_is_left_out() -> None:
    request = ChatRequest(messages=(), conversation_id="", system="  ")
    assert compose_system(request, NO_TOOLS) == ""


def test_the_pieces_of_the_system_prompt_have_a_fixed_order() -> None:
    """The tags that ask for thinking must come first; the rest never changes its place."""
    tool = ToolSpec(name="my.f", description="x" * 20, input_schema={})
    request = ChatRequest(
        messages=(),
        conversation_id="",
        system="Be terse.",
        writes_in_chunks=True,
        output_schema={"type": "array"},
    )
    tools = sendable_tools([tool], [], description_max_bytes=10)
    composed = compose_system(request, tools, tags="<tags>")
    assert composed.split("\n\n")[:4] == [
        "<tags>",
        "Be terse.",
        WRITE_IN_CHUNKS,
        f"Tool my_f:\n{'x' * 20}",
    ]
    assert composed.endswith('JSON Schema:\n{"type":"array"}')


def test_a_system_prompt_is_sent_unchanged() -> None:
    """A prompt that changes each time cannot be cached."""
    request = ChatRequest(messages=(), conversation_id="", system="Be terse.")
    assert compose_system(request, NO_TOOLS) == "Be terse."


# --- about how many tokens a prompt is ----------------------------------------------------


ENVELOPE = Envelope(origin="KIRO_CLI", profile_arn="")
PICTURE = ImagePart(format="png", data=b64encode(b"\x89PNG\r\n\x1a\n" + bytes(100_000)).decode())


def prompt_of(*parts: TextPart | ImagePart) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", parts=parts),), conversation_id="")


def test_tokens_are_estimated_by_text_and_by_image() -> None:
    """About four bytes to a token; an image's bytes say nothing of its tokens."""
    payload = write_payload(prepare(prompt_of(TextPart(text="ü" * 2_000), PICTURE)), ENVELOPE)
    size = len(payload.encoded)
    expected = (size - len(PICTURE.data)) // 4 + TOKENS_PER_IMAGE
    assert payload.estimated_tokens == expected
    assert 1_000 < expected - TOKENS_PER_IMAGE < 1_100


def test_a_prompt_that_may_not_fit_gets_a_warning() -> None:
    """The estimate, and the listed window, can be wrong."""
    request = prompt_of(TextPart(text="x" * 400))
    tokens = write_payload(prepare(request), ENVELOPE).estimated_tokens
    for window, is_warned in ((tokens, False), (tokens - 1, True), (None, False)):
        model = ModelInfo(id="auto", name="M", context_window=window)
        warnings = write_payload(prepare(replace(request, model_info=model)), ENVELOPE).warnings
        said = f"The prompt is about {tokens} tokens, and auto reads {window}:"
        assert [one.startswith(said) for one in warnings] == [True] * is_warned
    payload = write_payload(prepare(prompt_of(TextPart(text="x" * 1_000_000))), ENVELOPE)
    assert payload.warnings == ()
    payload = write_payload(prepare(prompt_of(TextPart(text="x" * 4_100_000))), ENVELOPE)
    assert len(payload.warnings) == 1
    assert payload.findings == ()


# --- what would have been sent ------------------------------------------------------------


SECRET_ENVELOPE = Envelope(
    origin="KIRO_CLI", profile_arn="arn:aws:codewhisperer:us-east-1:1:profile/S3CRET"
)
SECRET_CHAT = ChatRequest(
    messages=(
        Message(role="user", parts=(TextPart(text="s3cret question"), PICTURE)),
        Message(
            role="assistant",
            parts=(ToolUse(id="t1", name="f", arguments={"name": "s3cret", "l": ["s3cret", 1]}),),
        ),
        Message(role="user", parts=(ToolResult(id="t1", text="s3cret", data={"type": "s3cret"}),)),
    ),
    system="s3cret",
    model="claude-opus-4.6",
    effort="xhigh",
    tools=(
        ToolSpec(
            name="f",
            description="s3cret",
            input_schema={"type": "object", "properties": {"name": {"const": "s3cret"}}},
        ),
    ),
    conversation_id="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
)


def test_a_dry_run_hides_all_content() -> None:
    """A dry run may end up in a bug report."""
    payload = write_payload(prepare(SECRET_CHAT), SECRET_ENVELOPE)
    hidden: Any = without_content(payload.body)
    text = json.dumps(hidden)
    assert "s3cret" not in text.lower()
    assert PICTURE.data not in text
    state = hidden["conversationState"]
    assert state["currentMessage"]["userInputMessage"]["modelId"] == "claude-opus-4.6"
    (use,) = state["history"][1]["assistantResponseMessage"]["toolUses"]
    assert (use["name"], use["toolUseId"]) == ("f", "t1")
    assert use["input"] == {"name": "<6 characters>", "l": ["<6 characters>", 1]}


def test_a_dry_run_shows_only_the_structure() -> None:
    """What a bug report needs, and no more."""
    structure: dict[str, Any] = {
        "conversationState": {"agentMode": "vibe", "chatTriggerType": "MANUAL"},
        "conversationId": "c",
        "history": [{"modelId": "m", "origin": "KIRO_CLI"}, {"images": [{"format": "png"}]}],
        "toolResults": [{"toolUseId": "t", "status": "error", "name": "f"}],
        "fields": {"thinking": {"type": "adaptive", "display": "omitted"}, "effort": "low"},
    }
    assert without_content(structure) == structure
    assert without_content({"input": structure, "content": ["", 1, None]}) == {
        "input": {
            "conversationState": {
                "agentMode": "<4 characters>",
                "chatTriggerType": "<6 characters>",
            },
            "conversationId": "<1 characters>",
            "history": [
                {"modelId": "<1 characters>", "origin": "<8 characters>"},
                {"images": [{"format": "<3 characters>"}]},
            ],
            "toolResults": [
                {
                    "toolUseId": "<1 characters>",
                    "status": "<5 characters>",
                    "name": "<1 characters>",
                }
            ],
            "fields": {
                "thinking": {"type": "<8 characters>", "display": "<7 characters>"},
                "effort": "<3 characters>",
            },
        },
        "content": ["<0 characters>", 1, None],
    }
