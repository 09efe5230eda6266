"""The tools' results: the same facts as `content` for models and as `structuredContent`.

Clients show their model only one of the two, both, or only the first block of `content`. So
`content` is one block with all that a model must know, and both are short.

`structuredContent` of `ask_claude` always has the members of `_result`, and others only if they are
not empty. `content` is the text, then one line of JSON with these members, if they matter:

    status, answer_id                the answer is still running
    stop_reason, truncated           the answer did not end normally
    tool_calls
    data                             unless the text is that JSON value
    citations                        as texts if they are short, else their number
    warnings, repairs, next_step     repairs without their rules
    findings, payload                of a dry run
    conversation_id                  unless nothing was sent
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import mcp_types as types

from kiro_mcp.chat import ChatRequest, JsonObject, JsonValue, Message, Refusal, Repair, Reply
from kiro_mcp.client.schema_checks import Answer
from kiro_mcp.errors import InternalFault, KiroError
from kiro_mcp.server.store import Position
from kiro_mcp.wire.json_values import json_text
from kiro_mcp.wire.models import ModelChoice
from kiro_mcp.wire.request import Payload, without_content

ERROR_META_KEY: Final = "kiro-mcp/error"
"""The member of an error result's `_meta` with its code for programs."""

ANSWER_META_KEY: Final = "kiro-mcp/answer_id"
"""The member of a finished answer's `_meta` with its id in the store."""

MAX_CITED_CHARACTERS: Final = 400
"""If all citations together are longer, the line of JSON has only their number."""

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
"""The possible members of the line of JSON, in order."""

_USUAL: Final[Mapping[str, Sequence[Any]]] = {
    "status": ("completed",),
    "stop_reason": ("end_turn", "tool_use", "running", ""),
    "truncated": (False,),
    "tool_calls": ([],),
}
"""The values that the line of JSON leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a call of `ask_claude` sends, and the position of its turn."""

    request: ChatRequest
    choice: ModelChoice
    position: Position
    model_requested: str
    """The model's name as the caller wrote it; "" if the same name is sent."""
    forked_from: str
    """The conversation whose earlier turns a fork continues; "" if the call is not a fork."""
    added: tuple[Message, ...]
    """The messages that the call adds to the earlier turns."""
    warnings: tuple[str, ...]
    repairs: tuple[Repair, ...]


# --- any tool -----------------------------------------------------------------------------


def success(
    text: str,
    structured: Mapping[str, Any],
    *,
    extras: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> types.CallToolResult:
    """Build a result.

    Args:
        text: The answer in words.
        structured: The structured result.
        extras: More facts for a model. They follow `text` as one line of compact JSON.
        meta: Facts for programs. Clients do not show them to a model.
    """
    line = json_text(dict(extras)) if extras else ""
    block = "\n\n".join(filter(None, (text, line)))
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=block)],
        structured_content=dict(structured),
        _meta=dict(meta) if meta else None,
    )


