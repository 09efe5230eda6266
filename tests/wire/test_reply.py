import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.chat import (
    CodeReference,
    Fault,
    Refusal,
    Reply,
    TextPart,
    ThinkingPart,
    ToolUse,
    Usage,
    WebLink,
)
from kiro_mcp.errors import AnswerBroken, CallCancelled, FrameError, ServiceUnavailable
from kiro_mcp.wire import events as limits
from kiro_mcp.wire.events import MAX_BODY_BYTES
from kiro_mcp.wire.reply import ReplyBuilder, ReplyOptions
from tests.support.frames import (
    CONTEXT,
    END,
    METERING,
    chunks,
    cut,
    event,
    exception,
    frame,
    metadata,
    raw_frame,
    reasoning,
    text,
    tool,
)
from tests.support.replies import outline, read, read_all, said

CAPTURE = Path(__file__).parent.parent / "vectors" / "kiro-capture.json"
NO_SIGN = "The stream ended without a sign that the answer was complete."
TOOL = tool("t1", stop=True)
BUSY = exception("error", message="busy", reason="MODEL_TEMPORARILY_UNAVAILABLE")
BUSY_FAULT = Fault(name="error", message="busy", reason="MODEL_TEMPORARILY_UNAVAILABLE")


# --- text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        pytest.param(["a", "a", "\n", "\n"], "aa\n\n", id="equal-deltas"),
        pytest.param(["pass", "sword"], "passsword", id="doubled-letter-at-a-seam"),
        pytest.param(["a", "", "b"], "ab", id="empty-delta"),
        pytest.param([" ", "\t"], " \t", id="white-space"),
    ],
)
def test_text_is_appended_as_it_comes(pieces: list[str], answer: str) -> None:
    """Observed: every delta is a new piece, even if it equals the one before."""
    deltas, reply = read_all(b"".join(map(text, pieces)) + END)
    assert reply.parts == (TextPart(text=answer),)
    assert said(deltas)[0] == answer


def test_half_characters_are_joined_across_deltas_and_lone_ones_replaced() -> None:
    """Observed: escapes may be split between events; every delta must encode to UTF-8."""
    halves = [rb'"a\ud83d"', rb'"\ude00b"', rb'"\ude00c\ud83d"', rb'"d"', rb'"e\ud83d"']
    data = b"".join(
        event("assistantResponseEvent", b'{"content":' + half + b"}") for half in halves
    )
    deltas, reply = read_all(data + END)
    assert reply.text == "a😀b\ufffdc\ufffdde\ufffd"
    assert said(deltas)[0] == reply.text
    assert said(deltas)[0].encode()


def test_one_event_may_hold_text_tool_uses_and_a_stop_reason() -> None:
    """Not observed: other clients of the service look for all three there."""
    tool_uses = [{"toolUseId": "t1", "name": "lire", "input": {"a": 1}}]
    reply = read(text("a", toolUses=tool_uses, stopReason="MAX_TOKENS"))
    assert outline(reply) == ["a", "lire{'a': 1}"]
    assert reply.stop_reason == "max_tokens"


def test_half_character_before_a_tool_use_is_not_moved_behind_it() -> None:
    """Nothing said before a tool use appears after it."""
    half = event("assistantResponseEvent", rb'{"content":"a\ud83d"}')
    assert outline(read(half + TOOL + text("b") + END)) == ["a\ufffd", "lire{}", "b"]


def test_captured_frames_are_text_and_a_tool_use_that_was_cut_off() -> None:
    """Observed: tests/vectors/kiro-capture.json."""
    frames = json.loads(CAPTURE.read_text("utf-8"))["frames_hex"]
    data = b"".join(map(bytes.fromhex, frames))
    reply = read(data)
    assert reply.text.endswith("Dynamic Effects{我")
    assert [tool_use.state for tool_use in reply.tool_uses] == ["truncated"]
    for position in range(0, len(data), 5):
        assert read(cut(data, [position])) == reply
    assert read(chunks(data, 1)) == reply


