"""Checks values against callers' schemas, and lets a model correct an answer that is not valid.

A check that may be slow runs in a separate process. That process is killed if the check takes too
long, if its caller leaves, or if the server ends.

    request ─▶ send ─▶ check ─▶ valid: the answer
                         │ not valid
                         └────▶ tell the model why, once ─▶ send ─▶ check ─▶ the answer
"""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import anyio

from kiro_mcp.chat import (
    ChatRequest,
    JsonObject,
    JsonValue,
    Message,
    Repair,
    Reply,
    TextPart,
    ToolUse,
    Usage,
)
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.errors import InvalidRequest, KiroError
from kiro_mcp.wire.json_values import is_larger, json_bytes
from kiro_mcp.wire.schema_check import SchemaCheck, UnusableSchemaError
from kiro_mcp.wire.typed_answers import (
    TypedAnswer,
    best_answer,
    json_candidates,
    open_schema,
    repair_prompt,
)

CHECK_SECONDS: Final = 3.0
"""How long a check may take, including the wait for a free process and its start."""
MAX_PROCESSES: Final = 2
"""How many checks run in processes at the same time."""
MAX_CHECKED_PARTS: Final = 100_000
"""How many JSON values schema and values may have together."""
MAX_CHECKED_BYTES: Final = 2_000_000
"""How large schema and values may be together, as JSON. Writing this much takes 10 ms."""

_CHILD: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    " from kiro_mcp.client.schema_process import main; main()"
)
_processes: Final = anyio.CapacityLimiter(MAX_PROCESSES)


class UncheckedError(Exception):
    """A check was not possible; the text says why. The value may be valid or not."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """A model's reply to a request, and what its reader has to know about it."""

    reply: Reply
    typed: TypedAnswer | None = None
    """The value in the reply's text, if it was checked by a schema."""
    model: str = ""
    """The id of the model that answered; "" for the model that was asked."""
    warnings: list[str] = field(default_factory=list[str])
    repairs: Sequence[Repair] = ()
    next_step: str = ""
    """What to do next, if the answer alone does not say it."""

    @property
    def data(self) -> JsonValue:
        """The value that is valid by the schema; None if there is none."""
        return self.typed.data if self.typed and not self.typed.violations else None


# --- answers by a schema ------------------------------------------------------------------


async def read_schema(given: JsonObject, name: str) -> JsonObject:
    """Return the schema that answers must fit, taken out of OpenAI's wrapper if there is one.

    Args:
        given: What a caller gave.
        name: What the caller calls it.

    Raises:
        InvalidRequest: The schema cannot check an answer. Nothing has been paid for yet.
    """
    schema = open_schema(given, name)
    try:
        await schema_errors(schema, [], name="$")
    except UnusableSchemaError as error:
        raise InvalidRequest(
            f"{name} cannot be used: {error}.",
            next_step="Give a valid JSON Schema that refers to nothing outside of itself.",
        ) from error
    except UncheckedError:
        pass  # The machine may only be busy now. The check of the answer will tell.
    return schema


async def ask_by_schema(
    request: ChatRequest, send: Callable[[ChatRequest], Awaitable[Answer]]
) -> Answer:
    """Send a request, and a second one if the answer breaks the request's `output_schema`.

    The second answer is returned if it is complete. Its usage includes the first request's.

    Args:
        request: The request. Without an `output_schema` nothing is checked.
        send: Sends a request and returns its answer.

    Raises:
        KiroError: No part of an answer arrived.
    """
    answer = await send(request)
    schema = request.output_schema
    if schema is None or not (violations := await _check_answer(answer, schema)):
        return answer

    breaks = "The answer breaks output_schema, {} data is null: {}".format
    said = Message(role="assistant", parts=(TextPart(text=answer.reply.text),))
    repair = Message(role="user", parts=(TextPart(text=repair_prompt(violations)),))
    try:
        second = await send(replace(request, messages=(*request.messages, said, repair)))
    except KiroError as error:
        failed = str(error)
    else:
        usage = _add_usage(answer.reply.usage, second.reply.usage)
        if not second.reply.truncated:
            second.reply = replace(second.reply, usage=usage)
            if left := await _check_answer(second, schema):
                second.warnings.append(breaks("also after one repair turn, so", " ".join(left)))
            return second
        answer.reply = replace(answer.reply, usage=usage)
        failed = second.reply.truncation_reason
    # The first answer has been paid for.
    answer.warnings.append(f"The repair turn failed: {failed}")
    answer.warnings.append(breaks("so", " ".join(violations)))
    return answer


async def _check_answer(answer: Answer, schema: JsonObject) -> tuple[str, ...]:
    """Find and check the value in an answer's text; return where it breaks the schema."""
    reply = answer.reply
    if reply.truncated or reply.stop_reason == "refusal" or reply.tool_uses:
        return ()  # A part of an answer may be valid by chance.
    values = await off_loop(
        lambda: json_candidates(reply.text), is_large=is_larger(reply.text, SMALL)
    )
    try:
        answer.typed = best_answer(values, await schema_errors(schema, values, name="$"))
    except (UnusableSchemaError, UncheckedError) as error:
        answer.warnings.append(
            f"The answer was not checked by output_schema: {error}. data is null."
        )
        return ()
    return answer.typed.violations


def _add_usage(first: Usage, second: Usage) -> Usage:
    charged = [usage.credits for usage in (first, second) if usage.credits is not None]
    return replace(
        second,
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cache_read_tokens=first.cache_read_tokens + second.cache_read_tokens,
        cache_write_tokens=first.cache_write_tokens + second.cache_write_tokens,
        is_estimated=first.is_estimated or second.is_estimated,
        credits=sum(charged) if charged else None,
    )


# --- checks -------------------------------------------------------------------------------


async def schema_errors(
    schema: JsonObject, values: Sequence[JsonValue], *, name: str
) -> list[tuple[str, ...]]:
    """Return for each value where it breaks the schema.

    Args:
        schema: A caller's schema.
        values: Any JSON values. Without one, only the schema itself is checked.
        name: What each is called in the sentences.

    Raises:
        UnusableSchemaError: It is not a valid JSON Schema, or refers to something outside.
        UncheckedError: The check took too long.
    """
    check = SchemaCheck(schema)
    found = [check.errors(value, name=name) for value in values]
    quick = [errors for errors in found if errors is not None]
    is_done = check.is_quick and len(quick) == len(values)
    return quick if is_done else await _in_process(schema, values, name)


async def with_schema_errors(reply: Reply, request: ChatRequest) -> tuple[Reply, tuple[str, ...]]:
    """Check the tool uses that could not be checked at once; return the reply and warnings."""
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


async def _in_process(
    schema: JsonObject, values: Sequence[JsonValue], name: str
) -> list[tuple[str, ...]]:
    parts: list[JsonValue] = [schema, list(values)]

    def question() -> bytes:
        if is_larger(parts, MAX_CHECKED_PARTS):
            raise UncheckedError(f"that is over {MAX_CHECKED_PARTS} values")
        text = json_bytes({"schema": schema, "values": parts[1], "name": name})
        if len(text) > MAX_CHECKED_BYTES:
            raise UncheckedError(f"that is over {MAX_CHECKED_BYTES} bytes")
        return text

    asked = await off_loop(question, is_large=is_larger(parts, SMALL))
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
