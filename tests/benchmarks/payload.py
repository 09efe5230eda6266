"""How long a payload takes to build: n and 8 n of history, and what that says of its growth.

Run it with `python -m tests.benchmarks.payload`. n is 2 MB of history in 500 turns with 60 tools;
every third turn of the assistant uses a tool. From the caller's JSON to the service's bytes: read,
repaired, checked, encoded. Linear work shows as a ratio of 8; the bar is 10. The last line is a
prompt of one line, which most calls are, and what a second attempt of it takes.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kiro_mcp.chat import ChatRequest, Message, TextPart
from kiro_mcp.wire.messages import read_messages
from kiro_mcp.wire.request import (
    Envelope,
    PayloadOptions,
    RequestWriter,
    encode_payload,
    prepare,
    write_payload,
)
from kiro_mcp.wire.tools import read_tool_specs

TURNS = 500
TOOLS = 60
HISTORY_BYTES = 2_000_000
FACTOR = 8
ROUNDS = 5
SMALL_PAYLOADS = 1_000

ENDPOINT = Envelope(origin="KIRO_CLI", profile_arn="arn:aws:codewhisperer:us-east-1:1:profile/X")


def chat(turns: int) -> list[dict[str, Any]]:
    """A chat in Anthropic's shape, of user and assistant in turn, with tool uses."""
    words = "Grüße, and a line of prose. " * (HISTORY_BYTES // TURNS // 29)
    messages: list[dict[str, Any]] = []
    for index in range(0, turns, 2):
        tool_use_id = f"call.{index}/x"
        uses = index % 3 == 0
        use: dict[str, Any] = {
            "type": "tool_use",
            "id": tool_use_id,
            "name": f"tool_{index % TOOLS}",
            "input": {},
        }
        result = {"type": "tool_result", "tool_use_id": f"call.{index - 2}/x", "content": words}
        was_used = index and (index - 2) % 3 == 0
        messages.append({"role": "user", "content": [result] if was_used else words})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": words}]})
        if uses:
            messages[-1]["content"].append(use)
    return [*messages, {"role": "user", "content": "And now?"}]


def tools(count: int) -> list[dict[str, Any]]:
    """Tools with schemas as generators write them: definitions, options, titles."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"Range": {"type": "object", "properties": {"from": {"type": "integer"}}}},
        "properties": {
            "path": {"type": "string", "description": "Where. " * 20},
            "range": {"anyOf": [{"$ref": "#/$defs/Range"}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": ["string", "null"]}},
        },
        "required": ["path"],
    }
    return [
        {"name": f"tool_{index}", "description": "Does it. " * 100, "inputSchema": schema}
        for index in range(count)
    ]


def built(messages: list[dict[str, Any]], declared: list[dict[str, Any]], limit: int) -> bytes:
    """Build and encode a payload of a chat."""
    read = read_messages(messages, system="Be terse.")
    specs, _ = read_tool_specs(declared)
    request = ChatRequest(
        messages=read.messages,
        system=read.system,
        tools=specs,
        model="claude-opus-4.6",
        conversation_id="6a1f0f0e-5f0c-4d3e-9a35-3b1b8c0e7a11",
        effort="high",
    )
    payload = write_payload(prepare(request, PayloadOptions(max_payload_bytes=limit)), ENDPOINT)
    return encode_payload(payload.body)


def best_milliseconds(work: Callable[[], object]) -> float:
    """The least of several rounds, in time of this process: what the work itself takes."""
    times: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1000


def measure(name: str, share: float) -> None:
    """Print one line: n, 8 n and their ratio; `share` of the history may stay, 0 for all."""
    figures: list[float] = []
    for factor in (1, FACTOR):
        messages, declared = chat(TURNS * factor), tools(TOOLS * factor)
        limit = int(HISTORY_BYTES * factor * share)
        figures.append(best_milliseconds(lambda m=messages, d=declared, x=limit: built(m, d, x)))
    small, large = figures
    print(f"{name:<28}{small:>10.1f} ms{large:>12.1f} ms{large / small:>8.1f} x")


def measure_one_line() -> None:
    """Print how long a prompt of one line takes, and another attempt with it."""
    turn = Message(role="user", parts=(TextPart(text="What is the capital of France?"),))
    request = ChatRequest(messages=(turn,), model="claude-opus-4.6", effort="high")
    writer = RequestWriter()
    other = replace(ENDPOINT, origin="AI_EDITOR")

    def write_many() -> None:
        for _ in range(SMALL_PAYLOADS):
            write_payload(prepare(request), ENDPOINT)

    def attempt_many() -> None:
        for _ in range(SMALL_PAYLOADS // 2):
            writer.write(request, ENDPOINT)
            writer.write(request, other)

    first, further = (
        best_milliseconds(work) * 1000 / SMALL_PAYLOADS for work in (write_many, attempt_many)
    )
    print(f"{'one line, another attempt':<28}{first:>10.1f} us{further:>12.1f} us")


def main() -> None:
    """Print the table."""
    size = len(built(chat(TURNS), tools(TOOLS), 0))
    print(f"n: {size / 1e6:.2f} MB, {TURNS} turns, {TOOLS} tools")
    print(f"{'':<28}{'n':>13}{f'{FACTOR} n':>15}{'ratio':>10}")
    measure("build", 0)
    measure("build, trimmed to half", 0.5)
    measure_one_line()


if __name__ == "__main__":
    main()
