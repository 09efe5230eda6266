"""Anthropic's Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

Source of truth: Anthropic's API reference of 2026, and what its Python SDK and Claude Code read.
"""

from collections.abc import Mapping
from typing import Any, Final

from kiro_mcp.api import reading, writing
from kiro_mcp.api.exchange import Question
from kiro_mcp.chat import (
    JsonObject,
    JsonValue,
    Reply,
    StopReason,
    ThinkingPart,
    ToolUse,
    Usage,
)
from kiro_mcp.wire.json_values import json_text

_REFUSED: Final[reading.Refused] = (
    ("mcp_servers", ([],), "Offer the tools of those servers as tools of your own."),
    ("container", (), "Leave container out."),
)

_STOP: Final[Mapping[StopReason, str]] = {
    "end_turn": "end_turn",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "context_window_exceeded": "model_context_window_exceeded",
    "truncated": "max_tokens",
    "refusal": "refusal",
}

_BUDGETS: Final = ((4_096, "low"), (16_384, "medium"), (32_768, "high"))
"""Up to how many tokens of `budget_tokens` an effort is meant; beyond, it is `max`."""


def read(body: JsonObject) -> Question:
    """Read a request.

    Raises:
        InvalidRequest: A member cannot be read, or asks for what cannot be had.
    """
    reading.refuse(body, _REFUSED)
    choice = reading.object_of(body, "tool_choice")
    return Question(
        model=reading.text_of(body, "model"),
        messages=reading.list_of(body, "messages"),
        system=body.get("system") or "",
        tools=reading.list_of(body, "tools"),
        tool_choice=_read_tool_choice(choice),
        allows_several_calls=not reading.flag_of(choice, "disable_parallel_tool_use"),
        effort=_read_effort(body),
        max_tokens=reading.count_of(body, "max_tokens"),
        stop=reading.stops_of(body, "stop_sequences"),
        schema=_read_schema(body),
        is_streamed=reading.flag_of(body, "stream"),
    )


def _read_tool_choice(choice: JsonObject) -> str:
    kind, name = choice.get("type", "auto"), choice.get("name")
    if kind == "tool" and isinstance(name, str):
        return name
    words = {"auto": "", "any": "required", "none": "none"}
    if isinstance(kind, str) and kind in words:
        return words[kind]
    raise reading.wrong("tool_choice", choice, "auto, any, none, or tool with a name")


def _read_effort(body: JsonObject) -> str:
    """Read how hard the model is to think; without a word about it, it does not think."""
    effort = reading.text_of(reading.object_of(body, "output_config"), "effort")
    thinking = reading.object_of(body, "thinking")
    match thinking.get("type"):
        case "enabled":
            budget = reading.count_of(thinking, "budget_tokens")
            by_budget = next((word for limit, word in _BUDGETS if budget <= limit), "max")
            return effort or (by_budget if budget else "")
        case "adaptive":
            return effort
        case "disabled":
            return "off"
        case _:
            return effort


def _read_schema(body: JsonObject) -> JsonObject | None:
    config = reading.object_of(body, "output_config")
    given = config.get("format") or body.get("output_format")
    if given is None:
        return None
    schema = given.get("schema") if isinstance(given, dict) else None
    if isinstance(schema, dict):
        return schema
    raise reading.wrong("output_config.format", given, "json_schema with a schema")


class Writer(writing.Writer):
    """Writes one answer, whole or as a stream of events."""

    keep_alive = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, body: JsonObject, question: Question, *, new_id: str, now: int) -> None:
        thinking = reading.object_of(body, "thinking").get("type")
        super().__init__(shows_thinking=thinking in ("enabled", "adaptive"))
        self._message: dict[str, Any] = {
            "id": f"msg_{new_id}",
            "type": "message",
            "role": "assistant",
            "model": question.model or "auto",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage_of(Usage()),
        }
        self._content: list[Any] = []

    def begin(self) -> bytes:
        """Return the first event."""
        return _event("message_start", {"message": self._message})

    def end(self, reply: Reply) -> bytes:
        """Return the last events."""
        closing, ending = self.close(), _ending_of(reply)
        usage = ending.pop("usage")
        last = _event("message_delta", {"delta": ending, "usage": usage})
        return closing + last + _event("message_stop", {})

    def fail(self, error: JsonObject) -> bytes:
        """Return the event that says that the stream broke off."""
        return _event("error", error)

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the answer that was written as one object."""
        self.close()
        return {**self._message, "content": self._content, **_ending_of(reply)}

    def _begin_item(self, kind: writing.Kind) -> bytes:
        if kind == "redacted":
            return b""
        block: JsonObject = {"type": "text", "text": ""}
        if kind == "thinking":
            block = writing.thinking_block(ThinkingPart(text=""))
        return self._start(block)

    def _add_piece(self, kind: writing.Kind, text: str) -> bytes:
        return self._delta({"type": f"{kind}_delta", kind: text})

    def _end_text(self, text: str) -> bytes:
        return self._stop({"type": "text", "text": text})

    def _end_thinking(self, part: ThinkingPart) -> bytes:
        block = writing.thinking_block(part)
        events = b""
        if part.redacted:
            events = self._start(block)
        elif part.signature:
            events = self._delta({"type": "signature_delta", "signature": part.signature})
        return events + self._stop(block)

    def _write_call(self, tool_use: ToolUse) -> bytes:
        arguments: JsonObject = tool_use.arguments
        text = writing.arguments_text(tool_use)
        if tool_use.state == "invalid":  # It is not an object, which is all that fits here.
            arguments = {"invalid_arguments": tool_use.raw}
            text = json_text(arguments)
        block: JsonObject = {"type": "tool_use", "id": tool_use.id, "name": tool_use.name}
        events = self._start({**block, "input": {}})
        events += self._delta({"type": "input_json_delta", "partial_json": text})
        return events + self._stop({**block, "input": arguments})

    def _start(self, block: JsonObject) -> bytes:
        return _event("content_block_start", {"index": len(self._content), "content_block": block})

    def _delta(self, delta: JsonObject) -> bytes:
        return _event("content_block_delta", {"index": len(self._content), "delta": delta})

    def _stop(self, block: JsonObject) -> bytes:
        event = _event("content_block_stop", {"index": len(self._content)})
        self._content.append(block)
        return event


def _event(kind: str, members: Mapping[str, JsonValue]) -> bytes:
    data = writing.json_bytes({"type": kind, **members})
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


def _ending_of(reply: Reply) -> dict[str, Any]:
    """Return why an answer ended, and its usage. What was cut off is never `end_turn`."""
    reason = _STOP[reply.stop_reason]
    if reply.truncated and reply.stop_reason not in ("context_window_exceeded", "refusal"):
        reason = "max_tokens"
    sequence = reply.raw_stop_reason if reason == "stop_sequence" else None
    usage = _usage_of(reply.usage)
    return {"stop_reason": reason, "stop_sequence": sequence, "usage": usage}


def _usage_of(usage: Usage) -> JsonObject:
    """Return the usage as Anthropic has it: cached tokens are not in `input_tokens`."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": max(0, usage.input_tokens - cached),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }
