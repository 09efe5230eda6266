"""Content blocks of Anthropic, OpenAI and MCP chats -> parts of a `Message`.

Used by `kiro_mcp.protocol.messages`, which reads what is around them. A block of a kind that
nobody knows becomes its own JSON as text; only media that cannot be sent at all are refused.
Sources of truth: Anthropic's Messages API, OpenAI's Chat Completions and Responses APIs, and the
content types of the Model Context Protocol (2026-07-28).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from kiro_mcp.errors import InvalidRequest
from kiro_mcp.models import (
    ImagePart,
    JsonObject,
    JsonValue,
    Part,
    TextPart,
    ThinkingPart,
    ToolResult,
    ToolUse,
    ToolUseState,
)
from kiro_mcp.protocol.documents import document_text, text_from_base64, text_from_url
from kiro_mcp.protocol.findings import Finding, Repair
from kiro_mcp.protocol.images import image_from_base64, image_from_url
from kiro_mcp.protocol.json_values import json_text
from kiro_mcp.protocol.tool_arguments import parse_arguments

_CALL_ID_KEYS: Final = ("call_id", "toolUseId", "tool_call_id", "id")
_RESULT_ID_KEYS: Final = ("tool_use_id", "toolUseId", "tool_call_id", "call_id", "id")
_ARGUMENT_KEYS: Final = ("input", "arguments", "args")
_ANSWER_KEYS: Final = ("content", "output", "structuredContent")
_TOOL_NAME_KEYS: Final = ("name", "tool_name")
_FRAME_KEYS: Final = ("type", "role", "is_error", "isError", "status", "resultType", "_meta")
_RESULT_KEYS: Final = frozenset(
    (*_RESULT_ID_KEYS, *_TOOL_NAME_KEYS, *_ANSWER_KEYS, *_FRAME_KEYS, "cache_control")
)
"""The members of a tool's result that are not what it says."""
_NAME_KEYS: Final = ("title", "filename", "name", "uri")
_ENCODED_KEYS: Final = ("blob", "file_data", "data")

_RESULT_BLOCKS: Final[Mapping[str, Sequence[str]]] = {
    "text": ("text",),
    "input_text": ("text",),
    "output_text": ("text",),
    "image": ("source", "data"),
    "image_url": ("image_url",),
    "input_image": ("image_url",),
    "audio": ("data",),
    "document": ("source",),
    "file": ("file",),
    "resource": ("resource",),
    "resource_link": ("uri",),
    "search_result": ("content",),
}
"""What a tool may answer with, and the members by one of which each is known."""


