"""A call's arguments and its conversation's turns -> a request, its place and what it adds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from kiro_mcp.chat import (
    ChatRequest,
    Effort,
    JsonObject,
    JsonValue,
    Message,
    Part,
    Repair,
    Reply,
    TextPart,
    ToolResult,
    ToolSpec,
)
from kiro_mcp.client.off_loop import SMALL, off_loop
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.server.arguments import AskArguments
from kiro_mcp.server.attachments import Attachments
from kiro_mcp.server.conversations import Conversation, Place
from kiro_mcp.server.engine import Engine
from kiro_mcp.server.schema_checks import UncheckedError, schema_errors
from kiro_mcp.wire.json_values import is_larger
from kiro_mcp.wire.messages import Chat, read_messages, read_tool_results
from kiro_mcp.wire.models import ModelChoice, is_known_effort, resolve_model
from kiro_mcp.wire.request import history_head
from kiro_mcp.wire.schema_check import UnusableSchemaError
from kiro_mcp.wire.tools import read_tool_specs
from kiro_mcp.wire.typed_answers import open_schema

LOOK_UP_SECONDS = 5.0
"""How long a call waits for the list of models if the known one does not do."""

MAX_QUOTED = 80
"""Characters of a value that are shown where it cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call's arguments, understood."""

    request: ChatRequest
    choice: ModelChoice
    repairs: tuple[Repair, ...]
    place: Place
    """Where its turn is to stand."""
    forked_from: str
    """The conversation whose earlier turns it continues under a new id; "" for its own."""
    added: tuple[Message, ...]
    """What the call adds to the turns before it."""
    warnings: tuple[str, ...] = ()
    """What the caller must know of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of a request."""

    reply: Reply
    data: JsonValue = None
    """The validated value, where `output_schema` asked for one."""
    warnings: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
    next_step: str = ""
    """What to do next, where the answer alone does not say it."""


async def understand(arguments: AskArguments, engine: Engine, *, new_id: str, owner: str) -> Asked:
    """Make a request of a call's arguments.

    Args:
        arguments: The arguments of the call.
        engine: The account, its settings and its conversations.
        new_id: The id that a new conversation gets, a UUID.
        owner: Whose conversations the call may continue.

    Raises:
        InvalidRequest: There is nothing to answer, no such conversation, or something that the
            service does not take.
    """
    before = await _conversation(arguments, engine, owner)
    given = [arguments.messages, arguments.tools, arguments.tool_results]
    chat, (tools, tool_repairs), (results, result_repairs) = await off_loop(
        lambda: (
            read_messages(arguments.messages, system=arguments.system),
            read_tool_specs(arguments.tools),
            read_tool_results(arguments.tool_results),
        ),
        is_large=is_larger(given, SMALL),
    )
    tools = tools or _last_tools(before)
    _require_tool(arguments.tool_choice, tools)
    added = (*chat.messages, *await _user_turn(arguments, engine, results))
    _require_something(arguments, added, before)
    choice = await _model(arguments, engine, before)
    place = _place(arguments, before, new_id)
    messages, system = (*before.messages, *added), _system(chat, before)
    # Also for a stored conversation that began with such a history: its cache goes on.
    has_history = len(before.turns[0].messages) > 1 if before.turns else bool(arguments.messages)
    head = await off_loop(
        lambda: history_head(messages, system) if has_history else "",
        is_large=is_larger([given, system], SMALL) or bool(arguments.images),
    )
    request = ChatRequest(
        messages=messages,
        conversation_id=place.conversation_id,
        history_head=head,
        system=system,
        tools=tools,
        allows_tools=arguments.tool_choice != "none",
        tool_choice=arguments.tool_choice if arguments.tool_choice != "none" else "",
        effort=_effort(arguments, choice, engine),
        max_tokens=arguments.max_tokens,
        output_schema=await _usable_schema(arguments.output_schema),
    )
    return Asked(
        request=choice.applied_to(request),
        choice=choice,
        repairs=(*chat.repairs, *tool_repairs, *result_repairs),
        place=place,
        forked_from=before.id if place.conversation_id != before.id else "",
        added=added,
        warnings=(*arguments.warnings, *before.warnings, *choice.warnings),
    )


async def _conversation(arguments: AskArguments, engine: Engine, owner: str) -> Conversation:
    if conversation_id := arguments.conversation_id:
        try:
            return await engine.conversations.load(
                conversation_id, owner=owner, up_to_turn=arguments.from_turn
            )
        except InvalidRequest:
            if running := engine.answers.unfinished_in(conversation_id, owner=owner):
                raise InvalidRequest(
                    f"The conversation {conversation_id!r} has not come so far: an answer in it is"
                    " still running.",
                    next_step=f"Collect that first: call with answer_id {running.id!r} alone.",
                    code="not_found",
                ) from None
            raise
    if arguments.from_turn:
        raise InvalidRequest(
            "from_turn says where to leave a conversation, and conversation_id is empty.",
            next_step="Give the conversation's id, too.",
        )
    return Conversation(id="", turns=())


