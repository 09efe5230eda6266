"""The emulator's judgement of bodies: what the service was seen or is published to refuse."""

import json
from typing import Any

import pytest

from kiro_mcp.emulator.frames import sign
from kiro_mcp.emulator.request import WireForm
from kiro_mcp.emulator.rules import RULES, Fault, read_call
from tests.emulator.calls import PNG, Json, assistant, body_of, context, result, tool, use, user

KAS = WireForm.KAS
IMAGE: Json = {"format": "png", "source": {"bytes": PNG}}
DOCUMENT: Json = {"name": "Notes (v2)", "format": "md", "source": {"bytes": "Tm90ZXM="}}
FIELDS: Json = {
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "xhigh"},
    "max_tokens": 32_000,
}
OPUS = user(modelId="claude-opus-4.8")
REASONED = assistant(
    reasoningContent={"reasoningText": {"text": "Why?", "signature": sign("Why?")}}
)


def faults_of(body: Any, **conditions: Any) -> list[Fault]:
    _, faults = read_call(body, **conditions)
    return faults


def asking(**members: Any) -> Json:
    """A body whose current message has these members."""
    return body_of(user(**members))


def declaring(*tools: Json) -> Json:
    return asking(**context(tools=list(tools)))


def calling(
    *uses: Json, results: list[Json] | None = None, tools: list[Json] | None = None
) -> Json:
    """A conversation with tool uses in its history, answered in the current message."""
    answers = [result()] if results is None else results
    specs = [tool()] if tools is None else tools
    now = user(" ", **context(toolResults=answers, tools=specs))
    return body_of(now, user(), assistant(toolUses=list(uses)))


def in_state(**members: Any) -> Json:
    body = body_of()
    return {**body, "conversationState": {**body["conversationState"], **members}}


def without(name: str) -> Json:
    body = body_of()
    return {member: value for member, value in body.items() if member != name}


def schema(**members: Any) -> Json:
    return declaring(tool(inputSchema={"json": {"type": "object", **members}}))


TAKEN = {
    "one message": body_of(),
    "history": body_of("And now?", user(), assistant()),
    "tool round trip": calling(use()),
    "parallel tool uses": calling(use(), use("b"), results=[result("b"), result()]),
    "tool result as JSON": calling(
        use(), results=[{"toolUseId": "tooluse_1", "content": [{"json": {"ok": True}}]}]
    ),
    "undeclared isError": calling(use(), results=[{**result(), "isError": False}]),
    "longest tool name": declaring(tool("a" * 64)),
    "longest tool description": declaring(tool(description="ä" * 5_120)),
    "schema with combinators inside": schema(properties={"a": {"anyOf": [{"type": "string"}]}}),
    "schema with properties named like keywords": schema(
        properties={"items": {"type": "string"}, "properties": {}, "a.b-c_1": {}}
    ),
    "null as an item of an enum": schema(properties={"a": {"enum": ["x", None]}}),
    "ten images": body_of(user(images=[IMAGE] * 4), user(images=[IMAGE] * 6), assistant()),
    "document": asking(documents=[DOCUMENT]),
    "native fields": body_of(OPUS, additionalModelRequestFields=FIELDS),
    "signed reasoning": body_of("More.", user(), REASONED),
    "unsigned reasoning": body_of(
        "More.", user(), assistant(reasoningContent={"reasoningText": {"text": "Why?"}})
    ),
    "redacted reasoning": body_of(
        "More.", user(), assistant(reasoningContent={"redactedContent": "c2VjcmV0"})
    ),
    "optional state": in_state(
        agentContinuationId="0d6d1d53-8a39-4f7b-8b3c-0b8a52a6a7a4", agentTaskType="spectask"
    ),
    "history without an origin": body_of(
        "Go on.", {"userInputMessage": {"content": "Hi"}}, assistant()
    ),
    "cache point": asking(cachePoint={"type": "default"}),
}


@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN)
def test_a_valid_body_has_no_fault(body: Json) -> None:
    """The service's published request model."""
    assert [str(fault) for fault in faults_of(body)] == []


MALFORMED = "Improperly formed request."

