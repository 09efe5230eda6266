"""What the tools answer: each result complete twice, as `content` and as `structuredContent`.

Clients that get both forms show their model only one of them, and differ in which, so each
half must say everything by itself.
"""

import json
from collections.abc import Mapping
from typing import Any

import mcp_types as types

from kiro_mcp.errors import KiroError
from kiro_mcp.models import JsonObject, Reply, ToolUse, Usage

ERROR_META_KEY = "kiro-mcp/error"
"""Where an error result carries its code for programs."""


def success(text: str, structured: Mapping[str, Any], *, more: str = "") -> types.CallToolResult:
    """Build a result: `text` for those who read content, `structured` for those who do not.

    Args:
        text: The answer in words.
        structured: The whole result.
        more: What `text` does not say, as compact JSON, in a second block; "" for nothing.
    """
    blocks = [text, more] if more else [text]
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=block) for block in blocks],
        structured_content=dict(structured),
    )


def failure(error: KiroError) -> types.CallToolResult:
    """Build an error result: `CODE: what happened. What to do next.`."""
    facts: dict[str, Any] = {"code": error.code}
    if error.retry_after_seconds is not None:
        facts["retry_after_seconds"] = error.retry_after_seconds
    if error.request_id:
        facts["request_id"] = error.request_id
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=f"{error.code}: {error}")],
        is_error=True,
        _meta={ERROR_META_KEY: facts},
    )


def answer(
    reply: Reply, *, model: str, model_requested: str, conversation_id: str, turn: int
) -> types.CallToolResult:
    """Build the result of `ask_claude` from a reply."""
    warnings = list(reply.warnings)
    if reply.truncation_reason:
        warnings.insert(0, f"The answer is incomplete: {reply.truncation_reason}")
    facts: dict[str, Any] = {
        "tool_calls": [_tool_call(tool_use) for tool_use in reply.tool_uses],
        "stop_reason": reply.stop_reason,
        "truncated": reply.truncated,
        "model": model,
        "conversation_id": conversation_id,
        "warnings": warnings,
    }
    structured = {
        "status": "completed",
        "text": reply.text,
        "thinking": reply.thinking,
        **facts,
        "data": None,
        "model_requested": model_requested,
        "turn": turn,
        "answer_id": "",
        "usage": _usage(reply.usage),
        "repairs": list[Any](),
    }
    return success(reply.text, structured, more=compact_json(_what_says_something(facts)))


def compact_json(value: Any) -> str:
    """Encode a value as JSON without spaces, text as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _what_says_something(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in ([], "", False)}


def _tool_call(tool_use: ToolUse) -> JsonObject:
    call: JsonObject = {
        "id": tool_use.id,
        "name": tool_use.name,
        "arguments": tool_use.arguments,
        "state": tool_use.state,
        "schema_errors": list(tool_use.schema_errors),
    }
    if tool_use.state != "complete":
        call["raw"] = tool_use.raw
    return call


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "estimated": usage.is_estimated,
        "context_percent": usage.context_percent,
        "credits": usage.credits,
    }
