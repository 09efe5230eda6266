"""What the tools answer: each result complete twice, as `content` and as `structuredContent`.

Clients that get both forms show their model only one of them, and differ in which, so each
half must say everything by itself.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import mcp_types as types

from kiro_mcp.errors import KiroError
from kiro_mcp.models import JsonObject, ToolUse, Usage
from kiro_mcp.protocol.dry_run import DryRun
from kiro_mcp.protocol.findings import Finding, Repair
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.asking import Answered, Asked
from kiro_mcp.server.conversations import Place

_NOTHING: Mapping[str, Any] = {
    "text": "",
    "tool_calls": [],
    "stop_reason": "",
    "truncated": False,
}
"""What every result of `ask_claude` has, where there is no answer yet."""

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


def answered(asked: Asked, came: Answered, *, place: Place, answer_id: str) -> types.CallToolResult:
    """Build the result of `ask_claude` from what came of a call."""
    reply = came.reply
    warnings = [*asked.choice.warnings, *came.warnings, *reply.warnings]
    if reply.truncation_reason:
        warnings.insert(0, f"The answer is incomplete: {reply.truncation_reason}")
    facts: dict[str, Any] = {
        "tool_calls": [_tool_call(tool_use) for tool_use in reply.tool_uses],
        "stop_reason": reply.stop_reason,
        "truncated": reply.truncated,
        "model": asked.request.model,
        "conversation_id": place.conversation_id,
        "warnings": warnings,
        "repairs": _repairs([*asked.repairs, *came.repairs]),
    }
    structured = {
        "status": "completed",
        "text": reply.text,
        "thinking": reply.thinking,
        **facts,
        "data": came.data,
        "model_requested": asked.choice.model_requested,
        "turn": place.turn,
        "answer_id": answer_id,
        "usage": _usage(reply.usage),
    }
    return success(reply.text, structured, more=compact_json(_what_says_something(facts)))


def still_running(running: RunningAnswer) -> types.CallToolResult:
    """Build the result of a call whose patience ended before its answer did."""
    facts: dict[str, Any] = {
        "status": "running",
        "stop_reason": "running",
        "answer_id": running.id,
        "model": running.model,
        "conversation_id": running.conversation_id,
        "next_step": "Call ask_claude again with this answer_id alone to get the rest.",
    }
    structured = {**_NOTHING, **facts, "text": running.text}
    return success(running.text, structured, more=compact_json(facts))


def rehearsed(asked: Asked, run: DryRun) -> types.CallToolResult:
    """Build the result of a dry run."""
    facts: dict[str, Any] = {
        "status": "dry_run",
        "model": run.model,
        "model_requested": asked.choice.model_requested,
        "conversation_id": asked.request.conversation_id,
        "payload_bytes": run.size_bytes,
        "usage": {"input_tokens": run.estimated_tokens, "output_tokens": 0, "estimated": True},
        "warnings": [*asked.choice.warnings, *run.warnings],
        "repairs": _repairs([*asked.repairs, *run.repairs]),
        "findings": [_finding(finding) for finding in run.findings],
        "payload": run.payload,
    }
    verdict = "The service would refuse it" if run.findings else "Nothing speaks against it"
    text = (
        f"Nothing was sent. The request to {run.model} is {run.size_bytes} bytes, about"
        f" {run.estimated_tokens} tokens. {verdict}."
    )
    return success(text, {**_NOTHING, **facts}, more=compact_json(facts))


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


def _repairs(repairs: Sequence[Repair]) -> list[dict[str, str]]:
    return [{"rule": repair.rule, "detail": repair.detail} for repair in repairs]


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule,
        "place": finding.place,
        "cause": finding.cause,
        "cure": finding.cure,
    }


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "estimated": usage.is_estimated,
        "context_percent": usage.context_percent,
        "credits": usage.credits,
    }
