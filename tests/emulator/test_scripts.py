"""The emulator's answers, over real HTTP: each script shows what the service was seen to do."""

import json
from typing import Any

import anyio
import httpx
import pytest

from kiro_mcp.emulator import (
    Cut,
    EmulatorState,
    HttpAnswer,
    Pause,
    RunningEmulator,
    Send,
    frames,
    running,
)
from kiro_mcp.emulator.frames import sign
from kiro_mcp.emulator.scripts import (
    BUILT_IN,
    MAX_LONG_CHARACTERS,
    REFUSALS,
    Prompt,
    example_of,
    json_answer,
)
from kiro_mcp.errors import FrameError
from tests.emulator.calls import (
    AS_USER,
    REST_PATH,
    TEXT_EVENT,
    Event,
    Json,
    ask,
    assistant,
    body_of,
    connected,
    context,
    events_of,
    result,
    text_of,
    tool,
    use,
    user,
)

ENDING = ["metadataEvent", "contextUsageEvent", "meteringEvent"]
"""The last events of a whole answer, in the service's order."""
CANNED = "This is a canned answer of the emulator. You said: "


async def events_for(emulator: RunningEmulator, prompt: Json | str) -> list[Event]:
    """The whole answer to one prompt."""
    with anyio.fail_after(20):
        async with connected(emulator.url) as client:
            response = await ask(client, prompt)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/vnd.amazon.eventstream"
    return events_of(response.content)


def names(events: list[Event]) -> list[str]:
    """Names of events, each once in a row."""
    found = [name for name, _ in events]
    return [name for index, name in enumerate(found) if found[index - 1 : index] != [name]]


async def test_an_answer_says_that_it_is_canned_and_repeats_the_prompt(
    emulator: RunningEmulator,
) -> None:
    """The answer must not look like a model's. Concurrent calls can be told apart."""
    events = await events_for(emulator, user("Hello, Grüße 你好", modelId="claude-haiku-4.5"))
    assert text_of(events) == f"{CANNED}Hello, Grüße 你好"
    assert names(events) == [TEXT_EVENT, *ENDING]
    assert ("metadataEvent", {"stopReason": "END_TURN"}) in events
    assert events[0][1]["modelId"] == "claude-haiku-4.5"


async def test_only_the_end_of_a_long_prompt_is_repeated(emulator: RunningEmulator) -> None:
    """The answer's length is bounded."""
    events = await events_for(emulator, "x" * 10_000 + "end")
    assert text_of(events) == f"{CANNED}… {'x' * 197}end"


async def test_tool_results_are_repeated_too(emulator: RunningEmulator) -> None:
    """A test can see that a tool loop is complete."""
    asked = await events_for(emulator, user("/emulate tool_use", **context(tools=[tool()])))
    call = next(payload for name, payload in asked if name == "toolUseEvent")
    now = user(" ", **context(tools=[tool()], toolResults=[result(call["toolUseId"], "18 °C")]))
    history = [user(), assistant(" ", toolUses=[use(call["toolUseId"], call["name"])])]
    async with connected(emulator.url) as client:
        response = await client.post(REST_PATH, json=body_of(now, *history), headers=AS_USER)
    assert text_of(events_of(response.content)) == f"{CANNED}\nYour tools said: 18 °C"


async def test_a_script_is_found_behind_folded_system_text(emulator: RunningEmulator) -> None:
    """Clients put the system prompt in front of the first user text."""
    events = await events_for(emulator, "You are terse.\n\n/emulate empty")
    assert names(events) == ENDING


async def test_an_unknown_script_is_answered_with_the_known_ones(
    emulator: RunningEmulator,
) -> None:
    """The answer says what to do next."""
    emulator.state.scripts["mine"] = ()
    answer = text_of(await events_for(emulator, "/emulate nonsense"))
    assert "'nonsense'" in answer
    assert all(name in answer for name in [*BUILT_IN, "mine"])


