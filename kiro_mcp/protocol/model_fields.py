"""A model's published schema of extra request fields -> what a request may carry for it.

The service validates `additionalModelRequestFields` strictly against
`additionalModelRequestFieldsSchema` in its list of models, and refuses the whole of it for
models without a schema. So nothing is known here by name but what is looked for: an effort
wherever the schema nests it, the ways to think, and the range of `max_tokens`.
"""

from collections.abc import Iterator
from typing import Final

from kiro_mcp.models import EffortLevel, JsonObject, ModelFields
from kiro_mcp.protocol.json_values import plain_json
from kiro_mcp.protocol.members import positive_integer
from kiro_mcp.protocol.schema_refs import inline_references
from kiro_mcp.protocol.schema_root import COMBINATORS

EFFORTS: Final[tuple[EffortLevel, ...]] = ("low", "medium", "high", "xhigh", "max")
"""Every effort, least first."""


def read_model_fields(schema: object) -> ModelFields | None:
    """Read a model's schema; None where it offers nothing that this package can ask for."""
    plain = plain_json(schema)
    root = inline_references(plain) if isinstance(plain, dict) else {}
    path, efforts = next(_effort_places(root), ((), ()))
    fields = ModelFields(
        effort_path=path,
        efforts=efforts,
        thinking_types=_thinking_choices(root, "type"),
        thinking_displays=_thinking_choices(root, "display"),
        max_tokens=_token_range(root),
    )
    return None if fields == ModelFields() else fields


def _effort_places(
    schema: JsonObject, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[EffortLevel, ...]]]:
    for name, inner in _properties(schema):
        if name == "effort":
            offered = set(_choices(inner))
            efforts = tuple[EffortLevel, ...](level for level in EFFORTS if level in offered)
            if efforts:
                yield (*path, name), efforts
        yield from _effort_places(inner, (*path, name))


def _thinking_choices(root: JsonObject, member: str) -> tuple[str, ...]:
    choices = (
        choice
        for thinking in _named(root, "thinking")
        for inner in _named(thinking, member)
        for choice in _choices(inner)
    )
    return tuple(dict.fromkeys(choices))


def _token_range(root: JsonObject) -> tuple[int, int | None] | None:
    schema = next(_named(root, "max_tokens"), None)
    if schema is None:
        return None
    return positive_integer(schema.get("minimum")) or 1, positive_integer(schema.get("maximum"))


def _named(schema: JsonObject, wanted: str) -> Iterator[JsonObject]:
    return (inner for name, inner in _properties(schema) if name == wanted)


def _choices(schema: JsonObject) -> Iterator[str]:
    """Yield the texts that a schema allows, whichever way it says so."""
    enum = schema.get("enum")
    offered = [*(enum if isinstance(enum, list) else ()), schema.get("const")]
    yield from (item for item in offered if isinstance(item, str))
    for piece in _pieces(schema):
        yield from _choices(piece)


def _properties(schema: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield the properties of a schema and of what it combines."""
    properties = schema.get("properties")
    if isinstance(properties, dict):
        yield from ((name, inner) for name, inner in properties.items() if isinstance(inner, dict))
    for piece in _pieces(schema):
        yield from _properties(piece)


def _pieces(schema: JsonObject) -> Iterator[JsonObject]:
    for name in COMBINATORS:
        pieces = schema.get(name)
        if isinstance(pieces, list):
            yield from (piece for piece in pieces if isinstance(piece, dict))
