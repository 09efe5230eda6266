"""Checks a value against a caller's JSON Schema: the arguments of a tool use, or a typed answer.

The caller or its model reads the result; nothing is refused here.

The library's native code blocks the whole process, and for some schemas its time doubles with each
line. So `SchemaCheck` estimates the work first and does only what is known to be quick.
`check_slowly` has no such limit: run it in a separate process, which can be killed.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, cast

from kiro_mcp.chat import JsonObject, JsonValue
from kiro_mcp.wire.json_values import is_larger
from kiro_mcp.wire.schema import MAX_REFERENCE_CHARACTERS, local_target

MAX_SCHEMA_ERRORS: Final = 20
"""Enough to correct a call; a thousand wrong items give the same error each time."""
MAX_SENTENCE_CHARACTERS: Final = 300
"""A sentence quotes the wrong value, which may be a whole file."""

MAX_QUICK_SCHEMA: Final = 5_000
"""How many JSON values a schema that is compiled at once may have, with references followed."""
MAX_QUICK_DEPTH: Final = 64
"""How deep it may nest. A schema that refers to itself is deeper than any limit."""
MAX_QUICK_PATTERNS: Final = 8
"""How many patterns it may have: one of 14 letters can take 7 ms."""
MAX_QUICK_STEPS: Final = 200_000
"""The size of schema and value multiplied, up to which a value is checked at once (10 ms)."""
MAX_QUICK_ERROR_STEPS: Final = 2_000
"""The same for finding all violations of an invalid value, each of which takes 40 µs."""

_PATTERN_CHARACTERS: Final = 200
"""A longer pattern counts as several."""
_QUICK_PATTERN_BYTES: Final = 100_000
_BACKTRACK_LIMIT: Final = 100_000
"""How many steps a pattern with lookaround may take on one text (1 ms)."""
_SLOW_KEYWORDS: Final = frozenset(
    {"$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems"}
)


class UnusableSchemaError(ValueError):
    """A schema that no value can be checked against. The text says why, in a few words."""


class SchemaCheck:
    """Checks values against one schema. The schema is compiled once, if that is quick.

    Raises:
        UnusableSchemaError: It is not a valid JSON Schema, or a reference has no target or is too
            long.
    """

    def __init__(self, schema: JsonObject) -> None:
        self._size = _quick_size(schema)
        self._validator: Any = _compile(schema, is_quick=True) if self._size else None

    @property
    def is_quick(self) -> bool:
        """Whether the schema was compiled, so that at least small values can be checked."""
        return self._validator is not None

    def errors(self, value: JsonValue, *, name: str = "arguments") -> tuple[str, ...] | None:
        """Return the violations of the schema, one sentence each, in a stable order.

        Args:
            value: Any JSON value.
            name: The value's name in the sentences.

        Returns:
            The sentences; None if finding them could take long.
        """
        if self._validator is None:
            return None
        if is_larger(value, MAX_QUICK_STEPS // self._size):
            return None
        if self._validator.is_valid(value):
            return ()
        if is_larger(value, MAX_QUICK_ERROR_STEPS // self._size):
            return None
        return _errors(self._validator, value, name)


def check_slowly(
    schema: JsonObject, values: Sequence[JsonValue], *, name: str
) -> list[tuple[str, ...]]:
    """Return the violations of the schema for each value, however long that takes.

    Raises:
        UnusableSchemaError: It is not a valid JSON Schema, or a reference has no target.
    """
    validator = _compile(schema, is_quick=False)
    return [
        () if validator.is_valid(value) else _errors(validator, value, name) for value in values
    ]


def _compile(schema: JsonObject, *, is_quick: bool) -> Any:
    """Compile a schema; None if it should be quick but would not be."""
    # Imported here, because most answers have nothing to check.
    import jsonschema_rs

    dialect = schema.get("$schema", "")
    if not (isinstance(dialect, str) and "json-schema.org" in dialect):
        # Many schemas have a URL of their own there, which the library does not know.
        schema = {keyword: value for keyword, value in schema.items() if keyword != "$schema"}
    try:
        return jsonschema_rs.validator_for(
            schema,
            # The quick engine takes linear time and refuses lookaround and back-references.
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_QUICK_PATTERN_BYTES)
            if is_quick
            else jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT),
            validate_formats=False,
            offline=True,  # By default a reference to a file or a URL would be fetched.
        )
    except Exception as error:  # A strange schema may break the library, but not the answer.
        kind = error.kind if isinstance(error, jsonschema_rs.ValidationError) else None
        if is_quick and kind and kind.name == "format" and kind.value == "regex":
            return None
        raise UnusableSchemaError(str(error).partition("\n")[0][:100]) from error


def _errors(validator: Any, value: JsonValue, name: str) -> tuple[str, ...]:
    found = islice(validator.iter_errors(value), MAX_SCHEMA_ERRORS)
    return tuple(_sentence(name, violation) for violation in found)


def _sentence(name: str, violation: Any) -> str:
    steps: list[str | int] = violation.instance_path
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f"{name}{where}: {violation.message}"[:MAX_SENTENCE_CHARACTERS]


def _quick_size(schema: JsonObject) -> int:
    """Count the JSON values of a schema with its references followed; 0 if compiling may be slow.

    A check visits at most this many for each part of the value.

    Raises:
        UnusableSchemaError: A reference is too long. Compiling one of 1 MB takes 70 ms.
    """
    patterns = count = 0
    waiting: list[tuple[JsonValue, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if isinstance(node, list):
            inner = cast("Sequence[JsonValue]", node)
        elif isinstance(node, dict):
            if not _SLOW_KEYWORDS.isdisjoint(node):
                return 0
            inner = list(node.values())
            named = node.get("patternProperties")
            found = [*(named if isinstance(named, dict) else ()), node.get("pattern")]
            texts = [one for one in found if isinstance(one, str)]
            patterns += sum(1 + len(text) // _PATTERN_CHARACTERS for text in texts)
            if isinstance(reference := node.get("$ref"), str):
                if len(reference) > MAX_REFERENCE_CHARACTERS:
                    raise UnusableSchemaError(
                        f"a reference has more than {MAX_REFERENCE_CHARACTERS} characters"
                    )
                if not reference.startswith("#/"):
                    return 0
                inner.append(local_target(schema, reference))
        else:
            continue
        is_large = count + len(waiting) + len(inner) > MAX_QUICK_SCHEMA
        if is_large or depth > MAX_QUICK_DEPTH or patterns > MAX_QUICK_PATTERNS:
            return 0
        waiting += [(one, depth + 1) for one in inner]
    return count
