"""How calls end when everything goes wrong: 2,000 calls, and 200 cancelled ones.

Run it with `python -m tests.benchmarks.faults`. The real client asks an emulator in the same
process, 16 calls at a time; which fault each call meets is drawn with a fixed seed, and its
prompt says which answers are right. Memory is measured after the first calls, which load modules
and fill caches. Exits with 1 if a call ends in anything else, hangs, or leaves a connection, a
file descriptor or a task behind, or if memory grows by more than 5 MiB.
"""

import asyncio
import gc
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio

from kiro_mcp.chat import AccessToken, ChatRequest, Message, Reply, TextPart
from kiro_mcp.client.client import KiroClient
from kiro_mcp.client.retry import TokenRecovery
from kiro_mcp.emulator import (
    EMULATOR_ACCESS_TOKEN,
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    Cut,
    EmulatorState,
    HttpAnswer,
    Pause,
    Script,
    Send,
    frames,
    refusals,
    running,
)
from kiro_mcp.emulator.request import Call
from kiro_mcp.errors import KiroError
from kiro_mcp.settings import Settings

CALLS = 2_000
CANCELLED = 200
WARMING = 300
"""How many calls are made before the memory is measured for the first time."""
GROWTH_BAR_MIB = 5
AT_ONCE = 16
SEED = 20261121
CALL_SECONDS = 20.0
"""After which a call counts as hung; the slowest should take one."""

Job = Callable[[], Awaitable[None]]

WORDS = "All of the answer, from its first word to its last one."
WHOLE = Send(frames.text(WORDS) + frames.ending())
HALF = Send(frames.text(WORDS[:24]))
KEY = AccessToken(value=EMULATOR_API_KEY, token_type="API_KEY", is_explicit=True)
SUSPENDED = AccessToken(
    value=EMULATOR_ACCESS_TOKEN, profile_arn=EMULATOR_PROFILE_ARN, is_explicit=True
)
STALE = replace(KEY, value="ksk_stale")


@dataclass(frozen=True)
class Kind:
    """What a call meets: one answer after the other, the last one for good."""

    answers: tuple[Script, ...]
    right: str
    """`answer`, `partial`, or the code of an error."""
    weight: int = 1
    token: AccessToken = KEY


def _refused(status: int, **headers: str) -> Script:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (HttpAnswer(status=status, body=b"", headers=named),)


_CORRUPT = Send(frames.with_bad_checksum(frames.text("never read")))
_SLOW: Script = tuple(
    step for word in WORDS.split(" ") for step in (Send(frames.text(f"{word} ")), Pause(0.005))
)
_ANSWER: Script = (WHOLE,)

KINDS: Mapping[str, Kind] = {
    "fine": Kind((_ANSWER,), "answer", 8),
    "slow stream": Kind(((*_SLOW, Send(frames.ending())),), "answer", 4),
    "reset before the first word": Kind(((Cut(),), _ANSWER), "answer", 3),
    "reset in the middle": Kind(((HALF, Cut()),), "partial", 3),
    "reset for good": Kind(((Cut(),),), "stream_broken"),
    "stall before the first word": Kind(((Send(b""), Pause(60), Cut()), _ANSWER), "answer", 2),
    "stall in the middle": Kind(((HALF, Pause(60), Cut()),), "partial", 2),
    "stall for good": Kind(((Send(b""), Pause(60), Cut()),), "timeout"),
    "two 429": Kind(((refusals.THROTTLED,), (refusals.THROTTLED,), _ANSWER), "answer", 3),
    "429 with Retry-After": Kind((_refused(429, retry_after="0.01"), _ANSWER), "answer", 2),
    "429 for good": Kind(((refusals.MODEL_BUSY,),), "model_busy"),
    "two 5xx": Kind((_refused(502), _refused(503), _ANSWER), "answer", 3),
    "5xx for good": Kind((_refused(500),), "upstream_error"),
    "corrupt first frame": Kind(((_CORRUPT,), _ANSWER), "answer", 2),
    "corrupt in the middle": Kind(((HALF, _CORRUPT),), "partial", 2),
    "exception in the middle": Kind(
        ((HALF, Send(frames.exception("busy", "MODEL_TEMPORARILY_UNAVAILABLE"))),), "partial", 2
    ),
    "expired token": Kind((_ANSWER,), "answer", 3, token=STALE),
    "empty, then not": Kind(((Send(frames.ending()),), _ANSWER), "answer", 2),
    "empty for good": Kind(((Send(frames.ending()),),), "empty_response"),
    "quota": Kind(((refusals.QUOTA_EXHAUSTED,),), "quota_exhausted"),
    # With a credential of its own: nothing more is sent with a suspended one.
    "suspended": Kind(((refusals.SUSPENDED,),), "account_suspended", token=SUSPENDED),
}


