"""Arguments as models and clients write them, and the schemas that models' APIs accept."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.emulator import RunningEmulator
from kiro_mcp.server.tools import declarations
from tests.support.mcp import ask, code, connected, sent, words

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL: dict[str, Any] = {"name": "read", "description": "Read.", "inputSchema": SCHEMA}
TURN = {"role": "user", "content": "hello"}
FENCED = f"```json\n{json.dumps([TURN])}\n```"
ARGUMENTS = {tool.name: sorted(tool.input_schema["properties"]) for tool in declarations()}


def message(emulator: RunningEmulator) -> dict[str, Any]:
    """Return the last user's message of the last request."""
    state = sent(emulator)["conversationState"]
    return cast("dict[str, Any]", state["currentMessage"]["userInputMessage"])


# --- published schemas --------------------------------------------------------------------


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it."""
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from nodes(inner)
    if "items" in schema:
        yield from nodes(schema["items"])


ANNOTATIONS = {"description", "type", "properties", "items", "enum", "additionalProperties"}

VENDOR_RULES: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("Gemini refuses an empty text in enum", lambda n: all(n.get("enum", ["x"]))),
    (
        "Gemini takes only texts in enum",
        lambda n: all(isinstance(x, str) for x in n.get("enum", [])),
    ),
    (
        "Gemini refuses an enum of anything but text",
        lambda n: "enum" not in n or n["type"] == "string",
    ),
    ("Gemini refuses a list of types", lambda n: isinstance(n["type"], str)),
    ("Gemini CLI skips a tool with a node that has no type", lambda n: bool(n.get("type"))),
    (
        "Gemini refuses an object without properties",
        lambda n: n["type"] != "object" or bool(n["properties"]),
    ),
    (
        "Gemini refuses properties of what is not an object",
        lambda n: n["type"] == "object" or "properties" not in n,
    ),
    ("Gemini refuses an array without items", lambda n: n["type"] != "array" or "items" in n),
    (
        "Gemini and Anthropic limit the names of properties",
        lambda n: all(
            re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", name) for name in n.get("properties", {})
        ),
    ),
    ("OpenAI refuses default in strict mode on Azure", lambda n: "default" not in n),
    (
        "OpenAI refuses true in additionalProperties",
        lambda n: n.get("additionalProperties", False) is False,
    ),
    (
        "OpenAI refuses object schemas without properties",
        lambda n: n["type"] != "object" or "properties" in n,
    ),
    (
        "Anthropic refuses bounds of numbers, texts and lists in strict mode",
        lambda n: (
            not {
                "minimum",
                "maximum",
                "multipleOf",
                "minLength",
                "maxLength",
                "minItems",
                "maxItems",
            }
            & n.keys()
        ),
    ),
    (
        "Anthropic refuses combinators at the root",
        lambda n: not {"anyOf", "oneOf", "allOf", "not"} & n.keys(),
    ),
    ("no vendor documents any other keyword for all models", lambda n: n.keys() <= ANNOTATIONS),
]


@pytest.mark.parametrize(("rule", "is_kept"), VENDOR_RULES, ids=[rule for rule, _ in VENDOR_RULES])
def test_each_input_schema_keeps_the_rules_of_the_models_apis(
    rule: str, is_kept: Callable[[dict[str, Any]], bool]
) -> None:
    """One schema that an API refuses makes every request of the client's session fail."""
    for tool in declarations():
        assert all(map(is_kept, nodes(tool.input_schema))), f"{tool.name}: {rule}"


def test_the_root_of_each_input_schema_is_closed_and_only_the_root() -> None:
    """OpenAI's strict mode wants it closed; several clients strip it for Gemini there only."""
    for tool in declarations():
        closed = [node for node in nodes(tool.input_schema) if "additionalProperties" in node]
        assert closed == [tool.input_schema]


# --- reading ------------------------------------------------------------------------------

TURN_ROWS: list[object] = [
    [TURN],
    TURN,
    json.dumps([TURN]),
    json.dumps(TURN),
    json.dumps(json.dumps([TURN])),
    FENCED,
    [json.dumps(TURN)],
    {"messages": [TURN]},
    {"item": [TURN]},
    json.dumps({"messages": [TURN]}),
    [TURN, None, ""],
]


