"""Lines over file descriptors arrive whole and in order, if possible without a thread."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from anyio import fail_after
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.faststart import (
    TOO_LONG,
    FastStart,
    Handover,
    LineSplitter,
    decode,
    read_answers,
)
from kiro_mcp.server.stdio import LineWriter, can_wait_for, read_lines, serve_lines
from tests.server.faststart_answers import FILE

LINES = [b'{"a":1}', b"", "é€😀".encode(), b"x" * 300]


@contextmanager
def piped() -> Generator[tuple[int, int]]:
    """Yield the two ends of a pipe."""
    reading, writing = os.pipe()
    with ExitStack() as stack:
        for fd in (reading, writing):
            stack.callback(_close, fd)
        yield reading, writing


def _close(fd: int) -> None:
    with suppress(OSError):  # The test may have closed it.
        os.close(fd)


def test_lines_are_the_same_wherever_their_bytes_are_cut() -> None:
    """A pipe cuts anywhere."""
    data = b"\n".join(LINES) + b"\n"
    for cut in range(len(data) + 1):
        splitter = LineSplitter()
        assert splitter.feed(data[:cut]) + splitter.feed(data[cut:]) == LINES
        assert splitter.rest() == b""


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_any_chunks_give_the_lines_of_their_whole(chunks: list[bytes]) -> None:
    """Against `bytes.split`."""
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert [*lines, splitter.rest()] == b"".join(chunks).split(b"\n")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_line_over_the_limit_becomes_a_short_one_and_the_next_is_whole(size: int) -> None:
    """A message that nobody can have meant must not fill the memory."""
    data = b"y" * 100 + b"\nok\n" + b"z" * 10 + b"\n"
    splitter = LineSplitter(max_line_bytes=10)
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    short = json.loads(lines[0])
    assert set(short) == {TOO_LONG, "id"}
    assert set(short[TOO_LONG]) == {"y"}
    assert lines[1:] == [b"ok", b"z" * 10]


ARGUMENTS = json.dumps({"name": "ask_claude", "arguments": {"prompt": 'x "id": 9, ' * 500}})


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        (f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{ARGUMENTS}}}', 7),
        (f'{{"jsonrpc": "2.0", "method": "tools/call", "id": "a", "params": {ARGUMENTS}}}', "a"),
        (f'{{"method":"tools/call","params":{ARGUMENTS},"jsonrpc":"2.0","id":7}}', 7),
        (f' {{ "method":"tools/call","params":{ARGUMENTS} , "id" : -7 , "jsonrpc":"2.0"}} ', -7),
        (f'[{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{ARGUMENTS}}}]', None),
        (f'{{"method":"notifications/x","params":{{"x":{ARGUMENTS},"id":7}}}}', None),
        (f'{{"params":{{"id":7,"x":{ARGUMENTS}}},"method":"notifications/x"}}', None),
    ],
)
async def test_a_request_over_the_limit_is_answered_and_the_next_one_too(
    line: str, request_id: object
) -> None:
    """JSON-RPC: a request gets an answer; clients write its id first or last."""
    start = FastStart(read_answers(FILE.read_bytes()))
    [short] = LineSplitter(max_line_bytes=1000).feed(line.encode() + b"\n")
    refusal = json.loads(start.answer(short))
    assert (refusal["id"], refusal["error"]["code"]) == (request_id, -32600)
    assert "must not have more than" in refusal["error"]["message"]

    ping = b'{"jsonrpc":"2.0","id":8,"method":"ping"}\n'
    handover = Handover(start, [], LineSplitter(max_line_bytes=1000))
    with fail_after(20), piped() as (server_in, to_server), piped() as (from_server, server_out):
        async with anyio.create_task_group() as tasks:
            server = build_server(lambda: Engine.from_environ({}))
            tasks.start_soon(serve_lines, server, server_in, server_out, handover)
            os.write(to_server, line.encode() + b"\n" + ping)
            reader = read_lines(from_server)
            answers = [json.loads(await anext(reader)) for _ in range(2)]
            assert {answer["id"] for answer in answers} == {request_id, 8}
            assert refusal in answers
            os.close(to_server)


async def _read_all(fd: int) -> list[str]:
    with fail_after(10):
        return [decode(line) async for line in read_lines(fd)]


async def test_a_pipe_is_read_to_its_end_and_the_last_line_needs_no_newline() -> None:
    """What was sent before a client left still counts."""
    with piped() as (reading, writing):
        os.write(writing, b"one\ntwo\xff\nthree")
        os.close(writing)
        assert await _read_all(reading) == ["one", "two�", "three"]


async def test_a_regular_file_is_read_too(tmp_path: Path) -> None:
    """`kiro-mcp < requests.jsonl`: an event loop cannot wait for a file."""
    file = tmp_path / "requests"
    file.write_bytes(b"one\ntwo\n")
    fd = os.open(file, os.O_RDONLY)
    try:
        assert not can_wait_for(fd)
        assert await _read_all(fd) == ["one", "two"]
    finally:
        os.close(fd)


async def test_a_slow_reader_gets_everything_in_order() -> None:
    """A pipe holds 64 KiB; the writer has to wait, and nothing else may."""
    texts = ["a" * 100_000 + "\n", "é😀" * 50_000 + "\n"]
    with piped() as (reading, writing):
        writer, taken = LineWriter(writing), bytearray()

        async def write() -> None:
            for text in texts:
                await writer.write(text)
            os.close(writing)

        with fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                while chunk := await _chunk(reading):
                    taken += chunk
        assert bytes(taken).decode() == "".join(texts)


async def _chunk(fd: int) -> bytes:
    await anyio.wait_readable(fd)
    return os.read(fd, 1000)


async def test_a_socket_is_served_like_a_pipe() -> None:
    """Clients that run on Node give their servers sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = LineWriter(ours.fileno())
        assert can_wait_for(ours.fileno())
        with fail_after(10):
            await writer.write("hello\n")
        theirs.shutdown(socket.SHUT_WR)
        assert theirs.recv(100) == b"hello\n"
        assert await _read_all(ours.fileno()) == []


async def test_a_regular_file_is_written_too(tmp_path: Path) -> None:
    """`kiro-mcp > answers.jsonl`."""
    fd = os.open(tmp_path / "answers", os.O_WRONLY | os.O_CREAT)
    try:
        with fail_after(10):
            await LineWriter(fd).write("hello\n")
    finally:
        os.close(fd)
    assert (tmp_path / "answers").read_text() == "hello\n"


async def test_writing_without_a_reader_raises_broken_pipe() -> None:
    """The server ends then."""
    with piped() as (reading, writing):
        os.close(reading)
        with fail_after(10), pytest.raises(BrokenPipeError):
            await LineWriter(writing).write("hello\n")


async def test_a_wait_for_a_reader_can_be_cancelled() -> None:
    """A client that reads nothing must not keep the server from ending."""
    with piped() as (_, writing), fail_after(10):
        with anyio.move_on_after(0.1) as scope:
            await LineWriter(writing).write("x" * 1_000_000)
        assert scope.cancelled_caught
