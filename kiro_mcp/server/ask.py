"""The tool `ask_claude`: arguments -> plan -> job -> result.

The call reads its arguments, looks whether an earlier call asks the same, and plans what to send.
A job then sends it, checks the answer and saves it; the call waits for the job::

    ask_claude ─▶ read_arguments ─▶ question_id ─▶ plan_request ─▶ Job ─▶ wait ─▶ result
                                         │                          │
                       the result of an earlier call    send ─▶ check ─▶ save

An answer is in the store before anybody gets it: it has been paid for. With `output_schema` the
answer's text is parsed and checked; if it breaks the schema the model is told so, once, and its
second answer counts, if that one is complete.
"""

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import mcp_types as types
from pydantic import ValidationError

from kiro_mcp.chat import (
    ChatRequest,
    Message,
    Part,
    Reply,
    TextDelta,
    TextPart,
    ThinkingDelta,
)
from kiro_mcp.client.admission import CallSpending
from kiro_mcp.client.off_loop import SMALL, is_large, off_loop
from kiro_mcp.client.schema_checks import (
    Answer,
    ask_by_schema,
    read_schema,
    with_schema_errors,
)
from kiro_mcp.errors import (
    CallCancelled,
    InternalFault,
    InvalidRequest,
    KiroError,
    SignInRequired,
    quoted,
)
from kiro_mcp.server import login
from kiro_mcp.server.arguments import AskArguments, read_arguments
from kiro_mcp.server.attachments import read_image, read_text_file
from kiro_mcp.server.call import Call, Result
from kiro_mcp.server.captures import capture_call, finish_with_answer
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.jobs import Job, question_id
from kiro_mcp.server.results import (
    Plan,
    build_dry_run_result,
    build_result,
    build_running_result,
    failure,
    with_warning,
)
from kiro_mcp.server.store import Conversation, Position, Turn
from kiro_mcp.wire.json_values import is_larger
from kiro_mcp.wire.messages import read_messages, read_tool_results
from kiro_mcp.wire.models import ModelChoice, is_known_effort
from kiro_mcp.wire.request import history_head
from kiro_mcp.wire.tools import read_tool_specs

if TYPE_CHECKING:
    from kiro_mcp.captures.recording import CallCapture

logger = logging.getLogger(__name__)

LOOK_UP_SECONDS: Final = 5.0
"""How long a call waits for the list of models if the known one is not enough."""

UNDELIVERED_SECONDS: Final = 10 * 60.0
"""How long an answer that no caller got is kept for a call that asks the same."""

NOT_SAVED: Final = "The conversation could not be kept."
"""How the warning begins that nothing can continue this answer."""

_WAS_RUNNING = (
    "An earlier call with the same arguments was still running: this is its answer, and nothing"
    " was asked again."
)
_WAS_UNDELIVERED = (
    "An earlier call with the same arguments was answered, but its result reached nobody: this is"
    " that answer, and nothing was asked again."
)


async def ask_claude(engine: Engine, arguments: dict[str, Any], call: Call) -> Result:
    """Send a question and return the whole answer. If necessary, let the person sign in first.

    Raises:
        KiroError: The service gave neither an answer nor a part of one.
    """
    with capture_call(engine.captures, arguments) as capture:
        given = read_arguments(AskArguments, "ask_claude", arguments)
        if given.answer_id:
            return await _collect(engine, given, call)
        await login.take_reply(engine, call)
        try:
            return await _ask(engine, given, call, capture)
        except SignInRequired as error:
            page = await login.offer_sign_in(engine, call, error)
        return page or await _ask(engine, given, call, capture)


