"""Reads chats of any shape into a system prompt and `Message`s.

A caller's `messages` and `tool_results` may have the shapes of Anthropic, OpenAI (Chat Completions,
Responses) and MCP, also mixed in one list. `kiro_mcp.wire.history` makes a conversation from the
messages.

Nothing is dropped silently. A reader gets each object as `Members`, which remember the members that
were used. Then there are three cases:

* All members were used, except for metadata such as ids.
* Only some were used: a repair note names the others.
* None was used: the whole object is sent as JSON, and a repair note says so.

An unknown role and media that the service refuses are an error that names their location. In a
tool's result such media are left out and the model is told, because the caller cannot change what
its tools returned.

Sources of truth: Anthropic's Messages API, OpenAI's Chat Completions and Responses APIs, and the
content types of the Model Context Protocol (2026-07-28).
"""

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from pydantic_core import from_json

from kiro_mcp.chat import (
    ImagePart,
    JsonObject,
    JsonValue,
    Message,
    Part,
    Repair,
    Role,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
    ToolUseState,
)
from kiro_mcp.errors import InvalidRequest, quoted
from kiro_mcp.wire.arguments import parse_arguments
from kiro_mcp.wire.history import result_text
from kiro_mcp.wire.images import image_from_base64, image_from_url
from kiro_mcp.wire.json_values import clean_text, json_text, plain_json, word_member

# --- content ------------------------------------------------------------------------------

MAX_NOTES: Final = 50
"""Repair notes of one kind for one call; further ones are counted."""
MAX_KEY_CHARACTERS: Final = 80
"""How many characters of a member's name a note shows."""

CUSTOM_INPUT: Final = "input"
"""The only property of a custom tool, whose input is text instead of JSON arguments."""

_METADATA: Final = frozenset(
    {
        *("_meta", "cache_control", "created", "created_at", "index", "object", "phase"),
        *("status", "timestamp", "type"),
        *("call_id", "id", "response_id", "toolCallId", "toolUseId", "tool_call_id", "tool_use_id"),
        *("detail", "format", "mediaType", "media_type", "mimeType", "mime_type"),
        *("answer_id", "conversation_id", "finish_reason", "model", "model_requested", "role"),
        *("stop_reason", "stop_sequence", "truncated", "turn", "usage"),
    }
)
"""Members without meaning for the model. They are left out without a note."""

_CALL_ID_KEYS: Final = ("call_id", "toolUseId", "tool_call_id", "toolCallId", "id")
_TOOL_NAME_KEYS: Final = ("name", "tool_name", "toolName")
_ANSWER_KEYS: Final = ("content", "output", "outputs", "results", "result", "response")
_STRUCTURED_KEYS: Final = ("structuredContent", "structured_content")
_ERROR_FLAGS: Final = ("is_error", "isError")
_TRUE: Final = ("true", "yes", "1")
_FALSE: Final = ("false", "no", "0", "null", "")
_CALL_RESULT_KEYS: Final = frozenset(
    {"content", *_STRUCTURED_KEYS, *_ERROR_FLAGS, "_meta", "resultType"}
)
_NAME_KEYS: Final = ("title", "filename", "name", "uri", "source", "url")

_RESULT_BLOCKS: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(("text", "input_text", "output_text"), ("text",)),
    **dict.fromkeys(("image_url", "input_image", "computer_screenshot"), ("image_url",)),
    **dict.fromkeys(("search_result", "web_fetch_result"), ("content",)),
    "image": ("source", "data"),
    "audio": ("data",),
    "document": ("source",),
    "file": ("file",),
    "resource": ("resource",),
    "resource_link": ("uri",),
}
"""The blocks that a tool may return, each with members of which a real block has at least one."""


