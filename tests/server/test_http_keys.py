"""Callers with their own API keys on one HTTP server do not see each other."""

import logging
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio import fail_after
from starlette.requests import HTTPConnection

from kiro_mcp.emulator import EMULATOR_API_KEY, RunningEmulator
from kiro_mcp.emulator.state import GENERATE, SeenRequest
from kiro_mcp.server.app import build_server
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.owners import Engines
from tests.server.test_http import HELLO, events
from tests.support.http import WebServer, against, answer, serving_http

TEST_SECONDS = 30

ANN = "ksk_ann00000000000000000000000000000"
BOB = "bob's key has no known shape 0000000"
REFUSED = "ksk_refused0000000000000000000000000"
OWNERS = (ANN, BOB, "")
"""The keys of two callers, and of those that use the server's own credential."""


@pytest.fixture
def emulator(emulator: RunningEmulator) -> RunningEmulator:
    for key in (ANN, BOB):
        emulator.state.accounts.add_api_key(key)
    return emulator


def headers(key: str) -> dict[str, str]:
    return {"X-Kiro-Api-Key": key} if key else {}


async def call(server: WebServer, key: str, tool: str, **arguments: Any) -> dict[str, Any]:
    response = await server.post_modern("tools/call", headers(key), name=tool, arguments=arguments)
    return cast("dict[str, Any]", answer(response)["result"])


async def ask(server: WebServer, key: str, **arguments: Any) -> dict[str, Any]:
    result = await call(server, key, "ask_claude", **arguments)
    assert not result.get("isError"), result
    return cast("dict[str, Any]", result["structuredContent"])


async def error_of(server: WebServer, key: str, tool: str, **arguments: Any) -> str:
    result = await call(server, key, tool, **arguments)
    assert result["isError"], result
    return cast("str", result["content"][0]["text"])


async def read(server: WebServer, key: str, uri: str) -> dict[str, Any]:
    return answer(await server.post_modern("resources/read", headers(key), uri=uri))


def bearer(request: SeenRequest) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")


async def test_a_callers_own_key_answers_its_calls_in_both_eras(
    emulator: RunningEmulator,
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            for key in OWNERS:
                await ask(server, key, prompt="hello")
            await server.initialize()
            for key in OWNERS[1:]:  # A session may be without a key, and a request in it as well.
                server.client.headers.update(headers(key))
                await server.initialize()
                await server.call("ask_claude", prompt="hello")
                server.client.headers.pop("X-Kiro-Api-Key", None)
    used = [bearer(request) for request in emulator.state.requests_to(GENERATE)]
    assert used == [ANN, BOB, EMULATOR_API_KEY, BOB, EMULATOR_API_KEY]


async def test_over_sse_the_key_of_each_message_counts(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), transport="sse") as server:
            server.client.headers.update(headers(ANN))
            async with events(server) as seen:
                server.path = await anext(seen)
                await server.post("initialize", HELLO)
                await anext(seen)
                await server.notify("notifications/initialized")
                await server.post(
                    "tools/call", {"name": "ask_claude", "arguments": {"prompt": "hello"}}
                )
                assert '"isError":true' not in await anext(seen)
    assert [bearer(request) for request in emulator.state.requests_to(GENERATE)] == [ANN]


