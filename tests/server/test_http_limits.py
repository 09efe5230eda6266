"""Strangers and slow clients of an HTTP server cannot take what others need."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import httpx
import pytest
from anyio import fail_after
from anyio.abc import SocketStream
from starlette.types import Receive, Scope, Send

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.server.http_gate import BODIES_AT_ONCE
from kiro_mcp.web_server import HttpLimits, listen, on_disconnect, serve
from tests.server.test_http import stalling_call
from tests.support.http import MAX_BODY_BYTES, TOKEN, WebServer, against, answer, serving_http
from tests.support.served import serve_through

TEST_SECONDS = 20
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HALF_A_HEADER = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Le"

FEW = HttpLimits(connections=20, accepted_at_once=4)
IMPATIENT = HttpLimits(header_seconds=0.1)


@asynccontextmanager
async def connected(server: WebServer, *sent: bytes) -> AsyncGenerator[SocketStream]:
    """Open a connection and send these bytes."""
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        for piece in sent:
            await stream.send(piece)
        yield stream


async def rest_of(stream: SocketStream) -> bytes:
    """Read until the server closes the connection."""
    read = b""
    try:
        while True:
            read += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return read


def head(server: WebServer, *lines: str) -> bytes:
    host = f"Host: localhost:{server.port}"
    return "\r\n".join(["POST /mcp HTTP/1.1", host, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("sent", "reply"),
    [(b"", b""), (HALF_A_HEADER, b"HTTP/1.1 408 ")],
    ids=["nothing", "half-a-header"],
)
async def test_a_connection_without_a_whole_header_is_closed_in_time(
    sent: bytes, reply: bytes
) -> None:
    """RFC 9110, 408. Anybody can open such connections, without any token."""
    with fail_after(TEST_SECONDS):
        async with serving_http(limits=IMPATIENT) as server, connected(server, sent) as stream:
            assert (await rest_of(stream)).startswith(reply)


async def test_the_header_of_a_later_request_must_be_whole_in_time_too() -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(limits=IMPATIENT) as server:
            request = head(server, "Content-Type: application/json", "Content-Length: 2") + b"{}"
            async with connected(server, request) as stream:
                assert (await stream.receive()).startswith(b"HTTP/1.1 406 ")
                await stream.send(HALF_A_HEADER)
                assert b"HTTP/1.1 408 " in await rest_of(stream)


async def test_a_body_that_stops_arriving_is_given_up() -> None:
    limits = HttpLimits(body_silence_seconds=0.1)
    with fail_after(TEST_SECONDS):
        async with serving_http(limits=limits) as server:
            request = head(server, "Content-Type: application/json", "Content-Length: 9") + b"{"
            async with connected(server, request) as stream:
                assert b"200 OK" not in await rest_of(stream)
            assert (await server.post_modern("tools/list")).status_code == 200


@pytest.mark.parametrize("comes_late", [False, True])
async def test_an_application_is_told_that_its_client_has_left(comes_late: bool) -> None:
    """Also if it begins to listen only afterwards: reading a large body takes time."""
    is_asked, has_noticed = anyio.Event(), anyio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        is_asked.set()
        while comes_late and (await receive())["type"] != "http.disconnect":
            pass
        with on_disconnect(scope, has_noticed.set):
            await has_noticed.wait()

    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with fail_after(TEST_SECONDS):
        async with serve(application, listener):
            async with await anyio.connect_tcp("127.0.0.1", port) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await is_asked.wait()
                assert not has_noticed.is_set()
            await has_noticed.wait()


async def test_a_call_that_takes_longer_than_the_time_for_a_header_is_answered(
    emulator: RunningEmulator,
) -> None:
    limits = HttpLimits(header_seconds=0.05, body_silence_seconds=0.05)
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), limits=limits) as server:
            prompt = "/emulate slow 0.3\nhello"
            called = await server.post_modern(
                "tools/call", name="ask_claude", arguments={"prompt": prompt}
            )
            assert answer(called)["result"]["structuredContent"]["text"]


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {**BEARER, "Host": "evil.example"}]
)
async def test_a_refused_client_keeps_no_connection(headers: dict[str, str]) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(token=TOKEN) as server:
            response = await server.post_modern("tools/list", headers=headers)
            assert response.status_code in (401, 421)
            assert response.headers["connection"] == "close"


@pytest.mark.parametrize("sent", [b"", HALF_A_HEADER], ids=["nothing", "half-a-header"])
async def test_idle_connections_never_lock_anybody_out(
    sent: bytes, emulator: RunningEmulator
) -> None:
    """The oldest of them makes room, and a call that is being answered never does."""
    with fail_after(TEST_SECONDS):
        async with (
            serving_http(against(emulator), token=TOKEN, limits=FEW) as server,
            AsyncExitStack() as stack,
            anyio.create_task_group() as tasks,
        ):
            server.client.headers.update(BEARER)
            await server.initialize()
            tasks.start_soon(server.client.send, stalling_call(server))
            await emulator.state.until(lambda state: state.open_streams == 1)
            for _ in range(3 * FEW.connections):
                await stack.enter_async_context(connected(server, sent))
            async with httpx.AsyncClient(base_url=server.client.base_url) as newcomer:
                assert (await newcomer.get("/health")).status_code == 200
                newcomer.headers = server.client.headers
                other = WebServer(newcomer, server.path)
                assert (await other.post_modern("tools/list")).status_code == 200
            assert emulator.state.open_streams == 1
            tasks.cancel_scope.cancel()


async def test_a_new_client_is_told_to_come_back_while_every_connection_is_in_use() -> None:
    """RFC 9110, 503 and Retry-After."""
    limits = HttpLimits(connections=1)
    with fail_after(TEST_SECONDS):
        async with serving_http(limits=limits) as server:
            await server.initialize()
            async with (
                server.client.stream("GET", "/mcp", headers=server.session) as listening,
                connected(server) as newcomer,
            ):
                assert listening.status_code == 200
                refusal = await rest_of(newcomer)
            assert refusal.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After" in refusal


async def test_a_connection_is_kept_for_longer_than_clients_keep_it() -> None:
    """A client that sends into a connection that is just being closed gets no answer."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            response = await server.post_modern("tools/list")
            kept = int(response.headers["keep-alive"].removeprefix("timeout="))
            assert kept > 600  # Google's load balancer; httpx 5 s, Go 90 s, Chrome 300 s.
        async with serving_http(limits=HttpLimits(keep_alive_seconds=0)) as server:
            request = head(server, "Content-Type: application/json", "Content-Length: 2") + b"{}"
            async with connected(server, request) as stream:
                assert (await rest_of(stream)).startswith(b"HTTP/1.1 406 ")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
