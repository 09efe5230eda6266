"""What is asked -> the service's JSON, for the endpoint that it goes to.

Rules, as the service's official clients keep them and as probes of the service confirm:
the system prompt has no member of its own and goes before the first user turn's text; the
history ends with an assistant turn and the current message is the user's; tools are declared
with the current message only; absent members are left out, never null; origin and model are
the same throughout. Equal requests give byte-identical payloads, so that the service's prompt
cache holds. Source of truth: the service's published request model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from kiro_mcp.chat import (
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonValue,
    Message,
    ModelInfo,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.wire.findings import Finding, Repair
from kiro_mcp.wire.history import trim_oldest
from kiro_mcp.wire.images import is_base64, size_warning
from kiro_mcp.wire.json_values import json_text, object_member
from kiro_mcp.wire.lint import lint_payload
from kiro_mcp.wire.lint_view import read_payload, text_of
from kiro_mcp.wire.prepare import DEFAULT_OPTIONS, PayloadOptions, Prepared, prepare
from kiro_mcp.wire.prompt_size import estimate_tokens, window_warnings

WireForm = Literal["rest", "rpc", "send_message"]
"""How an endpoint is addressed, which decides what the body may carry.

`rest`: by path; the agent's mode is a header. `rpc`: by `X-Amz-Target`; the mode is in the body.
`send_message`: the older operation `SendMessage`, which takes neither mode nor model fields.
"""

_LARGE_IMAGE_CHARACTERS: Final = 64 * 1024
_STAND_IN: Final = re.compile(r"\\u0000image ([0-9]{1,4})\\u0000")
"""What stands for a large image in JSON until the rest of it is encoded."""

BLANK: Final = " "
"""Stands where there is no text: the service refuses none, and models imitate words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a payload says about where it goes."""

    origin: str
    profile_arn: str
    """The profile to bill; "" leaves it out, as API keys must."""
    form: WireForm = "rest"
    agent_mode: str = "vibe"
    sends_model_fields: bool = True
    """Whether effort and max_tokens go along, where the form has room for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A request as it goes to an endpoint, and what was made of it on the way."""

    body: JsonObject
    encoded: bytes = field(repr=False)
    """The body as it goes over the wire."""
    model: ModelInfo
    tool_names: Mapping[str, str]
    """The caller's name of each tool, by the name that is sent."""
    property_names: Mapping[str, Mapping[str, str]]
    """The same for the renamed properties of tools, by the caller's name of the tool."""
    repairs: tuple[Repair, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    """Why the service would refuse it; () if nothing speaks against it."""

    @property
    def size_bytes(self) -> int:
        """How large it is as it goes over the wire."""
        return len(self.encoded)


def make_payload(
    request: ChatRequest, envelope: Envelope, options: PayloadOptions = DEFAULT_OPTIONS
) -> Payload:
    """Build a payload that is ready to be sent.

    Raises:
        InvalidRequest: No message says anything, or the service would refuse the request.
    """
    payload = draft_payload(request, envelope, options)
    if payload.findings:
        raise payload.findings[0].as_error()
    return payload


def draft_payload(
    request: ChatRequest, envelope: Envelope, options: PayloadOptions = DEFAULT_OPTIONS
) -> Payload:
    """Build a payload, be it one that the service refuses: its findings say why.

    Raises:
        InvalidRequest: No message says anything.
    """
    prepared = prepare(request, options)
    body, repairs = _fitted_body(prepared, envelope, options.max_payload_bytes)
    encoded = encode_payload(body)
    return Payload(
        body=body,
        encoded=encoded,
        model=prepared.model,
        tool_names=prepared.tool_names,
        property_names=prepared.property_names,
        repairs=(*prepared.repairs, *repairs),
        warnings=(
            *prepared.warnings,
            *_unsaid(prepared, envelope),
            *_image_warnings(prepared.turns),
            *window_warnings(prepared.model, estimate_tokens(body, len(encoded))),
        ),
        findings=lint_payload(body, model=prepared.model, max_bytes=options.max_payload_bytes),
    )


def _unsaid(prepared: Prepared, envelope: Envelope) -> Sequence[str]:
    if not prepared.fields or envelope.form != "send_message":
        return ()
    return ("This endpoint takes neither effort nor max_tokens; they were left out.",)


def _image_warnings(turns: Sequence[Message]) -> Sequence[str]:
    images = [part for turn in turns for part in turn.parts if isinstance(part, ImagePart)]
    return [
        f"Image {number} of {len(images)} {warning}: the service may refuse it or scale it down."
        for number, image in enumerate(images, start=1)
        if (warning := size_warning(image.data))
    ]


def encode_payload(payload: JsonObject) -> bytes:
    """Encode a payload as compact UTF-8 JSON.

    Large images are put in as they are: to look in base64 for what JSON escapes takes longer than
    all else together.
    """
    images = [image for turn in read_payload(payload, None).turns for image in turn.images]
    taken: list[tuple[JsonObject, str]] = []
    for source in (object_member(image, "source") for image in images):
        data = text_of(source, "bytes")
        if len(data) > _LARGE_IMAGE_CHARACTERS and is_base64(data):
            taken.append((source, data))
    try:
        for number, (source, _) in enumerate(taken):
            source["bytes"] = f"\0image {number}\0"
        pieces = _STAND_IN.split(json_text(payload))
    finally:
        for source, data in taken:
            source["bytes"] = data
    if len(pieces) != 2 * len(taken) + 1:  # A text looks like a stand-in.
        return json_text(payload).encode()
    pieces[1::2] = [taken[int(number)][1] for number in pieces[1::2]]
    return b"".join(piece.encode() for piece in pieces)


def _fitted_body(
    prepared: Prepared, envelope: Envelope, max_bytes: int
) -> tuple[JsonObject, Sequence[Repair]]:
    """Build the body, without the oldest turns where all of them are too many bytes."""
    body = _body(prepared, envelope)
    excess = len(encode_payload(body)) - max_bytes if max_bytes else 0
    if excess <= 0 or len(prepared.turns) == 1:
        return body, ()
    wire_turns = _wire_turns(replace(prepared, system=""), envelope.origin)
    sizes = [len(encode_payload(turn)) + 1 for turn in wire_turns[:-1]]
    turns, repairs = trim_oldest(prepared.turns, sizes, excess_bytes=excess)
    return _body(replace(prepared, turns=tuple(turns)), envelope), repairs


def _body(prepared: Prepared, envelope: Envelope) -> JsonObject:
    body: JsonObject = {"conversationState": _conversation_state(prepared, envelope.origin)}
    if envelope.profile_arn:
        body["profileArn"] = envelope.profile_arn
    if envelope.form == "rpc":
        body["agentMode"] = envelope.agent_mode
    has_room = envelope.form != "send_message"
    if prepared.fields and has_room and envelope.sends_model_fields:
        body["additionalModelRequestFields"] = prepared.fields
    return body


def _conversation_state(prepared: Prepared, origin: str) -> JsonObject:
    *history, current = _wire_turns(prepared, origin)
    state: JsonObject = {"chatTriggerType": "MANUAL", "currentMessage": current}
    if prepared.conversation_id:
        state["conversationId"] = prepared.conversation_id
    if history:
        state["history"] = list[JsonValue](history)
    return state


def _wire_turns(prepared: Prepared, origin: str) -> list[JsonObject]:
    """Write all turns, the system prompt in the first and the tools in the last."""
    last = len(prepared.turns) - 1
    return [
        _assistant_turn(turn)
        if turn.role == "assistant"
        else _user_turn(
            turn,
            model_id=prepared.model.id,
            origin=origin,
            system=prepared.system if index == 0 else "",
            tools=prepared.tools if index == last else (),
        )
        for index, turn in enumerate(prepared.turns)
    ]


def _user_turn(
    turn: Message, *, model_id: str, origin: str, system: str, tools: Sequence[ToolSpec]
) -> JsonObject:
    text = _text(turn)
    message: JsonObject = {
        "content": f"{system}\n\n{text}" if system else text,
        "modelId": model_id,
        "origin": origin,
    }
    context: JsonObject = {}
    if results := [_tool_result(part) for part in turn.parts if isinstance(part, ToolResult)]:
        context["toolResults"] = list[JsonValue](results)
    if tools:
        context["tools"] = [_tool(spec) for spec in tools]
    if context:
        message["userInputMessageContext"] = context
    if images := [_image(part) for part in turn.parts if isinstance(part, ImagePart)]:
        message["images"] = list[JsonValue](images)
    return {"userInputMessage": message}


def _assistant_turn(turn: Message) -> JsonObject:
    message: JsonObject = {"content": _text(turn)}
    if uses := [_tool_use(part) for part in turn.parts if isinstance(part, ToolUse)]:
        message["toolUses"] = list[JsonValue](uses)
    for part in turn.parts:
        if isinstance(part, ThinkingPart):
            message["reasoningContent"] = _reasoning(part)
    return {"assistantResponseMessage": message}


def _text(turn: Message) -> str:
    texts = (part.text for part in turn.parts if isinstance(part, TextPart))
    return "\n".join(text for text in texts if text.strip()) or BLANK


def _tool_use(use: ToolUse) -> JsonObject:
    return {"toolUseId": use.id, "name": use.name, "input": use.arguments}


def _tool_result(result: ToolResult) -> JsonObject:
    content: list[JsonValue] = []
    if result.text or result.data is None:
        content.append({"text": result.text or BLANK})
    if result.data is not None:
        content.append({"json": result.data})
    status = "error" if result.is_error else "success"
    return {"toolUseId": result.id, "status": status, "content": content}


def _reasoning(part: ThinkingPart) -> JsonObject:
    """Write reasoning that is to go back: a union, whose flat form the service refuses."""
    if part.redacted:
        return {"redactedContent": part.redacted}
    return {"reasoningText": {"text": part.text, "signature": part.signature}}


def _image(image: ImagePart) -> JsonObject:
    return {"format": image.format, "source": {"bytes": image.data}}


def _tool(spec: ToolSpec) -> JsonObject:
    specification: JsonObject = {
        "name": spec.name,
        "description": spec.description,
        "inputSchema": {"json": spec.input_schema},
    }
    return {"toolSpecification": specification}
