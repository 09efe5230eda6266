"""`kiro-mcp doctor`: what it judges, what it looks at, and that it leaves all as it was."""

import io
import json
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import anyio
import pytest
from anyio import fail_after
from anyio.abc import SocketAttribute, SocketStream
from rich.console import Console

from kiro_mcp.auth.credentials import (
    BUILDER_ID_PROFILE_ARN,
    SOCIAL_PROFILE_ARN,
    Credential,
    CredentialKind,
    Finding,
    Resolution,
)
from kiro_mcp.auth.machine import Machine
from kiro_mcp.cli.clients.known import CLIENTS, Entry
from kiro_mcp.cli.clients.launch import Launch
from kiro_mcp.cli.doctor import (
    Check,
    checks_as_json,
    checks_as_lines,
    checks_as_table,
    clock_check,
    credits_check,
    endpoint_check,
    entry_check,
    examine,
    exit_code_of,
    failed,
    find_entries,
    host_check,
    hosts_in_use,
    judge,
    profile_check,
    redacted,
    sign_in_checks,
    start,
    store_check,
    summary,
    token_as_it_is,
)
from kiro_mcp.cli.terminal import Harmless
from kiro_mcp.client.http import HttpPool
from kiro_mcp.client.management import UsageLimits
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    EMULATOR_BUILDER_ID_ACCESS_TOKEN,
    EMULATOR_PROFILE_ARN,
    Accounts,
    EmulatorState,
    RunningEmulator,
    Script,
    refusals,
    running,
)
from kiro_mcp.errors import SignInRequired
from kiro_mcp.server.engine import STORE_NAME
from kiro_mcp.settings import Settings
from tests.support.forked import run_forked
from tests.support.logins import idc_credential, ide_social, sign_in_before
from tests.support.stdio import COMMAND, environment

RUN_SECONDS = 120
"""How long a command may take on a busy machine; with two servers started it takes about three."""

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OWN = Launch(command=sys.executable, args=("-m", "kiro_mcp"))


# --- judging -------------------------------------------------------------------------------------


def credential(**changes: Any) -> Credential:
    return replace(Credential(kind="idc", source="a test", origin="own"), **changes)


CREDENTIALS: dict[str, tuple[Credential, str, str]] = {
    "a key": (credential(kind="api_key", access_token="x"), "ok", "does not expire"),
    "good": (
        credential(access_token="x", expires_at=NOW + timedelta(minutes=54)),
        "ok",
        "valid for 54 min",
    ),
    "no end": (credential(access_token="x"), "ok", "its expiry is unknown"),
    "ended": (
        credential(access_token="x", refresh_token="y", expires_at=NOW - timedelta(hours=3)),
        "ok",
        "expired 3 h ago; the next call renews it",
    ),
    "never used": (credential(refresh_token="y"), "ok", "unused"),
    "another's": (
        credential(access_token="x", origin="database", expires_at=NOW - timedelta(days=2)),
        "warning",
        "expired 2 days ago; the program it is from",
    ),
    "lost": (credential(access_token="x", expires_at=NOW), "failed", "cannot be renewed"),
}