async def test_frames_carry_three_headers_and_sorted_compact_json() -> None:
    """Observed: real frames of the service."""
    frame = frames.text("Hi", model_id="auto")
    assert b"\x0b:event-type\x07\x00\x16assistantResponseEvent\x0d:content-type" in frame
    assert frame.endswith(b'\x05event{"content":"Hi","modelId":"auto"}' + frame[-4:])


async def test_reasoning_comes_before_the_text_and_is_signed(emulator: RunningEmulator) -> None:
    """Observed: text deltas, then one frame with the signature alone."""
    events = await events_for(emulator, "/emulate reasoning")
    assert names(events)[:3] == ["reasoningContentEvent", TEXT_EVENT, "metadataEvent"]
    thoughts = [payload for name, payload in events if name == "reasoningContentEvent"]
    thought = "".join(payload.get("text", "") for payload in thoughts)
    assert thoughts[-1] == {"signature": sign(thought)}
    assert ("metadataEvent", {"stopReason": "END_TURN"}) in events


@pytest.mark.parametrize("script", ["thinking", "split_tags"])
async def test_thinking_comes_in_tags_inside_the_text(
    script: str, emulator: RunningEmulator
) -> None:
    """Observed: models without native reasoning answer so."""
    events = await events_for(emulator, f"/emulate {script}")
    assert text_of(events).startswith("<thinking>\nThe emulator thinks")
    assert f"</thinking>\n\n{CANNED}" in text_of(events)
    is_whole = any("<thinking>" in payload.get("content", "") for _, payload in events)
    assert is_whole == (script == "thinking")


def calls_in(events: list[Event]) -> dict[str, tuple[str, Any, bool]]:
    """The tool uses of an answer by id: name, arguments as far as they parse, stopped or not."""
    found: dict[str, tuple[str, str, bool]] = {}
    for payload in (payload for name, payload in events if name == "toolUseEvent"):
        _, text, _ = found.get(payload["toolUseId"], ("", "", False))
        text += payload.get("input", "")
        found[payload["toolUseId"]] = (payload["name"], text, payload.get("stop", False))
    return {
        key: (name, json.loads(text) if stop else text, stop)
        for key, (name, text, stop) in found.items()
    }


async def test_a_tool_use_calls_the_declared_tool_with_arguments_of_its_schema(
    emulator: RunningEmulator,
) -> None:
    """The call is valid, so that whole tool loops can be tried."""
    declared = context(tools=[tool("read_log")])
    events = await events_for(emulator, user("/emulate tool_use", **declared))
    assert list(calls_in(events).values()) == [("read_log", {"path": "example"}, True)]
    assert ("metadataEvent", {"stopReason": "TOOL_USE"}) in events


async def test_the_arguments_of_a_tool_use_can_be_given(emulator: RunningEmulator) -> None:
    """Tests choose what the model asks for."""
    prompt = '/emulate tool_use {"path": "a b"}'
    events = await events_for(emulator, user(prompt, **context(tools=[tool()])))
    assert list(calls_in(events).values()) == [("read_log", {"path": "a b"}, True)]


async def test_arguments_that_are_not_an_object_are_ignored(emulator: RunningEmulator) -> None:
    """The service gives objects only."""
    events = await events_for(emulator, "/emulate tool_use nonsense")
    assert list(calls_in(events).values()) == [("get_weather", {"city": "Paris"}, True)]


async def test_parallel_tool_uses_have_ids_of_their_own(emulator: RunningEmulator) -> None:
    """Observed: two intentional calls of one tool with the same arguments."""
    events = await events_for(emulator, user("/emulate parallel_tools", **context(tools=[tool()])))
    assert list(calls_in(events).values()) == [("read_log", {"path": "example"}, True)] * 2


async def test_tool_use_ids_differ_from_call_to_call(emulator: RunningEmulator) -> None:
    """An id stands for one use in a whole conversation."""
    first = calls_in(await events_for(emulator, "/emulate tool_use"))
    second = calls_in(await events_for(emulator, "/emulate tool_use"))
    assert not first.keys() & second.keys()


