"""A capture's bytes and replies as text: what people read, and what two runs are compared by."""

import pytest

from kiro_mcp.captures.replaying import (
    FRAMES_HEADING,
    REPLY_HEADING,
    frames_text,
    outcome_text,
)
from kiro_mcp.chat import (
    CodeReference,
    Fault,
    Reply,
    TextPart,
    ThinkingPart,
    ToolUse,
    Usage,
    WebLink,
)
from kiro_mcp.emulator import frames
from kiro_mcp.errors import AnswerBroken, InvalidRequest, KiroError
from tests.support.frames import event, frame

WHOLE = Reply(
    parts=(
        ThinkingPart(text="So.", signature="c2ln"),
        TextPart(text="Yes.\nNo."),
        ToolUse(id="tooluse_1", name="n", arguments={"a": "ä"}, schema_errors=("a is no number",)),
        ThinkingPart(text="", redacted="cmVk", is_unclosed=True),
        ToolUse(id="tooluse_2", name="m", arguments={}, state="truncated", raw='{"a'),
    ),
    stop_reason="tool_use",
    raw_stop_reason="TOOL_USE",
    usage=Usage(input_tokens=10, output_tokens=5, is_estimated=False, credits=0.5),
    model_id="auto",
    references=(CodeReference(repository="r", license_name="MIT"),),
    links=(WebLink(url="https://example.com", title="Title"),),
    warnings=("odd",),
    ignored_events={"codeEvent": 2},
)


def test_every_part_of_a_reply_is_written() -> None:
    """A part that is left out cannot be compared."""
    assert outcome_text(WHOLE).splitlines() == [
        REPLY_HEADING,
        "stop_reason: tool_use",
        "raw_stop_reason: TOOL_USE",
        "model: auto",
        "credits: 0.5",
        "tokens: 10, 5",
        "warning: odd",
        "link: https://example.com Title",
        "reference: r MIT",
        "ignored: 2 codeEvent",
        "",
        "--- thinking signed",
        "So.",
        "--- text",
        "Yes.",
        "No.",
        "--- tool use n tooluse_1 complete",
        "{",
        '  "a": "ä"',
        "}",
        "schema error: a is no number",
        "--- thinking unclosed",
        "cmVk",
        "--- tool use m tooluse_2 truncated",
        '{"a',
    ]


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (Fault(name="X", reason="R", message="m"), "fault: X R m"),
        (AnswerBroken("Broke.", next_step="Again."), "fault: stream_broken: Broke. Again."),
    ],
)
def test_the_fault_that_ended_an_answer_is_named(fault: Fault | KiroError, line: str) -> None:
    reply = Reply(parts=(), stop_reason="truncated", truncation_reason="It broke.", fault=fault)
    assert "truncated: It broke." in outcome_text(reply).splitlines()
    assert line in outcome_text(reply).splitlines()


def test_an_error_is_one_line() -> None:
    error = InvalidRequest("It is wrong.", next_step="Mend it.")
    assert (
        outcome_text(error) == f"{REPLY_HEADING}\nerror: invalid_request: It is wrong. Mend it.\n"
    )


def test_a_frame_is_one_line_with_its_offset() -> None:
    """So that a stream can be read and searched line by line."""
    first = event("assistantResponseEvent", {"content": "a\nb"})
    second = frames.exception("Busy.", "X", exception_type="ThrottlingException")
    third = frame({":message-type": "error", ":error-code": "E", ":error-message": "no"}, b"")
    fourth = frame({":message-type": "event", ":event-type": "x"}, b"1\n2")
    assert list(frames_text(first + second + third + fourth)) == [
        FRAMES_HEADING,
        '       0  assistantResponseEvent  {"content":"a\\nb"}',
        f'{len(first):>8}  exception ThrottlingException  {{"message":"Busy.","reason":"X"}}',
        f"{len(first + second):>8}  error E no  ",
        f"{len(first + second + third):>8}  x  1\\n2",
    ]


def test_a_frame_that_is_broken_is_shown_as_bytes_after_the_fault() -> None:
    """Only the bytes themselves can show the fault."""
    good, bad = event("x", {}), frames.with_bad_checksum(event("y", {}))
    lines = list(frames_text(good + bad))
    assert lines[2].startswith(f"{len(good):>8}  fault  ")
    assert lines[3] == f"{len(good):>8}  {len(bad)} bytes that are not a whole frame"
    assert bytes.fromhex(lines[4]) == bad[:32]


def test_a_frame_that_was_cut_is_shown_as_bytes() -> None:
    lines = list(frames_text(event("x", {})[:20]))
    assert lines[1] == "       0  20 bytes that are not a whole frame"


@pytest.mark.parametrize(
    ("data", "lines"),
    [(b'{"message":"no"}', ['{"message":"no"}']), (b"<html>\n</html>", ["<html>", "</html>"])],
)
def test_a_body_that_is_text_is_shown_as_it_is(data: bytes, lines: list[str]) -> None:
    """A refusal is not an event stream."""
    assert list(frames_text(data)) == [FRAMES_HEADING, *lines]


def test_an_empty_response_has_only_a_heading() -> None:
    assert list(frames_text(b"")) == [FRAMES_HEADING]