async def test_a_list_of_objects_is_read_in_each_form_that_models_write(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        for row in TURN_ROWS:
            await ask(client, messages=row)
            assert message(emulator)["content"] == "hello", row
        for row in (TOOL, [TOOL], json.dumps(TOOL), json.dumps([TOOL]), {"tools": [TOOL]}):
            await ask(client, prompt="x", tools=row)
            (tool,) = message(emulator)["userInputMessageContext"]["tools"]
            assert tool["toolSpecification"]["name"] == "read", row
            assert "path" in str(tool["toolSpecification"]["inputSchema"]), row
        as_text = {**TOOL, "inputSchema": json.dumps(SCHEMA)}
        await ask(client, prompt="x", tools=[as_text])
        assert "'path'" in str(message(emulator)["userInputMessageContext"]["tools"])


@pytest.mark.parametrize("empty", ["", " ", None, [], {}, [{}], [""], [None], "[]", "{}", "null"])
async def test_an_empty_value_means_that_an_argument_is_not_given(
    empty: object, emulator: RunningEmulator
) -> None:
    lists = ["messages", "tools", "tool_results", "images", "files", "output_schema"]
    texts = ["system", "model", "effort", "conversation_id", "from_turn", "max_tokens"]
    names = lists if empty in ("[]", "{}", "null") else [*lists, *texts, "answer_id", "dry_run"]
    arguments = dict.fromkeys(names, empty)
    async with connected(emulator) as client:
        answer = await ask(client, prompt="hello", **arguments)
    assert message(emulator)["content"] == "hello"
    assert not answer.get("repairs")
    assert not answer.get("warnings")


@pytest.mark.parametrize("empty", ["", None, [], {}])
async def test_login_without_an_action_says_who_is_signed_in(
    empty: object, emulator: RunningEmulator
) -> None:
    """Some clients send every argument."""
    async with connected(emulator) as client:
        result = await client.call_tool("login", {"action": empty, "method": "", "region": ""})
    assert result.structured_content["state"] == "signed_in"


async def test_a_schema_is_read_in_each_form_that_models_write(emulator: RunningEmulator) -> None:
    async with connected(emulator) as client:
        for row in (SCHEMA, json.dumps(SCHEMA), [SCHEMA], f"```\n{json.dumps(SCHEMA)}\n```"):
            await ask(client, prompt='/emulate text {"path": "a"}', output_schema=row)
            assert json.dumps(SCHEMA, separators=(",", ":")) in message(emulator)["content"], row


async def test_numbers_flags_and_words_are_read_in_each_form_that_models_write(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        for prompt, text in ((5, "5"), (2.5, "2.5"), (True, "true"), (False, "false")):
            await ask(client, prompt=prompt)
            assert message(emulator)["content"] == text
        before = emulator.state.prompts
        for flag in (True, "true", "True", "yes", 1, "1"):
            assert (await ask(client, prompt="x", dry_run=flag))["status"] == "dry_run", flag
        assert emulator.state.prompts == before
        for flag in (False, "false", "FALSE", "no", 0, "0"):
            assert (await ask(client, prompt="x", dry_run=flag))["status"] == "completed", flag
        for number in (64, "64", 64.0, "64.0", " 64 "):
            answer = await ask(client, prompt="x", max_tokens=number, wait_seconds="50")
            assert answer["status"] == "completed", number
        for refresh in ("true", 1, "yes"):
            listed = await client.call_tool("list_models", {"refresh": refresh})
            assert listed.structured_content["source"] == "live"
        for action in ("status", "Status", " STATUS "):
            state = await client.call_tool("login", {"action": action, "method": "Builder ID"})
            assert state.structured_content["state"] == "signed_in"


async def test_efforts_are_read_in_each_case_and_by_other_apis_names(
    emulator: RunningEmulator,
) -> None:
    """The nearest effort that the model offers is sent, which is low for minimal."""
    async with connected(emulator) as client:
        for word, effort in (("High", "high"), (" MAX ", "max"), ("minimal", "low")):
            await ask(client, prompt="x", effort=word, model="claude-opus-4.8")
            assert f'"effort": "{effort}"' in json.dumps(sent(emulator)), word
        await ask(client, prompt="x", effort="None", model="claude-opus-4.8")
        off = sent(emulator)
        await ask(client, prompt="x", effort="off", model="claude-opus-4.8")
        assert off.get("additionalModelRequestFields") == sent(emulator).get(
            "additionalModelRequestFields"
        )


IMAGES: list[object] = [
    f"data:image/png;base64,{PNG}",
    PNG,
    f"{PNG[:40]}\n{PNG[40:]}",
    [PNG],
    {"type": "image", "data": PNG, "mimeType": "image/png"},
    {"data": PNG, "mimeType": "image/png"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    {"url": f"data:image/png;base64,{PNG}"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    json.dumps({"type": "image", "data": PNG, "mimeType": "image/png"}),
    json.dumps([{"type": "image", "data": PNG, "mimeType": "image/png"}]),
    [json.dumps({"type": "image", "data": PNG, "mimeType": "image/png"})],
]


async def test_an_image_is_read_in_each_form_that_clients_have_it(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        for row in IMAGES:
            await ask(client, prompt="x", images=row)
            (image,) = message(emulator)["images"]
            assert image["format"] == "png", row
            assert b64decode(image["source"]["bytes"]) == b64decode(PNG), row


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "jpeg"),
        (b"GIF89a\1\0\1\0", "gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "webp"),
    ],
)
async def test_base64_is_known_by_the_first_bytes_of_the_image(
    head: bytes, kind: str, emulator: RunningEmulator
) -> None:
    """The base64 of a JPEG begins as an absolute path does: /9j/."""
    async with connected(emulator) as client:
        await ask(client, prompt="x", images=b64encode(head + bytes(20)).decode())
    (image,) = message(emulator)["images"]
    assert image["format"] == kind


LONG = "x" * 1_900_000

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("ask_claude", {"prompt": ["a"]}, "prompt must be text, and it is '[\"a\"]'"),
    ("ask_claude", {"prompt": {"text": LONG}}, "prompt must be text"),
    ("ask_claude", {"messages": "hello"}, "messages must be a list of JSON objects"),
    ("ask_claude", {"messages": '[{"role": "user"'}, "messages must be a list of JSON objects"),
    ("ask_claude", {"messages": [TURN, "hello"]}, "messages[1] must be a JSON object"),
    ("ask_claude", {"messages": [5]}, "messages[0] must be a JSON object, and it is '5'"),
    ("ask_claude", {"messages": LONG}, "messages must be a list of JSON objects"),
    ("ask_claude", {"tools": True}, "tools must be a list of JSON objects"),
    ("ask_claude", {"tools": ["read"]}, "tools[0] must be a JSON object"),
    ("ask_claude", {"output_schema": "a JSON object with a path"}, "output_schema must be a JSON"),
    ("ask_claude", {"output_schema": 5}, "output_schema must be a JSON object"),
    ("ask_claude", {"files": [{"path": "/a"}]}, "files[0] must be text"),
    ("ask_claude", {"images": [["a"]]}, "images[0] must be text or an image block"),
    ("ask_claude", {"images": {"type": "text", "text": "a"}}, "images[0] is not an image"),
    ("ask_claude", {"images": LONG}, "images[0] names a path that may not be read"),
    ("ask_claude", {"images": {"path": LONG}}, "images[0]"),
    ("ask_claude", {"max_tokens": "many"}, "max_tokens must be a number from 0"),
    ("ask_claude", {"max_tokens": 1.5}, "max_tokens must be a whole number"),
    ("ask_claude", {"max_tokens": -1}, "max_tokens must be a number from 0"),
    ("ask_claude", {"max_tokens": True}, "max_tokens must be a number from 0"),
    ("ask_claude", {"from_turn": 10**400}, "from_turn must be a number from 0"),
    ("ask_claude", {"dry_run": "perhaps"}, "dry_run must be true or false, and it is 'perhaps'"),
    ("ask_claude", {"effort": "gigantic"}, "'gigantic', and no model has such an effort"),
    ("ask_claude", {"tool_choice": 5}, "tool_choice must be auto, none, required or a tool's name"),
    ("ask_claude", {"tool_choice": {"type": "tool"}}, "tool_choice must be auto"),
    ("ask_claude", {"tool_choice": LONG}, "tool_choice must be auto"),
    ("ask_claude", {"model": LONG}, "model must be at most 2000 characters"),
    ("ask_claude", {"effort": LONG}, "effort must be at most 2000 characters"),
    ("ask_claude", {"conversation_id": LONG}, "conversation_id must be at most 2000 characters"),
    ("ask_claude", {"answer_id": LONG}, "answer_id must be at most 2000 characters"),
    ("login", {"start_url": LONG}, "start_url must be at most 2000 characters"),
    ("list_models", {"refresh": "soon"}, "refresh must be true or false"),
    ("login", {"action": "dance"}, "action must be one of status, start, logout"),
    ("login", {"action": 3}, "action must be one of status, start, logout"),
    ("login", {"method": LONG}, "method must be one of builder_id, idc, google, github"),
]


async def test_an_unreadable_value_is_an_error_with_the_form_and_the_start_of_the_value() -> None:
    async with connected() as client:
        for tool, arguments, says in REFUSED:
            given = arguments if tool != "ask_claude" else {"prompt": "x", **arguments}
            result = await client.call_tool(tool, given)
            assert code(result) == "invalid_request", arguments
            assert says in words(result), words(result)[:500]
            assert len(words(result)) < 500
            assert "pydantic" not in words(result)


# --- members that are not arguments --------------------------------------------------------

INJECTED = {
    "toolCallId": "call_1",
    "sessionId": "s",
    "chatInput": "hello",
    "wait_for_previous": False,
    "tool": "Kiro",
    "temperature": 1,
    "x" * 100_000: {"a": [1]},
}


async def test_members_that_clients_inject_are_ignored_by_every_tool(
    emulator: RunningEmulator,
) -> None:
    """Such as n8n, which adds them to every call, also to those of `login`."""
    async with connected(emulator) as client:
        for action in ("sendMessage", "loadPreviousSession"):
            injected = {**INJECTED, "action": action}
            answer = await ask(client, prompt="hello", **injected)
            assert message(emulator)["content"] == "hello"
            assert not answer.get("warnings")
            for tool in ("list_models", "login"):
                result = await client.call_tool(tool, injected)
                assert not result.is_error, words(result)
                assert not result.structured_content.get("warnings")


@pytest.mark.parametrize(
    ("tool", "name", "meant"),
    [
        ("ask_claude", "conversationId", "conversation_id"),
        ("ask_claude", "max_token", "max_tokens"),
        ("ask_claude", "Max-Tokens", "max_tokens"),
        ("ask_claude", "outputSchema", "output_schema"),
        ("ask_claude", "image", "images"),
        ("list_models", "refreshed", "refresh"),
        ("login", "startUrl", "start_url"),
    ],
)
async def test_a_near_miss_of_an_arguments_name_is_a_warning_with_the_real_name(
    tool: str, name: str, meant: str, emulator: RunningEmulator
) -> None:
    async with connected(emulator) as client:
        given = {"prompt": "x"} if tool == "ask_claude" else {}
        result = await client.call_tool(tool, {**given, name: "1"})
    assert not result.is_error, words(result)
    warning = f"The argument '{name}' was ignored. Did you mean {meant}?"
    assert result.structured_content["warnings"] == [warning]
    assert warning in words(result)


async def test_a_call_with_hundreds_of_unknown_arguments_is_refused() -> None:
    unknown = {f"unknown{number}": number for number in range(101)}
    async with connected() as client:
        for tool in ("ask_claude", "list_models", "login"):
            result = await client.call_tool(tool, unknown)
            assert code(result) == "invalid_request"
            assert "more than 100 arguments that it does not know" in words(result)
            assert all(name in words(result) for name in ARGUMENTS[tool])


async def test_a_call_with_more_messages_than_the_limit_is_refused() -> None:
    async with connected() as client:
        result = await client.call_tool("ask_claude", {"messages": [TURN] * 10_001})
    assert code(result) == "invalid_request"
    assert "messages has 10001 items, and 10000 is the limit" in words(result)


async def test_a_question_under_another_name_is_named_in_the_error() -> None:
    async with connected() as client:
        result = await client.call_tool("ask_claude", {"question": "Why?"})
    assert code(result) == "invalid_request"
    assert "'question' is not an argument" in words(result)
    assert "`prompt`" in words(result)


# --- answer_id beside a question ----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"prompt": "New?"}, "prompt"),
        ({"messages": [TURN]}, "messages"),
        ({"prompt": "New?", "messages": [TURN]}, "prompt and messages"),
        ({"tool_results": [{"id": "t", "content": "x"}]}, "tool_results"),
    ],
)
async def test_an_answer_id_beside_a_new_question_is_refused(
    arguments: dict[str, Any], names: str, emulator: RunningEmulator
) -> None:
    """The old answer would look like the answer to the new question."""
    async with connected(emulator) as client:
        first = await ask(client, prompt="Old?")
        answer_id = first.get("answer_id", "any")
        result = await client.call_tool("ask_claude", {**arguments, "answer_id": answer_id})
    assert code(result) == "invalid_request"
    assert f"leave out {names}. To ask, leave out answer_id." in words(result)
    assert emulator.state.prompts == 1


