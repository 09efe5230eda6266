"""`kiro-mcp ask`, as a program in a pipe."""

import json
import signal
import sys
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess
from types import MappingProxyType
from typing import Any

import anyio
import mcp_types as types
import pytest
from anyio import fail_after
from anyio.abc import Process

from kiro_mcp.cli.ask import LastConversation
from kiro_mcp.emulator import EMULATOR_API_KEY, Pause, RunningEmulator, Send, frames
from kiro_mcp.errors import InvalidRequest
from tests.cli.test_commands import RUN_SECONDS, needs_full_disk, run
from tests.support import mcp
from tests.support.forked import run_forked
from tests.support.mcp import sent
from tests.support.stdio import COMMAND, environment

PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACADs="
ANSWER = "This is a canned answer of the emulator. You said: "
NEVER_ENDS = Pause(600)


def against(emulator: RunningEmulator, **environ: str) -> dict[str, str]:
    """The variables that have a command ask this emulator."""
    return {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY, **environ}


async def ask(
    emulator: RunningEmulator,
    *arguments: str,
    stdin: bytes = b"",
    environ: Mapping[str, str] = MappingProxyType({}),
) -> CompletedProcess[bytes]:
    with fail_after(RUN_SECONDS):
        variables = environment(**against(emulator, **environ))
        return await run_forked("ask", *arguments, env=variables, stdin=stdin)


@asynccontextmanager
async def asking(
    emulator: RunningEmulator, prompt: str, *, stdin: int = DEVNULL
) -> AsyncGenerator[Process]:
    """Start a question, and make sure that it is gone in the end."""
    with fail_after(RUN_SECONDS):
        async with await anyio.open_process(
            [*COMMAND, "ask", prompt],
            stdin=stdin,
            stdout=PIPE,
            stderr=PIPE,
            env=environment(**against(emulator)),
        ) as process:
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()


async def read_until(process: Process, text: bytes) -> bytes:
    assert process.stdout
    seen = b""
    while text not in seen:
        seen += await process.stdout.receive()
    return seen


def content(emulator: RunningEmulator) -> str:
    """The text of the last message that reached the emulator."""
    state = sent(emulator)["conversationState"]
    return state["currentMessage"]["userInputMessage"]["content"]


def history(emulator: RunningEmulator) -> list[Any]:
    """The messages before it."""
    return sent(emulator)["conversationState"].get("history", [])


# --- what is printed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "chunk_bytes"),
    [
        ("slow 0.1", 1),
        ("slow 0.1", 65536),
        ("long 500", 1),
        ("long 100000", 4096),
        ("split_tags", 7),
        ("reasoning", 100),
    ],
)
async def test_stdout_has_the_answer_alone(
    prompt: str, chunk_bytes: int, emulator: RunningEmulator
) -> None:
    """No character twice, none lost, and no thinking; then a newline."""
    emulator.state.chunk_bytes = chunk_bytes
    done = await ask(emulator, f"/emulate {prompt}")
    assert done.returncode == 0, done.stderr.decode()
    async with mcp.connected(emulator) as client:
        answer = await mcp.ask(client, prompt=f"/emulate {prompt}")
    assert done.stdout.decode().removesuffix("\n") == answer["text"].removesuffix("\n")
    assert done.stdout.endswith(b"\n")
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
async def test_a_truncated_answer_is_printed_and_exits_with_an_error(
    option: tuple[str, ...], emulator: RunningEmulator
) -> None:
    """A script must notice that an answer is incomplete."""
    cut = frames.text("Once upon") + frames.ending("MAX_TOKENS")
    emulator.state.enqueue((Send(cut),))
    done = await ask(emulator, "Tell.", *option)
    assert done.returncode == 5
    assert b"Once upon" in done.stdout
    assert b"warning: The answer is incomplete" in done.stderr


