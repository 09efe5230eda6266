"""Calls captured through the whole server: what is written, when it is kept, and no secrets."""

import json
import logging
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.captures import folder
from kiro_mcp.captures.folder import MAX_CAPTURES, read_capture
from kiro_mcp.captures.replaying import as_recorded, replay
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    HttpAnswer,
    Pause,
    RunningEmulator,
    Send,
    frames,
)
from tests.support.mcp import ask, connected
from tests.support.secrets import TEXTS
from tests.support.stdio import environment, started

Json = dict[str, Any]


def captures_in(root: Path) -> list[Path]:
    return sorted(root.iterdir()) if root.exists() else []


def the_capture(root: Path) -> Path:
    (found,) = captures_in(root)
    return found


def json_of(path: Path) -> Json:
    return json.loads(path.read_text("utf-8"))


def written(root: Path) -> bytes:
    """All files are complete."""
    return b"\n".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def debugging(root: Path, mode: str = "all") -> dict[str, str]:
    return {"KIRO_MCP_DEBUG_MODE": mode, "KIRO_MCP_DEBUG_DIR": str(root)}


async def test_a_capture_has_arguments_request_response_and_result(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The names are those that users of kiro-gateway look for."""
    async with connected(emulator, **debugging(tmp_path)) as client:
        answer = await ask(client, prompt="Say hello", model="claude-sonnet-4.5")
    capture = the_capture(tmp_path)
    assert {path.name for path in capture.iterdir()} == {
        "request_body.json",
        "kiro_request_body.json",
        "response_stream_raw.bin",
        "response_stream_raw.txt",
        "response_stream_modified.txt",
        "app_logs.txt",
        "capture.json",
    }
    asked = json_of(capture / folder.REQUEST)
    assert asked == {"prompt": "Say hello", "model": "claude-sonnet-4.5"}
    assert json_of(capture / folder.KIRO_REQUEST) == emulator.state.requests[-1].body
    said = frames.text("This is a canned answer ", model_id="claude-sonnet-4.5")
    assert (capture / folder.RAW).read_bytes().startswith(said)
    assert "assistantResponseEvent  {" in (capture / folder.FRAMES).read_text("utf-8")
    assert answer["text"] in (capture / folder.REPLY).read_text("utf-8")
    logs = (capture / folder.LOGS).read_text("utf-8")
    assert "DEBUG" in logs
    assert "/generateAssistantResponse" in logs


async def test_the_manifest_of_a_capture_says_how_the_call_ended(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A maintainer needs versions, times and headers."""
    async with connected(emulator, **debugging(tmp_path)) as client:
        await ask(client, prompt="Say hello")
    facts = json_of(the_capture(tmp_path) / folder.MANIFEST)
    (exchange,) = facts["exchanges"]
    assert facts["outcome"] == "completed"
    assert facts["kiro_mcp"]
    assert exchange["status"] == 200
    assert exchange["url"].endswith("/generateAssistantResponse")
    assert exchange["response_headers"]["content-type"] == "application/vnd.amazon.eventstream"
    raw = the_capture(tmp_path) / folder.RAW
    assert exchange["received_bytes"] == raw.stat().st_size
    times = [
        exchange[f"{event}_after_seconds"]
        for event in ("sent", "answered", "first_bytes", "last_bytes")
    ]
    assert sorted([0, *times, facts["seconds"]]) == [0, *times, facts["seconds"]]


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
async def test_only_their_owner_can_read_captures(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Prompts are private."""
    async with connected(emulator, **debugging(tmp_path / "new" / "debug")) as client:
        await ask(client, prompt="Say hello")
    capture = the_capture(tmp_path / "new" / "debug")
    assert stat.S_IMODE(capture.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in capture.iterdir()} == {0o600}


async def test_off_is_the_default_and_writes_nothing(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        await client.call_tool("ask_claude", {"prompt": "/emulate suspended"})
    assert not (tmp_path / "debug").exists()


async def test_captures_are_kept_under_our_home_by_default(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    home = {"KIRO_MCP_HOME": str(tmp_path), "KIRO_MCP_DEBUG_MODE": "all"}
    async with connected(emulator, **home) as client:
        await ask(client, prompt="Say hello")
    assert len(captures_in(tmp_path / "debug")) == 1


async def test_without_any_place_for_captures_calls_work_and_the_log_says_so(
    emulator: RunningEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A container may have no home."""
    async with connected(emulator, KIRO_MCP_DEBUG_MODE="all") as client:
        await ask(client, prompt="Say hello")
    assert "KIRO_MCP_DEBUG_DIR" in caplog.text


# --- which are kept -----------------------------------------------------------------------

NO_EFFORT: Json = {"prompt": "hi", "model": "claude-haiku-4.5", "max_tokens": 5}


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ({"prompt": "/emulate suspended"}, "failed"),
        ({"prompt": "/emulate reset"}, "truncated"),
        ({"prompt": "/emulate truncated_tool"}, "truncated"),
        ({"prompt": "/emulate empty"}, "failed"),
        ({"prompt": [4]}, "failed"),
        (NO_EFFORT, "completed"),
    ],
    ids=["refused", "broken", "cut", "empty", "arguments", "warnings"],
)
async def test_errors_mode_keeps_calls_that_failed_or_had_warnings(
    arguments: Json, outcome: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Bug reports are about such calls."""
    async with connected(emulator, **debugging(tmp_path, "errors")) as client:
        await client.call_tool("ask_claude", arguments)
    capture = the_capture(tmp_path)
    assert json_of(capture / folder.MANIFEST)["outcome"] == outcome
    assert (capture / folder.ERROR).exists() is (outcome != "completed")


async def test_errors_mode_keeps_nothing_of_calls_that_succeeded(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    async with connected(emulator, **debugging(tmp_path, "errors")) as client:
        await ask(client, prompt="Say hello")
    assert captures_in(tmp_path) == []


@pytest.mark.parametrize(("mode", "count"), [("errors", 0), ("all", 1)])
async def test_a_dry_run_is_captured_in_mode_all(
    mode: str, count: int, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A dry run sends nothing, and its capture says so."""
    async with connected(emulator, **debugging(tmp_path, mode)) as client:
        await ask(client, prompt="hi", dry_run=True)
    assert len(captures_in(tmp_path)) == count
    for capture in captures_in(tmp_path):
        assert json_of(capture / folder.MANIFEST)["exchanges"] == []


async def test_collecting_an_answer_makes_no_capture(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The answer's capture goes on, however often it is asked for."""
    slow = (Send(frames.text("Once")), Pause(0.3), Send(frames.ending("END_TURN")))
    emulator.state.enqueue(slow)
    async with connected(emulator, **debugging(tmp_path)) as client:
        early = await ask(client, prompt="Tell.", wait_seconds=0.05)
        assert early["status"] == "running"
        await ask(client, answer_id=early["answer_id"])
    assert json_of(the_capture(tmp_path) / folder.MANIFEST)["outcome"] == "completed"


async def test_the_capture_of_a_cancelled_call_has_the_partial_answer(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Clients cancel at their own timeouts, and that is a failure to their users."""
    has_come = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        if "upon" in (message or ""):
            has_come.set()

    emulator.state.enqueue((Send(frames.text("Once upon a time")), Pause(60)))
    async with connected(emulator, **debugging(tmp_path, "errors")) as client:
        async with anyio.create_task_group() as tasks:
            ask_and_note = partial(client.call_tool, progress_callback=note)
            tasks.start_soon(ask_and_note, "ask_claude", {"prompt": "Tell."})
            await has_come.wait()
            tasks.cancel_scope.cancel()
        await emulator.state.until(lambda state: state.open_streams == 0)
    capture = the_capture(tmp_path)
    assert json_of(capture / folder.MANIFEST)["outcome"] == "cancelled"
    assert "Once upon a time" in (capture / folder.REPLY).read_text("utf-8")


async def test_signed_out_the_capture_says_why(tmp_path: Path) -> None:
    """A call that never reached the service is a failure, too."""
    async with connected(None, **debugging(tmp_path, "errors")) as client:
        await client.call_tool("ask_claude", {"prompt": "hi"})
    info = json_of(the_capture(tmp_path) / folder.ERROR)
    assert info["code"] == "auth_required"
    assert info["status_code"] is None


async def test_the_error_file_has_status_code_words_and_head(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The first two members are kiro-gateway's."""
    async with connected(emulator, **debugging(tmp_path, "errors")) as client:
        await client.call_tool("ask_claude", {"prompt": "/emulate throttle"})
    info = json_of(the_capture(tmp_path) / folder.ERROR)
    assert info["status_code"] == 429
    assert info["error_message"].startswith("rate_limited: ")
    assert info["code"] == "rate_limited"
    assert info["response_headers"]["x-amzn-errortype"] == "ThrottlingException"


# --- attempts and concurrency -------------------------------------------------------------


async def test_each_attempt_has_files_of_its_own(emulator: RunningEmulator, tmp_path: Path) -> None:
    """What differs between two attempts is often the clue."""
    retrying = {"KIRO_MCP_MAX_RETRIES": "1", "KIRO_MCP_BASE_RETRY_DELAY": "0.001"}
    emulator.state.retry_after_seconds = 0
    async with connected(emulator, **retrying, **debugging(tmp_path)) as client:
        await ask(client, prompt="/emulate throttle 1")
    capture = the_capture(tmp_path)
    first, second = json_of(capture / folder.MANIFEST)["exchanges"]
    assert (first["status"], second["status"]) == (429, 200)
    assert first["error"]["code"] == "rate_limited"
    assert "rate_limited" in (capture / "response_stream_modified.txt").read_text("utf-8")
    assert "canned" in (capture / "response_stream_modified-2.txt").read_text("utf-8")
    assert (capture / "kiro_request_body-2.json").exists()
    assert (capture / "response_stream_raw-2.bin").exists()


async def test_the_second_turn_of_a_typed_answer_is_captured_too(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """One call can ask the model twice."""
    emulator.state.enqueue((Send(frames.text("No JSON.") + frames.ending("END_TURN")),))
    async with connected(emulator, **debugging(tmp_path)) as client:
        await ask(client, prompt="hi", output_schema={"type": "object"})
    exchanges = read_capture(the_capture(tmp_path))
    assert len([one for one in exchanges if one.is_answer]) == 2


async def test_calls_at_once_do_not_mix(emulator: RunningEmulator, tmp_path: Path) -> None:
    """Each log line and each byte belongs to one call."""
    names = ("alpha", "beta", "gamma", "delta")
    async with (
        connected(emulator, **debugging(tmp_path)) as client,
        anyio.create_task_group() as tasks,
    ):
        for name in names:
            arguments = {"prompt": f"{name} slow\n/emulate slow 0.2"}
            tasks.start_soon(client.call_tool, "ask_claude", arguments)
    captures = captures_in(tmp_path)
    assert len(captures) == len(names)
    for capture in captures:
        (mine,) = [name for name in names if name in (capture / folder.REQUEST).read_text("utf-8")]
        for file in (folder.KIRO_REQUEST, folder.REPLY):
            text = (capture / file).read_text("utf-8")
            assert [name for name in names if name in text] == [mine]
        assert (capture / folder.LOGS).read_text("utf-8").count("POST") == 1


@pytest.mark.parametrize(
    "script",
    ["text", "thinking", "reasoning", "tool_use", "reset", "bad_crc", "exception", "suspended"],
)
async def test_a_capture_is_read_back_with_the_same_reply(
    script: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """This is the purpose of a capture."""
    async with connected(emulator, **debugging(tmp_path)) as client:
        await client.call_tool("ask_claude", {"prompt": f"/emulate {script}"})
    (exchange,) = read_capture(the_capture(tmp_path))
    assert as_recorded(replay(exchange)) == exchange.recorded


# --- secrets ------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "secret"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("chunk_bytes", [7, 4096])
async def test_no_secret_is_in_a_capture_wherever_it_came_from(
    text: str, secret: str, chunk_bytes: int, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Asked, answered in pieces, refused with, or repeated by a tool's arguments."""
    emulator.state.chunk_bytes = chunk_bytes
    arguments = frames.compact_json({"note": text})
    emulator.state.enqueue(
        (Send(frames.text(text) + frames.ending()),),
        (Send(frames.text(text, delta_characters=1000) + frames.ending()),),
        (Send(frames.tool_use("tooluse_1", "n", arguments) + frames.ending()),),
        (Send(frames.exception(text, "X")),),
        (HttpAnswer(status=400, body=frames.compact_json({"message": text}).encode()),),
    )
    async with connected(emulator, **debugging(tmp_path)) as client:
        for _ in range(5):
            await client.call_tool("ask_claude", {"prompt": text, "system": text})
    assert secret.encode() not in written(tmp_path)
    assert EMULATOR_API_KEY.encode() not in written(tmp_path)
    for capture in captures_in(tmp_path):
        for exchange in read_capture(capture):
            assert secret not in as_recorded(replay(exchange))
            pieces = b"".join(exchange.raw.split(b'"modelId"'))
            assert secret.encode() not in pieces


async def test_a_persons_identity_is_in_a_capture_only_if_claude_says_it(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A report is read by strangers; the words of an answer are its owner's to look at."""
    arn, mail = "arn:aws:codewhisperer:us-east-1:111122223333:profile/MINE", "me.too@example.com"
    refusal = frames.compact_json({"message": f"User {mail} ({arn}) is not authorized"})
    emulator.state.enqueue(
        (HttpAnswer(status=403, body=refusal.encode()),),
        (Send(frames.text(f"It is {mail}.") + frames.exception(f"{arn} of {mail}", "X")),),
    )
    about_me = {"prompt": f"I am {mail}", "system": arn}
    async with connected(emulator, **debugging(tmp_path)) as client:
        for _ in range(2):
            await client.call_tool("ask_claude", about_me)
    assert b"111122223333" not in written(tmp_path)
    assert b"arn:aws:codewhisperer:us-east-1:************:profile/MINE" in written(tmp_path)
    refused, answered = captures_in(tmp_path)
    assert mail.encode() not in written(refused)
    assert [
        path.name for path in sorted(answered.iterdir()) if mail.encode() in path.read_bytes()
    ] == [folder.RAW, folder.FRAMES]
    for capture in (refused, answered):
        (exchange,) = read_capture(capture)
        assert as_recorded(replay(exchange)) == exchange.recorded


async def test_headers_of_the_users_own_are_hidden(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A proxy's password may be among them."""
    extra = {"KIRO_MCP_EXTRA_HEADERS": '{"X-Proxy-Pass": "hunter2", "User-Agent": "me/1"}'}
    async with connected(emulator, **extra, **debugging(tmp_path)) as client:
        await ask(client, prompt="hi")
    (exchange,) = json_of(the_capture(tmp_path) / folder.MANIFEST)["exchanges"]
    assert exchange["request_headers"]["X-Proxy-Pass"] == "[redacted]"
    assert exchange["request_headers"]["Authorization"] == "[redacted]"
    assert exchange["request_headers"]["User-Agent"] == "me/1"
    assert b"hunter2" not in written(tmp_path)


async def test_pictures_are_counted_and_not_kept(emulator: RunningEmulator, tmp_path: Path) -> None:
    """Images are large and private."""
    picture = "iVBORw0KGgo" + "A" * 5001
    async with connected(emulator, **debugging(tmp_path)) as client:
        await client.call_tool(
            "ask_claude", {"prompt": "hi", "images": [f"data:image/png;base64,{picture}"]}
        )
    (shown,) = json_of(the_capture(tmp_path) / folder.REQUEST)["images"]
    assert shown == f"data:image/png;base64,[{len(picture) + 22} characters]"
    assert picture.encode() not in written(tmp_path)


# --- limits and faults --------------------------------------------------------------------


async def test_the_oldest_captures_go_first_and_only_captures_do(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The folder may be one that has other things in it."""
    for number in range(MAX_CAPTURES + 3):
        old = tmp_path / f"20200101T000000.{number:06d}Z-0123abcd"
        old.mkdir()
        (old / folder.REQUEST).write_text("{}")
    (tmp_path / "20190101T000000.000000Z-0123abcd").mkdir()
    (tmp_path / "20190101T000000.000000Z-0123abcd" / "notes.txt").write_text("mine")
    (tmp_path / "20190101").mkdir()
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / folder.REQUEST).write_text("mine")
    (tmp_path / "20190102T000000.000000Z-0123abcd").symlink_to(elsewhere)
    async with connected(emulator, **debugging(tmp_path)) as client:
        await ask(client, prompt="hi")
    left = [path.name for path in captures_in(tmp_path) if not path.is_symlink()]
    assert left[:2] == ["20190101", "20190101T000000.000000Z-0123abcd"]
    assert left[2] == "20200101T000000.000004Z-0123abcd"
    assert len(left) == 1 + 1 + MAX_CAPTURES
    assert left[-1] > "2020"
    assert (elsewhere / folder.REQUEST).read_text() == "mine"


async def test_a_capture_that_cannot_be_written_costs_one_log_line_and_no_answer(
    emulator: RunningEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk or a wrong folder must not fail a call."""
    (tmp_path / "file").write_text("in the way")
    async with connected(emulator, **debugging(tmp_path / "file")) as client:
        answer = await ask(client, prompt="hi")
    assert answer["status"] == "completed"
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert str(tmp_path / "file") in warnings[0]


async def test_a_server_that_captures_writes_no_more_to_its_log_than_another(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """DEBUG lines are for the capture; stderr has its own level."""
    environ = environment(
        KIRO_MCP_ENDPOINT_URL=emulator.url, KIRO_API_KEY=EMULATOR_API_KEY, **debugging(tmp_path)
    )
    with fail_after(30):
        async with started(environ) as server:
            await server.initialize()
            await server.call("ask_claude", prompt="hi")
            await server.stdin.aclose()
            assert await server.process.wait() == 0
            assert server.stderr == ""
    assert the_capture(tmp_path)