REFUSED: dict[str, tuple[Json, str]] = {
    "unknown member": (body_of(inferenceConfig={"maxTokens": 1}), "$.inferenceConfig"),
    "agent mode in the REST body": (body_of(agentMode="vibe"), "$.agentMode"),
    "no conversation": (without("conversationState"), "$.conversationState:"),
    "a text for an array": (in_state(history="Hello"), "history: Input"),
    "a text for an object": (in_state(currentMessage="Hello"), "currentMessage: Input"),
    "a number for a text": (asking(content=1), "content: Input"),
    "current message of the assistant": (
        in_state(currentMessage=assistant()),
        "currentMessage.userInputMessage: Field",
    ),
    "two messages in one": (
        body_of("Now?", {**user(), **assistant()}, assistant()),
        "history[0]: must have exactly one",
    ),
    "a cache point among tools": (
        declaring(tool(), {"cachePoint": {"type": "default"}}),
        "tools[1].toolSpecification: Field",
    ),
    "an image in a tool result": (
        calling(use(), results=[{**result(), "content": [{"image": IMAGE}]}]),
        "content[0].image: Extra",
    ),
    "unknown status of a result": (
        calling(use(), results=[{**result(), "status": "ok"}]),
        "toolResults[0].status",
    ),
    "additional context without a name": (
        asking(**context(additionalContext=[{"name": "", "description": "x"}])),
        "additionalContext[0].name",
    ),
    "agent continuation id": (in_state(agentContinuationId="x"), "agentContinuationId"),
    "image that is no base64": (
        asking(images=[{"format": "png", "source": {"bytes": "%"}}]),
        "source.bytes: Only base64",
    ),
    "empty image": (
        asking(images=[{"format": "png", "source": {"bytes": ""}}]),
        "source.bytes: must not be empty",
    ),
    "trigger AUTO": (in_state(chatTriggerType="AUTO"), "chatTriggerType"),
    "unknown task type": (in_state(agentTaskType="chat"), "agentTaskType"),
    "unknown origin": (asking(origin="NONSENSE"), "origin: Input"),
    "another origin in the history": (
        body_of("Now?", user(origin="CLI"), assistant()),
        "origin_is_one",
    ),
    "assistant first": (body_of("Now?", assistant()), "history_is_whole"),
    "user last": (body_of("Now?", user()), "history_is_whole"),
    "two users in a row": (body_of("Now?", user(), user(), assistant()), "roles_alternate"),
    "two assistants in a row": (
        body_of("Now?", user(), assistant(), assistant()),
        "roles_alternate",
    ),
    "empty user message": (body_of(""), "contents_say_something: currentMessage"),
    "empty assistant message": (
        body_of("Now?", user(), assistant("")),
        "contents_say_something: history[1]",
    ),
    "tools in the history": (
        body_of("Now?", user(**context(tools=[tool()])), assistant()),
        "tools_are_current",
    ),
    "tool name of 65": (declaring(tool("a" * 65)), "toolSpecification.name"),
    "tool name with a dot": (declaring(tool("a.b")), "toolSpecification.name"),
    "tool name that starts with a digit": (declaring(tool("1a")), "toolSpecification.name"),
    "a tool declared twice": (declaring(tool(), tool()), "tool_names_are_unique"),
    "blank tool description": (declaring(tool(description=" ")), "toolSpecification.description"),
    "long tool description": (
        declaring(tool(description="ä" * 5_121)),
        "the description is too long",
    ),
    "schema without a type": (
        declaring(tool(inputSchema={"json": {"properties": {}}})),
        "inputSchema.json: the root",
    ),
    "schema of an array": (
        declaring(tool(inputSchema={"json": {"type": "array"}})),
        "inputSchema.json: the root",
    ),
    "schema that is true": (declaring(tool(inputSchema={"json": True})), "inputSchema.json: Input"),
    "anyOf at the root": (schema(anyOf=[]), "anyOf at the root"),
    "oneOf at the root": (schema(oneOf=[]), "oneOf at the root"),
    "allOf at the root": (schema(allOf=[]), "allOf at the root"),
    "properties as an array": (schema(properties=[]), "tool_schemas_are_valid"),
    "required as a text": (schema(required="path"), "tool_schemas_are_valid"),
    "a property with a dollar": (schema(properties={"$filter": {}}), "property_names_fit"),
    "a property with brackets, inside": (
        schema(properties={"a": {"items": {"properties": {"items[]": {}}}}}),
        "property_names_fit",
    ),
    "a long property": (schema(properties={"x" * 65: {}}), "property_names_fit"),
    "a negative length": (
        schema(properties={"a": {"maxLength": -1}}),
        "tool_schemas_are_valid",
    ),
    "a pattern that is not one": (
        schema(properties={"a": {"pattern": "["}}),
        "tool_schemas_are_valid",
    ),
    "a reference": (schema(properties={"a": {"$ref": "#/$defs/a"}}), "tool_schemas_stand_alone"),
    "history tool not declared": (calling(use(), tools=[]), "tool_uses_are_declared"),
    "one id for two tool uses": (calling(use(), use()), "tool_use_ids_are_unique"),
    "two results for one tool use": (
        calling(use(), results=[result(), result()]),
        "tool_use_ids_are_unique",
    ),
    "a tool use without its result": (calling(use(), use("b")), "tool_uses_are_answered"),
    "a result without its tool use": (
        calling(use(), results=[result(), result("b")]),
        "tool_results_are_asked_for",
    ),
    "a result at the very start": (
        asking(**context(toolResults=[result()])),
        "tool_results_are_asked_for",
    ),
    "eleven images": (asking(images=[IMAGE] * 11), "images_are_few"),
    "format jpg": (asking(images=[{**IMAGE, "format": "jpg"}]), "images[0].format"),
    "format of a document": (
        asking(documents=[{**DOCUMENT, "format": "rtf"}]),
        "documents[0].format",
    ),
    "name of a document": (
        asking(documents=[{**DOCUMENT, "name": "two  spaces"}]),
        "documents[0].name",
    ),
}


