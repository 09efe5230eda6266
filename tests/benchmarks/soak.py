"""Minutes of load with faults, over stdio, HTTP and the API: what two servers hold at the end.

Run it with `python -m tests.benchmarks.soak [MINUTES]`; 20 by default. Both servers and the
emulator are processes of their own; the server over HTTP also serves the API. Callers ask without
pause for whole answers, slow ones, tool calls, refusals, resets, stalls and corrupt frames, over
the API also as streams; a tenth of the calls is cancelled. Once a minute the servers' memory,
descriptors and threads are printed. Exits with 1 when a call ends in a way that its prompt does not
allow, when memory has grown by more than the bar since the first fifth of the time, or when a
descriptor is left.
"""

import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from kiro_mcp.client.http import KEEP_ALIVE_SECONDS
from tests.benchmarks.crowd import Held, program, settings_of
from tests.support.stdio import COMMAND, StdioServer, environment, started

MINUTES = 20.0
CALLERS = 8
SEED = 20261121
GROWTH_BAR_MIB = 8.0
SETTLE_SECONDS = KEEP_ALIVE_SECONDS + 2
"""After this, the next request closes the connections to the service that nobody uses."""

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "text": ("completed",),
    "reasoning": ("completed",),
    "tool_use": ("completed",),
    "parallel_tools": ("completed",),
    "split_tags": ("completed",),
    "slow": ("completed",),
    "long": ("completed",),
    "truncated_tool": ("truncated",),
    "reset": ("truncated",),
    "bad_crc": ("truncated",),
    "exception": ("truncated",),
    "throttle": ("rate_limited", "model_busy"),
    "busy": ("model_busy", "rate_limited", "model_unavailable"),
    "empty": ("empty_response", "completed"),
}
"""How a call may end, by the script that its prompt picks."""

IN_API: Mapping[str, tuple[str, ...]] = {
    "completed": ("stop", "tool_calls"),
    "truncated": ("length", "broken", "502"),
    "rate_limited": ("429",),
    "model_busy": ("429", "503", "529"),
    "model_unavailable": ("404", "503"),
    "empty_response": ("502",),
}
"""How it then ends over the API: the reason, the status, or `broken` for an error afterwards."""


@dataclass
class Seen:
    """How calls ended."""

    ended: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])

    def note(self, script: str, result: Mapping[str, Any]) -> None:
        """Judge one result."""
        if result.get("isError"):
            ending = result["_meta"]["kiro-mcp/error"]["code"]
        else:
            facts = result["structuredContent"]
            ending = "truncated" if facts["truncated"] else facts["status"]
        self.ended[ending] += 1
        if ending not in ALLOWED[script]:
            self.wrong.append(f"{script}: {json.dumps(result)[:300]}")

    def note_completion(self, script: str, status: int, body: str, *, is_streamed: bool) -> None:
        """Judge one answer of the API."""
        if status != 200:
            ending = str(status)
        elif not is_streamed:
            ending = json.loads(body)["choices"][0]["finish_reason"]
        elif '"error":' in body:
            ending = "broken"
        else:
            ending = re.findall(r'"finish_reason":"(\w+)"', body)[-1]
        self.ended[f"API: {ending}"] += 1
        if not any(ending in IN_API[one] for one in ALLOWED[script]):
            self.wrong.append(f"API: {script}: {status} {body[-300:]}")


class Drawn:
    """Draws what is asked next, and whether it is cancelled."""

    def __init__(self) -> None:
        self._chance = random.Random(SEED)

    def call(self) -> tuple[str, dict[str, Any], float | None]:
        """Return a script's name, the call's parameters, and seconds until it is cancelled."""
        script = self._chance.choice(tuple(ALLOWED))
        after = self._chance.uniform(0, 0.3) if self._chance.random() < 0.1 else None
        arguments = {"prompt": f"/emulate {script}", "wait_seconds": 0}
        return script, {"name": "ask_claude", "arguments": arguments}, after


async def over_http(client: Client, drawn: Drawn, seen: Seen, until: float) -> None:
    """Make the calls of one caller with the SDK's client."""
    while time.monotonic() < until:
        script, call, after = drawn.call()
        with anyio.move_on_after(after if after is not None else 60) as patience:
            try:
                result = await client.call_tool(**call)
            except MCPError:
                continue  # The cancelled call's answer.
            seen.note(script, result.model_dump(by_alias=True))
        if patience.cancelled_caught:
            seen.ended["given up"] += 1
            if after is None:
                seen.wrong.append(f"{script}: no end in 60 s")