class Members:
    """An object that remembers which of its members a reader has used."""

    __slots__ = ("_inner", "_used", "location", "values")

    def __init__(self, values: JsonObject, location: str) -> None:
        self.values = values
        self.location = location
        self._used = set[str]()
        self._inner: list[Members] = []

    def text(self, *keys: str) -> str:
        """Use the first of these members that is a non-empty text; return "" if there is none."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, str) and value:
                self._used.add(key)
                return value
        return ""

    def value(self, *keys: str) -> JsonValue:
        """Use the first of these members that is not null."""
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                self._used.add(key)
                return value
        return None

    def inner(self, key: str) -> "Members | None":
        """Use an object member, whose own members are used one by one; None for others."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            return None
        self._used.add(key)
        inner = Members(value, f"{self.location}.{key}")
        self._inner.append(inner)
        return inner

    def unused(self) -> Iterator[tuple[str, str]]:
        """Yield the location and the key of each meaningful member that was not used."""
        for key in self._rest():
            shown = key if len(key) <= MAX_KEY_CHARACTERS else f"{key[:MAX_KEY_CHARACTERS]}…"
            yield f"{self.location}.{shown}", shown
        for inner in self._inner:
            yield from inner.unused()

    def take_rest(self, *but: str) -> JsonObject:
        """Use all remaining meaningful members, except for `but`."""
        rest = {key: value for key, value in self._rest().items() if key not in but}
        self._used.update(rest)
        return rest

    def _rest(self) -> JsonObject:
        return {
            key: value
            for key, value in self.values.items()
            if key not in self._used and key not in _METADATA and _says_something(value)
        }


def _says_something(value: JsonValue) -> bool:
    """Whether a value contains anything except nulls, blank texts and `false`."""
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    if isinstance(value, list):
        return any(map(_says_something, value))
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return value is not None and value is not False


_Reader: TypeAlias = "Callable[[ContentReader, Members], list[Part] | None]"
"""Reads an object. None means that it is of another kind than its `type` says."""


