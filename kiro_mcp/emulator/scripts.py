"""The answers of the emulator: makes the script for a prompt.

A script is a tuple of steps, as data, that the emulator plays to one caller. The HTTP head (status
200, an event stream) is sent with the first `Send`; `Send(b"")` sends only the head. After the
last step the answer ends normally.

A line `/emulate NAME` in the last user text picks the script NAME; one argument may follow. It can
be any line, because clients put system text before the prompt.

    text reasoning thinking split_tags      an answer, alone or with thinking in one of its forms
    tool_use parallel_tools                 calls of the declared tools; a JSON object after
                                            `tool_use` becomes the arguments
    truncated_tool                          a tool use that ends in the middle of its arguments
    slow SECONDS  long CHARACTERS  empty    an answer spread over time, of that size, of nothing
    refusal MODEL                           an answer that a filter refused, which may recommend a
                                            model
    stall SECONDS                           silence after the HTTP head, then a cut
    reset bad_crc exception                 some text, then: a cut inside a frame, a frame with a
                                            wrong checksum, an error inside the stream
    a name of `REFUSALS`                    a refusal such as `throttle` or `quota`; with a number
                                            N, only the first N times that this prompt comes

Source of truth: the service's published event and error models, and its streams as observed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeAlias

from starlette.responses import Response

from kiro_mcp.emulator import frames, refusals
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.request import AssistantMessage, Call, ToolSpec

MAX_PAUSE_SECONDS: Final = 600.0
"""The longest pause, stall and slow answer: a forgotten client must not hold the emulator."""

MAX_LONG_CHARACTERS: Final = 1_000_000
"""The longest text of `long`; its frames take about seven times as many bytes."""

ECHO_CHARACTERS: Final = 200
"""How much of the end of a prompt the canned answer repeats: enough to distinguish calls."""

BYTES_PER_TOKEN: Final = 4
"""The usual estimate of clients without a tokenizer."""

TOKENS_PER_IMAGE: Final = 1_600

DEFAULT_WINDOW_TOKENS: Final = 200_000
"""The window of a model whose catalogue entry has none."""

_COMMAND: Final = re.compile(
    r"^/emulate[ \t]+(?P<name>\w[\w.-]*)[ \t]*(?P<argument>.*)$", re.MULTILINE
)
_EXAMPLES: Final[Mapping[str, Any]] = {
    "array": [],
    "boolean": True,
    "integer": 1,
    "number": 1.5,
    "string": "example",
}


# --- steps


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes of the body: whole frames, parts of frames, or anything else."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Silence until the emulator has received this many prompts, including this one."""

    prompts: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Closes the connection in the middle of the answer. Later steps are not played."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An HTTP response instead of a stream; only before the first `Send`. It ends the script."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_response(self, _namespace: str) -> Response:
        """Return it for Starlette."""
        return Response(self.body, self.status, self.headers, self.content_type)


Step: TypeAlias = Send | Pause | Until | Cut | HttpAnswer | Refusal
"""A `Refusal` is an error response of the service; it can replace an `HttpAnswer`."""

Script: TypeAlias = tuple[Step, ...]


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Script:
    """Return the script of a JSON response."""
    return (HttpAnswer(status, json.dumps(value).encode(), headers=headers or {}),)


