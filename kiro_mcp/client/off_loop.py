"""Work on large inputs in a thread, so that the event loop answers others meanwhile.

A thread of Python gives way every few milliseconds. For small inputs the way there and back would
cost more than the work.
"""

import json
from collections.abc import Callable
from typing import Final, TypeVar

import anyio.lowlevel
import anyio.to_thread

from kiro_mcp.chat import ChatRequest, ImagePart, TextPart
from kiro_mcp.wire.json_values import is_larger

MAX_THREADS: Final = 2
"""Further work waits: more threads of Python would only take turns."""
SMALL: Final = 1_000
"""How many JSON values, or 64 characters of text, are worked on at once. That takes 5 ms."""

Result = TypeVar("Result")

_threads: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("kiro_mcp_off_loop")


async def off_loop(work: Callable[[], Result], *, is_large: bool) -> Result:
    """Do something in a thread if it is large, else here."""
    if not is_large:
        return work()
    threads = _threads.get(None)
    if threads is None:
        threads = anyio.CapacityLimiter(MAX_THREADS)
        _threads.set(threads)
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=threads)


def is_large(request: ChatRequest) -> bool:
    """Whether making a payload of a request takes long enough to be noticed by others."""
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
    return bool(schemas) and "$ref" in json.dumps(schemas)  # A few references can multiply.
