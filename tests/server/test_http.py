"""The server over HTTP, on real sockets: both eras on one endpoint, and SSE."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import anyio
import httpx
import pytest
from anyio import fail_after
from mcp.client import Client
from mcp.client.sse import sse_client

from kiro_mcp._version import __version__
from kiro_mcp.emulator import RunningEmulator, Send, Until, frames
from kiro_mcp.server.http_gate import AllowedNames, in_url
from tests.emulator.calls import ask as ask_emulator
from tests.emulator.calls import connected
from tests.support.http import MAX_BODY_BYTES, WebServer, against, answer, serving_http
from tests.support.mcp import assert_describes_the_server
from tests.support.stdio import ENVELOPE, PROMPTLY_SECONDS

TEST_SECONDS = 20
"""How long a test may take on a busy machine; each takes under one second."""

HELLO: dict[str, Any] = {
    "protocolVersion": "2024-11-05",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}

TOOLS = ["ask_claude", "list_models", "login"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_each_legacy_revision_is_negotiated_and_answers_calls(
    version: str, emulator: RunningEmulator
) -> None:
    """The MCP specification's lifecycle: the server answers in the client's revision."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            hello = (await server.initialize(version))["result"]
            assert hello["protocolVersion"] == version
            assert hello["serverInfo"]["version"] == __version__
            listed = answer(await server.post("tools/list"))["result"]["tools"]
            assert [tool["name"] for tool in listed] == TOOLS
            called = await server.call("ask_claude", prompt="Say hello")
            assert called["content"][0]["text"]


async def test_an_unknown_revision_is_answered_with_the_newest_legacy_one() -> None:
    """The MCP specification's lifecycle."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            hello = await server.initialize("1999-01-01")
            assert hello["result"]["protocolVersion"] == "2025-11-25"


async def test_the_stateless_revision_is_served_without_a_session(
    emulator: RunningEmulator,
) -> None:
    """MCP 2026-07-28."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            found = await server.post_modern("server/discover")
            assert "mcp-session-id" not in found.headers
            assert_describes_the_server(answer(found)["result"])
            listed = answer(await server.post_modern("tools/list"))["result"]
            assert [tool["name"] for tool in listed["tools"]] == TOOLS
            called = await server.post_modern(
                "tools/call", name="ask_claude", arguments={"prompt": "Say hello"}
            )
            assert answer(called)["result"]["structuredContent"]["text"]


async def test_both_eras_are_served_by_one_endpoint_in_turn_and_at_once(
    emulator: RunningEmulator,
) -> None:
    """One person may have old and new clients."""
    texts = dict[str, str]()

    async def ask(server: WebServer, era: str, number: int) -> None:
        call: dict[str, Any] = {"name": "ask_claude", "arguments": {"prompt": f"{era} {number}"}}
        if era == "modern":
            response = await server.post_modern("tools/call", **call)
        else:
            response = await server.post("tools/call", call)
        result = answer(response)["result"]
        assert ("resultType" in result) is (era == "modern")
        texts[f"{era} {number}"] = result["structuredContent"]["text"]

    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            await server.initialize()
            for number in range(2):
                await ask(server, "modern", number)
                await ask(server, "legacy", number)
            async with anyio.create_task_group() as tasks:
                for number in range(2, 6):
                    tasks.start_soon(ask, server, "modern", number)
                    tasks.start_soon(ask, server, "legacy", number)
    assert len(texts) == 12
    assert all(prompt in text for prompt, text in texts.items())


@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
async def test_the_sdks_own_client_lists_and_calls_the_tools(
    mode: str, emulator: RunningEmulator
) -> None:
    """Most Python clients are built on it."""
    with fail_after(TEST_SECONDS):
        async with (
            serving_http(against(emulator)) as server,
            Client(server.url, mode=mode) as client,
        ):
            assert len((await client.list_tools()).tools) == len(TOOLS)
            called = await client.call_tool("ask_claude", {"prompt": "Say hello"})
            assert "Say hello" in called.structured_content["text"]