class ContentReader:
    """Reads content of any form. Collects in `repairs` what a caller should know."""

    def __init__(self) -> None:
        self._notes: dict[str, list[str]] = {}
        self._left_out: dict[str, tuple[str, int]] = {}
        self._is_in_result = False

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What was left out or read differently than its `type` says."""
        notes: list[tuple[str, str]] = []
        for rule, details in self._notes.items():
            notes += [(rule, detail) for detail in details[:MAX_NOTES]]
            if further := len(details[MAX_NOTES:]):
                notes.append((rule, f"The same applies to {further} more."))
        named = list(self._left_out.items())
        for key, (location, count) in named[:MAX_NOTES]:
            others = f" and {count - 1} more {quoted(key)}" if count > 1 else ""
            detail = f"{location}{others} left out: the service has no such member."
            notes.append(("left_out", detail))
        if further := len(named[MAX_NOTES:]):
            notes.append(("left_out", f"Members of {further} more names were left out."))
        return tuple(Repair(rule=rule, detail=detail) for rule, detail in notes)

    def note(self, rule: str, detail: str) -> None:
        """Add a repair note."""
        self._notes.setdefault(rule, []).append(detail)

    def note_unused(self, members: Members) -> None:
        """Add a repair note for each member that was not used."""
        for location, key in members.unused():
            first, count = self._left_out.get(key, (location, 0))
            self._left_out[key] = first, count + 1

    def parts(self, content: JsonValue, location: str) -> list[Part]:
        """Return the parts of a message's content: text, a block, or a list of both.

        Raises:
            InvalidRequest: It contains media that the service refuses.
        """
        if isinstance(content, list):
            return [
                part
                for index, item in enumerate(content)
                for part in self.parts(item, f"{location}[{index}]")
            ]
        if isinstance(content, dict):
            return self._read(content, location, _reader_of(content))
        if content is None or content == "":
            return []
        return [TextPart(text=content if isinstance(content, str) else json_text(content))]

    def tool_call(self, call: JsonValue, location: str) -> list[Part]:
        """Read one item of an assistant's list of tool calls."""
        if isinstance(call, dict):
            return self._read(call, location, _read_tool_use)
        return self.parts(call, location)

    def tool_result(self, given: JsonObject, location: str) -> ToolResult:
        """Read the result of a tool, in any of the three forms."""
        block = Members(given, location)
        result_id, name = block.text("tool_use_id", *_CALL_ID_KEYS), block.text(*_TOOL_NAME_KEYS)
        was_in_result, self._is_in_result = self._is_in_result, True
        parts, values, is_error = self._answer(block)
        self._is_in_result = was_in_result
        data = next((value for value in values if isinstance(value, dict)), None)
        further = [TextPart(text=json_text(value)) for value in values if value is not data]
        text, images = _text_and_images([*parts, *further])
        return ToolResult(
            id=result_id,
            name=name,
            text=text,
            is_error=is_error,
            data=data,
            images=tuple(images),
        )

    def _answer(self, block: Members) -> tuple[list[Part], list[JsonValue], bool]:
        """Return a result's parts, its data, and whether it is an error.

        The content may be a whole MCP `CallToolResult`. Its content is then read instead.
        """
        is_error = _is_error(block)
        content = block.value(*_ANSWER_KEYS)
        location = f"{block.location}.content"
        structured = block.value(*_STRUCTURED_KEYS)
        failure = block.value("error")
        is_error = is_error or bool(failure)
        if isinstance(failure, bool) or not failure:
            failure = None
        is_silent = content is None and structured is None and failure is None
        if is_silent and (rest := block.take_rest()):
            self.note("unknown_content", f"{block.location} has no content; it is sent as JSON.")
            return [TextPart(text=json_text(rest))], [], is_error
        parts: list[Part] = []
        values: list[JsonValue] = []
        if isinstance(content, dict) and _is_call_result(content):
            parts, values, is_inner_error = self._answer(Members(content, location))
            is_error = is_error or is_inner_error
        elif isinstance(content, dict) and not _is_block(content):
            values = [content]
            is_error = is_error or str(content.get("type", "")).endswith("_error")
        elif _is_plain_data(content):
            parts = [TextPart(text=json_text(content))]
        else:
            parts = self.parts(content, location)
        is_more = _says_something(structured) or not (parts or values)
        is_known = structured in values or _repeats(parts, structured)
        if structured is not None and is_more and not is_known:
            values.append(structured)
        if isinstance(failure, str):
            parts.append(TextPart(text=failure))
        elif failure is not None:
            values.append(failure)
        self.note_unused(block)
        return parts, values, is_error

    def _read(self, given: JsonObject, location: str, read: _Reader) -> list[Part]:
        block = Members(given, location)
        try:
            parts = read(self, block)
        except InvalidRequest as error:
            if not self._is_in_result:
                raise
            self.note("media_left_out", error.message)
            return [TextPart(text=f"(Left out: {error.message})")]
        is_empty = not any(map(_part_says_something, parts or ()))
        if parts is None or (is_empty and any(block.unused())):
            if not given:
                return []
            detail = f"{location} is not a known kind of content; it is sent as JSON."
            self.note("unknown_content", detail)
            return [TextPart(text=json_text(given))]
        self.note_unused(block)
        return parts

    def arguments(self, given: JsonValue, what: str) -> tuple[JsonObject, ToolUseState]:
        """Read the arguments of a tool call: an object, or its JSON as text."""
        if isinstance(given, dict):
            return given, "complete"
        if not isinstance(given, str):
            if given is not None:
                self.note("malformed_input", f"{what} are not a JSON object.")
            return ({} if given is None else {"value": given}), "complete"
        parsed = parse_arguments([given])
        if parsed.value is None:
            self.note("malformed_input", f"{what} are not a JSON object and were left out.")
        elif parsed.is_repaired:
            self.note("malformed_input", f"{what} are not valid JSON and were repaired.")
        return parsed.value or {}, parsed.state


