"""The engine against the emulator: real HTTP, real frames, faults included."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from anyio import fail_after

from kiro_mcp.chat import AccessToken, ChatRequest, Message, Reply, TextDelta, TextPart, ToolSpec
from kiro_mcp.client.client import KiroClient
from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    EMULATOR_PROFILE_ARN,
    EmulatorState,
    Pause,
    RunningEmulator,
    Send,
    frames,
    running,
)
from kiro_mcp.errors import AnswerBroken, KiroError, ServiceUnavailable, SignInRequired
from kiro_mcp.settings import Settings
from tests.client.driving import driven
from tests.support.stdio import PROMPTLY_SECONDS

KEY = AccessToken(value=EMULATOR_API_KEY, token_type="API_KEY", is_explicit=True)


class FixedToken:
    """A token source that has one token."""

    def __init__(self, token: AccessToken) -> None:
        self._token = token

    async def access_token(self) -> AccessToken:
        return self._token


def prompt(text: str) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", parts=(TextPart(text=text),)),),
        conversation_id="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
    )


@asynccontextmanager
async def client_of(
    emulator: RunningEmulator, token: AccessToken = KEY, **environ: str
) -> AsyncGenerator[KiroClient]:
    settings = Settings.load({"KIRO_MCP_ENDPOINT_URL": emulator.url, **environ})
    with fail_after(10):
        async with KiroClient(FixedToken(token), settings) as client:
            yield client


async def test_deltas_add_up_to_the_reply(emulator: RunningEmulator) -> None:
    """The deltas together are the answer."""
    async with client_of(emulator) as client, client.stream(prompt("Say hello")) as answer:
        texts = [delta.text async for delta in answer if isinstance(delta, TextDelta)]
    assert len(texts) > 1
    assert "".join(texts) == answer.reply.text
    assert answer.reply.stop_reason == "end_turn"


async def test_the_reply_is_not_there_before_the_end(emulator: RunningEmulator) -> None:
    """A partial answer must not look complete."""
    async with client_of(emulator) as client, client.stream(prompt("Say hello")) as answer:
        await anext(answer)
        with pytest.raises(RuntimeError, match="to its end"):
            _ = answer.reply


async def test_looking_at_an_answer_on_its_way_does_not_end_it(emulator: RunningEmulator) -> None:
    """A program may show the text and the cost after each delta."""
    cost = frames.event("meteringEvent", {"unit": "credit", "usage": 0.5})
    call = frames.tool_use("t1", "read", "{}")
    emulator.state.enqueue(
        (Send(frames.text("One ") + cost + frames.text("word.") + call + frames.ending()),)
    )
    async with client_of(emulator) as client, client.stream(prompt("x")) as answer:
        seen = [answer.so_far async for _ in answer]
    assert all("One word.".startswith(reply.text) for reply in seen)
    assert seen[0].truncated
    assert answer.so_far == answer.reply
    assert answer.reply.text == "One word."
    assert [use.state for use in answer.reply.tool_uses] == ["complete"]
    assert not answer.reply.truncated
    assert answer.reply.usage.credits == pytest.approx(0.5148)


@pytest.mark.parametrize("script", ["text", "tool_use", "reasoning", "thinking"])
async def test_an_answer_is_the_same_however_its_bytes_are_cut(script: str) -> None:
    """Networks cut anywhere."""
    replies: list[Reply] = []
    for chunk_bytes in (1, 2, 3, 7, 16, 61, 256, 4096, 1 << 20):
        state = EmulatorState(chunk_bytes=chunk_bytes)
        async with running(state) as emulator, client_of(emulator) as client:
            replies.append(await client.ask(prompt(f"/emulate {script}")))
    assert all(reply == replies[0] for reply in replies)
    assert replies[0].parts


async def test_an_api_key_goes_with_its_header_and_without_a_profile(
    emulator: RunningEmulator,
) -> None:
    """The service's rule for keys."""
    async with client_of(emulator) as client:
        await client.ask(prompt("hi"))
    seen = emulator.state.requests[-1]
    assert seen.headers["tokentype"] == "API_KEY"
    assert seen.headers["user-agent"].startswith("kiro-mcp/")
    assert "profileArn" not in json.dumps(seen.body)


