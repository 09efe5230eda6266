"""OpenAI's Chat Completions API: `POST /v1/chat/completions`.

Source of truth: OpenAI's API reference of 2026, and what its Python SDK reads. `reasoning_content`
and `thinking_blocks` are not OpenAI's: DeepSeek and LiteLLM brought them in, and clients send them
back.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kiro_mcp.api import reading
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
    Usage,
)
from kiro_mcp.wire.content import CUSTOM_INPUT
from kiro_mcp.wire.json_values import json_text

_REFUSED: Final[reading.Refused] = (
    ("n", (1,), "Send n = 1, and one request for each answer."),
    ("logprobs", (False,), "Leave logprobs out."),
    ("top_logprobs", (0,), "Leave top_logprobs out."),
    ("audio", (), "Ask for text."),
    ("modalities", (["text"],), "Ask for text."),
    ("functions", ([],), "Use tools."),
    ("web_search_options", (), "Leave web_search_options out, and offer a tool of your own."),
)

_FINISH: Final[Mapping[StopReason, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "context_window_exceeded": "length",
    "truncated": "length",
    "refusal": "content_filter",
}

_JSON_OBJECT: Final[JsonObject] = {"type": "object"}


def read(body: JsonObject) -> Question:
    """Read a request.

    Raises:
        InvalidRequest: A member cannot be read, or asks for what cannot be had.
    """
    reading.refuse(body, _REFUSED)
    messages = [_with_thinking(message) for message in reading.list_of(body, "messages")]
    return Question(
        model=reading.text_of(body, "model"),
        messages=messages,
        tools=reading.list_of(body, "tools"),
        tool_choice=read_tool_choice(body.get("tool_choice")),
        allows_several_calls=reading.flag_of(body, "parallel_tool_calls", default=True),
        effort=read_effort(reading.text_of(body, "reasoning_effort")),
        max_tokens=reading.count_of(body, "max_completion_tokens", "max_tokens"),
        stop=reading.stops_of(body, "stop"),
        schema=read_format(reading.object_of(body, "response_format"), "response_format"),
        is_streamed=reading.flag_of(body, "stream"),
    )


def read_effort(word: str) -> str:
    """Read OpenAI's word for an effort; `minimal` is the least that every model has."""
    lower = word.strip().lower()
    return {"none": "off", "minimal": "low"}.get(lower, lower)


def read_tool_choice(given: JsonValue) -> str:
    """Read OpenAI's `tool_choice`, also with the function's name around or inside."""
    if given in (None, "auto"):
        return ""
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        inner = given.get("function") or given.get("custom") or given
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str) and name:
            return name
        allowed = given.get("allowed_tools") or given
        if given.get("type") == "allowed_tools" and isinstance(allowed, dict):
            return "required" if allowed.get("mode") == "required" else ""
    raise reading.wrong("tool_choice", given, "auto, none, required or the name of a tool")


def read_format(given: JsonObject, name: str) -> JsonObject | None:
    """Return the schema that an answer must fit; None for plain text."""
    kind = given.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return _JSON_OBJECT
    inner = given.get("json_schema", given)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind == "json_schema" and isinstance(schema, dict):
        return schema
    raise reading.wrong(name, given, "text, json_object, or json_schema with a schema")


def _with_thinking(message: JsonValue) -> JsonValue:
    """Put the thinking blocks of an answer, which carry signatures, before its content."""
    if not isinstance(message, dict):
        return message
    blocks = message.get("thinking_blocks")
    if not isinstance(blocks, list) or not blocks:
        return message
    left = {
        name: value
        for name, value in message.items()
        if name not in ("thinking_blocks", "reasoning_content", "reasoning")
    }
    content = message.get("content")
    rest = content if isinstance(content, list) else [content] if content else []
    return {**left, "content": [*blocks, *rest]}


