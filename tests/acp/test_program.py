"""The vendor's program: found where it is installed, read tolerantly, ended with its children."""

import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.acp.program import (
    Program,
    child_environment,
    dialect_of,
    find_program,
    read_flags,
    read_models,
    read_version,
    start,
    stop,
)
from kiro_mcp.acp.rpc import Peer
from kiro_mcp.chat import JsonObject
from kiro_mcp.errors import InvalidRequest, ServiceUnavailable
from kiro_mcp.wire.json_values import UnreadableError

pytestmark = pytest.mark.anyio


def program(tmp_path: Path, name: str = "kiro-cli") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    return path


def test_a_path_with_blanks_is_a_program_and_a_command_line_is_split(tmp_path: Path) -> None:
    path = program(tmp_path, "Kiro CLI.app/kiro-cli")
    assert find_program(str(path), {}).command == (str(path),)
    found = find_program(f"'{path}' --scene 'two words'", {})
    assert found.command == (str(path), "--scene", "two words")


def test_the_program_is_found_in_path_and_where_it_is_installed(tmp_path: Path) -> None:
    in_home = program(tmp_path, ".local/bin/kiro-cli")
    assert find_program("", {"HOME": str(tmp_path), "PATH": ""}).command == (str(in_home),)
    in_path = program(tmp_path / "bin")
    environ = {"HOME": str(tmp_path), "PATH": str(in_path.parent)}
    assert find_program("", environ).command == (str(in_path),)


@pytest.mark.parametrize("named", ["/nowhere/kiro-cli", "'", "no-such-program --flag"])
def test_a_program_that_is_not_there_says_what_to_do(named: str) -> None:
    with pytest.raises(InvalidRequest, match=r"not found.*KIRO_MCP_ENGINE=direct"):
        find_program(named, {})


def test_the_program_gets_its_homes_proxies_and_depth_and_nothing_else() -> None:
    environ = {
        "HOME": "/home/u",
        "https_proxy": "http://proxy",
        "XDG_DATA_HOME": "/data",
        "KIRO_REFRESH_TOKEN": "secret",
        "KIRO_MCP_HTTP_TOKEN": "secret",
        "PYTHONPATH": "/x",
    }
    assert child_environment(environ, depth=1) == {
        "HOME": "/home/u",
        "https_proxy": "http://proxy",
        "XDG_DATA_HOME": "/data",
        "KIRO_NO_AUTO_UPDATE": "1",
        "KIRO_MCP_DEPTH": "2",
    }


@pytest.mark.parametrize(
    ("help_text", "dialect"),
    [
        ("Usage: kiro-cli acp [OPTIONS]\n  --agent <AGENT>\n  --agent-engine <ENGINE>", "v2"),
        ("  --agent <AGENT>\n  --auth-method <METHOD>", "v3"),
        ("error: unrecognized subcommand 'acp'", None),
    ],
)
def test_the_dialect_is_chosen_by_the_flags(help_text: str, dialect: str | None) -> None:
    flags = read_flags(help_text)
    assert (dialect_of(flags) if flags else None) == dialect


@pytest.mark.parametrize(
    ("text", "version"),
    [("kiro-cli 2.21.4\n", (2, 21, 4)), ("kiro-cli 3.0-beta", (3, 0)), ("?", ())],
)
def test_a_version_is_read_from_what_the_program_says(text: str, version: tuple[int, ...]) -> None:
    assert read_version(text)[: len(version)] == version


def test_models_are_read_after_other_output_and_completed_from_the_known_ones() -> None:
    text = (
        'checking\n{"models":[{"model_id":"claude-sonnet-5","model_name":"Mine","rate_multiplier":'
        '1.5,"context_window_tokens":1000},{"model_name":"no id"},{"model_id":"new"}],'
        '"default_model":"auto"}'
    )
    models, default = read_models(text)
    assert [model.id for model in models] == ["claude-sonnet-5", "new"]
    assert (models[0].name, models[0].rate_multiplier) == ("Mine", 1.5)
    assert models[0].context_window == 1000
    assert default == "auto"


@given(st.text())
def test_reading_what_it_says_never_fails_otherwise(text: str) -> None:
    read_flags(text)
    read_version(text)
    with suppress(UnreadableError):
        read_models(text)


async def test_a_run_that_does_not_end_is_ended_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo $$ >>{pids}; (trap '' TERM; echo $$ >>{pids}; sleep 60) & sleep 60"
    with anyio.fail_after(20), pytest.raises(ServiceUnavailable, match="did not end") as caught:
        await Program(command=("/bin/sh", "-c", script), environ=dict(os.environ)).run(seconds=0.3)
    assert caught.value.code == "timeout"
    for pid in pids.read_text().split():
        await gone(int(pid))


async def test_children_that_ignore_signals_and_a_closed_stdin_are_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, time; os.fork(); signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    with anyio.fail_after(20):
        process = await start((sys.executable, "-c", script), dict(os.environ), cwd=tmp_path)
        assert process.stdout
        said = b""
        while said.count(b"\n") < 2:
            said += await process.stdout.receive()
        await stop(process, seconds=0.1)
        assert process.returncode == -signal.SIGKILL
        for pid in said.split():
            await gone(int(pid))


async def test_a_program_that_takes_no_prompt_and_closes_its_output_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = "import os, time; os.read(0, 1); os.close(1); time.sleep(60)"

    prompt: JsonObject = {"prompt": "x" * 1_000_000}

    async def ignore(method: str, params: JsonObject) -> None:
        pass

    with anyio.fail_after(20):
        process = await start((sys.executable, "-c", script), dict(os.environ), cwd=tmp_path)
        peer = Peer(process, on_notification=ignore, on_request=ignore)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.request, "session/prompt", prompt)
            await peer.run()
            tasks.cancel_scope.cancel()
        await stop(process, seconds=0)
    gc.collect()
    assert not caplog.records


async def gone(pid: int) -> None:
    """Wait until a process has ended, if it is not yet waited for."""
    with anyio.fail_after(10):
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return
            if state == "Z":
                return
            await anyio.sleep(0.01)