async def _user_turn(
    arguments: AskArguments, engine: Engine, results: Sequence[ToolResult]
) -> Sequence[Message]:
    attachments = Attachments(engine.settings.roots)
    files = [
        await attachments.file(given, f"files[{n}]") for n, given in enumerate(arguments.files)
    ]
    texts = [TextPart(text=arguments.prompt)] if arguments.prompt.strip() else []
    images = [
        await attachments.image(given, f"images[{n}]") for n, given in enumerate(arguments.images)
    ]
    parts: list[Part] = [*results, *files, *texts, *images]
    return (Message(role="user", parts=tuple(parts)),) if parts else ()


def _require_something(
    arguments: AskArguments, added: Sequence[Message], before: Conversation
) -> None:
    if not added:
        ignored = quoted(", ".join(arguments.ignored))
        raise InvalidRequest(
            "There is nothing to answer: prompt, messages and tool_results are empty"
            f"{f', and {ignored} is not an argument' if arguments.ignored else ''}.",
            next_step="Put the question in `prompt`.",
        )
    if arguments.tool_results and not before.turns and not arguments.messages:
        raise InvalidRequest(
            "tool_results answers the tool calls of an earlier turn, and there is none.",
            next_step="Give the conversation_id of that answer, or the history in `messages`.",
        )


def _require_tool(choice: str, tools: Sequence[ToolSpec]) -> None:
    """Refuse a `tool_choice` that no answer can follow."""
    names = [tool.name for tool in tools]
    if choice in ("", "none", *names) or (choice == "required" and names):
        return
    there_are = f"the tools are {quoted(', '.join(names))}" if names else "there are no tools"
    raise InvalidRequest(
        f"tool_choice is {quoted(choice)}, and {there_are}.",
        next_step="Use auto, none, required or the name of one of your `tools`.",
    )


async def _model(arguments: AskArguments, engine: Engine, before: Conversation) -> ModelChoice:
    """Find the model that is asked for.

    Where the known list has not got it, or not got the effort, the service is asked for its list:
    it may be newer than this package.
    """
    last = before.turns[-1].model if before.turns else ""
    name = arguments.model.strip() or last
    is_set = not name and bool(engine.settings.model)
    effort = arguments.effort or engine.settings.thinking

    def resolve() -> ModelChoice:
        return resolve_model(
            name or engine.default_model,
            engine.known_models,
            aliases=engine.settings.model_aliases,
        )

    choice = resolve()
    is_known = choice.is_listed and (
        is_known_effort(effort) or effort in choice.model.effort_levels
    )
    if not is_known and not arguments.dry_run:
        with anyio.move_on_after(LOOK_UP_SECONDS):
            await engine.catalogue(refresh=False)
        choice = resolve()
    warnings = choice.warnings
    if is_set:
        warnings = tuple(f"KIRO_MCP_MODEL: {warning}" for warning in warnings)
    return replace(choice, model_requested=arguments.model, warnings=warnings)


def _effort(arguments: AskArguments, choice: ModelChoice, engine: Engine) -> Effort:
    """Choose the effort: the argument's, the model name's or the setting's.

    Raises:
        InvalidRequest: It is a word that no model lists.
    """
    effort = arguments.effort or choice.effort or engine.settings.thinking
    listed = [
        level for model in (choice.model, *engine.known_models) for level in model.effort_levels
    ]
    if is_known_effort(effort) or effort in (level.lower() for level in listed):
        return effort
    given_as = "argument 'effort'" if arguments.effort else "setting KIRO_MCP_THINKING"
    raise InvalidRequest(
        f"The {given_as} is {effort[:MAX_QUOTED]!r}, and no model has such an effort.",
        next_step="Use one of off, low, medium, high, xhigh and max, or leave it empty.",
    )


def _place(arguments: AskArguments, before: Conversation, new_id: str) -> Place:
    is_continued = before.turns and not arguments.from_turn
    conversation_id = before.id if is_continued else new_id
    return Place(conversation_id=conversation_id, turn=before.last_turn + 1)


def _system(chat: Chat, before: Conversation) -> str:
    return chat.system or (before.turns[-1].system if before.turns else "")


def _last_tools(before: Conversation) -> tuple[ToolSpec, ...]:
    return before.turns[-1].tools if before.turns else ()


async def _usable_schema(given: JsonObject) -> JsonObject | None:
    """Refuse a schema that no answer can be checked by before the answer is paid for."""
    if not given:
        return None
    schema = open_schema(given)
    try:
        await schema_errors(schema, [], name="$")
    except UnusableSchemaError as error:
        raise InvalidRequest(
            f"output_schema cannot be used: {error}.",
            next_step="Give a valid JSON Schema that refers to nothing outside of itself.",
        ) from error
    except UncheckedError:
        pass  # With a busy machine it may be a chance; the answer's own check will tell.
    return schema