async def test_a_key_serves_its_caller_where_nobody_is_signed_in(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_MCP_HOME": str(tmp_path)}
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as server:
            assert "X-Kiro-Api-Key" in await error_of(server, "", "ask_claude", prompt="hello")
            assert (await ask(server, ANN, prompt="hello"))["text"]


async def test_conversations_answers_and_resources_belong_to_the_key_that_made_them(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    environ = against(emulator, KIRO_MCP_HOME=str(tmp_path))
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as server:
            made = {key: await ask(server, key, prompt="hello") for key in OWNERS}
            for key in OWNERS:
                listed = (await read(server, key, "kiro://conversations"))["result"]
                text = listed["contents"][0]["text"]
                for owner, one in made.items():
                    assert (one["conversation_id"] in text) is (owner == key)
                    uri = f"kiro://conversations/{one['conversation_id']}"
                    assert ("result" in await read(server, key, uri)) is (owner == key)
                    if owner != key:
                        conversation = {"conversation_id": one["conversation_id"]}
                        refusal = await error_of(
                            server, key, "ask_claude", prompt="go on", **conversation
                        )
                        assert refusal.startswith("not_found:")
        async with serving_http(environ) as server:  # Started again.
            for key, one in made.items():
                told = await ask(
                    server, key, prompt="go on", conversation_id=one["conversation_id"]
                )
                assert told["turn"] == 2


async def test_a_running_answer_is_collected_only_with_the_key_that_asked_for_it(
    emulator: RunningEmulator,
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            running = await ask(server, ANN, prompt="/emulate slow 0.5\nhello", wait_seconds=0.01)
            answer_id = running["answer_id"]
            assert running["status"] == "running"
            for key in (BOB, ""):
                refusal = await error_of(server, key, "ask_claude", answer_id=answer_id)
                assert refusal.startswith("not_found:")
            told = await ask(server, ANN, answer_id=answer_id)
            assert told["status"] == "completed"
            for key in OWNERS:
                found = await read(server, key, f"kiro://answers/{answer_id}")
                assert ("result" in found) is (key == ANN)


async def test_each_key_has_its_own_models_and_its_own_refusals(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            for key in OWNERS:
                sources = [
                    (await call(server, key, "list_models"))["structuredContent"]["source"]
                    for _ in range(2)
                ]
                assert sources == ["live", "cache"]
            assert "auth_expired" in await error_of(server, REFUSED, "ask_claude", prompt="hello")
            assert (await ask(server, "", prompt="hello"))["text"]


async def test_the_state_of_the_key_that_was_unused_for_longest_makes_room(
    emulator: RunningEmulator,
) -> None:
    """Seen by its list of models, which has to be fetched again."""

    async def source(server: WebServer, key: str) -> str:
        return (await call(server, key, "list_models"))["structuredContent"]["source"]

    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator), max_keys=2) as server:
            keys = [ANN, BOB, "ksk_cid00000000000000000000000000000"]
            emulator.state.accounts.add_api_key(keys[2])
            assert [await source(server, key) for key in (*keys, BOB, ANN)] == [
                "live",
                "live",
                "live",
                "cache",
                "live",
            ]
            # One that has an answer on its way is never dropped.
            for key in keys[:2]:
                await ask(server, key, prompt="/emulate stall", wait_seconds=0.01)
            refusal = await error_of(server, keys[2], "ask_claude", prompt="hello")
            assert refusal.startswith("rate_limited:")
            assert (await ask(server, "", prompt="hello"))["text"]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "is empty"),
        ("function", "is too short"),
        ("${env:KIRO_API_KEY}", "must be the credential itself"),
        ("k\xe9y", "must be printable"),
    ],
)
async def test_a_header_that_holds_no_key_never_falls_back_to_the_servers_credential(
    key: str, why: str, emulator: RunningEmulator
) -> None:
    """It would be billed to somebody else."""
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            server.client.headers.update([(b"X-Kiro-Api-Key", key.encode("latin-1"))])
            told = await error_of(server, "", "ask_claude", prompt="hello")
            assert f"X-Kiro-Api-Key {why}" in told
            refused = await read(server, "", "kiro://conversations")
            assert f"X-Kiro-Api-Key {why}" in refused["error"]["message"]
    assert not emulator.state.requests


