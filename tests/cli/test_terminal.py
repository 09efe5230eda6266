"""What a person sees at a terminal, and what Ctrl-C does there."""

import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from anyio import fail_after

from kiro_mcp.emulator import EMULATOR_API_KEY, Pause, RunningEmulator, Send, frames
from tests.cli.test_ask import against
from tests.cli.test_commands import RUN_SECONDS
from tests.support.terminal import CTRL_C, HIDE_CURSOR, SHOW_CURSOR, on_terminal

NEVER_ENDS = Pause(600)


async def test_a_spinner_is_shown_until_text_comes(emulator: RunningEmulator) -> None:
    """It leaves nothing behind; thinking is not shown."""
    thought = Send(frames.reasoning("Let me see."))
    words = Send(frames.text("Half an answer"))
    emulator.state.enqueue((thought, Pause(0.5), words, Pause(0.5), Send(frames.ending())))
    with fail_after(RUN_SECONDS):
        async with on_terminal("ask", "x", environ=against(emulator)) as screen:
            await screen.until("thinking … 0 s")
            await screen.until("Half an answer")
            assert screen.seen.rindex(HIDE_CURSOR) < screen.seen.rindex(SHOW_CURSOR)
            assert screen.seen.rindex(SHOW_CURSOR) < screen.seen.index("Half")
            assert await screen.end() == 0
    _, _, after = screen.words.partition("Half an answer")
    assert after.startswith("\nauto · about ")
    assert "thinking" not in after
    assert "Let me see" not in screen.words


async def test_no_color_turns_colours_off(emulator: RunningEmulator) -> None:
    """https://no-color.org; the spinner may still move."""
    with fail_after(RUN_SECONDS):
        async with on_terminal("models", environ=against(emulator, NO_COLOR="1")) as screen:
            assert await screen.end() == 0
        assert "\x1b[3" not in screen.seen
        async with on_terminal("models", environ=against(emulator, TERM="dumb")) as screen:
            assert await screen.end() == 0
        assert "\x1b" not in screen.seen


async def test_an_answer_cannot_send_escape_sequences_to_the_terminal(
    emulator: RunningEmulator,
) -> None:
    """OSC 52 would write to the clipboard."""
    emulator.state.enqueue((Send(frames.text("a\x1b]52;c;eA==\x07\tb\x9b2J\n") + frames.ending()),))
    with fail_after(RUN_SECONDS):
        async with on_terminal("ask", "x", environ=against(emulator)) as screen:
            assert await screen.end() == 0
    assert "a␛]52;c;eA==␇\tb\N{REPLACEMENT CHARACTER}2J\n" in screen.words


async def test_escape_sequences_are_removed_on_a_dumb_terminal_and_in_json(
    emulator: RunningEmulator,
) -> None:
    hostile = "a\x1b]52;c;eA==\x07\x9b2J\x7f\u202eb"
    with fail_after(RUN_SECONDS):
        for arguments in (("ask", "x"), ("ask", "x", "--json")):
            emulator.state.enqueue((Send(frames.text(hostile) + frames.ending()),))
            environ = against(emulator, TERM="dumb")
            async with on_terminal(*arguments, environ=environ) as screen:
                assert await screen.end() == 0
            assert "52;c;eA==" in screen.seen
            assert not set("\x1b\x07\x9b\x7f\u202e") & set(screen.seen)


@pytest.mark.parametrize("arguments", [("models",), ("models", "--json")])
async def test_a_model_name_cannot_send_escape_sequences_to_the_terminal(
    arguments: tuple[str, ...], emulator: RunningEmulator
) -> None:
    hostile = "a\x1b]52;c;eA==\x07\x9b2J\x7f\u202eb"
    emulator.state.catalogue = ({**emulator.state.catalogue[0], "modelId": hostile},)
    with fail_after(RUN_SECONDS):
        async with on_terminal(*arguments, environ=against(emulator)) as screen:
            assert await screen.end() == 0
    assert "52;c;eA==" in screen.words
    assert "\x1b]" not in screen.seen
    assert not set("\x07\x9b\x7f\u202e") & set(screen.seen)


async def test_a_pipe_never_gets_colours(emulator: RunningEmulator) -> None:
    """`FORCE_COLOR` is set on many machines that build."""
    forced = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}
    with fail_after(RUN_SECONDS):
        async with on_terminal(
            "status", stdout=False, environ=against(emulator, **forced)
        ) as screen:
            assert screen.process.stdout
            printed = b"".join([chunk async for chunk in screen.process.stdout])
            assert await screen.end() == 0
    assert b"credits used  12.5 of 1000\n" in printed
    assert b"\x1b" not in printed


