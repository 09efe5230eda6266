"""The text of an answer while it arrives, for callers that ask for it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from anyio import fail_after
from mcp.client import Client, IncomingMessage

from kiro_mcp.emulator import EMULATOR_API_KEY, Pause, RunningEmulator, Send, frames
from kiro_mcp.server.app import build_server
from kiro_mcp.server.call import STREAM_META_KEY
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import ANSWER_META_KEY
from tests.support.mcp import CALL_SECONDS
from tests.support.stdio import environment, started

TEXT = "One two three four."
SLOW = tuple(
    step
    for word in ("One ", "two ", "three ", "four.")
    for step in (Send(frames.text(word)), Pause(0.1))
)
END = Send(frames.ending("END_TURN"))
NEVER_ENDS = Pause(600)
ASKED: dict[str, Any] = {"progress_token": "p", STREAM_META_KEY: True}


class Listener:
    """Collects the progress notifications of a client."""

    def __init__(self) -> None:
        self.seen: list[types.ProgressNotification] = []
        self._changed = anyio.Event()

    @property
    def pieces(self) -> list[dict[str, Any]]:
        """The text that arrived."""
        metas = (one.params.meta for one in self.seen)
        return [meta[STREAM_META_KEY] for meta in metas if meta]

    @property
    def text(self) -> str:
        """The pieces, each where it says that it belongs."""
        text = ""
        for piece in self.pieces:
            assert piece["offset"] in (0, len(text))
            text = text[: piece["offset"]] + piece["text"]
        return text

    async def note(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ProgressNotification):
            self.seen.append(message)
            self._changed.set()
            self._changed = anyio.Event()

    async def until(self, text: str) -> None:
        while self.text != text:
            await self._changed.wait()


@asynccontextmanager
async def client_of(
    emulator: RunningEmulator, listener: Listener, *, mode: str = "2026-07-28"
) -> AsyncGenerator[Client]:
    environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_API_KEY": EMULATOR_API_KEY}
    server = build_server(lambda: Engine.from_environ(environ))
    with fail_after(CALL_SECONDS):
        async with Client(server, mode=mode, message_handler=listener.note) as client:
            yield client


async def ask(
    client: Client, meta: dict[str, Any] = ASKED, **arguments: Any
) -> types.CallToolResult:
    return await client.call_tool("ask_claude", {"prompt": "x", **arguments}, meta=meta)  # pyright: ignore[reportArgumentType]  # an open map


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_the_whole_text_is_streamed_before_the_answer_ends(
    emulator: RunningEmulator, mode: str
) -> None:
    """Each piece says where it belongs."""
    emulator.state.enqueue((*SLOW, NEVER_ENDS))
    listener = Listener()
    async with (
        client_of(emulator, listener, mode=mode) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ask, client)
        await listener.until(TEXT)
        assert emulator.state.open_streams == 1
        tasks.cancel_scope.cancel()


async def test_streamed_text_goes_out_with_the_usual_progress_messages(
    emulator: RunningEmulator,
) -> None:
    """Hosts show the message to people."""
    emulator.state.enqueue((*SLOW, END))
    listener = Listener()
    async with client_of(emulator, listener) as client:
        result = await ask(client)
    assert result.structured_content["text"] == TEXT
    assert TEXT.startswith(listener.text)
    assert {one.params.progress_token for one in listener.seen} == {"p"}
    answer_id = str((result.meta or {})[ANSWER_META_KEY])
    assert all(answer_id in (one.params.message or "") for one in listener.seen)
    values = [one.params.progress for one in listener.seen]
    assert values == sorted(set(values))


@pytest.mark.parametrize(
    "meta",
    [{"progress_token": "p"}, {STREAM_META_KEY: True}, {**ASKED, STREAM_META_KEY: "yes"}],
    ids=["not asked", "no token", "not true"],
)
async def test_only_a_caller_who_asked_for_the_stream_gets_text(
    emulator: RunningEmulator, meta: dict[str, Any]
) -> None:
    """The specification: only a caller that gave a token gets progress."""
    emulator.state.enqueue((*SLOW, END))
    listener = Listener()
    async with client_of(emulator, listener) as client:
        result = await ask(client, meta)
    assert result.structured_content["text"] == TEXT
    assert listener.pieces == []


async def test_thinking_is_not_streamed(emulator: RunningEmulator) -> None:
    """It is the text that is streamed."""
    thought = Send(frames.reasoning("Let me think."))
    emulator.state.enqueue((thought, Pause(0.1), *SLOW, NEVER_ENDS))
    listener = Listener()
    async with client_of(emulator, listener) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client)
        await listener.until(TEXT)
        tasks.cancel_scope.cancel()


async def test_the_stream_of_a_second_answer_begins_anew(emulator: RunningEmulator) -> None:
    """The first answer broke the schema, and its text is not in the result."""
    emulator.state.enqueue((*SLOW, END), (Send(frames.text('{"a": 1}')), NEVER_ENDS))
    listener = Listener()
    async with client_of(emulator, listener) as client, anyio.create_task_group() as tasks:
        schema = {"type": "object", "required": ["a"]}
        tasks.start_soon(lambda: ask(client, output_schema=schema))
        await listener.until('{"a": 1}')
        assert listener.pieces[-1] == {"offset": 0, "text": '{"a": 1}'}
        tasks.cancel_scope.cancel()


async def test_streamed_text_arrives_over_stdio_as_plain_progress(
    emulator: RunningEmulator,
) -> None:
    """Any client can have it, not only the command line."""
    emulator.state.enqueue((*SLOW, NEVER_ENDS))
    environ = environment(KIRO_MCP_ENDPOINT_URL=emulator.url, KIRO_API_KEY=EMULATOR_API_KEY)
    text = ""
    with fail_after(CALL_SECONDS):
        async with started(environ) as server:
            await server.initialize()
            meta = {"progressToken": 7, STREAM_META_KEY: True}
            params = {"name": "ask_claude", "arguments": {"prompt": "x"}, "_meta": meta}
            await server.post("tools/call", params)
            while text != TEXT:
                told = (await server.receive())["params"]
                assert told["progressToken"] == 7
                if piece := told.get("_meta", {}).get(STREAM_META_KEY):
                    assert piece["offset"] == len(text)
                    text += piece["text"]