def _kind_of(block: JsonObject) -> str:
    """Return the `type` of a block, in lower case with underscores; "" if it has none."""
    kind = block.get("type")
    return kind.lower().replace("-", "_") if isinstance(kind, str) else ""


def _is_assistants(kind: str) -> bool:
    """Whether a block of this kind, outside a message, belongs to the assistant."""
    return kind in _ASSISTANTS_KINDS or kind.endswith(("_call", "_tool_use"))


def _is_result_kind(kind: str) -> bool:
    return kind == "tool_result" or kind.endswith(("_tool_result", "_call_output"))


def _is_block(item: JsonValue) -> bool:
    """Whether it is a content block, rather than data that happens to have a `type`."""
    if not isinstance(item, dict):
        return False
    needed = _RESULT_BLOCKS.get(_kind_of(item), ())
    return any(key in item for key in needed) or item.keys() == {"text"}


def _is_plain_data(content: JsonValue) -> bool:
    """Whether content is data, such as a list of file names, rather than text or blocks."""
    if content is None:
        return False
    items = content if isinstance(content, list) else [content]
    return bool(items) and not any(isinstance(item, str) or _is_block(item) for item in items)


def _is_call_result(value: JsonObject) -> bool:
    """Whether a tool's result is a whole MCP `CallToolResult`."""
    if not value.keys() <= _CALL_RESULT_KEYS:
        return False
    content = value.get("content")
    if any(flag in value for flag in _ERROR_FLAGS):
        return "content" in value or any(key in value for key in _STRUCTURED_KEYS)
    return isinstance(content, list) and bool(content) and all(map(_is_block, content))


def _is_error(block: Members) -> bool:
    """Whether a flag, which may be text, or the status marks a result as an error."""
    is_error = block.values.get("status") in ("error", "failed", "failure")
    for key in _ERROR_FLAGS:
        flag = block.values.get(key)
        word = flag.strip().lower() if isinstance(flag, str) else json_text(flag)
        if word in (*_TRUE, *_FALSE):
            block.value(key)
            is_error = is_error or word in _TRUE
    return is_error


def _repeats(parts: Sequence[Part], structured: JsonValue) -> bool:
    """Whether structured content only repeats the text beside it, as MCP advises.

    Servers wrap values that are not objects as `{"result": …}`.
    """
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if not texts:
        return False
    values: list[JsonValue] = []
    for text in texts:
        try:
            values.append(from_json(text))
        except ValueError:
            values.append(text)
    said = [values, *texts, *values] if len(texts) == 1 else [values]
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        return structured in said or structured["result"] in said
    return structured in said


def _part_says_something(part: Part) -> bool:
    if isinstance(part, TextPart):
        return _says_something(part.text)
    is_thinking = isinstance(part, ThinkingPart)
    return not is_thinking or bool(part.text or part.signature or part.redacted)


def _text_and_images(parts: Sequence[Part]) -> tuple[str, list[ImagePart]]:
    """Return the content of parts as one text, and their images."""
    texts: list[str] = []
    images: list[ImagePart] = []
    for part in parts:
        if isinstance(part, ImagePart):
            images.append(part)
        elif isinstance(part, ToolUse):
            texts.append(f"{part.name} {json_text(part.arguments)}")
        elif isinstance(part, ToolResult):
            texts.append(result_text(part))
            images += part.images
        else:
            texts.append(part.text)
    return "\n".join(filter(None, texts)), images


# --- one reader for each kind of block ----------------------------------------------------


def _read_text(reader: ContentReader, block: Members) -> list[Part]:
    """Read a text: plain, in an object such as `{value, annotations}`, or a list of texts."""
    for key in ("text", "refusal", "content", "value"):
        value = block.values.get(key)
        parts: list[Part] = []
        if isinstance(value, list):
            parts = reader.parts(block.value(key), f"{block.location}.{key}")
        elif inner := block.inner(key):
            parts = [TextPart(text=inner.text("value", "text", "content"))]
        elif isinstance(value, str):
            parts = [TextPart(text=block.text(key))]
        if any(map(_part_says_something, parts)):
            return parts
    return []


