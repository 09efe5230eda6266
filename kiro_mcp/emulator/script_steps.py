"""The steps of a script file: JSON in, the emulator's own steps out.

What each means, `kiro_mcp.emulator.script_files` says. Pydantic checks them, because strangers
write them, and names the member that is wrong.
"""

from base64 import b64decode
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from kiro_mcp.emulator import frames
from kiro_mcp.emulator.prompt import Prompt
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.scripts import BUILT_IN
from kiro_mcp.emulator.steps import Cut, HttpAnswer, Pause, Script, Send, Until

MAX_PAUSE_SECONDS: Final = 600.0
"""The longest pause: a forgotten client must not hold the emulator for ever."""

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$")]
Headers = dict[HeaderName, HeaderValue]


def _checked_name(name: str) -> str:
    if name not in BUILT_IN:
        raise ValueError(f"there is no script {name!r}; there are {', '.join(BUILT_IN)}")
    return name


def _decoded(given: object) -> bytes:
    try:
        return b64decode(given if isinstance(given, str) else "?", validate=True)
    except ValueError:
        raise ValueError("must be a text of base64") from None


class Strict(BaseModel):
    """An object of a script file. Members that it does not have are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Text(Strict):
    text: str

    def played(self, prompt: Prompt, _number: int) -> Script:
        return (Send(frames.text(self.text, model_id=prompt.model_id)),)


class _Reasoning(Strict):
    reasoning: str

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Send(frames.reasoning(self.reasoning)),)


class _Call(Strict):
    name: Annotated[str, StringConstraints(min_length=1)]
    arguments: dict[str, Any] | str = Field(default_factory=dict[str, Any])
    id: str = ""
    unfinished: bool = False


class _ToolUse(Strict):
    tool_use: _Call

    def played(self, prompt: Prompt, number: int) -> Script:
        call = self.tool_use
        given = call.arguments
        arguments = given if isinstance(given, str) else frames.compact_json(given)
        tool_use_id = call.id or f"tooluse_Scripted{prompt.serial:06d}{number}"
        write = frames.unfinished_tool_use if call.unfinished else frames.tool_use
        return (Send(write(tool_use_id, call.name, arguments)),)


class _End(Strict):
    end: str | None

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Send(b"" if self.end is None else frames.ending(self.end)),)


class _Pause(Strict):
    pause: Annotated[float, Field(ge=0, le=MAX_PAUSE_SECONDS)]

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Pause(self.pause),)


class _UntilPrompts(Strict):
    until_prompts: Annotated[int, Field(ge=1)]

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Until(self.until_prompts),)


class _Cut(Strict):
    cut: Literal[True]

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Cut(),)


class _OneEvent(Strict):
    type: str
    payload: dict[str, Any] = Field(default_factory=dict[str, Any])


class _Event(Strict):
    event: _OneEvent

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Send(frames.event(self.event.type, self.event.payload)),)


class _Base64(Strict):
    base64: Annotated[bytes, BeforeValidator(_decoded)]

    def played(self, _prompt: Prompt, _number: int) -> Script:
        return (Send(self.base64),)


class _OneException(Strict):
    message: str
    reason: str = ""
    type: str = "error"


class _Exception(Strict):
    exception: _OneException

    def played(self, _prompt: Prompt, _number: int) -> Script:
        said = self.exception
        return (Send(frames.exception(said.message, said.reason, exception_type=said.type)),)


class _OneRefusal(Strict):
    status: Annotated[int, Field(ge=400, le=599)]
    type: HeaderValue
    message: str = ""
    reason: str | None = None
    retry_after_milliseconds: Annotated[int, Field(ge=0)] | None = None
    headers: Headers = Field(default_factory=Headers)


class _Refusal(Strict):
    refusal: _OneRefusal

    def played(self, _prompt: Prompt, _number: int) -> Script:
        said = self.refusal
        return (
            Refusal(
                status=said.status,
                error_type=said.type,
                message=said.message,
                reason=said.reason,
                retry_after_milliseconds=said.retry_after_milliseconds,
                headers=said.headers,
            ),
        )


class _OneHttp(Strict):
    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: Headers = Field(default_factory=Headers)
    body: str = ""


class _Http(Strict):
    http: _OneHttp

    def played(self, _prompt: Prompt, _number: int) -> Script:
        headers = {name.lower(): value for name, value in self.http.headers.items()}
        return (
            HttpAnswer(
                status=self.http.status,
                body=self.http.body.encode(errors="replace"),
                content_type=headers.pop("content-type", "text/plain"),
                headers=headers,
            ),
        )


class _Emulate(Strict):
    emulate: Annotated[str, AfterValidator(_checked_name)]

    def played(self, prompt: Prompt, _number: int) -> Script:
        return BUILT_IN[self.emulate](prompt)


def _kind(given: object) -> str | None:
    """Return the one member that a step has, which says what kind it is."""
    members = cast("dict[object, object]", given) if isinstance(given, dict) else {}
    return str(next(iter(members))) if len(members) == 1 else None


_AnyStep: TypeAlias = (
    Annotated[_Text, Tag("text")]
    | Annotated[_Reasoning, Tag("reasoning")]
    | Annotated[_ToolUse, Tag("tool_use")]
    | Annotated[_End, Tag("end")]
    | Annotated[_Pause, Tag("pause")]
    | Annotated[_UntilPrompts, Tag("until_prompts")]
    | Annotated[_Cut, Tag("cut")]
    | Annotated[_Event, Tag("event")]
    | Annotated[_Base64, Tag("base64")]
    | Annotated[_Exception, Tag("exception")]
    | Annotated[_Refusal, Tag("refusal")]
    | Annotated[_Http, Tag("http")]
    | Annotated[_Emulate, Tag("emulate")]
)
KINDS: Final = tuple(get_args(kind)[1].tag for kind in get_args(_AnyStep))

Step = Annotated[
    _AnyStep,
    Discriminator(
        _kind,
        custom_error_type="step",
        custom_error_message=f"A step has exactly one member, one of: {', '.join(KINDS)}",
    ),
]
"""One step, an object with one member."""


def is_spoken(step: Step) -> bool:
    """Whether the model says something in it."""
    return isinstance(step, _Text | _Reasoning | _ToolUse)


def calls_tool(step: Step) -> bool:
    """Whether the model asks for a tool in it."""
    return isinstance(step, _ToolUse)


def is_silent(step: Step) -> bool:
    """Whether nothing is sent in it."""
    return isinstance(step, _Pause | _UntilPrompts)


def is_whole(step: Step) -> bool:
    """Whether it is an answer of its own, before and after which nothing can be sent."""
    return isinstance(step, _Refusal | _Http | _Emulate)


def is_last(step: Step) -> bool:
    """Whether nothing after it would be played."""
    return isinstance(step, _Cut) or is_whole(step)
