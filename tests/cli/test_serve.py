"""`kiro-mcp serve`, as a process."""

import re
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.web_server import listen
from tests.support.forked import run_forked
from tests.support.http import TOKEN, against
from tests.support.served import serve
from tests.support.stdio import COMMAND, PROMPTLY_SECONDS, environment, started

RUN_SECONDS = 30
"""How long a command may take on a busy machine; it takes about one second."""


async def refused(*arguments: str, **environ: str) -> tuple[int, str]:
    """Run a server that must not start; return its exit code and what it says."""
    with fail_after(RUN_SECONDS):
        done = await run_forked("serve", *arguments, env=environment(**environ))
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


async def test_offline_over_http_answers_from_the_emulator() -> None:
    """README: `--offline` needs no account."""
    with fail_after(RUN_SECONDS):
        async with serve("--transport", "http", "--no-auth", "--offline") as served:
            await served.server.initialize()
            called = await served.server.call("ask_claude", prompt="Say hello")
            assert "Say hello" in called["structuredContent"]["text"]
            assert "warning: no token" in served.said


async def test_a_header_is_logged_on_one_short_safe_line() -> None:
    with fail_after(RUN_SECONDS):
        async with serve("--transport", "http", "--no-auth", "--offline") as served:
            host = b"evil\xc2\x9b31m\x9b2J" + b"x" * 40_000
            stream = await anyio.connect_tcp("127.0.0.1", served.server.port)
            async with stream:
                await stream.send(b"POST /mcp HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                assert (await stream.receive()).startswith(b"HTTP/1.1 421 ")
            served.process.terminate()
            await served.ended()
    [line] = [line for line in served.said.splitlines() if "evil" in line]
    assert len(line) < 500
    assert "…" in line
    assert "KIRO_MCP_ALLOWED_HOSTS" in line
    assert "\x9b" not in line


async def test_offline_over_stdio_answers_from_the_emulator() -> None:
    """A client's configuration can be tried without an account."""
    command = (*COMMAND, "serve", "--offline")
    with fail_after(RUN_SECONDS):
        async with started(command=command) as server:
            await server.initialize()
            called = await server.call("ask_claude", prompt="Say hello")
            assert "Say hello" in called["structuredContent"]["text"]
            await server.stdin.aclose()
            with fail_after(PROMPTLY_SECONDS):
                assert await server.process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file modes")
@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "home", "XDG_DATA_HOME": "data"}, "data/kiro-mcp"),
        ({"HOME": "home", "KIRO_MCP_HOME": "here"}, "here"),
        ({"HOME": "", "KIRO_MCP_HOME": "here"}, "here"),
    ],
    ids=["the-systems-folder", "ours", "homeless"],
)
async def test_a_new_token_is_saved_and_only_its_file_is_printed(
    variables: dict[str, str], folder: str, tmp_path: Path
) -> None:
    """The token is stored with the other data, because stderr ends up in clients' logs."""
    home = {name: str(tmp_path / path) if path else "" for name, path in variables.items()}
    tokens = set[str]()
    with fail_after(RUN_SECONDS):
        for _ in range(2):
            async with serve("--transport", "http", **home) as served:
                said = served.said
                [place] = re.findall(r"token in (.*)\.", said)
                token = Path(place).read_text("ascii").strip()
                tokens.add(token)
                assert Path(place) == tmp_path / folder / "http-token"
                assert stat.S_IMODE(Path(place).stat().st_mode) == 0o600
                assert token not in said
                bearer = {"Authorization": f"Bearer {token}"}
                assert (await served.server.post_modern("tools/list")).status_code == 401
                assert (await served.server.post_modern("tools/list", bearer)).status_code == 200
    assert len(tokens) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Nothing limits the size of files there.")
