"""Captures as they are written: limits, a disk that is slow or fails, and how calls end."""

import logging
import shutil
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from anyio import fail_after

from kiro_mcp.captures import folder
from kiro_mcp.captures.folder import MAX_EXCHANGES, MAX_FILE_BYTES, Manifest, read_capture
from kiro_mcp.captures.recording import MAX_OPEN_CAPTURES, CallCapture, Captures
from kiro_mcp.captures.redacting import redacted_json
from kiro_mcp.chat import ToolSpec
from kiro_mcp.emulator import frames
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.captures import capture_call, finish_with_answer
from kiro_mcp.server.jobs import Job
from kiro_mcp.wire.reply import ReplyOptions
from tests.support.deadline import with_deadline
from tests.support.replies import read
from tests.support.secrets import KEY

URL = "https://runtime.us-east-1.kiro.dev/generateAssistantResponse"
PROMPT = b'{"conversationState": {}}'
WRITING_SECONDS = 60
"""How long writing may take on a busy machine; it takes about two seconds at most."""
ANSWER = frames.text("One word.") + frames.ending("END_TURN")


class Clock:
    """A clock that moves by one second each time it is read."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def captures_in(root: Path, mode: Any = "all", **limits: int) -> Captures:
    return Captures(root, mode, now=Clock(), new_id=lambda: str(uuid.uuid4()), **limits)


@contextmanager
def capturing(root: Path, mode: Any = "all", **limits: int) -> Generator[Captures]:
    """Captures that are written when the block ends."""
    captures = captures_in(root, mode, **limits)
    yield captures
    captures.close(WRITING_SECONDS)


def begun(captures: Captures, **arguments: Any) -> CallCapture:
    capture = captures.begin(arguments or {"prompt": "hi"})
    assert capture is not None
    return capture


def _wait(event: threading.Event) -> None:
    event.wait()


def answered(capture: CallCapture, data: bytes = ANSWER, chunk_bytes: int = 1000) -> None:
    """Record a whole exchange."""
    capture.sent("POST", URL, {"Authorization": f"Bearer {KEY}"}, PROMPT)
    capture.answered(200, {})
    capture.reads_with(ReplyOptions())
    for start in range(0, len(data), chunk_bytes):
        capture.received(data[start : start + chunk_bytes])
    capture.replied(read(data))


def manifest_in(root: Path) -> Manifest:
    (capture,) = root.iterdir()
    return Manifest.model_validate_json((capture / folder.MANIFEST).read_bytes())


def test_times_are_counted_from_the_beginning_of_the_call(tmp_path: Path) -> None:
    """A slow step can then be seen at once."""
    with capturing(tmp_path) as captures:
        capture = begun(captures)
        answered(capture)
        capture.finish("completed")
    facts = manifest_in(tmp_path)
    assert facts.began_at == "2026-11-01T12:00:02+00:00"
    (exchange,) = facts.exchanges
    assert exchange.sent_after_seconds == 1
    assert exchange.answered_after_seconds == 2
    assert exchange.first_bytes_after_seconds == exchange.last_bytes_after_seconds == 3
    assert facts.seconds == 4


def test_an_answer_over_the_limit_is_cut_and_counted(tmp_path: Path) -> None:
    """A capture must not fill the disk, and must say that it is incomplete."""
    chunk = frames.text("x" * 24) * 1000
    count = 2 * MAX_FILE_BYTES // len(chunk)
    with capturing(tmp_path) as captures:
        capture = begun(captures)
        capture.sent("POST", URL, {}, PROMPT)
        capture.answered(200, {})
        for _ in range(count):
            capture.received(chunk)
        capture.replied(read(ANSWER))
        capture.finish("completed")
    (exchange,) = read_capture(next(tmp_path.iterdir()))
    assert len(exchange.raw) <= MAX_FILE_BYTES
    assert exchange.facts.received_bytes == count * len(chunk)
    assert not exchange.facts.is_whole


def test_the_files_of_one_call_have_a_limit_together(tmp_path: Path) -> None:
    with capturing(tmp_path, max_file_bytes=100, max_call_bytes=150) as captures:
        begun(captures, prompt="x" * 200).finish("failed", {"code": "y" * 200})
    (capture,) = tmp_path.iterdir()
    assert (capture / folder.REQUEST).stat().st_size == 100
    assert (capture / folder.ERROR).stat().st_size == 50


def test_cut_files_are_listed_in_the_manifest(tmp_path: Path) -> None:
    """A reader must know why the JSON ends in the middle."""
    with capturing(tmp_path, max_file_bytes=200) as captures:
        capture = begun(captures, prompt="word " * 100)
        answered(capture)
        capture.finish("completed")
    facts = manifest_in(tmp_path)
    assert facts.cut_files == [folder.REQUEST, folder.RAW]
    assert not facts.exchanges[0].is_whole


def test_exchanges_beyond_a_limit_are_counted(tmp_path: Path) -> None:
    """The setting for retries has no upper limit."""
    with capturing(tmp_path) as captures:
        capture = begun(captures)
        for _ in range(MAX_EXCHANGES + 2):
            answered(capture)
            capture.failed(InvalidRequest("no"))
        capture.finish("completed")
    facts = manifest_in(tmp_path)
    assert (len(facts.exchanges), facts.unkept_exchanges) == (MAX_EXCHANGES, 2)


def test_a_manifest_that_would_be_too_large_omits_the_tools(tmp_path: Path) -> None:
    """The file must stay valid JSON."""
    schema: Any = {"type": "object", "description": "word " * (MAX_FILE_BYTES // 4)}
    tools = [ToolSpec(name="n", description="", input_schema=schema)]
    with capturing(tmp_path) as captures:
        capture = begun(captures)
        capture.sent("POST", URL, {}, PROMPT)
        capture.answered(200, {})
        capture.reads_with(ReplyOptions(tools=tools))
        capture.finish("completed")
    assert manifest_in(tmp_path).exchanges[0].reading is None


def test_a_call_that_never_ends_leaves_its_request(tmp_path: Path) -> None:
    """Its process may be killed."""
    with capturing(tmp_path, "errors") as captures:
        capture = begun(captures)
        capture.sent("POST", URL, {}, PROMPT)
        capture.answered(200, {})
    assert manifest_in(tmp_path).outcome == "running"
    (written,) = tmp_path.iterdir()
    assert '"prompt": "hi"' in (written / folder.REQUEST).read_text("utf-8")
    assert (written / folder.KIRO_REQUEST).exists()


# --- a disk that is slow or fails ---------------------------------------------------------


def test_a_hanging_disk_delays_no_call(tmp_path: Path) -> None:
    """The calls that wait for it have a limit, and further calls run without a capture."""
    hangs = threading.Event()
    captures = captures_in(tmp_path)
    captures.submit(partial(_wait, hangs))
    for _ in range(MAX_OPEN_CAPTURES):
        begun(captures).finish("completed")
    assert captures.begin({}) is None
    hangs.set()
    captures.close(WRITING_SECONDS)
    assert begun(captures)
    captures.close(WRITING_SECONDS)


async def test_closing_can_be_cancelled(tmp_path: Path) -> None:
    """A server must be gone in half a second, whatever the disk does."""
    hangs = threading.Event()
    captures = captures_in(tmp_path)
    captures.submit(partial(_wait, hangs))
    with fail_after(20):
        with anyio.move_on_after(0.05) as scope:
            await captures.aclose()
        assert scope.cancelled_caught
    hangs.set()


def test_a_disk_that_fails_in_the_middle_ends_the_capture_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if the folder is removed."""
    with capturing(tmp_path) as captures:
        capture = begun(captures)
        captures.submit(lambda: shutil.rmtree(next(tmp_path.iterdir())))
        answered(capture)
        capture.finish("failed", {"code": "x"})
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "cannot be captured" in warnings[0].getMessage()
    assert list(tmp_path.iterdir()) == []


