"""The store of conversations deletes what is old, stays small, and delays nobody."""

import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after

from kiro_mcp.chat import Message, TextPart
from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from kiro_mcp.errors import InternalFault, InvalidRequest
from kiro_mcp.server.engine import STORE_NAME
from kiro_mcp.server.owners import OWN
from kiro_mcp.server.store import ConversationStore, Position, Turn
from tests.support.mcp import ask, ask_with_id, code, connected, words
from tests.support.stdio import PROMPTLY_SECONDS, environment, started

HOUR = 3600.0
TEST_SECONDS = 30
LOOKING_SECONDS = 0.01


def turn(said: str) -> Turn:
    return Turn(
        model="auto",
        system="",
        tools=(),
        messages=(Message(role="user", parts=(TextPart(text=said),)),),
        answer=Message(role="assistant", parts=(TextPart(text="Yes."),)),
    )


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    path: Path | None, clock: Callable[[], float] | None = None, **limits: Any
) -> AsyncGenerator[ConversationStore]:
    """Open a store, and close it in the end."""
    numbers = iter(range(1000))
    store = ConversationStore(
        path,
        lifetime_seconds=HOUR,
        now=clock or Clock(),
        new_id=lambda: f"new-{next(numbers)}",
        **limits,
    )
    with fail_after(TEST_SECONDS):
        async with aclosing(store):
            yield store


async def add(
    store: ConversationStore, name: str, number: int = 1, said: str = "?", **more: Any
) -> Position:
    position = Position(conversation_id=name, turn=number)
    return await store.append(position, turn(said), owner=OWN, result="{}", **more)


async def names(store: ConversationStore) -> list[str]:
    return [item.id for item in await store.listed(owner=OWN)]


def count(path: Path, table: str) -> int:
    """Count rows by looking at the file as another program would."""
    with closing(sqlite3.connect(path, timeout=TEST_SECONDS)) as db:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


async def until(is_so: Callable[[], bool]) -> None:
    """Poll, because the store's thread reports no deletions."""
    while not is_so():  # noqa: ASYNC110
        await anyio.sleep(LOOKING_SECONDS)  # Or the thread would hardly get a turn.


