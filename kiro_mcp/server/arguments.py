"""The tools' arguments: what strangers send, read by pydantic and refused in our own words.

The library's own text would echo the whole prompt back. The schemas that clients see come from
the same classes and are flat: several clients cannot read `$ref` or `anyOf`.
"""

from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.protocol.model_fields import read_effort


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class AskArguments(_Arguments):
    """The arguments of `ask_claude`."""

    prompt: str = Field("", description="The next user message.")
    system: str = Field("", description="System prompt: who Claude is and how it should answer.")
    model: str = Field(
        "", description="Model id or alias from list_models; empty for the default, usually auto."
    )
    effort: Annotated[str, AfterValidator(read_effort)] = Field(
        "",
        description=(
            "How hard to think: off low medium high xhigh max, or what list_models names; the"
            " nearest that the model offers is used. Empty: its default."
        ),
    )
    conversation_id: str = Field("", description="Continue this conversation; empty starts one.")
    from_turn: int = Field(
        0, ge=0, description="Continue from this earlier turn instead of the last, as a fork."
    )
    messages: list[dict[str, Any]] = Field(
        [],
        description=(
            "A whole history, as Anthropic, OpenAI or MCP messages {role, content}, before"
            " prompt or instead of it."
        ),
    )
    tools: list[dict[str, Any]] = Field(
        [],
        description=(
            "Tools that Claude may ask you to run: MCP {name, description, inputSchema},"
            " Anthropic {name, description, input_schema} or OpenAI {type: function, function}."
            " Its calls come back in tool_calls; nothing is run here."
        ),
    )
    tool_results: list[dict[str, Any]] = Field(
        [],
        description="What your tools answered to the last turn's calls: {id, content, is_error}.",
    )
    images: list[str] = Field(
        [], description="Images for the prompt: data URLs, or paths in an open folder."
    )
    files: list[str] = Field([], description="Text files to attach: paths in an open folder.")
    output_schema: dict[str, Any] = Field(
        {},
        description="JSON Schema: the answer is parsed and checked against it, and put in data.",
    )
    max_tokens: int = Field(
        0, ge=0, description="Longest answer in tokens, where the model takes it; 0 for no limit."
    )
    wait_seconds: float = Field(
        50,
        ge=0,
        description=(
            "After so long the call returns status running and the text so far; the answer goes"
            " on. 0 waits to the end."
        ),
    )
    answer_id: str = Field(
        "", description="Collect an answer that was running; leave all else empty."
    )
    dry_run: bool = Field(
        False, description="Send nothing: say what would be sent, its size and what was repaired."
    )


class ListModelsArguments(_Arguments):
    """The arguments of `list_models`."""

    refresh: bool = Field(False, description="Ask the service again instead of using a kept list.")


class LoginArguments(_Arguments):
    """The arguments of `login`."""

    action: Literal["", "status", "start", "logout"] = Field(
        "",
        description=(
            "status: who is signed in, and credits left. start: sign in. logout: forget our own"
            " login. Empty: status, and start if signed out."
        ),
    )
    method: Literal["builder_id", "idc", "google", "github"] = Field(
        "builder_id", description="How to sign in; idc is a company's IAM Identity Center."
    )
    start_url: str = Field("", description="For idc: the company's start URL.")
    region: str = Field("", description="For idc: the region of its directory, e.g. us-east-1.")


Arguments = TypeVar("Arguments", bound=BaseModel)


def input_schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, as clients are shown it."""
    properties = cast("dict[str, dict[str, Any]]", arguments.model_json_schema()["properties"])
    for declared in properties.values():
        declared.pop("title")
        if "const" in declared:  # Some clients know only `enum`.
            declared["enum"] = [declared.pop("const")]
        if declared.get("items", {}).get("type") == "object":
            declared["items"] = {"type": "object"}
        if declared["type"] == "object":
            declared.pop("additionalProperties", None)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def read_arguments(kind: type[Arguments], tool: str, given: dict[str, Any]) -> Arguments:
    """Read a call's arguments.

    Raises:
        InvalidRequest: One is unknown or cannot be used; names it, never echoes it.
    """
    # Models write null for what they leave out.
    present = {name: value for name, value in given.items() if value is not None}
    try:
        return kind.model_validate(present)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        raise InvalidRequest(f"{tool} has no argument {name!r}.", next_step=f"It takes: {known}.")
    raise InvalidRequest(
        f"The argument {name!r} of {tool} cannot be used: {fault['msg']}.",
        next_step="Correct it and call again.",
    )
