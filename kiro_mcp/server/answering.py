"""A request -> an answer -> a result that is on disk before anybody gets it.

With `output_schema` the answer's text is parsed and checked; where it breaks the schema the
model is told so, once, and its second answer counts, if that one comes whole.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import anyio
import mcp_types as types

from kiro_mcp.chat import (
    ChatRequest,
    JsonObject,
    Message,
    Reply,
    TextDelta,
    TextPart,
    ThinkingDelta,
    Usage,
)
from kiro_mcp.client.client import CallSpending
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.errors import CallCancelled, InternalFault, KiroError, quoted
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.ask_results import answered
from kiro_mcp.server.asking import Answered, Asked
from kiro_mcp.server.conversations import Place, Turn
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.results import failure
from kiro_mcp.server.schema_checks import UncheckedError, schema_errors, with_schema_errors
from kiro_mcp.wire.json_values import is_larger
from kiro_mcp.wire.schema_check import UnusableSchemaError
from kiro_mcp.wire.typed_answers import best_answer, json_candidates, repair_prompt

logger = logging.getLogger(__name__)

NOT_KEPT = "The conversation could not be kept."
"""How the warning begins that nothing can go on with this answer."""

_STANDS_APART = (
    "Another call went on with this conversation meanwhile: this answer stands in a conversation"
    " of its own, {}."
)


async def make_result(asked: Asked, engine: Engine, running: RunningAnswer) -> types.CallToolResult:
    """Ask, keep what came of it, and return the result. Never raises a `KiroError`."""
    try:
        came = await answer(asked, engine, running)
    except KiroError as error:
        result = failure(error, *_about_the_model(error, asked))
        await _keep_failure(engine, running, result)
        return result
    except anyio.get_cancelled_exc_class():
        # What had come has been paid for: a client that gave up by itself finds it under the
        # id that progress named.
        if running.partial is not None and not running.partial.is_empty:
            await _kept(asked, _cut_short(running), engine, running, is_whole=False)
        raise
    came = _told(came, *_missing_tool_use(asked.request, came.reply))
    if came.reply.stop_reason == "refusal":
        came = replace(came, next_step=await _after_refusal(asked, came.reply, engine))
    return await _kept(asked, came, engine, running, is_whole=not came.reply.truncated)


async def note_delivery(engine: Engine, running: RunningAnswer) -> None:
    """Write down whether a caller has got an answer that is kept, if the store says otherwise."""
    if not running.is_whole or running.watchers:
        return
    undelivered = "" if running.is_delivered else running.question
    if undelivered == running.marked_undelivered:
        return
    running.marked_undelivered = undelivered
    try:
        with anyio.CancelScope(shield=True):
            await engine.conversations.mark_undelivered(
                running.id, undelivered, owner=running.owner
            )
    except InternalFault as error:
        logger.warning("The answer %s could not be marked: %s", running.id, error)


def _missing_tool_use(request: ChatRequest, reply: Reply) -> tuple[str, ...]:
    """Say that the model did not follow `tool_choice`. It is never asked a second time for it."""
    wanted = request.tool_choice
    names = {tool_use.name for tool_use in reply.tool_uses}
    if not wanted or (names if wanted == "required" else wanted in names):
        return ()
    return (
        f"tool_choice is {quoted(wanted)}, and the answer has no such tool call: the model was"
        " told, but the service cannot enforce it.",
    )


async def _after_refusal(asked: Asked, reply: Reply, engine: Engine) -> str:
    """Say what to do after a refusal: which model may answer. It is never asked by itself."""
    model = asked.request.model
    fallback = reply.refusal.recommended_model if reply.refusal else ""
    if not fallback:
        listed = (await engine.catalogue(refresh=False)).models
        fallbacks = next((one.refusal_fallbacks for one in listed if one.id == model), ())
        fallback = next(iter(fallbacks), "")
    other = f"call again with model {fallback!r:.80}, or " if fallback else ""
    return (
        f"To get an answer, {other}put the question in other words. Later calls in this"
        " conversation do not send the refused turn again."
    )


def _cut_short(running: RunningAnswer) -> Answered:
    """Return what had come when a call was cancelled: a part, or an answer to be mended."""
    assert running.partial
    is_told = running.partial.truncated
    return Answered(reply=running.partial, warnings=() if is_told else (running.why_cancelled,))


async def _kept(
    asked: Asked, came: Answered, engine: Engine, running: RunningAnswer, *, is_whole: bool
) -> types.CallToolResult:
    """Save the turn and the result, even if the caller disconnects; return the result.

    If they cannot be saved, the result says so in a warning: it has been paid for.
    """

    def result_at(place: Place, *warnings: str) -> types.CallToolResult:
        if place != asked.place:
            warnings = (*warnings, _STANDS_APART.format(place.conversation_id))
        told = replace(came, warnings=(*came.warnings, *warnings)) if warnings else came
        return answered(asked, told, place=place, answer_id=running.id)

    place = asked.place
    if is_whole and not running.watchers:
        running.marked_undelivered = running.question
    try:
        with anyio.CancelScope(shield=True):  # The store itself gives up in time.
            place = await engine.conversations.append(
                place,
                _turn(asked, came.reply),
                owner=running.owner,
                forked_from=asked.forked_from,
                answer_id=running.id,
                undelivered=running.marked_undelivered,
                result_at=lambda place: _as_json(result_at(place)),
            )
    except InternalFault as error:
        logger.warning("%s %s", NOT_KEPT, error)
        return result_at(asked.place, f"{NOT_KEPT} {error}")
    running.is_whole = is_whole
    await note_delivery(engine, running)  # Its last caller may have left meanwhile.
    return result_at(place)


def _turn(asked: Asked, reply: Reply) -> Turn:
    return Turn(
        model=asked.request.model,
        system=asked.request.system,
        tools=asked.request.tools,
        messages=asked.added,
        answer=Message(
            role="assistant",
            parts=reply.parts,
            is_truncated=reply.truncated,
            is_refusal=reply.stop_reason == "refusal",
        ),
    )


def _about_the_model(error: KiroError, asked: Asked) -> tuple[str, ...]:
    """Name the model that the service does not offer, and one that may have been meant."""
    if error.code != "model_unavailable":
        return ()
    return asked.choice.warnings or (f"The model is {quoted(asked.request.model)}.",)


async def _keep_failure(
    engine: Engine, running: RunningAnswer, result: types.CallToolResult
) -> None:
    try:
        await engine.conversations.keep_answer(running.id, _as_json(result), owner=running.owner)
    except InternalFault as error:
        logger.warning("The answer %s could not be kept: %s", running.id, error)


def _as_json(result: types.CallToolResult) -> str:
    return result.model_dump_json(by_alias=True, exclude_none=True)


async def answer(asked: Asked, engine: Engine, running: RunningAnswer) -> Answered:
    """Ask, and ask once more where the answer breaks the schema it was given.

    Raises:
        KiroError: There is no answer, nor a part of one.
    """
    spending = CallSpending()
    first = await _ask(asked.request, engine, running, spending)
    schema = asked.request.output_schema
    if schema is None or not _is_measurable(first.reply):
        return first
    first, violations = await _measured(first, schema)
    if not violations:
        return first
    running.begin_anew()
    mended = _mended(asked.request, first.reply, violations)
    try:
        second = await _ask(mended, engine, running, spending)
    except KiroError as error:
        return _unmended(first, violations, str(error))
    usage = _sum(first.reply.usage, second.reply.usage)
    if second.reply.truncated:
        first = replace(first, reply=replace(first.reply, usage=usage))
        return _unmended(first, violations, second.reply.truncation_reason)
    second = replace(second, reply=replace(second.reply, usage=usage))
    if not _is_measurable(second.reply):
        return second
    second, violations = await _measured(second, schema)
    if not violations:
        return second
    return _told(second, _breaks_schema("also after one repair turn, so", violations))


async def _ask(
    request: ChatRequest, engine: Engine, running: RunningAnswer, spending: CallSpending
) -> Answered:
    recorder = running.recorder
    async with engine.client.stream(
        request, spending=spending, recorder=recorder, caller=running.caller
    ) as stream:
        try:
            async for delta in stream:
                if isinstance(delta, TextDelta | ThinkingDelta):
                    running.take(delta.text, is_thinking=isinstance(delta, ThinkingDelta))
        except anyio.get_cancelled_exc_class():
            running.partial = running.partial or stream.cut(CallCancelled(running.why_cancelled))
            raise
        running.partial = running.partial or stream.reply
        payload = stream.payload
    reply, warnings = await with_schema_errors(stream.reply, request)
    return Answered(reply=reply, warnings=(*payload.warnings, *warnings), repairs=payload.repairs)


def _mended(request: ChatRequest, reply: Reply, violations: Sequence[str]) -> ChatRequest:
    said = Message(role="assistant", parts=(TextPart(text=reply.text),))
    asked = Message(role="user", parts=(TextPart(text=repair_prompt(violations)),))
    return replace(request, messages=(*request.messages, said, asked))


def _is_measurable(reply: Reply) -> bool:
    """Whether an answer is all that a schema asks about: a part of it may be valid by chance."""
    is_partial = reply.truncated or reply.stop_reason == "refusal"
    return not is_partial and not reply.tool_uses


async def _measured(came: Answered, schema: JsonObject) -> tuple[Answered, Sequence[str]]:
    """Return an answer with its data, or where it breaks the schema."""
    text = came.reply.text
    values = await off_loop(lambda: json_candidates(text), is_large=is_larger(text, SMALL))
    try:
        typed = best_answer(values, await schema_errors(schema, values, name="$"))
    except (UnusableSchemaError, UncheckedError) as error:
        return _told(
            came, f"The answer was not checked by output_schema: {error}. data is null."
        ), ()
    return came if typed.violations else replace(came, data=typed.data), typed.violations


def _unmended(first: Answered, violations: Sequence[str], why: str) -> Answered:
    """Return the first answer with why no second one took its place. It has been paid for."""
    return _told(
        first,
        f"The repair turn failed: {why}",
        _breaks_schema("so", violations),
    )


def _told(came: Answered, *warnings: str) -> Answered:
    return replace(came, warnings=(*came.warnings, *warnings))


def _breaks_schema(when: str, violations: Sequence[str]) -> str:
    return f"The answer breaks output_schema, {when} data is null: {' '.join(violations)}"


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