async def _ask(
    engine: Engine, given: AskArguments, call: Call, capture: "CallCapture | None"
) -> types.CallToolResult:
    question = await question_id(given, engine.settings_text, await engine.secret())
    if result := await _join_running(engine, question, given, call):
        return result
    if result := await _take_undelivered(engine, question, call):
        return result
    plan = await plan_request(engine, given)
    if given.dry_run:
        return await off_loop(
            lambda: build_dry_run_result(plan, engine.client.draft(plan.request)),
            is_large=is_large(plan.request),
        )
    token = await engine.client.check_login()  # Signed out, the call fails here, not in a job.
    # A repeated call may have been faster, such as one that waited for the same login.
    if result := await _join_running(engine, question, given, call):
        return result
    job = Job(
        id=engine.new_id(),
        conversation_id=plan.position.conversation_id,
        turn=plan.position.turn,
        model=plan.request.model,
        caller=call.id[0],
        question=question,
        began_at=call.began_at,
        token=token,
        recorder=capture,
    )
    engine.jobs.start(job, finish_with_answer(capture, partial(_make_result, engine, plan)))
    return await _wait(engine, job, given, call)


# --- results of earlier calls -------------------------------------------------------------


async def _wait(engine: Engine, job: Job, given: AskArguments, call: Call) -> types.CallToolResult:
    """Wait for a job, and return its result or, when patience ends, what there is."""
    patience = given.wait_seconds if given.wait_seconds >= 0 else engine.settings.wait_seconds
    try:
        result = await engine.jobs.wait(
            job,
            call.id,
            call.send_progress,
            patience_seconds=patience,
            streams_text=call.stream_token is not None,
        )
        if result is not None and not await call.is_gone():
            job.is_delivered = True
    finally:
        await _note_delivery(engine, job)
    if result is not None:
        return result
    if job.is_cancelled:  # Its partial answer may have been saved.
        return await _load_result(engine, job.id)
    return build_running_result(
        "".join(job.pieces),
        model=job.model,
        position=Position(conversation_id=job.conversation_id, turn=job.turn),
        answer_id=job.id,
    )


async def _join_running(
    engine: Engine, question: str, given: AskArguments, call: Call
) -> types.CallToolResult | None:
    """Wait for the job of an earlier call that this call repeats, if there is one."""
    job = engine.jobs.to_join(question, began_at=call.began_at)
    if job is None:
        return None
    job.join_count += 1
    job.is_detached = False  # This call waits for it now, so cancelling the call ends it.
    return with_warning(await _wait(engine, job, given, call), _WAS_RUNNING)


async def _take_undelivered(
    engine: Engine, question: str, call: Call
) -> types.CallToolResult | None:
    """Return the answer to an earlier call that this call repeats, if nobody has got it."""
    if not question:
        return None
    taken = None
    try:
        with anyio.CancelScope(shield=True):  # The store itself gives up in time.
            taken = await engine.conversations.take_undelivered(
                question, owner=engine.owner, within_seconds=UNDELIVERED_SECONDS
            )
    except InternalFault as error:
        logger.warning("An earlier answer could not be looked up: %s", error)
        return None
    if taken is None:
        return None
    answer_id, saved = taken
    is_delivered = False
    try:
        await anyio.lowlevel.checkpoint()  # Raises if the call was cancelled meanwhile.
        is_delivered = not await call.is_gone()
        return with_warning(types.CallToolResult.model_validate_json(saved), _WAS_UNDELIVERED)
    except ValidationError:
        return None  # It is damaged.
    finally:
        if not is_delivered:
            with anyio.CancelScope(shield=True), suppress(InternalFault):
                await engine.conversations.mark_undelivered(answer_id, question, owner=engine.owner)


async def _collect(engine: Engine, given: AskArguments, call: Call) -> types.CallToolResult:
    """Return the result of a detached job, from the job or from the store."""
    asks = ("prompt", "messages", "tool_results", "images", "files")
    if new := [name for name in asks if getattr(given, name)]:
        names = " and ".join(new)  # The old answer must not pass for one to something new.
        raise InvalidRequest(
            f"answer_id collects an earlier answer, and {names} would ask something new.",
            next_step=f"To collect the answer, leave out {names}. To ask, leave out answer_id.",
        )
    if job := engine.jobs.get(given.answer_id):
        return await _wait(engine, job, given, call)
    result = await _load_result(engine, given.answer_id)
    with suppress(InternalFault):
        await engine.conversations.mark_undelivered(given.answer_id, "", owner=engine.owner)
    return result


