"""`--env-file`: settings from a file, which is read only where it is named."""

from pathlib import Path

import pytest
from anyio import fail_after

from kiro_mcp.cli.env_file import MAX_BYTES, EnvFileError, add_env_file, parse_env_file
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from tests.cli.test_commands import RUN_SECONDS, run
from tests.support.forked import run_forked
from tests.support.stdio import COMMAND, environment, started


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A=b\r", "b"),
        (" A = b ", "b"),
        ("export A=b", "b"),
        ("A=", ""),
        ('A=""', ""),
        ("A=b # c", "b"),
        ("A=b  # c", "b"),
        ("A=# c", ""),
        ("A=b#c", "b#c"),
        ('A="b # c"', "b # c"),
        ("A='b\"c' # d", 'b"c'),
        ('A="~/.aws/x.json"', "~/.aws/x.json"),
        (r'A="C:\new"', r"C:\new"),
        ("A=b=c", "b=c"),
        ("A=$HOME", "$HOME"),
        ("A=grüß\u2028x", "grüß\u2028x"),
        ("A=b\nA=c", "c"),
        ("# A=b\n\n  # x\nA=c", "c"),
    ],
)
def test_a_line_sets_a_name_to_the_value_after_it(line: str, value: str) -> None:
    """The files that users of kiro-gateway have; no program expands all of them alike."""
    assert parse_env_file(line) == {"A": value}


@pytest.mark.parametrize("line", ["A", "A b=c", "1A=b", "=b", 'A="b', "A='b' c", "ä=b"])
def test_an_invalid_line_is_reported_by_its_number_alone(line: str) -> None:
    """It may be a secret."""
    with pytest.raises(EnvFileError) as caught:
        parse_env_file(f"X=y\n{line}")
    assert str(caught.value) == "line 2 is not NAME=value"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"A=\xff", "UTF-8"),
        (b"A=\0", "not a file of settings"),
        (b"#" * (MAX_BYTES + 1), "not a file of settings"),
        (None, "cannot be read"),
    ],
    ids=["no-text", "binary", "large", "folder"],
)
def test_a_file_without_settings_is_refused(
    content: bytes | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "env"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(EnvFileError, match=says):
        add_env_file(path, {})


def test_a_set_variable_wins_over_the_file(tmp_path: Path) -> None:
    """As in other readers of such files. An empty variable counts as unset."""
    path = tmp_path / "env"
    path.write_text("\ufeffKIRO_A=file\nKIRO_B=file\nKIRO_C=file\n", "utf-8")
    environ = {"KIRO_A": "environment", "KIRO_B": " "}
    assert add_env_file(path, environ) == ()
    assert environ == {"KIRO_A": "environment", "KIRO_B": "file", "KIRO_C": "file"}


def test_only_settings_and_proxies_are_read_from_the_file(tmp_path: Path) -> None:
    """BROWSER and LD_PRELOAD would run a program."""
    path = tmp_path / "env"
    taken = ("KIRO_API_KEY", "KIRO_MCP_X", "REFRESH_TOKEN", "PROFILE_ARN", "VPN_PROXY_URL")
    taken = (*taken, "HTTPS_PROXY", "https_proxy", "NO_PROXY", "ALL_PROXY", "HTTP_PROXY")
    others = ("BROWSER", "LD_PRELOAD", "PATH", "HOME", "PYTHONPATH", "SSL_CERT_FILE", "KIROX")
    path.write_text("".join(f"{name}=x\n" for name in (*taken, *others)), "utf-8")
    environ: dict[str, str] = {}
    assert add_env_file(path, environ) == others
    assert tuple(environ) == taken


def settings_file(folder: Path, emulator: RunningEmulator) -> Path:
    path = folder / ".env"
    path.write_text(
        f'KIRO_API_KEY="{EMULATOR_API_KEY}"\nKIRO_MCP_ENDPOINT_URL={emulator.url} # here\nA=b\n',
        "utf-8",
    )
    return path


async def test_a_command_uses_the_settings_in_the_file(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    path = settings_file(tmp_path, emulator)
    done = await run("--env-file", str(path), "ask", "Say hello")
    assert done.returncode == 0, done.stderr.decode()
    assert b"Say hello" in done.stdout
    assert f"{path}: ignored, not settings of kiro-mcp: A." in done.stderr.decode()


async def test_the_server_without_a_command_uses_the_settings_in_the_file(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    command = (*COMMAND, "--env-file", str(settings_file(tmp_path, emulator)))
    with fail_after(RUN_SECONDS):
        async with started(command=command) as server:
            await server.initialize()
            called = await server.call("ask_claude", prompt="Say hello")
            assert "Say hello" in called["structuredContent"]["text"]


async def test_an_env_file_in_the_current_folder_is_not_read(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A stranger's project must not send anyone's prompts elsewhere."""
    settings_file(tmp_path, emulator)
    with fail_after(RUN_SECONDS):
        done = await run_forked("ask", "hi", env=environment(HOME=""), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, b"")
    assert not emulator.state.requests


@pytest.mark.parametrize("content", [None, "KIRO_API_KEY ksk_secret"])
async def test_a_file_that_cannot_be_used_is_a_usage_error(
    content: str | None, tmp_path: Path
) -> None:
    """README's exit codes."""
    path = tmp_path / "settings"
    if content:
        path.write_text(content, "utf-8")
    done = await run("--env-file", str(path), "status")
    assert done.returncode == 2
    assert str(path).encode() in done.stderr.replace(b"\n", b"")
    assert b"secret" not in done.stderr