@pytest.mark.parametrize(("body", "fault"), REFUSED.values(), ids=REFUSED)
def test_a_fault_of_structure_is_refused_without_a_reason(body: Json, fault: str) -> None:
    """Observed: one message for every such fault, reason null."""
    first = faults_of(body)[0]
    assert fault in str(first)
    assert (first.refusal.status, first.refusal.message) == (400, MALFORMED)
    assert first.refusal.reason is None


NAMED: dict[str, tuple[Json, str, str, str]] = {
    "null": (
        in_state(workspaceId=None),
        "workspaceId is null",
        "REQUEST_BODY_INVALID",
        "$.conversationState.workspaceId is null.",
    ),
    "null deep in a schema": (
        schema(required=None),
        "required is null",
        "REQUEST_BODY_INVALID",
        "required is null.",
    ),
    "half a surrogate pair": (
        body_of("\ud83d"),
        "content has half",
        "REQUEST_BODY_INVALID",
        "not valid JSON",
    ),
    "half a surrogate pair in a name": (
        calling(use(input={"\udc00": 1})),
        "input has half",
        "REQUEST_BODY_INVALID",
        "not valid JSON",
    ),
    "tool use id with a dot": (
        calling(use("a.b"), results=[result("a.b")]),
        "toolUseId",
        "REQUEST_BODY_INVALID",
        "Invalid tool use format.",
    ),
    "tool use id of 65": (
        calling(use("a" * 65), results=[result("a" * 65)]),
        "toolUseId",
        "REQUEST_BODY_INVALID",
        "Invalid tool use format.",
    ),
    "input as a text": (
        calling(use(input='{"path": "ci.log"}')),
        "input: Input",
        "REQUEST_BODY_INVALID",
        "Invalid tool use format.",
    ),
    "flat reasoning": (
        body_of("More.", user(), assistant(reasoningContent="Why?")),
        "reasoningContent: Input",
        "REQUEST_BODY_INVALID",
        "reasoningContent",
    ),
    "changed reasoning": (
        body_of(
            "More.",
            user(),
            assistant(reasoningContent={"reasoningText": {"text": "x", "signature": sign("y")}}),
        ),
        "signatures_are_genuine",
        "THINKING_SIGNATURE_INVALID",
        "Invalid signature in thinking block",
    ),
    "conversation id": (
        in_state(conversationId="chat-1"),
        "conversationId: String",
        "INVALID_CONVERSATION_ID",
        "Invalid conversation id.",
    ),
    "unknown model": (
        asking(modelId="claude-nonsense-9"),
        "model_is_offered",
        "INVALID_MODEL_ID",
        "Invalid model",
    ),
    "fields for a model without a schema": (
        body_of(additionalModelRequestFields={}),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "is not supported by this model",
    ),
    "unknown field": (
        body_of(OPUS, additionalModelRequestFields={"temperature": 0}),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "'temperature' was unexpected",
    ),
    "too many tokens": (
        body_of(OPUS, additionalModelRequestFields={"max_tokens": 128_001}),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "maximum of 128000",
    ),
    "too few tokens": (
        body_of(OPUS, additionalModelRequestFields={"max_tokens": 1}),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "minimum of 1024",
    ),
    "tokens as true": (
        body_of(OPUS, additionalModelRequestFields={"max_tokens": True}),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "not of type",
    ),
    "thinking turned off where it cannot be": (
        body_of(
            user(modelId="claude-opus-5.5"),
            additionalModelRequestFields={"thinking": {"type": "disabled"}},
        ),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "is not one of",
    ),
    "thinking without its type": (
        body_of(OPUS, additionalModelRequestFields={"thinking": {"display": "omitted"}}),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "is a required property",
    ),
    "effort that the model lacks": (
        body_of(
            user(modelId="claude-sonnet-4.6"),
            additionalModelRequestFields={"output_config": {"effort": "xhigh"}},
        ),
        "model_fields_fit",
        "REQUEST_BODY_INVALID",
        "is not one of",
    ),
}