def test_a_defect_of_ours_ends_one_capture_and_not_the_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Arguments that are not JSON stand for any defect."""
    with capturing(tmp_path) as captures:
        begun(captures, prompt=object()).finish("completed")
        whole = begun(captures)
        whole.finish("completed")
    assert [path.name for path in sorted(tmp_path.iterdir())[-1].iterdir()]
    assert [one.levelname for one in caplog.records if one.exc_info] == ["ERROR"]


def test_events_after_the_end_are_not_recorded(tmp_path: Path) -> None:
    """Events of a task that ends late are not recorded."""
    with capturing(tmp_path, "errors") as captures:
        capture = begun(captures)
        capture.finish("completed")
        answered(capture)
        with capture.log():
            logging.getLogger("kiro_mcp.tests").debug("late")
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_are_not_unicode_are_kept(tmp_path: Path) -> None:
    """Observed: models write half surrogate pairs."""
    with capturing(tmp_path) as captures:
        begun(captures, prompt="\ud83d").finish("completed")
    (capture,) = tmp_path.iterdir()
    assert "\\ud83d" in (capture / folder.REQUEST).read_text("utf-8")


def test_a_body_that_is_not_json_is_kept_as_text(tmp_path: Path) -> None:
    """No request breaks a capture."""
    with capturing(tmp_path) as captures:
        capture = begun(captures)
        capture.sent("POST", URL, {}, b"not json \xff")
        capture.finish("completed")
    (folder_,) = tmp_path.iterdir()
    assert "not json" in (folder_ / folder.KIRO_REQUEST).read_text("utf-8")


# --- how a call ends ----------------------------------------------------------------------


def error_info_in(root: Path) -> str:
    (capture,) = root.iterdir()
    return (capture / folder.ERROR).read_text("utf-8")


def test_a_defect_in_a_call_is_captured_with_its_traceback(tmp_path: Path) -> None:
    """A bug report needs this."""
    with (
        capturing(tmp_path, "errors") as captures,
        pytest.raises(ZeroDivisionError),
        capture_call(captures, {"prompt": "hi"}),
    ):
        raise ZeroDivisionError(f"with {KEY}")
    assert '"internal_error"' in error_info_in(tmp_path)
    assert "test_recording.py" in error_info_in(tmp_path)
    assert KEY not in error_info_in(tmp_path)


async def test_an_answer_that_outlives_its_call_ends_the_capture(tmp_path: Path) -> None:
    """A call that returns early has not failed."""
    result = types.CallToolResult(
        content=[], structured_content={"truncated": False, "warnings": ["odd"]}
    )
    running = Job(id="a", conversation_id="c", model="m")

    async def make(_: Job) -> types.CallToolResult:
        return result

    with capturing(tmp_path, "errors") as captures:
        with capture_call(captures, {"prompt": "hi"}) as capture:
            make_and_finish = finish_with_answer(capture, make)
        assert await make_and_finish(running) is result
    assert manifest_in(tmp_path).outcome == "completed"


async def test_a_defect_in_an_answer_is_captured(tmp_path: Path) -> None:

    async def make(_: Job) -> types.CallToolResult:
        raise ZeroDivisionError

    with capturing(tmp_path, "errors") as captures:
        with capture_call(captures, {"prompt": "hi"}) as capture:
            make_and_finish = finish_with_answer(capture, make)
        with pytest.raises(ZeroDivisionError):
            await make_and_finish(Job(id="a", conversation_id="c", model="m"))
    assert "ZeroDivisionError" in error_info_in(tmp_path)


def test_a_call_is_not_wrapped_if_captures_are_off() -> None:
    """Without captures, nothing is wrapped around an answer."""

    async def make(_: Job) -> types.CallToolResult:
        raise AssertionError

    with capture_call(None, {"prompt": "hi"}) as capture:
        assert capture is None
        assert finish_with_answer(capture, make) is make


# --- what is left out ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("A" * 1023, "A" * 1023),
        ("A" * 1024, "[1024 characters]"),
        ("AB+/\n" * 300 + "==", "[1502 characters]"),
        ("data:image/png;base64," + "A" * 1024, "data:image/png;base64,[1046 characters]"),
        ("word " * 300, "word " * 300),
        ("你好" * 600, "你好" * 600),
        ({"a": ["A" * 2000, 1, None]}, {"a": ["[2000 characters]", 1, None]}),
    ],
    ids=["short", "long", "lines", "url", "words", "letters", "nested"],
)
def test_long_base64_is_counted_and_text_is_kept(given: Any, kept: Any) -> None:
    """It is large, private, and can look like a token by chance."""
    assert redacted_json(given) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("to me+you@mail.example.com, please", "to ******@mail.example.com, please"),
        ("arn:aws:iam::111122223333:user/me", "arn:aws:iam::************:user/me"),
        ("npm i left-pad@1.3.0 @types/node", "npm i left-pad@1.3.0 @types/node"),
        ("123456789012 of 1:1234567890123:2", "123456789012 of 1:1234567890123:2"),
    ],
)
def test_identities_become_stars_and_nothing_else_does(text: str, kept: str) -> None:
    """Lengths stay, for what is read again by its places."""
    assert redacted_json({"a": [text]}) == {"a": [kept]}


@pytest.mark.parametrize("text", ["A\n" * 500_000 + "!", "a" * 500_000 + "@", "a@" * 250_000])
def test_redacting_json_takes_linear_time(text: str) -> None:
    """A prompt may be megabytes."""
    with_deadline(lambda: redacted_json(text))
