import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.chat import CodeReference, Fault, Refusal, WebLink
from kiro_mcp.wire.events import (
    MAX_MESSAGE_CHARACTERS,
    Citations,
    ContextUsage,
    Event,
    Ignored,
    Malformed,
    Metering,
    Reasoning,
    Several,
    Stop,
    Text,
    TokenCounts,
    ToolUseFragment,
    read_event,
)
from kiro_mcp.wire.eventstream import BYTE, Frame, FrameDecoder, Number
from tests.support.frames import json_bytes

CAPTURE = Path(__file__).parent.parent / "vectors" / "kiro-capture.json"
DEEP = b"[" * 100_000


def read(event_type: str, payload: object) -> Event:
    """What an event with the three usual headers means."""
    raw = payload if isinstance(payload, bytes) else json_bytes(payload)
    headers = {
        ":event-type": event_type,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return read_event(Frame(headers, raw))


@pytest.mark.parametrize(
    ("event_type", "payload", "event"),
    [
        pytest.param("assistantResponseEvent", {"content": "a"}, Text("a"), id="text"),
        pytest.param(
            "assistantResponseEvent",
            {"content": "a", "modelId": "claude-opus-4.8"},
            Text("a", "claude-opus-4.8"),
            id="text-and-model",
        ),
        pytest.param(
            "assistantResponseEvent",
            {"content": "a", "conversationId": "c", "messageId": "m", "messageStatus": "DONE"},
            Text("a"),
            id="text-with-old-members",
        ),
        pytest.param("assistantResponseEvent", {}, Text(""), id="text-missing"),
        pytest.param("assistantResponseEvent", {"content": None}, Text(""), id="text-null"),
        pytest.param("assistantResponseEvent", b"", Text(""), id="text-without-payload"),
        pytest.param(
            "assistantResponseEvent",
            {"assistantResponseEvent": {"content": "a"}},
            Text("a"),
            id="text-wrapped",
        ),
        pytest.param(
            "assistantResponseEvent",
            {"assistantResponseEvent": {"content": "a"}, "content": "a"},
            Text("a"),
            id="text-wrapped-and-not-is-said-once",
        ),
        pytest.param(
            "assistantResponseEvent", rb'{"content":"\ud83d"}', Text("\ud83d"), id="half-character"
        ),
        pytest.param(
            "assistantResponseEvent",
            {"content": "a", "stopReason": "END_TURN"},
            Several((Text("a"), Stop("END_TURN"))),
            id="text-and-stop-reason",
        ),
        pytest.param(
            "assistantResponseEvent",
            {"content": "", "toolUses": [{"toolUseId": "t", "name": "n", "input": {"a": 1}}, 5]},
            Several((Text(""), ToolUseFragment("t", "n", '{"a": 1}', True, True))),
            id="text-and-whole-tool-uses",
        ),
        pytest.param(
            "assistantResponseEvent",
            {"content": "a", "toolUses": [{"name": "n"}]},
            Several((Text("a"), Malformed("assistantResponseEvent", "has no id of a tool use"))),
            id="text-survives-a-tool-use-without-id",
        ),
        pytest.param(
            "toolUseEvent",
            {"name": "n", "toolUseId": "t"},
            ToolUseFragment("t", "n", ""),
            id="tool-use-begins",
        ),
        pytest.param(
            "toolUseEvent",
            {"input": '{"a', "name": "n", "toolUseId": "t"},
            ToolUseFragment("t", "n", '{"a'),
            id="tool-use-goes-on",
        ),
        pytest.param(
            "toolUseEvent",
            {"name": "n", "stop": True, "toolUseId": "t"},
            ToolUseFragment("t", "n", "", True),
            id="tool-use-ends",
        ),
        pytest.param(
            "toolUseEvent",
            {"name": "n", "stop": "yes", "toolUseId": "t"},
            ToolUseFragment("t", "n", ""),
            id="tool-use-stops-only-at-true",
        ),
        pytest.param(
            "toolUseEvent",
            {"input": {"a": "é"}, "name": "n", "toolUseId": "t"},
            ToolUseFragment("t", "n", '{"a": "é"}', is_snapshot=True),
            id="tool-use-with-object",
        ),
        pytest.param(
            "toolUseEvent",
            {"input": {}, "name": "n", "toolUseId": "t"},
            ToolUseFragment("t", "n", ""),
            id="tool-use-with-placeholder",
        ),
        pytest.param(
            "toolUseEvent",
            {"input": [], "name": "n", "toolUseId": "t"},
            ToolUseFragment("t", "n", "[]", is_snapshot=True),
            id="tool-use-with-list",
        ),
        pytest.param("reasoningContentEvent", {"text": "a"}, Reasoning("a"), id="thinking"),
        pytest.param(
            "reasoningContentEvent", {"signature": "s"}, Reasoning("", "s"), id="signature"
        ),
        pytest.param(
            "reasoningContentEvent",
            {"redactedContent": "cg=="},
            Reasoning(redacted="cg=="),
            id="redacted",
        ),
        pytest.param("metadataEvent", {"stopReason": "END_TURN"}, Stop("END_TURN"), id="stop"),
        pytest.param("metadataEvent", {}, Ignored("metadataEvent"), id="metadata-empty"),
        pytest.param(
            "metadataEvent",
            {
                "tokenUsage": {
                    "uncachedInputTokens": 40,
                    "cacheReadInputTokens": 10,
                    "cacheWriteInputTokens": 5,
                    "outputTokens": 7,
                    "contextUsagePercentage": 1.5,
                },
                "stopReason": "TOOL_USE",
            },
            Several((Stop("TOOL_USE"), TokenCounts(40, 7, 10, 5), ContextUsage(1.5))),
            id="metadata-whole",
        ),
        pytest.param(
            "metadataEvent",
            {"usage": {"inputTokens": 3, "outputTokens": 2.0}},
            TokenCounts(3, 2),
            id="metadata-other-counts",
        ),
        pytest.param(
            "metadataEvent",
            {
                "stopReason": "CONTENT_FILTERED",
                "stopDetails": {
                    "refusal": {"category": "c", "explanation": "e", "recommendedModel": "m"}
                },
            },
            Stop(
                "CONTENT_FILTERED",
                Refusal(category="c", explanation="e", recommended_model="m"),
            ),
            id="metadata-refusal",
        ),
        pytest.param(
            "metadataEvent",
            {"stopDetails": {"refusal": {"category": "c", "recommendedModel": None}}},
            Stop("REFUSAL", Refusal(category="c")),
            id="metadata-refusal-alone",
        ),
        pytest.param(
            "meteringEvent",
            {"unit": "credit", "unitPlural": "credits", "usage": 0.0148},
            Metering(0.0148),
            id="metering",
        ),
        pytest.param("meteringEvent", {"usage": 2}, Metering(2.0), id="metering-without-unit"),
        pytest.param(
            "meteringEvent", {"unit": "token", "usage": 2}, Metering(None), id="metering-other-unit"
        ),
        pytest.param(
            "meteringEvent", {"usage": {"inputTokens": 1}}, Metering(None), id="metering-object"
        ),
        pytest.param("meteringEvent", {"usage": True}, Metering(None), id="metering-true"),
        pytest.param(
            "meteringEvent", {"usage": 10**400}, Metering(None), id="metering-beyond-floats"
        ),
        pytest.param("meteringEvent", b'{"usage":1e999}', Metering(None), id="metering-infinite"),
        pytest.param(
            "contextUsageEvent",
            {"contextUsagePercentage": 102.5},
            ContextUsage(102.5),
            id="context-usage",
        ),
        pytest.param(
            "codeReferenceEvent",
            {"references": [{"licenseName": "MIT", "repository": "r", "url": "u"}, None]},
            Citations(references=(CodeReference(license_name="MIT", repository="r", url="u"),)),
            id="references",
        ),
        pytest.param("codeReferenceEvent", {}, Citations(), id="no-references"),
        pytest.param(
            "supplementaryWebLinksEvent",
            {"supplementaryWebLinks": [{"url": "u", "title": "t", "snippet": "s"}, {"title": "t"}]},
            Citations(links=(WebLink(url="u", title="t", snippet="s"),)),
            id="links",
        ),
        pytest.param(
            "supplementaryWebLinksEvent",
            {"inputTokens": 3, "outputTokens": 4},
            Several((Citations(), TokenCounts(3, 4))),
            id="links-with-counts",
        ),
        pytest.param(
            "citationEvent",
            {"target": {"location": 3}, "citationText": "s", "citationLink": "u"},
            Citations(links=(WebLink(url="u", snippet="s"),)),
            id="citation",
        ),
        pytest.param("citationEvent", {}, Ignored("citationEvent"), id="citation-without-link"),
        pytest.param(
            "messageMetadataEvent",
            {"conversationId": "c", "utteranceId": "u"},
            Several(()),
            id="message-metadata",
        ),
        pytest.param("initial-response", {"conversationId": ""}, Several(()), id="initial"),
        pytest.param("messageStopEvent", {"stopReason": "x"}, Stop("x"), id="message-stop"),
        pytest.param("message_stop", {"stop_reason": "x"}, Stop("x"), id="message-stop-snake"),
        pytest.param(
            "usageEvent",
            {"usage": {"inputTokens": 1, "outputTokens": -2}},
            TokenCounts(1),
            id="usage",
        ),
        pytest.param("metricsEvent", {}, TokenCounts(), id="metrics"),
        pytest.param(
            "invalidStateEvent",
            {"reason": "INVALID_TASK_ASSIST_PLAN", "message": "m"},
            Fault(name="invalidStateEvent", reason="INVALID_TASK_ASSIST_PLAN", message="m"),
            id="invalid-state",
        ),
        pytest.param(
            "invalidStateEvent",
            {"reason": "R"},
            Fault(name="invalidStateEvent", reason="R", message="R"),
            id="invalid-state-without-message",
        ),
        pytest.param(
            "invalidStateEvent",
            {},
            Fault(name="invalidStateEvent", message="Invalid state"),
            id="invalid-state-empty",
        ),
        pytest.param("error", {"message": "m"}, Fault(name="error", message="m"), id="error-event"),
        pytest.param("followupPromptEvent", {}, Ignored("followupPromptEvent"), id="followup"),
        pytest.param("intentsEvent", {}, Ignored("intentsEvent"), id="intents"),
        pytest.param("codeEvent", {"content": "x"}, Ignored("codeEvent"), id="code"),
        pytest.param("dryRunSucceedEvent", b"?", Ignored("dryRunSucceedEvent"), id="dry-run"),
        pytest.param("toolResultEvent", {}, Ignored("toolResultEvent"), id="tool-result"),
        pytest.param(
            "interactionComponentsEvent",
            {"interactionComponentEntries": []},
            Ignored("interactionComponentsEvent"),
            id="components",
        ),
        pytest.param("futureThingEvent", {"a": 1}, Ignored("futureThingEvent"), id="unknown"),
        pytest.param(
            "futureThingEvent", b"\x00", Ignored("futureThingEvent"), id="unknown-and-no-json"
        ),
    ],
)
def test_each_event_is_read_as_the_service_describes_it(
    event_type: str, payload: object, event: Event
) -> None:
    """The service's published event model, and what other clients of it take."""
    assert read(event_type, payload) == event


@pytest.mark.parametrize(
    ("event_type", "payload", "problem"),
    [
        pytest.param("assistantResponseEvent", b"[1,2]", "is not a JSON object", id="list"),
        pytest.param("assistantResponseEvent", b"nul", "is not JSON", id="cut"),
        pytest.param("assistantResponseEvent", b'{"content":"\xff"}', "is not JSON", id="bytes"),
        pytest.param("assistantResponseEvent", DEEP, "is not JSON", id="deep"),
        pytest.param(
            "assistantResponseEvent",
            {"content": 5},
            "has something other than text for 'content'",
            id="number-for-text",
        ),
        pytest.param("toolUseEvent", {"name": "n"}, "has no id of a tool use", id="without-id"),
        pytest.param(
            "toolUseEvent",
            {"toolUseId": 5},
            "has something other than text for 'toolUseId'",
            id="number-for-id",
        ),
    ],
)
def test_an_unreadable_event_says_why(event_type: str, payload: object, problem: str) -> None:
    """It does not end the answer, so a warning names it."""
    assert read(event_type, payload) == Malformed(event_type, problem)


def test_deeply_nested_arguments_do_not_raise() -> None:
    """Reading a frame never raises, whatever the recursion limit lets through."""
    for depth in range(50, 1100, 7):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        event = read("toolUseEvent", b'{"toolUseId":"t","input":' + nested + b"}")
        assert isinstance(event, ToolUseFragment | Malformed)


EXCEPTION = {":message-type": "exception", ":content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "payload", "fault"),
    [
        pytest.param(
            {**EXCEPTION, ":exception-type": "error"},
            b'{"message":"busy","reason":"MODEL_TEMPORARILY_UNAVAILABLE"}',
            Fault(name="error", reason="MODEL_TEMPORARILY_UNAVAILABLE", message="busy"),
            id="modelled-exception",
        ),
        pytest.param(
            {**EXCEPTION, ":exception-type": "com.amazon.x#ThrottlingException:http://y"},
            b'{"Message":"slow"}',
            Fault(name="ThrottlingException", message="slow"),
            id="namespace-and-address-are-taken-off",
        ),
        pytest.param(
            {":exception-type": "ThrottlingException"},
            b"",
            Fault(name="ThrottlingException"),
            id="exception-without-message-type",
        ),
        pytest.param(
            {**EXCEPTION, ":exception-type": "X"},
            b"plain \xff words",
            Fault(name="X", message="plain � words"),
            id="exception-that-is-no-json",
        ),
        pytest.param(
            {**EXCEPTION, ":exception-type": "X"},
            json_bytes({"message": "m" * 1000}),
            Fault(name="X", message="m" * (MAX_MESSAGE_CHARACTERS - 1) + "…"),
            id="long-message",
        ),
        pytest.param(
            EXCEPTION,
            b'{"__type":"x#ValidationException","message":"m"}',
            Fault(name="ValidationException", message="m"),
            id="name-in-the-payload",
        ),
        pytest.param(
            {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "oops"},
            b"",
            Fault(name="InternalFailure", message="oops"),
            id="error",
        ),
        pytest.param(
            {":message-type": "error", ":error-code": "X"},
            b'{"message":"m","reason":"R"}',
            Fault(name="X", reason="R", message="m"),
            id="error-with-payload",
        ),
    ],
)
def test_an_error_in_a_stream_is_a_fault_with_its_details(
    headers: dict[str, str], payload: bytes, fault: Fault
) -> None:
    """The format's specification for the three kinds of message."""
    assert read_event(Frame(headers, payload)) == fault


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        pytest.param(
            {"_type": "com.amazon.x#ValidationException", "message": "m"},
            Fault(name="ValidationException", message="m"),
            id="one-underscore",
        ),
        pytest.param({"__type": "X"}, Fault(name="X"), id="two-underscores"),
        pytest.param({"type": "error", "message": "m"}, Fault(message="m"), id="type-error"),
        pytest.param(
            {"type": "exception", "error": {"message": "m", "code": "C"}},
            Fault(name="C", message="m"),
            id="type-exception-with-error-inside",
        ),
    ],
)
def test_error_document_in_an_event_is_a_fault(payload: object, fault: Fault) -> None:
    """Not observed: other clients of the service defend against it."""
    assert read("assistantResponseEvent", payload) == fault
    assert read_event(Frame({}, json_bytes(payload))) == fault


