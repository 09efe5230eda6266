"""A payload that is not sent -> what a person wants to know of it.

How large it is, what it would cost at least, what was repaired, what speaks against it, and the
payload itself without what was said in it.
"""

from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.findings import Finding, Repair
from kiro_mcp.wire.payload import Payload
from kiro_mcp.wire.prompt_size import estimate_tokens

_SHOWN: Final = frozenset(
    {
        "agentMode",
        "chatTriggerType",
        "conversationId",
        "display",
        "effort",
        "format",
        "modelId",
        "name",
        "origin",
        "status",
        "toolUseId",
        "type",
    }
)
"""Members whose texts are structure, not content."""

_ALL_CONTENT: Final = frozenset({"input", "json"})
"""Members that hold a caller's own JSON, in which any name may mean anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What would have been sent."""

    model: str
    size_bytes: int
    estimated_tokens: int
    repairs: tuple[Repair, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    """Why the service would refuse it; () if nothing speaks against it."""
    payload: JsonObject


def describe_payload(payload: Payload) -> DryRun:
    """Describe a payload; it is shown with the lengths of its texts and images in their place."""
    return DryRun(
        model=payload.model.id,
        size_bytes=payload.size_bytes,
        estimated_tokens=estimate_tokens(payload.body, payload.size_bytes),
        repairs=payload.repairs,
        warnings=payload.warnings,
        findings=payload.findings,
        payload=without_content(payload.body),
    )


def without_content(body: JsonObject) -> JsonObject:
    """Return a payload with its texts replaced by their lengths; its structure stays."""
    return {name: _redacted(name, member) for name, member in body.items()}


def _redacted(name: str, value: JsonValue) -> JsonValue:
    if name in _ALL_CONTENT:
        return _all_redacted(value)
    if isinstance(value, dict):
        return without_content(value)
    if isinstance(value, list):
        return [_redacted(name, item) for item in value]
    return value if name in _SHOWN else _all_redacted(value)


def _all_redacted(value: JsonValue) -> JsonValue:
    """Replace every text in a value, whatever it is called there."""
    if isinstance(value, dict):
        return {name: _all_redacted(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_all_redacted(item) for item in value]
    return f"<{len(value)} characters>" if isinstance(value, str) else value