@pytest.mark.parametrize("path", ["/", "/health"])
async def test_the_public_paths_say_only_that_the_server_is_up(path: str) -> None:
    """A monitor needs no token, and a stranger learns nothing."""
    with fail_after(TEST_SECONDS):
        async with serving_http(token="a token") as server:
            response = await server.client.get(path)
            body = response.json()
            assert (response.status_code, set(body)) == (200, {"status", "time"})
            assert datetime.fromisoformat(body["time"]).tzinfo
            assert "server" not in response.headers


@pytest.mark.parametrize("path", ["/mcp", "/health", "/nowhere"])
async def test_a_foreign_host_is_refused_on_every_path(path: str) -> None:
    """MCP's transports, security warning: DNS rebinding."""
    with fail_after(TEST_SECONDS):
        async with serving_http(also=("proxy.example", "one.example:1")) as server:
            for name in FOREIGN_HOSTS:
                host = name.format(port=server.port)
                refused = await server.client.get(path, headers={"Host": host})
                assert refused.status_code == 421, host
                assert repr(host[:80])[:-1] in refused.text
                assert "KIRO_MCP_ALLOWED_HOSTS" in refused.text
                assert len(refused.text) < 250


FOREIGN_HOSTS = (
    "evil.example",
    "evil.example:{port}",
    "x" * 3000,
    "0.0.0.0",
    "localhost.evil.example",
    "localhost.",
    "evil.localhost",
    "evil@localhost",
    "localhost:evil",
    "localhost:80:80",
    "::1",
    "sub.proxy.example",
    "one.example:2",
    "one.example",
    "",
)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://localhost",
        "http://localhost:1",
        "http://localhost.evil.example:{port}",
        "ftp://localhost:{port}",
        "http://evil@localhost:{port}",
    ],
)
async def test_a_foreign_origin_is_refused(origin: str) -> None:
    """MCP's transports, security warning: servers MUST validate the Origin header."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            headers = {"Origin": origin.format(port=server.port)}
            response = await server.post_modern("tools/list", headers=headers)
            assert response.status_code == 403


async def test_the_servers_own_names_may_call_and_be_an_origin() -> None:
    """RFC 9110: a host's name has no case, and clients leave default ports out.

    A container or a tunnel may map the server's port to another one.
    """
    called = (
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("LocalHost:{port}", "http://LOCALHOST:{port}"),
        ("localhost", "http://localhost"),
        ("localhost", "https://localhost:443"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("localhost:9000", "http://localhost:{port}"),
        ("Proxy.example", "https://proxy.example"),
        ("proxy.example:443", "https://proxy.example"),
        ("proxy.example:80", "http://proxy.example"),
        ("proxy.example:{port}", "http://proxy.example:{port}"),
        ("tls.example", "https://tls.example"),
        ("one.example:1", "http://one.example:1"),
    )
    also = ("proxy.example", "TLS.example:443", "one.example:1")
    with fail_after(TEST_SECONDS):
        async with serving_http(also=also) as server:
            for host, origin in called:
                given = {"Host": host, "Origin": origin}
                headers = {name: text.format(port=server.port) for name, text in given.items()}
                response = await server.post_modern("tools/list", headers=headers)
                assert response.status_code == 200, (headers, response.text)


@pytest.mark.parametrize(
    ("host", "is_allowed"), [("10.1.2.3", True), ("FE80::1", True), ("a.b", True), ("::", False)]
)
def test_the_listening_address_is_an_allowed_name_unless_it_is_the_unspecified_one(
    host: str, is_allowed: bool
) -> None:
    """Browsers take 0.0.0.0 for this machine, so no page may call it by that."""
    name = f"{in_url(host)}:8000"
    names = AllowedNames(host, 8000)
    assert names.allow_host(name) is is_allowed
    assert names.allow_origin(f"http://{name}", "localhost:8000") is is_allowed


def test_a_setting_that_names_no_host_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """`*` would allow everything that the check must refuse."""
    names = AllowedNames("127.0.0.1", 8000, ["https://a.example", "*", "b.example"])
    assert [names.allow_host(name) for name in ("a.example", "x", "b.example")] == [
        False,
        False,
        True,
    ]
    assert "'https://a.example' is not a host's name" in caplog.text
    assert "'*' is not a host's name" in caplog.text


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_that_is_too_large_is_refused(is_declared: bool) -> None:
    """RFC 9110, 413; also where its length is not told beforehand."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            body = b" " * (MAX_BODY_BYTES + 1) if is_declared else pieces()
            response = await server.client.post(
                "/mcp", content=body, headers={"Content-Type": "application/json"}
            )
            assert response.status_code == 413


