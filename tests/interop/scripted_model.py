"""A stand-in for a client's model: it calls `ask_claude` by a script and keeps what it is shown.

It speaks as much of three APIs as the clients in `tests.interop.agents` use: Anthropic's
`/v1/messages`, and OpenAI's `/v1/responses` and `/v1/chat/completions`.
"""

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, cast

Json = dict[str, Any]

Step = Callable[[str], Json]
"""Makes the arguments of a call from the result of the call before it, or from ""."""

Events = list[Json | str]

TOOL = "ask_claude"
"""Clients put a prefix of their own before the name."""

LAST_WORDS = "That is all."
"""What the model says when its script is at its end."""


class ScriptedModel:
    """A model that makes the calls of a script, and what it has seen."""

    def __init__(self, url: str, steps: Sequence[Step]) -> None:
        self.url = url
        self.steps = steps
        self.first_tools: list[str] | None = None
        """The names in the first request that offers tools; None until there is one."""
        self.results: list[str] = []
        """The result of each call, as the client shows it to the model."""

    def next_call(self, tools: Sequence[str], results: Sequence[str]) -> tuple[str, Json] | None:
        """Take a request's tools and results; return the next call, or None at the end."""
        if not tools:
            return None  # Such as a request for the title of the conversation.
        if self.first_tools is None:
            self.first_tools = list(tools)
        if len(results) > len(self.results):
            self.results = list(results)
        name = next((tool for tool in tools if tool.endswith(TOOL)), None)
        if name is None or len(results) >= len(self.steps):
            return None
        return name, self.steps[len(results)](results[-1] if results else "")


@contextmanager
def scripted_model(steps: Sequence[Step]) -> Generator[ScriptedModel]:
    """Serve the model on a free port while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    model = _Handler.models[server.server_port] = ScriptedModel(
        f"http://127.0.0.1:{server.server_port}", steps
    )
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        del _Handler.models[server.server_port]


class _Handler(BaseHTTPRequestHandler):
    """One request: the path picks the API."""

    protocol_version = "HTTP/1.1"
    models: dict[int, ScriptedModel] = {}  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: stderr belongs to the report."""

    def do_GET(self) -> None:
        """List the models."""
        self._answer({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_HEAD(self) -> None:
        """Tell that the server is there."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Answer as the model."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        apis = {"/messages": _messages, "/responses": _responses, "/chat/completions": _chat}
        api = next((api for end, api in apis.items() if path.endswith(end)), None)
        if api is None:
            self._answer({"input_tokens": 10})  # Counting tokens, or telemetry.
            return
        request: Json = json.loads(body)
        whole, events = api(self.models[self.server.server_port], request)  # type: ignore[attr-defined]
        if request.get("stream"):
            self._stream(events)
        else:
            self._answer(whole)

    def _answer(self, answer: Json) -> None:
        self._send("application/json", json.dumps(answer))

    def _stream(self, events: Sequence[Json | str]) -> None:
        lines: list[str] = []
        for event in events:
            if isinstance(event, dict) and "type" in event:
                lines.append(f"event: {event['type']}\n")
            lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n")
        self._send("text/event-stream", "".join(lines))

    def _send(self, content_type: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


# --- the three APIs: a request in, the answer whole and as events out -----------------------------


def _messages(model: ScriptedModel, request: Json) -> tuple[Json, Events]:
    tools = [tool["name"] for tool in _objects(request.get("tools"))]
    messages = _objects(request["messages"])
    blocks = [block for message in messages for block in _objects(message["content"])]
    results = [_text(block.get("content")) for block in blocks if block["type"] == "tool_result"]
    call = model.next_call(tools, results)
    if call:
        name, arguments = call
        block: Json = {"type": "tool_use", "id": f"toolu_{len(results)}", "name": name}
        empty: Json = {**block, "input": {}}
        full: Json = {**block, "input": arguments}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    else:
        empty, full = {"type": "text", "text": ""}, {"type": "text", "text": LAST_WORDS}
        delta = {"type": "text_delta", "text": LAST_WORDS}
    stop: Json = {"stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 10, "output_tokens": 5}
    message: Json = {
        "id": f"msg_{len(results)}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return {**message, **stop, "content": [full]}, [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": usage},
        {"type": "message_stop"},
    ]


def _responses(model: ScriptedModel, request: Json) -> tuple[Json, Events]:
    namespaces: dict[str, str] = {}  # Of the tools that the client groups.
    tools: list[str] = []
    for tool in _objects(request.get("tools")):
        inner = _objects(tool.get("tools"))
        namespaces.update({one["name"]: tool["name"] for one in inner})
        tools.extend(one["name"] for one in (inner or [tool]) if "name" in one)
    items = _objects(request["input"])
    results = [
        _text(item["output"]) for item in items if item.get("type") == "function_call_output"
    ]
    if call := model.next_call(tools, results):
        name, arguments = call
        item: Json = {
            "type": "function_call",
            "id": f"fc_{len(results)}",
            "call_id": f"call_{len(results)}",
            "name": name,
            "arguments": json.dumps(arguments),
            "status": "completed",
            **({"namespace": namespaces[name]} if name in namespaces else {}),
        }
    else:
        item = {
            "type": "message",
            "id": "msg",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": LAST_WORDS, "annotations": []}],
        }
    whole: Json = {
        "id": f"resp_{len(results)}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": request.get("model"),
        "output": [item],
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        },
    }
    begun: Json = {**whole, "status": "in_progress", "output": []}
    return whole, [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]


def _chat(model: ScriptedModel, request: Json) -> tuple[Json, Events]:
    tools = [tool["function"]["name"] for tool in _objects(request.get("tools"))]
    messages = _objects(request["messages"])
    results = [_text(one["content"]) for one in messages if one["role"] == "tool"]
    message: Json = {"role": "assistant", "content": LAST_WORDS}
    if call := model.next_call(tools, results):
        name, arguments = call
        function = {"name": name, "arguments": json.dumps(arguments)}
        one = {"index": 0, "id": f"call_{len(results)}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [one]}
    finish = "tool_calls" if call else "stop"
    about: Json = {"id": f"chat_{len(results)}", "created": 1, "model": request.get("model")}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    chunk = {**about, "object": "chat.completion.chunk"}
    whole = {"index": 0, "message": message, "finish_reason": finish}
    return {**about, "object": "chat.completion", "choices": [whole], "usage": usage}, [
        {**chunk, "choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {
            **chunk,
            "choices": [{"index": 0, "delta": {}, "finish_reason": finish}],
            "usage": usage,
        },
        "[DONE]",
    ]


def _text(content: object) -> str:
    """Return the text of a result, which is a text or a list of blocks."""
    if isinstance(content, list):
        return "\n".join(
            block["text"] for block in _objects(cast("object", content)) if "text" in block
        )
    return content if isinstance(content, str) else json.dumps(content)


def _objects(value: object) -> list[Json]:
    """Return the objects of a list; empty if the value is not a list."""
    return cast("list[Json]", value) if isinstance(value, list) else []