# --- how it ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "stop_reason", "why"),
    [
        pytest.param(
            [text("a"), metadata(stopReason="END_TURN"), END],
            "end_turn",
            "",
            id="said-and-figures",
        ),
        pytest.param([text("a"), metadata(stopReason="END_TURN")], "end_turn", "", id="said"),
        pytest.param([text("a"), END], "end_turn", "", id="figures"),
        pytest.param([text("a"), CONTEXT], "end_turn", "", id="context-usage"),
        pytest.param([text("a"), METERING], "end_turn", "", id="metering"),
        pytest.param([text("a"), event("messageStopEvent", {})], "end_turn", "", id="stop-event"),
        pytest.param([text("a")], "truncated", NO_SIGN, id="no-sign"),
        pytest.param([text("a"), metadata()], "truncated", NO_SIGN, id="empty-metadata"),
        pytest.param([TOOL], "tool_use", NO_SIGN, id="tool-use-without-sign"),
        pytest.param([END], "end_turn", "", id="only-figures"),
        pytest.param([], "truncated", NO_SIGN, id="nothing"),
        pytest.param([TOOL, metadata(stopReason="END_TURN")], "tool_use", "", id="tool-use"),
        pytest.param([TOOL, END], "tool_use", "", id="tool-use-not-said"),
        pytest.param(
            [tool("t1", input="[]", stop=True), END], "end_turn", "", id="invalid-is-none"
        ),
        pytest.param(
            [tool("t1", input="[]", stop=True), metadata(stopReason="TOOL_USE")],
            "tool_use",
            "",
            id="invalid-but-said",
        ),
        pytest.param(
            [text("a"), metadata(stopReason="MAX_TOKENS")],
            "max_tokens",
            "The answer reached the limit of its length.",
            id="max-tokens",
        ),
        pytest.param(
            [TOOL, metadata(stopReason="maxTokens"), END],
            "max_tokens",
            "The answer reached the limit of its length.",
            id="max-tokens-in-camel-case-after-a-tool-use",
        ),
        pytest.param(
            [text("a"), metadata(stopReason="MODEL_CONTEXT_WINDOW_EXCEEDED")],
            "context_window_exceeded",
            "The conversation filled the model's context window.",
            id="context-window",
        ),
        pytest.param(
            [text("a"), event("contextUsageEvent", {"contextUsagePercentage": 100})],
            "context_window_exceeded",
            "The conversation filled the model's context window.",
            id="a-hundred-percent",
        ),
        pytest.param(
            [
                text("a"),
                metadata(stopReason="END_TURN"),
                event("contextUsageEvent", {"contextUsagePercentage": 100}),
            ],
            "end_turn",
            "",
            id="what-is-said-comes-first",
        ),
        pytest.param(
            [text("a"), metadata(stopReason="stop-sequence")],
            "stop_sequence",
            "",
            id="sequence",
        ),
        pytest.param(
            [text("a"), metadata(stopReason="content filtered")], "refusal", "", id="filtered"
        ),
        pytest.param(
            [text("a"), metadata(stopReason="MALFORMED_TOOL_USE")],
            "truncated",
            "The service stopped the answer: MALFORMED_TOOL_USE.",
            id="malformed",
        ),
        pytest.param(
            [text("a"), metadata(stopReason="CANCELLED")],
            "truncated",
            "The service stopped the answer: CANCELLED.",
            id="cancelled",
        ),
        pytest.param([text("a"), metadata(stopReason="NEW_WORD")], "end_turn", "", id="unknown"),
        pytest.param([TOOL, metadata(stopReason="NEW_WORD")], "tool_use", "", id="unknown-tool"),
        pytest.param(
            [text("a"), metadata(stopReason="TOOL_USE"), tool("t1", input="{"), END],
            "truncated",
            "The arguments of the tool use 'lire' were cut off.",
            id="tool-use-cut-off",
        ),
        *(
            pytest.param(
                [TOOL, tool("t2", input='{"path":"a"}'), *signs],
                "truncated",
                "The arguments of the tool use 'lire' were cut off.",
                id=f"announced-and-cut-{name}",
            )
            for name, signs in {
                "said": [metadata(stopReason="TOOL_USE")],
                "context-usage": [CONTEXT],
                "both": [metadata(stopReason="TOOL_USE"), CONTEXT],
            }.items()
        ),
        pytest.param(
            [tool("t1", input='{"path":"a"}'), metadata(stopReason="END_TURN"), END],
            "tool_use",
            "",
            id="announced-in-a-whole-answer",
        ),
        pytest.param(
            [text("a"), BUSY],
            "truncated",
            "The service ended its answer with error: busy",
            id="exception",
        ),
        pytest.param(
            [text("a"), metadata(stopReason="END_TURN"), exception("", reason="R")],
            "truncated",
            "The service ended its answer with an error: R",
            id="exception-after-the-stop-reason",
        ),
        pytest.param(
            [text("a"), exception("ContentLengthExceededException", message="m")],
            "max_tokens",
            "The service ended its answer with ContentLengthExceededException: m",
            id="too-long",
        ),
        pytest.param(
            [text("a"), event("invalidStateEvent", {"reason": "R", "message": "m"})],
            "truncated",
            "The service ended its answer with invalidStateEvent: m",
            id="invalid-state",
        ),
    ],
)
def test_the_most_reliable_sign_decides_stop_reason_and_truncation(
    data: list[bytes], stop_reason: str, why: str
) -> None:
    """Observed: some accounts never get a stop reason; the figures come to all."""
    reply = read(b"".join(data))
    assert (reply.stop_reason, reply.truncation_reason) == (stop_reason, why)
    assert reply.truncated is bool(why)