@pytest.mark.parametrize(("found", "outcome", "says"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_token_is_ok_if_the_next_call_can_use_or_renew_it(
    found: Credential, outcome: str, says: str
) -> None:
    """An expired token that is renewed by itself is not a problem."""
    finding = Finding(source="a test", is_used=True, why="made here")
    resolution = Resolution(credential=found, findings=(finding,), watched=())
    sign_in, token = sign_in_checks(resolution, NOW)
    assert (sign_in.outcome, sign_in.details) == ("ok", ("a test, used, made here",))
    assert token.outcome == outcome
    assert says in token.found
    assert token.exit_code == (3 if outcome == "failed" else 0)
    assert bool(token.cure) == (outcome != "ok")


def test_a_missing_login_is_a_failure_unless_a_client_has_a_credential() -> None:
    """A key in a client's configuration is a way to use this server, too."""
    nobody = Resolution(credential=None, findings=(), watched=())
    alone, _ = sign_in_checks(nobody, NOW)
    assert (alone.outcome, alone.exit_code) == ("failed", 3)
    assert "kiro-mcp login" in alone.cure
    helped, _ = sign_in_checks(nobody, NOW, elsewhere=["Zed"])
    assert (helped.outcome, helped.exit_code) == ("warning", 0)
    assert "Zed" in helped.found
    problem = SignInRequired("It is no JSON.", next_step="Correct it.")
    wrong, _ = sign_in_checks(replace(nobody, problem=problem), NOW, elsewhere=["Zed"])
    assert (wrong.outcome, wrong.found, wrong.cure) == ("failed", "It is no JSON.", "Correct it.")


@pytest.mark.parametrize(
    ("credits", "outcome", "says"),
    [
        (UsageLimits(), "ok", "does not say"),
        (UsageLimits(used=1, limit=50, plan="PRO"), "ok", "PRO: 1 of 50 used"),
        (UsageLimits(used=1, limit=50, resets_at=NOW + timedelta(days=9)), "ok", "reset in 9 days"),
        (UsageLimits(used=50, limit=50), "warning", "50 of 50"),
        (UsageLimits(used=51, limit=50, is_overage_allowed=True), "warning", "more is billed"),
    ],
)
def test_used_up_credits_are_a_warning(credits: UsageLimits, outcome: str, says: str) -> None:
    check = credits_check(credits, NOW)
    assert (check.outcome, says in check.found) == (outcome, True)


@pytest.mark.parametrize(
    ("skews", "outcome", "says"),
    [
        ([], "skipped", "no host"),
        ([0.4], "ok", "right to 0 s"),
        ([400.0], "warning", "7 min slow"),
        ([-7200.0, -7201.0], "warning", "2 h fast"),
        ([-7200.0, 2.0], "ok", "right to 2 s"),
    ],
)
def test_the_clock_is_compared_with_the_host_that_agrees_most(
    skews: list[float], outcome: str, says: str
) -> None:
    """One host, or a proxy, may have a wrong clock itself."""
    check = clock_check(skews)
    assert check.outcome == outcome
    assert says in check.found


def test_a_replaced_endpoint_is_a_warning_unless_offline() -> None:
    """A setting forgotten from a test is a common reason for odd answers."""
    usual = endpoint_check(Settings.load({}), "eu-central-1", offline=False)
    assert (usual.outcome, usual.found) == ("ok", "runtime in eu-central-1")
    other = Settings.load({"KIRO_MCP_ENDPOINT_URL_RUNTIME": "https://example.com"})
    assert endpoint_check(other, "us-east-1", offline=False).outcome == "warning"
    assert endpoint_check(other, "us-east-1", offline=True).outcome == "ok"


def test_unconfirmed_hosts_are_a_warning() -> None:
    check = endpoint_check(Settings.load({}), "us-gov-west-1", offline=False)
    assert (check.outcome, "not confirmed" in check.found) == ("warning", True)


@pytest.mark.parametrize(
    ("kind", "arn", "outcome", "says"),
    [
        ("builder_id", BUILDER_ID_PROFILE_ARN, "ok", "all AWS Builder IDs share"),
        ("builder_id", SOCIAL_PROFILE_ARN, "warning", "Google and GitHub logins share"),
        ("social", BUILDER_ID_PROFILE_ARN, "warning", "all AWS Builder IDs share"),
        ("idc", SOCIAL_PROFILE_ARN, "warning", "IAM Identity Center"),
        ("idc", EMULATOR_PROFILE_ARN, "ok", EMULATOR_PROFILE_ARN),
        ("access_token", BUILDER_ID_PROFILE_ARN, "ok", "an access token"),
        ("api_key", "", "ok", "name none"),
    ],
)
def test_a_profile_must_fit_the_kind_of_its_token(
    kind: CredentialKind, arn: str, outcome: str, says: str
) -> None:
    """Observed: each other pair is refused, and in the same words as a token that is void."""
    check = profile_check(credential(kind=kind), arn)
    assert (check.outcome, says in check.found) == (outcome, True)


async def test_a_builder_id_that_can_only_query_usage_is_a_failure(tmp_path: Path) -> None:
    state = EmulatorState(accounts=Accounts(refuses_shared_profile=True))
    async with running(state) as emulator:
        checks = await examined(
            tmp_path,
            KIRO_ACCESS_TOKEN=EMULATOR_BUILDER_ID_ACCESS_TOKEN,
            KIRO_MCP_ENDPOINT_URL=emulator.url,
        )
    found = outcomes(checks)
    assert (found["profile"], found["credits"], found["models"]) == ("ok", "ok", "failed")
    assert any("all AWS Builder IDs share" in check.found for check in checks)


async def test_a_login_folder_that_others_can_write_to_is_a_warning(tmp_path: Path) -> None:
    """A user who can write there can replace the login."""
    home = tmp_path / "own"
    home.mkdir()
    home.chmod(0o777)
    check = store_check(home)
    assert check.outcome == "warning"
    assert "own (777, writable)" in check.found
    environ = environment(KIRO_MCP_HOME=str(home), KIRO_MCP_ENDPOINT_URL="http://127.0.0.1:1")
    with fail_after(RUN_SECONDS):
        done = await run_forked("status", env=environ)
    assert f"other users can write to {home}" in done.stderr.decode()


def test_the_exit_code_is_that_of_the_worst_failure() -> None:
    """3 sign-in, 4 network, 5 anything else; a warning does not count."""
    checks: list[Check] = [judge("a", "x"), judge("b", "y", "z")]
    assert (exit_code_of(checks), summary(checks)) == (0, "1 warning.")
    checks += [failed("c", "x", exit_code=3), failed("d", "x", exit_code=4)]
    assert (exit_code_of(checks), summary(checks)) == (4, "2 failed, 1 warning.")
    assert exit_code_of([*checks, failed("e", "x")]) == 5
    assert (exit_code_of([]), summary([])) == (0, "Everything is in order.")


def test_checks_are_shown_without_secrets_and_control_characters() -> None:
    """A client's file, or a server that was started, may say anything."""
    found = [
        judge("a", "[bold]1", details=("x",)),
        failed("b", "with ksk_0123456789abcdef", "Do \x1bthat."),
    ]
    checks = [redacted(check) for check in found]
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, width=80).print(Harmless(checks_as_table(checks)))
    shown = screen.getvalue()
    assert "[bold]1" in shown
    assert "\x1b[32mok" in shown
    assert "→ Do ␛that." in shown
    assert "ksk_" not in shown
    assert list(checks_as_lines(checks)) == [
        "ok       a: [bold]1",
        "           x",
        "failed   b: with [redacted]",
        "           → Do \x1bthat.",
    ]
    assert "\x1b" not in checks_as_json([judge("a", "b\x1bc")])
    assert "\\u001b" in checks_as_json([judge("a", "b\x1bc")])


# --- looking -------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncGenerator[str]:
    """A host that gives every request the same answer, or none at all."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            if answer is None:
                await anyio.sleep_forever()
            else:
                await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}/"
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def pool() -> AsyncGenerator[HttpPool]:
    made = HttpPool(connect_timeout_seconds=RUN_SECONDS)
    try:
        yield made
    finally:
        await made.aclose()


async def test_the_clock_of_a_host_is_read_from_its_answer() -> None:
    """RFC 9110, the header Date."""
    date = "Sat, 21 Nov 2026 13:00:00 GMT"
    answer = f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode()
    with fail_after(RUN_SECONDS):
        async with answering(answer) as url, pool() as http:
            check, skew = await host_check(http, url, "prompts")
    assert (check.name, check.outcome) == ("host for prompts", "ok")
    assert "answers in" in check.found
    assert "(HTTP 404)" in check.found
    assert skew is not None
    assert 3000 < skew + (datetime.now(UTC) - NOW).total_seconds() < 4000


async def test_an_answer_from_the_proxy_itself_is_a_warning() -> None:
    """The service's front page is a 404. Any other answer also shows that the host is there."""
    with fail_after(RUN_SECONDS):
        async with (
            answering(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as url,
            pool() as http,
        ):
            check, _ = await host_check(http, url, "sign-in", is_proxied=True)
    assert check.outcome == "warning"
    assert "answers through the proxy in" in check.found
    assert "HTTPS_PROXY" in check.cure


@pytest.mark.parametrize("date", ["", "Date: soon\r\n", "Date: Sat, 21 Nov 2026 12:01:30\r\n"])
async def test_a_host_without_a_valid_date_is_still_reachable(date: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\n\r\n".encode()
    with fail_after(RUN_SECONDS):
        async with answering(answer) as url, pool() as http:
            check, skew = await host_check(http, url, "prompts")
    assert (check.outcome, skew) == ("ok", None)


async def test_a_host_that_does_not_answer_in_time_is_a_network_error() -> None:
    """The doctor must not hang."""
    with fail_after(RUN_SECONDS):
        async with answering(None) as url, pool() as http:
            check, _ = await host_check(http, url, "prompts", within_seconds=0.1)
    assert (check.outcome, check.exit_code) == ("failed", 4)
    assert "within 0.1 s" in check.found


async def test_a_host_that_does_not_exist_is_a_network_error() -> None:
    with fail_after(RUN_SECONDS):
        async with pool() as http:
            check, _ = await host_check(http, "http://127.0.0.1:1/", "prompts")
    assert (check.outcome, check.exit_code) == ("failed", 4)


def test_the_doctor_asks_the_hosts_that_calls_use() -> None:
    """In the regions of the profile and of the login, with the overrides."""
    settings = Settings.load({"KIRO_MCP_ENDPOINTS": "runtime,q", "KIRO_REGION": "eu-west-1"})
    assert hosts_in_use(settings, None, "eu-central-1") == {
        "https://runtime.eu-central-1.kiro.dev/": "prompts",
        "https://q.eu-central-1.amazonaws.com/": "prompts",
        "https://management.eu-central-1.kiro.dev/": "the account",
        "https://oidc.eu-west-1.amazonaws.com/": "sign-in",
    }
    social = credential(kind="social", region="us-east-1")
    assert "https://prod.us-east-1.auth.desktop.kiro.dev/" in hosts_in_use(
        settings, social, "us-east-1"
    )
    other = Settings.load({"KIRO_MCP_ENDPOINT_URL": "http://127.0.0.1:9/x"})
    assert hosts_in_use(other, None, "us-east-1") == {
        "http://127.0.0.1:9/": "prompts, the account, sign-in"
    }


def test_the_region_is_read_from_the_profile_without_a_request() -> None:
    arn = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"
    token = token_as_it_is(Settings.load({}), credential(profile_arn=arn))
    assert (token.region, token.profile_arn) == ("eu-central-1", arn)
    assert token_as_it_is(Settings.load({}), None).region == "us-east-1"
    token = token_as_it_is(Settings.load({"KIRO_PROFILE_ARN": arn}), credential(kind="api_key"))
    assert (token.region, token.profile_arn) == ("eu-central-1", "")


@pytest.mark.parametrize("name", ["store", *(["st\udcf6re"] if sys.platform == "linux" else [])])
def test_checking_the_store_does_not_change_it(name: str, tmp_path: Path) -> None:
    """Even the log file that reading such a database creates is removed."""
    folder = tmp_path / name  # On Linux, a name is any bytes, and not always UTF-8.
    assert "will be created at the first use" in store_check(folder).found
    folder.mkdir(mode=0o700)
    database = folder / STORE_NAME
    with closing(sqlite3.connect(database)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE t (x)")
    database.chmod(0o600)
    before = snapshot(tmp_path)
    check = store_check(folder)
    assert (check.outcome, check.found) == ("ok", f"{folder}, 0.0 MB")
    assert snapshot(tmp_path) == before
    with closing(sqlite3.connect(database)) as newer:
        newer.execute("PRAGMA user_version = 99")
    check = store_check(folder)
    assert check.outcome == "failed"
    assert "newer version" in check.found
    assert check.cure.startswith("Update kiro-mcp")
    database.write_bytes(b"no database" * 100)
    check = store_check(folder)
    assert (check.outcome, "cannot be read" in check.found) == ("failed", True)
    in_use = folder / f"{STORE_NAME}-wal"
    in_use.touch(mode=0o600)
    assert store_check(folder).outcome == "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file modes")
def test_store_files_that_others_can_read_are_named(tmp_path: Path) -> None:
    """The file holds a login. The cure can be pasted into a shell."""
    folder = tmp_path / "Application Support"
    folder.mkdir(mode=0o700)
    (folder / "credentials.json").write_text("{}")
    (folder / "credentials.json").chmod(0o644)
    check = store_check(folder)
    assert (check.outcome, "credentials.json (644)" in check.found) == ("warning", True)
    assert f"'{folder}'" in check.cure


def test_a_store_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = store_check(tmp_path / "file" / "store")
    assert (check.outcome, "is not writable" in check.found) == ("failed", True)


# --- starting ------------------------------------------------------------------------------------


async def test_a_start_is_measured_up_to_the_list_of_tools() -> None:
    """A client waits for this answer."""
    with fail_after(RUN_SECONDS):
        check = await start(
            OWN, environment(), within_seconds=RUN_SECONDS, slow_seconds=RUN_SECONDS
        )
        slow = await start(OWN, environment(), within_seconds=RUN_SECONDS, slow_seconds=0)
    assert (check.outcome, slow.outcome) == ("ok", "warning")
    for started in (check, slow):
        assert re.fullmatch(r"answers in \d+\.\d s, with 3 tools", started.found)
    assert "Some clients wait no longer" in slow.cure


ANSWERING = """
import json
print(json.dumps({{"jsonrpc": "2.0", "id": json.loads(input())["id"], "result": {result}}}))
"""
UNVERSIONED = {"capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.exit('there is no such thing')", "it said: there is no such thing"),
        ("print('Welcome!')", "something other than MCP"),
        (r"import sys; sys.stdout.buffer.write(b'\xff\n')", "something other than MCP"),
        ("import sys; sys.stdin.read()", "no answer within 0.5 s"),
        (
            ANSWERING.format(result={"protocolVersion": "1999-01-01", **UNVERSIONED}),
            "its answer cannot be used (Unsupported protocol version from the server: 1999-01-01)",
        ),
        (ANSWERING.format(result=UNVERSIONED), "its answer cannot be used (1 validation error"),
    ],
)
async def test_a_start_that_fails_says_why(program: str, says: str) -> None:
    """The finding quotes the last words of the server."""
    launch = Launch(command=sys.executable, args=("-c", program))
    seconds = 0.5 if "within" in says else RUN_SECONDS
    with fail_after(RUN_SECONDS):
        check = await start(launch, environment(), within_seconds=seconds)
    assert (check.outcome, says in check.found) == ("failed", True)


async def test_a_command_that_does_not_exist_is_reported() -> None:
    with fail_after(RUN_SECONDS):
        check = await start(Launch(command="/not/there"), {})
    assert (check.outcome, "cannot be started" in check.found) == ("failed", True)


# --- the clients ---------------------------------------------------------------------------------


async def start_well(launch: Launch, environ: Mapping[str, str]) -> Check:
    """Take the place of a server that starts."""
    return judge("", "answers in 0.8 s, with 3 tools")


async def checked(
    members: Mapping[str, object],
    *,
    client: str = "zed",
    started: Check | None = None,
    offline: bool = False,
    **environ: str,
) -> Check:
    """Check an entry of a client, on a machine with these variables."""

    async def start(launch: Launch, environ: Mapping[str, str]) -> Check:
        return started or await start_well(launch, environ)

    entry = Entry(CLIENTS[client], "kiro", members, Path("/f"))
    variables = {"HOME": "/nobody", "PATH": "/nowhere", **environ}
    here = Machine(home=Path("/nobody"), platform="linux", environ=variables)
    with fail_after(RUN_SECONDS):
        return await entry_check(entry, here, start, offline=offline)


THERE = {"command": sys.executable, "args": ["-m", "kiro_mcp"], "env": {"KIRO_API_KEY": "k"}}
SLOW = judge("", "answers in 11.0 s, with 1 tools", "Install it.")


@pytest.mark.parametrize(
    ("members", "started", "outcome", "says"),
    [
        (THERE, None, "ok", "0.8 s, with 3 tools"),
        (THERE, failed("", "no answer"), "failed", "no answer"),
        (THERE, SLOW, "warning", "11.0 s"),
        ({"command": "/opt/kiro-mcp"}, None, "failed", "/opt/kiro-mcp does not exist (/f)"),
        ({"command": "no-kiro-mcp"}, None, "failed", "no-kiro-mcp is not on the client's PATH"),
        ({**THERE, "command": "python3"}, None, "warning", "python3 is not an absolute path"),
        ({**THERE, "disabled": True}, None, "warning", "switched off in /f"),
        ({"command": "${dir}/kiro-mcp"}, None, "skipped", "only the client can complete"),
        ({**THERE, "env": {}}, None, "warning", "but it finds no credential there"),
        ({**THERE, "env": {"KIRO_MCP_MODLE": "x"}}, None, "warning", "KIRO_MCP_MODEL"),
        ({**THERE, "env": {"KIRO_MCP_PORT": "x"}}, None, "warning", "KIRO_MCP_PORT"),
        ({**THERE, "env": {"KIRO_API_KEY": "${input:k}"}}, None, "ok", "3 tools"),
    ],
)
async def test_an_entry_of_a_client_is_checked_by_starting_it(
    members: Mapping[str, object], started: Check | None, outcome: str, says: str
) -> None:
    """What works in a shell may not work from a desktop."""
    path = str(Path(sys.executable).parent)
    check = await checked(members, client="codex", started=started, PATH=path)
    assert (check.name, check.outcome) == ("Codex: kiro", outcome)
    assert says in check.found
    assert bool(check.cure) == (outcome in ("warning", "failed"))


async def test_a_credential_that_is_set_here_only_is_named() -> None:
    """Signing in again would not help."""
    members = {**THERE, "env": {}}
    check = await checked(members, KIRO_API_KEY="ksk_x")
    assert "`kiro-mcp install zed --name kiro --env KIRO_API_KEY`" in check.cure
    assert "login" not in check.cure
    assert (await checked(members, offline=True)).outcome == "ok"


async def test_a_client_starts_its_servers_with_its_own_variables(tmp_path: Path) -> None:
    """A desktop has a short `PATH`, and none of the shell's settings."""
    seen: list[Mapping[str, str]] = []

    async def start(launch: Launch, environ: Mapping[str, str]) -> Check:
        seen.append(environ)
        return await start_well(launch, environ)

    variables = {"HOME": str(tmp_path), "PATH": "/bin", "KIRO_MCP_MODEL": "shell", "LANG": "C"}
    here = Machine(home=tmp_path, platform="linux", environ=variables)
    with fail_after(RUN_SECONDS):
        await entry_check(Entry(CLIENTS["cursor"], "kiro", THERE, tmp_path), here, start)
    usual = {"HOME": str(tmp_path), "LANG": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert seen == [{**usual, "KIRO_API_KEY": "k"}]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_our_entries_in_the_users_own_files_are_found(tmp_path: Path) -> None:
    """Others' entries, and files in projects, are never run."""
    entry = {"command": sys.executable, "args": ["-m", "kiro_mcp"], "env": {"KIRO_API_KEY": "k"}}
    servers = {"mcpServers": {"kiro": entry, "other": {"command": "npx", "args": ["other"]}}}
    put(tmp_path / ".cursor" / "mcp.json", json.dumps(servers))
    put(
        tmp_path / ".codex" / "config.toml", '[mcp_servers.k]\ncommand = "uvx"\nargs = ["kiro-mcp"]'
    )
    entries, faults = find_entries(Machine(home=tmp_path, platform="linux", environ={}))
    assert faults == []
    assert [(one.client.title, one.name) for one in entries] == [("Cursor", "kiro"), ("Codex", "k")]
    assert [one.brings_credential for one in entries] == [True, False]


def test_a_clients_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    """Its client cannot read it either."""
    put(tmp_path / ".cursor" / "mcp.json", "{\n  oops\n}")
    put(tmp_path / ".kiro" / "settings" / "mcp.json", "[]")
    entries, faults = find_entries(Machine(home=tmp_path, platform="linux", environ={}))
    assert entries == []
    assert [fault.name for fault in faults] == ["Cursor", "Kiro"]
    assert "line 2, column 3" in faults[0].found
    assert find_entries(Machine(home=None, platform="linux", environ={})) == ([], [])


# --- the command ---------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder, with its times and contents."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def variables_in(home: Path, **environ: str) -> dict[str, str]:
    """The variables of somebody whose home is this folder."""
    return environment(HOME=str(home), XDG_CONFIG_HOME="", XDG_DATA_HOME="", **environ)


async def doctor(home: Path, *arguments: str, **environ: str) -> CompletedProcess[bytes]:
    """Run the command."""
    with fail_after(RUN_SECONDS):
        return await run_forked("doctor", *arguments, env=variables_in(home, **environ))


async def examined(home: Path, **environ: str) -> list[Check]:
    """Make its checks, without the process around them."""
    with fail_after(RUN_SECONDS):
        return await examine(variables_in(home, **environ), offline=False)


def outcomes(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.outcome for check in checks}


async def test_offline_everything_is_in_order_and_nothing_is_changed(tmp_path: Path) -> None:
    """README: `--offline` needs no account. The doctor changes nothing."""
    entry = {"command": sys.executable, "args": ["-m", "kiro_mcp"]}
    put(tmp_path / ".cursor" / "mcp.json", json.dumps({"mcpServers": {"kiro": entry}}))
    before = snapshot(tmp_path)
    done = await doctor(tmp_path, "--offline")
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    assert "ok       credits: KIRO PRO: 12.5 of 1000 used" in said
    assert "ok       Cursor: kiro: answers in" in said
    assert said.endswith("Everything is in order.\n")
    assert EMULATOR_API_KEY not in said
    assert snapshot(tmp_path) == before


async def test_an_expired_login_is_not_renewed(tmp_path: Path, emulator: RunningEmulator) -> None:
    """Renewing would change a file and spend a token."""
    await sign_in_before(tmp_path / "own", emulator.url)
    before = snapshot(tmp_path)
    environ = {"KIRO_MCP_HOME": str(tmp_path / "own"), "KIRO_MCP_ENDPOINT_URL": emulator.url}
    done = await doctor(tmp_path, "--json", **environ)
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 0, done.stdout.decode()
    assert report["checks"][0].keys() == {"name", "outcome", "found", "cure", "details"}
    found = {check["name"]: check["outcome"] for check in report["checks"]}
    assert (found["sign-in"], found["token"], found["credits"]) == ("ok", "ok", "skipped")
    assert found["endpoint"] == "warning"
    assert snapshot(tmp_path) == before
    assert not emulator.state.requests_to("CreateToken")
    login = idc_credential()
    assert login.refresh_token not in done.stdout.decode()
    assert login.access_token not in done.stdout.decode()


async def test_credits_are_shown_for_a_valid_login(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    await sign_in_before(tmp_path / "own", emulator.url, is_expired=False)
    before = snapshot(tmp_path)
    environ = {"KIRO_MCP_HOME": str(tmp_path / "own"), "KIRO_MCP_ENDPOINT_URL": emulator.url}
    assert outcomes(await examined(tmp_path, **environ))["credits"] == "ok"
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("answer", "outcome"), [((), "ok"), ((refusals.UNKNOWN_OPERATION,), "skipped")]
)
async def test_the_newer_form_is_tried_without_credits(
    answer: Script, outcome: str, tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Nothing depends on it as long as the older form is answered."""
    # The older form is asked first.
    emulator.state.enqueue((), answer, operation="ListAvailableModels")
    environ = {"KIRO_API_KEY": EMULATOR_API_KEY, "KIRO_MCP_ENDPOINT_URL": emulator.url}
    found = outcomes(await examined(tmp_path, **environ))
    assert (found["models"], found["newer form"]) == ("ok", outcome)
    targets = [seen.headers.get("x-amz-target") for seen in emulator.state.requests]
    assert "KiroControlPlaneBearerService.ListAvailableModels" in targets
    assert emulator.state.prompts == 0


async def test_an_older_form_that_the_service_no_longer_knows_is_a_warning(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """Calls go on in the newer form by themselves."""
    emulator.state.enqueue((refusals.UNKNOWN_OPERATION,), operation="ListAvailableModels")
    environ = {"KIRO_API_KEY": EMULATOR_API_KEY, "KIRO_MCP_ENDPOINT_URL": emulator.url}
    checks = await examined(tmp_path, **environ)
    (models,) = (check for check in checks if check.name == "models")
    assert (models.outcome, models.exit_code) == ("warning", 0)
    assert "KIRO_MCP_ENDPOINTS=kas" in models.cure


async def test_a_login_found_on_the_machine_goes_to_no_other_host(
    tmp_path: Path, emulator: RunningEmulator
) -> None:
    """The doctor asks the same hosts as a call, and no other."""
    ide_social(tmp_path, expires_at="2099-01-01T00:00:00.000Z")
    checks = await examined(tmp_path, KIRO_MCP_ENDPOINT_URL=emulator.url)
    assert outcomes(checks)["credits"] == "failed"
    assert exit_code_of(checks) == 3
    assert all("authorization" not in request.headers for request in emulator.state.requests)


async def test_signed_out_without_a_network_has_a_cure_and_the_network_exit_code(
    tmp_path: Path,
) -> None:
    """README's exit codes: the network is worse than the sign-in."""
    done = await doctor(tmp_path, KIRO_MCP_ENDPOINT_URL="http://127.0.0.1:1")
    said = done.stdout.decode()
    assert done.returncode == 4
    assert "failed   sign-in: nobody is signed in" in said
    assert "→ Run `kiro-mcp login`, or set KIRO_API_KEY." in said
    assert "failed   host for prompts, the account, sign-in: " in said
    assert "skipped  clients: " in said
    assert "`kiro-mcp install CLIENT`" in said
    assert "Traceback" not in done.stderr.decode()


async def test_invalid_settings_are_reported_and_the_rest_is_checked(tmp_path: Path) -> None:
    """A client's entry may be right where the shell is wrong."""
    broken = {"command": "/not/there/kiro-mcp"}
    put(tmp_path / ".cursor" / "mcp.json", json.dumps({"mcpServers": {"kiro": broken}}))
    done = await doctor(tmp_path, KIRO_MCP_PORT="x", KIRO_MCP_MODLE="y", KIRO_API_KEY="ksk_secret")
    said = done.stdout.decode()
    assert done.returncode == 5
    assert "failed   settings: The setting KIRO_MCP_PORT cannot be used" in said
    assert "Did you mean KIRO_MCP_MODEL?" in said
    assert "ok       this installation: answers in" in said
    assert "failed   Cursor: kiro: its command /not/there/kiro-mcp does not exist" in said
    assert "kiro-mcp install cursor --name kiro" in said
    assert "ksk_secret" not in said


async def test_a_root_that_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    roots = "~/gone:~"
    command = {"command": sys.executable, "args": ["-m", "kiro_mcp"]}
    entry = {**command, "env": {"KIRO_MCP_ROOTS": roots}}
    put(tmp_path / ".cursor" / "mcp.json", json.dumps({"mcpServers": {"kiro": entry}}))
    done = await doctor(tmp_path, "--offline", KIRO_MCP_ROOTS=roots)
    said = f"KIRO_MCP_ROOTS names '{tmp_path}/gone', which is not a folder on this machine."
    assert done.stdout.decode().count(said) == 2


async def test_an_invalid_profile_is_reported(tmp_path: Path) -> None:
    """The service would answer with `Improperly formed request`."""
    checks = await examined(tmp_path, KIRO_API_KEY="ksk_x", KIRO_PROFILE_ARN="mine")
    assert exit_code_of(checks) == 5
    [found] = [check.found for check in checks if check.name == "settings"]
    assert "KIRO_PROFILE_ARN cannot be used" in found
    assert "not 'mine'" in found


async def test_a_login_with_a_wrong_region_is_reported_and_the_rest_is_checked(
    tmp_path: Path,
) -> None:
    """Another program's file may hold anything."""
    ide_social(tmp_path, region="nowhere")
    checks = await examined(tmp_path)
    assert exit_code_of(checks) == 5
    found = {check.name: check for check in checks}
    assert found["network"].outcome == "failed"
    assert "'nowhere' is not an AWS region" in found["network"].found
    assert found["this installation"].outcome == "ok"


async def test_ctrl_c_ends_a_server_that_hangs(tmp_path: Path) -> None:
    """The doctor has started it, and nobody else would end it."""
    began, ended = anyio.Event(), anyio.Event()

    async def watch(stream: SocketStream) -> None:
        began.set()
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.receive()
        ended.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    program = (
        "import signal, socket, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"held = socket.create_connection(('127.0.0.1', {port})); time.sleep(600)"
    )
    entry = {"command": sys.executable, "args": ["-c", program, "kiro-mcp"]}
    put(tmp_path / ".cursor" / "mcp.json", json.dumps({"mcpServers": {"kiro": entry}}))
    environ = variables_in(tmp_path, KIRO_MCP_ENDPOINT_URL="http://127.0.0.1:1")
    with fail_after(RUN_SECONDS):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, watch)
            async with await anyio.open_process([*COMMAND, "doctor"], env=environ) as process:
                await began.wait()
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 130
            await ended.wait()
            tasks.cancel_scope.cancel()
