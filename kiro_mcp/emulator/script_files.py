"""Scripts in files: answers for your own agent's tests.

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

    name      the name for `/emulate NAME` in a prompt; by default the file's name
    answers   when    answers prompts that contain this, in the user's text or in tool results;
                      "", the default, matches all prompts
              times   how often the answer may be played; by default without limit
              steps   the steps to play, each one of the following

    {"text": "…"}  {"reasoning": "…"}     the model says this, in small deltas
    {"tool_use": {"name": "…", "arguments": {…}}}    the model calls a tool; `arguments` that are a
                                          string are sent unchanged. More members: "id", and
                                          "unfinished": true
    {"end": "END_TURN"}                   the end of the answer, with a stop reason; {"end": null}
                                          ends it without one. It is added if the last thing sent
                                          is something that the model says
    {"pause": 1.5}                        send nothing for this many seconds
    {"until_prompts": 2}                  send nothing until the emulator has received this many
                                          prompts
    {"cut": true}                         close the connection
    {"event": {"type": "…", "payload": {…}}}  {"base64": "…"}    your own frame; your own bytes
    {"exception": {"message": "…", "reason": "…"}}    an error inside the stream
    {"refusal": {"status": 429, "type": "ThrottlingException", "message": "…"}}   an error response
                                          of the service. More members: "reason", "headers",
                                          "retry_after_milliseconds"
    {"http": {"status": 502, "headers": {}, "body": "…"}}    any other HTTP response
    {"emulate": "throttle"}               the built-in script with this name

Only pauses can come before one of the last three, and nothing after it. A prompt with
`/emulate NAME` is answered by the script with this name, and `when` is ignored; any other prompt
gets the first answer that matches, from the files in their order. The folder of a captured call is
a script, too: each prompt gets the next captured response, and after the last one that one again.
"""

import math
import re
from base64 import b64decode
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from kiro_mcp.captures.folder import Exchange, read_capture
from kiro_mcp.emulator import frames
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.request import describe_errors
from kiro_mcp.emulator.scripts import (
    BUILT_IN,
    MAX_PAUSE_SECONDS,
    Cut,
    HttpAnswer,
    Pause,
    Prompt,
    Script,
    ScriptMaker,
    Send,
    Step,
    Until,
    whole_answer,
)
from kiro_mcp.errors import InvalidRequest

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
"""The largest file that is read."""

_NO_NAME: Final = re.compile(r"^\W+|[^\w.-]+")

_REPLAYED_HEADERS: Final = ("retry-after", "x-amzn-errortype")
"""The headers of a captured refusal that are sent again."""


@dataclass(slots=True)
class CannedAnswer:
    """An answer of a script."""

    make: ScriptMaker
    when: str = ""
    """It answers prompts that contain this."""
    times: float = math.inf
    """How often it can still be played."""


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A script from a file."""

    name: str
    answers: Sequence[CannedAnswer]

    def script_for(self, prompt: Prompt) -> Script:
        """Return the answer to a prompt; () if this script does not answer it."""
        if prompt.name not in ("", self.name):
            return ()
        said = f"{prompt.said}\n{prompt.returned}"
        for answer in self.answers:
            if answer.times and (prompt.name or answer.when in said):
                answer.times -= 1
                return answer.make(prompt)
        if not prompt.name:
            return ()
        return whole_answer(prompt, f"The script {self.name!r} has no answer left.")


def read_script(path: Path) -> ScriptFile:
    """Read a script: a file, or the folder of a captured call.

    Raises:
        InvalidRequest: It cannot be read or played; names the line or the member at fault.
    """
    name = _NO_NAME.sub("-", path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_dir():
        return ScriptFile(name, _captured(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE_BYTES:
        raise _unusable(path, f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        script = _File.model_validate_json(data.removeprefix(BOM_UTF8))
    except ValidationError as error:
        raise _unusable(path, _describe(error)) from None
    answers = [CannedAnswer(one.script, one.when, one.times or math.inf) for one in script.answers]
    return ScriptFile(script.name or name, answers)


def read_steps(steps: object, *, serial: int) -> Script:
    """Read the steps of one answer, already parsed, for the next prompt whatever it is.

    Args:
        steps: What a file has under `steps`.
        serial: A number that no other answer has, for the ids of its tool uses.

    Raises:
        InvalidRequest: They cannot be played; names the member at fault.
    """
    try:
        answer = _Answer.model_validate({"steps": steps})
    except ValidationError as error:
        raise InvalidRequest(f"These steps cannot be played: {_describe(error)}.") from None
    return answer.script(Prompt(serial=serial))


# --- the members of a file ------------------------------------------------------------------


def _check_name(name: str) -> str:
    if name not in BUILT_IN:
        raise ValueError(f"unknown script {name!r}; known are {', '.join(BUILT_IN)}")
    return name


def _decode(given: object) -> bytes:
    try:
        return b64decode(given if isinstance(given, str) else "?", validate=True)
    except ValueError:
        raise ValueError("must be a base64 string") from None


_HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
_HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$")]
_Headers = dict[_HeaderName, _HeaderValue]


class _Strict(BaseModel):
    """An object of a script file. Unknown members are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _ToolUse(_Strict):
    name: Annotated[str, StringConstraints(min_length=1)]
    arguments: dict[str, Any] | str = Field(default_factory=dict[str, Any])
    id: str = ""
    unfinished: bool = False


