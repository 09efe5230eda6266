"""Inputs that callers and the service may send and that could hold up everybody else.

Each is one call of `ask_claude`: its arguments, and what the service answers to it. Sizes are such
that work that grows faster than the input does shows at once.
"""

# ruff: noqa: E501 - one input a line is easier to read

import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kiro_mcp.emulator import frames

Json: TypeAlias = dict[str, Any]

ENDING = frames.ending("END_TURN")
HELLO = frames.text("Hello.") + ENDING


@dataclass(frozen=True, kw_only=True)
class Input:
    """One call, made when it is needed: some are of many megabytes."""

    name: str
    arguments: Callable[[], Json] = field(default=lambda: {"prompt": "x"})
    answer: Callable[[], bytes] = field(default=lambda: HELLO)
    is_large: bool = False
    """Whether it is of megabytes, or takes a second even if all is well."""


def said(text: str) -> bytes:
    return frames.text(text, delta_characters=2_000) + ENDING


def called(arguments: str) -> bytes:
    return frames.tool_use("t1", "look", arguments) + ENDING


def tool(schema: Json, name: str = "look") -> Json:
    return {"name": name, "description": "Looks.", "inputSchema": schema}


def doubled(levels: int, keyword: str = "allOf") -> Json:
    """Return a schema whose every level refers to the next one twice."""
    both = {f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**both, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def branching(levels: int) -> Json:
    """Return an object's schema whose every level has two properties of the next one."""
    both = {
        f"a{n}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/a{n + 1}"} for side in ("x", "y")},
        }
        for n in range(levels)
    }
    return {"$defs": {**both, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def nested(levels: int, *, inner: Any = 1, key: str = "a") -> Any:
    value: Any = inner
    for _ in range(levels):
        value = {key: value}
    return value


def png(size: int) -> bytes:
    """Return what begins like a PNG, and letters that do not repeat."""
    seed = bytes(range(256)) * 64
    noise = b"".join(zlib.crc32(seed, n).to_bytes(4, "big") for n in range(64 * 1024 // 4))
    return b"\x89PNG\r\n\x1a\n" + (noise * (size // len(noise) + 1))[: size - 8]


def data_url(size: int) -> str:
    return f"data:image/png;base64,{b64encode(png(size)).decode()}"


def history(turns: int, text: str = "Some words of a turn. ") -> list[Json]:
    return [
        {"role": ("user", "assistant")[n % 2], "content": f"{n} {text * 20}"} for n in range(turns)
    ]


def tool_turns(turns: int) -> list[Json]:
    messages: list[Json] = []
    for n in range(turns):
        use = {"type": "tool_use", "id": f"t{n}", "name": "look", "input": {"path": f"/{n}"}}
        result = {"type": "tool_result", "tool_use_id": f"t{n}", "content": "found " * 50}
        messages += [
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
    return [{"role": "user", "content": "Go."}, *messages]


def _typed(name: str, schema: Json, answer: str = '"x"', *, is_large: bool = False) -> Input:
    return Input(
        name=f"output_schema: {name}",
        arguments=lambda: {"prompt": "x", "output_schema": schema},
        answer=lambda: said(answer),
        is_large=is_large,
    )


def _called(name: str, schema: Json, arguments: Any, *, is_large: bool = False) -> Input:
    return Input(
        name=f"tool's call: {name}",
        arguments=lambda: {"prompt": "x", "tools": [tool(schema)]},
        answer=lambda: called(json.dumps(arguments)),
        is_large=is_large,
    )


def _said(name: str, text: Callable[[], str], *, is_large: bool = False, **more: Any) -> Input:
    return Input(
        name=f"answer: {name}",
        arguments=lambda: {"prompt": "x", **more},
        answer=lambda: said(text()),
        is_large=is_large,
    )


def _given(name: str, arguments: Callable[[], Json], *, is_large: bool = False) -> Input:
    return Input(name=f"arguments: {name}", arguments=arguments, is_large=is_large)


def _raw(name: str, answer: Callable[[], bytes], *, is_large: bool = False) -> Input:
    return Input(name=f"stream: {name}", answer=answer, is_large=is_large)


ANY_STRING: Json = {"type": "string"}
EVIL = "^([a-zA-Z0-9]+)+@x$"

SCHEMAS = [
    _typed("nested quantifiers", {"pattern": "^(a+)+$"}, json.dumps("a" * 40 + "b")),
    _typed("nested quantifiers and lookahead", {"pattern": "^(?=a)(a+)+$"}, json.dumps("a" * 40)),
    _typed("a pattern of 60 KB", {"pattern": "(a|b)" * 12_000}, json.dumps("ab")),
    _typed("large repetitions", {"pattern": r"(\p{L}{50}){50}"}, json.dumps("ä" * 100)),
    _typed("500 patterns", {"allOf": [{"pattern": f"a{n}$"} for n in range(500)]}),
    _typed("18 levels of two references", doubled(18)),
    _typed("40 levels of two references, broken", doubled(40), "3", is_large=True),
    _typed("40 levels of anyOf, broken", doubled(40, "anyOf"), "3", is_large=True),
    _typed("a chain of 20,000 references", doubled(20_000), "3", is_large=True),
    _typed("uniqueItems, 800 objects", {"uniqueItems": True}, json.dumps([{"a": n} for n in range(800)])),
    _typed("uniqueItems, 20,000 objects", {"uniqueItems": True}, json.dumps([{"a": n} for n in range(20_000)]), is_large=True),
    _typed("itself", {"type": "object", "properties": {"a": {"$ref": "#"}}}, json.dumps(nested(60))),
    _typed("itself and nothing else", {"$ref": "#"}),
    _typed("an address", {"$ref": "http://127.0.0.1:9/schema"}),
    _typed("a file", {"$ref": "file:///dev/zero"}),
    _typed("a reference of 1 MB", {"allOf": [{"$ref": "#/" + "a/" * 500_000}]}),
    _typed("100 levels", nested(100, inner=ANY_STRING, key="items")),
    _typed("5,000 choices", {"items": {"enum": [f"choice {n}" for n in range(5_000)]}}, json.dumps(["x"] * 5_000)),
    _typed("2,000 properties", {"properties": {f"p{n}": {"type": "integer"} for n in range(2_000)}}, json.dumps({f"p{n}": "x" for n in range(2_000)})),
    _typed("unevaluated members", {"allOf": [{"properties": {f"p{n}": {}}} for n in range(500)], "unevaluatedProperties": False}, json.dumps({f"q{n}": 1 for n in range(500)})),
    _typed("100,000 wrong items", {"items": {"type": "integer"}}, json.dumps(["x"] * 100_000), is_large=True),
    _typed("a large number", {"multipleOf": 1e-300}, "1" * 300),
]  # fmt: skip
CALLS = [
    _called("nested quantifiers", {"properties": {"q": {"pattern": EVIL}}}, {"q": "a" * 40}),
    _called("nested quantifiers, 100 KB", {"properties": {"q": {"pattern": EVIL}}}, {"q": "a" * 100_000}, is_large=True),
    _called("a back-reference", {"properties": {"q": {"pattern": r"^(a*)*\1$"}}}, {"q": "a" * 5_000 + "b"}),
    _called("40 levels of two references", {"properties": {"q": {"$ref": "#/$defs/a0"}}, **doubled(40)}, {"q": 3}, is_large=True),
    _called("uniqueItems, 5,000 objects", {"properties": {"q": {"uniqueItems": True}}}, {"q": [{"a": n} for n in range(5_000)]}),
    _called("arguments of 2 MB", {"properties": {"q": ANY_STRING}}, {"q": "x" * 2_000_000}, is_large=True),
    _called("deep arguments", {"properties": {"a": {}}}, nested(150)),
    _called("too deep arguments", {"properties": {"a": {}}}, nested(900)),
]  # fmt: skip
ANSWERS = [
    _said("a fence and 1 MB of blanks", lambda: "```\n" + " " * 1_000_000, output_schema=ANY_STRING, is_large=True),
    _said("300,000 brackets", lambda: "[" * 300_000, output_schema=ANY_STRING),
    _said("100,000 braces in prose", lambda: "{x " * 100_000, output_schema=ANY_STRING),
    _said("a list that is cut off", lambda: "[1," * 100_000, output_schema={"type": "array"}),
    _said("50,000 values", lambda: '{"a": 1} ' * 50_000, output_schema=ANY_STRING),
    _said("1 MB of words", lambda: "Some words. " * 90_000, is_large=True),
    _said("200 KB of half a tool call", lambda: '<invoke name="look"><parameter name="q">' * 5_000),
    _said("beginnings of calls", lambda: "[Called look with args: {" * 10_000, tools=[tool({})]),
    _said("fences and beginnings", lambda: "```\n<invoke " * 20_000, tools=[tool({})]),
    _said("blanks in a call", lambda: "<function_calls>" + " " * 300_000, tools=[tool({})]),
    _said("thinking tags", lambda: "<thinking>" * 20_000 + "</thinking" * 20_000),
    _said("half characters", lambda: "\U0001f600\u202e\u0000\ufeff" * 50_000),
    _said("one letter with 100,000 accents", lambda: "e" + "\u0301" * 100_000),
    _said("beginnings of secrets", lambda: "eyJaaaa-" * 20_000),
]  # fmt: skip
ARGUMENTS = [
    _given("ten images of 5 MB", lambda: {"prompt": "x", "images": [data_url(5_000_000)] * 10}, is_large=True),
    _given("one image of 10 MB", lambda: {"prompt": "x", "images": [data_url(10_000_000)]}, is_large=True),
    _given("ten images in messages", lambda: {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data_url(2_000_000).partition(",")[2]}}] * 10}], "prompt": "x"}, is_large=True),
    _given("20 MB that are no image", lambda: {"prompt": "x", "images": ["data:image/png;base64," + "A" * 20_000_000]}, is_large=True),
    _given("percent signs", lambda: {"prompt": "x", "images": ["data:image/png;base64," + "%41" * 1_000_000]}, is_large=True),
    _given("a path of 2 MB", lambda: {"prompt": "x", "files": ["/" + "a/" * 1_000_000]}, is_large=True),
    _given("a prompt of 20 MB", lambda: {"prompt": "Some words. " * 1_700_000}, is_large=True),
    _given("a prompt of 4 MB of emoji", lambda: {"prompt": "\U0001f600" * 1_000_000}, is_large=True),
    _given("2,000 turns", lambda: {"messages": history(2_000), "prompt": "x"}, is_large=True),
    _given("20,000 short turns", lambda: {"messages": history(20_000, ""), "prompt": "x"}, is_large=True),
    _given("1,000 turns of tools", lambda: {"messages": tool_turns(1_000), "tools": [tool({})]}, is_large=True),
    _given("1,000 results without a call", lambda: {"messages": [m for m in tool_turns(1_000) if m["role"] == "user"]}, is_large=True),
    _given("1,000 tools", lambda: {"prompt": "x", "tools": [tool({"properties": {f"p{m}": ANY_STRING for m in range(20)}}, f"t{n}") for n in range(1_000)]}, is_large=True),
    _given("100 tools with branching references", lambda: {"prompt": "x", "dry_run": True, "tools": [tool(branching(18), f"t{n}") for n in range(100)]}, is_large=True),
    _given("100 tools of 20 chained references", lambda: {"prompt": "x", "tools": [tool(doubled(20), f"t{n}") for n in range(100)]}, is_large=True),
    _given("a tool with 10,000 alternatives", lambda: {"prompt": "x", "tools": [tool({"anyOf": [{"properties": {"a": {"const": n}}} for n in range(10_000)]})]}, is_large=True),
    _given("a schema 190 levels deep", lambda: {"prompt": "x", "tools": [tool(nested(190, inner=ANY_STRING, key="items"))]}),
    _given("a tool's description of 5 MB", lambda: {"prompt": "x", "tools": [{**tool({}), "description": "word " * 1_000_000}]}, is_large=True),
    _given("a list of 500,000 numbers", lambda: {"messages": [{"role": "user", "content": [{"type": "odd", "n": list(range(500_000))}]}], "prompt": "x"}, is_large=True),
    _given("JSON 150 levels deep", lambda: {"messages": [{"role": "user", "content": [{"type": "odd", "n": nested(150)}]}], "prompt": "x"}),
    _given("200,000 unknown arguments", lambda: {"prompt": "x", **{f"unknown{n}": n for n in range(200_000)}}, is_large=True),
    _given("a model's name of 1 MB", lambda: {"prompt": "x", "model": "1-" * 500_000, "dry_run": True}),
    _given("a conversation's id of 1 MB", lambda: {"prompt": "x", "conversation_id": "a" * 1_000_000}),
    _given("an answer's id of 1 MB", lambda: {"answer_id": "a" * 1_000_000}),
    _given("escaped halves of characters", lambda: {"prompt": "\ud83d" * 300_000}),
    _given("secrets in the prompt", lambda: {"prompt": "password=\\\\" * 100_000}),
]  # fmt: skip
STREAMS = [
    _raw("20,000 frames of one letter", lambda: frames.text("x" * 20_000, delta_characters=1) + ENDING, is_large=True),
    _raw("an event of 8 MB", lambda: frames.event("assistantResponseEvent", {"content": "x" * 8_000_000}) + ENDING, is_large=True),
    _raw("1,000 tool calls", lambda: b"".join(frames.tool_use(f"t{n}", "look", "{}") for n in range(1_000)) + ENDING),
    _raw("a tool call of 2 MB that is cut off", lambda: frames.unfinished_tool_use("t1", "look", '{"a": "' + "x\\" * 1_000_000), is_large=True),
    _raw("a tool call of 200,000 commas", lambda: frames.tool_use("t1", "look", "[" + "1,," * 200_000) + ENDING, is_large=True),
    _raw("thoughts of 1 MB", lambda: frames.reasoning("hm " * 300_000) + ENDING, is_large=True),
    _raw("zeros", lambda: bytes(1_000_000)),
    _raw("no frames but HTML", lambda: b"<title>" * 50_000),
    _raw("an exception of 1 MB", lambda: frames.exception("eyJaaaa-" * 120_000, ""), is_large=True),
    _raw("a deep event", lambda: frames.event("assistantResponseEvent", nested(900)) + ENDING),
]  # fmt: skip

INPUTS = [*SCHEMAS, *CALLS, *ANSWERS, *ARGUMENTS, *STREAMS]