# --- tool_choice --------------------------------------------------------------------------

ASKS_FOR_READ = "you must use the tool read"


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("", ""),
        ("auto", ""),
        ({"type": "auto"}, ""),
        ("required", "at least one of your tools"),
        ("ANY", "at least one of your tools"),
        ({"type": "any"}, "at least one of your tools"),
        ("read", ASKS_FOR_READ),
        ({"type": "function", "function": {"name": "read"}}, ASKS_FOR_READ),
        ({"type": "function", "name": "read"}, ASKS_FOR_READ),
        ({"type": "tool", "name": "read"}, ASKS_FOR_READ),
        ('{"type": "tool", "name": "read"}', ASKS_FOR_READ),
        ('"required"', "at least one of your tools"),
    ],
    ids=str,
)
async def test_a_required_tool_call_is_requested_in_words(
    choice: object, says: str, emulator: RunningEmulator
) -> None:
    """The service has no member for it."""
    async with connected(emulator) as client:
        answer = await ask(client, prompt="/emulate tool_use", tools=[TOOL], tool_choice=choice)
    assert [call["name"] for call in answer["tool_calls"]] == ["read"]
    assert not answer.get("warnings")
    content = message(emulator)["content"]
    assert says in content
    assert ("you must" in content) == bool(says)
    assert "tools" in message(emulator)["userInputMessageContext"]


