"""`kiro-mcp replay`: a capture's answers, read again, and whether they read as they did."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiro_mcp.captures.folder import Exchange, read_capture
from kiro_mcp.captures.rendering import error_json, reply_json
from kiro_mcp.captures.replaying import as_recorded, has_masks, is_comparable, replayed
from kiro_mcp.chat import Reply
from kiro_mcp.cli.exits import DIFFERENT, USAGE
from kiro_mcp.cli.harmless import harmless_json
from kiro_mcp.cli.terminal import say, tell, tell_error
from kiro_mcp.errors import InvalidRequest, KiroError
from kiro_mcp.redaction import redact_json


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replay:
    """One exchange, replayed."""

    exchange: Exchange
    outcome: Reply | KiroError
    text: str
    difference: Sequence[str] | None
    """The lines of a unified diff from what was recorded; None where nothing can be compared."""

    @property
    def verdict(self) -> str:
        if self.difference is None:
            cut = "its answer is not whole" if self.exchange.recorded else "nothing was recorded"
            return f"nothing to compare with: {cut}"
        if not self.difference:
            return "reads as it was recorded"
        masked = " (secrets were masked in it, which can be why)" * has_masks(self.exchange)
        return f"reads otherwise than it was recorded{masked}"


def run_replay(folder: str, *, as_json: bool, shows_diff: bool) -> int:
    """Replay a capture and return the exit code: 0 the same, 1 different, 2 no answer there."""
    try:
        capture = read_capture(Path(folder))
    except InvalidRequest as error:
        return tell_error(error)
    replays = [_replay(exchange) for exchange in capture.exchanges if exchange.is_answer]
    if not replays:
        tell(f"{capture.name}: no request of it was answered; nothing to read")
        return USAGE
    if as_json:
        say(harmless_json([_as_json(one) for one in replays]))
    else:
        _say(replays, shows_diff=shows_diff)
    for one in replays:
        tell(f"request {one.exchange.facts.number}: {one.verdict}")
    return DIFFERENT if any(one.difference for one in replays) else 0


def _replay(exchange: Exchange) -> _Replay:
    outcome = replayed(exchange)
    text = as_recorded(outcome)
    difference = None
    if exchange.recorded is not None and is_comparable(exchange):
        before, now = exchange.recorded.splitlines(), text.splitlines()
        difference = list(difflib.unified_diff(before, now, "recorded", "replayed", lineterm=""))
    return _Replay(exchange=exchange, outcome=outcome, text=text, difference=difference)


def _say(replays: Sequence[_Replay], *, shows_diff: bool) -> None:
    for one in replays:
        for text in (one.difference or ()) if shows_diff else (one.text,):
            say(text)


def _as_json(one: _Replay) -> dict[str, Any]:
    outcome = one.outcome
    is_reply = isinstance(outcome, Reply)
    return redact_json(
        {
            "request": one.exchange.facts.number,
            "reply": reply_json(outcome) if is_reply else None,
            "error": None if is_reply else error_json(outcome),
            "is_as_recorded": None if one.difference is None else not one.difference,
            "difference": list(one.difference or ()),
        }
    )