def _read_thinking(reader: ContentReader, block: Members) -> list[Part]:
    """Read reasoning: Anthropic's blocks, or an item of OpenAI's Responses.

    OpenAI's encrypted reasoning is dropped: the service cannot read it.
    """
    texts = [block.text("thinking", "text", "reasoning")]
    for key in ("content", "summary"):
        parts = reader.parts(block.value(key), f"{block.location}.{key}")
        texts.append(_text_and_images(parts)[0])
    block.value("encrypted_content")
    return [
        ThinkingPart(
            text="\n\n".join(filter(None, texts)),
            signature=block.text("signature"),
            redacted=block.text("data", "redacted"),
        )
    ]


def _read_image(reader: ContentReader, block: Members) -> list[Part]:
    """Read an image: Anthropic's `source`, OpenAI's `image_url`, MCP's `data`."""
    for key in ("source", "image_url", "data", "image", "base64", "url", "result"):
        inner = block.inner(key)
        source = inner.text("data", "url", "base64", "bytes") if inner else block.text(key)
        if source:
            read = image_from_url if ":" in source[:16] else image_from_base64
            return [read(source, location=block.location)]
    raise InvalidRequest(
        f"{block.location} holds no image (image_source).",
        next_step="Send the image's bytes as base64, or as a data URL.",
    )


def _read_document(reader: ContentReader, block: Members) -> list[Part]:
    """Read a document: Anthropic's `source`, OpenAI's `file`, MCP's `resource`; a search result."""
    source = block.inner("source") or block.inner("file") or block.inner("resource") or block
    name = _joined([members.text(key) for members in (block, source) for key in _NAME_KEYS])
    if "content" in source.values:
        parts = reader.parts(source.value("content"), f"{block.location}.content")
        text, images = _text_and_images(parts)
        return [document_text(name, text), *images]
    if isinstance(source.values.get("text"), str):
        return [document_text(name, source.text("text"))]
    encoded = source.text("blob", "file_data", "data")
    if source.text("media_type", "mimeType", "mime_type", "mediaType").startswith("image/"):
        return [image_from_base64(encoded, location=block.location)]
    if encoded.startswith("data:image/"):
        return [image_from_url(encoded, location=block.location)]
    is_text = source.values.get("type") == "text"
    return [document_text(name, encoded if is_text else _decoded_text(encoded, block.location))]


def _read_web_fetch(reader: ContentReader, block: Members) -> list[Part]:
    """Read a page from Anthropic's web fetch tool: its URL and a document."""
    parts = reader.parts(block.value("content"), f"{block.location}.content")
    return [TextPart(text=block.text("url")), *parts]


def _read_resource_link(reader: ContentReader, block: Members) -> list[Part]:
    words = [block.text(key) for key in ("title", "name", "uri", "description")]
    return [TextPart(text=_joined(words))]


def _joined(words: Sequence[str]) -> str:
    return " ".join(dict.fromkeys(filter(None, words)))