@pytest.mark.parametrize("choice", ["required", "read"])
async def test_an_answer_without_the_wanted_tool_call_gets_a_warning_and_no_second_request(
    choice: str, emulator: RunningEmulator
) -> None:
    async with connected(emulator) as client:
        answer = await ask(client, prompt="Say hello", tools=[TOOL], tool_choice=choice)
    (warning,) = answer["warnings"]
    assert f"tool_choice is '{choice}', and the answer has no such tool call" in warning
    assert emulator.state.prompts == 1


async def test_no_tools_are_sent_with_none_and_the_next_turn_has_them_again(
    emulator: RunningEmulator,
) -> None:
    async with connected(emulator) as client:
        first = await ask(client, prompt="/emulate tool_use", tools=[TOOL], tool_choice="required")
        results = [{"id": first["tool_calls"][0]["id"], "content": "It says hi."}]
        name = first["conversation_id"]
        await ask(client, conversation_id=name, tool_results=results, tool_choice="none")
        assert '"tools"' not in json.dumps(sent(emulator))
        assert "It says hi." in json.dumps(sent(emulator))
        assert "you must" not in json.dumps(sent(emulator))
        await ask(client, conversation_id=name, prompt="And now?")
        assert "read" in str(message(emulator)["userInputMessageContext"]["tools"])


