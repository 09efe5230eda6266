"""Shared by the editors of JSON and of TOML. Pure."""

import re
import tomllib
from collections.abc import Iterable
from typing import Final, TypeAlias, TypeGuard

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a value from the top of a document."""


class Unparsable(ValueError):
    """A document breaks the rules of its format."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        """From 1."""
        self.column = column
        """From 1, in characters."""


class CannotEdit(ValueError):
    """A document is valid, but its layout does not allow a safe change."""


_TOML_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")


def read_toml(text: str) -> dict[str, object]:
    """Read a TOML document.

    Raises:
        Unparsable: It is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _TOML_POSITION.search(message)
        last_line = text.count("\n") + 1
        line, column = (int(found[1]), int(found[2])) if found else (last_line, 1)
        raise Unparsable(_TOML_POSITION.sub("", message), line=line, column=column) from error


def position(text: str, offset: int) -> tuple[int, int]:
    """Return the line and the column of an offset, both from 1."""
    line_start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - line_start + 1


def newline_of(text: str) -> str:
    """Return the line ending of a text."""
    return "\r\n" if "\r\n" in text else "\n"


def spliced(text: str, *edits: tuple[int, int, str]) -> str:
    """Replace parts of a text. An edit is a start, an end and the replacement.

    Edits at the same position are applied in the given order.
    """
    parts: list[str] = []
    at = 0
    for start, end, replacement in sorted(edits, key=lambda edit: edit[:2]):
        parts += (text[at:start], replacement)
        at = end
    return "".join((*parts, text[at:]))


def nested(path: Path, value: object) -> object:
    """Wrap a value in objects, one for each key of the path."""
    for key in reversed(path):
        value = {key: value}
    return value


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a value that was read from JSON or TOML is an object."""
    return isinstance(value, dict)


def as_object(value: object) -> dict[str, object]:
    """Return a value if it is an object, otherwise an empty object."""
    return value if is_object(value) else {}


def value_at(document: object, path: Iterable[str]) -> object:
    """Return the value at a path; None if the path does not exist."""
    for key in path:
        document = as_object(document).get(key)
    return document