async def test_a_truncated_tool_use_ends_inside_its_arguments(emulator: RunningEmulator) -> None:
    """Observed: a clean end of the stream, without a stop and without usage."""
    events = await events_for(emulator, "/emulate truncated_tool")
    ((_, arguments, is_stopped),) = calls_in(events).values()
    assert not is_stopped
    assert arguments == '{"path": "notes.txt", "content": "On'
    assert events[-1][0] == "toolUseEvent"


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "string", "enum": ["a", "b"]}, "a"),
        ({"type": "boolean"}, True),
        ({"type": "array"}, []),
        ({"type": "number"}, 1.5),
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"n": 1}),
        ({"type": ["string", "null"]}, {}),
        ({}, {}),
    ],
)
def test_an_example_fits_its_schema(schema: Json, example: object) -> None:
    """Plain schemas, as they are declared for tools."""
    assert example_of(schema) == example


# status, name, reason, `Retry-After` in seconds, the wait in the body in milliseconds
REFUSED_WITH: dict[str, tuple[int, str, str | None, str | None, int | None]] = {
    "throttle": (429, "ThrottlingException", None, "1", None),
    "throttle_400": (400, "ThrottlingException", None, "1", None),
    "user_rate": (429, "ThrottlingException", "USER_REQUEST_RATE_EXCEEDED", None, 1000),
    "service_rate": (429, "ThrottlingException", "SERVICE_REQUEST_RATE_EXCEEDED", None, 1000),
    "credit_rate": (429, "ThrottlingException", "CREDIT_CONSUMPTION_RATE_EXCEEDED", None, 300_000),
    "busy": (429, "ThrottlingException", "INSUFFICIENT_MODEL_CAPACITY", "1", None),
    "quota": (402, "ServiceQuotaExceededException", "MONTHLY_REQUEST_COUNT", None, None),
    "overage": (402, "ServiceQuotaExceededException", "OVERAGE_REQUEST_LIMIT_EXCEEDED", None, None),
    "usage_limit": (429, "ThrottlingException", "USAGE_LIMIT_REACHED", None, None),
    "suspended": (403, "AccessDeniedException", "TEMPORARILY_SUSPENDED", None, None),
    "suspicious": (403, "AccessDeniedException", None, None, None),
    "expired": (403, "AccessDeniedException", None, None, None),
    "origin": (403, "AccessDeniedException", None, None, None),
    "invalid_model": (400, "ValidationException", "INVALID_MODEL_ID", None, None),
    "too_long": (400, "ValidationException", None, None, None),
    "window_full": (400, "ValidationException", None, None, None),
    "malformed": (400, "ValidationException", None, None, None),
    "failed": (500, "InternalServerException", None, None, None),
    "unavailable": (503, "ServiceUnavailableException", None, None, None),
}


async def test_a_refusal_has_the_services_status_name_reason_and_wait(
    emulator: RunningEmulator,
) -> None:
    """The service's published errors, and observed ones."""
    assert set(REFUSED_WITH) == set(REFUSALS)
    async with connected(emulator.url) as client:
        for script, expected in REFUSED_WITH.items():
            response = await ask(client, f"/emulate {script}")
            body, headers = response.json(), response.headers
            name, wait = headers["x-amzn-errortype"], headers.get("retry-after")
            in_body = body.get("retryAfterMilliseconds")
            assert (response.status_code, name, body["reason"], wait, in_body) == expected, script


async def test_a_refusal_can_stop_after_a_number_of_prompts(emulator: RunningEmulator) -> None:
    """For tests of retries."""
    async with connected(emulator.url) as client:
        responses = [await ask(client, "/emulate throttle 2") for _ in range(3)]
        other = await ask(client, "/emulate throttle 2 ")
    assert [response.status_code for response in responses] == [429, 429, 200]
    assert other.status_code == 200, "blanks at its end make no other prompt"