@pytest.mark.parametrize(
    ("tools", "choice", "says"),
    [
        ([TOOL], "write", "tool_choice is 'write', and the tools are 'read'"),
        ([], "required", "tool_choice is 'required', and there are no tools"),
        ([], "read", "tool_choice is 'read', and there are no tools"),
    ],
)
async def test_a_choice_of_a_tool_that_does_not_exist_is_refused(
    tools: list[Any], choice: str, says: str
) -> None:
    async with connected() as client:
        arguments = {"prompt": "x", "tools": tools, "tool_choice": choice}
        result = await client.call_tool("ask_claude", arguments)
    assert code(result) == "invalid_request"
    assert says in words(result)


# --- everything else ----------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "name", "function", "data"]) | st.text(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
VALUES = JSON | JSON.map(json.dumps)
CALLS = st.sampled_from(["ask_claude", "ask_claude", "list_models"]).flatmap(
    lambda tool: st.tuples(
        st.just(tool),
        st.dictionaries(st.sampled_from(ARGUMENTS[tool]), VALUES, min_size=1, max_size=4),
    )
)


@given(CALLS)
@settings(max_examples=60)
async def test_no_value_of_any_argument_is_an_internal_error(
    call: tuple[str, dict[str, Any]],
) -> None:
    tool, arguments = call
    if tool == "ask_claude":
        arguments |= {"prompt": "x", "dry_run": True}
    async with connected() as client:
        assert_expected(await client.call_tool(tool, arguments), arguments)


def assert_expected(result: Any, arguments: object) -> None:
    """Check that a result is not an internal error and quotes little of the arguments."""
    if result.is_error:
        assert code(result) in {"invalid_request", "not_found", "auth_required"}, arguments
        assert len(words(result)) < 1500
