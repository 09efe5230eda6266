"""Every way in which a call can fail: the caller gets a code, the reason and the next step."""

import json
import re
from contextlib import suppress
from typing import Any, cast

import pytest
from mcp.shared.exceptions import MCPError

from kiro_mcp.emulator import (
    EMULATOR_API_KEY,
    Cut,
    HttpAnswer,
    Pause,
    RunningEmulator,
    Script,
    Send,
    frames,
    refusals,
)
from kiro_mcp.server.results import ERROR_META_KEY
from tests.support.mcp import ask, code, connected, sent, words

PROMPT = "the words of a private prompt"
QUICK = {"KIRO_MCP_FIRST_TOKEN_TIMEOUT": "0.2", "KIRO_MCP_FIRST_TOKEN_MAX_RETRIES": "0"}
NOWHERE = {"KIRO_MCP_ENDPOINT_URL": "http://127.0.0.1:1"}
TOOL = {"name": "read", "description": "Read.", "inputSchema": {"type": "object"}}


def status(number: int, **headers: str) -> Script:
    return (HttpAnswer(status=number, body=b"<html>teapot</html>", headers=headers),)


def stream(data: bytes) -> Script:
    return (Send(data), Cut())


FAILURES: dict[str, tuple[Script, dict[str, Any], dict[str, str], str]] = {
    "signed-out": ((), {}, {"KIRO_API_KEY": ""}, "auth_required"),
    "wrong-key": ((), {}, {"KIRO_API_KEY": "ksk_wrong_wrong_wrong"}, "auth_expired"),
    "bad-bearer": ((refusals.BAD_BEARER,), {}, {}, "auth_expired"),
    "401": (status(401), {}, {}, "auth_expired"),
    "403": (status(403), {}, {}, "forbidden"),
    "not-authorized": ((refusals.NOT_AUTHORIZED,), {}, {}, "forbidden"),
    "suspended": ((refusals.SUSPENDED,), {}, {}, "account_suspended"),
    "quota": ((refusals.QUOTA_EXHAUSTED,), {}, {}, "quota_exhausted"),
    "throttled": ((refusals.THROTTLED,), {}, {}, "rate_limited"),
    "busy": ((refusals.MODEL_BUSY,), {}, {}, "model_busy"),
    "500": (status(500), {}, {}, "upstream_error"),
    "503": (status(503), {}, {}, "upstream_error"),
    "silence": ((Send(b""), Pause(60)), {}, QUICK, "timeout"),
    "unreachable": ((), {}, NOWHERE, "network_error"),
    "unknown-model": ((), {"model": "gpt-9"}, {}, "model_unavailable"),
    "too-long": ((refusals.INPUT_TOO_LONG,), {}, {}, "context_too_long"),
    "413": (status(413), {}, {}, "context_too_long"),
    "improper": ((refusals.MALFORMED,), {}, {}, "invalid_request"),
    "no-image": ((), {"images": ["data:image/png;base64,AAAA"]}, {}, "invalid_request"),
    "no-image-path": ((), {"images": ["?"]}, {}, "invalid_request"),
    "no-file": ((), {"files": ["/etc/passwd"]}, {}, "invalid_request"),
    "no-such-tool": ((), {"tool_choice": "read"}, {}, "invalid_request"),
    "wrong-type": ((), {"max_tokens": "many"}, {}, "invalid_request"),
    "wrong-setting": ((), {}, {"KIRO_MCP_MAX_RETRIES": "some"}, "invalid_request"),
    "no-such-conversation": ((), {"conversation_id": "gone"}, {}, "not_found"),
    "no-such-answer": ((), {"answer_id": "gone"}, {}, "not_found"),
    "cut-at-once": (stream(b""), {}, {}, "stream_broken"),
    "garbage": (stream(b"HTTP/1.1 200 OK, says a proxy"), {}, {}, "stream_broken"),
    "bad-checksum": (stream(frames.with_bad_checksum(frames.text("x"))), {}, {}, "stream_broken"),
    "fault-in-stream": (stream(frames.exception("busy", "x")), {}, {}, "upstream_error"),
    "nothing": ((Send(frames.ending("END_TURN")),), {}, {}, "empty_response"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_says_what_happened_and_what_to_do_next_and_nothing_private(
    failure: str, emulator: RunningEmulator
) -> None:
    """A model or a person reads one line and can go on; a program reads the code."""
    script, arguments, environ, expected = FAILURES[failure]
    if script:
        emulator.state.enqueue(script)
    given = {"prompt": PROMPT, **arguments}
    if "answer_id" in arguments:
        del given["prompt"]
    async with connected(emulator, **environ) as client:
        result = await client.call_tool("ask_claude", given)
    assert code(result) == expected
    [block] = result.content
    assert "\n" not in words(result)
    assert re.fullmatch(r"[a-z_]+: \S.*?[.)] [A-Z`].*\.", words(result)), words(result)
    shown = block.model_dump_json() + json.dumps(result.meta)
    for private in (PROMPT, EMULATOR_API_KEY, "ksk_wrong", "Traceback", "pydantic", "teapot"):
        assert private not in shown


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("claude-opus-99", "'claude-opus-99' is not in the list of models"),
        ("sonet-5", "Did you mean claude-sonnet-5?"),
    ],
)
async def test_a_model_that_the_service_does_not_offer_is_named(
    model: str, says: str, emulator: RunningEmulator
) -> None:
    """The service says only `Invalid model`, and a slip of the pen is the likely cause."""
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "model": model})
    assert code(result) == "model_unavailable"
    assert says in words(result)


