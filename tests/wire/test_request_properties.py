"""Whatever a caller hands over, what is sent is what the service takes.

The service is the emulator's own reading of its rules, written without a look at the builder.
"""

import copy
import json
import uuid
from base64 import b64encode
from dataclasses import replace
from typing import Any, TypeAlias, cast

from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from kiro_mcp.chat import (
    ChatRequest,
    Effort,
    ImagePart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
)
from kiro_mcp.emulator.catalogue import CATALOGUE
from kiro_mcp.emulator.frames import sign
from kiro_mcp.emulator.request import WireForm
from kiro_mcp.emulator.rules import read_call
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.wire.json_values import clean_text
from kiro_mcp.wire.messages import Chat, read_messages, read_tool_results
from kiro_mcp.wire.models import models_from_page
from kiro_mcp.wire.request import (
    Envelope,
    Payload,
    PayloadOptions,
    prepare,
    write_payload,
)
from kiro_mcp.wire.request import WireForm as Form
from kiro_mcp.wire.schema import sendable_schema
from kiro_mcp.wire.tools import read_tool_specs

CONVERSATION = "6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11"
ARN = "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE"
MODELS, _ = models_from_page({"models": [dict(model) for model in CATALOGUE]})
PNG = b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 12).decode()

FORMS: dict[Form, tuple[WireForm, str]] = {
    "rest": (WireForm.REST, "KIRO_CLI"),
    "rpc": (WireForm.RPC_GENERATE, "KIRO_CLI"),
    "kas": (WireForm.KAS, "AI_EDITOR"),
    "send_message": (WireForm.RPC_SEND, "CLI"),
}

moderate = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Strategy: TypeAlias = st.SearchStrategy[Any]


def signed_thinking(text: str) -> dict[str, Any]:
    """Reasoning as the service gave it: the signature is of what can be sent of the text."""
    sendable = clean_text(text)
    return {"type": "thinking", "thinking": sendable, "signature": sign(sendable)}


def record(optional: dict[str, Strategy] | None = None, /, **members: Strategy) -> Strategy:
    return st.fixed_dictionaries(members, optional=optional or {})


def block(kind: str, **members: Strategy) -> Strategy:
    return record(type=st.just(kind), **members)


# --- what strangers send ------------------------------------------------------------------

texts = st.one_of(
    st.sampled_from(["", " ", "hi", "grüß 🙂", "\0", "\ud83d", "a\udc00b", "x" * 70, "\u200d"]),
    st.text(st.characters(), max_size=12),
)
ids = st.sampled_from(
    ["a", "b", "toolu_1", "", "call.1/2", "x" * 65, "fc_ü", "use_1_0", "\ud800", "0"]
)
names = st.sampled_from(
    [
        "read",
        "read_log",
        "",
        "my.tool",
        "my/tool",
        "my_tool",
        "ünï",
        "9lives",
        "n" * 90,
        "\0a",
        "t_",
    ]
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.just(2**5000))
values: Strategy = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
references = st.sampled_from(
    ["#", "#/$defs/a", "#/definitions/a", "#/properties/a", "http://x/y", "#/$defs/b/items", "#a"]
)
kinds = st.sampled_from(
    ["object", "string", "array", "null", ["string", "null"], ["object", "null"], "any", 3, None]
)
nodes: Strategy = st.deferred(lambda: st.one_of(schemas, st.booleans(), scalars))
keys = ["a", "b", "$ref", "type", "$filter", "items[]", "会社ID", "", "k" * 65, "a.b-c"]
maps = st.dictionaries(st.sampled_from(keys), nodes, max_size=3)
patterns = st.sampled_from(["^a+$", "[", "(?<n>a)", "(?P<n>a)", r"\p{L}", "*", "a{2,1}", "^$"])
schemas: Strategy = record(
    {
        "type": kinds,
        "properties": st.one_of(maps, values),
        "required": st.one_of(st.lists(st.sampled_from([*keys, "zz", 3]), max_size=3), scalars),
        "$ref": st.one_of(references, values),
        "$defs": maps,
        "definitions": maps,
        "items": st.one_of(nodes, st.lists(nodes, max_size=2)),
        "anyOf": st.lists(nodes, max_size=3),
        "oneOf": st.one_of(st.lists(nodes, max_size=2), scalars),
        "allOf": st.lists(nodes, max_size=2),
        "additionalProperties": nodes,
        "enum": st.one_of(st.lists(values, max_size=2), scalars),
        "default": values,
        "not": nodes,
        "description": st.one_of(texts, st.none()),
        "exclusiveMinimum": scalars,
        "maxLength": scalars,
        "multipleOf": scalars,
        "pattern": patterns,
        "patternProperties": st.dictionaries(patterns, nodes, max_size=2),
        "propertyNames": nodes,
        "prefixItems": st.lists(nodes, max_size=2),
        "dependentRequired": st.one_of(
            st.dictionaries(st.sampled_from(keys), st.one_of(st.lists(texts), scalars), max_size=2),
            scalars,
        ),
        "minimum": scalars,
        "x-own": st.one_of(values, st.just({"$ref": "#/x"})),
    },
)


