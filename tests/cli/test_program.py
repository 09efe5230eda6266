"""The commands with the engine kiro-cli, on the stand-in of the vendor's program."""

import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from anyio import fail_after

from kiro_mcp.emulator.kiro_cli import UsageError, read_options
from tests.support.api import CHAT, MESSAGES, apis_offline, question
from tests.support.forked import run_forked
from tests.support.kiro_cli import stand_in
from tests.support.stdio import COMMAND, PROMPTLY_SECONDS, environment, started

RUN_SECONDS = 60
"""How long a command may take on a busy machine."""

ENGINE = {"KIRO_MCP_ENGINE": "kiro-cli"}


async def run(*arguments: str, **variables: str) -> CompletedProcess[bytes]:
    with fail_after(RUN_SECONDS):
        return await run_forked(*arguments, env=environment(**ENGINE, **variables))


async def test_the_stand_in_answers_offline_in_any_folder(tmp_path: Path) -> None:
    """Neither a program that the user named nor a module of the folder is run instead."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    with fail_after(RUN_SECONDS):
        done = await run_forked(
            *("ask", "--offline", "Say hello"),
            env=environment(**ENGINE, KIRO_MCP_KIRO_CLI="/no/such/program"),
            cwd=tmp_path,
        )
    assert "You said: Say hello" in done.stdout.decode()
    assert "credits" in done.stderr.decode()
    assert done.returncode == 0


async def test_offline_the_models_are_those_of_the_stand_in() -> None:
    done = await run("models", "--offline")
    assert b"claude-opus" in done.stdout
    assert b"live list" in done.stderr


async def test_offline_over_stdio_the_stand_in_answers_and_ends_with_the_server() -> None:
    command = (*COMMAND, "serve", "--offline")
    with fail_after(RUN_SECONDS):
        async with started(environment(**ENGINE), command) as server:
            await server.initialize()
            called = await server.call("ask_claude", prompt="Say hello")
            assert "Say hello" in called["structuredContent"]["text"]
            await server.stdin.aclose()
            with fail_after(PROMPTLY_SECONDS):
                assert await server.process.wait() == 0


async def test_offline_over_http_both_apis_answer_by_the_stand_in() -> None:
    with fail_after(RUN_SECONDS):
        async with apis_offline(**ENGINE) as (server, client):
            for path in (CHAT, MESSAGES):
                answer = await client.post(path, json=question(path, "hello"))
                assert "You said: hello" in answer.text
            server.terminate()
            assert await server.wait() == 143


async def test_the_stand_in_can_be_set_as_the_program(tmp_path: Path) -> None:
    """A user's CI names it in KIRO_MCP_KIRO_CLI, as `emulate --acp` prints it."""
    done = await run("emulate", "--acp", "--dialect", "v2", "--scene", "refusal")
    variables = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert variables["KIRO_MCP_ENGINE"] == "kiro-cli"
    program = variables["KIRO_MCP_KIRO_CLI"].removeprefix("kiro-mcp")
    named = {"KIRO_MCP_KIRO_CLI": f"{' '.join(COMMAND)}{program}", "HOME": str(tmp_path)}
    done = await run("ask", "Say hello", **named)
    assert b"refus" in done.stderr
    done = await run("models", **named)
    assert b"claude-opus" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--version"], "kiro-cli 2."),
        (["acp", "--help"], "--auth-method"),
        (["whoami"], "Logged in"),
        (["chat", "--list-models", "--format", "json"], '"default_model"'),
    ],
)
async def test_the_stand_in_answers_what_kiro_cli_answers(words: list[str], said: str) -> None:
    done = await run("emulate", "--acp", *words)
    assert said in done.stdout.decode()
    assert done.returncode == 0


async def test_a_wrong_scene_is_refused_with_the_known_ones() -> None:
    """Also before any settings are shown, which could not work."""
    for words in (("whoami",), ()):
        done = await run("emulate", "--acp", "--scene", "no_such_scene", *words)
        assert done.returncode == 2
        assert b"hang_prompt" in done.stderr
        assert done.stdout == b""
    done = await run("emulate", "acp")
    assert done.returncode == 2
    assert b"--acp" in done.stderr


async def test_a_mistyped_option_of_the_emulator_is_named_with_the_right_one() -> None:
    done = await run("emulate", "--prot", "5")
    assert done.returncode == 2
    assert b"No such option" in done.stderr
    assert b"--port" in done.stderr


async def test_status_and_doctor_name_the_program_and_its_login() -> None:
    status = await run("status", KIRO_MCP_KIRO_CLI=stand_in(dialect="v2"))
    assert status.returncode == 0
    assert b"signed_in" in status.stdout
    assert b"kiro-cli 2.19.1, dialect v2, " in status.stdout
    doctor = await run("doctor", KIRO_MCP_KIRO_CLI=stand_in())
    said = doctor.stdout.decode()
    assert "ok       program: kiro-cli 2.28.0, dialect v3, " in said
    assert "ok       sign-in: the program is signed in" in said
    assert "ok       models: the program lists" in said
    assert "max_tokens" in said
    assert "token" not in said.replace("max_tokens", "").replace("counts of tokens", "")
    assert doctor.returncode == 0


async def test_signed_out_every_command_says_which_command_signs_in() -> None:
    named = {"KIRO_MCP_KIRO_CLI": stand_in("not_logged_in")}
    for words in (["status"], ["doctor"], ["ask", "hi"]):
        done = await run(*words, **named)
        assert done.returncode == 3, words
        assert b"`kiro-cli login --use-device-flow`" in done.stdout + done.stderr


@pytest.mark.parametrize(("command", "instead"), [("login", "login"), ("logout", "logout")])
async def test_signing_in_and_out_is_left_to_the_program(command: str, instead: str) -> None:
    done = await run(command, KIRO_MCP_KIRO_CLI=stand_in())
    assert done.returncode == 2
    assert f"Run `kiro-cli {instead}`" in done.stderr.decode()


@pytest.mark.parametrize(
    ("program", "said"), [("/no/kiro-cli", "was not found"), ("old", "so it is too old")]
)
async def test_a_program_that_cannot_be_used_is_a_failed_check(program: str, said: str) -> None:
    named = stand_in("old") if program == "old" else program
    done = await run("doctor", KIRO_MCP_KIRO_CLI=named)
    assert done.returncode == 5
    assert said in done.stdout.decode()
    assert "KIRO_MCP_ENGINE=direct" in done.stdout.decode()


async def test_an_installed_entry_with_this_engine_needs_no_login(tmp_path: Path) -> None:
    file = str(tmp_path / "mcp.json")
    env = ("--env", "KIRO_MCP_ENGINE=kiro-cli")
    done = await run("install", "cursor", "--file", file, *env, HOME=str(tmp_path))
    assert done.returncode == 0
    assert b"signed in" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale"], "--scale needs a value"),
        (["--scale", "fast"], "--scale 'fast' is not a number"),
        (["--scene", "none"], "no scene 'none'; known are"),
        (["--dialect", "v9"], "no dialect 'v9'"),
    ],
)
def test_a_wrong_option_of_the_stand_in_is_named(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        read_options(words)
