"""Scripts that are written in files: answers for your own agent's tests.

A file is a JSON object with a list of answers, tried in order::

    {
      "name": "weather",
      "answers": [
        {"when": "18 °C", "steps": [{"text": "It is warm in Paris."}]},
        {"when": "Paris", "times": 1, "steps": [{"emulate": "throttle"}]},
        {"when": "Paris", "steps": [
          {"text": "Let me look."},
          {"tool_use": {"name": "get_weather", "arguments": {"city": "Paris"}}}
        ]}
      ]
    }

    name      what `/emulate NAME` in a prompt picks; by default the file's name
    answers   when    plays for prompts that contain this, in the user's text or in what tools
                      returned; "", the default, is in all of them
              times   plays so often at most; by default without end
              steps   what is played, each one of the following

    {"text": "…"}  {"reasoning": "…"}     said by the model, in small deltas
    {"tool_use": {"name": "…", "arguments": {…}}}    `arguments` as text go out as they are;
                                          further members: "id", and "unfinished": true
    {"end": "END_TURN"}                   the end of a whole answer; {"end": null} ends it without
                                          a sign. By default there is one after what was said
    {"pause": 1.5}                        silence for so many seconds
    {"until_prompts": 2}                  silence until the emulator was asked so many times
    {"cut": true}                         the connection breaks
    {"event": {"type": "…", "payload": {…}}}  {"base64": "…"}    a frame of yours; bytes of yours
    {"exception": {"message": "…", "reason": "…"}}    an error inside the stream
    {"refusal": {"status": 429, "type": "ThrottlingException", "message": "…"}}   the service's
                                          own error; further members: "reason", "headers",
                                          "retry_after_milliseconds"
    {"http": {"status": 502, "headers": {}, "body": "…"}}    any other answer than a stream
    {"emulate": "throttle"}               what the built-in script of this name does

The last three stand alone, after pauses at most. A prompt with `/emulate NAME` is answered by that
script, `when` or not; any other by the first answer, of the files in their order, that fits. A
captured call's folder is a script, too: it plays what was received, one answer a prompt, and
goes on with the last.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, ValidationError, model_validator

from kiro_mcp.captures.folder import Exchange, read_capture
from kiro_mcp.emulator import frames
from kiro_mcp.emulator.prompt import Prompt
from kiro_mcp.emulator.script_steps import (
    Step,
    Strict,
    calls_tool,
    is_last,
    is_silent,
    is_spoken,
    is_whole,
)
from kiro_mcp.emulator.scripts import MAX_STALL_SECONDS, ScriptMaker
from kiro_mcp.emulator.steps import Cut, HttpAnswer, Pause, Script, Send
from kiro_mcp.errors import InvalidRequest

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
"""The largest file that is read."""

_NO_NAME: Final = re.compile(r"^\W+|[^\w.-]+")

_REPLAYED_HEADERS: Final = ("retry-after", "x-amzn-errortype")
"""What a captured refusal says in its head."""


@dataclass(slots=True, kw_only=True)
class CannedAnswer:
    """An answer of a script, and how often it has been played."""

    when: str = ""
    """It answers prompts that contain this."""
    times: int | None = None
    """How often it can be played; None for without end."""
    make: ScriptMaker
    played: int = 0

    @property
    def is_left(self) -> bool:
        """Whether it can be played once more."""
        return self.times is None or self.played < self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptFile:
    """A script out of a file, and how far it has been played."""

    name: str
    answers: Sequence[CannedAnswer]

    def script_for(self, prompt: Prompt) -> Script:
        """Return what is played to a prompt; () where the script does not answer it."""
        if prompt.is_command and prompt.name != self.name:
            return ()
        said = f"{prompt.said}\n{prompt.returned}"
        for answer in self.answers:
            if answer.is_left and (prompt.is_command or answer.when in said):
                answer.played += 1
                return answer.make(prompt)
        return _nothing_left(self.name) if prompt.is_command else ()


class _Answer(Strict):
    when: str = ""
    times: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[list[Step], Field(min_length=1)]

    @model_validator(mode="after")
    def _can_be_played(self) -> "_Answer":
        for number, step in enumerate(self.steps):
            if is_last(step) and number < len(self.steps) - 1:
                raise ValueError(f"nothing after steps[{number}] would be played")
            if is_whole(step) and not all(map(is_silent, self.steps[:number])):
                raise ValueError(f"only pauses can be before steps[{number}]")
        return self

    def canned(self) -> CannedAnswer:
        return CannedAnswer(when=self.when, times=self.times, make=self._script)

    def _script(self, prompt: Prompt) -> Script:
        said = [step for step in self.steps if not is_silent(step)]
        script = [
            played
            for number, step in enumerate(self.steps)
            for played in step.played(prompt, number)
        ]
        if said and is_spoken(said[-1]):
            reason = "TOOL_USE" if any(map(calls_tool, said)) else "END_TURN"
            script.append(Send(frames.ending(reason)))
        return tuple(script)


class _File(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")] = ""
    answers: Annotated[list[_Answer], Field(min_length=1)]


def read_script(path: Path) -> ScriptFile:
    """Read a script: a file, or the folder of a captured call.

    Raises:
        InvalidRequest: It cannot be read or played; names the line or the member at fault.
    """
    name = _NO_NAME.sub("-", path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_dir():
        return ScriptFile(name=name, answers=_captured(path))
    try:
        file = _File.model_validate(_json(path))
    except ValidationError as error:
        raise _unusable(path, _described(error)) from None
    return ScriptFile(name=file.name or name, answers=[answer.canned() for answer in file.answers])


def read_steps(steps: object, *, serial: int) -> Script:
    """Read the steps of one answer, already parsed, for the next prompt whatever it is.

    Args:
        steps: What a file has under `steps`.
        serial: A number of its own, for the ids of its tool uses.

    Raises:
        InvalidRequest: They cannot be played; names the member at fault.
    """
    try:
        answer = _Answer.model_validate({"steps": steps})
    except ValidationError as error:
        raise InvalidRequest(f"These steps cannot be played: {_described(error)}.") from None
    return answer.canned().make(Prompt(serial=serial))


# --- files --------------------------------------------------------------------------------


def _json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE_BYTES:
        raise _unusable(path, f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _unusable(path, f"{place}: it is no JSON here ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _unusable(path, f"it is no JSON ({error})") from None


def _described(error: ValidationError) -> str:
    """Name every member at fault, and what it should be."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults
    )