async def test_a_body_that_is_not_json_is_refused_by_its_type() -> None:
    """A form on a web page can send text/plain without asking the server first."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            headers = {"Content-Type": "text/plain"}
            response = await server.client.post("/mcp", content=b"{}", headers=headers)
            assert response.status_code == 400


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"jsonrpc":"2.0"}', b"[" * 50_000],
    ids=["blank", "cut", "batch", "string", "no-utf-8", "no-method", "deep"],
)
async def test_a_body_that_is_not_a_message_is_refused_and_the_next_is_answered(
    body: bytes, era: str
) -> None:
    """JSON-RPC; MCP has had no batches since 2025-06-18."""
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            if era == "legacy":
                await server.initialize()
                headers = {}
            response = await server.post_bytes(body, headers)
            assert response.status_code == 400
            assert response.json()["error"]["code"] in (-32700, -32600, -32602)
            await server.initialize()
            assert answer(await server.post("ping"))["result"] == {}


async def test_a_web_page_is_never_allowed_in_by_cors() -> None:
    """Fetch standard: without these headers a browser does not send the request."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            response = await server.client.options(
                "/mcp", headers={"Access-Control-Request-Method": "POST"}
            )
            assert response.status_code >= 400
            assert not [name for name in response.headers if name.startswith("access-control")]


async def test_an_unknown_session_is_not_found() -> None:
    """MCP 2025-11-25: 404 tells the client to initialize again."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            response = await server.post("tools/list", headers={"Mcp-Session-Id": "f" * 32})
            assert response.status_code == 404


@pytest.mark.parametrize(
    "headers", [{"Mcp-Method": "tools/call"}, {"Mcp-Name": "login"}], ids=["method", "name"]
)
async def test_headers_that_disagree_with_the_body_are_refused(headers: dict[str, str]) -> None:
    """MCP 2026-07-28: 400 and -32020."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            method = "tools/list" if "Mcp-Method" in headers else "tools/call"
            params: dict[str, Any] = {"name": "ask_claude"} if method == "tools/call" else {}
            response = await server.post_modern(method, headers=headers, **params)
            assert (response.status_code, answer(response)["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize("missing", ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version"])
async def test_missing_headers_are_refused(missing: str) -> None:
    """MCP 2026-07-28: proxies route by these headers. Older requests have no version header."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            request = server.modern_request("tools/call", name="login", arguments={})
            del request.headers[missing]
            response = await server.client.send(request)
            code = -32600 if missing == "MCP-Protocol-Version" else -32020
            assert (response.status_code, answer(response)["error"]["code"]) == (400, code)


async def test_an_unknown_revision_in_the_header_is_refused_with_those_that_are_served() -> None:
    """MCP 2026-07-28: 400 and -32022."""
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            envelope = {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
            response = await server.post_modern(
                "tools/list", headers={"MCP-Protocol-Version": "2099-01-01"}, _meta=envelope
            )
            error = answer(response)["error"]
            assert (response.status_code, error["code"]) == (400, -32022)
            assert "2026-07-28" in error["data"]["supported"]


async def test_disconnecting_cancels_a_modern_call(emulator: RunningEmulator) -> None:
    """MCP 2026-07-28: cancellation over HTTP is closing the stream."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            async with sent(server, stalling_modern_call(server)):
                await emulator.state.until(lambda state: state.open_streams == 1)
            await closes_the_way_to_the_service(emulator)
            assert (await server.post_modern("tools/list")).status_code == 200


async def test_cancelling_a_legacy_call_closes_the_connection_to_the_service(
    emulator: RunningEmulator,
) -> None:
    """MCP 2025-11-25: notifications/cancelled."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            await server.initialize()
            async with sent(server, stalling_call(server)) as sent_id:
                await emulator.state.until(lambda state: state.open_streams == 1)
                await server.notify("notifications/cancelled", {"requestId": sent_id})
                await closes_the_way_to_the_service(emulator)
            assert (await server.call("login"))["structuredContent"]["state"] == "signed_in"


async def test_deleting_a_session_ends_its_calls(emulator: RunningEmulator) -> None:
    """MCP 2025-11-25: a client that is done says so with DELETE."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            await server.initialize()
            request = stalling_call(server)
            async with sent(server, request):
                await emulator.state.until(lambda state: state.open_streams == 1)
                session = {"Mcp-Session-Id": request.headers["mcp-session-id"]}
                await server.client.delete("/mcp", headers=session)
                await closes_the_way_to_the_service(emulator)
            assert (await server.post("tools/list", headers=session)).status_code == 404


