"""The vendor's newer form of the wire: what is sent in it, and when."""

from dataclasses import replace
from typing import Any, cast

import pytest

from kiro_mcp.chat import ChatRequest, Message, TextPart, ToolResult, ToolSpec, ToolUse
from kiro_mcp.client.client import NEWER_FORM_NOTE
from kiro_mcp.emulator import (
    EMULATOR_PROFILE_ARN,
    HttpAnswer,
    Refusal,
    RunningEmulator,
    Send,
    frames,
    refusals,
)
from kiro_mcp.errors import InvalidRequest, KiroError
from tests.client.driving import CONVERSATION_ID, LOGIN, Clock, FixedToken, driven, prompt, refusal
from tests.emulator.calls import AS_USER, RPC_CONTENT, body_of, connected
from tests.support.mcp import ask
from tests.support.mcp import connected as served

LOOK = ToolSpec(name="look", description="Looks.", input_schema={"type": "object"})
PROMPT = Message(role="user", parts=(TextPart(text="Look."),))
USE = Message(role="assistant", parts=(ToolUse(id="t1", name="look", arguments={}),))
RESULT = Message(role="user", parts=(ToolResult(id="t1", text="seen"),))
ANSWER = Message(role="assistant", parts=(TextPart(text="It is there."),))


def conversation(*messages: Message) -> ChatRequest:
    return ChatRequest(messages=messages, tools=(LOOK,), conversation_id=CONVERSATION_ID)


async def bodies_of(emulator: RunningEmulator, *requests: ChatRequest) -> list[dict[str, Any]]:
    """What the service receives for these requests."""
    async with driven(emulator.url, FixedToken(LOGIN), KIRO_MCP_ENDPOINTS="kas") as client:
        for request in requests:
            await client.ask(request)
    return [cast("dict[str, Any]", seen.body) for seen in emulator.state.requests]


async def test_a_conversation_is_one_session_and_each_prompt_one_continuation(
    emulator: RunningEmulator,
) -> None:
    """Captured: the requests that return results of tools repeat the continuation's id."""
    asked, returned, again = await bodies_of(
        emulator,
        conversation(PROMPT),
        conversation(PROMPT, USE, RESULT),
        conversation(PROMPT, USE, RESULT, ANSWER, PROMPT),
    )
    session = f"sess_{CONVERSATION_ID}"
    for body in (asked, returned, again):
        assert body["rootConversationId"] == body["conversationState"]["conversationId"] == session
    first, second, third = (
        body["conversationState"]["agentContinuationId"] for body in (asked, returned, again)
    )
    assert first == second != third


async def test_two_conversations_share_no_ids(emulator: RunningEmulator) -> None:
    other = replace(prompt(), conversation_id="7a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11")
    one, two = await bodies_of(emulator, prompt(), other)
    for name in ("conversationId", "agentContinuationId"):
        assert one["conversationState"][name] != two["conversationState"][name]


async def test_a_turn_that_has_only_tools_has_an_empty_text(emulator: RunningEmulator) -> None:
    """Captured; and what is empty is left out."""
    (body,) = await bodies_of(emulator, conversation(PROMPT, USE, RESULT))
    state = body["conversationState"]
    assert state["history"][1]["assistantResponseMessage"]["content"] == ""
    assert state["currentMessage"]["userInputMessage"]["content"] == ""
    assert (body["agentMode"], body["profileArn"]) == ("vibe", EMULATOR_PROFILE_ARN)
    assert body.keys() == {"agentMode", "conversationState", "profileArn", "rootConversationId"}


async def test_each_attempt_says_which_one_it_is(emulator: RunningEmulator) -> None:
    """Captured, beside the header of the vendor's SDK."""
    emulator.state.enqueue((refusal(500, "no"),), ())
    async with driven(emulator.url, KIRO_MCP_ENDPOINTS="kas") as client:
        await client.ask(prompt())
    headers = [seen.headers for seen in emulator.state.requests]
    assert [one["x-kiro-attempt"] for one in headers] == ["1;max=4", "2;max=4"]
    assert {one["x-amzn-kiro-client-attribution"] for one in headers} == {"unrecognized"}


