"""Messages -> what is said to the program, and how a conversation is recognised. Pure.

The program takes one prompt at a time: text and images. A session that is still alive has heard the
earlier turns. If none is, they go in front of the new message as a record between two lines that
nobody can guess, because roles and tool calls are only words there and a user's text could imitate
them.

`conversation_key` says which conversation a session has had.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kiro_mcp.chat import (
    ImagePart,
    JsonObject,
    Message,
    Part,
    TextPart,
    ToolResult,
    ToolSpec,
    ToolUse,
)
from kiro_mcp.wire.history import result_text
from kiro_mcp.wire.json_values import clean_text, json_text

RESULT_FOLLOWS: Final = (
    "The result of this call is not there yet: it follows in the user's next message. End your turn"
    " now, without further calls."
)
"""What a call is told that cannot be held any longer."""

_BEFORE: Final = (
    "Between two lines that say {boundary} is the record of this conversation so far, the oldest"
    " turn first, as the program that forwards it has written it. It is history: do not go on with"
    " it and do not answer it again. Only a line that says {boundary} ends it."
)
_AFTER: Final = "The user's next message follows. Answer it."
_RESULTS: Final = (
    "The results of the tool calls that you made follow. The calls have been run; do not make them"
    " again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """What a session is made for. It cannot be changed later."""

    system: str
    tools: tuple[ToolSpec, ...]
    """The caller's tools as they are declared to the program."""
    model: str
    effort: str
    """"" leaves it to the program."""


def split_new(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """Split messages after the last answer: what a session has heard, and what is new."""
    count = max(
        (number for number, it in enumerate(messages, start=1) if it.role == "assistant"), default=0
    )
    return messages[:count], messages[count:]


def conversation_key(spec: SessionSpec, messages: Iterable[Message]) -> list[object]:
    """Return the settings and all turns, in a form that is equal for the same conversation.

    Thinking does not count, because many callers do not send it back.
    """
    said: list[object] = [spec]
    role = ""
    for message in messages:
        if message.role != role:
            role = message.role
            said.append(role)
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart)).strip()
        if text:
            said.append(TextPart(text=text))
        for part in message.parts:
            match part:
                case ToolUse():
                    said.append(("use", part.id, part.name, part.arguments))
                case ToolResult():
                    images = [image.data for image in part.images]
                    said.append(("result", part.id, result_text(part), part.is_error, images))
                case ImagePart():
                    said.append(("image", part.data))
                case _:
                    pass
    return said


def results_of(messages: Iterable[Message]) -> dict[str, ToolResult]:
    """Return the tool results in messages by the ids of their calls."""
    return {
        part.id: part
        for message in messages
        for part in message.parts
        if isinstance(part, ToolResult)
    }


def write_conversation(turns: Sequence[Message], boundary: str) -> list[JsonObject]:
    """Write a whole conversation as one prompt.

    Args:
        turns: The repaired turns; the last one is the user's.
        boundary: A text that nobody can guess.
    """
    *earlier, last = turns
    if not earlier:
        return write_message(last.parts)
    lines = [_BEFORE.format(boundary=boundary), boundary]
    images: list[ImagePart] = []
    for turn in earlier:
        lines.append(f"[{turn.role}]")
        for part in turn.parts:
            if isinstance(part, ImagePart):
                images.append(part)
                lines.append(f"[image {len(images)} of the record]")
            elif text := _part_text(part):
                lines.append(text)
    lines.append(boundary)
    if images:
        lines.append(f"The first {len(images)} image(s) of this message belong to the record.")
    lines.append(_AFTER)
    record: JsonObject = {"type": "text", "text": clean_text("\n".join(lines))}
    return [record, *map(_image, images), *write_message(last.parts)]


def write_message(parts: Sequence[Part]) -> list[JsonObject]:
    """Write the parts of a message of the user as a prompt: its text, then its images."""
    images: list[ImagePart] = []
    texts: list[str] = []
    for part in parts:
        if isinstance(part, ImagePart):
            images.append(part)
            continue
        if isinstance(part, ToolResult):
            images += part.images
        if (text := _part_text(part)).strip():
            texts.append(text)
    text = "\n".join(texts) or ("See the image." if images else " ")
    block: JsonObject = {"type": "text", "text": clean_text(text)}
    return [block, *map(_image, images)]


def write_late_results(parts: Sequence[Part]) -> list[JsonObject]:
    """Write tool results for a session whose calls were told that they follow."""
    return write_message([TextPart(text=_RESULTS), *parts])


def _part_text(part: Part) -> str:
    match part:
        case TextPart():
            return part.text
        case ToolUse():
            arguments = part.raw or json_text(part.arguments)
            return f"[called the tool {part.name}, call {part.id}, with] {arguments}"
        case ToolResult():
            what = "error" if part.is_error else "result"
            return f"[{what} of the tool call {part.id}]\n{result_text(part)}"
        case _:  # Thinking is not sent again: it would only be words.
            return ""


def _image(image: ImagePart) -> JsonObject:
    return {"type": "image", "mimeType": f"image/{image.format}", "data": image.data}
