"""`kiro-mcp verify`: what it asks, what it may cost, and what its report may say."""

import json
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

from anyio import fail_after

from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    RunningEmulator,
    Send,
    refusals,
)
from tests.support import frames
from tests.support.forked import run_forked
from tests.support.stdio import environment

RUN_SECONDS = 60
"""How long a run may take on a busy machine; it takes about two seconds."""


async def verify(
    *options: str, emulator: RunningEmulator | None = None, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    if emulator is not None:
        environ = {
            "KIRO_MCP_ENDPOINT_URL": emulator.url,
            "KIRO_API_KEY": EMULATOR_API_KEY,
            **environ,
        }
    with fail_after(RUN_SECONDS):
        return await run_forked("verify", *options, env=environment(**environ))


async def test_the_emulator_answers_every_question(tmp_path: Path) -> None:
    """All that the emulator cannot do is see a picture and keep a prompt cache."""
    report = tmp_path / "report.json"
    done = await verify("--offline", "--out", str(report))
    assert done.returncode == 0, done.stderr.decode()
    rows = {row["fact"]: row for row in json.loads(report.read_text())["rows"]}
    assert {row["outcome"] for row in rows.values()} == {"same", "open", "different"}
    assert [name for name, row in rows.items() if row["outcome"] == "different"] == [
        "image of a tool result",
        "GPT's cache by conversationId",
    ]
    assert all(name in done.stdout.decode() for name in rows)
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


async def test_a_dry_run_shows_questions_and_costs_and_sends_nothing(
    emulator: RunningEmulator,
) -> None:
    done = await verify("--dry-run", emulator=emulator)
    assert done.returncode == 0
    assert b"web search (InvokeMCP)" in done.stdout
    assert b"stops at 0.5" in done.stderr
    assert not emulator.state.requests


async def test_a_dry_run_with_the_vendors_program_shows_its_questions_alone() -> None:
    """No question to the program costs credits."""
    done = await verify("--dry-run", KIRO_MCP_ENGINE="kiro-cli")
    assert done.returncode == 0
    assert b"program: version" in done.stdout
    assert b"web search" not in done.stdout
    assert b"No credits. Nothing was sent." in done.stderr


async def test_nobody_has_to_agree_to_questions_that_cost_nothing() -> None:
    done = await verify(
        KIRO_MCP_ENGINE="kiro-cli",
        KIRO_MCP_KIRO_CLI=shlex.join((sys.executable, "-m", "kiro_mcp.emulator.kiro_cli")),
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"program: version" in done.stdout
    assert b"--yes" not in done.stderr


async def test_without_a_yes_nothing_is_sent(emulator: RunningEmulator) -> None:
    done = await verify(emulator=emulator)
    assert done.returncode == 2
    assert b"stops at 0.5" in done.stderr
    assert b"--yes" in done.stderr
    assert not emulator.state.requests


async def test_a_suspended_account_ends_the_run_with_what_was_seen(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """More requests could make it worse. The report names nobody."""
    emulator.state.enqueue((refusals.SUSPENDED,))
    done = await verify("--yes", "--out", str(tmp_path / "report"), emulator=emulator)
    assert done.returncode == 5
    assert b"account_suspended" in done.stderr
    rows = json.loads((tmp_path / "report").read_text())["rows"]
    outcomes = {row["fact"]: row["outcome"] for row in rows}
    assert (outcomes["prompt"], outcomes["prompt, kas"]) == ("failed", "not asked")
    assert "TEMPORARILY_SUSPENDED" in rows[-1]["seen"]
    assert emulator.state.prompts == 1


async def test_nothing_is_asked_after_a_throttle(emulator: RunningEmulator) -> None:
    emulator.state.enqueue((refusals.THROTTLED,))
    done = await verify("--yes", emulator=emulator)
    assert done.returncode != 0
    assert b"ended by rate_limited" in done.stdout
    assert emulator.state.prompts == 1


async def test_a_refused_question_does_not_stop_the_others(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """It is sent once, and the body of its refusal is described."""
    emulator.state.enqueue((refusals.FAILED,))
    done = await verify("--yes", "--out", str(tmp_path / "report"), emulator=emulator)
    assert done.returncode == 0, done.stderr.decode()
    rows = {row["fact"]: row for row in json.loads((tmp_path / "report").read_text())["rows"]}
    assert rows["prompt"]["outcome"] == "failed"
    assert rows["prompt, kas"]["outcome"] == "same"
    assert rows["refusals"]["seen"].startswith("500, ")


async def test_no_prompt_is_sent_once_half_a_credit_is_spent(emulator: RunningEmulator) -> None:
    emulator.state.enqueue(
        (Send(frames.text("OK") + frames.event("meteringEvent", {"usage": 0.5})),)
    )
    done = await verify("--yes", emulator=emulator)
    assert done.returncode == 0, done.stderr.decode()
    assert b"the limit of 0.5 credits" in done.stdout
    assert emulator.state.prompts == 1


async def test_the_report_has_no_tokens_accounts_or_ids(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Even if the service puts them where a name or a number is expected."""
    emulator.state.catalogue = (
        *emulator.state.catalogue,
        {**emulator.state.catalogue[0], "me@example.com": 1, EMULATOR_PROFILE_ARN: 1},
    )
    await verify(
        "--yes",
        "--out",
        str(tmp_path / "report"),
        emulator=emulator,
        KIRO_PROFILE_ARN=EMULATOR_PROFILE_ARN,
    )
    text = (tmp_path / "report").read_text()
    assert "[id]" in text
    assert not re.search(r"arn:|me@example|[0-9a-f]{8}-[0-9a-f]{4}", text)
    assert EMULATOR_API_KEY not in text


async def test_the_vendors_program_is_asked_what_is_free() -> None:
    done = await verify("--offline", KIRO_MCP_ENGINE="kiro-cli")
    assert done.returncode == 0, done.stderr.decode()
    assert b"program: version" in done.stdout
    assert b"--auth-method" in done.stdout
