"""`kiro-mcp ask`: one question, its answer on stdout as it comes, what it cost on stderr."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import mcp_types as types
from mcp.client import IncomingMessage

from kiro_mcp.cli.exits import REFUSED, OutputError
from kiro_mcp.cli.harmless import harmless_json
from kiro_mcp.cli.last_conversation import LastConversation
from kiro_mcp.cli.live_text import LiveText, Output
from kiro_mcp.cli.question import Question, arguments_of, piped_in
from kiro_mcp.cli.session import connected, failed, run_command
from kiro_mcp.cli.terminal import Wait, tell, tell_error, waiting
from kiro_mcp.errors import KiroError
from kiro_mcp.server.ask import NOT_SAVED
from kiro_mcp.server.call import STREAM_META_KEY


def run_ask(question: Question) -> int:
    """Ask and return the exit code."""
    try:
        last = LastConversation.of(os.environ, offline=question.offline)
        conversation_id = last.read() if question.continued == "" else question.continued or ""
        arguments = arguments_of(question, piped_in(question, sys.stdin), conversation_id)
    except KiroError as error:
        return tell_error(error)
    return run_command(Asking(question, arguments, last).run)


class Asking:
    """One call of `ask_claude`, and what a person sees of it."""

    def __init__(
        self, question: Question, arguments: dict[str, Any], last: LastConversation
    ) -> None:
        self._question = question
        self._arguments = arguments
        self._last = last
        self._live = LiveText()
        self._has_begun = False
        self._is_live = not (question.as_json or question.schema or question.dry_run)

    async def run(self) -> int:
        """Ask, print, and return the exit code."""
        try:
            result = await self._printed()
        except anyio.get_cancelled_exc_class():
            # What came is kept, in a conversation that has not been named yet.
            if self._has_begun:
                self._forget_older()
            raise
        return failed(result) if result.is_error else self._told(result.structured_content)

    async def _printed(self) -> types.CallToolResult:
        """Ask and print.

        Raises:
            OutputError: It cannot be printed. Nothing goes on then.
        """
        output = Output(sys.stdout)
        result: types.CallToolResult | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run, tasks.cancel_scope)
                with waiting("thinking") as wait:
                    result = await self._answered(output, wait)
                output.put(self._live.finish(self._text(result)))
                output.close()
        finally:
            output.end_line()
        if output.fault:
            raise OutputError(output.fault)
        assert result  # Nothing else ends the group without one.
        return result

    async def _answered(self, output: Output, wait: Wait) -> types.CallToolResult:
        async def take(message: IncomingMessage) -> None:
            piece = _piece_of(message)
            if piece is None:
                return
            self._has_begun = True
            wait.words = "receiving"
            if self._is_live and (text := self._live.take(piece["offset"], piece["text"])):
                wait.end()  # Also where a pipe is between: its end may be this terminal.
                output.put(text)

        async with connected(offline=self._question.offline, on_message=take) as client:
            return await client.call_tool(
                "ask_claude",
                self._arguments,
                meta={"progress_token": "answer", STREAM_META_KEY: True},  # pyright: ignore[reportArgumentType]  # an open map
            )

    def _text(self, result: types.CallToolResult) -> str:
        """Return what standard output gets."""
        if result.is_error:
            return ""
        answer = result.structured_content
        if self._question.as_json:
            return harmless_json(answer)
        if self._question.schema and answer.get("data") is not None:
            return harmless_json(answer["data"])
        return answer["text"]

    # --- what standard error gets -------------------------------------------------------------

    def _told(self, answer: dict[str, Any]) -> int:
        is_kept = answer["status"] == "completed" and self._last.is_kept
        if is_kept and any(warning.startswith(NOT_SAVED) for warning in answer.get("warnings", [])):
            is_kept = False
            self._forget_older()
        if is_kept:
            self._last.write(answer["conversation_id"])
        if self._question.as_json:
            if answer["truncated"]:
                tell("warning: The answer is incomplete.")
        else:
            for line in _remarks(answer):
                tell(line)
            for line in _facts(answer, is_kept=is_kept):
                tell(line, style="dim")
        return REFUSED if self._is_refused(answer) else 0

    def _forget_older(self) -> None:
        """Have the next question, without an id, not go on with an older conversation."""
        if not self._arguments["conversation_id"]:
            self._last.forget()

    def _is_refused(self, answer: dict[str, Any]) -> bool:
        """Whether a program must not go on: what was asked for is not there, or not all of it."""
        is_untyped = answer["status"] == "completed" and answer.get("data") is None
        is_untyped = is_untyped and bool(self._question.schema)
        return bool(answer["truncated"] or answer.get("findings") or is_untyped)


def _piece_of(message: IncomingMessage) -> dict[str, Any] | None:
    if isinstance(message, types.ProgressNotification) and message.params.meta:
        return message.params.meta.get(STREAM_META_KEY)
    return None


def _remarks(answer: dict[str, Any]) -> Iterator[str]:
    for warning in answer.get("warnings", []):
        yield f"warning: {warning}"
    if answer["status"] == "completed" and answer.get("next_step"):
        yield answer["next_step"]
    for finding in answer.get("findings", []):
        yield f"{finding['rule']}: {finding['place']} {finding['cause']}. {finding['cure']}"
    if asked_for := ", ".join(call["name"] for call in answer["tool_calls"]):
        yield f"warning: Claude asks for {asked_for}. No tool is run here; --json shows the calls."
    for citation in answer.get("citations", []):
        names = ("title", "license", "repository", "url")
        yield f"source: {' '.join(citation[name] for name in names if name in citation)}"


def _facts(answer: dict[str, Any], *, is_kept: bool) -> Iterator[str]:
    if answer["status"] == "completed":
        yield " · ".join(_cost(answer))
    if is_kept:
        conversation_id = answer["conversation_id"]
        yield f'Continue with: kiro-mcp ask -c "…"   (later: -c {conversation_id} "…")'


def _cost(answer: dict[str, Any]) -> Iterator[str]:
    usage = answer["usage"]
    about = "about " if usage.get("estimated") else ""
    yield answer["model"]
    yield f"{about}{usage['input_tokens']} tokens in, {usage['output_tokens']} out"
    if (credits := usage.get("credits")) is not None:
        yield f"{credits:g} credits"
    if (percent := usage.get("context_percent")) is not None:
        share = f"{percent:.1f} %" if percent >= 0.1 else "under 0.1 %"
        yield f"{share} of the context window"
