"""Values against strangers' schemas, at once where that is quick, else in a process of its own.

Such a process is started for one check and killed where that takes too long, its caller is gone,
or the server ends. Nobody else waits for it.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

import anyio

from kiro_mcp.chat import ChatRequest, JsonObject, JsonValue, Reply, ToolUse
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.wire.json_values import is_larger
from kiro_mcp.wire.schema_check import SchemaCheck, UnusableSchemaError

CHECK_SECONDS: Final = 3.0
"""How long a check may take, its process's start and its place in the queue included."""
MAX_PROCESSES: Final = 2
"""How many checks run in processes at the same time."""
MAX_CHECKED_PARTS: Final = 100_000
"""How many JSON values schema and values may have together."""
MAX_CHECKED_CHARACTERS: Final = 2_000_000
"""How large schema and values may be together, as JSON. Writing that takes 10 ms."""

_CHILD: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    " from kiro_mcp.server.schema_process import main; main()"
)
_processes: Final = anyio.CapacityLimiter(MAX_PROCESSES)


class UncheckedError(Exception):
    """A check could not be made; its text says why, in brief. That says nothing of the value."""


async def schema_errors(
    schema: JsonObject, values: Sequence[JsonValue], *, name: str
) -> list[tuple[str, ...]]:
    """Say for each value where it breaks the schema.

    Args:
        schema: A stranger's schema.
        values: Any JSON values. Without one, only the schema itself is checked.
        name: What each is called in the sentences.

    Raises:
        UnusableSchemaError: It is not a valid JSON Schema, or refers to something outside.
        UncheckedError: That could not be found out in time.
    """
    check = SchemaCheck(schema)
    found = [check.errors(value, name=name) for value in values]
    quick = [errors for errors in found if errors is not None]
    is_done = check.is_quick and len(quick) == len(values)
    return quick if is_done else await _in_process(schema, values, name)


async def with_schema_errors(reply: Reply, request: ChatRequest) -> tuple[Reply, tuple[str, ...]]:
    """Check the tool uses that could not be checked at once; return what to warn of, too."""
    schemas = {tool.name: tool.input_schema for tool in request.tools}
    warnings: list[str] = []
    checked: dict[str, ToolUse] = {}
    for use in reply.tool_uses:
        if not use.is_unchecked:
            continue
        try:
            (errors,) = await schema_errors(schemas[use.name], [use.arguments], name="arguments")
            checked[use.id] = replace(use, schema_errors=errors, is_unchecked=False)
        except (UnusableSchemaError, UncheckedError) as error:
            warnings.append(f"A call of {use.name!r:.80} is not checked by its schema: {error}.")
    if not checked and not warnings:
        return reply, ()
    parts = tuple(
        checked.get(part.id, part) if isinstance(part, ToolUse) else part for part in reply.parts
    )
    return replace(reply, parts=parts), tuple(dict.fromkeys(warnings))


def _question(schema: JsonObject, values: Sequence[JsonValue], name: str) -> bytes:
    if is_larger([schema, list(values)], MAX_CHECKED_PARTS):
        raise UncheckedError(f"that is over {MAX_CHECKED_PARTS} values")
    asked = json.dumps({"schema": schema, "values": values, "name": name})
    if len(asked) > MAX_CHECKED_CHARACTERS:
        raise UncheckedError(f"that is over {MAX_CHECKED_CHARACTERS} characters")
    return asked.encode()


async def _in_process(
    schema: JsonObject, values: Sequence[JsonValue], name: str
) -> list[tuple[str, ...]]:
    is_large = is_larger([schema, list(values)], SMALL)
    asked = await off_loop(lambda: _question(schema, values, name), is_large=is_large)
    command = [sys.executable, "-I", "-S", "-c", _CHILD, json.dumps(sys.path)]
    with anyio.move_on_after(CHECK_SECONDS):
        async with _processes:
            try:
                done = await anyio.run_process(command, input=asked, check=False)
            except OSError as error:
                raise UncheckedError(f"no process could be started ({error.strerror})") from error
        try:
            found = cast("dict[str, Any]", json.loads(done.stdout))
        except ValueError:  # It ran out of memory, time or stack.
            raise UncheckedError("it takes too much time or memory") from None
        if "unusable" in found:
            raise UnusableSchemaError(found["unusable"])
        return [tuple(errors) for errors in found["errors"]]
    raise UncheckedError(f"it takes longer than {CHECK_SECONDS:g} seconds")