async def test_the_sources_of_an_answer_are_listed(emulator: RunningEmulator) -> None:
    """A user of licensed code has to know its licence."""
    code = {"licenseName": "MIT", "repository": "a/b", "url": "https://c.example/"}
    licensed = frames.event("codeReferenceEvent", {"references": [code]})
    emulator.state.enqueue((Send(frames.text("So.") + licensed + frames.ending()),))
    done = await ask(emulator, "Why?")
    assert done.stdout == b"So.\n"
    assert b"source: MIT a/b https://c.example/\n" in done.stderr


async def test_an_answer_is_printed_while_it_arrives(emulator: RunningEmulator) -> None:
    """Streamed, also into a pipe; a signal then ends it at once, and upstream, too."""
    emulator.state.enqueue((Send(frames.text("Half an ans")), NEVER_ENDS))
    async with asking(emulator, "x") as process:
        assert await read_until(process, b"ans") == b"Half an ans"
        assert emulator.state.open_streams == 1
        process.send_signal(signal.SIGINT)
        assert process.stderr
        said = b"".join([chunk async for chunk in process.stderr])
        assert await process.wait() == 130
        assert said == b"Interrupted.\n"
        await emulator.state.until(lambda state: state.open_streams == 0)


async def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(
    emulator: RunningEmulator,
) -> None:
    """`| head -1`: when the reader stops, the request ends."""
    many = [step for _ in range(9) for step in (Send(frames.text("line\n" * 9)), Pause(0.1))]
    emulator.state.enqueue((*many, NEVER_ENDS))
    async with asking(emulator, "x") as process:
        await read_until(process, b"line\n")
        assert process.stdout
        # The stream alone would keep its descriptor.
        process.stdout._stream._transport.close()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportAttributeAccessIssue]  # anyio has no other way
        assert process.stderr
        assert b"".join([chunk async for chunk in process.stderr]) == b""
        assert await process.wait() == 141
        await emulator.state.until(lambda state: state.open_streams == 0)


@needs_full_disk
@pytest.mark.parametrize(
    "command",
    [
        ["ask", "--offline", "hi"],
        ["models", "--offline"],
        ["doctor", "--offline"],
        ["install", "cursor", "--dry-run", "--file", "mcp.json"],
    ],
)
async def test_a_full_disk_is_reported(command: list[str]) -> None:
    """The exit code says that the output is not whole."""
    with fail_after(RUN_SECONDS):
        async with await anyio.open_file("/dev/full", "wb") as full:
            streams = {"stdout": full.wrapped.fileno()}
            done = await run_forked(*command, env=environment(), streams=streams)
    assert done.returncode == 1
    assert done.stderr == b"error: The output cannot be written (No space left on device).\n"


