"""The schemas of the tools' results, flat and permissive.

Written out instead of generated, because a nested class would become a `$ref`. Strict clients
refuse a result that breaks its schema, so a member is required only where it is always there.
"""

from typing import Any, get_args

from kiro_mcp.chat import StopReason, ThinkingSupport, ToolUseState


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_TEXTS = _array(_TEXT)
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer"}
_COUNT_OR_NULL = {"type": ["integer", "null"]}
_NUMBER_OR_NULL = {"type": ["number", "null"]}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


ASK_RESULT = _object(
    {
        "status": _one_of("completed", "running", "dry_run"),
        "text": {"type": "string", "description": "The answer, all of it"},
        "thinking": _TEXT,
        "tool_calls": _array(
            _object(
                {
                    "id": _TEXT,
                    "name": _TEXT,
                    "arguments": {"type": "object"},
                    "state": _one_of(*get_args(ToolUseState)),
                    "raw": _TEXT,
                    "schema_errors": _TEXTS,
                },
                "id",
                "name",
                "arguments",
                "state",
            )
        ),
        "stop_reason": _one_of(*get_args(StopReason), "running", ""),
        "truncated": {"type": "boolean", "description": "The answer is known to be incomplete"},
        "data": {"description": "The value for output_schema; null if the answer broke it"},
        "citations": _array({"type": "object"}),
        "model": _TEXT,
        "model_requested": _TEXT,
        "conversation_id": _TEXT,
        "turn": _COUNT,
        "answer_id": _TEXT,
        "usage": _object(
            {
                "input_tokens": _COUNT,
                "output_tokens": _COUNT,
                "estimated": _FLAG,
                "context_percent": _NUMBER_OR_NULL,
                "credits": _NUMBER_OR_NULL,
            }
        ),
        "warnings": _TEXTS,
        "repairs": _array({"type": "object"}),
        "findings": _array({"type": "object"}),
        "payload": {"type": "object"},
        "payload_bytes": _COUNT,
        "next_step": _TEXT,
    },
    "status",
    "text",
    "tool_calls",
    "stop_reason",
    "truncated",
    "model",
    "conversation_id",
    "turn",
)

MODELS_RESULT = _object(
    {
        "models": _array(
            _object(
                {
                    "id": _TEXT,
                    "name": _TEXT,
                    "aliases": _TEXTS,
                    "context_window": _COUNT_OR_NULL,
                    "max_output_tokens": _COUNT_OR_NULL,
                    "rate_multiplier": _NUMBER_OR_NULL,
                    "higher_rate": _object(
                        {"above_tokens": _COUNT, "rate_multiplier": _NUMBER_OR_NULL}
                    ),
                    "list_price": {"type": ["object", "null"]},
                    "input_types": _TEXTS,
                    "thinking": _one_of(*get_args(ThinkingSupport)),
                    "effort_levels": _TEXTS,
                    "default_effort": _TEXT,
                    "refusal_fallbacks": _TEXTS,
                },
                "id",
            )
        ),
        "default_model": _TEXT,
        "source": _one_of("live", "cache", "builtin"),
        "fetched_at": _TEXT,
        "warnings": _TEXTS,
    },
    "models",
    "default_model",
    "source",
)

LOGIN_RESULT = _object(
    {
        "state": _one_of("signed_in", "pending", "signed_out", "failed"),
        "method": _TEXT,
        "account": _TEXT,
        "expires_at": _TEXT,
        "profile_arn": _TEXT,
        "region": _TEXT,
        "source": _TEXT,
        "verification_url": {"type": "string", "description": "For the user to open"},
        "user_code": _TEXT,
        "credits": _object(
            {
                "used": _NUMBER_OR_NULL,
                "limit": _NUMBER_OR_NULL,
                "resets_at": _TEXT,
                "plan": _TEXT,
            }
        ),
        "looked_at": _TEXTS,
        "warnings": _TEXTS,
        "next_step": _TEXT,
    },
    "state",
    "next_step",
)