async def test_the_wait_in_a_refusal_is_a_setting() -> None:
    """Tests need not wait a second."""
    async with (
        running(EmulatorState(retry_after_seconds=7)) as emulator,
        connected(emulator.url) as client,
    ):
        response = await ask(client, "/emulate busy")
    assert response.headers["retry-after"] == "7"


async def test_a_long_answer_has_the_length_asked_for(emulator: RunningEmulator) -> None:
    """Lines are numbered, so that a lost one shows."""
    text = text_of(await events_for(emulator, "/emulate long 1000"))
    assert len(text) == 1000
    assert text.startswith("This is canned line 0000000.\nThis is canned line 0000001.\n")


def test_a_number_is_limited() -> None:
    """The memory of the emulator is bounded."""
    (step,) = BUILT_IN["long"](Prompt(said="/emulate long inf"))
    assert isinstance(step, Send)
    assert MAX_LONG_CHARACTERS < len(step.data) < 10 * MAX_LONG_CHARACTERS


async def test_a_slow_answer_takes_the_time_asked_for(emulator: RunningEmulator) -> None:
    """Its words come one after the other."""
    started = anyio.current_time()
    events = await events_for(emulator, "/emulate slow 0.2")
    assert anyio.current_time() - started >= 0.2
    assert text_of(events) == f"{CANNED}/emulate slow 0.2"


async def test_an_exception_comes_inside_the_stream(emulator: RunningEmulator) -> None:
    """The service's event model: its one error member is called `error`."""
    events = await events_for(emulator, "/emulate exception")
    assert text_of(events).startswith(CANNED)
    assert events[-1][0] == "error"
    assert events[-1][1]["reason"] == "MODEL_TEMPORARILY_UNAVAILABLE"


async def test_a_bad_checksum_comes_after_good_frames(emulator: RunningEmulator) -> None:
    """The event stream format: both sides verify checksums."""
    async with connected(emulator.url) as client:
        response = await ask(client, "/emulate bad_crc")
    with pytest.raises(FrameError) as caught:
        events_of(response.content)
    assert caught.value.frame_count > 1


async def read_into(received: bytearray, emulator: RunningEmulator, prompt: str) -> None:
    """Keep every byte of an answer, however it ends."""
    async with (
        connected(emulator.url) as client,
        client.stream("POST", REST_PATH, json=body_of(prompt), headers=AS_USER) as response,
    ):
        async for chunk in response.aiter_raw():
            received += chunk


async def test_a_reset_cuts_the_connection_inside_a_frame(emulator: RunningEmulator) -> None:
    """Observed: connections end in the middle of an answer."""
    received = bytearray()
    with anyio.fail_after(20), pytest.raises(httpx.RemoteProtocolError):
        await read_into(received, emulator, "/emulate reset")
    with pytest.raises(FrameError, match="ended inside a frame"):
        events_of(bytes(received))
    assert emulator.state.disconnects == 0


async def test_a_stall_sends_nothing_until_it_is_cut(emulator: RunningEmulator) -> None:
    """Bounded, so that a forgotten client cannot hold it for ever."""
    async with connected(emulator.url) as client:
        with anyio.fail_after(20), pytest.raises(httpx.RemoteProtocolError):
            await ask(client, "/emulate stall 0")


async def test_a_stall_ends_when_its_client_leaves(emulator: RunningEmulator) -> None:
    """The emulator sees clients leave."""
    with anyio.fail_after(20):
        async with connected(emulator.url) as client:
            with anyio.move_on_after(0.1):
                await ask(client, "/emulate stall")
        await emulator.state.until(lambda state: state.disconnects == 1)
    assert emulator.state.open_streams == 0


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 100_000])
async def test_an_answer_is_the_same_in_chunks_of_any_size(chunk_bytes: int) -> None:
    """Tests choose how frames are cut."""
    state = EmulatorState(chunk_bytes=chunk_bytes)
    async with running(state) as emulator:
        assert text_of(await events_for(emulator, "Hello")) == f"{CANNED}Hello"