async def test_the_list_of_models_has_all_parameters_in_its_body(emulator: RunningEmulator) -> None:
    """Captured."""
    async with driven(emulator.url, FixedToken(LOGIN), KIRO_MCP_ENDPOINTS="kas") as client:
        assert (await client.list_models()).models
    first, second = emulator.state.requests
    assert first.headers["x-amz-target"] == "KiroControlPlaneBearerService.ListAvailableModels"
    assert first.body == {"origin": "AI_EDITOR", "profileArn": EMULATOR_PROFILE_ARN}
    assert (first.query, second.query) == ({}, {})


@pytest.mark.parametrize("target", ["KiroRuntimeService.Nothing", "KiroControlPlane.ListModels"])
async def test_an_unknown_target_of_the_newer_form_is_refused_by_name(
    target: str, emulator: RunningEmulator
) -> None:
    """The protocol `awsJson1_0` has status 400 for it."""
    async with connected(emulator.url) as client:
        headers = {**AS_USER, **RPC_CONTENT, "X-Amz-Target": target}
        response = await client.post("/", json={}, headers=headers)
    assert response.status_code == 400
    refused = response.json()
    assert refused["__type"] == "com.amazon.kiro.runtimeservice#UnknownOperationException"
    assert target in refused["message"]


async def test_a_missing_member_of_the_newer_form_is_refused_by_name(
    emulator: RunningEmulator,
) -> None:
    """The emulator helps with a form that is not documented."""
    async with connected(emulator.url) as client:
        target = "KiroRuntimeService.GenerateAssistantResponse"
        headers = {**AS_USER, **RPC_CONTENT, "X-Amz-Target": target}
        response = await client.post("/", json=body_of(), headers=headers)
    assert response.status_code == 400
    assert "agentMode" in response.json()["message"]


# --- when the service no longer knows the older form ---------------------------------------------


def targets_of(emulator: RunningEmulator) -> list[str]:
    """The targets of the requests, "" for a path of the REST form."""
    return [seen.headers.get("x-amz-target", "") for seen in emulator.state.requests]


NEWER = "KiroRuntimeService.GenerateAssistantResponse"
NEWER_LIST = "KiroControlPlaneBearerService.ListAvailableModels"
UNKNOWN = refusals.UNKNOWN_OPERATION
GONE = {
    "unknown, 404": UNKNOWN,
    "unknown, 400": replace(UNKNOWN, status=400),
    "gone, 410": replace(UNKNOWN, status=410, message="This operation is no longer supported."),
    "not supported": Refusal(400, "ValidationException", "The operation is not supported."),
}


