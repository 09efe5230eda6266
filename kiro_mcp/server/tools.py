"""The three tools as clients see them. `ask`, `list_models` and `login` implement them.

The schemas of the results are flat and permissive. They are written by hand, because generated ones
would use `$ref` for nested classes. Strict clients refuse a result that breaks its schema, so a
member is required only if every result has it.
"""

from typing import Any, get_args

import mcp_types as types

from kiro_mcp.chat import StopReason, ThinkingSupport, ToolUseState
from kiro_mcp.server.arguments import (
    AskArguments,
    ListModelsArguments,
    LoginArguments,
    input_schema,
)

MAX_RESULT_CHARACTERS = 400_000
"""The size above which some clients cut a result. It is larger than any answer."""


def _object(members: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Describe an object. `!` after a name marks a member that every result has."""
    return {
        "type": "object",
        "properties": {name.removesuffix("!"): schema for name, schema in members.items()},
        "required": [name.removesuffix("!") for name in members if name.endswith("!")],
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


_TEXT = {"type": "string"}
_TEXTS = _array(_TEXT)
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer"}
_COUNT_OR_NULL = {"type": ["integer", "null"]}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_ANY_OBJECT = {"type": "object"}

_TOOL_CALL = _object(
    {
        "id!": _TEXT,
        "name!": _TEXT,
        "arguments!": _ANY_OBJECT,
        "state!": _one_of(*get_args(ToolUseState)),
        "raw": _TEXT,
        "schema_errors": _TEXTS,
    }
)
_USAGE = _object(
    {
        "input_tokens": _COUNT,
        "output_tokens": _COUNT,
        "estimated": _FLAG,
        "context_percent": _NUMBER_OR_NULL,
        "credits": _NUMBER_OR_NULL,
    }
)
ASK_RESULT = _object(
    {
        "status!": _one_of("completed", "running", "dry_run"),
        "text!": {"type": "string", "description": "The answer, all of it"},
        "thinking": _TEXT,
        "tool_calls!": _array(_TOOL_CALL),
        "stop_reason!": _one_of(*get_args(StopReason), "running", ""),
        "truncated!": {"type": "boolean", "description": "The answer is known to be incomplete"},
        "data": {"description": "The value for output_schema; null if the answer broke it"},
        "citations": _array(_ANY_OBJECT),
        "model!": _TEXT,
        "model_requested": _TEXT,
        "conversation_id!": _TEXT,
        "turn!": _COUNT,
        "answer_id": _TEXT,
        "usage": _USAGE,
        "warnings": _TEXTS,
        "repairs": _array(_ANY_OBJECT),
        "findings": _array(_ANY_OBJECT),
        "payload": _ANY_OBJECT,
        "payload_bytes": _COUNT,
        "next_step": _TEXT,
    }
)

_MODEL = _object(
    {
        "id!": _TEXT,
        "name": _TEXT,
        "aliases": _TEXTS,
        "context_window": _COUNT_OR_NULL,
        "max_output_tokens": _COUNT_OR_NULL,
        "rate_multiplier": _NUMBER_OR_NULL,
        "higher_rate": _object({"above_tokens": _COUNT, "rate_multiplier": _NUMBER_OR_NULL}),
        "list_price": {"type": ["object", "null"]},
        "input_types": _TEXTS,
        "thinking": _one_of(*get_args(ThinkingSupport)),
        "effort_levels": _TEXTS,
        "default_effort": _TEXT,
        "refusal_fallbacks": _TEXTS,
    }
)
MODELS_RESULT = _object(
    {
        "models!": _array(_MODEL),
        "default_model!": _TEXT,
        "source!": _one_of("live", "cache", "builtin"),
        "fetched_at": _TEXT,
        "warnings": _TEXTS,
    }
)

_CREDITS = _object(
    {"used": _NUMBER_OR_NULL, "limit": _NUMBER_OR_NULL, "resets_at": _TEXT, "plan": _TEXT}
)
LOGIN_RESULT = _object(
    {
        "state!": _one_of("signed_in", "pending", "signed_out", "failed"),
        "method": _TEXT,
        "account": _TEXT,
        "expires_at": _TEXT,
        "profile_arn": _TEXT,
        "region": _TEXT,
        "source": _TEXT,
        "verification_url": {"type": "string", "description": "For the user to open"},
        "user_code": _TEXT,
        "credits": _CREDITS,
        "looked_at": _TEXTS,
        "warnings": _TEXTS,
        "next_step!": _TEXT,
    }
)

_ASKS_SERVICE = types.ToolAnnotations(read_only_hint=True, open_world_hint=True)


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
            annotations=_ASKS_SERVICE,
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
            annotations=_ASKS_SERVICE,
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
