"""Why an answer ended, and whether it is whole, from the signs in its stream.

The service does not always say why: some accounts never get a stop reason. What every answer
that comes to its end has is one of three late events, a stop reason or the figures of the
cost and of the context window. Source of truth: the service's streams as observed.
"""

import re
from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import Fault, StopReason, ToolUse
from kiro_mcp.errors import KiroError, quoted

_STOP_REASONS: Final[dict[str, StopReason]] = {
    "END_TURN": "end_turn",
    "TOOL_USE": "tool_use",
    "MAX_TOKENS": "max_tokens",
    "STOP_SEQUENCE": "stop_sequence",
    "MODEL_CONTEXT_WINDOW_EXCEEDED": "context_window_exceeded",
    "CONTEXT_WINDOW_EXCEEDED": "context_window_exceeded",
    "CONTENT_FILTERED": "refusal",
    "GUARDRAIL_INTERVENED": "refusal",
    "REFUSAL": "refusal",
    "CANCELLED": "truncated",
    "PAUSE_TURN": "truncated",
}
"""By the service's word. Only the first two have been observed; a word that begins with
`MALFORMED` means `truncated`."""

_TOO_LONG: Final[dict[StopReason, str]] = {
    "max_tokens": "The answer reached the limit of its length.",
    "context_window_exceeded": "The conversation filled the model's context window.",
}

FULL_PERCENT: Final = 100.0

_CAMEL_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the stream of an answer ended."""

    raw_stop_reason: str = ""
    """The service's own word, where it sent one."""
    context_percent: float | None = None
    is_terminated: bool = False
    """Whether any of the late events came."""
    fault: Fault | KiroError | None = None
    """What ended it early."""
    tool_uses: tuple[ToolUse, ...] = ()


def stop_reason_of(ending: Ending) -> StopReason:
    """Say why the model stopped; the first sign in order of trust decides."""
    if ending.fault is not None:
        return "max_tokens" if _is_too_long(ending.fault) else "truncated"
    said = _said(ending)
    if said in (None, "end_turn", "tool_use") and _is_tool_use_cut_off(ending):
        return "truncated"  # Not `tool_use`: a caller must not run a half-made call.
    if said not in (None, "end_turn"):
        return said
    if said is None and _is_window_full(ending):
        return "context_window_exceeded"
    if any(tool_use.state == "complete" for tool_use in ending.tool_uses):
        return "tool_use"
    return "end_turn" if ending.is_terminated else "truncated"


def truncation_reason_of(ending: Ending) -> str:
    """Say in a sentence why the answer is incomplete; "" for one that is whole."""
    if ending.fault is not None:
        return _describe(ending.fault)
    if cut_off := [use.name for use in ending.tool_uses if use.state == "truncated"]:
        return f"The arguments of the tool use {quoted(cut_off[0])} were cut off."
    if not ending.is_terminated:
        return "The stream ended without a sign that the answer was complete."
    stop_reason = stop_reason_of(ending)
    if stop_reason == "truncated":
        return f"The service stopped the answer: {ending.raw_stop_reason}."
    return _TOO_LONG.get(stop_reason, "")


def _said(ending: Ending) -> StopReason | None:
    """Return the service's own reason; None where it gave none, or one that nobody knows."""
    word = _CAMEL_BOUNDARY.sub("_", ending.raw_stop_reason.strip())
    word = word.upper().replace("-", "_").replace(" ", "_")
    return "truncated" if word.startswith("MALFORMED") else _STOP_REASONS.get(word)


def _is_tool_use_cut_off(ending: Ending) -> bool:
    return any(tool_use.state == "truncated" for tool_use in ending.tool_uses)


def _is_window_full(ending: Ending) -> bool:
    return ending.context_percent is not None and ending.context_percent >= FULL_PERCENT


def _is_too_long(fault: Fault | KiroError) -> bool:
    return isinstance(fault, Fault) and fault.name == "ContentLengthExceededException"


def _describe(fault: Fault | KiroError) -> str:
    if isinstance(fault, KiroError):
        return fault.message
    words = ": ".join(filter(None, (fault.name or "an error", fault.message or fault.reason)))
    return f"The service ended its answer with {words}"
