"""What each of the three tools does when called."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import mcp_types as types
from pydantic import ValidationError

from kiro_mcp.chat import ModelInfo
from kiro_mcp.client.off_loop import is_large, off_loop
from kiro_mcp.errors import InternalFault, InvalidRequest, quoted
from kiro_mcp.server import login
from kiro_mcp.server.answering import make_result, note_delivery
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.arguments import (
    AskArguments,
    ListModelsArguments,
    LoginArguments,
    read_arguments,
)
from kiro_mcp.server.ask_results import rehearsed, still_running, with_warning
from kiro_mcp.server.asker import Asker, Result
from kiro_mcp.server.asking import understand
from kiro_mcp.server.captures import capture_call, finish_with_answer
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.owners import OWN
from kiro_mcp.server.repeats import CallId, question_id
from kiro_mcp.server.results import filled, success
from kiro_mcp.server.streaming import Reporting
from kiro_mcp.wire.models import resolve_model
from kiro_mcp.wire.request import describe_payload

if TYPE_CHECKING:
    from kiro_mcp.captures.recording import CallCapture

logger = logging.getLogger(__name__)

UNDELIVERED_SECONDS = 10 * 60.0
"""How long an answer that no caller got is kept for a call that asks the same."""

_WAS_RUNNING = (
    "An earlier call with the same arguments was still running: this is its answer, and nothing"
    " was asked again."
)
_WAS_UNDELIVERED = (
    "An earlier call with the same arguments was answered, but its result reached nobody: this is"
    " that answer, and nothing was asked again."
)


async def _is_here() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a tool call brings besides its arguments."""

    asker: Asker
    """How the person behind it can be shown a page."""
    reporting: Reporting
    """How progress reaches the caller, if it asked for any."""
    caller: str = ""
    """Which client it comes from, as far as that can be told."""
    request_id: str = ""
    """Which of the client's requests it is."""
    began_at: float
    """When it came, on the event loop's clock."""
    is_gone: Callable[[], Awaitable[bool]] = _is_here
    """Tells whether the client has closed the connection that the result goes to."""
    owner: str = OWN
    """Whose conversations and answers it may use."""
    is_over_http: bool = False
    """Whether others may call the same server."""


async def ask_claude(engine: Engine, arguments: dict[str, Any], call: Call) -> Result:
    """Send what is asked and return the whole answer; have the user sign in first, if need be."""
    with capture_call(engine.captures, arguments) as capture:
        given = read_arguments(AskArguments, "ask_claude", arguments)
        if given.answer_id:
            _refuse_another_question(given)
            return await _collect(engine, given, call)
        ask = partial(_ask, engine, given, call, capture)
        instead = login.instead_of_login(engine, is_over_http=call.is_over_http)
        return await login.signed_in_first(ask, engine, call.asker, instead)


async def _ask(
    engine: Engine, given: AskArguments, call: Call, capture: "CallCapture | None"
) -> types.CallToolResult:
    question = await question_id(given, engine.settings, await engine.secret())
    if (result := await _joined(engine, question, given, call)) or (
        result := await _undelivered(engine, question, call)
    ):
        return result
    asked = await understand(given, engine, new_id=engine.new_id(), owner=call.owner)
    if given.dry_run:
        return await off_loop(
            lambda: rehearsed(asked, describe_payload(engine.client.draft(asked.request))),
            is_large=is_large(asked.request),
        )
    await engine.tokens.access_token()  # Signed out, the call fails here, and not in a task.
    # A repeated call may have been faster, such as one that waited for the same login.
    if result := await _joined(engine, question, given, call):
        return result
    running = RunningAnswer(
        id=engine.new_id(),
        conversation_id=asked.place.conversation_id,
        turn=asked.place.turn,
        model=asked.request.model,
        owner=call.owner,
        caller=call.caller,
        question=question,
        began_at=call.began_at,
        recorder=capture,
    )
    engine.answers.start(running, finish_with_answer(capture, partial(make_result, asked, engine)))
    return await _wait(engine, running, given, call)


async def _joined(
    engine: Engine, question: str, given: AskArguments, call: Call
) -> types.CallToolResult | None:
    """Wait for the running answer to an earlier call that this call repeats, if there is one."""
    running = engine.answers.to_join(question, owner=call.owner, began_at=call.began_at)
    if running is None:
        return None
    running.joined += 1
    running.is_detached = False  # This call waits for it now, so cancelling the call ends it.
    return with_warning(await _wait(engine, running, given, call), _WAS_RUNNING)


async def _undelivered(engine: Engine, question: str, call: Call) -> types.CallToolResult | None:
    """Return the answer to an earlier call that this call repeats, if nobody has got it."""
    if not question:
        return None
    taken = None
    try:
        with anyio.CancelScope(shield=True):  # The store itself gives up in time.
            taken = await engine.conversations.take_undelivered(
                question, owner=call.owner, within_seconds=UNDELIVERED_SECONDS
            )
    except InternalFault as error:
        logger.warning("An earlier answer could not be looked up: %s", error)
        return None
    if taken is None:
        return None
    answer_id, kept = taken
    is_delivered = False
    try:
        await anyio.lowlevel.checkpoint()  # Raises if the call was cancelled meanwhile.
        is_delivered = not await call.is_gone()
        return with_warning(types.CallToolResult.model_validate_json(kept), _WAS_UNDELIVERED)
    except ValidationError:
        return None  # It is damaged.
    finally:
        if not is_delivered:
            with anyio.CancelScope(shield=True), suppress(InternalFault):
                await engine.conversations.mark_undelivered(answer_id, question, owner=call.owner)


def _refuse_another_question(given: AskArguments) -> None:
    """Refuse `answer_id` beside a question: the old answer must not pass for one to the new."""
    asks = ("prompt", "messages", "tool_results", "images", "files")
    if new := [name for name in asks if getattr(given, name)]:
        names = " and ".join(new)
        raise InvalidRequest(
            f"answer_id collects an earlier answer, and {names} would ask something new.",
            next_step=f"To collect the answer, leave out {names}. To ask, leave out answer_id.",
        )


async def _collect(engine: Engine, given: AskArguments, call: Call) -> types.CallToolResult:
    """Return an answer that was left to go on, from the task that makes it or from the store."""
    if running := engine.answers.get(given.answer_id, owner=call.owner):
        return await _wait(engine, running, given, call)
    result = await _kept(engine, given.answer_id, call.owner)
    with suppress(InternalFault):
        await engine.conversations.mark_undelivered(given.answer_id, "", owner=call.owner)
    return result


async def _kept(engine: Engine, answer_id: str, owner: str) -> types.CallToolResult:
    if kept := await engine.conversations.answer(answer_id, owner=owner):
        try:
            return types.CallToolResult.model_validate_json(kept)
        except ValidationError as error:
            raise InternalFault(
                f"What the store kept of the answer {quoted(answer_id)} is damaged.",
                next_step="Ask again.",
            ) from error
    raise InvalidRequest(
        f"There is no answer {quoted(answer_id)}; it may have been cancelled, or be too old.",
        next_step="Ask again.",
        code="not_found",
    )


async def _wait(
    engine: Engine, running: RunningAnswer, given: AskArguments, call: Call
) -> types.CallToolResult:
    seconds = given.wait_seconds if given.wait_seconds >= 0 else engine.settings.wait_seconds
    call_id: CallId = (call.caller, call.request_id)
    try:
        result = await engine.answers.collect(
            running, wait_seconds=seconds, progress=call.reporting.on(running), call=call_id
        )
        if result is not None and not await call.is_gone():
            running.is_delivered = True
    finally:
        await note_delivery(engine, running)
    if running.is_cancelled:
        return await _kept(
            engine, running.id, running.owner
        )  # What had come of it, if anything had.
    return result or still_running(running)


async def list_models(engine: Engine, arguments: dict[str, Any], _call: Call) -> Result:
    """List the models: the service's list when signed in, the built-in one otherwise."""
    asked = read_arguments(ListModelsArguments, "list_models", arguments)
    catalogue = await engine.catalogue(refresh=asked.refresh)
    default = resolve_model(
        engine.default_model, catalogue.models, aliases=engine.settings.model_aliases
    )
    setting = "KIRO_MCP_MODEL: " if engine.settings.model else ""
    fault = [str(catalogue.fault)] if catalogue.fault else []
    of_default = [f"{setting}{warning}" for warning in default.warnings]
    structured: dict[str, Any] = {
        "models": [_listed(model) for model in catalogue.models],
        "default_model": default.model.id,
        "source": catalogue.source,
    }
    if catalogue.fetched_at:
        structured["fetched_at"] = catalogue.fetched_at.isoformat()
    if warnings := [*asked.warnings, *fault, *of_default]:
        structured["warnings"] = warnings
    text = f"{len(catalogue.models)} models, {catalogue.source} list."
    return success(text, structured, extras=structured)


async def login_tool(engine: Engine, arguments: dict[str, Any], call: Call) -> Result:
    """Say who is signed in, or begin or end a login."""
    asked = read_arguments(LoginArguments, "login", arguments)
    result = await login.run(
        engine,
        action=asked.action,
        method=asked.method,
        start_url=asked.start_url,
        region=asked.region or engine.settings.region,
        asker=call.asker,
        instead=login.instead_of_login(engine, is_over_http=call.is_over_http),
    )
    return login.with_warnings(result, asked.warnings)


Handler = Callable[[Engine, dict[str, Any], Call], Awaitable[Result]]

HANDLERS: dict[str, Handler] = {
    "ask_claude": ask_claude,
    "list_models": list_models,
    "login": login_tool,
}


def _listed(model: ModelInfo) -> dict[str, Any]:
    price, higher = model.list_price, model.higher_rate
    return filled(
        {
            "id": model.id,
            "name": model.name,
            "aliases": list(model.aliases),
            "context_window": model.context_window,
            "max_output_tokens": model.max_output_tokens,
            "rate_multiplier": model.rate_multiplier,
            "higher_rate": higher
            and {
                "above_tokens": higher.above_tokens,
                "rate_multiplier": higher.rate_multiplier,
            },
            "list_price": price
            and {
                "input_per_million": price.input_per_million,
                "output_per_million": price.output_per_million,
            },
            "input_types": list(model.input_types),
            "thinking": model.thinking,
            "effort_levels": list(model.effort_levels),
            "default_effort": model.fields and model.fields.default_effort,
            "refusal_fallbacks": list(model.refusal_fallbacks),
        }
    )
