"""Prompts: slash commands for a client's user, with completion of model names."""

from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from kiro_mcp.errors import quoted

if TYPE_CHECKING:
    from kiro_mcp.server.engine import Engine

MAX_COMPLETIONS: Final = 100
"""How many values a completion may list, according to the specification."""

_MODEL: Final = types.PromptArgument(
    name="model", description="Model id; empty for the default.", required=False
)

# Some frameworks offer prompts to the model as functions, like the tools. So the name of a prompt
# must not look like that of a tool.
LISTED: Final = (
    types.Prompt(
        name="question-for-claude",
        title="Question for Claude",
        description="Ask Claude a question and show its answer.",
        arguments=[
            types.PromptArgument(name="question", description="The question.", required=True),
            _MODEL,
        ],
    ),
    types.Prompt(
        name="second-opinion",
        title="Second opinion",
        description="Have Claude judge the work of this conversation independently.",
        arguments=[
            types.PromptArgument(
                name="about",
                description="What to judge; empty for the latest work.",
                required=False,
            ),
            _MODEL,
        ],
    ),
)


async def get_prompt(
    _: ServerRequestContext[Any], params: types.GetPromptRequestParams
) -> types.GetPromptResult:
    """Return a prompt, filled in.

    Raises:
        MCPError: The prompt is unknown, or a required argument is missing.
    """
    name, arguments = params.name, params.arguments or {}
    model = arguments.get("model", "").strip()
    with_model = f" with model {model!r}" if model else ""
    match name:
        case "question-for-claude":
            question = arguments.get("question", "").strip()
            if not question:
                raise MCPError(
                    code=types.INVALID_PARAMS, message=f"The prompt {name} needs a question."
                )
            text = (
                f"Call the tool ask_claude{with_model}, pass it this question with all the"
                f" context it needs, and show me its answer:\n\n{question}"
            )
        case "second-opinion":
            about = arguments.get("about", "").strip() or "your latest work in this conversation"
            text = (
                f"Get a second opinion on {about}: call the tool ask_claude{with_model} with a"
                " self-contained description, including the relevant code or text. Ask what is"
                " wrong or risky. Then weigh its answer against your own view and tell me both."
            )
        case _:
            known = ", ".join(prompt.name for prompt in LISTED)
            raise MCPError(
                code=types.INVALID_PARAMS,
                message=f"Unknown prompt {quoted(name)}. The prompts are {known}.",
            )
    content = types.TextContent(type="text", text=text)
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)])


def complete(engine: "Engine", params: types.CompleteRequestParams) -> types.CompleteResult:
    """Return the models whose ids contain the typed text."""
    values: list[str] = []
    if isinstance(params.ref, types.PromptReference) and params.argument.name == "model":
        typed = params.argument.value.lower()
        values = [model.id for model in engine.known_models if typed in model.id]
    completion = types.Completion(
        values=values[:MAX_COMPLETIONS],
        total=len(values),
        has_more=len(values) > MAX_COMPLETIONS,
    )
    return types.CompleteResult(completion=completion)