async def test_a_listed_model_that_is_refused_is_named_too(emulator: RunningEmulator) -> None:
    """Observed: plan, region and network decide what is offered."""
    emulator.state.enqueue((refusals.INVALID_MODEL,), (refusals.INVALID_MODEL,))
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x", "model": "claude-opus-4.8"})
    assert "The model is 'claude-opus-4.8'." in words(result)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0.5", 0.5), ("soon", None)])
async def test_how_long_to_wait_is_reported_if_the_service_says_it(
    header: str, seconds: float | None, emulator: RunningEmulator
) -> None:
    """RFC 9110, Retry-After; a program waits by the number, a model reads the words."""
    emulator.state.enqueue(status(429, **{"retry-after": header}))
    async with connected(emulator) as client:
        result = await client.call_tool("ask_claude", {"prompt": "x"})
    facts = cast("dict[str, Any]", (result.meta or {})[ERROR_META_KEY])
    assert facts.get("retry_after_seconds") == seconds
    assert (f"Wait for {seconds:g} seconds" if seconds else "Wait for a minute") in words(result)


async def test_an_answer_that_was_filtered_says_that_it_was_refused(
    emulator: RunningEmulator,
) -> None:
    """From the published model: a filter ends an answer. The call has not failed."""
    said = frames.text("I would rather not.") + frames.ending("CONTENT_FILTERED")
    emulator.state.enqueue((Send(said),))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="x")
    assert answer["stop_reason"] == "refusal"
    assert answer["text"] == "I would rather not."
    assert answer["warnings"] == ["The service refused to answer (CONTENT_FILTERED)."]
    assert "in other words" in answer["next_step"]


@pytest.mark.parametrize(
    ("recommended", "model", "named"),
    [
        ("", "claude-opus-5", "'claude-opus-4.8'"),
        ("claude-haiku-4.5", "claude-opus-5", "'claude-haiku-4.5'"),
        ("", "claude-haiku-4.5", None),
    ],
)
async def test_a_refusal_says_why_and_which_model_may_answer_and_is_not_sent_again(
    recommended: str, model: str, named: str | None, emulator: RunningEmulator
) -> None:
    """The catalogue names a model for what another one refuses; it is never asked unbidden."""
    async with connected(emulator) as client:
        given = {"prompt": f"/emulate refusal {recommended}", "model": model}
        result = await client.call_tool("ask_claude", given)
        refused = result.structured_content
        assert len(emulator.state.requests_to("GenerateAssistantResponse")) == 1
        again = await ask(client, prompt="Then?", conversation_id=refused["conversation_id"])
    assert (refused["stop_reason"], refused["text"]) == ("refusal", "")
    [why] = refused["warnings"]
    assert "(REASONING_EXTRACTION: The emulator refuses to answer this.)" in why
    assert (named in refused["next_step"]) if named else ("model" not in refused["next_step"])
    assert why in words(result)
    assert refused["next_step"] in words(result)
    assert (again["conversation_id"], again["turn"]) == (refused["conversation_id"], 2)
    assert "refusal" not in json.dumps(sent(emulator))
    assert "history" not in json.dumps(sent(emulator))


