"""The pytest plugin, as other people's suites use it: each is run by a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import anyio
from anyio import fail_after

from tests.support.stdio import COMMAND, environment

CONFTEST = 'pytest_plugins = ["kiro_mcp.emulator.pytest_plugin"]\n'

SUITE = '''
import json
import os
import subprocess

import anyio
import pytest
from mcp.client import Client

from kiro_mcp.emulator import Send, frames
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine


async def answer_to(kiro_emulator, prompt):
    """An agent, as far as a test of the fixture needs one."""
    with anyio.fail_after(20):
        server = build_server(lambda: Engine.from_environ(kiro_emulator.env))
        async with Client(server) as client:
            result = await client.call_tool("ask_claude", {"prompt": prompt})
    return result.structured_content


def ask(kiro_emulator, prompt):
    return anyio.run(answer_to, kiro_emulator, prompt)["text"]
'''

SYNC = """
def test_a_text_is_enqueued_and_the_prompt_is_seen(kiro_emulator):
    kiro_emulator.enqueue("It is warm.")
    assert ask(kiro_emulator, "Paris?") == "It is warm."
    assert kiro_emulator.prompts == ["Paris?"]
    assert "canned" in ask(kiro_emulator, "Rome?")
    assert kiro_emulator.requests[1].body["conversationState"]


def test_a_process_is_sent_to_the_emulator(kiro_emulator):
    kiro_emulator.enqueue("It is warm.")
    environ = {**os.environ, **kiro_emulator.env}
    done = subprocess.run([*COMMAND, "ask", "Paris?"], env=environ, capture_output=True)
    assert done.stdout == b"It is warm.\\n", done.stderr


def test_steps_are_enqueued(kiro_emulator):
    kiro_emulator.enqueue([{"text": "warm"}, {"text": "er"}], [{"text": "cold"}])
    assert [ask(kiro_emulator, "x"), ask(kiro_emulator, "x")] == ["warmer", "cold"]


def test_an_emulators_own_script_is_enqueued(kiro_emulator):
    kiro_emulator.enqueue((Send(frames.text("Own.") + frames.ending("END_TURN")),))
    assert ask(kiro_emulator, "x") == "Own."


def test_a_script_file_is_loaded(kiro_emulator, tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"answers": [{"when": "Paris", "steps": [{"text": "Oui."}]}]}))
    kiro_emulator.load(path)
    assert ask(kiro_emulator, "Paris?") == "Oui."


def test_steps_that_cannot_be_played_are_refused_in_the_test(kiro_emulator):
    with pytest.raises(InvalidRequest, match="steps.0."):
        kiro_emulator.enqueue([{"txt": "x"}])


def test_nothing_is_left_from_another_test(kiro_emulator):
    assert kiro_emulator.prompts == []


def test_the_servers_files_stay_in_the_tests_own_folder(kiro_emulator, tmp_path):
    ask(kiro_emulator, "x")
    assert (tmp_path / "kiro-mcp" / "conversations.sqlite3").exists()


def test_tool_uses_that_are_enqueued_have_ids_of_their_own(kiro_emulator):
    steps = [{"tool_use": {"name": "n"}}]
    kiro_emulator.enqueue(steps, steps)
    calls = [anyio.run(answer_to, kiro_emulator, "x")["tool_calls"] for _ in range(2)]
    assert calls[0][0]["name"] == "n"
    assert calls[0][0]["id"] != calls[1][0]["id"]
"""

ASYNC = """
@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_async(kiro_emulator):
    kiro_emulator.enqueue("It is warm.")
    assert (await answer_to(kiro_emulator, "Paris?"))["text"] == "It is warm."
    assert kiro_emulator.prompts == ["Paris?"]
"""

FAILING = """
def test_failing(kiro_emulator):
    assert kiro_emulator.url == "nowhere"
"""


async def outcome_of(folder: Path, suite: str, conftest: str) -> tuple[int, str]:
    """Run a suite with warnings as errors, and return its exit code and what was said."""
    (folder / "conftest.py").write_text(conftest, "utf-8")
    (folder / "test_agent.py").write_text(suite, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."]
    with fail_after(120):
        done = await anyio.run_process(
            command,
            check=False,
            cwd=folder,
            env=environment(),
            stderr=subprocess.STDOUT,
        )
    return done.returncode, done.stdout.decode()


async def test_a_suite_gets_the_emulator_as_a_fixture_and_its_failing_test_ends_like_any_other(
    tmp_path: Path,
) -> None:
    """The plugin's own description. Neither a hang nor a warning comes after a failure."""
    suite = f"COMMAND = {COMMAND!r}\n{SUITE}{SYNC}{ASYNC}{FAILING}"
    code, said = await outcome_of(tmp_path, suite, CONFTEST)
    assert code == 1, said
    assert "1 failed, 10 passed" in said
    assert "FAILED test_agent.py::test_failing" in said


async def test_without_the_plugin_there_is_no_fixture(tmp_path: Path) -> None:
    """Nobody's pytest imports this package unasked."""
    code, said = await outcome_of(tmp_path, FAILING, conftest="")
    assert code == 1, said
    assert "fixture 'kiro_emulator' not found" in said
