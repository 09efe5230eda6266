"""The three tools: their arguments, their declarations, and what each does when called.

Arguments are what strangers send, so pydantic reads them; a refusal is in our own words,
because the library's text would echo the whole prompt back. The schemas that clients see come
from the same classes and are flat: several clients cannot read `$ref` or `anyOf`.
"""

import uuid
from typing import Any, Literal, TypeVar, cast

import mcp_types as types
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.models import ChatRequest, Message, ModelInfo, TextPart
from kiro_mcp.server import login
from kiro_mcp.server.engine import Catalogue, Engine
from kiro_mcp.server.results import answer, compact_json, success
from kiro_mcp.server.schemas import ASK_RESULT, LOGIN_RESULT, MODELS_RESULT

MAX_RESULT_CHARACTERS = 400_000
"""How large a result may be before a client that asks cuts it: well over any whole answer."""


class AskArguments(BaseModel):
    """The arguments of `ask_claude`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    prompt: str = Field("", description="The message to Claude. Required.")
    system: str = Field("", description="System prompt: who Claude is and how it should answer.")
    model: str = Field(
        "", description="Model id from list_models; empty for the default, usually auto."
    )


class ListModelsArguments(BaseModel):
    """The arguments of `list_models`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    refresh: bool = Field(False, description="Ask the service again instead of using a kept list.")


class LoginArguments(BaseModel):
    """The arguments of `login`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    action: Literal["status"] = Field("status", description="status: say who is signed in.")


Arguments = TypeVar("Arguments", bound=BaseModel)


async def ask_claude(engine: Engine, arguments: dict[str, Any]) -> types.CallToolResult:
    """Send one prompt and return the whole answer."""
    asked = _read(AskArguments, "ask_claude", arguments)
    if not asked.prompt.strip():
        raise InvalidRequest("The prompt is empty.", next_step="Put the question in `prompt`.")
    model = asked.model.strip() or engine.settings.model
    conversation_id = str(uuid.uuid4())
    reply = await engine.client.ask(
        ChatRequest(
            messages=(Message(role="user", parts=(TextPart(text=asked.prompt),)),),
            system=asked.system,
            model=model,
            conversation_id=conversation_id,
        )
    )
    return answer(
        reply, model=model, model_requested=asked.model, conversation_id=conversation_id, turn=1
    )


async def list_models(engine: Engine, arguments: dict[str, Any]) -> types.CallToolResult:
    """List the models: the service's list when signed in, the built-in one otherwise."""
    asked = _read(ListModelsArguments, "list_models", arguments)
    catalogue = await engine.catalogue(refresh=asked.refresh)
    structured = {
        "models": [_listed(model) for model in catalogue.models],
        "default_model": engine.settings.model,
        "source": catalogue.source,
        "fetched_at": catalogue.fetched_at.isoformat() if catalogue.fetched_at else "",
        "warnings": [str(catalogue.fault)] if catalogue.fault else [],
    }
    return success(_in_words(catalogue), structured, more=compact_json(structured))


async def login_tool(engine: Engine, arguments: dict[str, Any]) -> types.CallToolResult:
    """Say whether a credential is there, which, and what to do if not."""
    _read(LoginArguments, "login", arguments)
    return login.status(engine)


HANDLERS = {"ask_claude": ask_claude, "list_models": list_models, "login": login_tool}


def declarations() -> list[types.Tool]:
    """Return the tools as `tools/list` shows them, always in the same order."""
    return [
        types.Tool(
            name="ask_claude",
            title="Ask Claude",
            description=(
                "Ask Claude one question through the user's Kiro subscription and get the whole"
                " answer back. Claude sees only what you send: put all it needs into prompt."
                " Use it for a second opinion or a self-contained piece of work. Returns the"
                " text, any tool calls, the stop reason and the credits used. Nothing that"
                " Claude answers is executed here. If it says auth_required, call login."
            ),
            input_schema=_input_schema(AskArguments, required=["prompt"]),
            output_schema=ASK_RESULT,
            annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=True),
            _meta={"anthropic/maxResultSizeChars": MAX_RESULT_CHARACTERS},
        ),
        types.Tool(
            name="list_models",
            title="List models",
            description=(
                "List the models that ask_claude can use, with context window, credit rate and"
                " thinking effort. Works signed out, from a built-in list; source says which."
            ),
            input_schema=_input_schema(ListModelsArguments),
            output_schema=MODELS_RESULT,
            annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=True),
        ),
        types.Tool(
            name="login",
            title="Kiro sign-in",
            description=(
                "Say whether a Kiro credential is there, where it came from, and what to do if"
                " not. Call it when another tool answers auth_required or auth_expired."
            ),
            input_schema=_input_schema(LoginArguments),
            output_schema=LOGIN_RESULT,
            annotations=types.ToolAnnotations(
                read_only_hint=False,
                destructive_hint=False,
                idempotent_hint=True,
                open_world_hint=True,
            ),
        ),
    ]


def _input_schema(arguments: type[BaseModel], required: list[str] | None = None) -> dict[str, Any]:
    schema = arguments.model_json_schema()
    properties = cast("dict[str, dict[str, Any]]", schema["properties"])
    for declared in properties.values():
        declared.pop("title")
        if "const" in declared:  # Some clients know only `enum`.
            declared["enum"] = [declared.pop("const")]
    listed: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        listed["required"] = required
    return {**listed, "additionalProperties": False}


def _read(kind: type[Arguments], tool: str, given: dict[str, Any]) -> Arguments:
    # Models write null for what they leave out.
    present = {name: value for name, value in given.items() if value is not None}
    known = ", ".join(kind.model_fields)
    try:
        return kind.model_validate(present)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        raise InvalidRequest(f"{tool} has no argument {name!r}.", next_step=f"It takes: {known}.")
    raise InvalidRequest(
        f"The argument {name!r} of {tool} cannot be used: {fault['msg']}.",
        next_step="Correct it and call again.",
    )


def _listed(model: ModelInfo) -> dict[str, Any]:
    price = model.list_price
    return {
        "id": model.id,
        "name": model.name,
        "aliases": list(model.aliases),
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "rate_multiplier": model.rate_multiplier,
        "list_price": price
        and {
            "input_per_million": price.input_per_million,
            "output_per_million": price.output_per_million,
        },
        "input_types": list(model.input_types),
        "thinking": model.thinking,
        "effort_levels": list(model.effort_levels),
    }


def _in_words(catalogue: Catalogue) -> str:
    ids = ", ".join(model.id for model in catalogue.models)
    doubt = f" ({catalogue.fault})" if catalogue.fault else ""
    return f"{len(catalogue.models)} models, {catalogue.source} list{doubt}: {ids}"
