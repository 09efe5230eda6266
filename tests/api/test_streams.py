"""Streams at the real socket: when they begin, how they end, who waits for whom."""

import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from anyio import fail_after
from anyio.abc import SocketStream

from kiro_mcp.emulator import Pause, RunningEmulator, Send, frames
from kiro_mcp.emulator.scripts import Step
from tests.support.api import (
    CHAT,
    MESSAGES,
    PATHS,
    ask,
    event_data,
    question,
    serving_api,
)
from tests.support.stdio import PROMPTLY_SECONDS

TEST_SECONDS = 30
END = Send(frames.ending("END_TURN"))


class Deltas(tuple[Step, ...]):
    """A script of equal deltas that counts how many of them were played."""

    CHARACTERS = 32_000
    COUNT = 1_000
    """32 MB: the buffers of both connections in the system take a few."""

    played = 0

    def __iter__(self) -> Iterator[Step]:
        delta = Send(frames.text("x" * self.CHARACTERS, delta_characters=self.CHARACTERS))
        for played in range(self.COUNT):
            self.played = played
            yield delta
        yield END


@pytest.mark.parametrize("path", PATHS)
async def test_a_delta_is_on_the_wire_before_the_next_one_arrives(
    path: str, emulator: RunningEmulator
) -> None:
    emulator.state.enqueue((Send(frames.text("One ")), Pause(600)))
    body = question(path, "Count.", stream=True)
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            async with client.stream("POST", path, json=body) as response:
                async for chunk in response.aiter_text():
                    if "One " in chunk:
                        break
            with fail_after(PROMPTLY_SECONDS):  # The client has left.
                await emulator.state.until(lambda state: state.open_streams == 0)
    assert emulator.state.disconnects == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_client_that_leaves_before_the_answer_ends_the_request_to_the_service(
    path: str, is_streamed: bool, emulator: RunningEmulator
) -> None:
    emulator.state.enqueue((Pause(600),))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            request = client.build_request(
                "POST", path, json=question(path, "Count.", stream=is_streamed)
            )
            async with await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0) as socket:
                await socket.send(raw(request))
                await emulator.state.until(lambda state: state.open_streams == 1)
            with fail_after(PROMPTLY_SECONDS):
                await emulator.state.until(lambda state: state.open_streams == 0)
    assert emulator.state.disconnects == 1


async def test_a_client_that_leaves_after_a_large_request_ends_the_request_to_the_service(
    emulator: RunningEmulator,
) -> None:
    """The HTTP server stops reading from its client when it has such a body."""
    emulator.state.enqueue((Pause(600),))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, max_body_bytes=2**21) as client:
            request = client.build_request("POST", CHAT, json=question(CHAT, "word " * 200_000))
            request.headers["expect"] = "100-continue"
            head, _, body = raw(request).partition(b"\r\n\r\n")
            async with await anyio.connect_tcp("127.0.0.1", client.base_url.port or 0) as socket:
                await socket.send(head + b"\r\n\r\n")
                assert (await socket.receive()).startswith(b"HTTP/1.1 100 ")
                await socket.send(body)
                await emulator.state.until(lambda state: state.open_streams == 1)
            with fail_after(PROMPTLY_SECONDS):
                await emulator.state.until(lambda state: state.open_streams == 0)
    assert emulator.state.disconnects == 1


@asynccontextmanager
async def stalled(emulator: RunningEmulator) -> AsyncGenerator[tuple[SocketStream, bytes]]:
    """A client that reads the beginning of a long answer, and then so little that nothing moves."""
    deltas = Deltas((END,))
    emulator.state.chunk_bytes = 64 * 1024
    emulator.state.enqueue(deltas)
    async with serving_api(emulator) as client:
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.connect(("127.0.0.1", client.base_url.port or 0))
        request = client.build_request("POST", CHAT, json=question(CHAT, "x", stream=True))
        request.headers["connection"] = "close"
        async with await SocketStream.from_socket(opened) as stream:
            await stream.send(raw(request))
            beginning = await stream.receive()
            played = -1
            while deltas.played > played:  # Until nothing moves during a whole call.
                played = deltas.played
                await ask(client, CHAT, "hello")
            assert played < Deltas.COUNT / 2
            assert emulator.state.disconnects == 0
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
            yield stream, beginning


async def test_a_client_that_stops_reading_is_waited_for_and_gets_the_whole_answer(
    emulator: RunningEmulator,
) -> None:
    """Meanwhile nothing is read from the service: `MAX_UNSENT_BYTES` may wait for the client."""
    with fail_after(TEST_SECONDS * 4):
        async with stalled(emulator) as (stream, beginning):
            received = bytearray(beginning)
            async for piece in stream:
                received += piece
    assert received.count(b"x" * Deltas.CHARACTERS) == Deltas.COUNT
    assert b"data: [DONE]" in received[-50:]


async def test_a_client_that_stops_reading_and_leaves_ends_the_request_to_the_service(
    emulator: RunningEmulator,
) -> None:
    with fail_after(TEST_SECONDS * 4):
        async with stalled(emulator) as (stream, _):
            await stream.aclose()
            with fail_after(PROMPTLY_SECONDS):
                await emulator.state.until(lambda state: state.open_streams == 0)
    assert emulator.state.disconnects == 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_stays_alive_while_the_model_thinks(
    path: str, emulator: RunningEmulator
) -> None:
    """An error after that comes as an event: the status is sent."""
    emulator.state.enqueue((Pause(0.3), Send(frames.text("One ")), END), (Pause(0.3), *_refusal()))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, keep_alive_seconds=0.05) as client:
            body = question(path, "Count.", stream=True)
            answered = await client.post(path, json=body)
            refused = await client.post(path, json=body)
    mark = "event: ping" if path == MESSAGES else ": keep-alive"
    assert answered.text.count(mark) >= 2
    assert answered.text.index(mark) < answered.text.index("One ")
    assert refused.status_code == 200
    last = event_data(refused.text.strip().split("\n\n")[-1])
    assert "error" in json.dumps(last)


def _refusal() -> tuple[Send]:
    return (Send(frames.exception("Too much.", "MONTHLY_REQUEST_COUNT")),)


def raw(request: httpx.Request) -> bytes:
    """The bytes of a request."""
    lines = [f"{request.method} {request.url.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + request.content