def filled(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members without null, empty text, empty lists and empty objects."""
    return {name: value for name, value in facts.items() if value not in (None, "", [], {})}


def failure(error: KiroError, *more: str) -> types.CallToolResult:
    """Build an error result: `CODE: what happened. What to do next.`.

    Args:
        error: What happened.
        more: Further sentences, which go between the message and the next step.
    """
    facts: dict[str, Any] = {"code": error.code}
    if error.retry_after_seconds is not None:
        facts["retry_after_seconds"] = error.retry_after_seconds
    if error.request_id:
        facts["request_id"] = error.request_id
    text = " ".join(filter(None, (f"{error.code}: {error.message}", *more, error.next_step)))
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        is_error=True,
        _meta={ERROR_META_KEY: facts},
    )


def defect(tool: str) -> types.CallToolResult:
    """Build the result of a call that met a defect of kiro-mcp. Only the log has the details."""
    return failure(InternalFault.met_by(tool))


# --- ask_claude ---------------------------------------------------------------------------


def build_result(
    plan: Plan, answer: Answer, position: Position, answer_id: str
) -> types.CallToolResult:
    """Build the result of an answer at its position in a conversation."""
    reply = answer.reply
    warnings = [*plan.warnings, *answer.warnings, *reply.warnings]
    if reply.truncation_reason:
        warnings.insert(0, f"The answer is incomplete: {reply.truncation_reason}")
    if reply.stop_reason == "refusal":
        details = reply.refusal or Refusal()
        why = ": ".join(filter(None, (details.category, details.explanation)))
        warnings.insert(0, f"The service refused to answer ({why or reply.raw_stop_reason}).")
    tool_calls: list[JsonObject] = []
    for use in reply.tool_uses:
        call: JsonObject = {
            "id": use.id,
            "name": use.name,
            "arguments": use.arguments,
            "state": use.state,
        }
        if use.schema_errors:
            call["schema_errors"] = list(use.schema_errors)
        if use.state != "complete":
            call["raw"] = use.raw
        tool_calls.append(call)
    usage = filled(
        {
            "input_tokens": reply.usage.input_tokens,
            "output_tokens": reply.usage.output_tokens,
            "estimated": reply.usage.is_estimated or None,
            "context_percent": reply.usage.context_percent,
            "credits": reply.usage.credits,
        }
    )
    structured = _result(
        status="completed",
        text=reply.text,
        tool_calls=tool_calls,
        stop_reason=reply.stop_reason,
        truncated=reply.truncated,
        model=answer.model or plan.request.model,
        position=position,
        thinking=reply.thinking,
        model_requested=plan.model_requested,
        usage=usage,
        citations=_citations(reply),
        warnings=warnings,
        repairs=[*plan.repairs, *answer.repairs],
        next_step=answer.next_step,
    )
    if plan.request.output_schema is not None:
        structured["data"] = answer.data  # Also null, which means that the answer broke the schema.
    return _ask_result(structured, meta={ANSWER_META_KEY: answer_id})


def build_running_result(
    text: str, *, model: str, position: Position, answer_id: str
) -> types.CallToolResult:
    """Build the result of a call whose waiting time ended before its answer."""
    structured = _result(
        status="running",
        text=text,
        stop_reason="running",
        model=model,
        position=position,
        answer_id=answer_id,
        next_step="Call ask_claude again with this answer_id alone to get the rest.",
    )
    return _ask_result(structured)


def build_dry_run_result(plan: Plan, payload: Payload) -> types.CallToolResult:
    """Build the result of a dry run."""
    verdict = (
        "The service would refuse it" if payload.findings else "No reason to refuse it is known"
    )
    text = (
        f"Nothing was sent. The request to {payload.model.id} is {len(payload.encoded)} bytes,"
        f" about {payload.estimated_tokens} tokens. {verdict}."
    )
    findings = [
        {
            "rule": finding.rule,
            "place": finding.location,
            "cause": finding.cause,
            "cure": finding.cure,
        }
        for finding in payload.findings
    ]
    structured = _result(
        status="dry_run",
        text=text,
        model=payload.model.id,
        position=plan.position,
        model_requested=plan.model_requested,
        payload_bytes=len(payload.encoded),
        usage={"input_tokens": payload.estimated_tokens, "output_tokens": 0, "estimated": True},
        warnings=[*plan.warnings, *payload.warnings],
        repairs=[*plan.repairs, *payload.repairs],
        findings=findings,
        payload=without_content(payload.body),
    )
    return _ask_result(structured)


def with_warning(result: types.CallToolResult, warning: str) -> types.CallToolResult:
    """Return a result of `ask_claude` with another warning; an error is returned unchanged."""
    if result.is_error:
        return result
    structured = dict(result.structured_content)
    structured["warnings"] = [warning, *structured.get("warnings", [])]
    return _ask_result(structured, meta=result.meta)


def _result(
    *,
    status: str,
    text: str,
    model: str,
    position: Position,
    tool_calls: Sequence[JsonObject] = (),
    stop_reason: str = "",
    truncated: bool = False,
    repairs: Sequence[Repair] = (),
    **others: Any,
) -> dict[str, Any]:
    """Return a structured result: the members that are always there, and the non-empty others."""
    others["repairs"] = [{"rule": repair.rule, "detail": repair.detail} for repair in repairs]
    return {
        "status": status,
        "text": text,
        "tool_calls": list(tool_calls),
        "stop_reason": stop_reason,
        "truncated": truncated,
        "model": model,
        "conversation_id": position.conversation_id,
        "turn": position.turn,
        **filled(others),
    }


def _ask_result(
    structured: dict[str, Any], *, meta: Mapping[str, Any] | None = None
) -> types.CallToolResult:
    """Build a result of `ask_claude`, with the line of JSON after the text."""
    extras = {
        name: structured[name]
        for name in _EXTRAS
        if name in structured and structured[name] not in _USUAL.get(name, ())
    }
    if structured["status"] == "dry_run":
        del extras["conversation_id"]
    if "data" in extras and _is_in_text(extras["data"], structured["text"]):
        del extras["data"]
    if "repairs" in extras:
        extras["repairs"] = [repair["detail"] for repair in extras["repairs"]]
    if "citations" in extras:
        names = ("license", "repository", "url")
        citations = [
            " ".join(citation[name] for name in names if name in citation)
            for citation in extras["citations"]
        ]
        is_short = sum(map(len, citations)) <= MAX_CITED_CHARACTERS
        extras["citations"] = citations if is_short else len(citations)
    return success(structured["text"], structured, extras=extras, meta=meta)


def _is_in_text(data: JsonValue, text: str) -> bool:
    """Whether data is missing, or the text is the same value as JSON."""
    if data is None:
        return True
    try:
        return json.loads(text) == data
    except (ValueError, RecursionError):
        return False


def _citations(reply: Reply) -> list[dict[str, str]]:
    """Return the web pages and licensed code that the service names as sources of an answer."""
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