arguments = st.one_of(
    st.dictionaries(texts, values, max_size=3),
    values,
    st.sampled_from(['{"a": 1}', '{"a": 1,}', '{"a": "cut', "[1]", "", "nonsense", '{"a": null}']),
)
simple_blocks = st.one_of(
    texts,
    block("text", text=texts),
    block("image", source=st.just({"type": "base64", "media_type": "image/jpg", "data": PNG})),
    block("image", data=st.just(PNG), mimeType=st.just("image/png")),
    block("image_url", image_url=st.just({"url": f"data:image/png;base64,{PNG}"})),
    block("document", source=block("text", data=texts)),
    block("resource", resource=record(uri=texts, text=texts)),
    block("resource_link", uri=texts, name=texts),
    block("nobody knows", anything=values),
)
contents = st.one_of(texts, st.none(), values, st.lists(simple_blocks, max_size=3))
blocks = st.one_of(
    simple_blocks,
    texts.map(signed_thinking),
    block("thinking", thinking=texts, signature=st.just("")),
    block("redacted_thinking", data=st.just("cmVkYWN0ZWQ=")),
    block("tool_use", id=ids, name=names, input=arguments),
    block("tool_result", tool_use_id=ids, content=contents, is_error=st.booleans()),
    block("tool_result", toolUseId=ids, structuredContent=values),
)
roles = st.sampled_from(
    ["user", "user", "assistant", "assistant", "tool", "system", "developer", "function", "", None]
)
calls = st.lists(record(id=ids, function=record(name=names, arguments=arguments)), max_size=3)
messages = st.one_of(
    record(
        {
            "tool_calls": calls,
            "tool_call_id": ids,
            "name": names,
            "reasoning_content": texts,
            "stop_reason": st.one_of(st.sampled_from(["max_tokens", "end_turn"]), values),
            "type": values,
        },
        role=roles,
        content=st.one_of(texts, st.lists(blocks, max_size=4), values),
    ),
    block("function_call", call_id=ids, name=names, arguments=arguments),
    block("function_call_output", call_id=ids, output=contents),
    blocks,
    values,
)
own_names = names.filter(bool)
tools = st.one_of(
    record({"description": texts}, name=own_names, inputSchema=schemas),
    record(name=own_names, description=texts, input_schema=schemas.map(json.dumps)),
    block("function", function=record(name=own_names, parameters=schemas)),
    block("custom", name=own_names, description=texts, format=values),
    block("web_search", name=texts, filters=values),
)

images = st.just(ImagePart(format="png", data=PNG))
json_objects = st.dictionaries(texts, values, max_size=2)
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, text=texts),
    st.builds(ThinkingPart, text=texts, signature=st.just("")),
    st.sampled_from(["why", ""]).map(lambda text: ThinkingPart(text=text, signature=sign(text))),
    st.builds(
        ToolUse,
        id=ids,
        name=names,
        arguments=json_objects,
        state=st.sampled_from(["complete", "truncated", "invalid"]),
    ),
    st.builds(
        ToolResult,
        id=ids,
        text=texts,
        is_error=st.booleans(),
        data=st.one_of(st.none(), json_objects),
        images=st.lists(images, max_size=2).map(tuple),
    ),
    images,
)
turns = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["user", "assistant"]),
        parts=st.lists(parts, max_size=5).map(tuple),
        is_truncated=st.booleans(),
    ),
    max_size=8,
)

