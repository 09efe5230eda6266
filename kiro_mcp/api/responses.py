"""OpenAI's Responses API: `POST /v1/responses`.

Nothing is stored, so `previous_response_id` is refused. Reasoning goes out with
`encrypted_content`, which holds it with its signature, and comes back in with the next request.

Codex offers custom tools, which take text, and namespaces, which hold tools. A tool of a namespace
is offered to the model as `namespace__tool`.

Source of truth: OpenAI's API reference of 2026, what its Python SDK reads, and what Codex sends.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from kiro_mcp.api import reading, writing
from kiro_mcp.api.exchange import Question
from kiro_mcp.chat import (
    JsonObject,
    JsonValue,
    Reply,
    ThinkingPart,
    ToolUse,
    Usage,
)
from kiro_mcp.wire.json_values import json_text, plain_json
from kiro_mcp.wire.messages import CUSTOM_INPUT

_REFUSED: Final[reading.Refused] = (
    ("previous_response_id", ("",), "Send the whole conversation in input: nothing is stored."),
    ("conversation", (), "Send the whole conversation in input: nothing is stored."),
    ("background", (False,), "Leave background out, and stream the answer if it takes long."),
    ("prompt", (), "Send the prompt itself: nothing is stored."),
    ("top_logprobs", (0,), "Leave top_logprobs out."),
)

_SEALED: Final = "kiro-mcp:"
"""Begins the `encrypted_content` that this module wrote."""

_ADDITIONAL_TOOLS: Final = "additional_tools"
"""The type of an item of the input that offers tools."""

_BETWEEN: Final = "__"
"""Stands between the names of a namespace and of a tool in it."""


def read(body: JsonObject) -> Question:
    """Read a request.

    Raises:
        InvalidRequest: A member cannot be read, or asks for what cannot be had.
    """
    reading.refuse(body, _REFUSED)
    given = body.get("input")
    if isinstance(given, str):
        given = list[JsonValue]([{"role": "user", "content": given}])
    if not isinstance(given, list):
        raise reading.wrong("input", given, "a text or a list of items")
    text = reading.object_of(body, "text")
    reasoning = reading.object_of(body, "reasoning")
    return Question(
        model=reading.text_of(body, "model"),
        messages=[
            _opened(item)
            for item in given
            if not (isinstance(item, dict) and item.get("type") == _ADDITIONAL_TOOLS)
        ],
        system=reading.text_of(body, "instructions"),
        tools=_read_tools(body)[0],
        tool_choice=reading.read_tool_choice(body.get("tool_choice")),
        allows_several_calls=reading.flag_of(body, "parallel_tool_calls", default=True),
        effort=reading.read_effort(reading.text_of(reasoning, "effort")),
        max_tokens=reading.count_of(body, "max_output_tokens"),
        schema=reading.read_format(reading.object_of(text, "format"), "text.format"),
        is_streamed=reading.flag_of(body, "stream"),
    )


def _read_tools(body: JsonObject) -> tuple[list[JsonValue], dict[str, tuple[str, str]]]:
    """Return the tools, and namespace and name of those in a namespace, by the model's names.

    The model sees `namespace__tool`. Codex puts the tools into an item of the input for models of
    its own catalogue; what is offered again there takes the place of what was offered before.
    """
    offered = list(reading.list_of(body, "tools"))
    given = body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and item.get("type") == _ADDITIONAL_TOOLS:
            offered += reading.list_of(item, "tools")
    tools: dict[str, JsonValue] = {}
    namespaces: dict[str, tuple[str, str]] = {}
    for tool in offered:
        if not isinstance(tool, dict) or tool.get("type") != "namespace":
            name = tool.get("name") if isinstance(tool, dict) else None
            tools[str(name or json_text(tool))] = tool
            continue
        space = str(tool.get("name"))
        for member in reading.list_of(tool, "tools"):
            if isinstance(member, dict):
                name = str(member.get("name"))
                namespaces[f"{space}{_BETWEEN}{name}"] = space, name
                tools[f"{space}{_BETWEEN}{name}"] = {**member, "name": f"{space}{_BETWEEN}{name}"}
    return list(tools.values()), namespaces


def _opened(item: JsonValue) -> JsonValue:
    """Return an item of the input with what only this API has made plain."""
    if not isinstance(item, dict):
        return item
    if isinstance(space := item.get("namespace"), str) and space:
        left = {name: value for name, value in item.items() if name != "namespace"}
        return {**left, "name": f"{space}{_BETWEEN}{item.get('name')}"}
    sealed = item.get("encrypted_content")
    if item.get("type") == "reasoning" and isinstance(sealed, str) and sealed.startswith(_SEALED):
        try:
            opened = base64.b64decode(sealed.removeprefix(_SEALED), validate=True)
            return plain_json(json.loads(opened))
        except (binascii.Error, ValueError):
            return item
    return item


class Writer(writing.Writer):
    """Writes one answer, whole or as a stream of events."""

    def __init__(self, body: JsonObject, question: Question, *, new_id: str, now: int) -> None:
        super().__init__()
        self._customs = writing.custom_tools(question.tools)
        self._namespaces = _read_tools(body)[1]
        self._new_id = new_id
        self._response: dict[str, Any] = {
            "id": f"resp_{new_id}",
            "object": "response",
            "created_at": now,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata") or {},
            "model": question.model or "auto",
            "output": [],
            "parallel_tool_calls": question.allows_several_calls,
            "previous_response_id": None,
            "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
            "store": False,
            "temperature": body.get("temperature"),
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": reading.list_of(body, "tools"),
            "top_p": body.get("top_p"),
            "truncation": "disabled",
            "usage": None,
        }
        self._events = 0
        self._output: list[Any] = []

    def begin(self) -> bytes:
        """Return the first events."""
        started = {"response": self._response}
        return self._event("response.created", started) + self._event(
            "response.in_progress", started
        )

    def end(self, reply: Reply) -> bytes:
        """Return the last events."""
        closing, whole = self._end_items(reply), self._describe(reply)
        kind = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
        return closing + self._event(kind, {"response": whole})

    def fail(self, error: JsonObject) -> bytes:
        """Return the event that says that the stream broke off."""
        inner = error["error"]
        assert isinstance(inner, dict)
        failed = {
            **self._response,
            "status": "failed",
            "output": self._output,
            "error": {"code": inner["code"] or "server_error", "message": inner["message"]},
        }
        return self._event("response.failed", {"response": failed})

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the answer that was written as one object."""
        self._end_items(reply)
        return self._describe(reply)

    def _describe(self, reply: Reply) -> dict[str, Any]:
        why = ""
        if reply.truncated or reply.stop_reason in ("max_tokens", "context_window_exceeded"):
            why = "max_output_tokens"
        if reply.stop_reason == "refusal":
            why = "content_filter"
        return {
            **self._response,
            "status": "incomplete" if why else "completed",
            "incomplete_details": {"reason": why} if why else None,
            "output": self._output,
            "usage": _usage_of(reply.usage),
        }

    # --- items ---

    def _begin_item(self, kind: writing.Kind) -> bytes:
        if kind == "text":
            item = {**self._message([]), "status": "in_progress"}
            part = ("response.content_part.added", {**self._position_of(kind), "part": _text("")})
        else:
            item: JsonObject = {"id": self._item_id("rs"), "type": "reasoning", "summary": []}
            summary: JsonObject = {"type": "summary_text", "text": ""}
            part = (
                "response.reasoning_summary_part.added",
                {**self._position_of(kind), "part": summary},
            )
        return self._item_event("added", item) + self._event(*part)

    def _add_piece(self, kind: writing.Kind, text: str) -> bytes:
        members = {**self._position_of(kind), "delta": text}
        if kind == "text":
            return self._event("response.output_text.delta", {**members, "logprobs": []})
        return self._event("response.reasoning_summary_text.delta", members)

    def _end_text(self, text: str) -> bytes:
        position = self._position_of("text")
        return (
            self._event("response.output_text.done", {**position, "text": text, "logprobs": []})
            + self._event("response.content_part.done", {**position, "part": _text(text)})
            + self._done(self._message([_text(text)]))
        )

    def _end_thinking(self, part: ThinkingPart) -> bytes:
        position = self._position_of("thinking")
        summary: JsonObject = {"type": "summary_text", "text": part.text}
        sealed = base64.b64encode(writing.json_bytes(writing.thinking_block(part))).decode()
        item: JsonObject = {
            "id": self._item_id("rs"),
            "type": "reasoning",
            "summary": [summary] if part.text else [],
            "encrypted_content": _SEALED + sealed,
        }
        return (
            self._event("response.reasoning_summary_text.done", {**position, "text": part.text})
            + self._event("response.reasoning_summary_part.done", {**position, "part": summary})
            + self._done(item)
        )

    def _write_call(self, tool_use: ToolUse) -> bytes:
        space, name = self._namespaces.get(tool_use.name, ("", tool_use.name))
        text = tool_use.arguments.get(CUSTOM_INPUT)
        if tool_use.name in self._customs and isinstance(text, str):
            kind, member, prefix = "custom_tool_call", "input", "ctc"
            events = "response.custom_tool_call_input"
        else:
            kind, member, prefix = "function_call", "arguments", "fc"
            events = "response.function_call_arguments"
            text = writing.arguments_text(tool_use)
        item_id = self._item_id(prefix)
        call: JsonObject = {"id": item_id, "type": kind, "call_id": tool_use.id, "name": name}
        if space:
            call["namespace"] = space
        position: JsonObject = {"item_id": item_id, "output_index": len(self._output)}
        return (
            self._item_event("added", {**call, member: "", "status": "in_progress"})
            + self._event(f"{events}.delta", {**position, "delta": text})
            + self._event(f"{events}.done", {**position, "name": name, member: text})
            + self._done({**call, member: text, "status": "completed"})
        )

    def _end_items(self, reply: Reply) -> bytes:
        """End the last item, and add a refusal as an item of its own."""
        closing = self.close()
        if reply.stop_reason != "refusal":
            return closing
        item = self._message([{"type": "refusal", "refusal": writing.refusal_text(reply)}])
        return closing + self._item_event("added", item) + self._done(item)

    def _done(self, item: JsonObject) -> bytes:
        event = self._item_event("done", item)
        self._output.append(item)
        return event

    def _message(self, content: list[JsonValue]) -> JsonObject:
        return {
            "id": self._item_id("msg"),
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": content,
        }

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}_{self._new_id}_{len(self._output)}"

    def _position_of(self, kind: writing.Kind) -> JsonObject:
        """Say where a piece belongs: in a message's content, or in the summary of reasoning."""
        prefix, index = ("msg", "content_index") if kind == "text" else ("rs", "summary_index")
        return {"item_id": self._item_id(prefix), "output_index": len(self._output), index: 0}

    def _item_event(self, what: str, item: JsonObject) -> bytes:
        members: JsonObject = {"output_index": len(self._output), "item": item}
        return self._event(f"response.output_item.{what}", members)

    def _event(self, kind: str, members: Mapping[str, Any]) -> bytes:
        data = writing.json_bytes({"type": kind, "sequence_number": self._events, **members})
        self._events += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


def _text(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage_of(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