async def test_each_request_has_an_id_of_its_own(emulator: RunningEmulator) -> None:
    """The service's SDKs: it tells repeated requests from new ones."""
    async with client_of(emulator) as client:
        await client.ask(prompt("hi"))
        await client.ask(prompt("hi"))
    first, second = (seen.headers["amz-sdk-invocation-id"] for seen in emulator.state.requests)
    assert first != second


async def test_origin_and_user_agent_can_be_set(emulator: RunningEmulator) -> None:
    """What the service takes differs by account, so it is a setting."""
    async with client_of(
        emulator, KIRO_MCP_ORIGIN="AI_EDITOR", KIRO_MCP_USER_AGENT="me/1"
    ) as client:
        await client.ask(prompt("hi"))
    seen = emulator.state.requests[-1]
    assert seen.headers["user-agent"] == "me/1"
    assert '"origin": "AI_EDITOR"' in json.dumps(seen.body)


@pytest.mark.parametrize("script", ["reset", "bad_crc", "exception"])
async def test_a_fault_in_the_middle_keeps_what_arrived(
    script: str, emulator: RunningEmulator
) -> None:
    """Frames before a fault are delivered."""
    async with client_of(emulator) as client:
        reply = await client.ask(prompt(f"/emulate {script}"))
    assert reply.text
    assert reply.truncated
    assert reply.truncation_reason
    assert reply.fault is not None


async def test_an_answer_that_does_not_begin_in_time_is_given_up(
    emulator: RunningEmulator,
) -> None:
    """And its connection is closed."""
    async with client_of(emulator, KIRO_MCP_FIRST_TOKEN_TIMEOUT="0.2") as client:
        with pytest.raises(ServiceUnavailable, match="in time") as caught:
            await client.ask(prompt("/emulate stall"))
    assert caught.value.code == "timeout"
    with fail_after(PROMPTLY_SECONDS):
        await emulator.state.until(lambda state: state.open_streams == 0)


async def test_the_part_that_arrived_of_an_answer_that_falls_silent_is_returned(
    emulator: RunningEmulator,
) -> None:
    """Partial answers are kept."""
    async with client_of(emulator, KIRO_MCP_STREAM_READ_TIMEOUT="0.2") as client:
        reply = await client.ask(prompt("/emulate slow 60"))
    assert reply.text
    assert reply.truncated
    assert "sent nothing" in reply.truncation_reason


async def test_an_empty_answer_is_an_error(emulator: RunningEmulator) -> None:
    """An empty answer must not count as an answer."""
    async with client_of(emulator) as client:
        with pytest.raises(AnswerBroken) as caught:
            await client.ask(prompt("/emulate empty"))
    assert caught.value.code == "empty_response"


async def test_leaving_the_stream_closes_the_connection(emulator: RunningEmulator) -> None:
    """An answer that nobody reads must not cost more."""
    async with client_of(emulator) as client:
        async with client.stream(prompt("/emulate slow 60")) as answer:
            await anext(answer)
            assert emulator.state.open_streams == 1
        with fail_after(PROMPTLY_SECONDS):
            await emulator.state.until(lambda state: state.open_streams == 0)


async def test_cancelling_closes_the_connection(emulator: RunningEmulator) -> None:
    async with client_of(emulator) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, prompt("/emulate stall"))
            await emulator.state.until(lambda state: state.open_streams == 1)
            tasks.cancel_scope.cancel()
        with fail_after(PROMPTLY_SECONDS):
            await emulator.state.until(lambda state: state.open_streams == 0)
        assert (await client.ask(prompt("hi"))).text