efforts: st.SearchStrategy[Effort] = st.sampled_from(
    ["", "off", "low", "medium", "high", "xhigh", "max"]
)
options = st.builds(
    PayloadOptions,
    description_max_bytes=st.sampled_from([3, 10_000]),
    max_payload_bytes=st.sampled_from([0, 0, 600, 2_000]),
    tells_of_truncation=st.booleans(),
)
conversations = st.lists(messages, max_size=10)
systems = st.one_of(texts, st.lists(blocks, max_size=2))


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    """A request as it comes of a stranger's JSON, or of a library user's own values."""
    conversation, system = draw(conversations), draw(systems)
    declared = draw(st.lists(tools, max_size=4))
    try:
        chat = read_messages(conversation, system=system)
        specs, _ = read_tool_specs(declared)
    except InvalidRequest:  # By chance it looks like an unknown role, or media not to be sent.
        reject()
    model = draw(st.sampled_from(MODELS))
    return ChatRequest(
        messages=draw(st.one_of(st.just(chat.messages), turns.map(tuple))),
        system=chat.system,
        tools=specs,
        model=model.id,
        model_info=model,
        conversation_id=draw(st.sampled_from([CONVERSATION, "", "my chat", "\ud800"])),
        effort=draw(efforts),
        max_tokens=draw(st.sampled_from([0, 1, 5_000, 10**9, -1])),
        writes_in_chunks=draw(st.booleans()),
        allows_tools=draw(st.booleans()),
    )


def refused(payload: object, form: Form) -> list[str]:
    _, faults = read_call(payload, form=FORMS[form][0])
    return [str(fault) for fault in faults]


def drafted(request: ChatRequest, form: Form, options: PayloadOptions) -> Payload | None:
    """Draft a payload; None for a request that says nothing, which alone has none."""
    conversation_id = str(uuid.UUID(int=1)) if form == "kas" else ""  # There must be one.
    envelope = Envelope(
        origin=FORMS[form][1], profile_arn=ARN, form=form, conversation_id=conversation_id
    )
    try:
        return write_payload(prepare(request, options), envelope)
    except InvalidRequest as error:
        refusal = error.message
    assert "Nothing was asked" in refusal
    assert not says_something(request)
    return None


def says_something(request: ChatRequest) -> bool:
    """Whether there is a message, and words or a tool in one or in the system prompt."""
    parts = [part for message in request.messages for part in message.parts]
    texts = [request.system, *(part.text for part in parts if isinstance(part, TextPart))]
    has_tools = any(isinstance(part, ToolUse | ToolResult) for part in parts)
    return bool(parts) and (has_tools or any(clean_text(text).strip() for text in texts))


forms = st.sampled_from(list(FORMS))


@moderate
@given(request=requests(), form=forms, options=options)
def test_the_service_takes_every_payload_without_findings(
    request: ChatRequest, form: Form, options: PayloadOptions
) -> None:
    """The emulator's rules are the judge. The same request gives the same bytes, for the cache."""
    before = copy.deepcopy(request)
    payload, again = drafted(request, form, options), drafted(request, form, options)
    assert repr(request) == repr(before)
    if payload is None or again is None:
        return
    assert payload.encoded == again.encoded
    beyond_repair = {"payload_size", "image_count", "images_unseen"}
    assert {finding.rule for finding in payload.findings} <= beyond_repair
    if not payload.findings:
        assert refused(json.loads(payload.encoded), form) == []


@moderate
@given(request=requests(), form=forms)
def test_all_text_and_images_are_sent_or_reported(request: ChatRequest, form: Form) -> None:
    """At another position, or with a repair that says so."""
    payload = drafted(request, form, PayloadOptions())
    if payload is None:
        return
    rules = {repair.rule for repair in payload.repairs}
    given = [part for message in request.messages for part in message.parts]
    results = [part for part in given if isinstance(part, ToolResult)]
    said = json.dumps(payload.body, ensure_ascii=False)
    assert all(as_sent(part.text) in said for part in given if isinstance(part, TextPart))
    assert all(as_sent(result.text) in said for result in results)
    if rules.isdisjoint({"repeated_tool_use", "old_image"}):
        pictures = sum(isinstance(part, ImagePart) for part in given)
        assert said.count(f'{{"bytes": "{PNG}"}}') == pictures + sum(
            len(result.images) for result in results
        )


def joined(objects: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return objects[0] | objects[1]


# Objects with every member that a reader looks for, and some that none does, in any nesting.
marked_keys = st.sampled_from(
    [
        *("text", "content", "value", "refusal", "message", "parts", "thinking", "reasoning"),
        *("source", "file", "resource", "data", "image_url", "url", "title", "name", "uri"),
        *("input", "arguments", "function", "custom", "tool_calls", "function_call", "action"),
        *("output", "results", "result", "error", "structuredContent", "isError", "stdout"),
        *("annotations", "summary", "body", "x.y", "description", "audio", "transcript"),
    ]
)
marked_kinds = st.sampled_from(
    [
        *("text", "output_text", "thinking", "reasoning", "document", "resource", "resource_link"),
        *("tool_use", "function_call", "custom_tool_call", "web_search_call", "mcp_call", "new"),
        *("tool_result", "web_fetch_tool_result", "function_call_output", "search_result"),
        *("web_fetch_result", "image", "input_audio", "summary_text", "", None),
    ]
)
MARK = "mark{}mark"
"""A text that says where it stood; the number is filled in when all are known."""
marked_values: Strategy = st.recursive(
    st.just(MARK),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(marked_keys, inner, min_size=1, max_size=3),
        st.tuples(
            st.fixed_dictionaries({"type": marked_kinds}),
            st.dictionaries(marked_keys, inner, max_size=4),
        ).map(joined),
    ),
    max_leaves=10,
)
marked_messages: Strategy = st.lists(
    st.tuples(
        st.fixed_dictionaries({}, optional={"role": roles}),
        st.dictionaries(
            st.one_of(st.just("content"), marked_keys), marked_values, min_size=1, max_size=3
        ),
    ).map(joined),
    min_size=1,
    max_size=4,
)