def test_the_last_stop_reason_counts() -> None:
    """Not observed: another client of the service does the same."""
    said = [metadata(stopReason="TOOL_USE"), text("a", stopReason="END_TURN")]
    assert read(b"".join([text("a"), *said])).stop_reason == "end_turn"
    later = event("messageStopEvent", {"stop_reason": "MAX_TOKENS"})
    assert read(b"".join([text("a"), *said, later])).stop_reason == "max_tokens"
    silent = event("messageStopEvent", {})
    assert read(b"".join([text("a"), *said, later, silent])).raw_stop_reason == "MAX_TOKENS"


def test_the_services_own_stop_reason_is_kept() -> None:
    """An unknown one may mean something to a person."""
    assert read(text("a") + metadata(stopReason="newWord")).raw_stop_reason == "newWord"
    assert read(text("a") + END).raw_stop_reason == ""


def test_a_refusal_has_the_services_details() -> None:
    """The service's published event model: `stopDetails.refusal`."""
    details = {"refusal": {"category": "cyber", "explanation": "Not this."}}
    reply = read(text("a") + metadata(stopDetails=details))
    assert reply.stop_reason == "refusal"
    assert reply.refusal == Refusal(category="cyber", explanation="Not this.")


@pytest.mark.parametrize(
    "data", [pytest.param(END, id="only-figures"), pytest.param(b"", id="no-frames")]
)
def test_an_answer_without_content_is_empty(data: bytes) -> None:
    """Observed: the call can then be repeated."""
    builder = ReplyBuilder()
    assert builder.feed(data) == []
    assert builder.close().is_empty
    assert not builder.has_begun


def test_an_answer_with_only_thinking_is_complete_with_a_warning() -> None:
    """Complete by the rule of the service's own clients."""
    reply = read(reasoning("x", signature="s") + END)
    assert (reply.stop_reason, reply.truncated, reply.is_empty) == ("end_turn", False, False)
    assert reply.warnings == ("The answer is thinking only, without any text.",)


# --- what ends it early -------------------------------------------------------------------


def test_error_in_the_stream_keeps_what_came_before_and_nothing_after() -> None:
    """The error ends the answer."""
    deltas, reply = read_all(text("a") + TOOL + BUSY + text("b") + END)
    assert outline(reply) == ["a", "lire{}"]
    assert (reply.fault, reply.truncated) == (BUSY_FAULT, True)
    assert said(deltas)[0] == "a"