class FaultyState(EmulatorState):
    """An emulator whose answers follow the kind that a prompt names."""

    def __init__(self) -> None:
        super().__init__(chunk_bytes=64)
        self.requests = deque(maxlen=AT_ONCE)  # Or memory would grow until a thousand are kept.
        self._met: Counter[str] = Counter()

    def script_for(self, call: Call) -> Script:
        """Play the next answer of the call that the prompt is of."""
        text = call.current.content.partition("call ")[2].partition("!")[0]
        kind = KINDS[text.partition(": ")[2]]
        self._met[text] += 1
        return kind.answers[min(self._met[text], len(kind.answers)) - 1]


class PerCallTokens:
    """A token source for concurrent calls: each task has its own token."""

    def __init__(self) -> None:
        self._tokens: dict[asyncio.Task[object] | None, AccessToken] = {}

    def set(self, token: AccessToken) -> None:
        """Say which token the calls of this task go with."""
        self._tokens[asyncio.current_task()] = token

    def forget(self) -> None:
        """Drop this task's token."""
        self._tokens.pop(asyncio.current_task(), None)

    async def access_token(self) -> AccessToken:
        """Return this task's token."""
        return self._tokens[asyncio.current_task()]

    async def recover(self, rejected: AccessToken, recovery: TokenRecovery) -> AccessToken:
        """Return a good one for a stale one."""
        assert (rejected, recovery) == (STALE, "fresh_token")
        return KEY


@dataclass
class Tally:
    """How the calls ended."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    wrong: list[str] = field(default_factory=list[str])
    hung: int = 0
    seconds: list[float] = field(default_factory=list[float])
    late: list[float] = field(default_factory=list[float])
    """How long cancelling took, in seconds."""


def request_of(number: int, kind: str) -> ChatRequest:
    """Return the prompt of one call."""
    text = f"call {number}: {kind}!"
    return ChatRequest(
        messages=(Message(role="user", parts=(TextPart(text=text),)),),
        conversation_id="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
    )


def ending_of(reply: Reply) -> str:
    """Return how an answer ended; `wrong` if the right answer does not begin with its words."""
    said = reply.text.strip()
    if reply.truncated:
        is_marked = bool(reply.truncation_reason) and reply.fault is not None
        return "partial" if is_marked and said and WORDS.startswith(said) else "wrong"
    return "answer" if said == WORDS else "wrong"


async def one_call(
    client: KiroClient, tokens: PerCallTokens, number: int, kind: str, tally: Tally
) -> None:
    """Make a call and note how it ended."""
    started = time.perf_counter()
    tokens.set(KINDS[kind].token)
    ended = "hung"
    with anyio.move_on_after(CALL_SECONDS):
        try:
            ended = ending_of(await client.ask(request_of(number, kind)))
        except KiroError as error:
            ended = error.code
    tokens.forget()
    tally.seconds.append(time.perf_counter() - started)
    tally.ended[kind, ended] += 1
    tally.hung += ended == "hung"
    if ended != KINDS[kind].right:
        tally.wrong.append(f"{kind}: {ended}")


async def one_cancelled(
    client: KiroClient, tokens: PerCallTokens, number: int, kind: str, after: float, tally: Tally
) -> None:
    """Make a call, cancel it after some seconds, and note how long that took."""
    tokens.set(KINDS[kind].token)
    asked_at = 0.0
    with anyio.CancelScope() as scope:

        def cancel() -> None:
            nonlocal asked_at
            asked_at = time.perf_counter()
            scope.cancel()

        timer = asyncio.get_running_loop().call_later(after, cancel)
        try:
            await client.ask(request_of(number, kind))
        except KiroError:
            pass
        finally:
            timer.cancel()
    tokens.forget()
    if scope.cancelled_caught:
        tally.late.append(time.perf_counter() - asked_at)


async def run_all(jobs: Iterable[Job]) -> None:
    """Run jobs, so many at once, until all are done."""
    queue = iter(jobs)

    async def work() -> None:
        for job in queue:
            await job()

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(work)


def open_files() -> int:
    """Count this process's file descriptors."""
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def memory_mib() -> float:
    """Return this process's resident memory."""
    if sys.platform != "linux":
        return 0.0
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


