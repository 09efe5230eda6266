"""The errors of the APIs: their shape, their status and their words."""

import ast
import json
from pathlib import Path

import pytest
from anyio import fail_after

import kiro_mcp
from kiro_mcp.api.errors import for_programs
from kiro_mcp.emulator import Cut, Pause, RunningEmulator, Send, frames
from tests.support.api import CHAT, MESSAGES, PATHS, RESPONSES, question, serving_api, stream
from tests.support.http import MAX_BODY_BYTES, TOKEN

TEST_SECONDS = 30
PACKAGE = Path(kiro_mcp.__file__).parent


def next_steps() -> list[str]:
    """What the package tells people to do after an error, as source text."""
    trees = [
        ast.parse(path.read_text("utf-8"))
        for layer in ("client", "auth", "wire", "server")
        for path in (PACKAGE / layer).rglob("*.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return [
        ast.unparse(node.value)
        for node in nodes
        if isinstance(node, ast.keyword) and node.arg == "next_step"
    ]


def test_no_next_step_names_a_tool_that_programs_do_not_have() -> None:
    steps = [step for step in next_steps() if "`login`" in step or "`list_models`" in step]
    assert len(steps) > 5
    for step in steps:
        said = for_programs(step)
        assert "`login`" not in said, said
        assert "`list_models`" not in said, said
        assert "kiro-mcp login" in said or "/v1/models" in said or "the server" in said, said


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_login_the_command_to_run_is_named(
    path: str, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, KIRO_API_KEY="") as client:
            response = await client.post(path, json=question(path, "hello"))
    assert response.status_code == 401
    message = response.json()["error"]["message"]
    assert "Run `kiro-mcp login`" in message
    assert "tool" not in message


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "size", "status", "kind"),
    [
        ({"authorization": ""}, 0, 401, "authentication_error"),
        ({"origin": "https://evil.example"}, 0, 403, "permission_error"),
        ({"host": "evil.example"}, 0, 421, "invalid_request_error"),
        ({}, MAX_BODY_BYTES + 1, 413, "invalid_request_error"),
    ],
)
async def test_what_the_server_itself_refuses_has_the_shape_of_the_api(
    path: str,
    headers: dict[str, str],
    size: int,
    status: int,
    kind: str,
    emulator: RunningEmulator,
) -> None:
    token = {"authorization": f"Bearer {TOKEN}"}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, token=TOKEN) as client:
            response = await client.post(path, content=b" " * size, headers={**token, **headers})
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == kind
    assert error["message"]


async def test_a_body_that_is_too_large_is_refused_however_it_is_sent(
    emulator: RunningEmulator,
) -> None:
    async def pieces():
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(CHAT, content=pieces())
    assert response.status_code == 413
    assert "KIRO_MCP_MAX_BODY_BYTES" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_quota_that_is_used_up_is_not_to_be_asked_for_again(
    path: str, emulator: RunningEmulator
) -> None:
    """Libraries ask again after 408, 409, 429 and 5xx, Codex after all but 400 and 429.

    Some agents ask again after certain words in the text.
    """
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(path, json=question(path, "/emulate quota"))
    assert response.status_code == (400 if path == RESPONSES else 402)
    kind = "billing_error" if path == MESSAGES else "insufficient_quota"
    assert response.json()["error"]["type"] == kind
    assert response.headers["x-should-retry"] == "false"
    words = ("rate limit", "rate_limit", "try again", "overloaded", "too many requests", "429")
    assert not any(word in response.text.lower() for word in words)


async def test_a_stream_whose_quota_is_used_up_ends_a_turn_of_codex(
    emulator: RunningEmulator,
) -> None:
    """Of the codes of `response.failed`, Codex takes this one as final."""
    refused = Send(frames.exception("Too much.", "MONTHLY_REQUEST_COUNT"))
    emulator.state.enqueue((Pause(0.3), refused))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, keep_alive_seconds=0.05) as client:
            seen = await stream(client, RESPONSES, "hello")
    assert seen[-1]["type"] == "response.failed"
    assert seen[-1]["response"]["error"]["code"] == "insufficient_quota"


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_breaks_off_says_that_asking_again_is_charged(
    path: str, emulator: RunningEmulator
) -> None:
    emulator.state.enqueue((Send(frames.text("One ")), Cut()), (Send(frames.text("One ")), Cut()))
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            whole = await client.post(path, json=question(path, "Count."))
            seen = await stream(client, path, "Count.")
    assert "another request" in whole.json()["error"]["message"]
    assert "another request" in json.dumps(seen[-1])