def test_event_without_message_type_is_an_event() -> None:
    """The default that other clients of the service take."""
    frame = Frame({":event-type": "assistantResponseEvent"}, b'{"content":"a"}')
    assert read_event(frame) == Text("a")


def test_wrapped_event_needs_no_event_type() -> None:
    """Not observed: the payload names its event itself."""
    assert read_event(Frame({}, b'{"assistantResponseEvent":{"content":"a"}}')) == Text("a")


@pytest.mark.parametrize(
    ("headers", "payload", "event"),
    [
        pytest.param(
            {}, b'{"content":"a"}', Malformed("", "does not say what it is"), id="nameless"
        ),
        pytest.param({}, b"?", Malformed("", "is not JSON"), id="nameless-and-no-json"),
        pytest.param(
            {":message-type": "new", ":event-type": "E"},
            b"{}",
            Malformed("E", "is a message of the kind 'new'"),
            id="unknown-message-type",
        ),
        pytest.param(
            {":event-type": Number(BYTE, 1)},
            b"{}",
            Ignored("Number(kind=2, value=1)"),
            id="type-no-text",
        ),
    ],
)
def test_an_unknown_message_is_reported(headers: Any, payload: bytes, event: Event) -> None:
    """It may have been an error."""
    assert read_event(Frame(headers, payload)) == event


