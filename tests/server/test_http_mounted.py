"""Another application on the HTTP server has the same gate and the engine of its caller."""

import anyio
import httpx
import pytest
from anyio import fail_after
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from kiro_mcp.server.http import Transport
from tests.support.http import TOKEN, against, serving_http

TEST_SECONDS = 30
BEARER = {"Authorization": f"Bearer {TOKEN}"}
KEY = {"X-Kiro-Api-Key": EMULATOR_API_KEY}


async def echo(request: Request) -> PlainTextResponse:
    """Say how long the body is, and whether the engine is that of the caller's own key."""
    size = len(await request.body())
    async with request.state.engines.engine_for(request) as engine:
        return PlainTextResponse(f"{size} bytes, {'guest' if engine.owner else 'host'}")


MOUNTED = {"/v1": Starlette(routes=[Route("/echo", echo, methods=["POST"])])}


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_mounted_application_gets_the_engine_of_its_caller(
    transport: Transport, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(
            against(emulator), transport=transport, token=TOKEN, mounted=MOUNTED
        ) as server:
            own = await server.client.post("/v1/echo", content=b"abc", headers=BEARER)
            theirs = await server.client.post("/v1/echo", content=b"", headers={**BEARER, **KEY})
    assert (own.text, theirs.text) == ("3 bytes, host", "0 bytes, guest")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({**BEARER, "Host": "evil.example"}, 421),
        ({**BEARER, "Origin": "https://evil.example"}, 403),
    ],
    ids=["no-token", "host", "origin"],
)
async def test_a_mounted_application_is_behind_the_gate(
    headers: dict[str, str], status: int
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(token=TOKEN, mounted=MOUNTED) as server:
            response = await server.client.post("/v1/echo", content=b"abc", headers=headers)
    assert response.status_code == status


async def test_requests_to_a_mounted_application_end_no_session(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), max_sessions=1, mounted=MOUNTED) as server:
            await server.initialize()
            assert (await server.client.post("/v1/echo", content=b"abc")).status_code == 200
            assert (await server.post("ping")).status_code == 200


async def test_the_server_ends_although_a_response_is_shorter_than_declared() -> None:
    async def send_a_part(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await anyio.sleep_forever()

    with fail_after(TEST_SECONDS):
        async with (
            anyio.create_task_group() as tasks,
            serving_http(mounted={"/v1": send_a_part}) as server,
        ):
            has_begun = anyio.Event()

            async def get() -> None:
                async with server.client.stream("GET", "/v1/part") as response:
                    has_begun.set()
                    with pytest.raises(httpx.RemoteProtocolError):
                        await response.aread()

            tasks.start_soon(get)
            await has_begun.wait()


async def test_a_request_is_told_that_the_server_ends_although_its_client_does_not_read() -> None:
    """A request that is cancelled instead leaves the SDK's streams open."""
    is_sent, is_told = anyio.Event(), anyio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            part = {"type": "http.response.body", "body": bytes(16 * 1024 * 1024)}
            await send({**part, "more_body": True})
            is_sent.set()
            await send({**part, "more_body": True})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_more)
            while (await receive())["type"] != "http.disconnect":
                pass
            is_told.set()

    with fail_after(TEST_SECONDS):
        async with serving_http(mounted={"/v1": flood}) as server:
            client = await anyio.connect_tcp("127.0.0.1", server.port)
            head = f"GET /v1/flood HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n"
            await client.send(head.encode())
            await is_sent.wait()
        await client.aclose()
    assert is_told.is_set()