async def test_frames_arrive_in_pieces(emulator: RunningEmulator) -> None:
    """This finds clients that need whole frames in one read."""
    async with (
        connected(emulator.url) as client,
        client.stream("POST", REST_PATH, json=body_of(), headers=AS_USER) as response,
    ):
        chunks = [chunk async for chunk in response.aiter_raw()]
    assert len(chunks) > 1


async def test_own_scripts_can_be_named_or_enqueued(emulator: RunningEmulator) -> None:
    """By name, or enqueued for the next call; () stands for the usual answer."""
    emulator.state.scripts["mine"] = (Send(frames.text("Mine.")), Pause(0), Send(frames.ending()))
    emulator.state.enqueue((Send(frames.text("Queued.")),), ())
    assert text_of(await events_for(emulator, "/emulate mine")) == "Queued."
    assert text_of(await events_for(emulator, "/emulate mine")) == "Mine."
    assert text_of(await events_for(emulator, "/emulate mine")) == "Mine."


async def test_a_script_can_be_any_http_answer(emulator: RunningEmulator) -> None:
    """Proxies answer in HTML, and some services with JSON and status 200."""
    page = HttpAnswer(status=502, body=b"<html>", content_type="text/html", headers={"via": "p"})
    emulator.state.enqueue((Pause(0), page), json_answer({"message": "no stream"}))
    async with connected(emulator.url) as client:
        first, second = await ask(client, "Hello"), await ask(client, "Hello")
    assert (first.status_code, first.text, first.headers["via"]) == (502, "<html>", "p")
    assert (second.status_code, second.json()) == (200, {"message": "no stream"})


async def test_a_cut_before_the_first_byte_of_the_body_leaves_the_head(
    emulator: RunningEmulator,
) -> None:
    """The head of an answer says 200 before anything can fail."""
    emulator.state.enqueue((Cut(),))
    async with connected(emulator.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(client, "Hello")


def percent_of(events: list[Event]) -> float:
    (percent,) = [
        payload["contextUsagePercentage"] for name, payload in events if name == "contextUsageEvent"
    ]
    return percent


@pytest.mark.parametrize(
    ("said", "model", "expected"),
    [("x" * 40, "auto", 0.0033), ("x" * 40, "claude-haiku-4.5", 0.0165)],
)
async def test_context_use_is_what_was_sent_and_said(
    said: str, model: str, expected: float, emulator: RunningEmulator
) -> None:
    """Four bytes are a token, of a window of 1,000,000 or of 200,000."""
    events = await events_for(emulator, user(said, modelId=model))
    assert percent_of(events) == pytest.approx(expected)


async def test_context_use_grows_with_all_that_is_sent(emulator: RunningEmulator) -> None:
    """Messages before, tools, their calls and results, images."""
    called = assistant(" ", toolUses=[use()])
    answered = user(" ", **context(tools=[tool()], toolResults=[result(text="x" * 400)]))
    image = {"format": "png", "source": {"bytes": "AAAA"}}
    bodies = [
        body_of(user("x")),
        body_of(user("x"), user("y" * 400), assistant("z" * 400)),
        body_of(answered, user("y" * 400), called),
        body_of(user("x", images=[image])),
    ]
    percents: list[float] = []
    async with connected(emulator.url) as client:
        for body in bodies:
            response = await client.post(REST_PATH, json=body, headers=AS_USER)
            assert response.status_code == 200, response.headers
            percents.append(percent_of(events_of(response.content)))
    plain, with_history, with_tools, with_image = percents
    assert with_history == pytest.approx(plain + 0.02)
    assert with_tools > plain + 0.02
    assert with_image == pytest.approx(plain + 0.16)


async def test_a_prompt_with_a_deeply_nested_schema_is_answered(emulator: RunningEmulator) -> None:
    """The service has no limit of depth that is known."""
    schema: Json = {"type": "object"}
    for _ in range(200):
        schema = {"type": "object", "properties": {"a": schema}}
    declared = context(tools=[tool(inputSchema={"json": schema})])
    assert text_of(await events_for(emulator, user(**declared))).startswith(CANNED)