def test_captured_frames_are_text_and_the_beginning_of_a_tool_use() -> None:
    """Observed: tests/vectors/kiro-capture.json."""
    data = b"".join(map(bytes.fromhex, json.loads(CAPTURE.read_text("utf-8"))["frames_hex"]))
    events = [read_event(frame) for frame in FrameDecoder().feed(data)]
    assert events[2:] == [
        Text("{"),
        Text("我"),
        ToolUseFragment("tooluse_1DCqyICMR-CfTS36UNNiwA", "Write", ""),
    ]


KEYS = st.sampled_from(
    [
        "content",
        "toolUseId",
        "name",
        "input",
        "stop",
        "text",
        "signature",
        "usage",
        "unit",
        "type",
        "message",
        "error",
        "references",
        "supplementaryWebLinks",
        "tokenUsage",
        "stopDetails",
        "refusal",
        "toolUses",
        "_type",
        "stopReason",
        "contextUsagePercentage",
        "outputTokens",
    ]
)
TYPES = st.sampled_from(
    [
        "assistantResponseEvent",
        "toolUseEvent",
        "reasoningContentEvent",
        "metadataEvent",
        "error",
        "usageEvent",
        "meteringEvent",
        "contextUsageEvent",
        "codeReferenceEvent",
        "supplementaryWebLinksEvent",
        "other",
        "citationEvent",
        "messageStopEvent",
        "initial-response",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
PAYLOADS = st.dictionaries(KEYS, VALUES, max_size=4).map(json_bytes) | st.binary(max_size=30)


@settings(derandomize=True, max_examples=150)
@given(TYPES | st.just(""), PAYLOADS)
def test_reading_any_payload_gives_an_event(event_type: str, payload: bytes) -> None:
    """Reading a frame never raises."""
    assert read(event_type, payload) is not None
