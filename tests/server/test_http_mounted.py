"""A further application on the HTTP server: behind the same gate, with the engine of its caller."""

import pytest
from anyio import fail_after
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

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
