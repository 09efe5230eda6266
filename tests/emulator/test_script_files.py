"""Scripts in files: each step as it is played, when an answer is picked, and what is refused."""

import json
import shutil
from base64 import b64encode
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio import fail_after
from mcp.client import Client

from kiro_mcp.emulator import EmulatorState, RunningEmulator, frames, running, script_files
from kiro_mcp.emulator.script_files import KINDS, read_script, read_steps
from kiro_mcp.emulator.scripts import BUILT_IN
from kiro_mcp.errors import InvalidRequest
from tests.emulator.calls import (
    AS_USER,
    REST_PATH,
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
from tests.support import mcp

CONTEXT_USE = "contextUsageEvent"
ENDING = events_of(frames.ending("END_TURN"))
ENDING_WITH_TOOL = events_of(frames.ending("TOOL_USE"))


def script_of(path: Path, *answers: Json, **members: Any) -> Path:
    path.write_text(json.dumps({"answers": answers, **members}), "utf-8")
    return path


def answer(*steps: Json, **members: Any) -> Json:
    return {"steps": list(steps), **members}


def playing(path: Path, *more: Path) -> EmulatorState:
    return EmulatorState(script_files=[read_script(one) for one in (path, *more)])


async def response_to(state: EmulatorState, *prompts: Json | str) -> httpx.Response:
    """The answer to the last of the prompts."""
    with fail_after(10):
        async with running(state) as emulator, connected(emulator.url) as client:
            responses = [await ask(client, prompt) for prompt in prompts]
    return responses[-1]


async def events_for(state: EmulatorState, *prompts: Json | str) -> list[Event]:
    response = await response_to(state, *prompts)
    assert response.status_code == 200
    return events_of(response.content)


def without_use(events: list[Event]) -> list[Event]:
    """The events without how much of the context is used."""
    return [(name, {} if name == CONTEXT_USE else payload) for name, payload in events]


# --- steps --------------------------------------------------------------------------------

SAID: dict[str, tuple[list[Json], list[Event]]] = {
    "text": (
        [{"text": "Hi."}],
        [("assistantResponseEvent", {"content": "Hi.", "modelId": "auto"})],
    ),
    "event": (
        [{"event": {"type": "codeEvent", "payload": {"content": "x"}}}],
        [("codeEvent", {"content": "x"})],
    ),
    "base64": (
        [{"base64": b64encode(frames.event("codeEvent", {})).decode()}],
        [("codeEvent", {})],
    ),
    "exception": (
        [{"exception": {"message": "Busy.", "reason": "X", "type": "ThrottlingException"}}],
        [("ThrottlingException", {"message": "Busy.", "reason": "X"})],
    ),
    "end": ([{"end": "MAX_TOKENS"}], events_of(frames.ending("MAX_TOKENS"))),
    "end without a reason": ([{"end": ""}], events_of(frames.ending())),
    "end without a sign": ([{"end": None}], []),
    "pause": ([{"pause": 0}, {"end": None}], []),
}


@pytest.mark.parametrize(("steps", "expected"), SAID.values(), ids=SAID)
async def test_a_step_sends_what_it_says(
    steps: list[Json], expected: list[Event], tmp_path: Path
) -> None:
    """The documented steps."""
    events = await events_for(playing(script_of(tmp_path / "s.json", answer(*steps))), "x")
    is_spoken = "text" in steps[-1]
    assert without_use(events) == without_use(expected + (ENDING if is_spoken else []))


async def test_the_context_use_of_a_script_grows_with_what_is_sent_and_said(
    tmp_path: Path,
) -> None:
    used: list[float] = []
    for said, prompt in (("Hi.", "x"), ("Hi.", "x" * 9_000), ("y" * 9_000, "x" * 9_000)):
        state = playing(script_of(tmp_path / "s.json", answer({"text": said})))
        events = await events_for(state, prompt)
        used += [event["contextUsagePercentage"] for name, event in events if name == CONTEXT_USE]
    assert used[0] < used[1] < used[2]


async def test_reasoning_is_signed_as_the_emulators_own(tmp_path: Path) -> None:
    """A later request can then send the reasoning back."""
    script = script_of(tmp_path / "s.json", answer({"reasoning": "So."}, {"text": "Yes."}))
    events = await events_for(playing(script), "x")
    assert [name for name, _ in events[:3]] == [
        *["reasoningContentEvent"] * 2,
        "assistantResponseEvent",
    ]
    assert "signature" in events[1][1]


async def test_a_tool_use_ends_its_answer_as_the_service_does(tmp_path: Path) -> None:
    """What is usual need not be written."""
    step = {"tool_use": {"name": "read_log", "arguments": {"path": "ci.log"}}}
    script = script_of(tmp_path / "s.json", answer(step, step))
    events = await events_for(playing(script), user("x", **context(tools=[tool()])))
    calls = [payload for name, payload in events if name == "toolUseEvent"]
    assert [call["input"] for call in calls if "input" in call] == ['{"path":"ci.log"}'] * 2
    assert len({call["toolUseId"] for call in calls}) == 2
    assert without_use(events[-3:]) == without_use(ENDING_WITH_TOOL)


async def test_a_tool_use_can_be_broken_on_purpose(tmp_path: Path) -> None:
    """Agents must be able to handle this."""
    call = {"name": "n", "arguments": '{"path": "no', "id": "tooluse_mine", "unfinished": True}
    script = script_of(tmp_path / "s.json", answer({"tool_use": call}, {"end": None}))
    events = await events_for(playing(script), "x")
    assert [payload["toolUseId"] for _, payload in events] == ["tooluse_mine"] * 2
    assert events[-1][1]["input"] == '{"path": "no'


async def test_a_cut_breaks_the_connection(tmp_path: Path) -> None:
    script = script_of(tmp_path / "s.json", answer({"text": "On"}, {"cut": True}))
    with pytest.raises(httpx.RemoteProtocolError):
        await response_to(playing(script), "x")


async def test_a_refusal_is_the_services_own(tmp_path: Path) -> None:
    """The service's published form of errors."""
    refusal = {
        "status": 429,
        "type": "ThrottlingException",
        "message": "Slow down.",
        "reason": "X",
        "retry_after_milliseconds": 7000,
        "headers": {"Retry-After": "7"},
    }
    steps = [{"pause": 0}, {"refusal": refusal}]
    response = await response_to(playing(script_of(tmp_path / "s.json", answer(*steps))), "x")
    assert response.status_code == 429
    assert response.headers["x-amzn-errortype"] == "ThrottlingException"
    assert response.headers["retry-after"] == "7"
    expected = {"message": "Slow down.", "reason": "X", "retryAfterMilliseconds": 7000}
    assert response.json() == expected


async def test_any_http_answer_can_be_given(tmp_path: Path) -> None:
    """A proxy's page, for one."""
    http = {"status": 502, "headers": {"Content-Type": "text/html"}, "body": "<h1>Bad</h1>"}
    script = script_of(tmp_path / "s.json", answer({"http": http}))
    response = await response_to(playing(script), "x")
    assert (response.status_code, response.text) == (502, "<h1>Bad</h1>")
    assert response.headers["content-type"].startswith("text/html")


async def test_a_built_in_script_can_be_played(tmp_path: Path) -> None:
    """What the emulator can do need not be written again."""
    script = script_of(tmp_path / "s.json", answer({"emulate": "quota"}))
    assert (await response_to(playing(script), "x")).status_code == 402


async def test_an_answer_can_wait_for_other_prompts(tmp_path: Path) -> None:
    """Two calls that must be under way at once."""
    first = answer({"until_prompts": 2}, {"text": "first"}, times=1)
    script = script_of(tmp_path / "s.json", first, answer({"text": "second"}))
    ended: list[str] = []
    with fail_after(10):
        async with (
            running(playing(script)) as emulator,
            connected(emulator.url) as client,
            anyio.create_task_group() as tasks,
        ):

            async def ask_first() -> None:
                ended.append(text_of(events_of((await ask(client, "x")).content)))

            tasks.start_soon(ask_first)
            await emulator.state.until(lambda state: state.open_streams == 1)
            assert not ended
            assert text_of(events_of((await ask(client, "y")).content)) == "second"
    assert ended == ["first"]


# --- which answer is picked ---------------------------------------------------------------


async def test_the_first_matching_answer_that_is_left_is_played(tmp_path: Path) -> None:
    """The steps are played in order."""
    script = script_of(
        tmp_path / "s.json",
        answer({"text": "1"}, when="Paris", times=1),
        answer({"text": "2"}, when="Paris"),
        answer({"text": "3"}),
    )
    state = playing(script)
    with fail_after(10):
        async with running(state) as emulator, connected(emulator.url) as client:
            prompts = ("Paris?", "Rome?", "Paris?", "In Paris?")
            said = [text_of(events_of((await ask(client, one)).content)) for one in prompts]
    assert said == ["1", "3", "2", "2"]


async def test_an_answer_can_be_picked_by_what_a_tool_returned(tmp_path: Path) -> None:
    """A whole tool loop can be scripted."""
    script = script_of(tmp_path / "s.json", answer({"text": "It is warm."}, when="18 °C"))
    now = user(" ", **context(tools=[tool()], toolResults=[result("tooluse_1", "18 °C")]))
    history = [user(), assistant(" ", toolUses=[use("tooluse_1")])]
    with fail_after(10):
        async with running(playing(script)) as emulator, connected(emulator.url) as client:
            response = await client.post(REST_PATH, json=body_of(now, *history), headers=AS_USER)
    assert text_of(events_of(response.content)) == "It is warm."


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("/emulate weather", "from a"),
        ("/emulate b", "from b"),
        ("hi", "from b"),
        ("/emulate text", "This is a canned answer"),
        ("/emulate nothing", "has no script 'nothing'. It has: text"),
    ],
)
async def test_a_prompt_can_name_a_script(prompt: str, said: str, tmp_path: Path) -> None:
    """`when` is for prompts that do not."""
    a = script_of(tmp_path / "a.json", answer({"text": "from a"}, when="never"), name="weather")
    b = script_of(tmp_path / "b.json", answer({"text": "from b"}))
    assert said in text_of(await events_for(playing(a, b), prompt))


