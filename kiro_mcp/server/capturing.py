"""The capture of a call of `ask_claude`: when it begins, and how its end is told.

It begins with the call, and ends with it or, once an answer is worked on, with that.
"""

import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import mcp_types as types

from kiro_mcp.errors import InternalFault, KiroError
from kiro_mcp.server.answers import RunningAnswer
from kiro_mcp.server.captures import CallCapture, Captures
from kiro_mcp.server.results import ERROR_META_KEY, failure

Make = Callable[[RunningAnswer], Awaitable[types.CallToolResult]]


@contextmanager
def captured(
    captures: Captures | None, arguments: Mapping[str, Any]
) -> Generator[CallCapture | None]:
    """Capture a call of `ask_claude`, unless it only collects what another one has asked for."""
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


def handed_over(capture: CallCapture | None, make: Make) -> Make:
    """Have an answer end the capture of the call that asked for it."""
    if capture is None:
        return make
    capture.outlives_call = True

    async def make_and_finish(running: RunningAnswer) -> types.CallToolResult:
        try:
            result = await make(running)
        except BaseException as error:
            _finish_with_error(capture, error)
            raise
        _finish_with_result(capture, result)
        return result

    return make_and_finish


def _finish_with_result(capture: CallCapture, result: types.CallToolResult) -> None:
    if result.is_error:
        capture.finish("failed", _error_info(result))
        return
    facts = cast("dict[str, Any]", result.structured_content)
    warnings = cast("list[str]", facts.get("warnings", []))
    if facts["truncated"]:
        capture.finish("truncated", {"code": "", "error_message": " ".join(warnings)})
    else:
        capture.finish("completed", is_odd=bool(warnings))


def _finish_with_error(capture: CallCapture, error: BaseException) -> None:
    if isinstance(error, KiroError):
        capture.finish("failed", _error_info(failure(error)))
    elif isinstance(error, Exception):
        info = _error_info(failure(InternalFault(f"A defect of kiro-mcp: {error!r}.")))
        capture.finish("failed", {**info, "traceback": traceback.format_exception(error)})
    else:
        capture.finish("cancelled", {"code": "cancelled", "error_message": "It was cancelled."})


def _error_info(result: types.CallToolResult) -> dict[str, Any]:
    said = [block.text for block in result.content if isinstance(block, types.TextContent)]
    facts = cast("dict[str, Any]", (result.meta or {}).get(ERROR_META_KEY, {}))
    return {**facts, "error_message": " ".join(said)}