@contextmanager
def locked(path: Path) -> Generator[sqlite3.Connection]:
    """Hold the lock that every writer needs, as another server does while it writes."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=TEST_SECONDS)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db


# --- forgetting --------------------------------------------------------------------------------


async def test_a_store_that_stays_open_deletes_what_is_too_old(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.sqlite3", Clock()
    async with opened(path, clock, forget_every_seconds=0.01) as store:
        await add(store, "old", answer_id="old answer")
        clock.now += HOUR - 1
        await add(store, "young", answer_id="young answer")
        clock.now += 2
        await until(lambda: count(path, "turns") == 1 and count(path, "answers") == 1)
        assert await names(store) == ["young"]


async def test_what_is_too_old_is_not_found_although_it_is_still_there(tmp_path: Path) -> None:
    """Also in memory, where nobody can look."""
    for path in (tmp_path / "store.sqlite3", None):
        clock = Clock()
        async with opened(path, clock) as store:
            await add(store, "c", answer_id="a")
            clock.now += HOUR - 1
            assert await names(store) == ["c"]
            assert await store.answer("a", owner=OWN) == b"{}"
            clock.now += 2
            assert await names(store) == []
            assert await store.answer("a", owner=OWN) is None
            with pytest.raises(InvalidRequest, match="'c'"):
                await store.load("c", owner=OWN)
        assert path is None or count(path, "turns") == 1


async def test_a_conversation_that_goes_on_is_kept_whole(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path / "store.sqlite3", clock, forget_every_seconds=0.01) as store:
        await add(store, "c")
        await add(store, "other")
        clock.now += HOUR - 1
        await add(store, "c", 2)
        clock.now += HOUR - 1
        await until(lambda: count(tmp_path / "store.sqlite3", "turns") == 2)
        assert len((await store.load("c", owner=OWN)).turns) == 2


async def test_deleting_many_old_rows_delays_nobody_and_frees_their_space(
    tmp_path: Path,
) -> None:
    """A first call is answered, and another program can write, before all of them are gone."""
    path = tmp_path / "store.sqlite3"
    async with opened(path) as store:
        await add(store, "c")
    rows = [(f"old-{number}", 1.0, "x" * 700) for number in range(20_000)]
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO answers (id, created_at, result) VALUES (?, ?, ?)", rows)
        db.commit()
    size = path.stat().st_size
    async with opened(path) as store:
        await add(store, "d")
        with closing(sqlite3.connect(path, timeout=TEST_SECONDS)) as other:
            other.execute("INSERT INTO answers (id, created_at, result) VALUES ('x', 1e6, '')")
            other.commit()
        assert count(path, "answers") > 1
        await until(lambda: count(path, "answers") == 1)
        await until(lambda: path.stat().st_size < size / 2)
        assert set(await names(store)) == {"c", "d"}


async def test_an_older_store_that_shrank_frees_its_space_too(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_SCHEMA)
        rows = [(f"old-{number}", 1.0, "x" * 5000) for number in range(2000)]
        db.executemany("INSERT INTO answers VALUES (?, ?, ?)", rows)
        db.commit()
    size = path.stat().st_size
    async with opened(path) as store:
        await add(store, "c")
        await until(lambda: path.stat().st_size < size / 10)
        assert await names(store) == ["c"]


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"max_rows": 5}, {"max_bytes": 400_000}])
async def test_a_full_store_forgets_the_oldest(limits: dict[str, int], tmp_path: Path) -> None:
    said = "x" * 60_000
    for path in (tmp_path / "store.sqlite3", None):
        clock = Clock()
        async with opened(path, clock, **limits) as store:
            for number in range(20):
                clock.now += 1
                await add(store, f"c{number}", said=said)
            while len(kept := await names(store)) > 6:  # noqa: ASYNC110
                await anyio.sleep(LOOKING_SECONDS)
            assert kept == [f"c{19 - number}" for number in range(len(kept))]
            assert len(kept) >= 2
            assert (await store.load("c19", owner=OWN)).turns == (turn(said),)


async def test_an_answer_whose_conversation_was_forgotten_meanwhile_is_kept(
    tmp_path: Path,
) -> None:
    """A conversation with missing turns would be worse than none."""
    path = tmp_path / "store.sqlite3"
    async with opened(path) as store:
        await add(store, "c")
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE conversations SET updated_at = 0")
            db.commit()
        with pytest.raises(InternalFault, match="'c' was forgotten"):
            await add(store, "c", 2, answer_id="a")
        assert await store.answer("a", owner=OWN) == b"{}"
        assert await names(store) == []


# --- forks -------------------------------------------------------------------------------------


async def test_a_fork_costs_one_turn_and_outlives_its_origin(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.sqlite3", Clock()
    async with opened(path, clock, forget_every_seconds=0.01) as store:
        for number in range(1, 51):
            await add(store, "c", number, said=f"{number}?")
        await add(store, "fork", 50, forked_from="c")
        await add(store, "fork of fork", 51, forked_from="fork")
        assert count(path, "turns") == 52
        clock.now += HOUR - 1
        await add(store, "fork of fork", 52)
        clock.now += 2
        await until(lambda: count(path, "conversations") == 1)
        assert await names(store) == ["fork of fork"]
        said = [one.messages for one in (await store.load("fork of fork", owner=OWN)).turns]
        assert (
            said
            == [turn(f"{number}?").messages for number in range(1, 50)] + [turn("?").messages] * 3
        )
        assert count(path, "turns") == 52
        clock.now += HOUR + 1
        await until(lambda: count(path, "turns") == 0)
        assert count(path, "histories") == 0


# --- other processes, and slow disks -----------------------------------------------------------


async def test_a_reader_is_answered_while_another_program_writes(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Also a server that opens the store only then."""
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        first, answer_id = await ask_with_id(client, prompt="One?")
        with locked(tmp_path / STORE_NAME):
            async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as other:
                for reader in (client, other):
                    plan = await ask(
                        reader,
                        prompt="Two?",
                        conversation_id=first["conversation_id"],
                        dry_run=True,
                    )
                    assert plan["status"] == "dry_run"
                    assert await ask(reader, answer_id=answer_id) == first
                    (listing,) = (await reader.read_resource("kiro://conversations")).contents
                    assert first["conversation_id"] in str(listing)


async def test_a_reader_is_answered_while_a_writer_waits_for_the_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.sqlite3"
    order: list[str] = []
    async with opened(path) as store:
        await add(store, "c")

        async def write() -> None:
            await add(store, "d")
            order.append("written")

        async with create_task_group() as tasks:
            with locked(path):
                for _ in range(3):
                    tasks.start_soon(write)
                await anyio.wait_all_tasks_blocked()
                assert await names(store) == ["c"]
                order.append("read")
        assert order[0] == "read"
        assert len(order) == 4