async def test_the_known_scripts_include_those_of_files(tmp_path: Path) -> None:
    """The answer says what to do next."""
    state = playing(script_of(tmp_path / "mine-1.json", answer({"text": "x"})))
    assert "mine-1" in text_of(await events_for(state, "/emulate nothing"))


async def test_a_script_that_is_named_and_used_up_says_so(tmp_path: Path) -> None:
    """A test that asks too often must see why."""
    script = script_of(tmp_path / "s.json", answer({"text": "x"}, times=1))
    events = await events_for(playing(script), "/emulate s", "/emulate s")
    assert text_of(events) == "The script 's' has no answer left."


async def test_a_prompt_that_no_answer_matches_gets_the_canned_text(tmp_path: Path) -> None:
    script = script_of(tmp_path / "s.json", answer({"text": "x"}, when="Paris"))
    assert "canned" in text_of(await events_for(playing(script), "Rome?"))


async def test_enqueued_answers_are_played_before_loaded_scripts(tmp_path: Path) -> None:
    """A test is closer than its files."""
    state = playing(script_of(tmp_path / "s.json", answer({"text": "x"})))
    state.enqueue(read_steps([{"text": "y"}], serial=1))
    assert text_of(await events_for(state, "Rome?")) == "y"


async def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Observed: editors on Windows write one."""
    path = script_of(tmp_path / "s.json", answer({"text": "x"}))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_script(path).name == "s"


def test_a_file_whose_name_is_not_a_word_is_named_by_what_is_left_of_it(tmp_path: Path) -> None:
    """The name must be one that a prompt can have."""
    path = script_of(tmp_path / "my script (1).json", answer({"text": "x"}))
    assert read_script(path).name == "my-script-1-"


# --- what is refused ----------------------------------------------------------------------

TEXT = {"text": "x"}

BAD: dict[str, tuple[str, str]] = {
    "syntax": ('{\n  "answers": [,]\n}', "Invalid JSON: expected value at line 2 column 15"),
    "nothing": ("", "line 1 column 0"),
    "no object": ("[]", "the file: Input should be"),
    "no answers": ("{}", "answers: Field required"),
    "empty answers": ('{"answers": []}', "answers: List should have at least 1"),
    "unknown member": ('{"answers": [{"steps": [], "wen": ""}]}', "answers[0].wen: Extra inputs"),
    "no steps": ('{"answers": [{"steps": []}]}', "answers[0].steps: List should have"),
    "bad name": ('{"name": "a b", "answers": []}', "name: String should match"),
    "times": ('{"answers": [{"steps": [{"text": ""}], "times": 0}]}', "answers[0].times"),
}

BAD_STEPS: dict[str, tuple[list[Any], str]] = {
    "unknown": ([{"say": "x"}], "answers[0].steps[0]: A step has exactly one member"),
    "two": ([{"text": "x", "pause": 1}], "answers[0].steps[0]: A step has exactly one member"),
    "none": ([{}], "answers[0].steps[0]: A step has exactly one member"),
    "no object": (["text"], "answers[0].steps[0]: A step has exactly one member"),
    "type": ([TEXT, {"text": 1}], "answers[0].steps[1].text: Input should be a valid string"),
    "no name": ([{"tool_use": {}}], "answers[0].steps[0].tool_use.name: Field required"),
    "negative": ([{"pause": -1}], "answers[0].steps[0].pause: Input should be greater"),
    "for ever": ([{"pause": 1e9}], "answers[0].steps[0].pause: Input should be less"),
    "base64": ([{"base64": "%"}], "answers[0].steps[0].base64: must be a base64 string"),
    "no base64": ([{"base64": 1}], "answers[0].steps[0].base64"),
    "cut": ([{"cut": False}], "answers[0].steps[0].cut"),
    "status": ([{"refusal": {"status": 200, "type": "x"}}], ".refusal.status"),
    "header": ([{"http": {"headers": {"a": "b\r\nc: d"}}}], ".http.headers.a"),
    "script": ([{"emulate": "nonsense"}], "unknown script 'nonsense'"),
    "after a cut": ([{"cut": True}, TEXT], "answers[0]: nothing after steps[0] would be played"),
    "after a refusal": ([{"emulate": "quota"}, TEXT], "nothing after steps[0]"),
    "before a refusal": ([TEXT, {"emulate": "quota"}], "only pauses can be before steps[1]"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_played_is_refused_by_line_or_member(
    text: str, says: str, tmp_path: Path
) -> None:
    """The author must be able to find the place."""
    path = tmp_path / "bad.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InvalidRequest) as caught:
        read_script(path)
    assert says in str(caught.value)
    assert "bad.json" in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(("steps", "says"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_steps_that_cannot_be_played_are_refused_by_member(
    steps: list[Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_script(script_of(tmp_path / "s.json", {"steps": steps}))
    assert says in str(caught.value)
    with pytest.raises(InvalidRequest, match="cannot be played"):
        read_steps(steps, serial=1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 200_000, "Invalid JSON"),
        (b" " * (script_files.MAX_FILE_BYTES + 1), "larger than"),
    ],
    ids=["encoding", "depth", "size"],
)
def test_a_file_that_is_not_json_text_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match=says):
        read_script(path)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_script(tmp_path / "none.json")


def test_the_documentation_names_every_step() -> None:
    """Users follow this documentation."""
    documented = script_files.__doc__ or ""
    assert all(f'{{"{kind}":' in documented for kind in KINDS)


def test_the_documentations_example_can_be_played(tmp_path: Path) -> None:
    _, _, rest = (script_files.__doc__ or "").partition("::\n")
    example, _, _ = rest.partition("\n    name ")
    path = tmp_path / "example.json"
    path.write_text(example, "utf-8")
    script = read_script(path)
    assert (script.name, len(script.answers)) == ("weather", 3)


# --- captured calls -----------------------------------------------------------------------


async def captured(root: Path, prompt: str, emulator: RunningEmulator) -> Path:
    environ = {"KIRO_MCP_DEBUG_MODE": "all", "KIRO_MCP_DEBUG_DIR": str(root)}
    retrying = {"KIRO_MCP_MAX_RETRIES": "1", "KIRO_MCP_BASE_RETRY_DELAY": "0.001"}
    emulator.state.retry_after_seconds = 0
    async with mcp.connected(emulator, **retrying, **environ) as client:
        await client.call_tool("ask_claude", {"prompt": prompt})
    (capture,) = root.iterdir()
    return capture


async def result_of(state: EmulatorState, prompt: str, **environ: str) -> Any:
    async with running(state) as emulator, mcp.connected(emulator, **environ) as client:
        return await _called(client, prompt)


async def _called(client: Client, prompt: str) -> Any:
    return await client.call_tool("ask_claude", {"prompt": prompt})


async def test_a_captured_call_answers_every_prompt_as_it_was_answered(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """A user's problem can become a test."""
    capture = await captured(tmp_path, "Say hello, captured", emulator)
    got = await result_of(playing(capture), "anything")
    assert "Say hello, captured" in got.structured_content["text"]