def test_fault_is_known_before_the_end_and_stops_reading() -> None:
    """A caller stops reading when it is set."""
    builder = ReplyBuilder()
    builder.feed(text("a") + BUSY)
    assert builder.fault == BUSY_FAULT
    assert builder.feed(text("b")) == []
    assert builder.close(CallCancelled("x")).fault == BUSY_FAULT


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        pytest.param(b"\xff" * 20, "checksum of a prelude", id="noise"),
        pytest.param(text("b")[:-1] + b"\xff", "checksum of a frame", id="bad-checksum"),
        pytest.param(text("b")[:50], "with 50 bytes left over", id="cut-off"),
        pytest.param(text("b")[:5], "with 5 bytes left over", id="cut-off-in-a-prelude"),
    ],
)
def test_bytes_that_are_not_a_frame_truncate_the_answer(tail: bytes, words: str) -> None:
    """Frames before a fault are delivered."""
    deltas, reply = read_all(text("a") + END + tail)
    assert (reply.text, said(deltas)[0]) == ("a", "a")
    assert isinstance(reply.fault, FrameError)
    assert words in reply.truncation_reason
    assert (reply.stop_reason, reply.truncated) == ("truncated", True)
    assert reply.usage.credits == 0.02


def test_a_body_of_a_few_bytes_is_truncated() -> None:
    """Too short to tell what it is, and too short for a frame."""
    fault = read(b"dat").fault
    assert isinstance(fault, FrameError)
    assert "with 3 bytes left over" in str(fault)


def test_a_fault_from_outside_is_the_replys_fault() -> None:
    """The bytes left over are its consequence."""
    builder = ReplyBuilder()
    builder.feed(text("a") + tool("t1", input="{}") + text("b")[:20])
    silence = ServiceUnavailable("The service fell silent.", code="timeout")
    reply = builder.close(silence)
    assert reply.fault is silence
    assert reply.truncation_reason == "The service fell silent."
    assert [tool_use.state for tool_use in reply.tool_uses] == ["truncated"]


def test_closing_twice_gives_the_same_reply() -> None:
    """Clean-up code may close again."""
    builder = ReplyBuilder()
    builder.feed(text("a") + END)
    reply = builder.close()
    assert builder.close(CallCancelled("x")) is reply
    assert builder.feed(text("b")) == []


def test_unreadable_events_give_warnings_and_do_not_end_the_answer() -> None:
    """The next frame is still good."""
    bad = [event("assistantResponseEvent", payload) for payload in (b"[1,2]", b"nul")]
    reply = read(b"".join([text("a"), *bad, text("b"), END]))
    assert (reply.text, reply.truncated) == ("ab", False)
    assert reply.warnings == (
        "An event 'assistantResponseEvent' was left out: it is not a JSON object.",
        "An event 'assistantResponseEvent' was left out: it is not JSON.",
    )


def test_hostile_headers_in_the_middle_are_one_fault() -> None:
    """Right checksums do not make a header readable."""
    reply = read(text("a") + raw_frame(b"\x01a\x0a") + text("b"))
    assert reply.text == "a"
    assert isinstance(reply.fault, FrameError)
    assert reply.fault.frame_count == 1


# --- bodies that are no event stream ------------------------------------------------------