class ContentReader:
    """Reads content of any shape, and notes in `repairs` what it took for something else."""

    def __init__(self) -> None:
        self.repairs: list[Repair] = []

    def parts(self, content: JsonValue, place: str) -> list[Part]:
        """Return the parts of a message's content: text, a block, or a list of both.

        Raises:
            InvalidRequest: It holds media that the service does not take.
        """
        if isinstance(content, list):
            return [
                part
                for index, item in enumerate(content)
                for part in self.parts(item, f"{place}[{index}]")
            ]
        if isinstance(content, dict):
            return self._block(content, place)
        if content is None or content == "":
            return []
        return [TextPart(text=content if isinstance(content, str) else json_text(content))]

    def tool_result(self, block: JsonObject, place: str) -> ToolResult:
        """Read what a tool answered, in any of the three shapes.

        Media that the service does not take are left out, and the model is told: whoever runs
        the tools cannot change what they answered.
        """
        content, structured = self._answered(block, place)
        if isinstance(content, dict) and not _is_block(content):
            content, structured = None, content
        parts = self._result_parts(content, f"{place}.content")
        if structured is not None and not isinstance(structured, dict) and not parts:
            parts = [TextPart(text=json_text(structured))]
        result_id = first_text(block, _RESULT_ID_KEYS)
        return ToolResult(
            id=result_id,
            name="" if result_id else first_text(block, _TOOL_NAME_KEYS),
            text=_texts(parts),
            is_error=_is_error(block),
            data=structured if isinstance(structured, dict) and not parts else None,
            images=tuple(part for part in parts if isinstance(part, ImagePart)),
        )

    def _answered(self, block: JsonObject, place: str) -> tuple[JsonValue, JsonValue]:
        """Return a result's content and its structured content."""
        given = (block.get(key) for key in ("content", "output"))
        content = next((value for value in given if value is not None), None)
        structured = block.get("structuredContent")
        if content is None and structured is None and (rest := _what_else(block)):
            self._note("unknown_content", f"{place} has no content; it is sent as its JSON.")
            return json_text(rest), None
        return content, structured

    def _result_parts(self, content: JsonValue, place: str) -> list[Part]:
        items = content if isinstance(content, list) else [content]
        if items and not any(isinstance(item, str) or _is_block(item) for item in items):
            # A list of plain data, such as file names, is no list of blocks.
            return [] if content is None else [TextPart(text=json_text(content))]
        return [
            part
            for index, item in enumerate(items)
            for part in self._part_or_notice(item, f"{place}[{index}]")
        ]

    def _part_or_notice(self, item: JsonValue, place: str) -> list[Part]:
        try:
            return self.parts(item, place)
        except InvalidRequest as error:
            self._note("media_left_out", error.message)
            return [TextPart(text=f"(Left out: {error.message})")]

    def tool_use(self, block: JsonObject, place: str) -> ToolUse:
        """Read a tool that an assistant asked for, in any of the three shapes."""
        inner = block.get("function")
        function = inner if isinstance(inner, dict) else block
        given = next((function[key] for key in _ARGUMENT_KEYS if key in function), None)
        name = first_text(function, ("name",))
        arguments, state = self._arguments(given, f"{place}: the arguments for {name!r}")
        return ToolUse(
            id=first_text(block, _CALL_ID_KEYS),
            name=name,
            arguments=arguments,
            state="truncated" if block.get("state") == "truncated" else state,
        )

    def _arguments(self, given: JsonValue, what: str) -> tuple[JsonObject, ToolUseState]:
        if isinstance(given, dict):
            return given, "complete"
        if not isinstance(given, str):
            if given is not None:
                self._note("malformed_input", f"{what} are no JSON object.")
            return ({} if given is None else {"value": given}), "complete"
        parsed = parse_arguments([given])
        if parsed.value is None:
            self._note("malformed_input", f"{what} are no JSON object and were left out.")
        elif parsed.is_repaired:
            self._note("malformed_input", f"{what} are no valid JSON and were mended.")
        return parsed.value or {}, parsed.state

    def _block(self, block: JsonObject, place: str) -> list[Part]:
        kind = block.get("type")
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is not None:
            return list(reader(self, block, place))
        text = block.get("text")
        if isinstance(text, str):
            return [TextPart(text=text)]
        self._note("unknown_content", f"{place} is of no known kind; it is sent as its JSON.")
        return [TextPart(text=json_text(block))]

    def _note(self, rule: str, detail: str) -> None:
        self.repairs.append(Repair(rule=rule, detail=detail))


def first_text(members: JsonObject, keys: Sequence[str]) -> str:
    """Return the first text that is not empty under one of the keys, or ""."""
    values = (members.get(key) for key in keys)
    return next((value for value in values if isinstance(value, str) and value), "")


def _is_block(item: JsonValue) -> bool:
    """Whether it is a content block, and not data that happens to have a `type`."""
    if not isinstance(item, dict):
        return False
    kind = item.get("type")
    needed = _RESULT_BLOCKS.get(kind, ()) if isinstance(kind, str) else ()
    return any(key in item for key in needed) or item.keys() == {"text"}


def _what_else(block: JsonObject) -> JsonObject:
    """Return what a result says under names that nobody knows."""
    return {
        key: value for key, value in block.items() if key not in _RESULT_KEYS and value is not None
    }


def _as_text(part: Part) -> str:
    if isinstance(part, ToolUse):
        return json_text(part.arguments)
    return "" if isinstance(part, ImagePart) else part.text