async def _load_result(engine: Engine, answer_id: str) -> types.CallToolResult:
    if saved := await engine.conversations.answer(answer_id, owner=engine.owner):
        try:
            return types.CallToolResult.model_validate_json(saved)
        except ValidationError as error:
            raise InternalFault(
                f"What the store kept of the answer {quoted(answer_id)} is damaged.",
                next_step="Ask again.",
            ) from error
    raise InvalidRequest(
        f"The answer {quoted(answer_id)} is unknown: it may have been cancelled, or be too old.",
        next_step="Ask again.",
        code="not_found",
    )


async def _note_delivery(engine: Engine, job: Job) -> None:
    """Tell the store whether a caller has got a saved answer, if it says otherwise."""
    undelivered = "" if job.is_delivered else job.question
    if not job.is_saved_whole or job.calls or undelivered == job.undelivered:
        return
    job.undelivered = undelivered
    try:
        with anyio.CancelScope(shield=True):
            await engine.conversations.mark_undelivered(job.id, undelivered, owner=engine.owner)
    except InternalFault as error:
        logger.warning("The answer %s could not be marked: %s", job.id, error)


# --- arguments -> plan --------------------------------------------------------------------


async def plan_request(engine: Engine, given: AskArguments) -> Plan:
    """Make a request of a call's arguments.

    In order: load the conversation, read what the caller adds to it, choose model and effort,
    then put the request together. Nothing is sent, but an unknown model has the list fetched.

    Raises:
        InvalidRequest: Nothing was asked, the conversation is unknown, or the service does not
            take what was asked.
    """
    before = await _load_conversation(engine, given)
    last = before.turns[-1] if before.turns else None

    lists: list[object] = [given.messages, given.tools, given.tool_results]
    chat, (tools, tool_repairs), (results, result_repairs) = await off_loop(
        lambda: (
            read_messages(given.messages, system=given.system),
            read_tool_specs(given.tools),
            read_tool_results(given.tool_results),
        ),
        is_large=is_larger(lists, SMALL),
    )
    system = chat.system or (last.system if last else "")
    tools = tools or (last.tools if last else ())
    tool_choice = given.tool_choice
    names = [tool.name for tool in tools]
    if tool_choice not in ("", "none", *names) and not (tool_choice == "required" and names):
        there_are = f"the tools are {quoted(', '.join(names))}" if names else "there are no tools"
        raise InvalidRequest(
            f"tool_choice is {quoted(tool_choice)}, and {there_are}.",
            next_step="Use auto, none, required or the name of one of your `tools`.",
        )

    roots = engine.settings.roots
    parts: list[Part] = [*results]
    for number, path in enumerate(given.files):
        parts.append(await read_text_file(path, roots, f"files[{number}]"))
    if given.prompt and not given.prompt.isspace():  # `strip` would copy megabytes.
        parts.append(TextPart(text=given.prompt))
    for number, image in enumerate(given.images):
        parts.append(await read_image(image, roots, f"images[{number}]"))
    added = chat.messages
    if parts:
        added = (*added, Message(role="user", parts=tuple(parts)))
    if not added:
        ignored = quoted(", ".join(given.ignored))
        raise InvalidRequest(
            "Nothing was asked: prompt, messages and tool_results are empty"
            f"{f', and {ignored} is not an argument' if given.ignored else ''}.",
            next_step="Put the question in `prompt`.",
        )
    if given.tool_results and not before.turns and not given.messages:
        raise InvalidRequest(
            "tool_results answers tool calls of an earlier turn, and this call names none.",
            next_step="Give the conversation_id of that answer, or the history in `messages`.",
        )

    choice = await _choose_model(engine, given, last.model if last else "")
    effort = given.effort or choice.effort or engine.settings.thinking
    models = (choice.model, *engine.known_models)
    levels = {level.lower() for model in models for level in model.effort_levels}
    if not is_known_effort(effort) and effort not in levels:
        source = "argument 'effort'" if given.effort else "setting KIRO_MCP_THINKING"
        raise InvalidRequest(
            f"The {source} is {effort[:80]!r}, and no model has such an effort.",
            next_step="Use one of off, low, medium, high, xhigh and max, or leave it empty.",
        )

    is_continued = bool(before.turns) and not given.from_turn
    position = Position(
        conversation_id=before.id if is_continued else engine.new_id(),
        turn=before.last_turn + 1,
    )
    schema = None
    if given.output_schema:
        schema = await read_schema(given.output_schema, "output_schema")
    messages = (*before.messages, *added)
    # Also for a stored conversation that began with a caller's history: its cache goes on.
    has_history = len(before.turns[0].messages) > 1 if before.turns else bool(given.messages)
    head = await off_loop(
        lambda: history_head(messages, system) if has_history else "",
        is_large=is_larger([lists, system], SMALL) or bool(given.images),
    )
    request = ChatRequest(
        messages=messages,
        model=choice.model.id,
        model_info=choice.model,
        conversation_id=position.conversation_id,
        history_head=head,
        system=system,
        tools=tools,
        allows_tools=choice.allows_tools and tool_choice != "none",
        tool_choice=tool_choice if tool_choice != "none" else "",
        effort=effort,
        max_tokens=given.max_tokens,
        output_schema=schema,
        writes_in_chunks=choice.writes_in_chunks,
    )
    return Plan(
        request=request,
        choice=choice,
        position=position,
        model_requested="" if given.model == request.model else given.model,
        forked_from=before.id if position.conversation_id != before.id else "",
        added=added,
        warnings=(*given.warnings, *before.warnings, *choice.warnings),
        repairs=(*chat.repairs, *tool_repairs, *result_repairs),
    )