def _read_tool_use(reader: ContentReader, block: Members) -> list[Part] | None:
    """Read a tool call; None if it does not name its tool.

    The text for an OpenAI custom tool becomes the tool's only argument. Calls of OpenAI's own tools
    have no name except their kind, such as `web_search_call`, and some contain their result, too.
    """
    kind = _kind_of(block.values)
    custom = block.inner("custom")
    function = block.inner("function") or custom or block
    name = function.text(*_TOOL_NAME_KEYS)
    given: JsonValue = function.value("input", "arguments", "args", "parameters")
    if not name and kind.endswith("_call") and kind not in _READERS:
        name = kind.removesuffix("_call")
        if given is None:
            given = block.value("action", "operation")  # Of OpenAI's own tools.
        if given is None:
            given = block.take_rest(*_ANSWER_KEYS, "error")
    if not name:
        return None
    if isinstance(given, str) and (custom is not None or kind == "custom_tool_call"):
        given = {CUSTOM_INPUT: given}
    call_id = block.text(*_CALL_ID_KEYS)
    arguments, state = reader.arguments(
        given, f"{block.location}: the arguments for {quoted(name)}"
    )
    if block.values.get("state") == "truncated":
        state = "truncated"
    parts: list[Part] = [ToolUse(id=call_id, name=name, arguments=arguments, state=state)]
    if kind.endswith("_call"):
        answer = {key: block.value(key) for key in (*_ANSWER_KEYS, "error")}
        if any(value is not None for value in answer.values()):
            result: JsonObject = {"id": call_id, "name": name, **answer}
            parts.append(reader.tool_result(result, block.location))
    return parts


def _read_tool_result(reader: ContentReader, block: Members) -> list[Part]:
    result = reader.tool_result(block.values, block.location)
    block.take_rest()  # `tool_result` has added notes about them.
    return [result]


def _read_unknown(reader: ContentReader, block: Members) -> list[Part] | None:
    """Read a block of an unknown kind: as text if it has nothing else."""
    text = block.text("text")
    return [TextPart(text=text)] if text and not any(block.unused()) else None


def _refuse_media(reader: ContentReader, block: Members) -> list[Part]:
    raise InvalidRequest(
        f"{block.location} is {block.values['type']}, which the service does not accept"
        " (media_kind).",
        next_step="Send text or images. Transcribe audio and video first.",
    )


_ASSISTANTS_KINDS: Final = frozenset(
    {"function", "output_text", "reasoning", "redacted_thinking", "refusal", "thinking", "tool_use"}
)

_READERS: Final[Mapping[str, _Reader]] = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal"), _read_text),
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning"), _read_thinking),
    **dict.fromkeys(("image", "image_url", "input_image", "computer_screenshot"), _read_image),
    "image_generation_call": _read_image,
    **dict.fromkeys(("document", "file", "input_file", "resource"), _read_document),
    "search_result": _read_document,
    **dict.fromkeys(("tool_use", "function", "function_call", "tool_call"), _read_tool_use),
    "custom_tool_call": _read_tool_use,
    **dict.fromkeys(("audio", "input_audio", "audio_url"), _refuse_media),
    **dict.fromkeys(("video", "input_video", "video_url"), _refuse_media),
    "web_fetch_result": _read_web_fetch,
    "resource_link": _read_resource_link,
}


def _reader_of(block: JsonObject) -> _Reader:
    kind = _kind_of(block)
    if kind in _READERS:
        return _READERS[kind]
    if _is_result_kind(kind):
        return _read_tool_result
    return _read_tool_use if kind.endswith(("_tool_use", "_call")) else _read_unknown


# --- documents ----------------------------------------------------------------------------
# A document is sent as text between tags with its name, which all models understand. The service
# also has a member for documents, but no official client was seen to use it. Documents without
# text, such as a PDF, are refused.


def document_text(name: str, text: str) -> TextPart:
    """Put a document's text between tags, so that the model can tell it from the prompt."""
    label = name.replace('"', "'").replace("\n", " ")
    opening = f'<document name="{label}">' if label else "<document>"
    return TextPart(text=f"{opening}\n{text}\n</document>")


def _decoded_text(encoded: str, location: str) -> str:
    """Return the text in base64 or in a data URL.

    Raises:
        InvalidRequest: It is not base64, or not text.
    """
    header, _, body = encoded.partition(",") if encoded.startswith("data:") else ("", "", "")
    try:
        if header and not header.lower().endswith(";base64"):
            data = unquote_to_bytes(body)
        else:
            data = b64decode("".join((body if header else encoded).split()), validate=True)
        if data and not data.startswith(b"%PDF"):
            return clean_text(data.decode("utf-8-sig"))
    except ValueError:  # Also binascii.Error and UnicodeDecodeError.
        pass
    raise InvalidRequest(
        f"{location} is a document without readable text (document_text).",
        next_step="Extract its text (UTF-8) and send that, or its pages as images.",
    )


