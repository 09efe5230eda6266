"""A model's published schema of extra request fields -> what a request may carry for it.

The service validates `additionalModelRequestFields` strictly against
`additionalModelRequestFieldsSchema` in its list of models, and refuses the whole of it for
models without a schema. So nothing is known here by name but what is looked for: an effort
wherever the schema nests it, the ways to think, and the range of `max_tokens`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from kiro_mcp.chat import Effort, JsonObject, ModelFields
from kiro_mcp.wire.json_values import plain_json
from kiro_mcp.wire.members import positive_integer
from kiro_mcp.wire.schema_refs import inline_references
from kiro_mcp.wire.schema_root import COMBINATORS

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
"""The efforts that callers are told of, from the least to the most."""

_LEAST_FIRST: Final = ("none", "minimal", *EFFORTS)
"""Every word that the service's models are known to list."""


def read_effort(word: str) -> Effort:
    """Read an effort as callers write it: in any case, `none` for `off`."""
    effort = word.strip().lower()
    return "off" if effort == "none" else effort


def is_known_effort(effort: Effort) -> bool:
    """Whether an effort means something for every model, even one that does not list it."""
    return effort in ("", "off", *_LEAST_FIRST)


def nearest_effort(wanted: Effort, offered: Sequence[Effort]) -> Effort | None:
    """Return the offered effort for a wanted one: itself, or the nearest, of two the lesser.

    Returns:
        None where nothing is offered, or where the wanted word is neither offered nor known.
    """
    if same := next((level for level in offered if level.lower() == wanted), None):
        return same
    known = [level for level in offered if level in _LEAST_FIRST and level != "none"]
    if wanted not in _LEAST_FIRST:
        return None
    rank = _LEAST_FIRST.index
    return min(
        known, key=lambda level: (abs(rank(level) - rank(wanted)), rank(level)), default=None
    )


def read_model_fields(schema: object) -> ModelFields | None:
    """Read a model's schema; None where it offers nothing that this package can ask for."""
    plain = plain_json(schema)
    root = inline_references(plain) if isinstance(plain, dict) else {}
    path, efforts, default = next(_effort_places(root), ((), (), ""))
    fields = ModelFields(
        effort_path=path,
        efforts=efforts,
        default_effort=default,
        thinking_types=_thinking_choices(root, "type"),
        thinking_displays=_thinking_choices(root, "display"),
        max_tokens=_token_range(root),
    )
    return None if fields == ModelFields() else fields


def _effort_places(
    schema: JsonObject, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[Effort, ...], Effort]]:
    for name, inner in _properties(schema):
        if name == "effort":
            offered = list(dict.fromkeys(_choices(inner)))
            known = [level for level in _LEAST_FIRST if level in offered]
            efforts = (*known, *(level for level in offered if level not in known))
            default = inner.get("default")
            if efforts:
                yield (*path, name), efforts, default if isinstance(default, str) else ""
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