# --- prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The call to answer, as a script sees it."""

    said: str = ""
    """The last user text."""
    returned: str = ""
    """The text of the tool results in the call."""
    tools: Sequence[ToolSpec] = ()
    """The tools declared with the call."""
    model_id: str = "auto"
    """The model of the call."""
    tokens: int = 0
    """The approximate size of the whole request in tokens."""
    window_tokens: int = DEFAULT_WINDOW_TOKENS
    """The size of the model's context window in tokens."""
    serial: int = 1
    """Counts the calls of one emulator."""
    times: int = 1
    """How often this text has come, including this time."""
    retry_after_seconds: int = 1

    @property
    def name(self) -> str:
        """The script that the prompt names; "" if it names none."""
        command = _COMMAND.search(self.said)
        return command["name"] if command else ""

    @property
    def argument(self) -> str:
        """The rest of the line after the name."""
        command = _COMMAND.search(self.said)
        return command["argument"].strip() if command else ""

    def number(self, default: float, limit: float) -> float:
        """Return the argument as a number from 0 to `limit`; `default` if it is not a number."""
        try:
            return max(0.0, min(float(self.argument), limit))
        except ValueError:
            return default

    @property
    def canned_text(self) -> str:
        """The answer that repeats the end of the prompt."""
        answer = f"This is a canned answer of the emulator. You said: {_echo(self.said)}"
        return answer + f"\nYour tools said: {_echo(self.returned)}" if self.returned else answer

    def text(self, words: str, delta_characters: int = frames.DELTA_CHARACTERS) -> bytes:
        """Return frames in which the model of the call says something."""
        return frames.text(words, model_id=self.model_id, delta_characters=delta_characters)

    def ending(
        self, said: str, stop_reason: str = "END_TURN", refusal: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the last frames of an answer in which the model said all of `said`."""
        percent = 100 * (self.tokens + tokens_of(said)) / self.window_tokens
        return frames.ending(stop_reason, refusal=refusal, context_percent=min(100.0, percent))


def _echo(said: str) -> str:
    return said if len(said) <= ECHO_CHARACTERS else f"… {said[-ECHO_CHARACTERS:]}"


def tokens_of(said: str) -> int:
    """About how many tokens a text is."""
    return -(-len(said.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def tokens_sent(call: Call) -> int:
    """About how many tokens the model reads: the tools, and the content of every message.

    An image counts as a large one. The framing of the request counts for nothing.
    """
    read: list[str] = []
    for tool in call.tools:  # Pydantic's own JSON has a limit of depth.
        spec = {"name": tool.name, "description": tool.description}
        schema = {"document": tool.input_schema.document}
        read.append(frames.compact_json({**spec, "input_schema": schema}))
    for _, message in call.messages:
        read.append(message.content)
        if isinstance(message, AssistantMessage):
            read += (one for use in message.tool_uses for one in (use.name, _json(use.input)))
        else:
            results = message.context.tool_results
            read += (part.text or _json(part.value) for one in results for part in one.content)
    return tokens_of("".join(read)) + TOKENS_PER_IMAGE * len(call.images)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- the scripts


ScriptMaker: TypeAlias = Callable[[Prompt], Script]


def whole_answer(
    prompt: Prompt, words: str, delta_characters: int = frames.DELTA_CHARACTERS
) -> Script:
    """Return the script of a whole answer."""
    return (Send(prompt.text(words, delta_characters) + prompt.ending(words)),)


def _reasoning(prompt: Prompt) -> Script:
    thought, words = "The emulator reasons before it answers.", prompt.canned_text
    spoken = frames.reasoning(thought) + prompt.text(words)
    return (Send(spoken + prompt.ending(thought + words)),)


def _think_in_tags(prompt: Prompt, delta_characters: int) -> Script:
    thought = "The emulator thinks in tags before it answers."
    words = f"<thinking>\n{thought}\n</thinking>\n\n{prompt.canned_text}"
    return whole_answer(prompt, words, delta_characters)


def _tool_calls(prompt: Prompt, count: int) -> Iterator[tuple[str, str, str]]:
    """Yield ids, names and JSON arguments: of the declared tools in turn, or of an invented one."""
    given: object = None
    with suppress(ValueError, RecursionError):
        given = json.loads(prompt.argument)
    for index in range(count):
        name, arguments = "get_weather", {"city": "Paris"}
        if prompt.tools:
            tool = prompt.tools[index % len(prompt.tools)]
            name, arguments = tool.name, example_of(tool.input_schema.document)
        text = prompt.argument if isinstance(given, dict) else frames.compact_json(arguments)
        yield f"tooluse_Emulated{prompt.serial:06d}{index}", name, text


def example_of(schema: Mapping[str, Any], depth: int = 8) -> Any:
    """Return a value that matches a simple JSON Schema, with its required members only."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object" and depth > 0:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        return {name: example_of(properties.get(name, {}), depth - 1) for name in required}
    return _EXAMPLES.get(str(kind), {})


def _call_tools(prompt: Prompt, count: int) -> Script:
    calls, words = list(_tool_calls(prompt, count)), "Let me look."
    sent = b"".join(frames.tool_use(*call) for call in calls)
    said = words + "".join(arguments for _, _, arguments in calls)
    return (Send(prompt.text(words) + sent + prompt.ending(said, "TOOL_USE")),)


def _truncated_tool(prompt: Prompt) -> Script:
    ((tool_use_id, name, _),) = _tool_calls(prompt, count=1)
    arguments = '{"path": "notes.txt", "content": "On'
    sent = frames.unfinished_tool_use(tool_use_id, name, arguments)
    return (Send(prompt.text("Let me write it.") + sent),)


def _slow(prompt: Prompt) -> Script:
    words = re.findall(r"\S+\s*", prompt.canned_text)
    pause = Pause(prompt.number(2.0, MAX_PAUSE_SECONDS) / len(words))
    spoken = [step for word in words for step in (Send(prompt.text(word)), pause)]
    return (*spoken, Send(prompt.ending(prompt.canned_text)))


def _long(prompt: Prompt) -> Script:
    size = int(prompt.number(20_000, MAX_LONG_CHARACTERS))
    line = "This is canned line {:07d}.\n"
    lines = (line.format(number) for number in range(size // len(line.format(0)) + 1))
    return whole_answer(prompt, "".join(lines)[:size])


def _refusal(prompt: Prompt) -> Script:
    refusal = {
        "category": "REASONING_EXTRACTION",
        "explanation": "The emulator refuses to answer this.",
    }
    if prompt.argument:
        refusal["recommendedModel"] = prompt.argument
    return (Send(prompt.ending("", "CONTENT_FILTERED", refusal)),)


def _stall(prompt: Prompt) -> Script:
    return (Send(b""), Pause(prompt.number(MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS)), Cut())


def _reset(prompt: Prompt) -> Script:
    last = prompt.text("This frame is never whole.", 100)
    return (Send(prompt.text(prompt.canned_text) + last[: len(last) // 2]), Cut())


def _bad_crc(prompt: Prompt) -> Script:
    bad = frames.with_bad_checksum(prompt.text("This is never read.", 100))
    return (Send(prompt.text(prompt.canned_text) + bad),)


def _exception(prompt: Prompt) -> Script:
    message = "Encountered an unexpectedly high load, please try again."
    fault = frames.exception(message, "MODEL_TEMPORARILY_UNAVAILABLE")
    return (Send(prompt.text(prompt.canned_text) + fault),)


_WAITS_IN_HEADER: Final = ("throttle", "busy", "throttle_400")
_WAITS_IN_BODY: Final = ("user_rate", "service_rate")

REFUSALS: Final[Mapping[str, Refusal]] = {
    "throttle": refusals.THROTTLED,
    "throttle_400": refusals.THROTTLED_WITH_400,
    "user_rate": refusals.USER_RATE,
    "service_rate": refusals.SERVICE_RATE,
    "credit_rate": refusals.CREDIT_RATE,
    "busy": refusals.MODEL_BUSY,
    "quota": refusals.QUOTA_EXHAUSTED,
    "overage": refusals.OVERAGE,
    "usage_limit": refusals.USAGE_LIMIT,
    "suspended": refusals.SUSPENDED,
    "suspicious": refusals.SUSPICIOUS,
    "expired": refusals.BAD_BEARER,
    "origin": refusals.WRONG_ORIGIN,
    "invalid_model": refusals.INVALID_MODEL,
    "too_long": refusals.PROMPT_TOO_LONG,
    "window_full": refusals.WINDOW_FULL,
    "malformed": refusals.MALFORMED,
    "failed": refusals.FAILED,
    "unavailable": refusals.UNAVAILABLE,
}
"""The refusals that a prompt can pick, by the names of their scripts."""


def _refuse(name: str, prompt: Prompt) -> Script:
    if prompt.times > prompt.number(float("inf"), float("inf")):
        return whole_answer(prompt, prompt.canned_text)
    refusal, seconds = REFUSALS[name], prompt.retry_after_seconds
    if name in _WAITS_IN_HEADER:
        refusal = refusal.with_headers({"retry-after": str(seconds)})
    elif name in _WAITS_IN_BODY:
        refusal = replace(refusal, retry_after_milliseconds=seconds * 1000)
    return (refusal,)


BUILT_IN: Final[Mapping[str, ScriptMaker]] = {
    "text": lambda prompt: whole_answer(prompt, prompt.canned_text),
    "thinking": lambda prompt: _think_in_tags(prompt, frames.DELTA_CHARACTERS),
    "split_tags": lambda prompt: _think_in_tags(prompt, 3),
    "reasoning": _reasoning,
    "tool_use": lambda prompt: _call_tools(prompt, count=1),
    "parallel_tools": lambda prompt: _call_tools(prompt, count=2),
    "truncated_tool": _truncated_tool,
    **{name: partial(_refuse, name) for name in REFUSALS},
    "stall": _stall,
    "reset": _reset,
    "bad_crc": _bad_crc,
    "exception": _exception,
    "slow": _slow,
    "long": _long,
    "empty": lambda prompt: (Send(prompt.ending("")),),
    "refusal": _refusal,
}
"""Every script that a prompt can pick."""