REFUSAL = b'{"message":"Improperly formed request.","reason":"REQUEST_BODY_INVALID"}'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param(
            REFUSAL,
            Fault(reason="REQUEST_BODY_INVALID", message="Improperly formed request."),
            id="json",
        ),
        pytest.param(
            b"\xef\xbb\xbf \r\n" + REFUSAL,
            Fault(reason="REQUEST_BODY_INVALID", message="Improperly formed request."),
            id="json-after-a-mark-and-white-space",
        ),
        pytest.param(
            b'{"__type":"com.amazon.x#ThrottlingException","message":"a } {"}',
            Fault(name="ThrottlingException", message="a } {"),
            id="type",
        ),
        pytest.param(
            b'{"Output":{"__type":"x#UnknownOperationException"},"Version":"1.0"}',
            Fault(name="UnknownOperationException"),
            id="one-level-down",
        ),
        pytest.param(
            b'{"a":1}', Fault(message="The answer is JSON, not an event stream."), id="silent"
        ),
        pytest.param(
            b'{"message":"a',
            Fault(message="The answer is JSON, not an event stream."),
            id="cut",
        ),
        pytest.param(b'{"message":"a {"}', Fault(message="a {"), id="braces-that-do-not-add-up"),
        pytest.param(b"[1]", Fault(message="The answer is JSON, not an event stream."), id="list"),
        pytest.param(
            b"<html><head><title> Sign in\n</title></head>",
            Fault(message="The answer is a page, not an event stream: Sign in"),
            id="html",
        ),
        pytest.param(
            b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>",
            Fault(message="The answer is a page, not an event stream: No."),
            id="xml",
        ),
        pytest.param(
            b"<!doctype html>",
            Fault(message="The answer is a page, not an event stream."),
            id="html-without-title",
        ),
        pytest.param(
            b'data: {"type":"x"}\n\n',
            Fault(message="The answer is a text stream, not an event stream of AWS."),
            id="server-sent-events",
        ),
        pytest.param(
            b"event: ping\ndata: {}\n\n",
            Fault(message="The answer is a text stream, not an event stream of AWS."),
            id="server-sent-events-with-names",
        ),
    ],
)
def test_a_body_that_is_not_an_event_stream_is_a_service_error(body: bytes, fault: Fault) -> None:
    """A decoder of frames would wait for the two gigabytes that the letters spell."""
    reply = read(body)
    assert (reply.fault, reply.is_empty, reply.stop_reason) == (fault, True, "truncated")
    one_by_one = read(chunks(body, 1)).fault
    assert isinstance(one_by_one, Fault)
    if not body.startswith(b"<"):
        assert one_by_one == fault


@pytest.mark.parametrize("body", [REFUSAL, b"<html>", b"data: x\n", b"event: x\n"])
def test_foreign_body_is_known_by_its_first_bytes(body: bytes) -> None:
    """The rest need not arrive, and the fault is known before the body ends."""
    assert isinstance(read(body[:6]).fault, Fault)
    builder = ReplyBuilder()
    builder.feed(body[:6])
    builder.feed(body[6:])
    assert isinstance(builder.fault, Fault)


def test_an_error_document_is_read_as_soon_as_it_is_whole() -> None:
    """At once, but not before it can be read."""
    builder = ReplyBuilder()
    builder.feed(REFUSAL[:30])
    assert builder.fault is None
    builder.feed(REFUSAL[30:])
    assert builder.fault == read(REFUSAL).fault