async def test_a_legacy_call_whose_client_disconnected_ends_with_the_timeouts(
    emulator: RunningEmulator,
) -> None:
    """In MCP 2025-11-25 a lost connection does not cancel a call, but the call must end."""
    timeouts = {"FIRST_TOKEN": "0.2", "STREAM_READ": "0.2"}
    variables = {f"KIRO_MCP_{name}_TIMEOUT": seconds for name, seconds in timeouts.items()}
    environ = against(emulator, **variables)
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as server:
            await server.initialize()
            async with sent(server, stalling_call(server)):
                await emulator.state.until(lambda state: state.open_streams == 1)
            await emulator.state.until(lambda state: state.open_streams == 0)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_running_calls_are_answered_when_the_server_ends(
    era: str, emulator: RunningEmulator
) -> None:
    """No answer continues to cost credits, and no client is left waiting."""
    responses = list[httpx.Response]()

    async def call(server: WebServer, request: httpx.Request) -> None:
        responses.append(await server.client.send(request))

    with fail_after(TEST_SECONDS):
        async with anyio.create_task_group() as tasks, serving_http(against(emulator)) as server:
            if era == "legacy":
                await server.initialize()
            build = stalling_call if era == "legacy" else stalling_modern_call
            tasks.start_soon(call, server, build(server))
            await emulator.state.until(lambda state: state.open_streams == 1)
        await closes_the_way_to_the_service(emulator)
    [response] = responses
    assert answer(response)["error"]["message"] == "The server is ending."


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_open_streams_end_without_an_error_when_the_server_ends(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As if their clients had left: the SDK leaves streams open that are cancelled."""
    is_open = anyio.Event()

    async def listen(server: WebServer) -> None:
        async with server.client.stream("GET", path, headers=server.session) as stream:
            is_open.set()
            await stream.aread()

    with fail_after(TEST_SECONDS):
        transport = "http" if path == "/mcp" else "sse"
        async with anyio.create_task_group() as tasks, serving_http(transport=transport) as server:
            if transport == "http":
                await server.initialize()
            tasks.start_soon(listen, server)
            await is_open.wait()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_incomplete_request_is_refused_when_the_server_ends() -> None:
    """RFC 9110, 503; a client that never sends the rest must not hold up the end."""
    head = b"POST /mcp HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 9\r\n"
    with fail_after(TEST_SECONDS):
        async with serving_http() as server:
            client = await anyio.connect_tcp("127.0.0.1", server.port)
            await client.send(head % server.port + b"Expect: 100-continue\r\n\r\n")
            assert b"100 Continue" in await client.receive()
        async with client:
            assert (await client.receive()).startswith(b"HTTP/1.1 503")


async def test_sse_names_the_address_for_messages_and_answers_there(
    emulator: RunningEmulator,
) -> None:
    """MCP 2024-11-05, HTTP with SSE."""
    with fail_after(TEST_SECONDS):
        async with (
            serving_http(against(emulator), transport="sse") as server,
            events(server) as seen,
        ):
            address = await anext(seen)
            assert address.startswith("/messages/?session_id=")
            server.path = address
            accepted = await server.post("initialize", HELLO)
            assert accepted.status_code == 202
            assert json.loads(await anext(seen))["result"]["protocolVersion"] == "2024-11-05"


async def test_the_sdks_sse_client_calls_the_tools(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with (
            serving_http(against(emulator), transport="sse") as server,
            Client(sse_client(server.url), mode="legacy") as client,
        ):
            called = await client.call_tool("ask_claude", {"prompt": "Say hello"})
            assert "Say hello" in called.structured_content["text"]


async def test_disconnecting_ends_the_calls_of_an_sse_connection(emulator: RunningEmulator) -> None:
    """On that transport the connection is the session."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), transport="sse") as server:
            async with events(server) as seen:
                server.path = await anext(seen)
                await server.post("initialize", HELLO)
                await anext(seen)
                await server.post("notifications/initialized")
                await server.client.send(stalling_call(server))
                await emulator.state.until(lambda state: state.open_streams == 1)
            await closes_the_way_to_the_service(emulator)


@pytest.mark.parametrize("path", ["/sse", "/messages/?session_id=0"])
async def test_sse_refuses_a_foreign_host(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """MCP's transports, security warning; and no traceback about it in the log."""
    with fail_after(TEST_SECONDS):
        async with serving_http(transport="sse") as server:
            response = await server.client.post(path, headers={"Host": "evil.example"})
            assert response.status_code == 421
    assert not [record for record in caplog.records if record.exc_info]


async def closes_the_way_to_the_service(emulator: RunningEmulator) -> None:
    with fail_after(PROMPTLY_SECONDS):
        await emulator.state.until(lambda state: state.open_streams == 0)


def stalling_call(server: WebServer) -> httpx.Request:
    return server.request(
        "tools/call", {"name": "ask_claude", "arguments": {"prompt": "/emulate stall"}}
    )


def stalling_modern_call(server: WebServer) -> httpx.Request:
    arguments = {"prompt": "/emulate stall"}
    return server.modern_request("tools/call", name="ask_claude", arguments=arguments)


@asynccontextmanager
async def sent(server: WebServer, request: httpx.Request) -> AsyncGenerator[int]:
    """Send a request, yield its id, and hang up at the end of the block."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.client.send, request)
        yield json.loads(request.content)["id"]
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def events(server: WebServer) -> AsyncGenerator[AsyncIterator[str]]:
    """Open an SSE connection and yield its events."""
    async with server.client.stream("GET", "/sse") as response:
        lines = response.aiter_lines()
        yield (line.removeprefix("data: ") async for line in lines if line.startswith("data: "))


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_clients_take_turns_when_all_slots_for_answers_are_taken(
    era: str, emulator: RunningEmulator
) -> None:
    """A client with many calls at once does not block another one until all are done."""
    say = Send(frames.text("Yes.") + frames.ending("END_TURN"))
    emulator.state.enqueue((Until(2), say))  # Keeps the only slot until the emulator is asked.
    arrived: list[str] = []
    has_arrived = anyio.Event()

    async def ask(server: WebServer, name: str, prompt: str) -> None:
        client = {"io.modelcontextprotocol/clientInfo": {"name": name, "version": "1"}}
        meta = {"progressToken": prompt, **({**ENVELOPE, **client} if era == "modern" else {})}
        call: dict[str, Any] = {
            "name": "ask_claude",
            "arguments": {"prompt": prompt},
            "_meta": meta,
        }
        if era == "legacy":
            request = server.request("tools/call", call)
        else:
            request = server.modern_request("tools/call", **call)
        response = await server.client.send(request, stream=True)
        async for line in response.aiter_lines():
            if "notifications/progress" in line and prompt not in arrived:
                arrived.append(prompt)
                has_arrived.set()
        await response.aclose()

    async def until_arrived(count: int) -> None:
        nonlocal has_arrived
        while len(arrived) < count:
            has_arrived = anyio.Event()
            await has_arrived.wait()

    environ = against(emulator, KIRO_MCP_MAX_CONCURRENCY="1")
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as busy, anyio.create_task_group() as tasks:
            quiet = WebServer(busy.client, busy.path)
            if era == "legacy":
                await busy.initialize()
                await quiet.initialize()
            for number in range(6):
                tasks.start_soon(ask, busy, "busy", f"busy-{number}")
            await until_arrived(6)
            tasks.start_soon(ask, quiet, "quiet", "quiet")
            await until_arrived(7)
            async with connected(emulator.url) as direct:
                await ask_emulator(direct, "go on")  # The prompt that the first answer waits for.
    said = [json.dumps(seen.body) for seen in emulator.state.requests]
    order = [re.findall(r'"content": "(busy|quiet|go on)', body) for body in said]
    assert order == [["busy"], ["go on"], ["busy"], ["quiet"], *[["busy"]] * 4]
