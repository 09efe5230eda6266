"""A tool use's arguments against the schema that the caller gave with the tool.

The result is for reading, by the caller or its model: nothing here refuses a tool use.
"""

from itertools import islice
from typing import Any, Final

from kiro_mcp.models import JsonObject

MAX_SCHEMA_ERRORS: Final = 20
"""Enough to mend a call by; a list of a thousand wrong items says the same thing each time."""
MAX_SENTENCE_CHARACTERS: Final = 300
"""A sentence quotes the value at fault, which may be a whole file."""


class UnusableSchemaError(ValueError):
    """A schema cannot be checked against; its text says why, in brief."""


class SchemaCheck:
    """Checks arguments against one schema; compiled once, used for each call of the tool."""

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

    def errors(self, arguments: JsonObject) -> tuple[str, ...]:
        """Say where `arguments` break the schema, one sentence each, in a stable order.

        Raises:
            UnusableSchemaError: the schema refers to what it does not hold, or to itself.
        """
        try:
            violations: list[Any] = list(
                islice(self._validator.iter_errors(arguments), MAX_SCHEMA_ERRORS)
            )
        except Exception as error:  # as above
            raise UnusableSchemaError(_first_line(error)) from error
        return tuple(_sentence(violation) for violation in violations)


def _first_line(error: Exception) -> str:
    return f"{error!s:.100}".partition("\n")[0]


def _sentence(violation: Any) -> str:
    where = f"arguments{violation.json_path.removeprefix('$')}"
    return f"{where}: {violation.message}"[:MAX_SENTENCE_CHARACTERS]
