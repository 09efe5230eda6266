"""The command line, as a person runs it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import anyio
import httpx
import pytest
from anyio import fail_after
from anyio.abc import Process

from kiro_mcp._version import __version__
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from tests.support import mcp
from tests.support.forked import run_forked
from tests.support.stdio import COMMAND, environment

RUN_SECONDS = 30
"""How long a command may take on a busy machine; it takes about one second."""


needs_full_disk = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="This system has no disk that is always full."
)


async def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    with fail_after(RUN_SECONDS):
        return await run_forked(*arguments, env=environment(**environ))


async def test_ask_prints_the_answer_to_stdout_and_its_cost_to_stderr() -> None:
    """README's main command: stdout is for pipes, stderr is for people."""
    done = await run("ask", "--offline", "Say hello")
    assert done.returncode == 0, done.stderr.decode()
    assert b"Say hello" in done.stdout
    assert b"credits" in done.stderr
    assert b"credits" not in done.stdout


async def test_offline_uses_all_settings_except_credentials_and_places(tmp_path: Path) -> None:
    """Settings can be tried offline; nothing is sent or saved."""
    done = await run(
        "ask",
        "--offline",
        "hi",
        KIRO_MCP_MODEL="claude-haiku-4.5",
        KIRO_MCP_DEBUG_MODE="all",
        KIRO_MCP_DEBUG_DIR=str(tmp_path / "captures"),
        KIRO_MCP_HOME=str(tmp_path / "home"),
        KIRO_MCP_PROXY_URL="http://127.0.0.1:1",
        KIRO_MCP_ENDPOINT_URL_RUNTIME="http://127.0.0.1:1",
        KIRO_API_KEY="ksk_mine",
        KIRO_API_REGION="no region",
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.startswith(b"claude-haiku-4.5")
    assert len(list((tmp_path / "captures").iterdir())) == 1
    assert not (tmp_path / "home").exists()


async def test_offline_reports_an_invalid_setting() -> None:
    done = await run("ask", "--offline", "hi", KIRO_MCP_MAX_RETRIES="many")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"KIRO_MCP_MAX_RETRIES" in done.stderr


async def test_ask_goes_to_the_service_with_the_users_credential(
    emulator: RunningEmulator,
) -> None:
    """Without `--offline`, settings decide where requests go."""
    done = await run(
        "ask",
        "hi",
        "--model",
        "claude-haiku-4.5",
        "--system",
        "Be brief.",
        KIRO_MCP_ENDPOINT_URL=emulator.url,
        KIRO_API_KEY=EMULATOR_API_KEY,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"claude-haiku-4.5" in done.stderr
    assert len(emulator.state.requests) == 1


async def test_a_partial_answer_is_printed_with_a_warning(emulator: RunningEmulator) -> None:
    """The part that arrived is never lost."""
    done = await run(
        "ask",
        "/emulate reset",
        KIRO_MCP_ENDPOINT_URL=emulator.url,
        KIRO_API_KEY=EMULATOR_API_KEY,
    )
    assert done.returncode == 5
    assert done.stdout.strip()
    assert b"warning: The answer is incomplete" in done.stderr


@pytest.mark.parametrize(
    ("prompt", "environ", "code", "says"),
    [
        ("hi", {}, 3, b"auth_required"),
        (" ", {}, 2, b"invalid_request"),
        ("hi", {"KIRO_API_KEY": "ksk_x"}, 4, b"network_error"),
        ("/emulate suspended", {"KIRO_API_KEY": EMULATOR_API_KEY}, 5, b"account_suspended"),
        ("/emulate expired", {"KIRO_API_KEY": EMULATOR_API_KEY}, 3, b"auth_expired"),
    ],
)
async def test_each_kind_of_failure_has_its_exit_code(
    prompt: str, environ: dict[str, str], code: int, says: bytes, emulator: RunningEmulator
) -> None:
    """README's exit codes: 2 usage, 3 sign-in, 4 network, 5 the service refused."""
    url = "http://127.0.0.1:1" if code == 4 else emulator.url
    done = await run("ask", prompt, KIRO_MCP_ENDPOINT_URL=url, **environ)
    assert (done.returncode, done.stdout) == (code, b"")
    assert says in done.stderr


async def test_models_lists_every_model_in_full_width() -> None:
    """In a pipe nothing is cut off."""
    done = await run("models", "--offline", COLUMNS="20")
    assert done.returncode == 0, done.stderr.decode()
    assert b"claude-sonnet-4.5" in done.stdout
    assert b"live list" in done.stderr


async def test_models_works_signed_out() -> None:
    """It says which list it shows."""
    done = await run("models")
    assert done.returncode == 0
    assert b"auto" in done.stdout
    assert b"builtin list" in done.stderr


@pytest.mark.parametrize("command", ["models", "status", "login"])
async def test_an_invalid_setting_is_reported(command: str) -> None:
    done = await run(command, KIRO_MCP_MODEL_CACHE_TTL="never")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"KIRO_MCP_MODEL_CACHE_TTL" in done.stderr
    assert done.stderr.count(b"\n") == 1


async def test_models_as_json_is_the_whole_list() -> None:
    """For programs."""
    done = await run("models", "--json", "--offline")
    assert (done.returncode, done.stderr) == (0, b"")
    mcp.assert_valid("list_models", json.loads(done.stdout))


async def test_models_are_aligned_without_escape_sequences_in_a_pipe() -> None:
    """For `grep` and `awk`."""
    done = await run("models", "--offline")
    lines = {line.split()[0]: line.split() for line in done.stdout.decode().splitlines()}
    assert lines["claude-haiku-4.5"][1:] == ["200K", "64K", "0.4", "none", "text,", "image"]
    # What a long prompt costs comes last, so that the other columns keep their numbers.
    assert lines["claude-haiku-5.5"][3] == "0.06"
    assert lines["claude-haiku-5.5"][-3:] == ["0.3", "above", "100K"]
    assert lines["gpt-5.6-sol"][-3:] == ["8.8", "above", "272K"]
    assert b" \n" not in done.stdout


async def test_a_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = await run("emulate", "--port", str(port))
    assert done.returncode == 4
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use.".encode() in done.stderr


@asynccontextmanager
async def emulating(*options: str) -> AsyncGenerator[tuple[Process, dict[str, str]]]:
    """Run `emulate` on a free port; yield its process and the variables that it prints."""
    command = [*COMMAND, "emulate", "--port", "0", *options]
    with fail_after(RUN_SECONDS):
        async with await anyio.open_process(command, stdout=PIPE, env=environment()) as process:
            try:
                assert process.stdout
                lines = b""
                while lines.count(b"\n") < 2:
                    lines += await process.stdout.receive()
                yield process, dict(line.split("=", 1) for line in lines.decode().splitlines())
            finally:
                if process.returncode is None:
                    process.kill()


async def test_emulate_serves_until_it_is_interrupted() -> None:
    """Its output is what another shell needs to use it."""
    async with emulating() as (process, settings):
        done = await run("ask", "hi", **settings)
        assert done.returncode == 0, done.stderr.decode()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_emulate_answers_with_the_users_scripts(tmp_path: Path) -> None:
    """A developer's agent gets the developer's own answers in CI."""
    script = tmp_path / "mine.json"
    script.write_text('{"answers": [{"when": "Paris", "steps": [{"text": "It is warm."}]}]}')
    async with emulating("--script", str(script)) as (_, settings):
        done = await run("ask", "How is Paris?", **settings)
        assert done.stdout == b"It is warm.\n", done.stderr.decode()


async def test_emulate_refuses_an_invalid_script(tmp_path: Path) -> None:
    """The error comes before it serves."""
    (tmp_path / "bad.json").write_text('{"answers": [{"steps": [{"txt": "x"}]}]}')
    done = await run("emulate", "--port", "0", "--script", str(tmp_path / "bad.json"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"answers[0].steps[0]" in done.stderr
    done = await run("emulate", "--port", "0", "--script", str(tmp_path / "none.json"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"none.json' cannot be used: it cannot be read (No such file" in done.stderr


async def test_emulate_records_every_request_without_secrets(tmp_path: Path) -> None:
    """Also a login that the emulator does not know, and an operation that nobody has described."""
    folder = tmp_path / "seen"
    async with emulating("--record", str(folder)) as (_, settings):
        url = settings["KIRO_MCP_ENDPOINT_URL"]
        async with httpx.AsyncClient(headers={"Authorization": "Bearer a.real.login"}) as client:
            found = await client.post(
                url,
                headers={"X-Amz-Target": "KiroControlPlaneBearerService.ListAvailableModels"},
                json={
                    "profileArn": "arn:aws:codewhisperer:us-east-1:111122223333:profile/A",
                    "origin": "KIRO_CLI",
                },
            )
            unknown = await client.put(f"{url}/telemetry/v2?who=me@example.com")
            for odd in ('{"half": "\\ud800"}', '{"deep": ' + "[" * 900 + "]" * 900 + "}"):
                assert (await client.post(f"{url}/odd", content=odd)).status_code == 404
    assert (found.status_code, unknown.status_code) == (200, 404)
    files = sorted(folder.iterdir())
    names = [file.name for file in files]
    assert names[:2] == ["0001-ListAvailableModels.json", "0002-telemetry-v2.json"]
    assert names[2:] == ["0003-odd.json", "0004-odd.json"]
    assert json.loads(files[2].read_text())["body"] == {"half": "\ud800"}
    assert {file.stat().st_mode & 0o777 for file in (folder, *files)} == {0o700, 0o600}
    text = "".join(file.read_text() for file in files)
    assert "KiroControlPlaneBearerService.ListAvailableModels" in text
    assert not [secret for secret in ("a.real.login", "111122223333", "me@") if secret in text]


async def test_emulate_records_only_into_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = await run("emulate", "--port", "0", "--record", str(tmp_path))
    assert done.returncode == 2
    assert b"is not empty. Name a new one." in done.stderr


async def test_the_version_is_the_packages() -> None:
    done = await run("--version")
    assert done.stdout.decode().strip() == f"kiro-mcp, version {__version__}"


@pytest.mark.parametrize("option", ["--help", "--version"])
async def test_help_and_version_do_not_import_mcp(option: str) -> None:
    """Importing it takes half a second."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], option]
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(command, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"kiro-mcp" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "click" in imported
    assert not imported & {"mcp", "httpx", "rich"}


async def test_a_command_works_with_closed_standard_streams() -> None:
    """Some programs start other programs this way."""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, "ask", "--offline", "hi"]
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(command, check=False, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_the_help_shows_each_summary_in_full() -> None:
    """Click cuts off what is too long for a line."""
    done = await run("--help")
    assert b"..." not in done.stdout.partition(b"Commands:")[2]


@needs_full_disk
async def test_a_failed_last_write_is_reported() -> None:
    """A pipe buffers the output until the end, and then the disk may be full."""
    program = (
        "import click, sys; from kiro_mcp.cli import app; sys.argv = ['kiro-mcp', 'x']\n"
        "app.commands.add_command(click.Command('x', callback=lambda: print('x')))\n"
        "app.run()"
    )
    with fail_after(RUN_SECONDS):
        async with await anyio.open_file("/dev/full", "wb") as full:
            done = await anyio.run_process(
                [sys.executable, "-c", program],
                stdout=full.wrapped,
                check=False,
                env=environment(),
            )
    assert done.returncode == 1
    assert done.stderr == b"error: The output cannot be written (No space left on device).\n"


@pytest.mark.parametrize(
    ("command", "code", "printed"),
    [
        (["ask", "--offline", "Say hello"], 0, b"Say hello\n"),
        (["status", "--offline", "--json"], 0, b"}\n"),
        (["ask"], 2, b""),
        (["aks"], 2, b""),
        (["serve", "--transport", "http", "--host", "0.0.0.0"], 2, b""),
    ],
)
async def test_a_closed_stderr_does_not_stop_a_command(
    command: list[str], code: int, printed: bytes
) -> None:
    """An answer is worth more than a warning beside it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with fail_after(RUN_SECONDS):
            environ = environment(KIRO_MCP_LOG_LEVEL="DEBUG", KIRO_MCP_MODLE="x")
            streams = {"stderr": writer}
            done = await run_forked(*command, env=environ, stdin=b"", streams=streams)
    finally:
        os.close(writer)
    assert done.returncode == code
    assert done.stdout.endswith(printed)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("ask --env-file x hi", "It comes before the command: kiro-mcp --env-file … ask."),
        ("--model x ask hi", "It comes after the command: kiro-mcp ask --model …"),
        ("models --model x", "It is an option of `ask`."),
        ("ask --modle x hi", "Did you mean"),
    ],
)
async def test_a_wrong_option_names_the_right_one_or_its_command(typed: str, says: str) -> None:
    """The nearest name within one command is often another option."""
    done = await run(*typed.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr.decode()


async def test_messages_name_commands_instead_of_tools() -> None:
    """Nobody can call a tool at a prompt."""
    for command in (["ask", "hi"], ["status"]):
        done = await run(*command)
        assert done.returncode == 3
        assert b"Run `kiro-mcp login`, or set KIRO_API_KEY" in done.stdout + done.stderr
        assert b"tool" not in done.stdout + done.stderr


async def test_the_columns_of_the_models_are_explained() -> None:
    """On standard error, so that standard output is the table alone."""
    done = await run("models", "--offline")
    said = done.stderr.decode()
    for column in done.stdout.decode().splitlines()[0].split("  "):
        if column.strip() not in ("", "model", "input"):
            assert column.strip() in said
    assert "tags: " in said


async def test_an_unknown_command_is_a_usage_error() -> None:
    done = await run("aks", "hi")
    assert done.returncode == 2
