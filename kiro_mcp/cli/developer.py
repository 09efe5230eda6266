"""`kiro-mcp replay` and `emulate`: what helps to find faults and to write tests."""

import difflib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio

from kiro_mcp.captures.folder import read_capture
from kiro_mcp.captures.redacting import redacted_json, shown_request_headers
from kiro_mcp.captures.replaying import as_recorded, replay
from kiro_mcp.chat import Reply
from kiro_mcp.cli.output import DIFFERENT, NETWORK, USAGE, harmless_json
from kiro_mcp.cli.session import run_command
from kiro_mcp.cli.terminal import say, tell, tell_error
from kiro_mcp.emulator import EMULATOR_API_KEY, EmulatorState, SeenRequest, running
from kiro_mcp.emulator.script_files import read_script
from kiro_mcp.errors import InvalidRequest
from kiro_mcp.files import replace_text
from kiro_mcp.redaction import HIDDEN, redact_json


def run_replay(folder: str, *, as_json: bool, shows_diff: bool) -> int:
    """Replay a capture and return the exit code: 0 same, 1 different, 2 nothing to replay."""
    try:
        exchanges = [one for one in read_capture(Path(folder)) if one.is_answer]
    except InvalidRequest as error:
        return tell_error(error)
    if not exchanges:
        tell(
            f"{Path(folder).resolve().name}: no request was answered, so there is nothing to replay"
        )
        return USAGE
    verdicts: list[str] = []
    documents: list[dict[str, Any]] = []
    for exchange in exchanges:
        outcome = replay(exchange)
        text = as_recorded(outcome)
        difference: list[str] = []
        is_same = None
        if exchange.recorded is None:
            verdict = "nothing to compare with: no reply was recorded"
        elif not exchange.facts.is_whole:
            verdict = "nothing to compare with: the response is incomplete"
        else:
            before, now = exchange.recorded.splitlines(), text.splitlines()
            difference += difflib.unified_diff(before, now, "recorded", "replayed", lineterm="")
            is_same = not difference
            verdict = "same as recorded" if is_same else "different from what was recorded"
            if difference and HIDDEN.encode() in exchange.raw:
                verdict += " (masked secrets can be the reason)"
        verdicts.append(f"request {exchange.facts.number}: {verdict}")
        document: dict[str, Any] = {"request": exchange.facts.number, "reply": None, "error": None}
        if isinstance(outcome, Reply):
            document["reply"] = _reply_json(outcome)
        else:
            facts = {"code": outcome.code, "message": outcome.message}
            document["error"] = {**facts, "next_step": outcome.next_step}
        documents.append({**document, "is_as_recorded": is_same, "difference": difference})
        if not as_json:
            for line in difference if shows_diff else (text,):
                say(line)
    if as_json:
        say(harmless_json(redact_json(documents)))
    for verdict in verdicts:
        tell(verdict)
    return DIFFERENT if any(one["is_as_recorded"] is False for one in documents) else 0


def _reply_json(reply: Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "thinking": reply.thinking,
        "tool_calls": [
            {"id": use.id, "name": use.name, "arguments": use.arguments, "state": use.state}
            | ({} if use.state == "complete" else {"raw": use.raw})
            for use in reply.tool_uses
        ],
        "stop_reason": reply.stop_reason,
        "raw_stop_reason": reply.raw_stop_reason,
        "truncated": reply.truncated,
        "truncation_reason": reply.truncation_reason,
        "model": reply.model_id,
        "credits": reply.usage.credits,
        "context_percent": reply.usage.context_percent,
        "warnings": list(reply.warnings),
        "ignored_events": dict(reply.ignored_events),
    }


# --- emulate --------------------------------------------------------------------------------------


MAX_RECORDS: Final = 1_000
"""How many requests `emulate --record` keeps. A body over the emulator's own limit is left out."""


def run_emulate(*, port: int, scripts: Sequence[str], record: str) -> int:
    """Serve on 127.0.0.1 until interrupted and return the exit code.

    Args:
        port: The port; 0 takes any free one.
        scripts: The files with answers.
        record: The folder that gets each request, redacted. Then every bearer token is taken.
    """
    try:
        files = [read_script(Path(script)) for script in scripts]
        state = EmulatorState(script_files=files)
        if record:
            state.accounts.takes_any_bearer = True
            state.on_request = _recorder(Path(record))
    except InvalidRequest as error:
        return tell_error(error)

    async def command() -> int:
        async with running(state, port=port) as emulator:
            tell("Emulating the Kiro service until Ctrl-C. To use it, set:")
            say(f"KIRO_MCP_ENDPOINT_URL={emulator.url}")
            say(f"KIRO_API_KEY={EMULATOR_API_KEY}")
            if files:
                names = ", ".join(file.name for file in files)
                tell(f"Scripts for prompts with `/emulate NAME`: {names}")
            if record:
                tell(
                    f"Every request is kept in {record}, without secrets. Read it before you share"
                )
                tell("it: it has the words of the prompts.")
            await anyio.sleep_forever()
        return 0

    try:
        return run_command(command)
    except OSError as error:
        tell(f"Cannot listen on 127.0.0.1:{port}: {error.strerror}. Choose another with --port.")
        return NETWORK


def _recorder(folder: Path) -> Callable[[SeenRequest], None]:
    """Return a function that keeps a request in a new file of a folder.

    Raises:
        InvalidRequest: The folder cannot be made, or has files.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise InvalidRequest(
            f"The folder {folder} cannot be used: {error.strerror}.", next_step="Name another one."
        ) from None
    if not is_empty:
        raise InvalidRequest(f"The folder {folder} is not empty.", next_step="Name a new one.")
    numbers = iter(range(1, MAX_RECORDS + 1))

    def keep(request: SeenRequest) -> None:
        number = next(numbers, None)
        if number is None:
            return
        target = request.headers.get("x-amz-target", "").rpartition(".")[2]
        name = re.sub(r"\W+", "-", request.operation or target or request.path).strip("-")[:80]
        document = {
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "headers": shown_request_headers(request.headers),
            "body": request.body,
            "body_bytes": request.size_bytes,
        }
        try:
            clean = redacted_json(document)
        except RecursionError:
            clean = redacted_json({**document, "body": "nested too deeply to be shown"})
        text = json.dumps(clean, indent=2, ensure_ascii=False)
        text = text.encode(errors="backslashreplace").decode()  # Half a character stays as \\uD800.
        try:
            replace_text(folder / f"{number:04}-{name or 'root'}.json", text + "\n")
        except OSError as error:
            tell(f"A request could not be kept in {folder}: {error.strerror}.")

    return keep
