"""The fast start gives the same opening answers as the SDK, before the SDK is loaded."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from anyio import fail_after
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.server.app import build_server
from kiro_mcp.server.faststart import FastStart, read_answers, serve_until_undecided
from kiro_mcp.server.stdio import serve_lines
from tests.server.faststart_answers import (
    CLIENT,
    FILE,
    LEGACY,
    LISTS,
    answers,
    collected,
    no_engine,
    replies,
    requests,
    text,
)
from tests.support.stdio import COMMAND, ENVELOPE, MODERN, environment, started

CALL: dict[str, Any] = {"name": "no_such_tool", "arguments": {}}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def request(id: object, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def initialize(id: object, revision: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
    params = {"protocolVersion": revision, **CLIENT, "capabilities": capabilities}
    return request(id, "initialize", **params)


def lines_of(messages: Sequence[object]) -> list[bytes]:
    return [one if isinstance(one, bytes) else json.dumps(one).encode() for one in messages]


async def replies_of_both(chunks: Sequence[bytes]) -> list[Any]:
    """Write chunks to the fast start, and let the SDK server take over; return all answers."""

    async def serve(read_fd: int, write_fd: int) -> None:
        handover = await anyio.to_thread.run_sync(serve_until_undecided, read_fd, write_fd)
        if handover is not None:
            await serve_lines(build_server(no_engine), read_fd, write_fd, handover)

    return await collected(chunks, serve)


def in_any_order(messages: Sequence[Any]) -> list[str]:
    """Return answers such that two lists are equal if they differ in nothing but their order."""
    each = [sorted(_each(one), key=json.dumps) for one in messages]
    return sorted(json.dumps(one, sort_keys=True) for one in each)


async def test_the_packaged_answers_are_those_of_the_real_server() -> None:
    assert text(await answers()).encode() == FILE.read_bytes(), (
        "The real server answers otherwise. If that is meant, run"
        " `python -m tests.server.faststart_answers` and look at the difference."
    )


@pytest.mark.parametrize("revision", [*LEGACY, MODERN])
def test_each_opening_request_is_answered_without_the_sdk(revision: str) -> None:
    start = FastStart(read_answers(FILE.read_bytes()))
    for method, params in requests(revision).items():
        line = json.dumps(request(method, method, **params)).encode()
        assert json.loads(start.answer(line))["id"] == method


async def test_an_idle_server_never_loads_the_sdk() -> None:
    """In most sessions, most servers get only opening requests."""
    command = (sys.executable, "-X", "importtime", *COMMAND[1:])
    # Coverage, where it is measured, starts with every process and loads modules of its own.
    each = environment().items()
    unmeasured = {name: value for name, value in each if not name.startswith("COVERAGE")}
    with fail_after(60):
        async with started(unmeasured, command) as server:
            await server.initialize()
            for method in (*LISTS, "ping"):
                assert "result" in await server.request(method)
            await server.stdin.aclose()
            assert await server.process.wait() == 0
            loaded = {line.split("|")[-1].strip() for line in server.stderr.splitlines()}
    assert "kiro_mcp.server.faststart" in loaded
    assert not {"mcp", "anyio", "asyncio", "pydantic", "typing", "dataclasses"} & loaded


ID = (
    st.sampled_from([0, 1, "1"])
    | st.integers(-5, 10**20)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
)
CAPABILITIES: st.SearchStrategy[Any] = st.sampled_from(
    [
        {},
        {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {"form": {}, "url": {}}},
        {"experimental": {"x": {"y": [1]}}, "unknown": 7, "extensions": {"a/b": {}}},
        {"tasks": {"requests": {"sampling": {"createMessage": {}}}}},
        {"roots": 5},
        {"elicitation": {"form": 1}},
        {"experimental": {"x": 1}},
        {"roots": {"listChanged": "yes"}},
        [],
    ]
)
META: st.SearchStrategy[Any] = st.sampled_from(
    [{}, {"progressToken": 1}, {"progressToken": [1]}, [], None, {"a": 1}]
)
REVISION = st.sampled_from(LEGACY)
VERSION = st.sampled_from([*LEGACY, MODERN, "1999-01-01", 7])
MODERN_VERSION = st.sampled_from([MODERN, MODERN, "2025-11-25", "2030-01-01", 1])
INFO = st.sampled_from(
    [CLIENT["clientInfo"], {"name": "x"}, {"name": "x", "version": "1", "other": 2}]
)
LEGACY_METHOD = st.sampled_from([*LISTS, "ping", "server/discover", "no/such"])
MODERN_METHOD = st.sampled_from([*LISTS, "ping", "server/discover"])
MORE_META = st.sampled_from(
    [
        {},
        {"io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"}},
        {"io.modelcontextprotocol/clientInfo": {"name": "x"}},
        {"io.modelcontextprotocol/logLevel": "loud"},
        {"progressToken": "p"},
    ]
)


@st.composite
def initializes(draw: st.DrawFn) -> dict[str, Any]:
    says = {"capabilities": draw(CAPABILITIES), "clientInfo": draw(INFO)}
    return request(draw(ID), "initialize", protocolVersion=draw(VERSION), **says)


@st.composite
def legacy_requests(draw: st.DrawFn) -> dict[str, Any]:
    meta = draw(META)
    return request(draw(ID), draw(LEGACY_METHOD), **({} if meta == {} else {"_meta": meta}))


@st.composite
def modern_requests(draw: st.DrawFn) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": draw(MODERN_VERSION),
        "io.modelcontextprotocol/clientCapabilities": draw(CAPABILITIES),
        **draw(MORE_META),
    }
    return request(draw(ID), draw(MODERN_METHOD), _meta=meta)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    return request(draw(ID), "tools/call", **CALL)


@st.composite
def openings(draw: st.DrawFn) -> list[Any]:
    """Return how a session begins: with a handshake, modern, or in some other way."""
    first = request(1, "server/discover", _meta=ENVELOPE)
    return draw(st.sampled_from([[initialize(draw(ID), draw(REVISION))], [first], []]))


NOTICE = st.sampled_from(
    [
        INITIALIZED,
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "none"}},
        {"jsonrpc": "2.0", "method": "ping"},
    ]
)
BROKEN = st.sampled_from(
    [
        b"",
        b"{",
        b"7",
        b"[]",
        b"\xef\xbb\xbf" + json.dumps(request(3, "ping")).encode(),
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
        b'{"id":5,"method":"ping"}',
        b'{"jsonrpc":"1.0","id":5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":5,"method":"ping","params":[1]}',
        b'{"jsonrpc":"2.0","id":5,"method":"ping","params":' + b'{"a":' * 300 + b"1" + b"}" * 301,
        b'{"jsonrpc":"2.0","id":5,"method":7}',
        b'{"jsonrpc":"2.0","id":5}',
        b'{"jsonrpc":"2.0","id":"\\ud83d","method":"ping"}',
        b'{"jsonrpc":"2.0","id":9,"result":{}}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}',
        b'\xff{"jsonrpc":"2.0","id":6,"method":"ping"}',
    ]
)
MESSAGE = initializes() | legacy_requests() | modern_requests() | NOTICE | calls()
LINES = st.lists(MESSAGE | BROKEN | st.lists(MESSAGE, max_size=3), max_size=8)


@given(openings(), LINES, st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=80)
def test_any_session_gets_the_answers_that_the_sdk_alone_gives(
    opening: list[Any], more: list[Any], cuts: list[int]
) -> None:
    """Each answer exactly once, wherever the bytes are cut, and whenever the SDK takes over."""
    lines = lines_of([*opening, *more])
    data = b"".join(line + b"\n" for line in lines)
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[start:end] for start, end in pairwise(at)]

    async def both() -> None:
        with fail_after(60):
            expected = in_any_order(await replies(lines))
            assert in_any_order(await replies_of_both(chunks)) == expected

    anyio.run(both)


def test_a_session_works_wherever_its_bytes_are_cut() -> None:
    lines = lines_of(
        [initialize(1), INITIALIZED, request(2, "tools/list"), request("2", "tools/call", **CALL)]
    )
    data = b"".join(line + b"\n" for line in lines)

    async def cut_everywhere() -> None:
        with fail_after(120):
            expected = in_any_order(await replies(lines))
            for cut in range(0, len(data), 29):
                got = await replies_of_both([data[:cut], data[cut:]])
                assert in_any_order(got) == expected
            every = [data[at : at + 1] for at in range(len(data))]
            assert in_any_order(await replies_of_both(every)) == expected

    anyio.run(cut_everywhere)


async def test_a_whole_session_can_arrive_in_one_write() -> None:
    messages = [
        initialize(1),
        INITIALIZED,
        request(2, "tools/list"),
        request(3, "tools/call", **CALL),
        request(4, "prompts/list"),
        request(5, "ping"),
    ]
    with fail_after(60):
        async with started(environment()) as server:
            await server.send_bytes(b"\n".join(lines_of(messages)) + b"\n")
            got = [await server.receive() for _ in range(5)]
            await server.stdin.aclose()
            assert await server.rest_of_stdout() == b""
    assert sorted(one["id"] for one in got) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("after_a_call", [False, True], ids=["fast start", "SDK"])
async def test_a_line_that_is_not_a_message_gets_an_error(after_a_call: bool) -> None:
    """JSON-RPC 2.0, section 5.1; the SDK says nothing, and a client waits for ever."""
    lines = {
        b"{": -32700,
        b"[1,": -32700,
        b"7": -32600,
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}': -32600,
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}': -32600,
        b'{"id":5,"method":"ping"}': -32600,
        b'[{"jsonrpc":"2.0","id":5,"method":"ping"}]': -32600,  # No batches at this revision.
    }
    with fail_after(60):
        async with started(environment()) as server:
            await server.initialize()
            if after_a_call:
                await server.request("tools/call", CALL)
            for line, code in lines.items():
                await server.send_bytes(line + b"\n")
                answer = await server.receive()
                assert (answer["id"], answer["error"]["code"]) == (None, code)
                assert len(answer["error"]["data"]) <= 80
            assert "result" in await server.request("ping")
            assert server.stderr.count("refused") == len(lines)


async def test_a_message_that_nests_too_deeply_is_refused_under_its_id() -> None:
    """The SDK reads 200 levels and drops what is deeper."""
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with fail_after(60):
        async with started(environment()) as server:
            await server.initialize()
            answer = await server.request("tools/call", {"name": "x", "arguments": {"a": deep}})
    assert answer["error"]["code"] == -32600


@pytest.mark.parametrize("after_a_call", [False, True], ids=["fast start", "SDK"])
async def test_a_batch_is_answered_as_a_batch_where_the_revision_has_them(
    after_a_call: bool,
) -> None:
    """MCP 2025-03-26; no other revision has batches."""
    batch = [
        request(11, "ping"),
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        request(12, "tools/list"),
        *([request(13, "tools/call", **CALL)] if after_a_call else []),
        5,
    ]
    with fail_after(60):
        async with started(environment()) as server:
            await server.initialize("2025-03-26")
            await server.send_bytes(json.dumps(batch).encode() + b"\n")
            line = await server.receive_line()
            answered: list[dict[str, Any]] = json.loads(line)
            ids = [one["id"] for one in answered]
            await server.send_bytes(json.dumps([INITIALIZED]).encode() + b"\n")
            assert "result" in await server.request("ping")  # Nothing came in between.
    assert set(ids) == {11, 12, *([13] if after_a_call else []), None}
    assert len(ids) == len(set(ids))


async def test_a_batch_does_not_wait_for_a_request_that_is_cancelled() -> None:
    """The SDK never answers a cancelled request."""
    cancelled = {"requestId": 11}
    batch = [
        request(11, "ping"),
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled},
        request(12, "tools/call", **CALL),
    ]
    got = await replies(lines_of([initialize(1, "2025-03-26"), INITIALIZED, batch]))
    answered = [one["id"] for message in got for one in _each(message)]
    assert answered.count(12) == 1
    assert answered.count(11) <= 1


async def test_a_cancellation_in_a_batch_loses_none_of_its_refusals() -> None:
    """The batch is not over before its last message is read."""
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 11}}
    batch = [5, request(11, "ping"), cancel, 6]
    got = await replies(lines_of([initialize(1, "2025-03-26"), INITIALIZED, batch]))
    refused = [[one["error"]["data"] for one in _each(message) if not one["id"]] for message in got]
    assert list(filter(None, refused)) == [["5", "6"]]


def _each(message: Any) -> list[Any]:
    return cast("list[Any]", message) if isinstance(message, list) else [message]


async def test_a_byte_order_mark_is_skipped() -> None:
    """Some clients on Windows begin their output with one."""
    mark = "\ufeff".encode()
    with fail_after(60):
        async with started(environment()) as server:
            await server.send_bytes(mark)
            assert "result" in await server.initialize()


def test_a_system_without_poll_is_served_as_well() -> None:
    """Windows has none; neither the fast start nor the SDK's part may need it."""
    code = "import select; del select.poll; from kiro_mcp.__main__ import main; main()"
    messages = [initialize(1), INITIALIZED, request(2, "tools/list"), request(3, "no/such")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=b"\n".join(lines_of(messages)),  # A last line needs no end.
        capture_output=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    got = [json.loads(line) for line in done.stdout.splitlines()]
    assert [("result" in one, one["id"]) for one in got] == [(True, 1), (True, 2), (False, 3)]


async def test_a_client_that_stops_reading_ends_an_idle_server() -> None:
    """Its input may stay open for ever."""
    with fail_after(60):
        async with started(environment()) as server:
            await server.initialize()
            await server.stdout.aclose()
            assert await server.process.wait() == 0