async def _load_conversation(engine: Engine, given: AskArguments) -> Conversation:
    conversation_id = given.conversation_id
    if not conversation_id and given.from_turn:
        raise InvalidRequest(
            "from_turn says where to leave a conversation, and conversation_id is empty.",
            next_step="Give the conversation's id, too.",
        )
    if not conversation_id:
        return Conversation(id="", turns=())
    try:
        return await engine.conversations.load(
            conversation_id, owner=engine.owner, up_to_turn=given.from_turn
        )
    except InvalidRequest:
        for job in engine.jobs.running:
            if job.conversation_id == conversation_id:
                raise InvalidRequest(
                    f"The conversation {conversation_id!r} does not have that turn yet: an answer"
                    " in it is still running.",
                    next_step=f"Collect that first: call with answer_id {job.id!r} alone.",
                    code="not_found",
                ) from None
        raise


async def _choose_model(engine: Engine, given: AskArguments, last_model: str) -> ModelChoice:
    """Choose the model: the argument's, the conversation's or the default.

    If the known list lacks the model or the effort, the service is asked for its list, which may
    be newer than this package.
    """
    name = given.model.strip() or last_model
    effort = given.effort or engine.settings.thinking
    choice = engine.choose_model(name)
    is_effort_known = is_known_effort(effort) or effort in choice.model.effort_levels
    if not (choice.is_listed and is_effort_known) and not given.dry_run:
        with anyio.move_on_after(LOOK_UP_SECONDS):
            await engine.catalogue(refresh=False)
        choice = engine.choose_model(name)
    warnings = choice.warnings
    if not name and engine.settings.model:
        warnings = tuple(f"KIRO_MCP_MODEL: {warning}" for warning in warnings)
    return replace(choice, warnings=warnings)


# --- the job: plan -> answer -> result, saved ----------------------------------------------