async def test_more_connections_than_there_are_descriptors_lock_nobody_out() -> None:
    limited = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    with fail_after(TEST_SECONDS):
        async with (
            serve_through(limited, "--transport", "http", KIRO_MCP_HTTP_TOKEN=TOKEN) as served,
            AsyncExitStack() as stack,
        ):
            server = served.server
            for number in range(400):
                sent = HALF_A_HEADER if number % 2 else b""
                await stack.enter_async_context(connected(server, sent))
            response = await server.post_modern("tools/list", headers=BEARER)
            assert response.status_code == 200
            assert "Traceback" not in served.said


async def test_the_session_unused_for_longest_makes_room_for_another_one(
    emulator: RunningEmulator,
) -> None:
    """Most clients never end a session. One with an open stream is in use."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), max_sessions=3) as server:
            await server.initialize()
            first = server.session
            async with server.client.stream("GET", "/mcp", headers=first) as listening:
                assert listening.status_code == 200
                sessions = list[dict[str, str]]()
                for _ in range(5):
                    await server.initialize()
                    sessions.append(server.session)
                statuses = [
                    (await server.post("ping", headers=session)).status_code
                    for session in (first, *sessions)
                ]
                assert statuses == [200, 404, 404, 404, 200, 200]


async def test_a_session_makes_room_only_for_a_session(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), max_sessions=1) as server:
            await server.initialize()
            for _ in range(3):
                assert (await server.post_modern("tools/list")).status_code == 200
            assert (await server.post("ping")).status_code == 200


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
async def test_large_bodies_wait_for_each_other_and_small_ones_do_not_wait(
    is_declared: bool, emulator: RunningEmulator
) -> None:
    """RFC 9110, 503, for what has waited too long."""
    filling = {"Content-Type": "application/json"} | (
        {"Content-Length": str(MAX_BODY_BYTES)} if is_declared else {}
    )

    large = {"prompt": "x" * (MAX_BODY_BYTES - 1024)}

    async def never_whole() -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.sleep_forever()

    async def hold(server: WebServer) -> None:
        await server.client.post("/mcp", content=never_whole(), headers=filling)

    with fail_after(TEST_SECONDS):
        async with (
            serving_http(against(emulator), body_wait_seconds=0.2) as server,
            anyio.create_task_group() as tasks,
        ):
            await server.initialize()
            for _ in range(BODIES_AT_ONCE):
                tasks.start_soon(hold, server)
            refused = None
            while refused is None or refused.status_code == 200:
                refused = await server.post_modern(
                    "tools/call", name="list_models", arguments=large
                )
            assert refused.status_code == 503
            assert "Retry-After" in refused.headers
            assert (await server.post("ping")).status_code == 200
            tasks.cancel_scope.cancel()
        async with serving_http(against(emulator), body_wait_seconds=0.2) as server:
            for _ in range(2 * BODIES_AT_ONCE):  # Each gives its room back.
                response = await server.post_modern(
                    "tools/call", name="list_models", arguments=large
                )
                assert response.status_code == 200
