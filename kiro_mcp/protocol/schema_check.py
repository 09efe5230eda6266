"""A value against the JSON Schema that the caller gave for it.

A tool use's arguments, or a typed answer. The result is for reading, by the caller or its model:
nothing here refuses either.
"""

from itertools import islice
from typing import Any, Final

from kiro_mcp.models import JsonObject, JsonValue

MAX_SCHEMA_ERRORS: Final = 20
"""Enough to mend a call by; a list of a thousand wrong items says the same thing each time."""
MAX_SENTENCE_CHARACTERS: Final = 300
"""A sentence quotes the value at fault, which may be a whole file."""


class UnusableSchemaError(ValueError):
    """A schema cannot be checked against; its text says why, in brief."""


class SchemaCheck:
    """Checks values against one schema, which is compiled once."""

    def __init__(self, schema: JsonObject) -> None:
        """Compile a schema.

        Raises:
            UnusableSchemaError: it is no valid JSON Schema.
        """
        # Here, because it takes 100 ms and most answers have no arguments to check.
        import jsonschema
        import referencing
        from jsonschema.validators import validator_for

        try:
            kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
            kind.check_schema(schema)
        except Exception as error:  # a stranger's schema: whatever it breaks ends no answer
            raise UnusableSchemaError(_first_line(error)) from error
        # An empty registry: by default a reference to a URL would be fetched.
        self._validator: Any = kind(schema, registry=referencing.Registry[Any]())

    def errors(self, value: JsonValue, *, name: str = "arguments") -> tuple[str, ...]:
        """Say where a value breaks the schema, one sentence each, in a stable order.

        Args:
            value: Any JSON value.
            name: What it is called in the sentences.

        Raises:
            UnusableSchemaError: the schema refers to what it does not hold, or to itself.
        """
        try:
            violations: list[Any] = list(
                islice(self._validator.iter_errors(value), MAX_SCHEMA_ERRORS)
            )
        except Exception as error:  # as above
            raise UnusableSchemaError(_first_line(error)) from error
        return tuple(_sentence(name, violation) for violation in violations)


def _first_line(error: Exception) -> str:
    return f"{error!s:.100}".partition("\n")[0]


def _sentence(name: str, violation: Any) -> str:
    where = f"{name}{violation.json_path.removeprefix('$')}"
    return f"{where}: {violation.message}"[:MAX_SENTENCE_CHARACTERS]
