"""What the APIs take, refuse and answer to requests that fail."""

import base64
import json

import pytest
from anyio import fail_after

from kiro_mcp.emulator import RunningEmulator, Send, frames
from kiro_mcp.emulator.state import GENERATE
from tests.support.api import (
    CHAT,
    MESSAGES,
    PATHS,
    RESPONSES,
    Json,
    ask,
    question,
    serving_api,
    text_of,
)

TEST_SECONDS = 30
END = Send(frames.ending("END_TURN"))


def message_of(path: str, body: Json) -> str:
    """The message of an error, whose shape is checked."""
    if path == MESSAGES:
        assert body["type"] == "error"
        assert body["request_id"].startswith("req_")
    else:
        assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("scene", "status", "code"),
    [
        ("quota", 402, "quota_exhausted"),
        ("throttle", 429, "rate_limited"),
        ("busy", 503, "model_busy"),
        ("too_long", 400, "context_too_long"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_refusal_of_the_service_has_its_status_and_the_apis_own_shape(
    path: str, scene: str, status: int, code: str, is_streamed: bool, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            body = question(path, f"/emulate {scene}", stream=is_streamed)
            response = await client.post(path, json=body)
    if path == MESSAGES and code == "model_busy":
        status = 529
    if path == RESPONSES and code == "quota_exhausted":
        status = 400
    assert response.status_code == status
    assert code in message_of(path, response.json())
    assert response.headers["x-request-id"].startswith("req_")
    assert ("retry-after" in response.headers) == (code in ("rate_limited", "model_busy"))
    assert ("x-should-retry" in response.headers) == (code not in ("rate_limited", "model_busy"))


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_cannot_be_read_is_a_bad_request(
    path: str, emulator: RunningEmulator
) -> None:
    bodies = [b"{", b"[]", b"\xff", json.dumps(question(path, "x", stream="yes")).encode()]
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            responses = [await client.post(path, content=body) for body in bodies]
    assert [response.status_code for response in responses] == [400] * len(bodies)
    for response in responses:
        assert message_of(path, response.json()).startswith("invalid_request")
    assert emulator.state.prompts == 0


@pytest.mark.parametrize(
    ("path", "members"),
    [
        (CHAT, {"n": 2}),
        (CHAT, {"logprobs": True}),
        (CHAT, {"modalities": ["text", "audio"]}),
        (CHAT, {"functions": [{"name": "f"}]}),
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (RESPONSES, {"background": True}),
        (MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://x"}]}),
    ],
)
async def test_what_would_mislead_is_refused_by_name(
    path: str, members: Json, emulator: RunningEmulator
) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(path, json=question(path, "x", **members))
    assert response.status_code == 400
    assert next(iter(members)) in message_of(path, response.json())
    assert emulator.state.prompts == 0


@pytest.mark.parametrize("path", PATHS)
async def test_what_does_no_harm_is_ignored(path: str, emulator: RunningEmulator) -> None:
    members = {"temperature": 0.5, "top_p": 1, "user": "ann", "metadata": {"a": "b"}, "new": [1]}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            answer = await ask(client, path, "hello", **members)
    assert text_of(path, answer).endswith("hello")


async def test_images_and_documents_reach_the_model(emulator: RunningEmulator) -> None:
    png = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
        "gg=="
    )
    url = f"data:image/png;base64,{png}"
    contents: list[tuple[str, list[Json]]] = [
        (CHAT, [{"type": "image_url", "image_url": {"url": url}}]),
        (RESPONSES, [{"type": "input_image", "image_url": url}]),
        (
            MESSAGES,
            [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": png},
                },
                {
                    "type": "document",
                    "title": "notes",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Owls."},
                },
            ],
        ),
    ]
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            for path, content in contents:
                name = "input" if path == RESPONSES else "messages"
                turns = [{"role": "user", "content": content}]
                response = await client.post(path, json={"model": "auto", name: turns})
                assert response.status_code == 200, response.text
    sent = [json.dumps(request.body) for request in emulator.state.requests_to(GENERATE)]
    assert all(png in body for body in sent)
    assert "Owls." in sent[-1]


@pytest.mark.parametrize(
    ("path", "block"),
    [
        (
            CHAT,
            {
                "type": "file",
                "file": {"filename": "notes.txt", "file_data": "data:text/plain;base64,$"},
            },
        ),
        (
            RESPONSES,
            {
                "type": "input_file",
                "filename": "notes.txt",
                "file_data": "data:text/plain;base64,$",
            },
        ),
        (
            MESSAGES,
            {
                "type": "document",
                "title": "notes.txt",
                "source": {"type": "base64", "media_type": "text/plain", "data": "$"},
            },
        ),
    ],
)
async def test_a_document_reaches_the_model_as_text(
    path: str, block: Json, emulator: RunningEmulator
) -> None:
    encoded = base64.b64encode("Owls — at night.".encode()).decode()
    content = json.loads(
        json.dumps(block).replace("$", encoded).replace("data:;", "data:text/plain;")
    )
    name = "input" if path == RESPONSES else "messages"
    turns = [{"role": "user", "content": [content]}]
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(path, json={"model": "auto", name: turns})
    assert response.status_code == 200, response.text
    [sent] = emulator.state.requests_to(GENERATE)
    assert "Owls — at night." in json.dumps(sent.body, ensure_ascii=False)
    assert "notes.txt" in json.dumps(sent.body)


async def test_models_are_listed_in_the_shape_of_who_asks(emulator: RunningEmulator) -> None:
    anthropic = {"anthropic-version": "2023-06-01"}
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            listed = (await client.get("/v1/models")).json()
            theirs = (await client.get("/v1/models", headers=anthropic)).json()
            one = (await client.get("/v1/models/claude-sonnet-4-5-20250929")).json()
            other = await client.get("/v1/models/gpt-9", headers=anthropic)
    ids = [model["id"] for model in listed["data"]]
    assert listed["object"] == "list"
    assert [model["id"] for model in theirs["data"]] == ids
    assert (theirs["first_id"], theirs["last_id"]) == (ids[0], ids[-1])
    assert one == next(model for model in listed["data"] if model["id"] == "claude-sonnet-4.5")
    assert other.status_code == 404
    assert message_of(MESSAGES, other.json()).startswith("model_unavailable")


async def test_tokens_are_counted_without_asking(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            path = f"{MESSAGES}/count_tokens"
            few = (await client.post(path, json=question(MESSAGES, "hello"))).json()
            many = (await client.post(path, json=question(MESSAGES, "hello " * 1000))).json()
    assert 0 < few["input_tokens"] < many["input_tokens"]
    assert emulator.state.prompts == 0


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_the_token_of_the_server_is_asked_for(header: str, emulator: RunningEmulator) -> None:
    token = "a-token-of-this-server"
    value = f"Bearer {token}" if header == "authorization" else token
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator, token=token) as client:
            without = await client.post(CHAT, json=question(CHAT, "hello"))
            response = await client.post(
                CHAT, json=question(CHAT, "hello"), headers={header: value}
            )
    assert (without.status_code, response.status_code) == (401, 200)


async def test_an_own_key_asks_for_its_owner(emulator: RunningEmulator) -> None:
    key = "ksk_someone_elses_key_0001"
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post(
                CHAT, json=question(CHAT, "hello"), headers={"X-Kiro-Api-Key": key}
            )
    assert response.status_code == 401
    assert "auth" in message_of(CHAT, response.json())
    assert key not in response.text


async def test_an_unknown_path_says_which_there_are(emulator: RunningEmulator) -> None:
    with fail_after(TEST_SECONDS):
        async with serving_api(emulator) as client:
            response = await client.post("/v1/completions", json={})
    assert response.status_code == 404
    assert "/v1/chat/completions" in message_of(CHAT, response.json())