def test_only_the_beginning_of_a_foreign_body_is_read() -> None:
    """Every buffer has a limit."""
    builder = ReplyBuilder()
    builder.feed(b'{"a":"')
    for _ in range(MAX_BODY_BYTES // 1024):
        builder.feed(b"x" * 1024)
    assert builder.fault == Fault(message="The answer is JSON, not an event stream.")


def test_a_foreign_body_is_the_fault_whatever_ended_it() -> None:
    """The document says more than a broken connection."""
    builder = ReplyBuilder()
    builder.feed(b'{"message":"a","b":{')
    assert builder.close(CallCancelled("x")).fault == Fault(
        message="The answer is JSON, not an event stream."
    )


@pytest.mark.parametrize("first", [b"\x00", b"\x01", b"\x20", b"\n" * 12, b"x", b"\xef"])
def test_other_first_bytes_are_left_to_the_decoder(first: bytes) -> None:
    """A flipped bit in a length is a fault of the bytes, not a text."""
    builder = ReplyBuilder()
    builder.feed(first + b"\x80" * 20)
    assert isinstance(builder.fault, FrameError)


# --- what it cost -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "usage"),
    [
        pytest.param(
            [text("abcdefgh"), END],
            {"prompt_characters": 401},
            Usage(input_tokens=101, output_tokens=2, context_percent=2.5, credits=0.02),
            id="estimate-by-size",
        ),
        pytest.param(
            [text("abcdefgh"), END],
            {"prompt_characters": 401, "context_window_tokens": 1000},
            Usage(input_tokens=23, output_tokens=2, context_percent=2.5, credits=0.02),
            id="estimate-by-percentage",
        ),
        pytest.param(
            [text("abcdefgh"), CONTEXT, metadata(), metadata(tokenUsage={"outputTokens": 0})],
            {"context_window_tokens": 1000},
            Usage(input_tokens=23, output_tokens=2, context_percent=2.5),
            id="empty-counts-set-nothing-to-zero",
        ),
        pytest.param(
            [text("x" * 4000), CONTEXT],
            {"prompt_characters": 8, "context_window_tokens": 1000},
            Usage(input_tokens=2, output_tokens=1000, context_percent=2.5),
            id="percentage-too-small-to-be-true",
        ),
        pytest.param(
            [
                text("a"),
                metadata(
                    tokenUsage={
                        "uncachedInputTokens": 40,
                        "cacheReadInputTokens": 10,
                        "cacheWriteInputTokens": 5,
                        "outputTokens": 7,
                        "totalTokens": 62,
                    }
                ),
                event("contextUsageEvent", {"contextUsagePercentage": 80}),
            ],
            {"context_window_tokens": 1000},
            Usage(
                input_tokens=55,
                output_tokens=7,
                cache_read_tokens=10,
                cache_write_tokens=5,
                is_estimated=False,
                context_percent=80,
            ),
            id="exact-counts",
        ),
        pytest.param(
            [text("a"), event("usageEvent", {"usage": {"inputTokens": 3, "outputTokens": 4}})],
            {},
            Usage(input_tokens=3, output_tokens=4, is_estimated=False),
            id="other-exact-counts",
        ),
        pytest.param(
            [text("a"), event("usageEvent", {"usage": {"outputTokens": 4}})],
            {"prompt_characters": 4},
            Usage(input_tokens=1, output_tokens=4),
            id="half-of-the-counts",
        ),
        pytest.param(
            [text("a"), event("usageEvent", {"usage": {"inputTokens": 3}})],
            {},
            Usage(input_tokens=3, output_tokens=1),
            id="the-other-half-of-the-counts",
        ),
        pytest.param(
            [event("usageEvent", {"usage": {"inputTokens": 3}})],
            {},
            Usage(input_tokens=3, is_estimated=False),
            id="an-answer-of-nothing",
        ),
        pytest.param(
            [text("a"), event("meteringEvent", {"unit": "credit", "usage": 0.0148})],
            {},
            Usage(output_tokens=1, credits=0.0148),
            id="credits-are-not-tokens",
        ),
        pytest.param(
            [METERING, METERING, event("meteringEvent", {})],
            {},
            Usage(credits=0.04),
            id="credits-add-up",
        ),
        pytest.param(
            [event("contextUsageEvent", {"contextUsagePercentage": "x"})],
            {},
            Usage(),
            id="figure-that-is-none",
        ),
        pytest.param(
            [
                text("漢字"),
                reasoning("abcd"),
                tool("t1", input='{"a":1}', stop=True),
                tool("t2", input='{"a":', stop=True),
            ],
            {},
            Usage(output_tokens=6),
            id="thinking-and-tool-uses-count",
        ),
    ],
)
def test_usage_is_the_services_figures_or_a_marked_estimate(
    data: list[bytes], options: dict[str, Any], usage: Usage
) -> None:
    """Observed: credits and a percentage in all answers, exact counts in none so far."""
    assert read(b"".join(data), **options).usage == usage


# --- what stands beside it ----------------------------------------------------------------


def test_references_and_links_are_kept_and_the_text_too() -> None:
    """Attributions belong to the answer."""
    reference = {"licenseName": "MIT", "repository": "r", "url": "u"}
    reply = read(
        text("x")
        + event("codeReferenceEvent", {"references": [reference]})
        + event(
            "supplementaryWebLinksEvent", {"supplementaryWebLinks": [{"url": "l", "title": "t"}]}
        )
        + event("citationEvent", {"citationLink": "c", "citationText": "s"})
        + END
    )
    assert reply.text == "x"
    assert reply.references == (CodeReference(license_name="MIT", repository="r", url="u"),)
    assert reply.links == (WebLink(url="l", title="t"), WebLink(url="c", snippet="s"))


