"""What is left on disk when a server is killed during refreshes.

Run it: `python -m tests.benchmarks.refresh [REFRESHES]`. A process renews one login again and
again; it is killed (SIGKILL) at random moments. After each kill the store must be readable, and
its refresh token the newest that the service takes, or, where the kill came between the service's
answer and the disk, the one before.
"""

import random
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import DEVNULL
from typing import cast

import anyio

from kiro_mcp.auth.store import OwnStore
from kiro_mcp.emulator import EMULATOR_SOCIAL_REFRESH_TOKEN, EmulatorState, RunningEmulator, running
from kiro_mcp.server.engine import Engine
from kiro_mcp.settings import Settings
from tests.support.logins import accepted_refresh_tokens, sign_in_before
from tests.support.stdio import environment

MAX_REFRESHES_PER_LIFE = 9
MAX_START_SECONDS = 90
"""How long a process may need to start and renew, also on a busy machine."""
MAX_DELAY_SECONDS = 0.02
"""A refresh takes about 10 ms: killed within twice that, it is met at any of its steps."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How often each state was found on disk."""

    refreshes: int = 0
    kills: int = 0
    newest: int = 0
    one_before: int = 0
    lost: int = 0
    unreadable: int = 0
    left_files: int = 0


async def measure(refreshes: int, *, seed: int) -> Outcome:
    """Kill a process again and again until the emulator has seen so many refreshes."""
    chance = random.Random(seed)
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="kiro-mcp-") as folder:
        async with running() as emulator:
            emulator.state.accounts.access_token_seconds = 1  # Each call has to renew it.
            store = await sign_in_before(Path(folder), emulator.url)
            while outcome.refreshes < refreshes:
                outcome.refreshes += await _one_life(emulator, store, chance)
                outcome.kills += 1
                await _judge(emulator.state, store, outcome)
            outcome.left_files = len(list(store.folder.glob("*.tmp")))
    return outcome


async def _one_life(emulator: RunningEmulator, store: OwnStore, chance: random.Random) -> int:
    """Let a process live for some refreshes, kill it, and say how many there were."""
    emulator.state.requests.clear()
    wanted = chance.randint(1, MAX_REFRESHES_PER_LIFE)
    command = [sys.executable, "-m", "tests.benchmarks.refresh", "--renew", emulator.url]
    environ = environment(KIRO_MCP_HOME=str(store.folder))
    async with await anyio.open_process(
        command, stdin=DEVNULL, stdout=DEVNULL, stderr=None, env=environ
    ) as process:
        try:
            with anyio.fail_after(MAX_START_SECONDS):
                await emulator.state.until(lambda state: len(state.requests) >= wanted)
            await anyio.sleep(chance.uniform(0, MAX_DELAY_SECONDS))
        finally:
            process.kill()  # Else leaving the block would wait for it, also after a timeout.
    return len(emulator.state.requests_to("CreateToken"))


async def _judge(state: EmulatorState, store: OwnStore, outcome: Outcome) -> None:
    newest = _newest_accepted(state)
    try:
        login = store.login()
    except (OSError, ValueError):
        login = None
    if login is None:
        outcome.unreadable += 1
    elif login.refresh_token == newest:
        outcome.newest += 1
    elif login.refresh_token == _last_spent(state):
        outcome.one_before += 1
    else:
        outcome.lost += 1
    if login and login.refresh_token != newest:
        await store.save_login(replace(login, refresh_token=newest))


def _last_spent(state: EmulatorState) -> str:
    body = cast("dict[str, str]", state.requests_to("CreateToken")[-1].body)
    return body["refreshToken"]


def _newest_accepted(state: EmulatorState) -> str:
    # The other one is the social login's, which nobody renews here.
    return [t for t in accepted_refresh_tokens(state) if t != EMULATOR_SOCIAL_REFRESH_TOKEN][-1]


async def renew_for_ever(url: str, folder: str) -> None:
    """Renew the login in a folder until killed, by a clock that jumps: each call has to."""
    environ = {"KIRO_MCP_ENDPOINT_URL": url, "KIRO_MCP_HOME": folder}
    ahead = timedelta()

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    async with Engine(Settings.load(environ), environ=environ, now=now) as engine:
        while True:
            await engine.tokens.access_token()
            ahead += timedelta(minutes=1)


async def main() -> None:
    """Measure and print."""
    refreshes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    outcome = await measure(refreshes, seed=random.randrange(2**32))
    print(outcome)
    assert outcome.lost == outcome.unreadable == 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--renew"]:
        import os

        anyio.run(renew_for_ever, sys.argv[2], os.environ["KIRO_MCP_HOME"])
    else:
        anyio.run(main)
