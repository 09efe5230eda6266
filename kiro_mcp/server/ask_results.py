"""What `ask_claude` answers: an answer, one that still runs, or what would have been sent.

`structuredContent` always has the members of `_result`, and others only where they say something.
`content` is the text, and one line of JSON with what a model must know beside it:

    status, answer_id                the answer is still running
    stop_reason, truncated           the answer did not end by itself
    tool_calls
    data                             unless the text itself is that JSON value
    citations                        as texts if they are short, else their number
    warnings, repairs, next_step     repairs without their rules
    findings, payload                of a dry run
    conversation_id                  unless nothing was sent
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import mcp_types as types

from kiro_mcp.chat import Finding, JsonObject, JsonValue, Refusal, Repair, Reply, ToolUse, Usage
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.asking import Answered, Asked
from kiro_mcp.server.conversations import Place
from kiro_mcp.server.results import ANSWER_META_KEY, filled, success
from kiro_mcp.wire.request import DryRun

MAX_CITED_CHARACTERS: Final = 400
"""Characters of all citations together that the line of JSON repeats; beyond, it counts them."""

_EXTRAS: Final = (
    "status",
    "answer_id",
    "stop_reason",
    "truncated",
    "tool_calls",
    "data",
    "citations",
    "warnings",
    "repairs",
    "next_step",
    "findings",
    "payload",
    "conversation_id",
)
"""What the line of JSON may hold, in its order."""

_USUAL: Final[Mapping[str, Sequence[Any]]] = {
    "status": ("completed",),
    "stop_reason": ("end_turn", "tool_use", "running", ""),
    "truncated": (False,),
    "tool_calls": ([],),
}
"""The values that need no word in the line of JSON."""


def answered(asked: Asked, came: Answered, *, place: Place, answer_id: str) -> types.CallToolResult:
    """Build the result of `ask_claude` from what came of a call."""
    reply = came.reply
    warnings = [*asked.warnings, *came.warnings, *reply.warnings]
    if reply.truncation_reason:
        warnings.insert(0, f"The answer is incomplete: {reply.truncation_reason}")
    if reply.stop_reason == "refusal":
        warnings.insert(0, _refused(reply))
    structured = _result(
        status="completed",
        text=reply.text,
        tool_calls=[_tool_call(tool_use) for tool_use in reply.tool_uses],
        stop_reason=reply.stop_reason,
        truncated=reply.truncated,
        model=asked.request.model,
        place=place,
        thinking=reply.thinking,
        model_requested=_requested(asked),
        usage=_usage(reply.usage),
        citations=_citations(reply),
        warnings=warnings,
        repairs=_repairs([*asked.repairs, *came.repairs]),
        next_step=came.next_step,
    )
    if asked.request.output_schema is not None:
        structured["data"] = came.data  # Also a null: then the answer broke the schema.
    return success(
        reply.text, structured, extras=_extras(structured), meta={ANSWER_META_KEY: answer_id}
    )


def with_warning(result: types.CallToolResult, warning: str) -> types.CallToolResult:
    """Return a result of `ask_claude` with one more warning. An error stays as it is."""
    if result.is_error:
        return result
    structured = dict(result.structured_content)
    structured["warnings"] = [warning, *structured.get("warnings", [])]
    return success(structured["text"], structured, extras=_extras(structured), meta=result.meta)


def still_running(running: RunningAnswer) -> types.CallToolResult:
    """Build the result of a call whose patience ended before its answer did."""
    structured = _result(
        status="running",
        text=running.text,
        stop_reason="running",
        model=running.model,
        place=Place(conversation_id=running.conversation_id, turn=running.turn),
        answer_id=running.id,
        next_step="Call ask_claude again with this answer_id alone to get the rest.",
    )
    return success(running.text, structured, extras=_extras(structured))


def rehearsed(asked: Asked, run: DryRun) -> types.CallToolResult:
    """Build the result of a dry run."""
    verdict = "The service would refuse it" if run.findings else "Nothing speaks against it"
    text = (
        f"Nothing was sent. The request to {run.model} is {run.size_bytes} bytes, about"
        f" {run.estimated_tokens} tokens. {verdict}."
    )
    structured = _result(
        status="dry_run",
        text=text,
        model=run.model,
        place=asked.place,
        model_requested=_requested(asked),
        payload_bytes=run.size_bytes,
        usage={"input_tokens": run.estimated_tokens, "output_tokens": 0, "estimated": True},
        warnings=[*asked.warnings, *run.warnings],
        repairs=_repairs([*asked.repairs, *run.repairs]),
        findings=[_finding(finding) for finding in run.findings],
        payload=run.payload,
    )
    return success(text, structured, extras=_extras(structured, "conversation_id"))


def _result(
    *,
    status: str,
    text: str,
    model: str,
    place: Place,
    tool_calls: Sequence[JsonObject] = (),
    stop_reason: str = "",
    truncated: bool = False,
    **others: Any,
) -> dict[str, Any]:
    """Return a structured result: what each one has, and of `others` what says something."""
    return {
        "status": status,
        "text": text,
        "tool_calls": list(tool_calls),
        "stop_reason": stop_reason,
        "truncated": truncated,
        "model": model,
        "conversation_id": place.conversation_id,
        "turn": place.turn,
        **filled(others),
    }


def _extras(structured: Mapping[str, Any], *hidden: str) -> dict[str, Any]:
    extras = {
        name: structured[name]
        for name in _EXTRAS
        if name in structured
        and name not in hidden
        and structured[name] not in _USUAL.get(name, ())
    }
    if "data" in extras and _needs_no_word(extras["data"], structured["text"]):
        del extras["data"]
    if "repairs" in extras:
        extras["repairs"] = [repair["detail"] for repair in extras["repairs"]]
    if "citations" in extras:
        citations = [" ".join(_in_short(citation)) for citation in extras["citations"]]
        is_short = sum(map(len, citations)) <= MAX_CITED_CHARACTERS
        extras["citations"] = citations if is_short else len(citations)
    return extras


def _needs_no_word(data: JsonValue, text: str) -> bool:
    """Whether data is missing, or is what the text itself says as JSON."""
    if data is None:
        return True
    try:
        return json.loads(text) == data
    except (ValueError, RecursionError):
        return False


def _refused(reply: Reply) -> str:
    details = reply.refusal or Refusal()
    why = ": ".join(filter(None, (details.category, details.explanation)))
    return f"The service refused to answer ({why or reply.raw_stop_reason})."


def _requested(asked: Asked) -> str:
    """Return the model's name as the caller wrote it; "" if it is the name of what was asked."""
    requested = asked.choice.model_requested
    return "" if requested == asked.request.model else requested


def _tool_call(tool_use: ToolUse) -> JsonObject:
    call: JsonObject = {
        "id": tool_use.id,
        "name": tool_use.name,
        "arguments": tool_use.arguments,
        "state": tool_use.state,
    }
    if tool_use.schema_errors:
        call["schema_errors"] = list(tool_use.schema_errors)
    if tool_use.state != "complete":
        call["raw"] = tool_use.raw
    return call


def _citations(reply: Reply) -> list[dict[str, str]]:
    """Return the pages, and the licensed code, that the service names beside an answer."""
    links = (
        {"url": link.url, "title": link.title, "snippet": link.snippet}
        for link in dict.fromkeys(reply.links)
    )
    references = (
        {
            "license": reference.license_name,
            "repository": reference.repository,
            "url": reference.url,
        }
        for reference in dict.fromkeys(reply.references)
    )
    return [cited for cited in map(filled, (*links, *references)) if cited]


def _in_short(citation: Mapping[str, str]) -> list[str]:
    names = ("license", "repository", "url")
    return [citation[name] for name in names if name in citation]


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
    return filled(
        {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "estimated": usage.is_estimated or None,
            "context_percent": usage.context_percent,
            "credits": usage.credits,
        }
    )
