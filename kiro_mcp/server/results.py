"""What the tools answer: each result complete twice, as `content` and as `structuredContent`.

Clients that get both forms show their model only one of them, and differ in which, so each
half must say everything by itself.
"""

from collections.abc import Mapping
from typing import Any

import mcp_types as types

from kiro_mcp.errors import InternalFault, KiroError

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