@needs_full_disk
async def test_a_full_disk_is_reported_whenever_the_server_ends() -> None:
    """Output that fails ends the call's server; the call may notice that before its own end."""
    ends: list[tuple[int, bytes]] = []

    async def ask_offline(stdout: int) -> None:
        command = ("ask", "--offline", "hi")
        done = await run_forked(*command, env=environment(), streams={"stdout": stdout})
        ends.append((done.returncode, done.stderr))

    with fail_after(RUN_SECONDS):
        async with (
            await anyio.open_file("/dev/full", "wb") as full,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(8):  # On a busy machine a quarter of the calls notice it.
                tasks.start_soon(ask_offline, full.wrapped.fileno())
    assert set(ends) == {(1, b"error: The output cannot be written (No space left on device).\n")}


async def test_an_error_that_an_interruption_causes_is_not_shown() -> None:
    program = """
import os, signal, sys, anyio
from kiro_mcp.cli.session import run_command

async def command():
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await anyio.sleep_forever()
    finally:
        raise RuntimeError("the connection was closed")

sys.exit(run_command(command))
"""
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process([sys.executable, "-c", program], check=False)
    assert (done.returncode, done.stderr) == (130, b"Interrupted.\n")


async def test_json_is_the_whole_result_and_nothing_else(emulator: RunningEmulator) -> None:
    """For programs."""
    done = await ask(emulator, "--json", "Grüße")
    answer = json.loads(done.stdout)
    mcp.assert_valid("ask_claude", answer)
    assert answer["text"] == f"{ANSWER}Grüße"
    assert done.stderr == b""


async def test_a_small_prompt_costs_few_tokens(emulator: RunningEmulator) -> None:
    """The first thing that a new user sees has to be right."""
    done = await ask(emulator, "Just say hello")
    assert b"auto \xc2\xb7 about 4 tokens in, 17 out" in done.stderr
    assert b"under 0.1 % of the context window" in done.stderr


async def test_one_token_is_written_in_the_singular(emulator: RunningEmulator) -> None:
    """Numbers and words agree."""
    done = await ask(emulator, "hi")
    assert b"about 1 token in, 14 out" in done.stderr


async def test_tool_calls_are_reported(emulator: RunningEmulator) -> None:
    """A conversation of another client may have tools."""
    done = await ask(emulator, "/emulate tool_use")
    assert b"warning: Claude calls get_weather. No tool is run here" in done.stderr


# --- what is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["Sum", "up"], b"one\ntwo\n", "Sum up\n\none\ntwo"),
        (["-"], "\ufeffGrüße\n".encode(), "Grüße"),
    ],
    ids=["after the prompt", "for a dash"],
)
async def test_piped_text_becomes_part_of_the_prompt(
    arguments: list[str], stdin: bytes, expected: str, emulator: RunningEmulator
) -> None:
    done = await ask(emulator, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    assert content(emulator).strip() == expected


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "pipe"])
async def test_a_large_piped_text_is_sent_whole(
    is_file: bool, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A pipe holds 64 KiB at a time."""
    lines = "".join(f"line {number}\n" for number in range(20_000))
    path = tmp_path / "lines.txt"
    path.write_text(lines, "utf-8")
    with path.open("rb") as file, fail_after(RUN_SECONDS):
        command = [*COMMAND, "ask", "Sum up"]
        given: dict[str, Any] = {"stdin": file} if is_file else {"input": lines.encode()}
        env = environment(**against(emulator))
        done = await anyio.run_process(command, check=False, env=env, **given)
    assert done.returncode == 0, done.stderr.decode()
    assert content(emulator) == f"Sum up\n\n{lines}"


async def test_a_silent_pipe_does_not_block_the_command(emulator: RunningEmulator) -> None:
    """Programs that run this one may leave its standard input open."""
    async with asking(emulator, "Hi", stdin=PIPE) as process:
        assert await process.wait() == 0
        assert process.stdout
        assert await read_until(process, b"Hi\n") == f"{ANSWER}Hi\n".encode()
        assert process.stderr
        assert b"standard input" not in await process.stderr.receive()
    assert content(emulator) == "Hi"


@pytest.mark.parametrize("prompt", ["Sum up", "-"])
async def test_a_pipe_that_has_sent_data_is_read_to_its_end(
    prompt: str, emulator: RunningEmulator
) -> None:
    """A long pause within a pipe is not its end, and a person is told what is waited for."""
    async with asking(emulator, prompt, stdin=PIPE) as process:
        assert process.stdin
        assert process.stderr
        await process.stdin.send(b"one\n")
        assert b"Reading standard input" in await process.stderr.receive()
        await process.stdin.send(b"two\n")
        await process.stdin.aclose()
        assert await process.wait() == 0
    assert content(emulator).removeprefix("Sum up").strip() == "one\ntwo"


async def test_named_files_and_images_are_sent(tmp_path: Path, emulator: RunningEmulator) -> None:
    """A user who types a path allows it. KIRO_MCP_ROOTS is for models."""
    (tmp_path / "a:b c.py").write_text("x = 'ü'\n", "utf-8")
    (tmp_path / "notes.md").write_bytes(b"# Notes\n")
    (tmp_path / "dot.png").write_bytes(PNG)
    named = ["-f", str(tmp_path / "a:b c.py"), "--file", "~/notes.md", "-i", "~/dot.png"]
    done = await ask(emulator, *named, "What is this?", environ={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr.decode()
    assert content(emulator) == (
        "<document name=\"a:b c.py\">\nx = 'ü'\n\n</document>\n\n"
        '<document name="notes.md">\n# Notes\n\n</document>\n\nWhat is this?'
    )
    message = sent(emulator)["conversationState"]["currentMessage"]["userInputMessage"]
    (image,) = message["images"]
    assert b64decode(image["source"]["bytes"]) == PNG


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], b"invalid_request: Nothing was asked."),
        (["x", "--continue=abc"], b"not_found: Unknown conversation 'abc'"),
    ],
)
async def test_an_invalid_question_names_the_problem(
    arguments: list[str], says: bytes, emulator: RunningEmulator
) -> None:
    """README: exit code 2, and one line that says what to do."""
    done = await ask(emulator, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr
    assert emulator.state.requests_to("GenerateAssistantResponse") == []


async def test_a_schema_gives_json_that_matches_it(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Stdout is the value, whatever the model wrote around it."""
    emulator.state.enqueue((Send(frames.text('```json\n{"a": 1}\n```') + frames.ending()),))
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "required": ["a"]}', "utf-8")
    done = await ask(emulator, "x", "--schema", str(path))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"a": 1})