async def test_a_store_that_stays_locked_is_named_and_used_again_later(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with opened(path) as store:
        await add(store, "c")
        store.end_soon()  # Or the test would wait as long as a call does.
        with locked(path), pytest.raises(InternalFault, match="locked by another") as caught:
            await add(store, "d")
        assert str(path) in caught.value.message
        assert "away" not in caught.value.next_step
        await add(store, "e")
        assert await names(store) == ["c", "e"]


async def test_a_locked_store_does_not_delay_the_end_of_the_server(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """With an answer that waits to be written, and one that is still on its way."""
    environ = environment(
        KIRO_MCP_ENDPOINT_URL=emulator.url,
        KIRO_API_KEY=EMULATOR_API_KEY,
        KIRO_MCP_HOME=str(tmp_path),
    )
    with fail_after(TEST_SECONDS):
        async with started(environ) as server:
            await server.initialize()
            await server.call("ask_claude", prompt="One?")
            with locked(tmp_path / STORE_NAME) as other:
                for prompt in ("Two?", "/emulate stall"):
                    arguments = {"prompt": prompt}
                    await server.post("tools/call", {"name": "ask_claude", "arguments": arguments})
                await emulator.state.until(
                    lambda state: len(state.requests) == 3 and state.open_streams == 1
                )
                await server.stdin.aclose()
                with fail_after(PROMPTLY_SECONDS):
                    await server.process.wait()
                other.execute("ROLLBACK")
            assert server.process.returncode == 0
            assert "Traceback" not in server.stderr


async def test_a_disk_that_does_not_answer_does_not_delay_the_end_of_the_server(
    tmp_path: Path,
) -> None:
    """The clock stands in for the disk: both are asked in the store's thread."""
    begun, answers = threading.Event(), threading.Event()

    def now() -> float:
        begun.set()
        answers.wait(TEST_SECONDS)
        return 1.0

    failed: list[str] = []

    async def write(store: ConversationStore) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await add(store, "c")
            except InternalFault as error:
                failed.append(str(error))

    try:
        async with opened(tmp_path / "store.sqlite3", now) as store, create_task_group() as tasks:
            tasks.start_soon(write, store)
            tasks.start_soon(write, store)
            await until(begun.is_set)
            store.end_soon()
        assert len(failed) == 2
        assert "did not answer in time" in failed[0]
    finally:
        answers.set()


# --- versions ----------------------------------------------------------------------------------


async def test_a_store_of_a_newer_version_is_named_and_left_alone(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    path = tmp_path / STORE_NAME
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE theirs (x); PRAGMA user_version = 99;")
    before = path.read_bytes()
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        answer = await ask(client, prompt="Hello")
        refused = await client.call_tool("ask_claude", {"prompt": "x", "conversation_id": "c"})
    assert "Hello" in answer["text"]
    (warning,) = answer["warnings"]
    for told in (warning, words(refused)):
        assert "a newer version of kiro-mcp" in told
        assert "Update kiro-mcp" in told
        assert "away" not in told
    assert code(refused) == "internal_error"
    assert path.read_bytes() == before


async def test_a_store_that_a_newer_version_takes_over_is_left_alone_from_then_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.sqlite3"
    async with opened(path) as store:
        await add(store, "c")
        with closing(sqlite3.connect(path)) as db:
            db.executescript("PRAGMA user_version = 99;")
        with pytest.raises(InternalFault, match="newer version"):
            await add(store, "d")
        with pytest.raises(InternalFault, match="newer version"):
            await store.load("c", owner=OWN)
    assert count(path, "turns") == 1


FIRST_SCHEMA = """
    CREATE TABLE turns (
        conversation_id TEXT NOT NULL, turn INTEGER NOT NULL, created_at REAL NOT NULL,
        model TEXT NOT NULL, system TEXT NOT NULL, tools TEXT NOT NULL, messages TEXT NOT NULL,
        answer TEXT NOT NULL, PRIMARY KEY (conversation_id, turn)
    );
    CREATE TABLE answers (id TEXT PRIMARY KEY, created_at REAL NOT NULL, result TEXT NOT NULL);
    PRAGMA user_version = 1;
"""


async def test_a_store_of_an_older_version_keeps_its_conversations(tmp_path: Path) -> None:
    """They belong to the server's own credential: there was no other."""
    path = tmp_path / "store.sqlite3"
    said = '[{"role": "user", "parts": [{"kind": "text", "text": "?"}], "is_truncated": false}]'
    answered = '{"role": "assistant", "parts": [], "is_truncated": false}'
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_SCHEMA)
        row = (Clock().now, "auto", "Be brief.", "[]", said, answered)
        db.execute("INSERT INTO turns VALUES ('c', 1, ?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO answers VALUES ('a', ?, '{}')", (Clock().now,))
        db.commit()
    async with opened(path) as store:
        (kept,) = (await store.load("c", owner=OWN)).turns
        assert (kept.system, kept.messages) == ("Be brief.", turn("?").messages)
        assert await store.answer("a", owner=OWN) == b"{}"
        assert await store.answer("a", owner="somebody else") is None
        assert await add(store, "c", 2) == Position(conversation_id="c", turn=2)
        assert [item.turn_count for item in await store.listed(owner=OWN)] == [2]
