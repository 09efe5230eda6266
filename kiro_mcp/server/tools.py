"""The three tools as clients see them. What they do is in `ask`, `list_models` and `login`."""

import mcp_types as types

from kiro_mcp.server.arguments import (
    AskArguments,
    ListModelsArguments,
    LoginArguments,
    input_schema,
)
from kiro_mcp.server.schemas import ASK_RESULT, LOGIN_RESULT, MODELS_RESULT

MAX_RESULT_CHARACTERS = 400_000
"""How large a result may be before a client that asks cuts it: well over any whole answer."""


def declarations() -> list[types.Tool]:
    """Return the tools as `tools/list` shows them, always in the same order."""
    return [
        types.Tool(
            name="ask_claude",
            title="Ask Claude",
            description=(
                "Ask Claude through the user's Kiro subscription and get the whole answer back."
                " Claude sees only what you send: put all it needs into prompt, or go on with a"
                " conversation_id. Use it for a second opinion or a self-contained piece of"
                " work, also with tools of your own: their calls come back in tool_calls, you"
                " run them, and send tool_results. Nothing that Claude answers is executed here."
                " status running: call again with the answer_id. auth_required: call login."
            ),
            input_schema=input_schema(AskArguments),
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
            input_schema=input_schema(ListModelsArguments),
            output_schema=MODELS_RESULT,
            annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=True),
        ),
        types.Tool(
            name="login",
            title="Kiro sign-in",
            description=(
                "Say who is signed in to Kiro, or sign in: it returns at once with a link and a"
                " code for the user to open, and goes on in the background. Call it when another"
                " tool answers auth_required or auth_expired; show the user the link."
            ),
            input_schema=input_schema(LoginArguments),
            output_schema=LOGIN_RESULT,
            annotations=types.ToolAnnotations(
                read_only_hint=False,
                destructive_hint=False,
                idempotent_hint=True,
                open_world_hint=True,
            ),
        ),
    ]
