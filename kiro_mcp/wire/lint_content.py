"""The rules for images, reasoning and model fields in a payload.

A part of `kiro_mcp.wire.lint`, which names the source of truth.
"""

from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kiro_mcp.chat import JsonObject, JsonValue, ModelFields
from kiro_mcp.wire.findings import Finding
from kiro_mcp.wire.images import (
    IMAGE_FORMATS,
    MAX_IMAGE_BYTES,
    MAX_IMAGES,
    decoded_size,
    is_base64,
    sniff_format,
)
from kiro_mcp.wire.json_values import object_member
from kiro_mcp.wire.lint_view import Sent, text_of

_FIRST_BYTES: Final = 16
"""What tells the kind of an image, as base64: 12 bytes."""


def images_are_few(sent: Sent) -> Iterator[Finding]:
    """At most ten images in one request."""
    count = sum(len(turn.images) for turn in sent.turns)
    if count > MAX_IMAGES:
        cause = f"holds {count} images, and the service takes {MAX_IMAGES}"
        yield _finding("image_count", sent.current.place, cause)


def images_fit(sent: Sent) -> Iterator[Finding]:
    """An image is base64 of a kind and a size that the service takes."""
    for turn in sent.turns:
        for index, image in enumerate(turn.images):
            for cause in _image_faults(image):
                yield _finding("image", f"{turn.place}.images[{index}]", cause)


def _image_faults(image: JsonObject) -> Iterator[str]:
    encoded = text_of(object_member(image, "source"), "bytes")
    if text_of(image, "format") not in IMAGE_FORMATS:
        yield f"is of the format {image.get('format')!r:.40}"
    if decoded_size(encoded) > MAX_IMAGE_BYTES:
        yield f"is {decoded_size(encoded)} bytes, over the limit of {MAX_IMAGE_BYTES}"
    elif not _is_image(encoded):
        yield "is no base64 of an image"


def _is_image(encoded: str) -> bool:
    return is_base64(encoded) and sniff_format(b64decode(encoded[:_FIRST_BYTES])) is not None


def images_are_seen(sent: Sent) -> Iterator[Finding]:
    """A model that reads text only gets no images."""
    reads = sent.model.input_types if sent.model else ()
    if reads and "IMAGE" not in reads and any(turn.images for turn in sent.turns):
        yield _finding(
            "images_unseen", sent.current.place, "holds images, and the model reads text"
        )


def reasoning_is_a_union(sent: Sent) -> Iterator[Finding]:
    """Reasoning goes back as a text with its signature, or as redacted content; never flat."""
    for turn in sent.history:
        reasoning = turn.message.get("reasoningContent")
        if reasoning is not None and not _is_reasoning(reasoning):
            yield _finding("reasoning", f"{turn.place}.reasoningContent", "is no reasoning")


def _is_reasoning(value: JsonValue) -> bool:
    members = value if isinstance(value, dict) else {}
    text = object_member(members, "reasoningText")
    is_readable = isinstance(text.get("text"), str) and text.keys() <= {"text", "signature"}
    return len(members) == 1 and (is_readable or isinstance(members.get("redactedContent"), str))


def model_fields_fit(sent: Sent) -> Iterator[Finding]:
    """Extra fields are those of the model, in its ranges; one without a schema takes none."""
    given = object_member(sent.payload, "additionalModelRequestFields")
    if sent.model is None or not given:
        return
    own = sent.model.fields or ModelFields()
    known = {"thinking"} if own.thinking_types else set[str]()
    known.update(own.effort_path[:1], ("max_tokens",) if own.max_tokens else ())
    for name in given:
        if name not in known:
            yield _finding("model_field", name, f"is no field of {sent.model.id}")
    effort = _at(given, own.effort_path)
    if effort is not None and effort not in own.efforts:
        yield _finding("model_field", "effort", f"is {effort!r:.40}, none of {sent.model.id}")


def _at(value: JsonValue, path: Sequence[str]) -> JsonValue:
    """Return what the names lead to; null if they lead nowhere."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if path else None


_CURES: Final = {
    "image_count": "Send fewer images.",
    "image": "Send PNG, JPEG, GIF or WebP as base64, small enough.",
    "images_unseen": "Choose a model that reads images, or send none.",
    "reasoning": "Send back only reasoning that the service gave, with its signature.",
    "model_field": "Send only what the model's published schema has.",
}


def _finding(rule: str, place: str, cause: str) -> Finding:
    return Finding(rule=rule, place=place, cause=cause, cure=_CURES[rule])


CONTENT_RULES: Final[tuple[Callable[[Sent], Iterator[Finding]], ...]] = (
    images_are_few,
    images_fit,
    images_are_seen,
    reasoning_is_a_union,
    model_fields_fit,
)
