"""Runs work on large inputs in a thread, so that the event loop can serve others meanwhile.

A Python thread lets others run every few milliseconds. For small inputs, switching to a thread and
back would cost more than the work.
"""

import json
from collections.abc import Callable
from typing import Final, TypeVar

import anyio.lowlevel
import anyio.to_thread

from kiro_mcp.chat import ChatRequest, ImagePart, TextPart
from kiro_mcp.wire.json_values import is_larger

MAX_THREADS: Final = 2
"""How much work runs at once; the rest waits. More Python threads would only take turns."""
SMALL: Final = 1_000
"""How many JSON values, or pieces of 64 characters, may run on the event loop. That takes 5 ms."""

Result = TypeVar("Result")

_threads: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("kiro_mcp_off_loop")


async def off_loop(work: Callable[[], Result], *, is_large: bool) -> Result:
    """Run a function: in a thread if its work is large, else directly."""
    if not is_large:
        return work()
    threads = _threads.get(None)
    if threads is None:
        threads = anyio.CapacityLimiter(MAX_THREADS)
        _threads.set(threads)
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=threads)


def is_large(request: ChatRequest) -> bool:
    """Whether writing the payload of a request would hold up other tasks noticeably."""
    if len(request.messages) + len(request.tools) > SMALL // 10:
        return True
    parts = [part for message in request.messages for part in message.parts]
    texts = [
        part.text if isinstance(part, TextPart) else part.data
        for part in parts
        if isinstance(part, TextPart | ImagePart)
    ]
    others = len(parts) - len(texts)
    schemas = [tool.input_schema for tool in request.tools]
    if others > SMALL // 10 or is_larger(
        [request.system, texts, schemas, request.output_schema], SMALL
    ):
        return True
    return bool(schemas) and "$ref" in json.dumps(schemas)  # Resolving references multiplies size.