def numbered(value: object, path: tuple[str, ...], marks: dict[str, tuple[str, ...]]) -> Any:
    """Number the marks in a value, and keep the names of the members that lead to each."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {key: numbered(inner, (*path, key), marks) for key, inner in members.items()}
    if isinstance(value, list):
        return [numbered(item, path, marks) for item in cast("list[object]", value)]
    if value != MARK:
        return value
    mark = MARK.format(len(marks))
    marks[mark] = path
    return mark


@moderate
@given(given=marked_messages)
def test_unknown_content_is_sent_reported_or_refused(given: list[Any]) -> None:
    """Each text is sent, or a note names its member, or an error names its location."""
    marks: dict[str, tuple[str, ...]] = {}
    plain = numbered(given, (), marks)
    refusal = ""
    chat: Chat | None = None
    try:
        chat = read_messages(plain)
        payload = write_payload(
            prepare(ChatRequest(messages=chat.messages, system=chat.system)),
            Envelope(origin="KIRO_CLI", profile_arn=ARN),
        )
    except InvalidRequest as error:
        refusal = error.message
        payload = None
    if chat is None or payload is None:
        assert "messages[" in refusal or "Nothing was asked" in refusal
        return
    said = json.dumps(payload.body)
    repairs = (*chat.repairs, *payload.repairs)
    notes = " ".join(repair.detail for repair in repairs)
    # Reasoning has no place of its own: notes count it. A call's text that is not JSON is named
    # by its call.
    counted = {"unsigned_reasoning", "one_reasoning", "malformed_input"}
    if counted.isdisjoint(repair.rule for repair in repairs):
        lost = [mark for mark in marks if mark not in said]
        assert all(any(f".{key}" in notes for key in marks[mark]) for mark in lost)


def as_sent(text: str) -> str:
    """Return how a text shows in JSON; "" for one that says nothing."""
    sendable = clean_text(text)
    return json.dumps(sendable, ensure_ascii=False)[1:-1] if sendable.strip() else ""


@moderate
@given(request=requests())
def test_a_repaired_conversation_needs_no_repair(request: ChatRequest) -> None:
    """A history stays as it was sent."""
    options = PayloadOptions(tells_of_truncation=False)
    if not says_something(request):
        reject()
    once = prepare(request, options)
    again = prepare(
        replace(
            request,
            messages=once.turns,
            tools=once.tools.specs,
            conversation_id=once.conversation_id,
        ),
        options,
    )
    assert again.turns == once.turns
    assert again.tools.specs == once.tools.specs
    assert again.repairs == ()


@moderate
@given(request=requests())
def test_every_tool_name_that_is_sent_has_its_callers_name(request: ChatRequest) -> None:
    """The answer speaks of tools by the names that were sent."""
    if not says_something(request):
        reject()
    prepared = prepare(request)
    used = {
        part.name for turn in prepared.turns for part in turn.parts if isinstance(part, ToolUse)
    }
    sent = {spec.name for spec in prepared.tools.specs}
    assert used <= sent == prepared.tools.caller_names.keys()
    if request.allows_tools:
        callers = {clean_text(spec.name) for spec in request.tools}
        assert callers <= set(prepared.tools.caller_names.values())


@moderate
@given(schema=st.one_of(schemas, values))
def test_a_sent_schema_comes_back_unchanged(schema: object) -> None:
    """What is sent for a tool does not change when it comes back."""
    once, _, _ = sendable_schema(schema)
    assert sendable_schema(once)[0] == once


@moderate
@given(results=st.lists(st.one_of(record(id=ids, content=contents), values)))
def test_results_of_tools_are_never_refused(results: list[object]) -> None:
    """The caller cannot change what its tools answered."""
    assert len(read_tool_results(results)[0]) == len(results)