def _place(location: tuple[int | str, ...]) -> str:
    """Write where a fault is as a person would: `answers[0].steps[1].tool_use.name`."""
    place = ""
    for index, item in enumerate(location):
        is_kind = index > 1 and location[index - 2] == "steps"  # Pydantic's tag, and no member.
        if isinstance(item, int):
            place += f"[{item}]"
        elif not is_kind:
            place += f".{item}"
    return place.removeprefix(".") or "the file"


def _unusable(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The script {str(path)!r} cannot be used: {why}.", next_step="Correct it there."
    )


# --- captures -----------------------------------------------------------------------------


def _captured(folder: Path) -> list[CannedAnswer]:
    exchanges = [one for one in read_capture(folder).exchanges if one.is_answer]
    if not exchanges:
        raise _unusable(folder, "no request of this capture was answered")
    scripts = [tuple(_played(one)) for one in exchanges]
    *first, last = [CannedAnswer(make=lambda _, script=script: script) for script in scripts]
    for answer in first:
        answer.times = 1
    return [*first, last]


def _played(exchange: Exchange) -> Iterator[Send | Pause | Cut | HttpAnswer]:
    facts = exchange.facts
    headers = {name.lower(): value for name, value in facts.response_headers.items()}
    if facts.status != 200:
        yield HttpAnswer(
            status=facts.status or 500,
            body=exchange.raw,
            content_type=headers.get("content-type", "application/json"),
            headers={name: headers[name] for name in _REPLAYED_HEADERS if name in headers},
        )
        return
    yield Send(exchange.raw)
    if facts.fault is not None and facts.fault.code != "stream_broken":
        yield Pause(MAX_STALL_SECONDS)  # It fell silent, until somebody's patience ended.
    if facts.fault is not None:
        yield Cut()


def _nothing_left(name: str) -> Script:
    words = f"The script {name!r} has no answer left."
    return (Send(frames.text(words) + frames.ending()),)
