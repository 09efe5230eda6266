"""Writes `kiro_mcp/server/faststart.json`: what the real server answers to what clients ask first.

Run `python -m tests.server.faststart_answers` after a change to tools, prompts, resources, the
server's description or the version.
"""

import json
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from kiro_mcp.server import faststart
from kiro_mcp.server.app import build_server
from kiro_mcp.server.stdio import serve_lines
from tests.support.stdio import ENVELOPE, MODERN

FILE = Path(faststart.__file__).with_suffix(".json")
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
CLIENT: dict[str, Any] = {"capabilities": {}, "clientInfo": {"name": "any", "version": "1"}}


def requests(revision: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of each request that the fast start answers at a revision."""
    if revision == MODERN:
        return {method: {"_meta": ENVELOPE} for method in ("server/discover", *LISTS)}
    first: dict[str, dict[str, Any]] = {
        "initialize": {"protocolVersion": revision, **CLIENT},
        "ping": {},
    }
    return {**first, **{method: {} for method in LISTS}}


def no_engine() -> Any:
    """Stand in for the engine, which no opening request needs."""
    raise AssertionError("No opening request needs the engine.")


LAST_IDS = [f"last {number}" for number in range(3)]


async def collected(
    chunks: Sequence[bytes], serve: Callable[[int, int], Awaitable[None]]
) -> list[Any]:
    """Write chunks to a server on two pipes; return all that it writes.

    The SDK drops what it is answering when its input ends. So the input ends only after three more
    requests, one after the other, have been answered, too.
    """
    (read_fd, feed_fd), (from_fd, write_fd) = os.pipe(), os.pipe()
    found: list[Any] = []
    are_last = [threading.Event() for _ in LAST_IDS]

    def feed() -> None:
        try:
            for chunk in chunks:
                os.write(feed_fd, chunk)
            for last_id, is_answered in zip(LAST_IDS, are_last, strict=True):
                ping = {"jsonrpc": "2.0", "id": last_id, "method": "ping"}
                os.write(feed_fd, json.dumps(ping).encode() + b"\n")
                is_answered.wait(20)
        finally:
            os.close(feed_fd)

    def collect() -> None:
        with open(from_fd, "rb") as lines:
            for line in lines:
                message: Any = json.loads(line)
                if faststart.is_object(message) and message.get("id") in LAST_IDS:
                    are_last[LAST_IDS.index(message["id"])].set()
                else:
                    found.append(message)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, feed)
            tasks.start_soon(anyio.to_thread.run_sync, collect)
            try:
                await serve(read_fd, write_fd)
            finally:
                os.close(write_fd)
    finally:
        os.close(read_fd)
    return found


async def replies(lines: Sequence[bytes]) -> list[Any]:
    """Send lines to the real server, without the fast start; return all that it writes."""

    async def serve(read_fd: int, write_fd: int) -> None:
        await serve_lines(build_server(no_engine), read_fd, write_fd)

    return await collected([line + b"\n" for line in lines], serve)


async def answers() -> dict[str, dict[str, Any]]:
    """Return the server's answers by revision and method."""
    found: dict[str, dict[str, Any]] = {}
    for revision in (*LEGACY, MODERN):
        asked = requests(revision)
        lines = [
            json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params})
            for method, params in asked.items()
        ]
        got = {one["id"]: one["result"] for one in await replies([line.encode() for line in lines])}
        found[revision] = {method: got[method] for method in asked}
    return found


def text(found: dict[str, dict[str, Any]]) -> str:
    """Return the file's text: an answer that another revision gives, too, is named by it."""
    [newest, *_] = found
    stored = {
        revision: {
            method: newest if revision != newest and answer == found[newest].get(method) else answer
            for method, answer in answers.items()
        }
        for revision, answers in found.items()
    }
    return json.dumps(stored, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_bytes(text(anyio.run(answers)).encode())
