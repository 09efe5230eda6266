"""A request -> an answer -> a result that is on disk before anybody gets it.

With `output_schema` the answer's text is parsed and checked; where it breaks the schema the
model is told so, once, and its second answer counts.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import anyio
import mcp_types as types

from kiro_mcp.errors import CallCancelled, InternalFault, KiroError
from kiro_mcp.models import (
    ChatRequest,
    Message,
    Reply,
    TextDelta,
    TextPart,
    ThinkingDelta,
    Usage,
)
from kiro_mcp.protocol.typed_answers import read_typed_answer, repair_prompt
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.asking import Answered, Asked
from kiro_mcp.server.conversations import Place, Turn
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import answered, failure
from kiro_mcp.transport.client import CallSpending

logger = logging.getLogger(__name__)

KEEPING_SECONDS = 0.15
"""How long keeping a cancelled answer may take: a server must be gone in half a second."""

_CANCELLED = CallCancelled("The call was cancelled before its answer was complete.")


async def make_result(asked: Asked, engine: Engine, running: RunningAnswer) -> types.CallToolResult:
    """Ask, keep what came of it, and return the result. Never raises a `KiroError`."""
    try:
        came = await answer(asked, engine, running)
    except KiroError as error:
        result = failure(error)
    except anyio.get_cancelled_exc_class():
        if running.partial is not None and not running.partial.is_empty:
            with anyio.move_on_after(KEEPING_SECONDS, shield=True):
                await _keep_partial(asked, engine, running, running.partial)
        raise
    else:
        place, warnings = await _kept_turn(asked, came, engine)
        result = answered(
            asked,
            replace(came, warnings=(*came.warnings, *warnings)),
            place=place,
            answer_id=running.id,
        )
    await _keep(engine, running.id, result)
    return result


async def _keep_partial(
    asked: Asked, engine: Engine, running: RunningAnswer, partial: Reply
) -> None:
    """Keep what had come before the call was cancelled: it has been paid for.

    A client that gave up by itself finds it under the id that progress named.
    """
    came = Answered(reply=partial)
    place, _ = await _kept_turn(asked, came, engine)
    await _keep(engine, running.id, answered(asked, came, place=place, answer_id=running.id))


async def answer(asked: Asked, engine: Engine, running: RunningAnswer) -> Answered:
    """Ask, and ask once more where the answer breaks the schema it was given.

    Raises:
        KiroError: There is no answer, nor a part of one.
    """
    spending = CallSpending()
    first = await _ask(asked.request, engine, running, spending)
    schema = asked.request.output_schema
    if schema is None or first.reply.truncated or first.reply.tool_uses:
        return first
    typed = read_typed_answer(first.reply.text, schema)
    if not typed.violations:
        return replace(first, data=typed.data)
    running.begin_anew()
    mended = _mended(asked.request, first.reply, typed.violations)
    second = await _ask(mended, engine, running, spending)
    usage = _sum(first.reply.usage, second.reply.usage)
    second = replace(second, reply=replace(second.reply, usage=usage))
    typed = read_typed_answer(second.reply.text, schema)
    if not typed.violations:
        return replace(second, data=typed.data)
    return replace(second, warnings=(*second.warnings, _breaks_schema(typed.violations)))


async def _ask(
    request: ChatRequest, engine: Engine, running: RunningAnswer, spending: CallSpending
) -> Answered:
    async with engine.client.stream(request, spending=spending) as stream:
        try:
            async for delta in stream:
                if isinstance(delta, TextDelta | ThinkingDelta):
                    running.take(delta.text, is_thinking=isinstance(delta, ThinkingDelta))
        except anyio.get_cancelled_exc_class():
            running.partial = stream.cut(_CANCELLED)
            raise
        return Answered(
            reply=stream.reply, warnings=stream.payload.warnings, repairs=stream.payload.repairs
        )


async def _kept_turn(asked: Asked, came: Answered, engine: Engine) -> tuple[Place, Sequence[str]]:
    """Put the turn on disk. That it cannot be is a warning: the answer must not be lost."""
    turn = Turn(
        model=asked.request.model,
        system=asked.request.system,
        tools=asked.request.tools,
        messages=asked.added,
        answer=Message(role="assistant", parts=came.reply.parts, is_truncated=came.reply.truncated),
    )
    try:
        place = await engine.conversations.append(asked.place, turn, forked_from=asked.forked_from)
    except InternalFault as error:
        logger.warning("The conversation could not be kept: %s", error)
        return asked.place, (f"The conversation could not be kept. {error}",)
    if place == asked.place:
        return place, ()
    return place, (
        "Another call went on with this conversation meanwhile: this answer stands in a"
        f" conversation of its own, {place.conversation_id}.",
    )


async def _keep(engine: Engine, answer_id: str, result: types.CallToolResult) -> None:
    try:
        text = result.model_dump_json(by_alias=True, exclude_none=True)
        await engine.conversations.keep_answer(answer_id, text)
    except InternalFault as error:
        logger.warning("The answer %s could not be kept: %s", answer_id, error)


def _mended(request: ChatRequest, reply: Reply, violations: Sequence[str]) -> ChatRequest:
    said = Message(role="assistant", parts=(TextPart(text=reply.text),))
    asked = Message(role="user", parts=(TextPart(text=repair_prompt(violations)),))
    return replace(request, messages=(*request.messages, said, asked))


def _breaks_schema(violations: Sequence[str]) -> str:
    listed = " ".join(violations)
    return f"The answer breaks output_schema, also after one repair turn, so data is null: {listed}"


def _sum(first: Usage, second: Usage) -> Usage:
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