class _Event(_Strict):
    type: str
    payload: dict[str, Any] = Field(default_factory=dict[str, Any])


class _Exception(_Strict):
    message: str
    reason: str = ""
    type: str = "error"


class _Refusal(_Strict):
    status: Annotated[int, Field(ge=400, le=599)]
    type: _HeaderValue
    message: str = ""
    reason: str | None = None
    retry_after_milliseconds: Annotated[int, Field(ge=0)] | None = None
    headers: _Headers = Field(default_factory=_Headers)


class _Http(_Strict):
    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: _Headers = Field(default_factory=_Headers)
    body: str = ""

    def answer(self) -> HttpAnswer:
        headers = {name.lower(): value for name, value in self.headers.items()}
        content_type = headers.pop("content-type", "text/plain")
        body = self.body.encode(errors="replace")
        return HttpAnswer(self.status, body, content_type, headers)


class _Step(_Strict):
    """One step: exactly one of these members is given."""

    text: str | None = None
    reasoning: str | None = None
    tool_use: _ToolUse | None = None
    end: str | None = None
    pause: Annotated[float, Field(ge=0, le=MAX_PAUSE_SECONDS)] | None = None
    until_prompts: Annotated[int, Field(ge=1)] | None = None
    cut: Literal[True] | None = None
    event: _Event | None = None
    base64: Annotated[bytes, BeforeValidator(_decode)] | None = None
    exception: _Exception | None = None
    refusal: _Refusal | None = None
    http: _Http | None = None
    emulate: Annotated[str, AfterValidator(_check_name)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_members(cls, given: object) -> object:
        members = cast("dict[str, object]", given) if isinstance(given, dict) else {}
        kind = next(iter(members), "")
        if len(members) != 1 or kind not in KINDS:
            raise ValueError(f"A step has exactly one member, one of: {', '.join(KINDS)}")
        if members[kind] is None and kind != "end":
            raise ValueError(f"{kind} must not be null")
        return members

    @property
    def kind(self) -> str:
        """The name of its member."""
        return next(iter(self.model_fields_set))

    @property
    def said(self) -> str:
        """What the model says in it."""
        call = self.tool_use
        arguments = call.arguments if call else ""
        written = arguments if isinstance(arguments, str) else frames.compact_json(arguments)
        return self.text or self.reasoning or written

    def play(self, prompt: Prompt, number: int, said: str) -> Script:
        """Return what this step does, which has a number in its answer and comes after `said`."""
        given: Any = getattr(self, self.kind)
        match self.kind:
            case "text":
                sent = prompt.text(given)
            case "reasoning":
                sent = frames.reasoning(given)
            case "tool_use":
                tool_use_id = given.id or f"tooluse_Scripted{prompt.serial:06d}{number}"
                write = frames.unfinished_tool_use if given.unfinished else frames.tool_use
                sent = write(tool_use_id, given.name, self.said)
            case "end":
                sent = b"" if given is None else prompt.ending(said, given)
            case "event":
                sent = frames.event(given.type, given.payload)
            case "base64":
                sent = given
            case "exception":
                sent = frames.exception(given.message, given.reason, exception_type=given.type)
            case "pause":
                return (Pause(given),)
            case "until_prompts":
                return (Until(given),)
            case "cut":
                return (Cut(),)
            case "refusal":
                return (Refusal(error_type=given.type, **given.model_dump(exclude={"type"})),)
            case "http":
                return (given.answer(),)
            case _:
                return BUILT_IN[given](prompt)
        return (Send(sent),)


KINDS: Final = tuple(_Step.model_fields)
"""The steps that there are."""

_SPOKEN: Final = ("text", "reasoning", "tool_use")
"""The steps in which the model says something."""

_SILENT: Final = ("pause", "until_prompts")
"""The steps in which nothing is sent."""

_WHOLE: Final = ("refusal", "http", "emulate")
"""The steps that are whole answers: nothing can be sent before or after them."""


class _Answer(_Strict):
    when: str = ""
    times: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[list[_Step], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_order(self) -> "_Answer":
        for number, step in enumerate(self.steps):
            is_last = step.kind in ("cut", *_WHOLE)
            if is_last and number < len(self.steps) - 1:
                raise ValueError(f"nothing after steps[{number}] would be played")
            if step.kind in _WHOLE and any(one.kind not in _SILENT for one in self.steps[:number]):
                raise ValueError(f"only pauses can be before steps[{number}]")
        return self

    def script(self, prompt: Prompt) -> Script:
        """Return all steps as one script, with an end if the last one that is not silent spoke."""
        script: list[Step] = []
        said = ""
        for number, step in enumerate(self.steps):
            said += step.said
            script += step.play(prompt, number, said)
        kinds = [step.kind for step in self.steps if step.kind not in _SILENT]
        if kinds and kinds[-1] in _SPOKEN:
            reason = "TOOL_USE" if "tool_use" in kinds else "END_TURN"
            script.append(Send(prompt.ending(said, reason)))
        return tuple(script)


class _File(_Strict):
    name: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")] = ""
    answers: Annotated[list[_Answer], Field(min_length=1)]


# --- errors ----------------------------------------------------------------------------------


def _describe(error: ValidationError) -> str:
    """Name every member at fault and what it should be: `answers[0].steps: Field required`."""
    return "; ".join(
        f"{location.removeprefix('.') or 'the file'}: {message}"
        for _, location, message in describe_errors(error)
    )


def _unusable(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The script {str(path)!r} cannot be used: {why}.", next_step="Correct it there."
    )


# --- captured calls -------------------------------------------------------------------------


def _captured(folder: Path) -> list[CannedAnswer]:
    scripts = [_replay(exchange) for exchange in read_capture(folder) if exchange.is_answer]
    if not scripts:
        raise _unusable(folder, "no request of this capture was answered")
    answers = [CannedAnswer(lambda _, script=script: script, times=1) for script in scripts]
    answers[-1].times = math.inf
    return answers


def _replay(exchange: Exchange) -> Script:
    facts = exchange.facts
    headers = {name.lower(): value for name, value in facts.response_headers.items()}
    if facts.status != 200:
        replayed = {name: headers[name] for name in _REPLAYED_HEADERS if name in headers}
        content_type = headers.get("content-type", "application/json")
        return (HttpAnswer(facts.status or 500, exchange.raw, content_type, replayed),)
    sent = Send(exchange.raw)
    if facts.fault is None:
        return (sent,)
    if facts.fault.code == "stream_broken":
        return (sent, Cut())
    return (sent, Pause(MAX_PAUSE_SECONDS), Cut())  # It sent nothing until a timeout.
