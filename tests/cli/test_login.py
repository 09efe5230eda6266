"""Signing in, out, and asking who is signed in, as a person does it."""

import json
from pathlib import Path

from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from tests.cli.test_commands import run
from tests.support.logins import sign_in_before


async def test_login_offline_completes_the_flow_and_saves_nothing(tmp_path: Path) -> None:
    """README: `--offline` needs no account."""
    done = await run("login", "--offline", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    assert b"https://device.sso.us-east-1.amazonaws.com/?user_code=EMUL-" in done.stdout
    assert b"Signed in as p" in done.stdout
    assert list(tmp_path.iterdir()) == []


async def test_status_follows_login_and_logout(tmp_path: Path, emulator: RunningEmulator) -> None:
    """0 signed in, 3 not."""
    environ = {"HOME": str(tmp_path), "KIRO_MCP_ENDPOINT_URL": emulator.url}
    done = await run("login", "--method", "github", **environ)
    assert done.returncode == 0, done.stderr.decode()
    assert b"undocumented" in done.stderr
    status = await run("status", **environ)
    assert status.returncode == 0
    assert b"12.5 of 1000" in status.stdout
    assert b"looked at     kiro-mcp's own login: used" in status.stdout
    out = await run("logout", **environ)
    assert (out.returncode, b"was removed" in out.stdout) == (0, True)
    assert (await run("status", **environ)).returncode == 3


async def test_status_as_json_is_the_whole_status(emulator: RunningEmulator) -> None:
    """For programs."""
    done = await run(
        "status",
        "--json",
        HOME="",
        KIRO_API_KEY=EMULATOR_API_KEY,
        KIRO_MCP_ENDPOINT_URL=emulator.url,
    )
    status = json.loads(done.stdout)
    assert (status["state"], status["source"]) == ("signed_in", "KIRO_API_KEY")
    assert EMULATOR_API_KEY not in done.stdout.decode()


async def test_a_refused_login_has_exit_code_3(tmp_path: Path, emulator: RunningEmulator) -> None:
    """README's exit codes."""
    emulator.state.accounts.device_outcome = "access_denied"
    environ = {"HOME": str(tmp_path), "KIRO_MCP_ENDPOINT_URL": emulator.url}
    done = await run("login", "--no-browser", **environ)
    assert done.returncode == 3
    assert b"refused on its page" in done.stderr


async def test_login_warns_if_another_credential_is_used_instead(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """A key that is set comes first."""
    environ = {"HOME": str(tmp_path), "KIRO_MCP_ENDPOINT_URL": emulator.url}
    done = await run("login", **environ, KIRO_API_KEY=EMULATOR_API_KEY)
    assert done.returncode == 0
    assert b"KIRO_API_KEY is set and is used instead" in done.stderr


async def test_an_organisations_login_without_a_start_url_is_a_usage_error(tmp_path: Path) -> None:
    """README's exit codes."""
    done = await run("login", "--method", "idc", HOME=str(tmp_path))
    assert done.returncode == 2
    assert b"start URL" in done.stderr


async def test_ask_renews_our_own_expired_login(tmp_path: Path, emulator: RunningEmulator) -> None:
    """The thin whole way, from a file to an answer."""
    store = await sign_in_before(tmp_path / "own", emulator.url)
    environ = {"KIRO_MCP_HOME": str(store.folder), "KIRO_MCP_ENDPOINT_URL": emulator.url}
    done = await run("ask", "Say hello", HOME=str(tmp_path), **environ)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Say hello" in done.stdout