async def over_api(
    client: httpx.AsyncClient, drawn: Drawn, seen: Seen, until: float, *, is_streamed: bool
) -> None:
    """Make the calls of one caller of `/v1/chat/completions`."""
    while time.monotonic() < until:
        script, call, after = drawn.call()
        message = {"role": "user", "content": call["arguments"]["prompt"]}
        asked = {"model": "auto", "messages": [message], "stream": is_streamed}
        with anyio.move_on_after(after if after is not None else 60) as patience:
            response = await client.post("/v1/chat/completions", json=asked)
            seen.note_completion(
                script, response.status_code, response.text, is_streamed=is_streamed
            )
        if patience.cancelled_caught:
            seen.ended["API: given up"] += 1
            if after is None:
                seen.wrong.append(f"API: {script}: no end in 60 s")


async def over_stdio(server: StdioServer, drawn: Drawn, seen: Seen, until: float) -> None:
    """Keep so many calls in flight, and cancel some right after they were sent."""
    sent: dict[int, str] = {}

    async def send() -> None:
        script, call, after = drawn.call()
        request_id = await server.post("tools/call", call)
        if after is None:
            sent[request_id] = script
        else:
            await server.cancel(request_id)
            seen.ended["given up"] += 1

    while time.monotonic() < until or sent:
        while len(sent) < CALLERS and time.monotonic() < until:
            await send()
        if sent:
            with anyio.fail_after(60):
                answer = await server.receive()
            if script := sent.pop(answer.get("id", 0), None):
                seen.note(script, answer["result"])


def threads_of(pid: int) -> int:
    """Count a process's threads; 0 where the system does not tell."""
    folder = Path(f"/proc/{pid}/task")
    return len(os.listdir(folder)) if folder.exists() else 0


async def watched(pids: Mapping[str, int], minutes: float) -> list[dict[str, Held]]:
    """Print once a minute what the servers hold."""
    held: list[dict[str, Held]] = []
    for minute in range(1, int(minutes) + 1):
        await anyio.sleep(60)
        held.append({name: Held.by(pid) for name, pid in pids.items()})
        told = "; ".join(
            f"{name} {one.mib:.1f} MiB, {one.files} descriptors, {threads_of(pids[name])} threads"
            for name, one in held[-1].items()
        )
        print(f"minute {minute}: {told}", flush=True)
    return held


async def run(minutes: float) -> int:
    """Soak both servers, and say what they hold."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        _, emulator = await enter(program("emulate", "--port", "0"))
        homes = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        swift = {"KIRO_MCP_BASE_RETRY_DELAY": "0.01"}
        settings = [settings_of(emulator, home) | swift for home in homes]
        arguments = ["--transport", "http", "--port", "0", "--no-auth", "--api"]
        pid, address = await enter(program("serve", *arguments, **settings[0]))
        client = await enter(Client(f"{address}/mcp", mode="2026-07-28"))
        api = await enter(httpx.AsyncClient(base_url=address, timeout=None))
        server = await enter(started(environment(**settings[1]), COMMAND))
        await server.initialize()
        pids = {"HTTP": pid, "stdio": server.process.pid}
        drawn, seen = Drawn(), Seen()
        before = {name: Held.by(one) for name, one in pids.items()}
        until = time.monotonic() + minutes * 60
        held: list[dict[str, Held]] = []
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                held.extend(await watched(pids, minutes))

            tasks.start_soon(watch)
            tasks.start_soon(over_stdio, server, drawn, seen, until)
            for _ in range(CALLERS):
                tasks.start_soon(over_http, client, drawn, seen, until)
            for number in range(CALLERS):
                is_streamed = number % 2 == 0
                ask = partial(over_api, api, drawn, seen, until, is_streamed=is_streamed)
                tasks.start_soon(ask)
        await anyio.sleep(SETTLE_SECONDS)
        await client.call_tool("list_models", {"refresh": True})
        await server.call("list_models", refresh=True)
        after = {name: Held.by(one) for name, one in pids.items()}
    return 0 if shown(before, held, after, seen) else 1


def shown(
    before: Mapping[str, Held], held: list[dict[str, Held]], after: Mapping[str, Held], seen: Seen
) -> bool:
    """Print the outcome; return whether the bars are met."""
    print(f"{sum(seen.ended.values())} calls: {dict(seen.ended.most_common())}")
    for wrong in seen.wrong[:20]:
        print(f"  WRONG {wrong}")
    is_good = not seen.wrong
    for name, end in after.items():
        warm = held[len(held) // 5][name] if held else before[name]
        grown = end.mib - warm.mib
        is_met = grown < GROWTH_BAR_MIB and end.files <= warm.files
        is_good = is_good and is_met
        print(
            f"{name}: {before[name].mib:.1f} MiB at the start, {warm.mib:.1f} warm, {end.mib:.1f}"
            f" at the end (bar: +{GROWTH_BAR_MIB:g}); descriptors {before[name].files},"
            f" {warm.files}, {end.files}{'' if is_met else '  MISSED'}"
        )
    return is_good


if __name__ == "__main__":
    sys.exit(anyio.run(run, float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES))