async def test_an_answer_that_breaks_the_schema_exits_with_an_error(
    emulator: RunningEmulator,
) -> None:
    """The text is printed, because it has been paid for."""
    done = await ask(emulator, "x", "--schema", '{"type": "array"}')
    assert done.returncode == 5
    assert done.stdout.startswith(ANSWER.encode())
    assert b"warning: " in done.stderr


async def test_options_reach_the_service(emulator: RunningEmulator) -> None:
    """README: the model's own names for them."""
    options = ["--model", "sonnet-5", "--effort", "high", "--max-tokens", "2000"]
    done = await ask(emulator, *options, "--system", "Be brief.", "x")
    assert done.returncode == 0, done.stderr.decode()
    fields = sent(emulator)["additionalModelRequestFields"]
    assert (fields["max_tokens"], fields["output_config"]) == (2000, {"effort": "high"})
    assert content(emulator) == "Be brief.\n\nx"


@pytest.mark.parametrize(
    ("options", "code", "says"), [([], 0, b""), (["-i", GIF] * 11, 5, b"image")]
)
async def test_a_dry_run_sends_nothing(
    options: list[str], code: int, says: bytes, emulator: RunningEmulator
) -> None:
    """What the service would refuse is named."""
    done = await ask(emulator, "--dry-run", "x", *options)
    assert done.returncode == code, done.stderr.decode()
    assert b"Nothing was sent." in done.stdout
    assert says in done.stderr
    assert b"tokens in" not in done.stderr
    assert emulator.state.requests_to("GenerateAssistantResponse") == []


# --- conversations ----------------------------------------------------------------------------