async def test_status_has_a_bar_of_the_credits(emulator: RunningEmulator) -> None:
    """Its length is the used share of the limit."""
    with fail_after(RUN_SECONDS):
        async with on_terminal("status", environ=against(emulator)) as screen:
            assert await screen.end() == 0
    assert f"credits used  12.5 of 1000\n{' ' * 14}█{'░' * 29} 1%\n" in screen.words


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["status", "models", "doctor"])
async def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(
    command: str, columns: int, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Half a terminal is what many have beside an editor."""
    environ = {"HOME": str(tmp_path), "KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": ""}
    with fail_after(RUN_SECONDS):
        async with on_terminal(command, columns=columns, environ=environ) as screen:
            await screen.end()
    lines = screen.words.splitlines()
    assert max(len(line) for line in lines) <= columns
    words = screen.words.split()
    known = {"status": "signed_out", "models": "claude-sonnet-4.5", "doctor": "installation"}
    assert known[command] in words
    if command != "models":
        assert "`kiro-mcp" in words
        assert {"login`,", "KIRO_API_KEY"} <= {word.rstrip(".") for word in words}


async def test_login_shows_the_code_in_a_frame(emulator: RunningEmulator) -> None:
    """The user has to compare the code."""
    environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_MCP_STORE": "memory"}
    emulator.state.accounts.pending_polls = 10_000
    with fail_after(RUN_SECONDS):
        async with on_terminal("login", "--no-browser", environ=environ) as screen:
            await screen.until("waiting for you to allow it in the browser … 0 s")
            await screen.press(CTRL_C)
            assert await screen.end() == 130
    lines = screen.words.splitlines()
    assert any(line.strip("│ ").startswith("EMUL-") for line in lines if line.startswith("│"))
    assert screen.seen.rindex(HIDE_CURSOR) < screen.seen.rindex(SHOW_CURSOR)


@pytest.mark.parametrize("variable", ["", "BROWSER"])
async def test_the_browser_opens_only_in_a_window(
    variable: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Where there is no window, Python would start lynx in the middle of the login."""
    browser = tmp_path / "lynx"
    browser.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/opened"\n')
    browser.chmod(0o700)
    environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "HOME": str(tmp_path), "BROWSER": ""}
    environ |= {"DISPLAY": "", "WAYLAND_DISPLAY": "", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    environ |= {variable: f"{browser} %s"} if variable else {}
    emulator.state.accounts.pending_polls = 10_000
    with fail_after(RUN_SECONDS):
        async with on_terminal("login", environ=environ) as screen:
            await screen.until("waiting for you")
            await screen.press(CTRL_C)
            assert await screen.end() == 130
    assert (tmp_path / "opened").exists() == bool(variable)


@contextmanager
def full_listener() -> Generator[str]:
    """Yield an address that nobody can connect to, for its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_ctrl_c_while_connecting_ends_at_once() -> None:
    """Exit code 130, no traceback, and a visible cursor."""
    with fail_after(RUN_SECONDS), full_listener() as url:
        environ = {"KIRO_MCP_ENDPOINT_URL": url, "KIRO_API_KEY": EMULATOR_API_KEY}
        async with on_terminal("ask", "x", environ=environ) as screen:
            await screen.until("thinking … ")
            await screen.press(CTRL_C)
            assert await screen.end() == 130
    assert "Traceback" not in screen.words
    assert "Interrupted." in screen.words
    assert screen.seen.rindex(HIDE_CURSOR) < screen.seen.rindex(SHOW_CURSOR)


@pytest.mark.parametrize("said", ["", "Half an ans"], ids=["before the first token", "mid-stream"])
async def test_ctrl_c_ends_the_answer_here_and_upstream(
    said: str, emulator: RunningEmulator
) -> None:
    """What was printed stays, and the prompt begins a line of its own."""
    begin = Send(frames.text(said)) if said else Send(b"")
    emulator.state.enqueue((begin, NEVER_ENDS))
    with fail_after(RUN_SECONDS):
        async with on_terminal("ask", "x", environ=against(emulator)) as screen:
            await emulator.state.until(lambda state: state.open_streams == 1)
            await screen.until(said or "thinking … ")
            await screen.press(CTRL_C)
            assert await screen.end() == 130
        await emulator.state.until(lambda state: state.open_streams == 0)
    assert "Traceback" not in screen.words
    assert f"{said}^C\nInterrupted.\n" in screen.words if said else "Interrupted.\n" in screen.words
    assert screen.seen.rindex(HIDE_CURSOR) < screen.seen.rindex(SHOW_CURSOR)


async def test_ctrl_c_ends_a_command_with_a_full_output_pipe(emulator: RunningEmulator) -> None:
    """`less` leaves a full pipe."""
    flood = Send(frames.text("x" * 1_000_000, delta_characters=50_000))
    emulator.state.enqueue((flood, NEVER_ENDS))
    with fail_after(RUN_SECONDS):
        async with on_terminal("ask", "x", stdout=False, environ=against(emulator)) as screen:
            await screen.until("thinking … ")
            await emulator.state.until(lambda state: state.open_streams == 1)
            assert screen.process.stdout
            await screen.process.stdout.receive(1)
            await screen.press(CTRL_C)
            assert await screen.process.wait() == 130
        await emulator.state.until(lambda state: state.open_streams == 0)


async def test_ctrl_c_while_standard_input_is_read_ends_at_once() -> None:
    """`-` reads the terminal until Ctrl-D."""
    with fail_after(RUN_SECONDS):
        async with on_terminal("ask", "-", "--offline") as screen:
            await screen.until("Type the prompt; Ctrl-D ends it.")
            await screen.press(b"half a pro")
            await screen.press(CTRL_C)
            assert await screen.end() == 130
    assert "Traceback" not in screen.words


async def test_the_server_on_a_terminal_says_what_it_waits_for() -> None:
    """A user who only tries it would think that it hangs."""
    with fail_after(30):
        async with on_terminal() as screen:
            await screen.until("kiro-mcp --help")
            await screen.press(CTRL_C)
            assert await screen.end() == 130
    assert "for a client that starts this" in screen.words
    assert "Traceback" not in screen.words