async def test_a_captured_call_plays_its_requests_in_turn_and_goes_on_with_the_last(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Refused first, then answered."""
    capture = await captured(tmp_path, "/emulate throttle 1", emulator)
    state = playing(capture)
    with fail_after(10):
        async with running(state) as played, connected(played.url) as client:
            statuses = [(await ask(client, "x")).status_code for _ in range(3)]
    assert statuses == [429, 200, 200]


@pytest.mark.parametrize("script", ["reset", "bad_crc", "exception"])
async def test_a_captured_fault_is_a_fault_again(
    script: str, emulator: RunningEmulator, tmp_path: Path
) -> None:
    capture = await captured(tmp_path, f"/emulate {script}", emulator)
    before = await result_of(EmulatorState(), f"/emulate {script}", KIRO_MCP_MAX_RETRIES="0")
    again = await result_of(playing(capture), "x", KIRO_MCP_MAX_RETRIES="0")
    assert again.structured_content["truncated"]
    assert again.structured_content["warnings"] == before.structured_content["warnings"]


async def test_a_captured_silence_is_silence_again(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    patience = {"KIRO_MCP_STREAM_READ_TIMEOUT": "0.2"}
    emulator.state.enqueue(read_steps([{"text": "Once"}, {"pause": 60}], serial=1))
    environ = {"KIRO_MCP_DEBUG_MODE": "all", "KIRO_MCP_DEBUG_DIR": str(tmp_path), **patience}
    async with mcp.connected(emulator, **environ) as client:
        await _called(client, "x")
    (capture,) = tmp_path.iterdir()
    got = await result_of(playing(capture), "x", **patience)
    assert got.structured_content["text"] == "Once"
    assert "sent nothing for" in got.structured_content["warnings"][0]


async def test_a_capture_is_picked_by_its_folders_name(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """Names of captures have dots and a dash."""
    capture = await captured(tmp_path / "debug", "Say hello, captured", emulator)
    other = script_of(tmp_path / "s.json", answer({"text": "other"}))
    state = playing(other, capture)
    assert "captured" in text_of(await events_for(state, f"/emulate {capture.name}"))


async def test_a_capture_without_an_answer_is_refused(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    capture = await captured(tmp_path, " ", emulator)
    with pytest.raises(InvalidRequest, match="no request of this capture was answered"):
        read_script(capture)


async def test_a_capture_that_was_renamed_is_a_script_of_that_name(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    """It is kept beside the tests, under a name that says what it is."""
    capture = await captured(tmp_path / "debug", "hi", emulator)
    shutil.move(capture, tmp_path / "broken answer")
    assert read_script(tmp_path / "broken answer").name == "broken-answer"


def test_built_in_names_are_words_that_a_prompt_can_have() -> None:
    assert all(name.isidentifier() for name in BUILT_IN)