async def test_a_token_that_cannot_be_saved_leaves_no_file(tmp_path: Path) -> None:
    """With half a token in the file, later starts would fail, too."""
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *COMMAND, "serve", "--transport", "http"]
    with fail_after(RUN_SECONDS):
        done = await anyio.run_process(
            command, check=False, env=environment(KIRO_MCP_HOME=str(tmp_path)), stdin=None
        )
    assert done.returncode == 2
    assert b"The token cannot be stored" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_before_the_first_call_nothing_is_sent_and_nothing_written(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A server that only waits must cost nothing and touch nothing."""
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with fail_after(RUN_SECONDS):
        async with serve("--transport", "http", "--no-auth", **against(emulator), **home) as served:
            await served.server.initialize()
            await served.server.post("tools/list")
            await served.server.post_modern("server/discover")
            served.process.send_signal(signal.SIGTERM)
            await served.ended()
    assert not emulator.state.requests
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_no_secret_is_logged_at_debug_level(
    transport: str, emulator: RunningEmulator
) -> None:
    """Logs are sent around."""
    key = against(emulator)["KIRO_API_KEY"]
    variables = against(emulator, KIRO_MCP_HTTP_TOKEN=TOKEN, KIRO_MCP_LOG_LEVEL="DEBUG")
    with fail_after(RUN_SECONDS):
        async with serve("--transport", transport, **variables) as served:
            for offered in (TOKEN, f"{TOKEN}, but wrong"):
                headers = {"Authorization": f"Bearer {offered}", "X-Api-Key": offered}
                await served.server.post_modern(
                    "tools/call", headers, name="list_models", arguments={}
                )
            served.process.send_signal(signal.SIGTERM)
            await served.ended()
            said = served.said
            assert "KIRO_MCP_HTTP_TOKEN" in said
            assert TOKEN not in said
            assert key not in said


@pytest.mark.parametrize(
    ("era", "number", "code"),
    [
        ("idle", signal.SIGINT, 130),
        ("legacy", signal.SIGINT, 130),
        ("legacy", signal.SIGTERM, 143),
        ("modern", signal.SIGTERM, 143),
        ("abandoned", signal.SIGTERM, 143),
    ],
)
async def test_a_signal_ends_the_server_at_once_during_any_work(
    era: str, number: signal.Signals, code: int, emulator: RunningEmulator
) -> None:
    """The shell's convention for the code; and cleanup always runs, without a traceback."""
    arguments: dict[str, Any] = {"name": "ask_claude", "arguments": {"prompt": "/emulate stall"}}
    with fail_after(RUN_SECONDS):
        async with (
            serve("--transport", "http", "--no-auth", **against(emulator)) as served,
            anyio.create_task_group() as tasks,
        ):
            await served.server.initialize()
            if era == "modern":
                request = served.server.modern_request("tools/call", **arguments)
            else:
                request = served.server.request("tools/call", arguments)
            if era != "idle":
                tasks.start_soon(served.server.client.send, request)
                await emulator.state.until(lambda state: state.open_streams == 1)
            if era == "abandoned":
                tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                served.process.send_signal(number)
                assert await served.ended() == code
                await emulator.state.until(lambda state: state.open_streams == 0)
                assert "Traceback" not in served.said


async def test_a_signal_ends_sse_connections_without_a_traceback() -> None:
    with fail_after(RUN_SECONDS):
        async with serve("--transport", "sse", "--no-auth") as served:
            async with served.server.client.stream("GET", "/sse") as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "event: endpoint"
                served.process.send_signal(signal.SIGTERM)
                await served.ended()
                rest = [line async for line in lines]
                assert rest[0].startswith("data: /messages/")
            said = served.said
            assert "Traceback" not in said
            assert "deprecated" in said


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["--host", "0.0.0.0"], {}, "no token is set"),
        (["--host", "0.0.0.0", "--no-auth"], {"KIRO_MCP_HTTP_TOKEN": TOKEN}, "--no-auth"),
        ([], {"KIRO_MCP_HOST": "::"}, "no token is set"),
        ([], {"KIRO_MCP_HTTP_TOKEN": "my-super-secret-password-123"}, "KIRO_MCP_HTTP_TOKEN"),
        (["--port", "70000"], {}, "--port"),
        ([], {"KIRO_MCP_PORT": "70000"}, "invalid_request: The setting KIRO_MCP_PORT"),
        ([], {"HOME": "", "USERPROFILE": "", "XDG_DATA_HOME": "/x"}, "KIRO_MCP_HOME"),
    ],
)
async def test_a_server_that_anyone_could_use_does_not_start(
    arguments: list[str], environ: dict[str, str], says: str
) -> None:
    """It would spend its owner's subscription for strangers."""
    code, said = await refused("--transport", "http", *arguments, **environ)
    assert code == 2
    assert says in said
    assert "my-super-secret" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", [["--port", "1"], ["--host", "127.0.0.1"], ["--no-auth"]])
async def test_http_options_are_refused_on_stdio(option: list[str]) -> None:
    """A user who wants a port would think that the server hangs on stdio."""
    code, said = await refused(*option)
    assert code == 2
    assert "--transport http" in said


async def test_a_port_in_use_is_reported() -> None:
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        port = str(listener.getsockname()[1])
        code, said = await refused("--transport", "http", "--no-auth", "--port", port)
    assert code == 4
    assert f"127.0.0.1:{port}" in said
    assert "Traceback" not in said


async def test_the_port_in_the_settings_is_the_default() -> None:
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        port = str(listener.getsockname()[1])
        code, said = await refused("--transport", "http", "--no-auth", KIRO_MCP_PORT=port)
    assert code == 4
    assert f"127.0.0.1:{port}" in said


async def test_other_machines_are_served_with_a_token_under_allowed_names() -> None:
    """A name that clients may use has to be allowed first."""
    environ = {
        "KIRO_MCP_HTTP_TOKEN": TOKEN,
        "KIRO_MCP_ALLOWED_HOSTS": "kiro.example, other.example:1",
    }
    with fail_after(RUN_SECONDS):
        async with serve("--transport", "http", "--host", "0.0.0.0", **environ) as served:
            assert "localhost, kiro.example, other.example:1" in served.said
            headers = {"Authorization": f"Bearer {TOKEN}"}
            statuses = [
                (
                    await served.server.post_modern("tools/list", {**headers, "Host": host})
                ).status_code
                for host in ("kiro.example", "other.example:1", "0.0.0.0", "evil.example")
            ]
            assert statuses == [200, 200, 421, 421]


async def test_a_signal_completes_the_streams_of_sessions_and_ends_the_process() -> None:
    """A client sees the end of its stream, and not a connection that broke."""
    with fail_after(RUN_SECONDS):
        async with serve("--transport", "http", "--no-auth") as served:
            server = served.server
            await server.initialize()
            async with server.client.stream("GET", server.path, headers=server.session) as stream:
                assert stream.status_code == 200
                served.process.send_signal(signal.SIGTERM)
                async for _ in stream.aiter_raw():  # Raises if it broke.
                    pass
            assert await served.ended() == 143