def jobs_of(client: KiroClient, tokens: PerCallTokens, tally: Tally) -> list[Job]:
    """Draw all calls: which fault each meets, and when the cancelled ones are cancelled."""
    chance = random.Random(SEED)
    kinds = chance.choices(list(KINDS), [kind.weight for kind in KINDS.values()], k=CALLS)
    jobs: list[Job] = [
        partial(one_call, client, tokens, number, kind, tally) for number, kind in enumerate(kinds)
    ]
    for number in range(CALLS, CALLS + CANCELLED):
        kind, after = chance.choice(list(KINDS)), chance.uniform(0, 0.12)
        jobs.append(partial(one_cancelled, client, tokens, number, kind, after, tally))
    chance.shuffle(jobs)
    return jobs


@dataclass(frozen=True)
class Leftovers:
    """What the process holds before and after."""

    files: int
    tasks: int
    streams: int

    @classmethod
    def now(cls, state: EmulatorState) -> "Leftovers":
        """Count."""
        gc.collect()
        return cls(open_files(), len(asyncio.all_tasks()), state.open_streams)


async def measure() -> tuple[Tally, Leftovers, Leftovers, float, float]:
    """Make all calls; return how they ended, what was left, the time and the memory's growth."""
    tally, tokens, state = Tally(), PerCallTokens(), FaultyState()
    settings = {
        "KIRO_MCP_MAX_CONCURRENCY": str(AT_ONCE),
        "KIRO_MCP_BASE_RETRY_DELAY": "0.004",
        "KIRO_MCP_FIRST_TOKEN_TIMEOUT": "0.6",
        "KIRO_MCP_STREAM_READ_TIMEOUT": "0.6",
    }
    async with running(state) as emulator:
        before = Leftovers.now(state)
        started = time.perf_counter()
        loaded = Settings.load({"KIRO_MCP_ENDPOINT_URL": emulator.url, **settings})
        async with KiroClient(tokens, loaded) as client:
            jobs = jobs_of(client, tokens, tally)
            await run_all(jobs[:WARMING])
            gc.collect()
            memory = memory_mib()
            await run_all(jobs[WARMING:])
        elapsed = time.perf_counter() - started
        await anyio.sleep(0.2)  # The emulator's side sees that connections are closed.
        return tally, before, Leftovers.now(state), elapsed, memory_mib() - memory


def show(tally: Tally, before: Leftovers, after: Leftovers, elapsed: float, grown: float) -> bool:
    """Print the figures; return whether all is as it should be."""
    print(f"{'what a call meets':<30} {'how it ended':<20} calls")
    for (kind, ended), count in sorted(tally.ended.items()):
        is_right = ended == KINDS[kind].right
        print(f"{kind:<30} {ended:<20} {count:>5}{'' if is_right else '  WRONG'}")
    seconds, late = sorted(tally.seconds), sorted(tally.late)
    print(
        f"\n{len(seconds)} calls, {AT_ONCE} at once, in {elapsed:.1f} s: median"
        f" {seconds[len(seconds) // 2] * 1000:.0f} ms, slowest {seconds[-1]:.2f} s,"
        f" {len(tally.wrong)} wrong, {tally.hung} hung"
    )
    print(
        f"{CANCELLED} cancelled, {len(late)} of them before their end: gone after"
        f" {late[len(late) // 2] * 1000:.1f} ms (median), {late[-1] * 1000:.1f} ms (slowest)"
    )
    print(f"before {before}\nafter  {after}\nmemory grew by {grown:.1f} MiB")
    is_prompt = late[-1] < 0.5
    is_clean = before == after and grown < GROWTH_BAR_MIB
    return not tally.wrong and not tally.hung and is_clean and is_prompt


def main() -> int:
    """Run it."""
    return 0 if show(*anyio.run(measure)) else 1


if __name__ == "__main__":
    sys.exit(main())
