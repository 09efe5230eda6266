"""Begins and ends the captures of `ask_claude` calls.

A capture begins with its call. It ends with the call or, if a job has started, with the job.
`kiro_mcp.captures` records it; that package is imported only if captures are on.
"""

import logging
import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mcp_types as types

from kiro_mcp.errors import InternalFault, KiroError
from kiro_mcp.server.jobs import Job
from kiro_mcp.server.results import ERROR_META_KEY, failure
from kiro_mcp.settings import Settings

if TYPE_CHECKING:
    from kiro_mcp.captures.recording import CallCapture, Captures

logger = logging.getLogger(__name__)

Make = Callable[[Job], Awaitable[types.CallToolResult]]


def open_captures(
    settings: Settings,
    folder: Path | None,
    *,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> "Captures | None":
    """Return the recorder of calls; None if captures are off or this machine has no folder."""
    if settings.debug_mode == "off":
        return None
    if folder is None:
        logger.warning("Calls are not captured: set KIRO_MCP_DEBUG_DIR to a folder for them.")
        return None
    from kiro_mcp.captures.recording import Captures

    return Captures(folder, settings.debug_mode, now=now, new_id=new_id)


@contextmanager
def capture_call(
    captures: "Captures | None", arguments: Mapping[str, Any]
) -> "Generator[CallCapture | None]":
    """Capture a call of `ask_claude`, unless it only collects an earlier answer."""
    capture = captures.begin(arguments) if captures and not arguments.get("answer_id") else None
    if capture is None:
        yield None
        return
    with capture.log():
        try:
            yield capture
        except BaseException as error:
            if not capture.outlives_call:
                _finish_with_error(capture, error)
            raise
        if not capture.outlives_call:
            capture.finish("completed")


def finish_with_answer(capture: "CallCapture | None", make: Make) -> Make:
    """Return a `make` that ends the capture; the end of the call then no longer does."""
    if capture is None:
        return make
    capture.outlives_call = True

    async def make_and_finish(job: Job) -> types.CallToolResult:
        try:
            result = await make(job)
        except BaseException as error:
            _finish_with_error(capture, error)
            raise
        facts = cast("dict[str, Any]", result.structured_content or {})
        warnings = cast("list[str]", facts.get("warnings", []))
        if result.is_error:
            capture.finish("failed", _error_info(result))
        elif facts["truncated"]:
            capture.finish("truncated", {"code": "", "error_message": " ".join(warnings)})
        else:
            capture.finish("completed", is_odd=bool(warnings))
        return result

    return make_and_finish


def _finish_with_error(capture: "CallCapture", error: BaseException) -> None:
    if isinstance(error, KiroError):
        capture.finish("failed", _error_info(failure(error)))
    elif isinstance(error, Exception):
        info = _error_info(failure(InternalFault(f"A defect of kiro-mcp: {error!r}.")))
        capture.finish("failed", {**info, "traceback": traceback.format_exception(error)})
    else:
        capture.finish("cancelled", {"code": "cancelled", "error_message": "It was cancelled."})


def _error_info(result: types.CallToolResult) -> dict[str, Any]:
    texts = [block.text for block in result.content if isinstance(block, types.TextContent)]
    facts = cast("dict[str, Any]", (result.meta or {}).get(ERROR_META_KEY, {}))
    return {**facts, "error_message": " ".join(texts)}