# --- messages -----------------------------------------------------------------------------

_Speaker: TypeAlias = Literal["user", "assistant", "system", "tool"]

_SPEAKERS: Final[dict[str, _Speaker]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}

_CONTENT_KEYS: Final = ("content", "parts", "text", "message")

_CUT_OFF: Final = frozenset({"max_tokens", "length", "truncated"})
"""Stop reasons of an answer that was not complete."""

_VOLATILE_HEADER: Final = "x-anthropic-billing-header"
"""The start of a line that one client puts into the system prompt and changes with each request.
The line means nothing to the model and would keep the service from caching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What was read from a caller's messages."""

    messages: tuple[Message, ...]
    system: str
    """The system prompt, its pieces joined by a blank line."""
    repairs: tuple[Repair, ...]


def read_messages(given: Sequence[object], *, system: object = "") -> Chat:
    """Read a whole conversation.

    Args:
        given: The messages as the caller has them, oldest first.
        system: A system prompt beside them: text, or a list of text blocks.

    Raises:
        InvalidRequest: A role is unknown, or the service does not accept a kind of media.
    """
    if not given and system == "":  # Most calls have only a prompt.
        return Chat(messages=(), system="", repairs=())
    reader = _ChatReader()
    if system != "":
        reader.add_system(reader.parts(plain_json(system), "system"))
    for index, item in enumerate(given):
        reader.read(plain_json(item), f"messages[{index}]")
    return Chat(
        messages=reader.messages(),
        system="\n\n".join(reader.systems),
        repairs=reader.repairs,
    )


def read_tool_results(
    given: Sequence[object],
) -> tuple[tuple[ToolResult, ...], tuple[Repair, ...]]:
    """Read tool results that are given apart from messages, such as `{id, content, is_error}`.

    Media that the service does not accept are left out. The model is told, and `repairs` say so.
    """
    if not given:
        return (), ()
    reader = ContentReader()
    results: list[ToolResult] = []
    for index, item in enumerate(map(plain_json, given)):
        result: JsonObject = item if isinstance(item, dict) else {"content": item}
        results.append(reader.tool_result(result, f"tool_results[{index}]"))
    return tuple(results), reader.repairs


@dataclass(slots=True)
class _Turn:
    """A message to which pieces may be added."""

    role: Role
    parts: list[Part] = field(default_factory=list[Part])
    is_truncated: bool = False


