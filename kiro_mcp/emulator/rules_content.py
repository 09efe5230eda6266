"""What the service asks of images, documents and a model's own fields.

A rule yields where a call breaks it, and how. `kiro_mcp.emulator.validation` lists them all with
what the service answers. Source of truth: the service's published limits and schemas.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from kiro_mcp.emulator.body import items, members, text
from kiro_mcp.emulator.call import Call
from kiro_mcp.emulator.shapes import Finding

MAX_IMAGES: Final = 10
"""The most images in one request, its history included."""

MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
"""The largest image, decoded."""

_IMAGE_FORMATS: Final = frozenset({"gif", "jpeg", "png", "webp"})
_DOCUMENT_FORMATS: Final = frozenset(
    {"csv", "doc", "docx", "html", "md", "pdf", "txt", "xls", "xlsx"}
)
_DOCUMENT_NAME: Final = re.compile(r"(?! )(?!.*  )[A-Za-z0-9 _()\[\]-]{1,200}(?<! )")


def images_are_few(call: Call) -> Iterator[Finding]:
    """At most ten images."""
    count = sum(len(turn.images) for turn in call.conversation.turns)
    if count > MAX_IMAGES:
        yield "$.conversationState", f"holds {count} images"


def images_fit(call: Call) -> Iterator[Finding]:
    """Of a format and a size that the service takes."""
    for turn in call.conversation.turns:
        for image in turn.images:
            if text(image.get("format")) not in _IMAGE_FORMATS:
                yield turn.where, f"has an image of format {image.get('format')!r}"
            if _decoded_size(image) > MAX_IMAGE_BYTES:
                yield turn.where, "has an image that is too large"


def _decoded_size(image: Mapping[str, object]) -> int:
    encoded = text(members(image.get("source")).get("bytes"))
    return len(encoded) // 4 * 3 - encoded.count("=", -2)


def documents_fit(call: Call) -> Iterator[Finding]:
    """Of a format that the service takes, under a plain name."""
    for turn in call.conversation.turns:
        for document in map(members, items(turn.message.get("documents"))):
            if text(document.get("format")) not in _DOCUMENT_FORMATS:
                yield turn.where, f"has a document of format {document.get('format')!r}"
            if _DOCUMENT_NAME.fullmatch(text(document.get("name"))) is None:
                yield turn.where, f"{document.get('name')!r} is no name of a document"


def model_fields_fit(call: Call) -> Iterator[Finding]:
    """Extra fields obey the schema that the model publishes; one without a schema takes none."""
    if "additionalModelRequestFields" not in call.members:
        return
    schema = (call.model or {}).get("additionalModelRequestFieldsSchema")
    if schema is None:
        yield "additionalModelRequestFields", "is not supported by this model"
        return
    fields = call.members["additionalModelRequestFields"]
    yield from breaches(fields, schema, "additionalModelRequestFields")


def breaches(value: object, schema: Mapping[str, object], where: str) -> Iterator[Finding]:
    """Where a value breaks a schema, as far as the catalogue's schemas go."""
    if not _is_of_type(value, text(schema.get("type"))):
        yield where, f"must be of type {schema.get('type')}"
        return
    choices = items(schema.get("enum"))
    if choices and value not in choices:
        yield where, f"must be one of {', '.join(map(str, choices))}"
    yield from _out_of_range(value, schema, where)
    properties = members(schema.get("properties"))
    for name in items(schema.get("required")):
        if name not in members(value):
            yield f"{where}.{name}", "is required"
    for name, member in members(value).items():
        if name in properties:
            yield from breaches(member, members(properties[name]), f"{where}.{name}")
        else:
            yield f"{where}.{name}", "is an unknown property"


def _is_of_type(value: object, name: str) -> bool:
    types: Mapping[str, type] = {"object": dict, "string": str, "integer": int}
    return isinstance(value, types[name]) and not isinstance(value, bool)


def _out_of_range(value: object, schema: Mapping[str, object], where: str) -> Iterator[Finding]:
    minimum, maximum = schema.get("minimum"), schema.get("maximum")
    if not isinstance(value, int):
        return
    if isinstance(minimum, int) and value < minimum:
        yield where, f"must be at least {minimum}"
    if isinstance(maximum, int) and value > maximum:
        yield where, f"must be at most {maximum}"