@pytest.mark.parametrize(("body", "fault", "reason", "message"), NAMED.values(), ids=NAMED)
def test_a_fault_that_the_service_names_carries_its_reason(
    body: Json, fault: str, reason: str, message: str
) -> None:
    """The service's published reasons, and the texts observed with them."""
    first = faults_of(body)[0]
    assert fault in str(first)
    assert (first.refusal.status, first.refusal.reason) == (400, reason)
    assert message in first.refusal.message


def test_an_image_above_ten_megabytes_is_refused() -> None:
    """The service's published limit, of the decoded bytes."""
    megabytes = 10 * 1024 * 1024
    bytes_over = "A" * (megabytes // 3 * 4) + "AAAA"
    largest = "A" * (megabytes // 3 * 4) + "AA=="
    image = {"format": "png", "source": {"bytes": bytes_over}}
    [fault] = faults_of(asking(images=[image]))
    assert "images[0].source.bytes: the image is too large" in str(fault)
    image = {"format": "png", "source": {"bytes": largest}}
    assert faults_of(asking(images=[image])) == []


def test_the_profile_is_required_of_everyone_but_api_keys() -> None:
    """Observed since 2026-05: 400 with this text and reason null."""
    first = faults_of(without("profileArn"))[0]
    assert first.refusal.message == "profileArn is required for this request."
    assert first.refusal.reason is None
    assert faults_of(without("profileArn"), requires_profile_arn=False) == []


@pytest.mark.parametrize(
    ("form", "origin", "is_taken"),
    [
        (WireForm.REST, "KIRO_CLI", True),
        (WireForm.REST, "AI_EDITOR", True),
        (WireForm.REST, "CLI", False),
        (WireForm.RPC_GENERATE, "KIRO_CLI", True),
        (WireForm.RPC_SEND, "CLI", True),
        (WireForm.RPC_SEND, "AI_EDITOR", False),
    ],
)
def test_each_form_takes_its_own_origins(form: WireForm, origin: str, is_taken: bool) -> None:
    """Observed: another origin is answered with 403."""
    faults = faults_of(asking(origin=origin), form=form)
    assert [fault.refusal.status for fault in faults] == ([] if is_taken else [403])


def test_a_message_without_an_origin_is_refused() -> None:
    """The service reads it as SERVICE_INTERNAL."""
    faults = faults_of(body_of({"userInputMessage": {"content": "Hello"}}))
    assert [fault.rule for fault in faults] == ["origin_is_taken"]


def test_the_agent_mode_is_a_member_of_the_rpc_body_only() -> None:
    """The REST form has it as a header; SendMessage does not have it."""
    body = body_of(agentMode="vibe")
    assert faults_of(body, form=WireForm.RPC_GENERATE) == []
    assert "agentMode" in str(faults_of(body, form=WireForm.RPC_SEND)[0])


def kas_body(current: Json | None = None, *history: Json, **members: Any) -> Json:
    """A body that the emulator takes in Kiro's own newer form."""
    body = body_of(current or user(origin="AI_EDITOR"), *history)
    session = f"sess_{body['conversationState']['conversationId']}"
    state = {
        **body["conversationState"],
        "conversationId": session,
        "agentContinuationId": "0d6d1d53-8a39-4f7b-8b3c-0b8a52a6a7a4",
    }
    whole = {**body, "agentMode": "vibe", "rootConversationId": session}
    return {**whole, "conversationState": state, **members}


def kas_state(**members: Any) -> Json:
    body = kas_body()
    return {**body, "conversationState": {**body["conversationState"], **members}}


def kas_user(content: str = "Hello", **members: Any) -> Json:
    return user(content, origin="AI_EDITOR", **members)


KAS_ROUND_TRIP = (kas_user(), assistant("", toolUses=[use()]))
KAS_TAKEN = {
    "one message": kas_body(),
    "a turn with only tool results": kas_body(
        kas_user("", **context(toolResults=[result()], tools=[tool()])), *KAS_ROUND_TRIP
    ),
}
KAS_REFUSED = {
    "no agent mode": ({**kas_body(), "agentMode": ""}, "$.agentMode"),
    "no root conversation": (
        {name: it for name, it in kas_body().items() if name != "rootConversationId"},
        "$.rootConversationId: Field required",
    ),
    "no continuation": (kas_state(agentContinuationId=""), "agentContinuationId: String"),
    "an id without sess_": (
        kas_state(conversationId="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11"),
        "is not `sess_` and a UUID",
    ),
    "the origin of the older form": (kas_body(user()), "'KIRO_CLI' is not accepted"),
    "envState": (kas_body(kas_user(**context(envState={"a": 1}))), "has envState"),
    "messageId": (kas_body(kas_user(), kas_user(), assistant(messageId="m")), "has messageId"),
    "an empty list": (kas_body(kas_user(images=[])), "an empty images"),
    "an empty history": (kas_state(history=[]), "an empty history"),
    "an empty text without tools": (kas_body(kas_user("")), "currentMessage.content is empty"),
}


@pytest.mark.parametrize("body", KAS_TAKEN.values(), ids=KAS_TAKEN)
def test_the_newer_form_is_taken_as_it_was_captured(body: Json) -> None:
    """Captures of the vendor's command line client 2.22 to 2.23.1."""
    assert [str(fault) for fault in faults_of(body, form=KAS)] == []
    assert faults_of(body), "it is not the older form"


@pytest.mark.parametrize(("body", "says"), KAS_REFUSED.values(), ids=KAS_REFUSED)
def test_a_deviation_from_the_newer_form_is_named(body: Json, says: str) -> None:
    assert says in str(faults_of(body, form=KAS)[0])


def test_every_rule_is_broken_by_some_test() -> None:
    """Each rule has a case."""
    broken = {fault for _, fault in REFUSED.values()} | {case[1] for case in NAMED.values()}
    broken |= {"origin_is_taken", "contents_say_something"}
    kas = {fault.rule for body, _ in KAS_REFUSED.values() for fault in faults_of(body, form=KAS)}
    assert {rule.__name__ for rule, _ in RULES} <= broken | kas


def test_a_body_of_any_shape_is_checked_without_an_exception() -> None:
    """The check never raises."""
    for raw in ("null", "1", '"text"', "[]", "{}", '{"conversationState": []}'):
        assert faults_of(json.loads(raw))
    assert faults_of(in_state(history=[[], None]))
