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
from types import MappingProxyType
from typing import Final, TypeAlias

from kiro_mcp.emulator import frames, refusals
from kiro_mcp.emulator.body import Conversation, items, members, text
from kiro_mcp.emulator.catalogue import Model
from kiro_mcp.emulator.refusals import Refusal

MAX_STALL_SECONDS: Final = 600.0
"""A stalled answer is cut after this time, so that a forgotten client does not hold it."""

MAX_SLOW_SECONDS: Final = 600.0
"""The longest time that `slow` takes."""

MAX_LONG_CHARACTERS: Final = 1_000_000
"""The longest text of `long`; its frames take about seven times as many bytes."""

_EXAMPLES: Final[Mapping[str, object]] = {
    "array": [],
    "boolean": True,
    "integer": 1,
    "number": 1.5,
    "string": "example",
}


ECHO_CHARACTERS: Final = 200
"""How much of the end of a prompt the canned answer repeats: enough to distinguish calls."""

_COMMAND: Final = re.compile(
    r"^/emulate[ \t]+(?P<name>\w[\w.-]*)[ \t]*(?P<argument>.*)$", re.MULTILINE
)


BYTES_PER_TOKEN: Final = 4
"""The usual estimate of clients without a tokenizer."""

TOKENS_PER_IMAGE: Final = 1_600

DEFAULT_WINDOW_TOKENS: Final = 200_000
"""The window of a model that the catalogue does not describe."""


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


def _no_headers() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """An HTTP response instead of a stream; only before the first `Send`. It ends the script."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=_no_headers)


Step: TypeAlias = Send | Pause | Until | Cut | HttpAnswer | Refusal
"""A `Refusal` is an error response of the service; it can replace an `HttpAnswer`."""

Script: TypeAlias = tuple[Step, ...]


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Script:
    """Return the script of a JSON response."""
    return (HttpAnswer(status=status, body=json.dumps(value).encode(), headers=headers or {}),)


# --- prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The call to answer, as a script sees it."""

    name: str = "text"
    """The name of the script to play."""
    is_command: bool = False
    """Whether the prompt itself names the script."""
    argument: str = ""
    """The rest of the line after its name."""
    said: str = ""
    """The last user text."""
    model_id: str = "auto"
    """The model of the call."""
    tools: Sequence[Mapping[str, object]] = ()
    """The tool specs declared with the call."""
    returned: str = ""
    """The text of the tool results in the call."""
    serial: int = 1
    """Counts the calls of one emulator."""
    times: int = 1
    """How often this text has come, including this time."""
    retry_after_seconds: int = 1
    tokens: int = 0
    """The approximate size of the whole request in tokens."""
    window_tokens: int = DEFAULT_WINDOW_TOKENS
    """The size of the model's context window in tokens."""

    @classmethod
    def read(
        cls,
        body: object,
        *,
        serial: int,
        count: Callable[[str], int],
        retry_after_seconds: int,
        catalogue: Sequence[Model],
    ) -> "Prompt":
        """Read the body of a request; `count` counts how often a text has come."""
        conversation = Conversation(body)
        current = conversation.current
        said = current.content.strip()
        command = _COMMAND.search(said)
        results = current.tool_results
        contents = [part for result in results for part in items(result.get("content"))]
        model_id = text(current.message.get("modelId")) or "auto"
        return cls(
            name=command["name"] if command else "text",
            is_command=command is not None,
            argument=command["argument"].strip() if command else "",
            said=said,
            model_id=model_id,
            tools=conversation.tool_specs,
            returned=" ".join(text(members(part).get("text")) for part in contents).strip(),
            serial=serial,
            times=count(said),
            retry_after_seconds=retry_after_seconds,
            tokens=tokens_sent(conversation),
            window_tokens=context_window(catalogue, model_id),
        )

    def number(self, default: float, limit: float) -> float:
        """Return the argument as a number from 0 to `limit`; `default` if it is not a number."""
        try:
            return max(0.0, min(float(self.argument), limit))
        except ValueError:
            return default

    def context_percent(self, said: str) -> float:
        """How full the context window is after the prompt and its answer, from 0 to 100."""
        return min(100.0, 100 * (self.tokens + tokens_of(said)) / self.window_tokens)

    @property
    def canned_text(self) -> str:
        """The answer that repeats the end of the prompt."""
        answer = f"This is a canned answer of the emulator. You said: {_echo(self.said)}"
        return answer + f"\nYour tools said: {_echo(self.returned)}" if self.returned else answer