async def test_only_what_was_refused_is_left_out_of_a_conversation(
    emulator: RunningEmulator,
) -> None:
    """The turns around it go on being sent, and so does a history that came with it."""
    history = [
        {"role": "user", "content": "The oldest question."},
        {"role": "assistant", "content": "The oldest answer."},
        {"role": "user", "content": "/emulate refusal"},
    ]
    async with connected(emulator) as client:
        refused = await ask(client, messages=history)
        place = {"conversation_id": refused["conversation_id"]}
        assert refused["stop_reason"] == "refusal"
        assert (await ask(client, prompt="Another one.", **place))["stop_reason"] == "end_turn"
        assert (await ask(client, prompt="/emulate refusal", **place))["stop_reason"] == "refusal"
        last = await ask(client, prompt="The last one.", **place)
    body = json.dumps(sent(emulator))
    assert last["turn"] == 4
    assert all(said in body for said in ("oldest question", "oldest answer", "Another one."))
    assert "refusal" not in body


async def test_a_refusal_is_not_sent_to_be_repaired_where_data_is_asked_for(
    emulator: RunningEmulator,
) -> None:
    """Its text is not meant as data, and a second request would cost credits."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with connected(emulator) as client:
        answer = await ask(client, prompt="/emulate refusal", output_schema=schema)
    assert answer["stop_reason"] == "refusal"
    assert emulator.state.prompts == 1


@pytest.mark.parametrize(
    ("arguments", "state"),
    [('{"path": "a"}', "complete"), ("[1, 2]", "invalid"), ('{"path": "a', "truncated")],
)
async def test_a_call_whose_arguments_are_not_an_object_is_reported_with_what_came(
    arguments: str, state: str, emulator: RunningEmulator
) -> None:
    """It must not be lost, and must not look complete."""
    call = frames.tool_use("t1", "read", arguments) + frames.ending("TOOL_USE")
    emulator.state.enqueue((Send(call),))
    async with connected(emulator) as client:
        answer = await ask(client, prompt="x", tools=[TOOL])
    [told] = answer["tool_calls"]
    assert (told["id"], told["name"], told["state"]) == ("t1", "read", state)
    assert told["arguments"] == ({"path": "a"} if state == "complete" else {})
    assert told.get("raw", arguments) == arguments


LONG = "z" * 100_000
LONG_VALUES: dict[str, dict[str, Any]] = {
    "conversation_id": {"prompt": "x", "conversation_id": LONG},
    "answer_id": {"answer_id": LONG},
    "effort": {"prompt": "x", "effort": LONG},
    "max_tokens": {"prompt": "x", "max_tokens": LONG},
    "a role": {"messages": [{"role": LONG, "content": "x"}]},
    "an image": {"prompt": "x", "images": [LONG]},
    "an image's address": {"prompt": "x", "images": [f"http://{LONG}"]},
    "a file": {"prompt": "x", "files": [LONG]},
    "a model": {"prompt": "x", "model": LONG},
    "a type in a schema": {"prompt": "x", "output_schema": {"type": LONG}},
    "a reference in a schema": {"prompt": "x", "output_schema": {"$ref": f"#/{LONG}"}},
    "a tool": {"prompt": "x", "tools": [{"inputSchema": {"$ref": LONG}, "description": LONG}]},
}


async def test_an_error_quotes_at_most_80_characters_of_what_a_caller_sent(
    emulator: RunningEmulator,
) -> None:
    """It goes into a model's context, which is paid for."""
    async with connected(emulator) as client:
        for what, arguments in LONG_VALUES.items():
            result = await client.call_tool("ask_claude", arguments)
            assert result.is_error, what
            # A file's or an image's name can stand in it beside its value.
            assert words(result).count("z") < 200, what
        for name in ("login", LONG):
            with suppress(MCPError):
                result = await client.call_tool(name, {"action": LONG})
                assert words(result).count("z") < 100
        for refused in (client.read_resource(f"kiro://answers/{LONG}"), client.get_prompt(LONG)):
            with pytest.raises(MCPError) as error:
                await refused
            assert str(error.value).count("z") < 100
