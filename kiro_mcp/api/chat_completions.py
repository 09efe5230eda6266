"""OpenAI's Chat Completions API: `POST /v1/chat/completions`.

Source of truth: OpenAI's API reference of 2026, and what its Python SDK reads. `reasoning_content`
and `thinking_blocks` are not OpenAI's: DeepSeek and LiteLLM brought them in, and clients send them
back.
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
from kiro_mcp.wire.messages import CUSTOM_INPUT

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
        tool_choice=reading.read_tool_choice(body.get("tool_choice")),
        allows_several_calls=reading.flag_of(body, "parallel_tool_calls", default=True),
        effort=reading.read_effort(reading.text_of(body, "reasoning_effort")),
        max_tokens=reading.count_of(body, "max_completion_tokens", "max_tokens"),
        stop=reading.stops_of(body, "stop"),
        schema=reading.read_format(reading.object_of(body, "response_format"), "response_format"),
        is_streamed=reading.flag_of(body, "stream"),
    )


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


class Writer(writing.Writer):
    """Writes one answer, whole or as a stream of chunks."""

    def __init__(self, body: JsonObject, question: Question, *, new_id: str, now: int) -> None:
        super().__init__()
        options = reading.object_of(body, "stream_options")
        self._wants_usage = reading.flag_of(options, "include_usage")
        self._customs = writing.custom_tools(question.tools)
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{new_id}",
            "object": "chat.completion.chunk",
            "created": now,
            "model": question.model or "auto",
        }
        head = writing.json_bytes(self._head).removesuffix(b"}")
        self._before_delta = b"data: " + head + b',"choices":[{"index":0,"delta":'
        self._text = self._reasoning = ""
        self._blocks: list[Any] = []
        self._calls: list[Any] = []

    def begin(self) -> bytes:
        """Return the first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def end(self, reply: Reply) -> bytes:
        """Return the last chunks."""
        last = self._chunk({}, finish=_finish_of(reply))
        if reply.stop_reason == "refusal":
            last = self._chunk({"refusal": writing.refusal_text(reply)}) + last
        if self._wants_usage:
            last += _event({**self._head, "choices": [], "usage": _usage_of(reply.usage)})
        return last + b"data: [DONE]\n\n"

    def fail(self, error: JsonObject) -> bytes:
        """Return the event that says that the stream broke off."""
        return _event(error)

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the answer that was written as one object."""
        self.close()
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self._text or None,
            "refusal": writing.refusal_text(reply) if reply.stop_reason == "refusal" else None,
        }
        if self._reasoning:
            message["reasoning_content"] = self._reasoning
        if self._blocks:
            message["thinking_blocks"] = self._blocks
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish_of(reply),
        }
        head = {**self._head, "object": "chat.completion"}
        return {**head, "choices": [choice], "usage": _usage_of(reply.usage)}

    def _begin_item(self, kind: writing.Kind) -> bytes:
        return b""

    def _add_piece(self, kind: writing.Kind, text: str) -> bytes:
        return self._chunk({"content" if kind == "text" else "reasoning_content": text})

    def _end_text(self, text: str) -> bytes:
        self._text += text
        return b""

    def _end_thinking(self, part: ThinkingPart) -> bytes:
        self._reasoning += part.text
        if not (part.signature or part.redacted):
            return b""
        self._blocks.append(writing.thinking_block(part))
        return self._chunk({"thinking_blocks": [self._blocks[-1]]})

    def _write_call(self, tool_use: ToolUse) -> bytes:
        if tool_use.name in self._customs and tool_use.state == "complete":
            text = tool_use.arguments.get(CUSTOM_INPUT, "")
            called: JsonObject = {
                "type": "custom",
                "custom": {"name": tool_use.name, "input": text},
            }
        else:
            arguments = writing.arguments_text(tool_use)
            function: JsonObject = {"name": tool_use.name, "arguments": arguments}
            called = {"type": "function", "function": function}
        call: JsonObject = {"id": tool_use.id, **called}
        self._calls.append(call)
        return self._chunk({"tool_calls": [{"index": len(self._calls) - 1, **call}]})

    def _chunk(self, delta: JsonObject, *, finish: str | None = None) -> bytes:
        end = b"null" if finish is None else writing.json_bytes(finish)
        rest = writing.json_bytes(delta) + b',"logprobs":null,"finish_reason":' + end
        return self._before_delta + rest + b"}]}\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + writing.json_bytes(dict(value)) + b"\n\n"


def _finish_of(reply: Reply) -> str:
    """Return OpenAI's word for why an answer ended. What was cut off is never `stop`."""
    return "length" if reply.truncated else _FINISH[reply.stop_reason]


def _usage_of(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