class _ChatReader(ContentReader):
    """Reads one message after the other.

    OpenAI sends pieces of a turn, such as each tool result, as separate messages. A piece is joined
    to the message before it if both have the same role. Two whole messages are not joined.
    """

    def __init__(self) -> None:
        super().__init__()
        self.systems: list[str] = []
        self._turns: list[_Turn] = []
        self._was_piece = False

    def messages(self) -> tuple[Message, ...]:
        """Return the messages that were read."""
        made = [
            Message(role=turn.role, parts=tuple(turn.parts), is_truncated=turn.is_truncated)
            for turn in self._turns
        ]
        return tuple(made)

    def read(self, item: JsonValue, location: str) -> None:
        if not isinstance(item, dict):
            if parts := self.parts(item, location):
                self._add("user", parts)
            return
        message = Members(item, location)
        inner = item.get("message")
        # An envelope, such as a choice of OpenAI's.
        if isinstance(inner, dict) and "role" in inner:
            message.value("message")
            self.note_unused(message)
            self.read(inner, f"{location}.message")
            return
        speaker = _speaker(item, location)
        if speaker is None:  # A content block, or an item of OpenAI's Responses.
            role: Role = "assistant" if _is_assistants(_kind_of(item)) else "user"
            self._add(role, self.parts(item, location), is_piece=True)
        elif speaker == "tool" and not _holds_results(item.get("content")):
            self._add("user", [self.tool_result(item, location)], is_piece=True)
        elif speaker == "system":
            self.add_system(self._message_parts(message))
        elif speaker == "assistant":
            reasons = {word_member(item, key).lower() for key in ("stop_reason", "finish_reason")}
            is_cut_off = item.get("truncated") is True or not reasons.isdisjoint(_CUT_OFF)
            self._add("assistant", self._message_parts(message), is_truncated=is_cut_off)
        else:
            self._add("user", self._message_parts(message))

    def add_system(self, parts: Sequence[Part]) -> None:
        """Add texts to the system prompt; other parts, such as images, become the user's."""
        for part in parts:
            if isinstance(part, TextPart):
                text = part.text
                if text.startswith(_VOLATILE_HEADER):
                    text = text.partition("\n")[2]
                if text.strip():
                    self.systems.append(text)
        if others := [part for part in parts if not isinstance(part, TextPart)]:
            self._add("user", others)

    def _add(
        self,
        role: Role,
        parts: Sequence[Part],
        *,
        is_piece: bool = False,
        is_truncated: bool = False,
    ) -> None:
        last = self._turns[-1] if self._turns else None
        if last is None or last.role != role or not (is_piece or self._was_piece):
            last = _Turn(role)
            self._turns.append(last)
        last.parts += parts
        last.is_truncated = is_truncated
        self._was_piece = is_piece

    def _message_parts(self, message: Members) -> list[Part]:
        """Return the parts of a message: its reasoning, its content, then its tool uses."""
        location = message.location
        parts: list[Part] = []
        if reasoning := message.text("reasoning_content", "reasoning", "thinking"):
            parts.append(ThinkingPart(text=reasoning))
        for key in _CONTENT_KEYS:
            if found := self.parts(message.value(key), f"{location}.{key}"):
                parts += found
                break
        if refusal := message.text("refusal"):
            parts.append(TextPart(text=refusal))
        audio = message.inner("audio")
        if audio and (transcript := audio.text("transcript")):
            parts.append(TextPart(text=transcript))
        several, single = message.value("tool_calls"), message.value("function_call")
        for index, call in enumerate(several if isinstance(several, list) else [several]):
            parts += self.tool_call(call, f"{location}.tool_calls[{index}]")
        parts += self.tool_call(single, f"{location}.function_call")
        if not parts and (rest := message.take_rest()):
            self.note("unknown_content", f"{location} has no known content; it is sent as JSON.")
            parts.append(TextPart(text=json_text(rest)))
        self.note_unused(message)
        return parts


def _speaker(item: JsonObject, location: str) -> _Speaker | None:
    """Return a message's speaker, from its role or its type; None for a bare content block.

    Raises:
        InvalidRequest: The role is unknown.
    """
    role, kind = item.get("role"), item.get("type")
    has_content = any(key in item for key in _CONTENT_KEYS)
    if role in (None, ""):
        if kind in (None, "message"):
            return "user" if has_content and "text" not in item else None
        return _SPEAKERS.get(_kind_of(item)) if has_content else None
    speaker = _SPEAKERS.get(role.strip().lower()) if isinstance(role, str) else None
    if speaker is None:
        shown = role if isinstance(role, str) else json_text(role)
        raise InvalidRequest(
            f"{location}.role is {quoted(shown)}, which is not a known role (unknown_role).",
            next_step="Use user, assistant, system, developer or tool.",
        )
    return speaker


def _holds_results(content: JsonValue) -> bool:
    items = content if isinstance(content, list) else [content]
    return bool(items) and all(
        isinstance(item, dict) and _is_result_kind(_kind_of(item)) for item in items
    )