async def _make_result(engine: Engine, plan: Plan, job: Job) -> types.CallToolResult:
    """Send the request, save the answer, and return the result. Never raises a `KiroError`."""
    try:
        send = partial(_send, engine, job, CallSpending())
        answer = await ask_by_schema(plan.request, send)
    except KiroError as error:
        more: tuple[str, ...] = ()
        if error.code == "model_unavailable":
            more = plan.choice.warnings or (f"The model is {quoted(plan.request.model)}.",)
        result = failure(error, *more)
        try:
            saved = result.model_dump_json(by_alias=True, exclude_none=True)
            await engine.conversations.save_answer(job.id, saved, owner=engine.owner)
        except InternalFault as fault:
            logger.warning("The answer %s could not be kept: %s", job.id, fault)
        return result
    except anyio.get_cancelled_exc_class():
        # What had come has been paid for: a client that gave up by itself finds it under the
        # id that progress named.
        reply = job.partial
        if reply is not None and not reply.is_empty:
            warnings = [] if reply.truncated else [job.why_cancelled]
            await _save(engine, plan, Answer(reply=reply, warnings=warnings), job, is_whole=False)
        raise

    reply = answer.reply
    called = {use.name for use in reply.tool_uses}
    wanted = plan.request.tool_choice
    if wanted and wanted not in called and not (wanted == "required" and called):
        answer.warnings.append(
            f"tool_choice is {quoted(wanted)}, and the answer has no such tool call: the model was"
            " told, but the service cannot enforce it."
        )
    if reply.stop_reason == "refusal":
        answer.next_step = await _after_refusal(engine, plan.request.model, reply)
    return await _save(engine, plan, answer, job, is_whole=not reply.truncated)


async def _send(engine: Engine, job: Job, spending: CallSpending, request: ChatRequest) -> Answer:
    token, job.token = job.token, None
    job.pieces = []
    async with engine.client.stream(
        request, token=token, spending=spending, recorder=job.recorder, caller=job.caller
    ) as stream:
        try:
            async for delta in stream:
                if isinstance(delta, TextDelta | ThinkingDelta):
                    job.add(delta.text, is_thinking=isinstance(delta, ThinkingDelta))
        except anyio.get_cancelled_exc_class():
            job.partial = job.partial or stream.cut(CallCancelled(job.why_cancelled))
            raise
        job.partial = job.partial or stream.reply
        payload = stream.payload
    reply, warnings = await with_schema_errors(stream.reply, request)
    return Answer(
        reply=reply,
        model=payload.model.id,
        warnings=[*payload.warnings, *warnings],
        repairs=payload.repairs,
    )


async def _after_refusal(engine: Engine, model: str, reply: Reply) -> str:
    """Say which other model may answer after a refusal. It is never asked automatically."""
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


async def _save(
    engine: Engine, plan: Plan, answer: Answer, job: Job, *, is_whole: bool
) -> types.CallToolResult:
    """Save the turn and the result, even if the caller disconnects; return the result.

    If they cannot be saved, the result says so in a warning.
    """
    reply = answer.reply
    said = Message(
        role="assistant",
        parts=reply.parts,
        is_truncated=reply.truncated,
        is_refusal=reply.stop_reason == "refusal",
    )
    request = plan.request
    turn = Turn(
        model=request.model,
        system=request.system,
        tools=request.tools,
        messages=plan.added,
        answer=said,
    )
    arguments = [[use.arguments, use.raw] for use in reply.tool_uses]
    is_large = is_larger([reply.text, reply.thinking, arguments, list(reply.links)], SMALL)

    def build(position: Position) -> tuple[types.CallToolResult, str]:
        result = build_result(plan, answer, position, job.id)
        return result, result.model_dump_json(by_alias=True, exclude_none=True)

    if is_whole and not job.calls:
        job.undelivered = job.question
    result = None
    with anyio.CancelScope(shield=True):  # The store itself gives up in time.
        result, saved = await off_loop(partial(build, plan.position), is_large=is_large)
        try:
            position = await engine.conversations.append(
                plan.position,
                turn,
                owner=engine.owner,
                forked_from=plan.forked_from,
                answer_id=job.id,
                result=saved,
                undelivered=job.undelivered,
            )
            if position != plan.position:
                answer.warnings.append(
                    "Another call continued this conversation meanwhile: this answer is in a new"
                    f" conversation, {position.conversation_id}."
                )
                result, saved = await off_loop(partial(build, position), is_large=is_large)
                await engine.conversations.save_answer(
                    job.id, saved, owner=engine.owner, undelivered=job.undelivered
                )
        except InternalFault as error:
            logger.warning("%s %s", NOT_SAVED, error)
            answer.warnings.append(f"{NOT_SAVED} {error}")
            return (await off_loop(partial(build, plan.position), is_large=is_large))[0]
    assert result
    job.is_saved_whole = is_whole
    await _note_delivery(engine, job)  # Its last caller may have left meanwhile.
    return result
