"""When a call repeats an earlier one: what makes two questions the same, and who has timed out.

Clients give up on a call after 5 to 60 seconds and tell their model to try again. The answer to
the first call goes on, and the repeated call gets it instead of being asked and paid once more.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import anyio.to_thread

from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.server.arguments import AskArguments
from kiro_mcp.server.attachments import MAX_PATH_CHARACTERS, reader_threads
from kiro_mcp.settings import Settings
from kiro_mcp.wire.json_values import is_larger

CallId: TypeAlias = tuple[str, str]
"""Which client a call comes from, and the id of its request."""

_TIMED_OUT: Final = re.compile(r"time[d ]?[ -]?out|deadline exceeded|-32001", re.IGNORECASE)
"""What clients write when they cancel because of a timeout.

TypeScript SDK: `McpError: MCP error -32001: Request timed out`, `Maximum total timeout exceeded`;
Python SDK 2: `timed out after 5.0s`; Rust SDK: `request timeout`; Go SDK: `context deadline
exceeded`. Python SDK 1 does not cancel.
"""

_MAX_REASON_CHARACTERS: Final = 1000

_NOT_PART_OF_THE_QUESTION: Final = frozenset({"wait_seconds", "answer_id", "dry_run", "ignored"})


def says_timed_out(reason: object) -> bool:
    """Return whether the reason of a cancellation says that the client has timed out."""
    return isinstance(reason, str) and bool(_TIMED_OUT.search(reason[:_MAX_REASON_CHARACTERS]))


async def question_id(given: AskArguments, settings: Settings, secret: bytes) -> str:
    """Return what is equal for two calls that ask the same; "" for a call that asks nothing.

    It is a keyed hash. The store keeps it, and nobody can test with it what was asked. The
    settings are a part of it, because servers with other settings may use the same store. A file
    counts by its path, size and time of change.
    """
    if given.dry_run or given.answer_id:
        return ""
    paths = [
        path
        for path in (*given.files, *given.images)
        if isinstance(path, str) and len(path) <= MAX_PATH_CHARACTERS
    ]
    versions: list[list[int]] = []
    if paths:
        versions = await anyio.to_thread.run_sync(
            lambda: [_version(path) for path in paths],
            abandon_on_cancel=True,
            limiter=reader_threads(),
        )
    question = [
        settings.api_key.get_secret_value(),
        settings.model_dump_json(),
        {
            name: value
            for name in type(given).model_fields
            if (value := getattr(given, name)) and name not in _NOT_PART_OF_THE_QUESTION
        },
        versions,
    ]
    return await off_loop(lambda: _hash(question, secret), is_large=is_larger(question, SMALL))


def _hash(value: object, secret: bytes) -> str:
    digest = hashlib.blake2b(key=secret, digest_size=32)
    # No recursion, because arguments may nest deeply. Each value begins with its kind and size,
    # so different values never give the same bytes.
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            digest.update(b"s%d:" % len(data))
            digest.update(data)
        elif isinstance(value, Mapping):
            members = cast("Mapping[str, Any]", value)
            digest.update(b"m%d:" % len(members))
            for name in sorted(members):
                left += (members[name], name)
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            digest.update(b"l%d:" % len(items))
            left += items
        else:
            digest.update(f"{value!r};".encode())
    return digest.hexdigest()


def _version(path: str) -> list[int]:
    try:
        found = os.stat(os.path.expanduser(path))
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]
