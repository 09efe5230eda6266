"""JSON as editors' settings have it, read with the places of its parts. Pure.

Taken are RFC 8259, `//` and `/* */` comments, and a comma after the last member or element, which
is what VS Code and Zed take.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from kiro_mcp.cli.clients.text import Path, Unparsable, position

MAX_DEPTH: Final = 200
"""How deep objects and arrays may be nested; settings of real clients are under 20."""

_TRIVIA: Final = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*[\s\S]*?\*/)*")
_STRING: Final = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_ATOM: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_WORD: Final = re.compile(r"[\w.+-]+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands."""

    start: int
    end: int
    value: object
    members: tuple["Member", ...] | None = None
    """The members of an object on the way, in their order; None for every other value."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object."""

    key: str
    start: int
    """Where its key begins."""
    node: Node
    comma: int | None
    """Where the comma after it stands; None where there is none."""

    @property
    def end(self) -> int:
        """Where its value ends."""
        return self.node.end


def parse(text: str, path: Path = ()) -> Node | None:
    """Read a document; None where it holds nothing but blanks and comments.

    Args:
        text: The document.
        path: The way to what is of interest: objects off it may come without their members.

    Raises:
        Unparsable: It is no such JSON.
    """
    return _Reader(text).document(path)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_PLAIN: Final = json.JSONDecoder(parse_constant=_no_constant)
"""Reads what has no comments in it, thirty times as fast: Claude Code's file has megabytes."""


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def document(self, path: Path) -> Node | None:
        self._skip()
        if self._at == len(self._text):
            return None
        node = self._value(1, path)
        self._skip()
        if self._at < len(self._text):
            raise self._expected("the end")
        return node

    def _value(self, depth: int, path: Path | None) -> Node:
        """Read a value; the path leads on from it, None where it is off the way."""
        if depth > MAX_DEPTH:
            raise self._fault(f"it is nested deeper than {MAX_DEPTH} levels")
        start = self._at
        mark = self._text[start : start + 1]
        if path is None and mark in ("{", "[") and (plain := self._plain()):
            return plain
        match mark:
            case "{":
                return self._object(start, depth, path)
            case "[":
                return self._array(start, depth)
            case '"':
                value = self._string()
                return Node(start, self._at, value)
            case _:
                value = json.loads(self._matched(_ATOM, "a value"))
                return Node(start, self._at, value)

    def _plain(self) -> Node | None:
        start = self._at
        try:
            value, self._at = _PLAIN.raw_decode(self._text, start)
        except (ValueError, RecursionError):
            return None  # It has comments, or a fault that is told better by us.
        return Node(start, self._at, value)

    def _object(self, start: int, depth: int, path: Path | None) -> Node:
        self._at += 1
        members: list[Member] = []
        while not self._ends("}", members[-1].comma if members else start):
            key_start = self._at
            key = self._string()
            self._skip()
            if not self._takes(":"):
                raise self._expected("a colon")
            self._skip()
            node = self._value(depth + 1, path[1:] if path and path[0] == key else None)
            members.append(Member(key, key_start, node, self._comma()))
        value = {member.key: member.node.value for member in members}
        return Node(start, self._at, value, tuple(members))

    def _array(self, start: int, depth: int) -> Node:
        self._at += 1
        values: list[object] = []
        comma: int | None = start
        while not self._ends("]", comma):
            values.append(self._value(depth + 1, None).value)
            comma = self._comma()
        return Node(start, self._at, values)

    def _ends(self, bracket: str, comma: int | None) -> bool:
        """Take the closing bracket; without a comma before, nothing else may come."""
        self._skip()
        if self._takes(bracket):
            return True
        if comma is None or self._at == len(self._text):
            raise self._expected(f"a comma or {bracket!r}" if comma is None else f"{bracket!r}")
        return False

    def _comma(self) -> int | None:
        self._skip()
        found = self._at
        return found if self._takes(",") else None

    def _string(self) -> str:
        start = self._at
        if self._text.startswith('"', start) and not _STRING.match(self._text, start):
            raise self._fault("the text in quotes that begins here has no end in its line")
        token = self._matched(_STRING, "a text in double quotes")
        try:
            return json.loads(token)
        except ValueError as error:
            self._at = start
            raise self._fault("the text in quotes has a wrong escape in it") from error

    def _matched(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._expected(what)
        self._at = found.end()
        return found[0]

    def _takes(self, mark: str) -> bool:
        is_there = self._text.startswith(mark, self._at)
        self._at += is_there
        return is_there

    def _skip(self) -> None:
        found = _TRIVIA.match(self._text, self._at)
        assert found  # It matches nothing, too.
        self._at = found.end()

    def _expected(self, what: str) -> Unparsable:
        if self._text.startswith("/*", self._at):
            return self._fault("the comment that begins here has no end")
        found = _WORD.match(self._text, self._at)
        seen = repr(found[0][:20]) if found else "the end of the file"
        return self._fault(f"{what} should stand where {seen} does")

    def _fault(self, message: str) -> Unparsable:
        line, column = position(self._text, self._at)
        return Unparsable(message, line=line, column=column)
