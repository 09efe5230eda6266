"""The vendor's newer form of the wire: what is sent in it."""

from dataclasses import replace
from typing import Any, cast

import pytest

from kiro_mcp.chat import ChatRequest, Message, TextPart, ToolResult, ToolSpec, ToolUse
from kiro_mcp.emulator import EMULATOR_PROFILE_ARN, RunningEmulator
from tests.client.driving import CONVERSATION_ID, LOGIN, FixedToken, driven, prompt, refusal
from tests.emulator.calls import AS_USER, RPC_CONTENT, body_of, connected

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
