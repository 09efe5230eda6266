"""What `ask_claude` answers: an answer, one that still runs, or what would have been sent."""

from collections.abc import Mapping, Sequence
from typing import Any

import mcp_types as types

from kiro_mcp.models import JsonObject, Refusal, Reply, ToolUse, Usage
from kiro_mcp.protocol.dry_run import DryRun
from kiro_mcp.protocol.findings import Finding, Repair
from kiro_mcp.protocol.json_values import json_text
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.asking import Answered, Asked
from kiro_mcp.server.conversations import Place
from kiro_mcp.server.results import success

_NOTHING: Mapping[str, Any] = {
    "text": "",
    "tool_calls": [],
    "stop_reason": "",
    "truncated": False,
}
"""What every result of `ask_claude` has, where there is no answer yet."""


def answered(asked: Asked, came: Answered, *, place: Place, answer_id: str) -> types.CallToolResult:
    """Build the result of `ask_claude` from what came of a call."""
    reply = came.reply
    warnings = [*asked.warnings, *came.warnings, *reply.warnings]
    if reply.truncation_reason:
        warnings.insert(0, f"The answer is incomplete: {reply.truncation_reason}")
    if reply.stop_reason == "refusal":
        warnings.insert(0, _refused(reply))
    facts: dict[str, Any] = {
        "tool_calls": [_tool_call(tool_use) for tool_use in reply.tool_uses],
        "stop_reason": reply.stop_reason,
        "truncated": reply.truncated,
        "model": asked.request.model,
        "conversation_id": place.conversation_id,
        "warnings": warnings,
        "repairs": _repairs([*asked.repairs, *came.repairs]),
        **({"next_step": came.next_step} if came.next_step else {}),
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
    return success(reply.text, structured, more=json_text(_what_says_something(facts)))


def _refused(reply: Reply) -> str:
    details = reply.refusal or Refusal()
    why = ": ".join(filter(None, (details.category, details.explanation)))
    return f"The service refused to answer ({why or reply.raw_stop_reason})."


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
    return success(running.text, structured, more=json_text(facts))


def rehearsed(asked: Asked, run: DryRun) -> types.CallToolResult:
    """Build the result of a dry run."""
    facts: dict[str, Any] = {
        "status": "dry_run",
        "model": run.model,
        "model_requested": asked.choice.model_requested,
        "conversation_id": asked.request.conversation_id,
        "payload_bytes": run.size_bytes,
        "usage": {"input_tokens": run.estimated_tokens, "output_tokens": 0, "estimated": True},
        "warnings": [*asked.warnings, *run.warnings],
        "repairs": _repairs([*asked.repairs, *run.repairs]),
        "findings": [_finding(finding) for finding in run.findings],
        "payload": run.payload,
    }
    verdict = "The service would refuse it" if run.findings else "Nothing speaks against it"
    text = (
        f"Nothing was sent. The request to {run.model} is {run.size_bytes} bytes, about"
        f" {run.estimated_tokens} tokens. {verdict}."
    )
    return success(text, {**_NOTHING, **facts}, more=json_text(facts))


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