class Writer:
    """Writes one answer, whole or as a stream of chunks."""

    keep_alive = b": keep-alive\n\n"

    def __init__(self, body: JsonObject, question: Question, *, new_id: str, now: int) -> None:
        options = reading.object_of(body, "stream_options")
        self._wants_usage = bool(options.get("include_usage"))
        self._customs = custom_tools(question.tools)
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{new_id}",
            "object": "chat.completion.chunk",
            "created": now,
            "model": question.model or "auto",
        }
        self._calls = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._blocks: list[Any] = []
        self._tool_calls: list[Any] = []

    def begin(self) -> bytes:
        """Return the first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def write(self, event: Event) -> bytes:
        """Return the chunk for an event; nothing if it says nothing here."""
        match event:
            case TextDelta():
                self._text.append(event.text)
                return self._chunk({"content": event.text})
            case ThinkingDelta():
                self._reasoning.append(event.text)
                return self._chunk({"reasoning_content": event.text})
            case ThinkingPart():
                if not (event.signature or event.redacted):
                    return b""
                self._blocks.append(thinking_block(event))
                return self._chunk({"thinking_blocks": [self._blocks[-1]]})
            case _:
                if event.tool_use.state == "truncated":
                    return b""  # It is not whole: the finish reason says so.
                self._tool_calls.append(self._call(event.tool_use, arguments_text(event.tool_use)))
                index = len(self._tool_calls) - 1
                return self._chunk({"tool_calls": [{"index": index, **self._tool_calls[-1]}]})

    def end(self, reply: Reply) -> bytes:
        """Return the last chunks."""
        last = self._chunk({}, finish=finish_of(reply))
        if self._wants_usage:
            usage: dict[str, Any] = {**self._head, "choices": [], "usage": usage_of(reply.usage)}
            last += _event(usage)
        return last + b"data: [DONE]\n\n"

    def fail(self, error: JsonObject) -> bytes:
        """Return the event that says that the stream broke off."""
        return _event(error)

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the answer that was written so far as one object."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self._text) or None,
            "refusal": refusal_text(reply) if reply.stop_reason == "refusal" else None,
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._blocks:
            message["thinking_blocks"] = self._blocks
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_of(reply),
        }
        head = {**self._head, "object": "chat.completion"}
        return {**head, "choices": [choice], "usage": usage_of(reply.usage)}

    def _call(self, tool_use: ToolUse, arguments: str) -> JsonObject:
        if tool_use.name in self._customs and tool_use.state == "complete":
            text = tool_use.arguments.get(CUSTOM_INPUT, "")
            custom: JsonObject = {"name": tool_use.name, "input": text}
            return {"id": tool_use.id, "type": "custom", "custom": custom}
        function: JsonObject = {"name": tool_use.name, "arguments": arguments}
        return {"id": tool_use.id, "type": "function", "function": function}

    def _chunk(self, delta: JsonObject, *, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**self._head, "choices": [choice]})


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json_text(dict(value)).encode(errors="replace") + b"\n\n"


def finish_of(reply: Reply) -> str:
    """Return OpenAI's word for why an answer ended. What was cut off is never `stop`."""
    return "length" if reply.truncated else _FINISH[reply.stop_reason]


def refusal_text(reply: Reply) -> str:
    """Return why the service refused to answer."""
    return (reply.refusal and reply.refusal.explanation) or "The service refused to answer."


def usage_of(usage: Usage) -> JsonObject:
    """Return the usage as Chat Completions have it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def thinking_block(part: ThinkingPart) -> JsonObject:
    """Return a block of reasoning as Anthropic has it."""
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def custom_tools(tools: Sequence[JsonValue]) -> frozenset[str]:
    """Return the names of the tools that take text in the place of JSON."""
    names: list[JsonValue] = []
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == "custom":
            inner = tool.get("custom")
            names.append(inner.get("name") if isinstance(inner, dict) else tool.get("name"))
    return frozenset(name for name in names if isinstance(name, str))