async def test_a_found_token_is_not_sent_to_an_overridden_host(emulator: RunningEmulator) -> None:
    """A credential stays with the service that it came from."""
    async with client_of(emulator, replace(KEY, is_explicit=False)) as client:
        with pytest.raises(SignInRequired, match="does not send"):
            await client.ask(prompt("hi"))
    assert not emulator.state.requests


async def test_a_model_that_the_service_refuses_is_an_error(emulator: RunningEmulator) -> None:
    """The emulator refuses what the service refuses."""
    async with client_of(emulator) as client:
        with pytest.raises(KiroError) as caught:
            await client.ask(replace(prompt("hi"), model="no-such-model"))
    assert caught.value.code == "model_unavailable"


async def test_the_profile_goes_into_the_header_of_the_list(emulator: RunningEmulator) -> None:
    """Observed: management operations take it there."""
    token = AccessToken(value="x", profile_arn=EMULATOR_PROFILE_ARN, is_explicit=True)
    async with client_of(emulator, token) as client:
        with pytest.raises(SignInRequired):
            await client.list_models()
    assert emulator.state.requests[-1].headers["x-amzn-kiro-profile-arn"] == EMULATOR_PROFILE_ARN


@pytest.mark.parametrize(
    ("endpoint", "path", "target", "origin"),
    [
        ("runtime", "/generateAssistantResponse", None, "KIRO_CLI"),
        ("kas", "/", "KiroRuntimeService.GenerateAssistantResponse", "AI_EDITOR"),
        ("q", "/generateAssistantResponse", None, "AI_EDITOR"),
        ("amazonq", "/", "AmazonQDeveloperStreamingService.SendMessage", "CLI"),
        (
            "codewhisperer",
            "/",
            "AmazonCodeWhispererStreamingService.GenerateAssistantResponse",
            "AI_EDITOR",
        ),
    ],
)
async def test_each_endpoint_gets_its_own_form_of_the_request(
    endpoint: str, path: str, target: str | None, origin: str, emulator: RunningEmulator
) -> None:
    """Observed: the service refuses values that do not agree; the emulator does, too."""
    async with client_of(emulator, KIRO_MCP_ENDPOINTS=endpoint) as client:
        assert (await client.ask(prompt("hi"))).text
    seen = emulator.state.requests[-1]
    body = json.dumps(seen.body)
    assert (seen.path, seen.headers.get("x-amz-target")) == (path, target)
    assert f'"origin": "{origin}"' in body
    assert ("x-amzn-kiro-agent-mode" in seen.headers) == (target is None)
    assert ("agentMode" in body) == (endpoint in ("kas", "codewhisperer"))


@pytest.mark.parametrize(
    ("endpoint", "content_type"),
    [
        ("runtime", "application/json"),
        ("kas", "application/x-amz-json-1.0"),
        ("q", "application/json"),
        ("amazonq", "application/x-amz-json-1.0"),
        ("codewhisperer", "application/x-amz-json-1.0"),
    ],
)
async def test_a_request_states_its_content_type_and_what_it_accepts(
    endpoint: str, content_type: str, emulator: RunningEmulator
) -> None:
    """The service's SDKs; frames come as they are made only where nothing is compressed."""
    async with client_of(emulator, KIRO_MCP_ENDPOINTS=endpoint) as client:
        await client.ask(prompt("hi"))
    seen = emulator.state.requests[-1].headers
    assert seen["authorization"] == f"Bearer {EMULATOR_API_KEY}"
    assert seen["content-type"] == content_type
    assert (seen["accept"], seen["accept-encoding"]) == ("*/*", "identity")
    assert seen["amz-sdk-request"] == "attempt=1; max=4"


async def test_the_endpoint_that_the_credential_prefers_is_tried_first(
    emulator: RunningEmulator,
) -> None:
    """A store of another program names the endpoint that it works with."""
    async with client_of(emulator, replace(KEY, preferred_endpoint=" CLI ")) as client:
        await client.ask(prompt("hi"))
    assert emulator.state.requests[-1].path == "/"


async def test_extra_headers_are_added_and_take_the_place_of_ours(
    emulator: RunningEmulator,
) -> None:
    """What the service takes differs by account."""
    extra = json.dumps({"X-Team": "blue", "user-agent": "me/2"})
    async with client_of(emulator, KIRO_MCP_EXTRA_HEADERS=extra) as client:
        await client.ask(prompt("hi"))
    seen = emulator.state.requests[-1]
    assert (seen.headers["x-team"], seen.headers["user-agent"]) == ("blue", "me/2")


async def test_an_answer_that_begins_with_thought_may_begin_later(
    emulator: RunningEmulator,
) -> None:
    """Observed: large models think for over a minute. The timeout is 1.5 times longer."""
    emulator.state.enqueue((Pause(0.6), Send(frames.text("x") + frames.ending())))
    async with client_of(
        emulator, KIRO_MCP_FIRST_TOKEN_TIMEOUT="0.5", KIRO_MCP_FIRST_TOKEN_MAX_RETRIES="0"
    ) as client:
        thinking = replace(prompt("hi"), model="claude-opus-4.6", effort="high")
        assert (await client.ask(thinking)).text == "x"


async def test_a_tool_use_comes_with_the_callers_name_of_the_tool(
    emulator: RunningEmulator,
) -> None:
    """Names that the service refuses are replaced when they are sent."""
    tool = ToolSpec(name="my.tool with spaces", description="x", input_schema={"type": "object"})
    async with client_of(emulator) as client:
        reply = await client.ask(replace(prompt("/emulate tool_use"), tools=(tool,)))
    assert [use.name for use in reply.tool_uses] == ["my.tool with spaces"]


@pytest.mark.parametrize(
    ("setting", "beginning"),
    [
        ("false", "Be brief."),
        ("true", "The current time is 2026-11-01T12:00:00+00:00.\n\nBe brief."),
    ],
)
async def test_the_model_is_told_the_time_only_if_the_setting_says_so(
    setting: str, beginning: str, emulator: RunningEmulator
) -> None:
    """It changes with every call, and the service caches nothing that comes after it."""
    request = replace(prompt("Say hello"), system="Be brief.")
    async with driven(emulator.url, KIRO_MCP_TELL_TIME=setting) as client:
        await client.ask(request)
        drafted = client.draft(request)
    [seen] = emulator.state.requests
    sent = json.dumps({"content": f"{beginning}\n\nSay hello"})[1:-1]
    assert sent in json.dumps(seen.body)
    assert sent in json.dumps(drafted.body)


class CountingToken:
    """A token source that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def access_token(self) -> AccessToken:
        self.asked += 1
        return KEY


async def test_a_token_that_the_caller_has_just_got_is_not_looked_up_again(
    emulator: RunningEmulator,
) -> None:
    """The server looks one up first, so that a call fails early if nobody is signed in."""
    tokens = CountingToken()
    async with driven(emulator.url, tokens, KIRO_MCP_MAX_CONCURRENCY="1") as client:
        async with client.stream(prompt("hi"), token=KEY) as answer:
            async for _ in answer:
                pass
        assert tokens.asked == 0
        await client.ask(prompt("hi"))
        assert tokens.asked == 1


async def test_a_token_is_looked_up_anew_after_a_wait_for_a_slot(emulator: RunningEmulator) -> None:
    """The token may end while the call waits."""
    tokens = CountingToken()

    async def ask(client: KiroClient) -> None:
        async with client.stream(prompt("hi"), token=KEY) as answer:
            async for _ in answer:
                pass

    async with (
        driven(emulator.url, tokens, KIRO_MCP_MAX_CONCURRENCY="1") as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(ask, client)
    assert tokens.asked == 2