def test_events_without_content_are_counted_by_type() -> None:
    """They add no text."""
    types = ["followupPromptEvent", "intentsEvent", "dryRunSucceedEvent", "futureThingEvent"]
    reply = read(b"".join([event(each, {"content": "x"}) for each in (*types, types[0])]) + END)
    assert reply.is_empty
    assert reply.ignored_events == dict.fromkeys(types, 1) | {types[0]: 2}


def test_the_reply_names_the_model() -> None:
    """Observed: newer answers name the model in each piece of text."""
    reply = read(text("a", modelId="claude-opus-4.8") + text("b") + END)
    assert reply.model_id == "claude-opus-4.8"


def test_the_services_conversation_id_is_ignored() -> None:
    """Observed in answers to the RPC form of a call, and it is the id that was sent."""
    first = event("initial-response", {"conversationId": ""})
    reply = read(first + event("messageMetadataEvent", {"conversationId": "c"}) + text("k") + END)
    assert (reply.text, reply.ignored_events, reply.warnings) == ("k", {}, ())


def test_warnings_and_references_are_limited() -> None:
    """Every buffer has a limit."""
    links = [{"url": str(number)} for number in range(limits.MAX_LISTED + 1)]
    references = [{"url": "u"}] * (limits.MAX_LISTED + 1)
    data = [
        *(event(f"type{number}" + "x" * 100, {}) for number in range(limits.MAX_IGNORED_TYPES + 5)),
        *(event("assistantResponseEvent", b"?") for _ in range(limits.MAX_WARNINGS + 2)),
        *(event("supplementaryWebLinksEvent", {"supplementaryWebLinks": links}) for _ in range(2)),
        *(event("codeReferenceEvent", {"references": references}) for _ in range(2)),
    ]
    reply = read(b"".join([*data, text("a"), END]))
    assert (reply.text, len(reply.links)) == ("a", limits.MAX_LISTED)
    assert len(reply.references) == limits.MAX_LISTED
    assert len(reply.ignored_events) == limits.MAX_IGNORED_TYPES + 1
    assert reply.ignored_events["others"] == 5
    assert {len(name) for name in reply.ignored_events} <= {6, limits.MAX_TYPE_CHARACTERS}
    assert reply.warnings[-1] == "Further warnings: 2."
    assert len(reply.warnings) == limits.MAX_WARNINGS + 1


# --- what its reader is told on the way ---------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "has_begun"),
    [
        pytest.param(event("initial-response", {}), {}, False, id="nothing-said"),
        pytest.param(text(""), {}, False, id="empty-text"),
        pytest.param(text("a"), {}, True, id="text"),
        pytest.param(text("<thi"), {}, True, id="text-that-is-held-back"),
        pytest.param(reasoning("a"), {"thinking": "remove"}, True, id="removed-thinking"),
        pytest.param(reasoning("a"), {}, True, id="thinking"),
        pytest.param(tool("t1"), {}, True, id="tool-use-begins"),
        pytest.param(TOOL, {}, True, id="tool-use-ends"),
    ],
)
def test_the_builder_knows_whether_the_model_has_begun(
    data: bytes, options: dict[str, Any], has_begun: bool
) -> None:
    """Another timeout applies from then on."""
    builder = ReplyBuilder(ReplyOptions(**options))
    builder.feed(data)
    assert builder.has_begun == has_begun


# --- limits -------------------------------------------------------------------------------


FIRST = text("first ")
MEBIBYTE = 1 << 20
ALL_BUT_ONE = (limits.MAX_TEXT_CHARACTERS >> 20) - 1
LEFT = "x" * (MEBIBYTE - len("first "))
LARGE = event("codeEvent", bytes(1 << 24))
LARGES = (limits.MAX_ANSWER_BYTES - len(FIRST)) // len(LARGE)
LARGES_LEFT = (limits.MAX_ANSWER_BYTES - len(FIRST)) % len(LARGE)


