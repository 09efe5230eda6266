"""Writes a chat request as the service's JSON.

    ChatRequest ─ prepare ─▶ Prepared ─ write_payload ─▶ Payload

`prepare` does the work that depends only on the request, once for a call: it repairs the history,
makes tools that can be sent, composes the system prompt, and finds what the service would refuse.
`write_payload` writes the result for one endpoint. Another attempt only repeats this step.

The rules come from the service's published request model, its official clients and probes of it:

* The system prompt goes before the text of the first user turn; it has no member of its own.
* The history ends with an assistant turn, and the current message is the user's.
* Tools are declared only with the current message.
* Absent members are left out; they are never null.
* Origin and model are the same in all turns.

Equal requests give byte-identical payloads, so that the service can use its prompt cache.
"""

import hashlib
import re
import uuid
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Final, Literal, cast

from kiro_mcp.chat import (
    BYTES_PER_TOKEN,
    ChatRequest,
    Effort,
    Finding,
    ImagePart,
    JsonObject,
    JsonValue,
    Message,
    ModelFields,
    ModelInfo,
    Part,
    Repair,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.wire.history import repair_history, trim_oldest
from kiro_mcp.wire.images import (
    IMAGE_FORMATS,
    MAX_IMAGE_BYTES,
    MAX_IMAGES,
    decoded_size,
    is_base64,
    size_warning,
    sniff_format,
)
from kiro_mcp.wire.json_values import clean_text, json_bytes, object_member, object_members
from kiro_mcp.wire.models import nearest_effort, resolve_model
from kiro_mcp.wire.schema import rename_members
from kiro_mcp.wire.tools import DESCRIPTION_MAX_BYTES, SentTools, sendable_tools
from kiro_mcp.wire.typed_answers import typed_instruction

WireForm = Literal["rest", "rpc", "kas", "send_message"]
"""How an endpoint is called. This decides what the body may contain.

`rest`: by path; the agent's mode is a header. `rpc`: by `X-Amz-Target`; the mode is in the body.
`kas`: like `rpc`, at Kiro's own newer service, with ids of sessions and of user turns.
`send_message`: the older operation `SendMessage`, which takes neither mode nor model fields.
"""

THINKING_BUDGET: Final = 4_000
"""Tokens for thinking at medium effort, for models that are asked to think by tags."""

_THINKING_MODE_TAG: Final = "<thinking_mode>"

WRITE_IN_CHUNKS: Final = (
    "When you write or change a file with a tool, put at most 350 lines into one tool use: create"
    " the file with its first part, then append or edit part by part. A longer tool use is cut"
    " off before it is complete, and then nothing of it is written."
)
"""For models that run for minutes in one tool use, longer than the service keeps it open."""

TOKENS_PER_IMAGE: Final = 1_600
"""About how many tokens models count for a large image. Its size in bytes does not matter."""

LEGAL_CONVERSATION_ID: Final = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
"""The id of a conversation is a UUID."""

MAX_DESCRIPTION_BYTES: Final = 10_240
"""The longest description of a tool that the service accepts, according to reports."""

BLANK: Final = " "
"""Replaces an empty text, which the service refuses. Models would imitate a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadOptions:
    """The user's settings, the same for all requests."""

    description_max_bytes: int = DESCRIPTION_MAX_BYTES
    """Where a tool's description is cut; the whole text then goes to the system prompt."""
    thinking_budget: int = THINKING_BUDGET
    max_payload_bytes: int = 0
    """The size over which the oldest turns are left out; 0 for no limit."""
    tells_of_truncation: bool = True
    """Whether the model is told that an earlier answer of its own was cut off."""


DEFAULT_OPTIONS: Final = PayloadOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The members of a payload that depend on the endpoint and the credential."""

    origin: str
    profile_arn: str
    """The profile to bill; "" leaves it out, as API keys must."""
    form: WireForm = "rest"
    agent_mode: str = "vibe"
    sends_model_fields: bool = True
    """Whether effort and max_tokens are sent, if the form takes them."""
    conversation_id: str = ""
    """Replaces the request's own id if that depends on the credential; "" keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A repaired request, the same for every endpoint."""

    model: ModelInfo
    conversation_id: str
    """A UUID, or ""."""
    turns: tuple[Message, ...]
    """User and assistant alternate. The first turn and the last turn are the user's."""
    prompt_count: int
    """How many of the user's turns are prompts rather than results of tools."""
    system: str
    tools: SentTools
    fields: JsonObject
    """The model's own fields."""
    max_payload_bytes: int
    """The limit on the payload; 0 for none."""
    repairs: tuple[Repair, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A request as it goes to one endpoint, and what was changed in it."""

    body: JsonObject
    encoded: bytes = field(repr=False)
    """The body as it goes over the wire."""
    model: ModelInfo
    estimated_tokens: int
    """About how many tokens the prompt has. It is used only for warnings."""
    tools: SentTools
    repairs: tuple[Repair, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    """Why the service would refuse it; () if no reason is known."""


class RequestWriter:
    """Writes the payloads of one call, which may need several attempts.

    The request is prepared once. An attempt at the same endpoint as the last gets the same payload.
    """

    def __init__(self, options: PayloadOptions = DEFAULT_OPTIONS) -> None:
        self._options = options
        self._prepared: tuple[ChatRequest, Prepared] | None = None
        self._written: tuple[Envelope, Payload] | None = None

    def write(self, request: ChatRequest, envelope: Envelope) -> Payload:
        """Return a payload that is ready to be sent.

        Raises:
            InvalidRequest: All messages are empty, or the service would refuse the request.
        """
        if self._prepared is None or self._prepared[0] is not request:
            self._prepared = request, prepare(request, self._options)
            self._written = None
        if self._written is None or self._written[0] != envelope:
            self._written = envelope, write_payload(self._prepared[1], envelope)
        payload = self._written[1]
        if payload.findings:
            raise payload.findings[0].as_error()
        return payload


# --- preparing ----------------------------------------------------------------------------


def prepare(request: ChatRequest, options: PayloadOptions = DEFAULT_OPTIONS) -> Prepared:
    """Repair a request, and say what was repaired.

    Raises:
        InvalidRequest: All messages are empty.
    """
    warnings: tuple[str, ...] = ()
    model = request.model_info
    if model is None:
        choice = resolve_model(request.model)
        request, model, warnings = choice.applied_to(request), choice.model, choice.warnings
    if (system := clean_text(request.system)) is not request.system:
        request = replace(request, system=system)
    asked = model_options(
        model,
        effort=request.effort,
        max_tokens=request.max_tokens,
        thinking_budget=options.thinking_budget,
    )
    repairs: list[Repair] = []
    conversation_id = request.conversation_id
    if conversation_id and not LEGAL_CONVERSATION_ID.fullmatch(conversation_id):
        conversation_id = str(uuid.uuid5(uuid.NAMESPACE_OID, clean_text(conversation_id)))
        detail = "The conversation's id is not a UUID; one was derived from it."
        repairs.append(Repair(rule="conversation_id", detail=detail))
    turns, turn_repairs = repair_history(
        request.messages,
        model,
        system=system,
        allows_tools=request.allows_tools,
        tells_of_truncation=options.tells_of_truncation,
    )
    used = [part.name for turn in turns for part in turn.parts if isinstance(part, ToolUse)]
    specs = request.tools if request.allows_tools else ()
    tools = sendable_tools(specs, used, description_max_bytes=options.description_max_bytes)
    if used:
        turns = _with_sent_names(turns, tools)
    last = (part.text for part in request.messages[-1].parts if isinstance(part, TextPart))
    has_own_tags = any(_THINKING_MODE_TAG in text for text in (system, *last))
    return Prepared(
        model=model,
        conversation_id=conversation_id,
        turns=turns,
        prompt_count=sum(
            turn.role == "user" and not any(isinstance(part, ToolResult) for part in turn.parts)
            for turn in turns
        ),
        system=compose_system(request, tools, tags="" if has_own_tags else asked.tags),
        tools=tools,
        fields=asked.fields,
        max_payload_bytes=options.max_payload_bytes,
        repairs=(*repairs, *turn_repairs, *tools.repairs),
        warnings=(*warnings, *asked.warnings),
        findings=tuple(_find_faults(turns, tools.specs, model)),
    )


def _with_sent_names(turns: Sequence[Message], tools: SentTools) -> tuple[Message, ...]:
    """Give tools and their properties in the history the names under which they are declared."""
    sent = {
        tool: {name: other for other, name in names.items()}
        for tool, names in tools.property_names.items()
    }

    def rename(part: Part) -> Part:
        if not isinstance(part, ToolUse):
            return part
        arguments = rename_members(part.arguments, sent.get(part.name, {}))
        return replace(part, name=tools.names[part.name], arguments=cast("JsonObject", arguments))

    return tuple(replace(turn, parts=tuple(map(rename, turn.parts))) for turn in turns)


def _find_faults(
    turns: Sequence[Message], tools: Sequence[ToolSpec], model: ModelInfo
) -> Iterator[Finding]:
    """Find what the service would refuse and no repair can correct.

    These are images, and descriptions if the user has raised their limit. `write_payload` checks
    the size.
    """
    for spec in tools:
        if len(spec.description.encode()) > MAX_DESCRIPTION_BYTES:
            yield Finding(
                rule="tool_description",
                location=f"tools.{spec.name}.description",
                cause=f"is over {MAX_DESCRIPTION_BYTES} bytes",
                cure="Shorten the description.",
            )
    current = "currentMessage.userInputMessage"
    image_count = 0
    for index, turn in enumerate(turns):
        images = [part for part in turn.parts if isinstance(part, ImagePart)]
        image_count += len(images)
        message = current if turn is turns[-1] else f"history[{index}].userInputMessage"
        for number, image in enumerate(images):
            if cause := _image_fault(image):
                yield Finding(
                    rule="image",
                    location=f"{message}.images[{number}]",
                    cause=cause,
                    cure=f"Send PNG, JPEG, GIF or WebP as base64, at most {MAX_IMAGE_BYTES} bytes.",
                )
    if image_count > MAX_IMAGES:
        yield Finding(
            rule="image_count",
            location=current,
            cause=f"holds {image_count} images, and the service takes {MAX_IMAGES}",
            cure="Send fewer images.",
        )
    if image_count and model.input_types and "IMAGE" not in model.input_types:
        yield Finding(
            rule="images_unseen",
            location=current,
            cause="holds images, and the model reads only text",
            cure="Choose a model that reads images, or send none.",
        )


def _image_fault(image: ImagePart) -> str:
    if image.format not in IMAGE_FORMATS:  # A library's user may write anything there.
        return f"is of the format {image.format!r:.40}"
    size = decoded_size(image.data)
    if size > MAX_IMAGE_BYTES:
        return f"is {size} bytes, over the limit of {MAX_IMAGE_BYTES}"
    if not is_base64(image.data) or sniff_format(b64decode(image.data[:16])) is None:
        return "is not the base64 of an image"
    return ""


# --- effort and length --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a request asks one model for effort and length."""

    fields: JsonObject
    """The model's own fields; {} sends none."""
    tags: str = ""
    """What goes in front of the system prompt."""
    warnings: tuple[str, ...] = ()


_BUDGET_FACTORS: Final[dict[Effort, float]] = {
    "low": 0.5,
    "medium": 1,
    "high": 2,
    "xhigh": 3,
    "max": 4,
}
_LEAST_BUDGET: Final = 1_024
_MOST_BUDGET: Final = 24_576
"""The limits of other clients for thinking by tags."""


def model_options(
    model: ModelInfo, *, effort: Effort, max_tokens: int, thinking_budget: int = THINKING_BUDGET
) -> ModelOptions:
    """Return how to ask a model for an effort and for the length of its answer.

    Newer models have fields of their own. The service checks these strictly against the model's
    published schema, so a value out of range is replaced by the nearest allowed one, with a
    warning. Older models think if tags at the start of the prompt ask for it. Other models cannot
    be asked.

    Args:
        model: What is known about the model.
        effort: How hard the model should think; "" leaves that to the service.
        max_tokens: The longest answer; 0 leaves that to the service.
        thinking_budget: Tokens for thinking at medium effort, for models that are asked by tags.
    """
    own = model.fields or ModelFields()
    fields: JsonObject = {}
    tags = ""
    warnings: list[str] = []
    if model.thinking == "native" and effort == "off":
        # Without a field the service would take the model's default, often `high`.
        least = own.efforts[0] if own.efforts else ""
        if "disabled" in own.thinking_types:
            fields["thinking"] = {"type": "disabled"}
        elif least:
            fields |= _nest(own.effort_path, least)
            if least != "none":
                warnings.append(
                    f"The thinking of {model.id} cannot be turned off;"
                    f" its lowest effort is {least!r}."
                )
        else:
            warnings.append(f"The thinking of {model.id} cannot be turned off.")
    elif model.thinking == "native" and effort:
        level = nearest_effort(effort, own.efforts)
        if level is None and own.efforts:
            warnings.append(f"{model.id} has no effort {effort!r:.80}; it was left out.")
        elif "adaptive" in own.thinking_types:
            has_summary = "summarized" in own.thinking_displays
            display: JsonObject = {"display": "summarized"} if has_summary else {}
            fields["thinking"] = {"type": "adaptive", **display}
        if level is not None:
            fields |= _nest(own.effort_path, level)
            if level.lower() != effort:
                warnings.append(
                    f"{model.id} has no effort {effort!r:.80}; {level!r} was asked for."
                )
    elif effort not in ("", "off"):
        level = nearest_effort(effort, tuple(_BUDGET_FACTORS)) if model.thinking == "tags" else None
        if level is None:
            warnings.append(
                f"{model.id} cannot be asked for the effort {effort!r:.80}; it was left out."
            )
        else:
            budget = round(thinking_budget * _BUDGET_FACTORS[level])
            length = min(max(budget, _LEAST_BUDGET), _MOST_BUDGET)
            tags = (
                f"{_THINKING_MODE_TAG}enabled</thinking_mode>"
                f"<max_thinking_length>{length}</max_thinking_length>"
            )
    if max_tokens > 0 and own.max_tokens is None:
        warnings.append(f"{model.id} takes no max_tokens; it was left out.")
    elif max_tokens > 0 and own.max_tokens is not None:
        shortest, longest = own.max_tokens
        length = max(shortest, max_tokens if longest is None else min(max_tokens, longest))
        fields["max_tokens"] = length
        if length != max_tokens:
            warnings.append(
                f"max_tokens {max_tokens} is not in the range of {model.id};"
                f" {length} was asked for."
            )
    return ModelOptions(fields=fields, tags=tags, warnings=tuple(warnings))


def _nest(path: Sequence[str], value: JsonValue) -> JsonObject:
    """Return `{a: {b: value}}` for the path `(a, b)`."""
    for name in reversed(path[1:]):
        value = {name: value}
    return {path[0]: value} if path else {}


# --- the system prompt --------------------------------------------------------------------


def compose_system(request: ChatRequest, tools: SentTools, *, tags: str = "") -> str:
    """Return the whole system prompt, with the descriptions of tools that are too long to send.

    The order is fixed and nothing changes from turn to turn: the service caches by prefix. `tags`
    ask an older model to think.
    """
    choice = request.tool_choice
    chosen = tools.names.get(choice)
    tool_instruction = f"In your next answer you must use the tool {chosen}." if chosen else ""
    if choice == "required":  # The service has no member for `tool_choice`.
        tool_instruction = "In your next answer you must use at least one of your tools."
    schema = request.output_schema
    pieces = (
        tags,
        request.system,
        WRITE_IN_CHUNKS if request.writes_in_chunks else "",
        *(f"Tool {name}:\n{text}" for name, text in tools.long_descriptions),
        tool_instruction,
        "" if schema is None else clean_text(typed_instruction(schema)),
    )
    return "\n\n".join(piece for piece in pieces if piece.strip())


# --- writing ------------------------------------------------------------------------------


def write_payload(prepared: Prepared, envelope: Envelope) -> Payload:
    """Write a prepared request for one endpoint.

    If it is too large, the oldest turns are left out; if that is not enough, it gets a finding.
    """
    limit = prepared.max_payload_bytes
    body, encoded = _write_body(prepared, envelope)
    repairs: Sequence[Repair] = ()
    if limit and len(encoded) > limit and len(prepared.turns) > 1:
        turns = _write_turns(replace(prepared, system=""), envelope)[:-1]
        sizes = [len(encode_payload(turn)) + 1 for turn in turns]
        kept, repairs = trim_oldest(prepared.turns, sizes, excess_bytes=len(encoded) - limit)
        prepared = replace(prepared, turns=kept)
        body, encoded = _write_body(prepared, envelope)
    findings, warnings = prepared.findings, list(prepared.warnings)
    if limit and len(encoded) > limit:
        too_large = Finding(
            rule="payload_size",
            location="payload",
            cause=f"is {len(encoded)} bytes even without its oldest turns,"
            f" over the limit of {limit}",
            cure="Send less at once, or raise the limit.",
            code="context_too_long",
        )
        findings = (*findings, too_large)
    if prepared.fields and envelope.form == "send_message":
        warnings.append("This endpoint takes neither effort nor max_tokens; they were left out.")
    images = [part for turn in prepared.turns for part in turn.parts if isinstance(part, ImagePart)]
    for number, image in enumerate(images, start=1):
        if warning := size_warning(image.data):
            warnings.append(
                f"Image {number} of {len(images)} {warning}:"
                " the service may refuse it or scale it down."
            )
    text_bytes = len(encoded) - sum(len(image.data) for image in images)
    tokens = max(1, text_bytes // BYTES_PER_TOKEN) + TOKENS_PER_IMAGE * len(images)
    window = prepared.model.context_window
    if window is not None and tokens > window:
        warnings.append(
            f"The prompt is about {tokens} tokens, and {prepared.model.id} reads {window}:"
            " the service may refuse it."
        )
    return Payload(
        body=body,
        encoded=encoded,
        model=prepared.model,
        estimated_tokens=tokens,
        tools=prepared.tools,
        repairs=(*prepared.repairs, *repairs),
        warnings=tuple(warnings),
        findings=findings,
    )


def _write_body(prepared: Prepared, envelope: Envelope) -> tuple[JsonObject, bytes]:
    """Return a body, and the same encoded."""
    *earlier, current = _write_turns(prepared, envelope)
    state: JsonObject = {"chatTriggerType": "MANUAL", "currentMessage": current}
    body: JsonObject = {"conversationState": state}
    if conversation_id := envelope.conversation_id or prepared.conversation_id:
        state["conversationId"] = conversation_id
        if envelope.form == "kas":
            # One id for each prompt. Requests that return results of its tools repeat the id.
            of_prompt = uuid.uuid5(uuid.UUID(conversation_id), str(prepared.prompt_count))
            state["agentContinuationId"] = str(of_prompt)
            state["conversationId"] = body["rootConversationId"] = f"sess_{conversation_id}"
    if earlier:
        state["history"] = list[JsonValue](earlier)
    if envelope.profile_arn:
        body["profileArn"] = envelope.profile_arn
    if envelope.form in ("rpc", "kas"):
        body["agentMode"] = envelope.agent_mode
    if prepared.fields and envelope.form != "send_message" and envelope.sends_model_fields:
        body["additionalModelRequestFields"] = prepared.fields
    if not any(isinstance(part, ImagePart) for turn in prepared.turns for part in turn.parts):
        return body, json_bytes(body)
    are_sound = all(finding.rule != "image" for finding in prepared.findings)
    return body, encode_payload(body, has_sound_images=are_sound)


def _write_turns(prepared: Prepared, envelope: Envelope) -> list[JsonObject]:
    """Write all turns, the system prompt in the first and the tools in the last."""
    turns: list[JsonObject] = []
    for index, turn in enumerate(prepared.turns):
        texts: list[str] = []
        images: list[JsonValue] = []
        uses: list[JsonValue] = []
        results: list[JsonValue] = []
        reasoning: JsonObject = {}
        for part in turn.parts:
            match part:
                case TextPart():
                    texts.append(part.text)
                case ImagePart():
                    images.append({"format": part.format, "source": {"bytes": part.data}})
                case ToolUse():
                    uses.append({"toolUseId": part.id, "name": part.name, "input": part.arguments})
                case ToolResult():
                    results.append(_write_result(part))
                case ThinkingPart(redacted=""):  # The service expects a union, not a flat form.
                    said: JsonObject = {"text": part.text, "signature": part.signature}
                    reasoning = {"reasoningText": said}
                case ThinkingPart():
                    reasoning = {"redactedContent": part.redacted}
        blank = "" if envelope.form == "kas" and (uses or results) else BLANK
        text = "\n".join(text for text in texts if text.strip()) or blank
        if turn.role == "assistant":
            answer: JsonObject = {"content": text}
            if reasoning:
                answer["reasoningContent"] = reasoning
            if uses:
                answer["toolUses"] = uses
            turns.append({"assistantResponseMessage": answer})
            continue
        if index == 0 and prepared.system:
            text = f"{prepared.system}\n\n{text}"
        origin = envelope.origin
        message: JsonObject = {"content": text, "modelId": prepared.model.id, "origin": origin}
        context: JsonObject = {}
        if results:
            context["toolResults"] = results
        if index == len(prepared.turns) - 1 and prepared.tools.specs:
            context["tools"] = [
                {
                    "toolSpecification": {
                        "name": spec.name,
                        "description": spec.description,
                        "inputSchema": {"json": spec.input_schema},
                    }
                }
                for spec in prepared.tools.specs
            ]
        if context:
            message["userInputMessageContext"] = context
        if images:
            message["images"] = images
        turns.append({"userInputMessage": message})
    return turns


def _write_result(result: ToolResult) -> JsonObject:
    content: list[JsonValue] = []
    if result.text or result.data is None:
        content.append({"text": result.text or BLANK})
    if result.data is not None:
        content.append({"json": result.data})
    status = "error" if result.is_error else "success"
    return {"toolUseId": result.id, "status": status, "content": content}


_LARGE_IMAGE_CHARACTERS: Final = 64 * 1024
_STAND_IN: Final = "\0image\0"
"""Replaces a large image until the rest of the JSON is encoded. Sent texts have no NUL."""


def encode_payload(payload: JsonObject, *, has_sound_images: bool = False) -> bytes:
    """Encode a payload as compact UTF-8 JSON.

    Large images are encoded one by one, and the result grows in place: one call for all of them
    would block every other thread of the process. Sound images are known to be base64, which needs
    no escaping.
    """
    taken: list[tuple[JsonObject, str]] = []
    state = object_member(payload, "conversationState")
    current = object_member(state, "currentMessage")
    for turn in (current, *object_members(state, "history"), payload):  # As they are written.
        for image in object_members(object_member(turn, "userInputMessage"), "images"):
            source = object_member(image, "source")
            data = source.get("bytes")
            if isinstance(data, str) and len(data) > _LARGE_IMAGE_CHARACTERS:
                taken.append((source, data))
    if not taken:
        return json_bytes(payload)
    try:
        for source, _ in taken:
            source["bytes"] = _STAND_IN
        first, *others = json_bytes(payload).split(json_bytes(_STAND_IN))
    finally:
        for source, data in taken:
            source["bytes"] = data
    if len(others) != len(taken):  # A text looks like a stand-in.
        return json_bytes(payload)
    encoded = BytesIO()
    encoded.write(first)
    for (_, data), piece in zip(taken, others, strict=True):
        image = (b'"', data.encode(), b'"') if has_sound_images else (json_bytes(data),)
        encoded.writelines((*image, piece))
    return encoded.getvalue()


# --- the id of a whole history ------------------------------------------------------------


def history_head(messages: Iterable[Message], system: str) -> str:
    """Return a digest of the head of a history, from which `cache_id` derives an id.

    The service caches a GPT model's prompt by `conversationId`; Claude's is cached by content. A
    caller that sends a whole history with each call has no id of ours, so the id comes from what
    stays the same while the history grows: the system prompt and all that the user says before the
    first answer. Histories with the same head share an id, which costs nothing. Tools, model and
    effort may change from call to call and are not part of it.
    """
    texts = [system]
    has_user = False
    for message in messages:
        if message.role == "assistant" and has_user:
            break
        has_user = has_user or message.role == "user"
        for part in message.parts:
            if isinstance(part, TextPart | ToolResult):
                texts.append(part.text)
            elif isinstance(part, ImagePart):
                texts.append(part.data)
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))  # So that no two lists look the same.
        digest.update(encoded)
    return digest.hexdigest()


def cache_id(head: str, owner: str) -> str:
    """Return the UUID of a history for one credential: no two people ever share an id."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{len(owner)} {owner} {head}"))


# --- the dry run --------------------------------------------------------------------------

_SHOWN: Final = frozenset(
    """
    agentMode chatTriggerType command conversationId cwd display effort format method mimeType
    modelId name origin status toolUseId type
    """.split()  # noqa: SIM905 - a list of names is easier to read without quotes
)
"""Members whose texts are structure, not content."""

_ALL_CONTENT: Final = frozenset({"input", "json"})
"""Members that hold a caller's own JSON, in which a name may mean anything."""


def without_content(body: JsonObject) -> JsonObject:
    """Return a payload with its texts replaced by their lengths; its structure stays."""
    return {name: _without_texts(name, member, shows=_SHOWN) for name, member in body.items()}


def _without_texts(name: str, value: JsonValue, shows: frozenset[str]) -> JsonValue:
    if name in _ALL_CONTENT:
        shows = frozenset()
    if isinstance(value, dict):
        return {inner: _without_texts(inner, member, shows) for inner, member in value.items()}
    if isinstance(value, list):
        return [_without_texts(name, item, shows) for item in value]
    return f"<{len(value)} characters>" if isinstance(value, str) and name not in shows else value