def _echo(said: str) -> str:
    return said if len(said) <= ECHO_CHARACTERS else f"… {said[-ECHO_CHARACTERS:]}"


def tokens_of(said: str) -> int:
    """About how many tokens a text is."""
    return -(-len(said.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def tokens_sent(conversation: Conversation) -> int:
    """About how many tokens the model reads: its tools, and every message in order.

    An image counts as a large one. The framing of the request counts for nothing.
    """
    read: list[str] = [json.dumps(spec, ensure_ascii=False) for spec in conversation.tool_specs]
    images = 0
    for turn in conversation.turns:
        read.append(turn.content)
        for use in turn.tool_uses:
            read += (text(use.get("name")), json.dumps(use.get("input"), ensure_ascii=False))
        for result in turn.tool_results:
            parts = items(result.get("content"))
            read += (json.dumps(part, ensure_ascii=False) for part in parts)
        images += len(turn.images)
    return tokens_of("".join(read)) + TOKENS_PER_IMAGE * images


def context_window(catalogue: Sequence[Model], model_id: str) -> int:
    """How many tokens the context window of a model takes."""
    limits = (model.get("tokenLimits") for model in catalogue if model["modelId"] == model_id)
    tokens = members(next(limits, None)).get("maxInputTokens")
    return tokens if isinstance(tokens, int) and tokens > 0 else DEFAULT_WINDOW_TOKENS


# --- the scripts


ScriptMaker: TypeAlias = Callable[[Prompt], Script]


def unknown(prompt: Prompt, known: Sequence[str]) -> Script:
    """Return the answer to a prompt that names an unknown script."""
    answer = f"The emulator has no script {prompt.name!r}. It has: {', '.join(known)}."
    return (Send(_say(prompt, answer) + _end(prompt, answer)),)


def _say(prompt: Prompt, words: str, *, delta_characters: int = frames.DELTA_CHARACTERS) -> bytes:
    return frames.text(words, model_id=prompt.model_id, delta_characters=delta_characters)


def _end(prompt: Prompt, said: str, stop_reason: str = "END_TURN") -> bytes:
    """The end of an answer, after all that the model said."""
    return frames.ending(stop_reason, context_percent=prompt.context_percent(said))


def _text(prompt: Prompt) -> Script:
    words = prompt.canned_text
    return (Send(_say(prompt, words) + _end(prompt, words)),)


def _reasoning(prompt: Prompt) -> Script:
    thought, words = "The emulator reasons before it answers.", prompt.canned_text
    spoken = frames.reasoning(thought) + _say(prompt, words)
    return (Send(spoken + _end(prompt, thought + words)),)


def _tagged(prompt: Prompt) -> str:
    thought = "The emulator thinks in tags before it answers."
    return f"<thinking>\n{thought}\n</thinking>\n\n{prompt.canned_text}"


def _thinking(prompt: Prompt) -> Script:
    words = _tagged(prompt)
    return (Send(_say(prompt, words) + _end(prompt, words)),)


def _split_tags(prompt: Prompt) -> Script:
    words = _tagged(prompt)
    return (Send(_say(prompt, words, delta_characters=3) + _end(prompt, words)),)


def _tool_calls(prompt: Prompt, count: int) -> Iterator[tuple[str, str, str]]:
    """Ids, names and JSON arguments: of the declared tools in turn, or of an invented one."""
    specs = prompt.tools or [{"name": "get_weather"}]
    given = ""
    with suppress(ValueError, RecursionError):
        given = prompt.argument if isinstance(json.loads(prompt.argument), dict) else ""
    for index in range(count):
        spec = specs[index % len(specs)]
        schema = members(spec.get("inputSchema")).get("json")
        arguments = example_of(schema) if prompt.tools else {"city": "Paris"}
        yield (
            f"tooluse_Emulated{prompt.serial:06d}{index}",
            text(spec.get("name")),
            given or frames.compact_json(arguments),
        )


def example_of(schema: object, depth: int = 8) -> object:
    """Return a value that matches a simple JSON Schema, with its required members only."""
    spec = members(schema)
    choices = items(spec.get("enum"))
    if choices:
        return choices[0]
    kind = spec.get("type", "object")
    if kind == "object" and depth > 0:
        properties = members(spec.get("properties"))
        required = [text(name) for name in items(spec.get("required"))]
        return {name: example_of(properties.get(name), depth - 1) for name in required}
    return _EXAMPLES.get(text(kind), {})


def _call_tools(prompt: Prompt, count: int) -> Script:
    calls, words = list(_tool_calls(prompt, count)), "Let me look."
    frames_of_calls = b"".join(frames.tool_use(*call) for call in calls)
    said = words + "".join(arguments for _, _, arguments in calls)
    return (Send(_say(prompt, words) + frames_of_calls + _end(prompt, said, "TOOL_USE")),)


def _truncated_tool(prompt: Prompt) -> Script:
    ((tool_use_id, name, _),) = _tool_calls(prompt, count=1)
    cut_short = frames.unfinished_tool_use(
        tool_use_id, name, '{"path": "notes.txt", "content": "On'
    )
    return (Send(_say(prompt, "Let me write it.") + cut_short),)


def _slow(prompt: Prompt) -> Script:
    words = re.findall(r"\S+\s*", prompt.canned_text)
    pause = Pause(prompt.number(2.0, MAX_SLOW_SECONDS) / len(words))
    spoken = [step for word in words for step in (Send(_say(prompt, word)), pause)]
    return (*spoken, Send(_end(prompt, prompt.canned_text)))


def _long(prompt: Prompt) -> Script:
    size = int(prompt.number(20_000, MAX_LONG_CHARACTERS))
    line = "This is canned line {:07d}.\n"
    words = "".join(line.format(number) for number in range(size // len(line.format(0)) + 1))[:size]
    return (Send(_say(prompt, words) + _end(prompt, words)),)


def _empty(prompt: Prompt) -> Script:
    return (Send(_end(prompt, "")),)


def _refusal(prompt: Prompt) -> Script:
    refusal = {
        "category": "REASONING_EXTRACTION",
        "explanation": "The emulator refuses to answer this.",
        **({"recommendedModel": prompt.argument} if prompt.argument else {}),
    }
    context_percent = prompt.context_percent("")
    return (
        Send(frames.ending("CONTENT_FILTERED", refusal=refusal, context_percent=context_percent)),
    )


def _stall(prompt: Prompt) -> Script:
    return (Send(b""), Pause(prompt.number(MAX_STALL_SECONDS, MAX_STALL_SECONDS)), Cut())


def _reset(prompt: Prompt) -> Script:
    last = _say(prompt, "This frame is never whole.", delta_characters=100)
    return (Send(_say(prompt, prompt.canned_text) + last[: len(last) // 2]), Cut())


def _bad_crc(prompt: Prompt) -> Script:
    bad = frames.with_bad_checksum(_say(prompt, "This is never read.", delta_characters=100))
    return (Send(_say(prompt, prompt.canned_text) + bad),)


def _exception(prompt: Prompt) -> Script:
    fault = frames.exception(
        "Encountered an unexpectedly high load, please try again.",
        "MODEL_TEMPORARILY_UNAVAILABLE",
    )
    return (Send(_say(prompt, prompt.canned_text) + fault),)


_WAITS_IN_HEADER: Final = ("throttle", "busy", "throttle_400")
_WAITS_IN_BODY: Final = ("user_rate", "service_rate")

REFUSALS: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
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
)
"""The refusals that a prompt can pick, by the names of their scripts."""


def _refusing(name: str) -> ScriptMaker:
    def script(prompt: Prompt) -> Script:
        if prompt.times > prompt.number(float("inf"), float("inf")):
            return _text(prompt)
        refusal, seconds = REFUSALS[name], prompt.retry_after_seconds
        if name in _WAITS_IN_HEADER:
            refusal = refusal.with_headers({"retry-after": str(seconds)})
        elif name in _WAITS_IN_BODY:
            refusal = replace(refusal, retry_after_milliseconds=seconds * 1000)
        return (refusal,)

    return script


BUILT_IN: Final[Mapping[str, ScriptMaker]] = MappingProxyType(
    {
        "text": _text,
        "thinking": _thinking,
        "reasoning": _reasoning,
        "tool_use": lambda prompt: _call_tools(prompt, count=1),
        "parallel_tools": lambda prompt: _call_tools(prompt, count=2),
        "split_tags": _split_tags,
        "truncated_tool": _truncated_tool,
        **{name: _refusing(name) for name in REFUSALS},
        "stall": _stall,
        "reset": _reset,
        "bad_crc": _bad_crc,
        "exception": _exception,
        "slow": _slow,
        "long": _long,
        "empty": _empty,
        "refusal": _refusal,
    }
)
"""Every script that a prompt can pick."""
