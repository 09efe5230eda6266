"""The answers of the emulator: a prompt in, a script out.

A line `/emulate NAME` in the last user text picks the script NAME, and one argument may follow:

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
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias

from kiro_mcp.emulator import frames, refusals
from kiro_mcp.emulator.body import items, members, text
from kiro_mcp.emulator.prompt import Prompt
from kiro_mcp.emulator.refusals import Refusal
from kiro_mcp.emulator.steps import Cut, Pause, Script, Send

MAX_STALL_SECONDS: Final = 600.0
"""A stalled answer is cut after this long, so that a forgotten client cannot hold it for ever."""

MAX_SLOW_SECONDS: Final = 600.0
"""The longest that `slow` takes."""

MAX_LONG_CHARACTERS: Final = 1_000_000
"""The longest text of `long`; its frames take about seven times as many bytes."""

_EXAMPLES: Final[Mapping[str, object]] = {
    "array": [],
    "boolean": True,
    "integer": 1,
    "number": 1.5,
    "string": "example",
}

ScriptMaker: TypeAlias = Callable[[Prompt], Script]


def unknown(prompt: Prompt, known: Sequence[str]) -> Script:
    """The answer to a name that is no script's."""
    answer = f"The emulator has no script {prompt.name!r}. It has: {', '.join(known)}."
    return (Send(_say(prompt, answer) + _end(prompt, answer)),)


def _say(prompt: Prompt, words: str, *, delta_characters: int = frames.DELTA_CHARACTERS) -> bytes:
    return frames.text(words, model_id=prompt.model_id, delta_characters=delta_characters)


def _end(prompt: Prompt, said: str, stop_reason: str = "END_TURN") -> bytes:
    """The end of an answer in which the model has said all this."""
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
    for index in range(count):
        spec = specs[index % len(specs)]
        schema = members(spec.get("inputSchema")).get("json")
        arguments = example_of(schema) if prompt.tools else {"city": "Paris"}
        asked = prompt.argument if _is_json_object(prompt.argument) else ""
        yield (
            f"tooluse_Emulated{prompt.serial:06d}{index}",
            text(spec.get("name")),
            asked or frames.compact_json(arguments),
        )


def _is_json_object(argument: str) -> bool:
    try:
        return isinstance(json.loads(argument), dict)
    except (ValueError, RecursionError):
        return False


def example_of(schema: object, depth: int = 8) -> object:
    """A value that plain JSON Schema takes: the first of an enum, every required member."""
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


def _tool_use(prompt: Prompt) -> Script:
    return _call_tools(prompt, count=1)


def _parallel_tools(prompt: Prompt) -> Script:
    return _call_tools(prompt, count=2)


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
    line_length = len(_line(0))
    lines = "".join(_line(number) for number in range(size // line_length + 1))
    return (Send(_say(prompt, lines[:size]) + _end(prompt, lines[:size])),)


def _line(number: int) -> str:
    return f"This is canned line {number:07d}.\n"


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
        "tool_use": _tool_use,
        "parallel_tools": _parallel_tools,
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