@pytest.mark.parametrize(
    ("up_to_the_limit", "over", "words"),
    [
        pytest.param(
            [*[text("x" * MEBIBYTE)] * ALL_BUT_ONE, text(LEFT)],
            text("x"),
            "characters of text",
            id="text",
        ),
        pytest.param(
            [*[reasoning("x" * MEBIBYTE)] * ALL_BUT_ONE, reasoning(LEFT)],
            reasoning("x"),
            "characters of text",
            id="thinking",
        ),
        pytest.param([*[LARGE] * LARGES, LARGE[:LARGES_LEFT]], b"x", "bytes", id="bytes"),
        pytest.param(
            [reasoning("x", signature="s")] * limits.MAX_PARTS,
            reasoning("x", signature="s"),
            "parts",
            id="blocks-of-thinking",
        ),
    ],
)
def test_answer_over_a_limit_ends_there_with_what_came_before(
    up_to_the_limit: list[bytes], over: bytes, words: str
) -> None:
    """Every buffer has a limit; what came before is kept, but not by the error's traceback."""
    builder = ReplyBuilder()
    for piece in (FIRST, *up_to_the_limit):
        builder.feed(piece)
    assert builder.fault is None
    builder.feed(over)
    assert isinstance(builder.fault, AnswerBroken)
    assert builder.fault.__traceback__ is None
    reply = builder.close()
    assert reply.text.startswith("first ")
    assert reply.truncation_reason.endswith(f" {words}.")


# --- whatever the stream ------------------------------------------------------------------

FRAMES = st.sampled_from(
    [
        text("a"),
        text("<thinking>\nb"),
        text("</thinking>\n\n"),
        text("[Called lire with args: {}]"),
        event("assistantResponseEvent", rb'{"content":"\ud83d"}'),
        event("assistantResponseEvent", rb'{"content":"\ude00"}'),
        reasoning("b"),
        reasoning(signature="s"),
        reasoning(redactedContent="cg=="),
        tool("t1", input='{"a":'),
        tool("t1", input="1}"),
        tool("t1", stop=True),
        tool("t2", "autre", input={"a": 1}),
        metadata(stopReason="END_TURN"),
        END,
        BUSY,
        event("futureThingEvent", {}),
        event("assistantResponseEvent", b"nul"),
        event("reasoningContentEvent", rb'{"signature":"\ud83d","text":"\ud83d"}'),
        frame({}, b""),
    ]
)
OPTIONS = st.fixed_dictionaries(
    {
        "thinking": st.sampled_from(["separate", "remove", "inline", "strip_tags"]),
        "reads_text_calls": st.booleans(),
    }
)


def comparable(reply: Reply) -> Reply:
    """A reply without the one thing that is never equal: a fault of its bytes."""
    if not isinstance(reply.fault, FrameError):
        return reply
    return Reply(
        parts=reply.parts, stop_reason=reply.stop_reason, truncation_reason=str(reply.fault)
    )


@settings(derandomize=True, max_examples=400)
@given(st.lists(FRAMES, max_size=10), st.lists(st.integers(0, 9999), max_size=5), OPTIONS)
def test_any_stream_gives_one_reply_whatever_its_chunks(
    frames: list[bytes], positions: list[int], options: dict[str, Any]
) -> None:
    """Chunks make no difference, deltas say what the reply says, all is UTF-8."""
    data = b"".join(frames)
    deltas, reply = read_all(cut(data, positions), **options)
    assert comparable(reply) == comparable(read(data, **options))
    assert said(deltas)[0] == reply.text
    assert {tool_use.id for tool_use in said(deltas)[2]} <= {use.id for use in reply.tool_uses}
    assert repr((deltas, reply.parts)).encode()
    assert all(use.arguments == {} for use in reply.tool_uses if use.state != "complete")


@settings(derandomize=True, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 255)), max_size=3),
    st.binary(max_size=40),
)
def test_any_bytes_give_a_reply(mutations: list[tuple[int, int]], tail: bytes) -> None:
    """Closing never raises, and what came before a fault is there."""
    data = bytearray(text("a") + tool("t1", input="{}") + TOOL + END)
    for position, mask in mutations:
        data[position % len(data)] ^= mask
    reply = read(bytes(data) + tail)
    assert reply.truncated or reply.fault is None
    assert all(isinstance(part, TextPart | ThinkingPart | ToolUse) for part in reply.parts)
