"""Anthropic's Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

Source of truth: Anthropic's API reference of 2026, and what its Python SDK and Claude Code read.
"""

from collections.abc import Mapping
from typing import Any, Final

from kiro_mcp.api import reading
from kiro_mcp.api.chat_completions import thinking_block
from kiro_mcp.api.exchange import Event, Question, arguments_text
from kiro_mcp.chat import (
    JsonObject,
    JsonValue,
    Reply,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
    ToolUse,
    ToolUseDelta,
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


class Writer:
    """Writes one answer, whole or as a stream of events."""

    keep_alive = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, body: JsonObject, question: Question, *, new_id: str, now: int) -> None:
        thinking = reading.object_of(body, "thinking").get("type")
        self._shows_thinking = thinking in ("enabled", "adaptive")
        self._message: dict[str, Any] = {
            "id": f"msg_{new_id}",
            "type": "message",
            "role": "assistant",
            "model": question.model or "auto",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(Usage()),
        }
        self._content: list[Any] = []
        self._open: JsonObject | None = None
        """The block that is being written: text or thinking."""
        self._pieces: list[str] = []

    def begin(self) -> bytes:
        """Return the first event."""
        return _event("message_start", {"message": self._message})

    def write(self, event: Event) -> bytes:
        """Return the events for an event of the answer; nothing if it says nothing here."""
        match event:
            case TextDelta():
                return self._add("text", event.text, {"type": "text_delta", "text": event.text})
            case ThinkingDelta() if self._shows_thinking:
                delta: JsonObject = {"type": "thinking_delta", "thinking": event.text}
                return self._add("thinking", event.text, delta)
            case ThinkingPart() if self._shows_thinking:
                return self._end_thinking(event)
            case ToolUseDelta() if event.tool_use.state != "truncated":
                return self._add_call(event.tool_use, arguments_text(event.tool_use))
            case _:
                return b""

    def end(self, reply: Reply) -> bytes:
        """Return the last events."""
        delta: JsonObject = {"stop_reason": stop_of(reply), "stop_sequence": _stop_sequence(reply)}
        last = _event("message_delta", {"delta": delta, "usage": usage_of(reply.usage)})
        return self._close() + last + _event("message_stop", {})

    def fail(self, error: JsonObject) -> bytes:
        """Return the event that says that the stream broke off."""
        return _event("error", error)

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the answer that was written so far as one object."""
        self._close()
        return {
            **self._message,
            "content": self._content,
            "stop_reason": stop_of(reply),
            "stop_sequence": _stop_sequence(reply),
            "usage": usage_of(reply.usage),
        }

    def _add(self, kind: str, text: str, delta: JsonObject) -> bytes:
        start = b""
        if self._open is None or self._open["type"] != kind:
            start = self._close()
            self._open = {"type": kind, kind: ""}
            if kind == "thinking":
                self._open["signature"] = ""
            start += self._start(self._open)
        self._pieces.append(text)
        return start + self._delta(delta)

    def _end_thinking(self, part: ThinkingPart) -> bytes:
        block = thinking_block(part)
        if self._open is None or self._open["type"] != "thinking" or part.redacted:
            events = self._close() + self._start(block)
        else:
            events = b""
            if part.signature:
                events = self._delta({"type": "signature_delta", "signature": part.signature})
            self._open, self._pieces = None, []
        events += self._stop()
        self._content.append(block)
        return events

    def _add_call(self, tool_use: ToolUse, text: str) -> bytes:
        arguments: JsonObject = tool_use.arguments
        if tool_use.state == "invalid":  # Not an object, which is all that fits here.
            arguments = {"invalid_arguments": tool_use.raw}
            text = json_text(arguments)
        block: JsonObject = {"type": "tool_use", "id": tool_use.id, "name": tool_use.name}
        events = self._close() + self._start({**block, "input": {}})
        events += self._delta({"type": "input_json_delta", "partial_json": text})
        events += self._stop()
        self._content.append({**block, "input": arguments})
        return events

    def _start(self, block: JsonObject) -> bytes:
        return _event("content_block_start", {"index": len(self._content), "content_block": block})

    def _delta(self, delta: JsonObject) -> bytes:
        return _event("content_block_delta", {"index": len(self._content), "delta": delta})

    def _stop(self) -> bytes:
        return _event("content_block_stop", {"index": len(self._content)})

    def _close(self) -> bytes:
        """End the block that is being written, if there is one."""
        if self._open is None:
            return b""
        kind = self._open["type"]
        assert isinstance(kind, str)
        stop = self._stop()
        self._content.append({**self._open, kind: "".join(self._pieces)})
        self._open, self._pieces = None, []
        return stop


def _event(kind: str, members: Mapping[str, JsonValue]) -> bytes:
    data = json_text({"type": kind, **members})
    return f"event: {kind}\ndata: {data}\n\n".encode(errors="replace")


def stop_of(reply: Reply) -> str:
    """Return Anthropic's word for why an answer ended. What was cut off is never `end_turn`."""
    if reply.truncated and reply.stop_reason not in ("context_window_exceeded", "refusal"):
        return "max_tokens"
    return _STOP[reply.stop_reason]


def _stop_sequence(reply: Reply) -> str | None:
    return reply.raw_stop_reason if reply.stop_reason == "stop_sequence" else None


def usage_of(usage: Usage) -> JsonObject:
    """Return the usage as Anthropic has it: cached tokens are not in `input_tokens`."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": max(0, usage.input_tokens - cached),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }
