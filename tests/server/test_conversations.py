"""Conversations on disk: continued, forked, never mixed, never lost."""

import json
import sqlite3
import stat
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from anyio import create_task_group, fail_after

from kiro_mcp.chat import (
    ImagePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.errors import InternalFault, InvalidRequest
from kiro_mcp.server.engine import STORE_NAME
from kiro_mcp.server.owners import OWN, owner_of
from kiro_mcp.server.store import (
    ConversationStore,
    Position,
    Turn,
)
from tests.support.mcp import ask, ask_with_id, code, connected, sent, words

HOUR = 3600.0
SECRET = b"of this installation"


def turn(said: str, answer: str = "Yes.") -> Turn:
    return Turn(
        model="auto",
        system="Be brief.",
        tools=(ToolSpec(name="read", description="Read.", input_schema={"type": "object"}),),
        messages=(Message(role="user", parts=(TextPart(text=said),)),),
        answer=Message(role="assistant", parts=(TextPart(text=answer),)),
    )


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def ids() -> Iterator[str]:
    return (f"fork-{number}" for number in count(1))


def opened(path: Path | None, clock: Clock | None = None) -> ConversationStore:
    fresh = ids()
    return ConversationStore(
        path, lifetime_seconds=HOUR, now=clock or Clock(), new_id=lambda: next(fresh)
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[ConversationStore]:
    store = opened(tmp_path / "private" / "store.sqlite3")
    with fail_after(10):
        yield store
        await store.aclose()


FIRST = Position(conversation_id="c", turn=1)
SECOND = Position(conversation_id="c", turn=2)


async def test_a_conversation_comes_back_as_it_was(store: ConversationStore) -> None:
    assert await store.append(FIRST, turn("One?"), owner=OWN) == FIRST
    assert await store.append(SECOND, turn("Two?"), owner=OWN) == SECOND
    loaded = await store.load("c", owner=OWN)
    assert loaded.turns == (turn("One?"), turn("Two?"))
    assert [message.role for message in loaded.messages] == ["user", "assistant"] * 2


async def test_nothing_is_written_before_the_first_turn(tmp_path: Path) -> None:
    """A server that is only configured touches nothing."""
    store = opened(tmp_path / "store.sqlite3")
    await store.aclose()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
async def test_only_its_owner_can_read_the_store(store: ConversationStore, tmp_path: Path) -> None:
    """Conversations hold whatever people say."""
    await store.append(FIRST, turn("One?"), owner=OWN)
    folder = tmp_path / "private"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_each_call_gets_its_own_result_while_others_are_cancelled(
    store: ConversationStore,
) -> None:
    """The worker thread completes all waiting work, even if a caller gives up."""
    stood: dict[int, Position] = {}

    async def append(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            position = Position(conversation_id=f"c{number}", turn=1)
            stood[number] = await store.append(position, turn(f"{number}?"), owner=OWN)

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(60)]
        for number, scope in enumerate(scopes):
            tasks.start_soon(append, number, scope)
        for steps, scope in enumerate(scopes[::3]):
            scope.cancel()
            for _ in range(steps % 4):
                await anyio.lowlevel.checkpoint()
    kept = [number for number in range(60) if number % 3]
    assert all(stood[number].conversation_id == f"c{number}" for number in kept)
    for number in kept:
        assert (await store.load(f"c{number}", owner=OWN)).turns == (turn(f"{number}?"),)


async def test_a_turn_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    """It is on disk when `append` returns, so another process finds it at once."""
    path = tmp_path / "store.sqlite3"
    writer, reader = opened(path), opened(path)
    await writer.append(FIRST, turn("One?"), owner=OWN)
    assert (await reader.load("c", owner=OWN)).turns == (turn("One?"),)
    await reader.aclose()
    await writer.aclose()


async def test_two_calls_at_the_same_place_get_conversations_of_their_own(
    store: ConversationStore,
) -> None:
    """Turns of two clients are never mixed."""
    await store.append(FIRST, turn("One?"), owner=OWN)
    await store.append(SECOND, turn("Two?"), owner=OWN)
    position = await store.append(SECOND, turn("Another two?"), owner=OWN)
    assert position == Position(conversation_id="fork-1", turn=2)
    assert (await store.load("fork-1", owner=OWN)).turns == (turn("One?"), turn("Another two?"))
    assert (await store.load("c", owner=OWN)).turns == (turn("One?"), turn("Two?"))


async def test_a_fork_shares_the_turns_before_it(store: ConversationStore) -> None:
    for number, said in enumerate(("One?", "Two?", "Three?"), start=1):
        await store.append(Position(conversation_id="c", turn=number), turn(said), owner=OWN)
    position = Position(conversation_id="other", turn=2)
    assert await store.append(position, turn("Else?"), forked_from="c", owner=OWN) == position
    assert (await store.load("other", owner=OWN)).turns == (turn("One?"), turn("Else?"))


async def test_a_conversation_is_read_up_to_a_turn(store: ConversationStore) -> None:
    await store.append(FIRST, turn("One?"), owner=OWN)
    await store.append(SECOND, turn("Two?"), owner=OWN)
    assert (await store.load("c", owner=OWN, up_to_turn=1)).turns == (turn("One?"),)
    with pytest.raises(InvalidRequest, match="no turn 3") as caught:
        await store.load("c", owner=OWN, up_to_turn=3)
    assert caught.value.code == "not_found"


async def test_an_unknown_conversation_is_not_found(store: ConversationStore) -> None:
    """And the error says what to do."""
    with pytest.raises(InvalidRequest, match="'gone'") as caught:
        await store.load("gone", owner=OWN)
    assert caught.value.code == "not_found"
    assert caught.value.next_step


async def test_the_latest_conversations_are_listed_first() -> None:
    clock = Clock()
    store = opened(None, clock)
    for name in ("a", "b"):
        clock.now += 1
        await store.append(Position(conversation_id=name, turn=1), turn("?"), owner=OWN)
    listed = await store.listed(owner=OWN)
    assert [(item.id, item.turn_count) for item in listed] == [("b", 1), ("a", 1)]
    await store.aclose()


async def test_a_failed_write_leaves_nothing_behind(store: ConversationStore) -> None:
    """A turn is either complete or missing."""
    await store.append(FIRST, turn("One?"), owner=OWN)
    unwritable: Any = object()
    broken = Turn(model="m", system=unwritable, tools=(), messages=(), answer=turn("x").answer)
    with pytest.raises(InternalFault):
        await store.append(Position(conversation_id="new", turn=1), broken, owner=OWN)
    assert [item.id for item in await store.listed(owner=OWN)] == ["c"]


async def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Several clients start a server each, on one store."""
    stores = [opened(tmp_path / "store.sqlite3") for _ in range(4)]
    with fail_after(20):
        async with create_task_group() as tasks:
            for number, store in enumerate(stores):
                for turns in range(10):
                    position = Position(conversation_id=f"{number}-{turns}", turn=1)
                    tasks.start_soon(partial(store.append, position, turn("?"), owner=OWN))
        assert len(await stores[0].listed(owner=OWN)) == 40
        for store in stores:
            await store.aclose()


async def test_a_server_waits_for_another_that_makes_the_store(tmp_path: Path) -> None:
    """Observed: SQLite does not wait by itself where the store has no log yet."""
    path = tmp_path / "store.sqlite3"
    store = opened(path)
    with (
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        fail_after(10),
    ):
        other.execute("BEGIN IMMEDIATE")
        async with create_task_group() as tasks:
            tasks.start_soon(partial(store.append, FIRST, turn("One?"), owner=OWN))
            await anyio.wait_all_tasks_blocked()
            other.execute("CREATE TABLE theirs (x)")
            other.execute("COMMIT")
        assert (await store.load("c", owner=OWN)).turns == (turn("One?"),)
        await store.aclose()


async def test_people_find_nothing_that_belongs_to_others(store: ConversationStore) -> None:
    """People who share a server do not see each other, whichever id they know."""
    mine, theirs = owner_of("ksk_mine", SECRET), owner_of("ksk_theirs", SECRET)
    for number, owner in enumerate((OWN, mine, theirs)):
        position = Position(conversation_id=f"c{number}", turn=1)
        await store.append(position, turn("One?"), owner=owner, answer_id=f"a{number}", result="{}")
    assert [item.id for item in await store.listed(owner=mine)] == ["c1"]
    assert len((await store.load("c1", owner=mine)).turns) == 1
    assert await store.answer("a1", owner=mine) == b"{}"
    for number in (0, 2):
        with pytest.raises(InvalidRequest) as caught:
            await store.load(f"c{number}", owner=mine)
        assert caught.value.code == "not_found"
        assert await store.answer(f"a{number}", owner=mine) is None


LONG = "grüß 🙂 " * 20_000

PARTS = (
    TextPart(text="grüß 🙂"),
    ThinkingPart(text="hm", signature="s"),
    ToolUse(id="t", name="n", arguments={"a": [1, None]}, schema_errors=("x",)),
    ToolResult(id="t", text="r", is_error=True, images=(ImagePart(format="png", data="AAAA"),)),
    ImagePart(format="png", data="AAAA"),
    TextPart(text=LONG),
    TextPart(text=f"half a character: \ud83d{LONG}"),
    ToolResult(id="t", text=LONG, images=(ImagePart(format="png", data="AAAA" * 20_000),)),
    ToolUse(id="t", name="n", arguments={"a": {"long": 0}, "b": LONG}),
)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{type(part).__name__}-{len(str(part))}")
async def test_every_kind_of_part_comes_back_as_it_was(store: ConversationStore, part: Any) -> None:
    message = Message(role="user", parts=(part,), is_truncated=True)
    stored = replace(turn("One?"), messages=(message,), answer=replace(message, is_refusal=True))
    await store.append(FIRST, stored, owner=OWN)
    assert (await store.load("c", owner=OWN)).turns == (stored,)


async def test_a_long_text_goes_with_its_turn_and_with_a_fork_of_it(
    store: ConversationStore, tmp_path: Path
) -> None:
    """It is stored once, as it is, outside the JSON of its turn."""
    await store.append(FIRST, turn(LONG), owner=OWN)
    await store.append(SECOND, turn("Two?"), owner=OWN)
    await store.append(replace(SECOND, conversation_id="d"), turn("?"), owner=OWN, forked_from="c")
    assert (await store.load("d", owner=OWN)).turns == (turn(LONG), turn("?"))
    with closing(sqlite3.connect(tmp_path / "private" / "store.sqlite3")) as db:
        rows = db.execute("SELECT conversation_id, turn, text FROM long_texts").fetchall()
        assert rows == [("c", 1, LONG.encode())]
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM turns WHERE turn = 1")
        assert db.execute("SELECT * FROM long_texts").fetchall() == []


async def test_the_text_that_arguments_were_read_from_is_not_stored(
    store: ConversationStore, tmp_path: Path
) -> None:
    """Another version, which knows no such member, must be able to read the store."""
    use = ToolUse(id="1", name="read", arguments={"path": "a"}, text='{"path":  "a"}')
    answer = Message(role="assistant", parts=(use,))
    await store.append(FIRST, replace(turn("One?"), answer=answer), owner=OWN)
    with closing(sqlite3.connect(tmp_path / "private" / "store.sqlite3")) as db:
        ((record,),) = db.execute("SELECT answer FROM turns")
    assert json.loads(record)["parts"][0]["arguments"] == {"path": "a"}
    assert '"text"' not in record


# --- through the tool ---------------------------------------------------------------------


async def test_a_conversation_goes_on_under_its_id(emulator: RunningEmulator) -> None:
    """With the system prompt, model and tools that it had."""
    tool = {"name": "read", "description": "Read.", "inputSchema": {"type": "object"}}
    async with connected(emulator) as client:
        first = await ask(
            client, prompt="One?", system="Count.", model="claude-haiku-4.5", tools=[tool]
        )
        second = await ask(client, prompt="Two?", conversation_id=first["conversation_id"])
    assert (first["turn"], second["turn"]) == (1, 2)
    assert second["conversation_id"] == first["conversation_id"]
    assert second["model"] == "claude-haiku-4.5"
    state = sent(emulator)["conversationState"]
    assert state["conversationId"] == first["conversation_id"]
    assert state["history"][0]["userInputMessage"]["content"] == "Count.\n\nOne?"
    assert state["history"][1]["assistantResponseMessage"]["content"] == first["text"]
    current = state["currentMessage"]["userInputMessage"]
    assert current["content"] == "Two?"
    assert len(current["userInputMessageContext"]["tools"]) == 1


async def test_tool_results_go_back_to_the_calls_they_answer(emulator: RunningEmulator) -> None:
    """The whole round trip, with no history on the caller's side."""
    tool = {"name": "read", "description": "Read.", "inputSchema": {"type": "object"}}
    async with connected(emulator) as client:
        first = await ask(client, prompt="/emulate parallel_tools", tools=[tool])
        results = [
            {"id": call["id"], "content": f"result {number}", "is_error": number == 1}
            for number, call in enumerate(first["tool_calls"])
        ]
        await ask(client, tool_results=results, conversation_id=first["conversation_id"])
    state = sent(emulator)["conversationState"]
    said = state["history"][-1]["assistantResponseMessage"]
    assert [use["toolUseId"] for use in said["toolUses"]] == [
        call["id"] for call in first["tool_calls"]
    ]
    context = state["currentMessage"]["userInputMessage"]["userInputMessageContext"]
    assert [result["status"] for result in context["toolResults"]] == ["success", "error"]


async def test_a_fork_leaves_the_conversation_as_it_was(emulator: RunningEmulator) -> None:
    async with connected(emulator) as client:
        first = await ask(client, prompt="One?")
        name = first["conversation_id"]
        await ask(client, prompt="Two?", conversation_id=name)
        fork = await ask(client, prompt="Else?", conversation_id=name, from_turn=1)
        again = await ask(client, prompt="Three?", conversation_id=name)
    assert fork["conversation_id"] != name
    assert fork["turn"] == 2
    assert again["turn"] == 3
    assert len(sent(emulator)["conversationState"]["history"]) == 4


async def test_a_conversation_outlives_the_server(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        first = await ask(client, prompt="One?")
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        second = await ask(client, prompt="Two?", conversation_id=first["conversation_id"])
    assert second["turn"] == 2


async def test_a_conversation_in_memory_ends_with_the_server(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    settings = {"KIRO_MCP_HOME": str(tmp_path), "KIRO_MCP_STORE": "memory"}
    async with connected(emulator, **settings) as client:
        first = await ask(client, prompt="One?")
    async with connected(emulator, **settings) as client:
        result = await client.call_tool(
            "ask_claude", {"prompt": "Two?", "conversation_id": first["conversation_id"]}
        )
    assert code(result) == "not_found"
    assert list(tmp_path.rglob("*.sqlite3")) == []


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        ({"conversation_id": "gone", "prompt": "x"}, "not_found", "gone"),
        ({"from_turn": 1, "prompt": "x"}, "invalid_request", "conversation_id"),
        ({"tool_results": [{"id": "t", "content": "x"}]}, "invalid_request", "earlier turn"),
    ],
)
async def test_a_call_that_continues_nothing_gets_an_error_that_says_so(
    arguments: dict[str, Any], expected: str, says: str
) -> None:
    async with connected() as client:
        result = await client.call_tool("ask_claude", arguments)
    assert code(result) == expected
    assert says in words(result)


async def test_an_answer_that_cannot_be_kept_is_returned_with_a_warning(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """It has been paid for."""
    (tmp_path / "conversations.sqlite3").write_bytes(b"this is no database" * 100)
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        answer = await ask(client, prompt="Say hello")
    assert "Say hello" in answer["text"]
    assert "could not be kept" in answer["warnings"][0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("messages", "'{'"),
        ("messages", "'null'"),
        ("messages", "replace(hex(zeroblob(50000)), '0', '[')"),
        ("answer", "CAST(x'ff' AS TEXT)"),
        ("model", "x'ff'"),
        ("tools", "'[1]'"),
        ("tools", """'[{"title": "x"}]'"""),
        ("messages", """'[{"role": "user", "parts": [{"kind": "smell"}]}]'"""),
        ("messages", """'[{"role": "user", "parts": [{"kind": "text", "words": "x"}]}]'"""),
        ("messages", """'[{"role": "user", "parts": [{"kind": "text", "text": {"long": 7}}]}]'"""),
    ],
)
async def test_a_turn_that_is_damaged_is_left_out_and_named(
    column: str, value: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The rest of the conversation is sound, and so is the store."""
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        first = await ask(client, prompt="One?")
        continued = {"conversation_id": first["conversation_id"]}
        await ask(client, prompt="Two?", **continued)
        with closing(sqlite3.connect(tmp_path / STORE_NAME, isolation_level=None)) as db:
            db.execute(f"UPDATE turns SET {column} = {value} WHERE turn = 1")
        third = await ask(client, prompt="Three?", **continued)
        with closing(sqlite3.connect(tmp_path / STORE_NAME, isolation_level=None)) as db:
            db.execute("DELETE FROM turns")
        refused = await client.call_tool("ask_claude", {"prompt": "Four?", **continued})
        other = await ask(client, prompt="Something else?")
    (warning,) = third["warnings"]
    for told in (warning, words(refused)):
        assert f"Turn 1 of the conversation '{first['conversation_id']}' is damaged" in told
        assert STORE_NAME in told
        assert "away" not in told
    assert third["turn"] == 3
    history = [entry.get("userInputMessage") for entry in sent_before(emulator, 2)]
    assert [message["content"] for message in history if message] == ["Two?"]
    assert code(refused) == "internal_error"
    assert "warnings" not in other


def sent_before(emulator: RunningEmulator, index: int) -> list[dict[str, Any]]:
    """Return the history that a request carried."""
    body = cast("dict[str, Any]", emulator.state.requests[index].body)
    return body["conversationState"]["history"]


async def test_an_answer_that_is_damaged_is_named(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        _, answer_id = await ask_with_id(client, prompt="One?")
    with closing(sqlite3.connect(tmp_path / STORE_NAME, isolation_level=None)) as db:
        db.execute("UPDATE answers SET result = substr(result, 2)")
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        result = await client.call_tool("ask_claude", {"answer_id": answer_id})
    assert code(result) == "internal_error"
    assert answer_id in words(result)


async def test_an_answer_is_returned_although_the_tables_of_the_store_are_damaged(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Otherwise Python fails if SQLite's message cannot be decoded."""
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        await ask(client, prompt="One?")
    store = tmp_path / STORE_NAME
    store.write_bytes(store.read_bytes().replace(b"tableturns", b"tableturn\xff"))
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        answer = await ask(client, prompt="Two?")
    assert "Two?" in answer["text"]
    assert "could not be kept" in answer["warnings"][0]


async def test_a_store_that_failed_is_opened_anew(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Its error says to move it away, and what comes after that is kept in another."""
    store = tmp_path / STORE_NAME
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        await ask(client, prompt="One?")
        with closing(sqlite3.connect(store, isolation_level=None)) as db:
            db.execute("DROP TABLE answers")
        failed = await ask(client, prompt="Two?")
        for file in tmp_path.glob(f"{STORE_NAME}*"):
            file.rename(tmp_path / f"old-{file.name}")
        kept, answer_id = await ask_with_id(client, prompt="Three?")
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        again = await ask(client, answer_id=answer_id)
    assert "could not be kept" in failed["warnings"][0]
    assert "Move it away" in failed["warnings"][0]
    assert "warnings" not in kept
    assert again == kept


async def test_a_store_that_was_deleted_is_made_anew(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A file without a name can still be written, and is gone when the server ends."""
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        await ask(client, prompt="One?")
        for file in tmp_path.glob(f"{STORE_NAME}*"):
            file.unlink()
        kept, answer_id = await ask_with_id(client, prompt="Two?")
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        assert await ask(client, answer_id=answer_id) == kept


@pytest.mark.filterwarnings("ignore:Exception ignored in. <sqlite3.Connection")  # It is left open.
async def test_a_server_whose_store_was_replaced_goes_on_in_the_new_one(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """When the server that knew the old store ends, the new store stays whole."""
    home = str(tmp_path)
    async with connected(emulator, KIRO_MCP_HOME=home) as other:
        async with connected(emulator, KIRO_MCP_HOME=home) as client:
            await ask(client, prompt="One?")
            for file in tmp_path.glob(f"{STORE_NAME}*"):
                file.unlink()
            theirs, their_id = await ask_with_id(other, prompt="Two?")
            mine, my_id = await ask_with_id(client, prompt="Three?")
        assert await ask(other, answer_id=my_id) == mine
    async with connected(emulator, KIRO_MCP_HOME=home) as client:
        kept = [await ask(client, answer_id=id_) for id_ in (their_id, my_id)]
    assert kept == [theirs, mine]


async def test_an_unwritable_store_is_not_to_be_moved_away(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Its content is sound, so the error does not say to move it away."""
    (tmp_path / "home").write_text("a file where the folder should be", "utf-8")
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path / "home")) as client:
        answer = await ask(client, prompt="Say hello")
    (warning,) = answer["warnings"]
    assert "KIRO_MCP_HOME" in warning
    assert "away" not in warning


async def test_a_store_that_cannot_be_read_is_named(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """The error says how to solve it."""
    (tmp_path / "conversations.sqlite3").write_bytes(b"this is no database" * 100)
    async with connected(emulator, KIRO_MCP_HOME=str(tmp_path)) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "conversation_id": "c"})
    assert code(result) == "internal_error"
    assert "conversations.sqlite3" in words(result)
    assert "KIRO_MCP_STORE" in words(result)