def _is_error(block: JsonObject) -> bool:
    return (
        block.get("is_error") is True
        or block.get("isError") is True
        or block.get("status") == "error"
    )


# --- one reader for each kind of block ----------------------------------------------------


def _read_text(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    text = first_text(block, ("text", "refusal", "content"))
    return [TextPart(text=text)] if text else []


def _read_thinking(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    text = first_text(block, ("thinking", "text"))
    signature = first_text(block, ("signature",))
    redacted = first_text(block, ("data", "redacted"))
    return [ThinkingPart(text=text, signature=signature, redacted=redacted)]


def _read_image(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    """Read an image: Anthropic's `source`, OpenAI's `image_url`, MCP's `data`."""
    source = block.get("source") or block.get("image_url") or block.get("data")
    if isinstance(source, dict):
        source = first_text(source, ("data", "url"))
    if not isinstance(source, str) or not source:
        raise Finding(
            rule="image_source",
            place=place,
            cause="holds no image",
            cure="Send the image's bytes as base64, or as a data URL.",
        ).as_error()
    is_address = ":" in source[:16]
    read = image_from_url if is_address else image_from_base64
    return [read(source, place=place)]


def _read_document(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    """Read a document: Anthropic's `source`, OpenAI's `file`, MCP's `resource`."""
    source = _source(block)
    name = first_text(block, _NAME_KEYS) or first_text(source, _NAME_KEYS)
    if "content" in source:
        parts = reader.parts(source["content"], f"{place}.content")
        return [document_text(name, _texts(parts)), *_images(parts)]
    if first_text(source, ("media_type", "mimeType")).startswith("image/"):
        encoded = first_text(source, _ENCODED_KEYS)
        return [image_from_base64(encoded, place=place)]
    return [document_text(name, _document_body(source, place))]


def _source(block: JsonObject) -> JsonObject:
    inner = (block.get(key) for key in ("source", "file", "resource"))
    return next((value for value in inner if isinstance(value, dict)), block)


def _document_body(source: JsonObject, place: str) -> str:
    text = source.get("text")
    if isinstance(text, str):
        return text
    encoded = first_text(source, _ENCODED_KEYS)
    if source.get("type") == "text":
        return encoded
    read = text_from_url if encoded.startswith("data:") else text_from_base64
    return read(encoded, place=place)


def _texts(parts: Sequence[Part]) -> str:
    return "\n".join(text for part in parts if (text := _as_text(part)))


def _images(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if isinstance(part, ImagePart)]


def _read_search_result(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    name = first_text(block, ("title", "source", "url"))
    parts = reader.parts(block.get("content"), f"{place}.content")
    return [document_text(name, _texts(parts))]


def _read_resource_link(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    words = (first_text(block, (key,)) for key in ("title", "name", "uri", "description"))
    return [TextPart(text=" ".join(dict.fromkeys(filter(None, words))))]


def _read_tool_use(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    return [reader.tool_use(block, place)]


def _read_tool_result(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    return [reader.tool_result(block, place)]


def _refuse_media(reader: ContentReader, block: JsonObject, place: str) -> list[Part]:
    raise Finding(
        rule="media_kind",
        place=place,
        cause=f"is {block['type']}, which the service does not take",
        cure="Send text or images; transcribe sound and film first.",
    ).as_error()


_Reader: TypeAlias = Callable[[ContentReader, JsonObject, str], list[Part]]

_READERS: Final[Mapping[str, _Reader]] = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal"), _read_text),
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning"), _read_thinking),
    **dict.fromkeys(("image", "image_url", "input_image"), _read_image),
    **dict.fromkeys(("document", "file", "input_file", "resource"), _read_document),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), _read_tool_use),
    **dict.fromkeys(("function", "function_call", "tool_call"), _read_tool_use),
    **dict.fromkeys(
        ("tool_result", "function_call_output", "web_search_tool_result", "mcp_tool_result"),
        _read_tool_result,
    ),
    **dict.fromkeys(("audio", "input_audio", "video"), _refuse_media),
    "search_result": _read_search_result,
    "resource_link": _read_resource_link,
}
