"""`kiro-mcp replay`: a capture made by one process, read again by another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kiro_mcp.captures import folder
from kiro_mcp.captures.folder import MAX_READ_BYTES
from kiro_mcp.cli.developer import run_replay
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    Pause,
    RunningEmulator,
    Send,
    frames,
)
from tests.cli.test_commands import run
from tests.support.frames import event
from tests.support.mcp import connected
from tests.support.secrets import KEY

Capsys = pytest.CaptureFixture[str]


async def captured(emulator: RunningEmulator, root: Path, prompt: str, **environ: str) -> Path:
    """Capture one call and return its folder."""
    environ = {"KIRO_MCP_DEBUG_MODE": "all", "KIRO_MCP_DEBUG_DIR": str(root), **environ}
    tool: Any = {"name": "n", "description": "d", "inputSchema": {"type": "object"}}
    async with connected(emulator, **environ) as client:
        await client.call_tool("ask_claude", {"prompt": prompt, "tools": [tool]})
    (capture,) = root.iterdir()
    return capture


def replay(capture: Path, **options: bool) -> int:
    return run_replay(str(capture), **{"as_json": False, "shows_diff": False, **options})


async def test_a_captured_call_replays_to_the_same_reply(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """As a person does it."""
    service = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}
    debugging = {"KIRO_MCP_DEBUG_MODE": "all", "KIRO_MCP_DEBUG_DIR": str(tmp_path)}
    asked = await run("ask", "Say hello", **service, **debugging)
    assert asked.returncode == 0, asked.stderr.decode()
    (capture,) = tmp_path.iterdir()
    done = await run("replay", str(capture))
    assert done.returncode == 0, done.stderr.decode()
    assert asked.stdout.strip() in done.stdout
    assert b"request 1: same as recorded" in done.stderr


SCRIPTS = [
    *("text", "thinking", "reasoning", "split_tags", "tool_use", "parallel_tools"),
    *("truncated_tool", "empty", "reset", "bad_crc", "exception", "throttle", "suspended"),
]


@pytest.mark.parametrize("script", SCRIPTS)
async def test_every_kind_of_answer_replays_to_the_same_reply(
    script: str, emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """Otherwise a difference would mean nothing."""
    capture = await captured(emulator, tmp_path, f"/emulate {script}")
    assert replay(capture, shows_diff=True) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("handling", ["separate", "remove", "inline", "strip_tags"])
async def test_a_replay_uses_the_settings_of_the_call(
    handling: str, emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """The person who replays it has other settings."""
    setting = {"KIRO_MCP_THINKING_HANDLING": handling}
    capture = await captured(emulator, tmp_path, "/emulate thinking", **setting)
    assert replay(capture) == 0
    assert capsys.readouterr().out == f"{(capture / folder.REPLY).read_text('utf-8')}\n"


async def test_a_replay_makes_the_same_ids(emulator: RunningEmulator, tmp_path: Path) -> None:
    """Tool calls that were written as text have no id of the service."""
    call = '[Called n with args: {"a": 1}]'
    emulator.state.enqueue((Send(frames.text(call) + frames.ending("END_TURN")),))
    capture = await captured(emulator, tmp_path, "hi", KIRO_MCP_TEXT_TOOL_CALLS="true")
    assert "tool use n tooluse_" in (capture / folder.REPLY).read_text("utf-8")
    assert replay(capture) == 0


async def test_an_answer_that_timed_out_replays_to_the_same_end(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """The bytes do not contain silence."""
    emulator.state.enqueue((Send(frames.text("Once")), Pause(60)))
    setting = {"KIRO_MCP_STREAM_READ_TIMEOUT": "0.2"}
    capture = await captured(emulator, tmp_path, "hi", **setting)
    assert replay(capture) == 0
    assert "sent nothing for" in capsys.readouterr().out


async def test_each_request_of_a_call_is_replayed(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    emulator.state.retry_after_seconds = 0
    retrying = {"KIRO_MCP_MAX_RETRIES": "1", "KIRO_MCP_BASE_RETRY_DELAY": "0.001"}
    capture = await captured(emulator, tmp_path, "/emulate throttle 1", **retrying)
    assert replay(capture) == 0
    assert capsys.readouterr().err.splitlines() == [
        "request 1: same as recorded",
        "request 2: same as recorded",
    ]


async def test_a_difference_is_shown_and_sets_the_exit_code(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """A changed record stands for a changed engine."""
    capture = await captured(emulator, tmp_path, "Say hello")
    record = capture / folder.REPLY
    record.write_text(record.read_text("utf-8").replace("canned", "tinned"), "utf-8")
    assert replay(capture, shows_diff=True) == 1
    shown = capsys.readouterr()
    assert "-This is a tinned answer of the emulator. You said: Say hello" in shown.out
    assert "+This is a canned answer of the emulator. You said: Say hello" in shown.out
    assert "request 1: different from what was recorded\n" in shown.err


async def test_json_has_the_reply_and_the_difference(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """For programs."""
    capture = await captured(emulator, tmp_path, "/emulate tool_use")
    assert replay(capture, as_json=True) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["request"] == 1
    assert shown["is_as_recorded"] is True
    assert shown["error"] is None
    assert shown["reply"]["stop_reason"] == "tool_use"
    assert shown["reply"]["tool_calls"][0]["arguments"] == {}


async def test_a_capture_cannot_send_escape_sequences_to_the_terminal(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """A capture may come from a stranger who needs help."""
    hostile = "a\x1b]52;c;eA==\x07\x9b2J\x7f\u202eb"
    said = frames.text(hostile) + frames.ending("END_TURN")
    emulator.state.enqueue((Send(said),))
    capture = await captured(emulator, tmp_path, "hi")
    record = capture / folder.REPLY
    assert replay(capture) == 0
    assert replay(capture, as_json=True) == 0
    record.write_text(record.read_text("utf-8").replace("]52", f"]53{hostile}"), "utf-8")
    assert replay(capture, shows_diff=True) == 1
    assert replay(capture, as_json=True) == 1
    shown = capsys.readouterr()
    for character in "\x1b\x07\x9b\x7f\u202e":
        assert character not in shown.out + shown.err
    assert shown.out.count("a␛]52;c;eA==␇�2J��b") == 3
    parsed, _ = json.JSONDecoder().raw_decode(shown.out[shown.out.index("[\n") :])
    assert parsed[0]["reply"]["text"] == hostile


async def test_json_has_the_error_of_a_refusal(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    capture = await captured(emulator, tmp_path, "/emulate quota")
    assert replay(capture, as_json=True) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["reply"] is None
    assert shown["error"]["code"] == "quota_exhausted"


async def test_a_masked_secret_stays_masked(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """Pieces that are put together again must not show one."""
    emulator.state.enqueue((Send(frames.text(f"It is {KEY}.") + frames.ending("END_TURN")),))
    capture = await captured(emulator, tmp_path, "hi")
    assert replay(capture) == 0
    assert "It is [redacted]." in capsys.readouterr().out


async def test_masked_secrets_are_named_as_a_possible_reason_of_a_difference(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    emulator.state.enqueue((Send(frames.text(KEY) + frames.ending("END_TURN")),))
    capture = await captured(emulator, tmp_path, "hi")
    record = capture / folder.REPLY
    record.write_text(record.read_text("utf-8") + "more", "utf-8")
    assert replay(capture) == 1
    assert "masked" in capsys.readouterr().err


def test_a_capture_of_kiro_gateway_is_replayed_without_a_comparison(
    tmp_path: Path, capsys: Capsys
) -> None:
    """Its `response_stream_raw.txt` has the bytes as they came, and nothing to compare with."""
    (tmp_path / folder.FRAMES).write_bytes(event("assistantResponseEvent", {"content": "Hi there"}))
    (tmp_path / folder.REPLY).write_text('data: {"choices": []}\n')
    assert replay(tmp_path) == 0
    shown = capsys.readouterr()
    assert "Hi there" in shown.out
    assert "nothing to compare with" in shown.err


async def test_an_incomplete_answer_is_not_compared(
    emulator: RunningEmulator, tmp_path: Path, capsys: Capsys
) -> None:
    """It would differ although nothing is wrong."""
    capture = await captured(emulator, tmp_path, "Say hello")
    facts = json.loads((capture / folder.MANIFEST).read_text("utf-8"))
    facts["exchanges"][0]["is_whole"] = False
    (capture / folder.MANIFEST).write_text(json.dumps(facts))
    raw = capture / folder.RAW
    raw.write_bytes(raw.read_bytes()[:200])
    assert replay(capture) == 0
    assert "incomplete" in capsys.readouterr().err


# --- what cannot be replayed --------------------------------------------------------------


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_READ_BYTES + 1)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.rmdir(), "does not exist"),
    "file": (lambda path: (path.rmdir(), path.write_text("")), "is not a folder"),
    "empty": (lambda path: None, "is not a capture: it has neither"),
    "a folder of captures": (
        lambda path: (path / "20261101T120000.000000Z-0123abcd").mkdir(),
        "the latest one here is 20261101T120000.000000Z-0123abcd",
    ),
    "no json": (lambda path: (path / folder.MANIFEST).write_text("{"), "Invalid JSON"),
    "wrong member": (
        lambda path: (path / folder.MANIFEST).write_text('{"exchanges": [{"status": "ok"}]}'),
        "exchanges.0.status",
    ),
    "newer": (lambda path: (path / folder.MANIFEST).write_text('{"format": 99}'), "format"),
    "too many requests": (
        lambda path: (path / folder.MANIFEST).write_text(json.dumps({"exchanges": [{}] * 21})),
        "exchanges: List should have at most 20",
    ),
    "unanswered": (
        lambda path: (path / folder.MANIFEST).write_text('{"exchanges": [{}]}'),
        "no request was answered",
    ),
    "too large": (lambda path: _sparse(path / folder.RAW), "is larger than"),
    "a folder in the way": (lambda path: (path / folder.RAW).mkdir(), "cannot be read"),
}


@pytest.mark.parametrize(("spoil", "says"), BAD.values(), ids=BAD)
def test_a_folder_that_is_not_a_capture_is_a_usage_error_that_says_why(
    spoil: Callable[[Path], object], says: str, tmp_path: Path, capsys: Capsys
) -> None:
    """The folder may have come by mail."""
    capture = tmp_path / "capture"
    capture.mkdir()
    spoil(capture)
    assert replay(capture) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err
    assert "Traceback" not in shown.err


async def test_a_capture_without_its_answer_reads_as_an_empty_answer(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A file may be missing from what was sent."""
    capture = await captured(emulator, tmp_path, "Say hello")
    (capture / folder.RAW).unlink()
    assert replay(capture) == 1


async def test_a_capture_can_be_moved(emulator: RunningEmulator, tmp_path: Path) -> None:
    """People send captures to each other."""
    capture = await captured(emulator, tmp_path / "debug", "Say hello")
    shutil.move(capture, tmp_path / "elsewhere")
    assert replay(tmp_path / "elsewhere") == 0