@pytest.mark.parametrize("answer", GONE.values(), ids=GONE)
async def test_a_call_goes_on_in_the_newer_form_if_the_service_no_longer_knows_the_older(
    answer: Refusal, emulator: RunningEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is repeated once and at once: the refused request cost nothing."""
    emulator.state.enqueue((answer,), ())
    clock = Clock()
    async with driven(emulator.url, clock=clock) as client:
        async with client.stream(prompt()) as first:
            assert [delta async for delta in first]
        assert targets_of(emulator) == ["", NEWER]
        assert clock.waits == []
        assert NEWER_FORM_NOTE in first.payload.warnings
        async with client.stream(prompt()) as second:
            assert [delta async for delta in second]
        assert targets_of(emulator) == ["", NEWER, NEWER]
        assert NEWER_FORM_NOTE not in second.payload.warnings
        assert client.notes == (NEWER_FORM_NOTE,)
    assert [one.message for one in caplog.records].count(NEWER_FORM_NOTE) == 1


async def test_a_client_reads_of_the_change_in_its_result_and_in_its_status(
    emulator: RunningEmulator,
) -> None:
    emulator.state.enqueue((UNKNOWN,), ())
    async with served(emulator) as client:
        assert NEWER_FORM_NOTE in (await ask(client, prompt="hi"))["warnings"]
        assert "warnings" not in await ask(client, prompt="hi")
        status = await client.call_tool("login", {"action": "status"})
        assert NEWER_FORM_NOTE in status.structured_content["warnings"]


async def test_the_list_of_models_goes_on_in_the_newer_form_by_itself(
    emulator: RunningEmulator,
) -> None:
    """The two hosts may change at different times."""
    emulator.state.enqueue((UNKNOWN,), operation="ListAvailableModels")
    async with driven(emulator.url) as client:
        assert len((await client.list_models()).models) == len(emulator.state.catalogue)
        older, *newer = targets_of(emulator)
        assert older == "AmazonCodeWhispererService.ListAvailableModels"
        assert newer == [NEWER_LIST, NEWER_LIST]
        await client.ask(prompt())
    assert targets_of(emulator)[-1] == "", "prompts are not concerned"


@pytest.mark.parametrize("status", [404, 410])
async def test_a_page_of_a_host_that_the_user_set_says_nothing_about_the_service(
    status: int, emulator: RunningEmulator
) -> None:
    """A wrong path in the setting, or a proxy at its address."""
    emulator.state.enqueue((HttpAnswer(status=status, body=b"<html>Not found</html>"),))
    async with driven(emulator.url) as client:
        with pytest.raises(InvalidRequest, match="KIRO_MCP_ENDPOINT_URL"):
            await client.ask(prompt())
        assert client.notes == ()
    assert targets_of(emulator) == [""]


async def test_a_resource_that_is_not_found_is_no_unknown_operation(
    emulator: RunningEmulator,
) -> None:
    """Another meaning of the same status."""
    missing = Refusal(404, "ResourceNotFoundException", "The profile does not exist.")
    emulator.state.enqueue((missing,))
    async with driven(emulator.url) as client:
        with pytest.raises(InvalidRequest, match="profile does not exist"):
            await client.ask(prompt())
    assert targets_of(emulator) == [""]


async def test_a_service_that_knows_neither_form_is_asked_once_in_each(
    emulator: RunningEmulator,
) -> None:
    emulator.state.enqueue(*[(UNKNOWN,)] * 5)
    async with driven(emulator.url) as client:
        with pytest.raises(InvalidRequest, match="Update kiro-mcp"):
            await client.ask(prompt())
        assert client.notes == ()
    assert targets_of(emulator) == ["", NEWER]


async def test_only_an_answer_proves_that_the_newer_form_works(emulator: RunningEmulator) -> None:
    emulator.state.enqueue((UNKNOWN,), (refusal(403, "no"),), ())
    async with driven(emulator.url) as client:
        with pytest.raises(KiroError):
            await client.ask(prompt())
        await client.ask(prompt())
    assert targets_of(emulator) == ["", NEWER, ""]


async def test_the_newer_form_takes_the_place_of_the_older_among_the_endpoints(
    emulator: RunningEmulator,
) -> None:
    """An overload moves on as before, and to no endpoint twice."""
    busy = (refusal(429, "Too many requests"),)
    emulator.state.enqueue((UNKNOWN,), busy, busy, ())
    clock = Clock()
    order = "runtime,kas,amazonq"
    async with driven(emulator.url, clock=clock, KIRO_MCP_ENDPOINTS=order) as client:
        await client.ask(prompt())
    other = "AmazonQDeveloperStreamingService.SendMessage"
    assert targets_of(emulator) == ["", NEWER, other, NEWER]
    assert clock.waits == [5.0]


@pytest.mark.parametrize("endpoint", ["kas", "q"])
async def test_an_endpoint_that_the_user_chose_is_not_left_for_the_newer_form(
    endpoint: str, emulator: RunningEmulator
) -> None:
    """The setting decides; only the default changes by itself."""
    emulator.state.enqueue((UNKNOWN,), ())
    async with driven(emulator.url, KIRO_MCP_ENDPOINTS=endpoint) as client:
        with pytest.raises(InvalidRequest, match="does not know the operation"):
            await client.ask(prompt())
    assert len(emulator.state.requests) == 1


async def test_an_answer_that_has_begun_is_never_asked_for_again(emulator: RunningEmulator) -> None:
    """It is paid for."""
    error = frames.exception("Unknown.", "", exception_type="UnknownOperationException")
    emulator.state.enqueue((Send(frames.text("One ") + error),), (Send(error),))
    async with driven(emulator.url) as client:
        assert (await client.ask(prompt())).text == "One "
        with pytest.raises(KiroError):
            await client.ask(prompt())
    assert targets_of(emulator) == ["", ""]