async def test_continue_uses_the_last_conversation_of_the_command_line(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """It never continues a conversation of another MCP client, even a newer one."""
    home = {"KIRO_MCP_HOME": str(tmp_path / "home")}
    first = await ask(emulator, "One", environ=home)
    assert b'Continue with: kiro-mcp ask -c "' in first.stderr
    async with mcp.connected(emulator, **home) as client:
        await mcp.ask(client, prompt="Another client's")
    second = await ask(emulator, "-c", "Two", "--json", environ=home)
    answer = json.loads(second.stdout)
    assert answer["conversation_id"].encode() in first.stderr
    assert answer["turn"] == 2
    assert [list(message) for message in history(emulator)] == [
        ["userInputMessage"],
        ["assistantResponseMessage"],
    ]
    third = await ask(emulator, "-c", answer["conversation_id"], "Three", "--json", environ=home)
    assert json.loads(third.stdout)["turn"] == 3


async def test_continue_does_not_use_an_older_conversation_after_an_interrupted_question(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Its result is in a conversation whose id nobody has seen."""
    home = {"KIRO_MCP_HOME": str(tmp_path)}
    await ask(emulator, "One", environ=home)
    emulator.state.enqueue((Send(frames.text("Half")), NEVER_ENDS))
    with fail_after(RUN_SECONDS):
        process = await anyio.open_process(
            [*COMMAND, "ask", "Two"],
            stdin=DEVNULL,
            stderr=None,
            env=environment(**against(emulator, **home)),
        )
        async with process:
            await read_until(process, b"Half")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
    done = await ask(emulator, "-c", "Three", environ=home)
    assert (done.returncode, b"no conversation to continue" in done.stderr) == (2, True)
    async with mcp.connected(emulator, **home) as client:
        (listed,) = (await client.read_resource("kiro://conversations")).contents
    assert isinstance(listed, types.TextResourceContents)
    assert len(json.loads(listed.text)) == 2


async def test_a_conversation_in_memory_is_not_offered_to_continue(
    emulator: RunningEmulator,
) -> None:
    done = await ask(emulator, "x", environ={"KIRO_MCP_STORE": "memory"})
    assert done.returncode == 0, done.stderr.decode()
    assert b"Continue" not in done.stderr


async def test_after_a_failed_save_no_conversation_can_be_continued(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    home = {"KIRO_MCP_HOME": str(tmp_path)}
    await ask(emulator, "One", environ=home)
    (tmp_path / "conversations.sqlite3").unlink()
    (tmp_path / "conversations.sqlite3").mkdir()
    done = await ask(emulator, "Two", environ=home)
    assert (done.returncode, b"Two" in done.stdout) == (0, True)
    assert b"could not be kept" in done.stderr
    assert b"Continue with" not in done.stderr
    done = await ask(emulator, "-c", "Three", environ=home)
    assert (done.returncode, b"no conversation to continue" in done.stderr) == (2, True)


@pytest.mark.parametrize("noted", [b"\xff", b" \n"])
def test_an_unreadable_file_names_no_conversation(noted: bytes, tmp_path: Path) -> None:
    """It does not fail the command."""
    note = tmp_path / "last-conversation"
    note.write_bytes(noted)
    last = LastConversation(note)
    with pytest.raises(InvalidRequest, match="no conversation to continue yet"):
        last.read()
    last.write("an-id")
    assert last.read() == "an-id"
    last.forget()
    assert not note.exists()


def test_an_offline_conversation_cannot_be_continued(tmp_path: Path) -> None:
    """It is not saved."""
    environ = {"KIRO_MCP_HOME": str(tmp_path), "KIRO_MCP_MODEL_CACHE_TTL": "no number"}
    last = LastConversation.of(environ, offline=True)
    last.write("an-id")
    last.forget()
    with pytest.raises(InvalidRequest, match="a conversation ends with its command"):
        last.read()
    assert list(tmp_path.iterdir()) == []


async def test_a_logged_warning_looks_like_any_other_warning() -> None:
    """A person reads it."""
    done = await run("models", KIRO_MCP_MODLE="x", KIRO_MCP_LOG_LEVEL="INFO")
    lines = done.stderr.decode().splitlines()
    assert "warning: No setting is named KIRO_MCP_MODLE. Did you mean KIRO_MCP_MODEL?" in lines


async def test_log_messages_of_a_capture_do_not_go_to_stderr(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A capture takes every line, a person those of `KIRO_MCP_LOG_LEVEL`."""
    environ = {"KIRO_MCP_DEBUG_MODE": "all", "KIRO_MCP_DEBUG_DIR": str(tmp_path)}
    done = await run("ask", "hi", "--json", **against(emulator, **environ))
    assert (done.returncode, done.stderr) == (0, b"")
    [capture] = tmp_path.iterdir()
    assert "DEBUG kiro_mcp" in (capture / "app_logs.txt").read_text("utf-8")
