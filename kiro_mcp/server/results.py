"""What the tools answer: the same facts as `content` for models and `structuredContent`.

Clients differ in what their model sees: only one of the two, both, or only the first block of
`content`. So `content` is one block that says all a model must know, and both are short.
"""

from collections.abc import Mapping
from typing import Any

import mcp_types as types

from kiro_mcp.errors import InternalFault, KiroError
from kiro_mcp.wire.json_values import json_text

ERROR_META_KEY = "kiro-mcp/error"
"""Where an error result carries its code for programs."""

ANSWER_META_KEY = "kiro-mcp/answer_id"
"""Where a finished answer carries the id under which it is stored."""


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
        structured: The whole result.
        extras: What a model must know beside `text`. It follows as one line of compact JSON.
        meta: What programs may want to know. Clients do not show it to a model.
    """
    line = json_text(dict(extras)) if extras else ""
    block = "\n\n".join(filter(None, (text, line)))
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=block)],
        structured_content=dict(structured),
        _meta=dict(meta) if meta else None,
    )


def filled(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the members that say nothing: null, empty text, empty lists and objects."""
    return {name: value for name, value in facts.items() if value not in (None, "", [], {})}


def failure(error: KiroError, *more: str) -> types.CallToolResult:
    """Build an error result: `CODE: what happened. What to do next.`.

    Args:
        error: What happened.
        more: Sentences that only the caller of the service could know, told in between.
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
    """Build the result of a call that met a defect of ours. What it is only the log may say."""
    return failure(
        InternalFault(
            f"{tool} met a defect of kiro-mcp.",
            next_step="Its log (stderr) has the details; please report them.",
        )
    )