async def test_a_session_can_be_used_only_with_the_key_that_opened_it(
    emulator: RunningEmulator,
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_http(against(emulator)) as server:
            server.client.headers.update(headers(ANN))
            await server.initialize()
            assert (await server.post("ping")).status_code == 200
            for key in (BOB, ""):
                server.client.headers.pop("X-Kiro-Api-Key")
                server.client.headers.update(headers(key))
                assert (await server.post("ping")).status_code == 404
                server.client.headers["X-Kiro-Api-Key"] = ANN
            assert (await server.post("ping")).status_code == 200


async def test_a_callers_key_is_neither_stored_nor_shown(
    emulator: RunningEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the store, captures, logs nor in what other callers or the caller itself gets."""
    caplog.set_level(logging.DEBUG)
    environ = against(
        emulator, KIRO_MCP_HOME=str(tmp_path), KIRO_MCP_DEBUG_MODE="all", KIRO_MCP_LOG_LEVEL="DEBUG"
    )
    told = list[dict[str, Any]]()
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as server:
            for key in (ANN, BOB, REFUSED):
                told.append(await call(server, key, "ask_claude", prompt="hello"))
                told.append(await call(server, key, "ask_claude", prompt="/emulate forbidden"))
                told.append(await call(server, key, "list_models"))
                told.append(await call(server, key, "login"))
            told.append(await read(server, "", "kiro://conversations"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"conversations.sqlite3", "owner-secret"} <= {path.name for path in files}
    written = b"".join(path.read_bytes() for path in files).decode("utf-8", "replace")
    for key in (ANN, BOB, REFUSED):
        for where in (str(told), caplog.text, written):
            assert key not in where
            assert key[4:] not in where


@pytest.mark.parametrize("action", ["start", "logout"])
async def test_over_http_login_changes_nothing_unless_it_is_switched_on(
    action: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Everybody's calls would run on the new login, or on none."""
    environ = {"KIRO_MCP_ENDPOINT_URL": emulator.url, "KIRO_MCP_HOME": str(tmp_path)}
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as server:
            assert "KIRO_MCP_HTTP_LOGIN" in await error_of(server, "", "login", action=action)
            status = (await call(server, "", "login"))["structuredContent"]
            assert status["state"] == "signed_out"
            assert "KIRO_MCP_HTTP_LOGIN" in status["next_step"]
            assert not emulator.state.requests
        async with serving_http({**environ, "KIRO_MCP_HTTP_LOGIN": "true"}) as server:
            result = await call(server, "", "login", action=action)
            expected = {"start": "pending", "logout": "signed_out"}[action]
            assert result["structuredContent"]["state"] == expected


async def test_a_caller_with_its_own_key_gets_the_status_of_that_key(
    emulator: RunningEmulator,
) -> None:
    with fail_after(TEST_SECONDS):
        environ = against(emulator, KIRO_MCP_HTTP_LOGIN="true")
        async with serving_http(environ) as server:
            status = (await call(server, ANN, "login"))["structuredContent"]
            assert (status["state"], status["source"]) == ("signed_in", "X-Kiro-Api-Key")
            refused = (await call(server, REFUSED, "login"))["structuredContent"]
            assert refused["state"] == "signed_out"
            assert "X-Kiro-Api-Key" in refused["next_step"]
            for action in ("start", "logout"):
                assert "X-Kiro-Api-Key" in await error_of(server, ANN, "login", action=action)


async def test_the_partial_answer_of_a_caller_with_its_own_key_is_saved_when_the_server_ends(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    environ = against(emulator, KIRO_MCP_HOME=str(tmp_path))
    with fail_after(TEST_SECONDS):
        async with serving_http(environ) as server:
            running = await ask(server, ANN, prompt="/emulate slow 20", wait_seconds=0.01)
            answer_id = running["answer_id"]
            while not running["text"]:
                running = await ask(server, ANN, answer_id=answer_id, wait_seconds=0.05)
        async with serving_http(environ) as server:
            told = await ask(server, ANN, answer_id=answer_id)
            assert told["truncated"]
            assert told["text"] == running["text"]


async def test_the_engines_close_although_a_key_comes_into_use_at_that_moment() -> None:
    """Otherwise neither the store nor the connections would be closed."""
    server = build_server(lambda: Engine.from_environ({}))

    async def use(engines: Engines, key: str) -> None:
        scope = {"type": "http", "headers": [(b"x-kiro-api-key", key.encode())]}
        async with engines.engine_for(HTTPConnection(scope)):
            pass

    with fail_after(TEST_SECONDS):
        async with server.lifespan(server) as engines:
            await use(engines, ANN)
            await use(engines, BOB)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(engines.aclose)
                tasks.start_soon(use, engines, ANN)
                tasks.start_soon(use, engines, REFUSED)
