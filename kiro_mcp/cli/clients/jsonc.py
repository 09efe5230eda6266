"""JSON with comments, as in editors' settings: parsed with positions and edited in place. Pure.

The parser accepts RFC 8259, `//` and `/* */` comments, and a comma after the last member or
element, as VS Code and Zed do. An edit inserts or removes a whole member with its comma, or
replaces one value, and changes no other character::

    "servers": {                       "servers": {
      "other": {…} // mine      ⇄        "other": {…}, // mine
    }                                    "kiro": {…}
                                       }

`remove` undoes an insertion of `set_value` exactly. Only comments inside a replaced or removed
value are lost.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from kiro_mcp.cli.clients.text import (
    CannotEdit,
    Path,
    Unparsable,
    is_object,
    nested,
    newline_of,
    position,
    spliced,
)

MAX_DEPTH: Final = 200
"""How deep objects and arrays may be nested; settings of real clients are under 20."""

_TRIVIA: Final = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*[\s\S]*?\*/)*")
_STRING: Final = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_ATOM: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_WORD: Final = re.compile(r"[\w.+-]+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its position."""

    start: int
    end: int
    value: object
    members: tuple["Member", ...] | None = None
    """The members of an object on the path, in order; None for every other value."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object."""

    key: str
    start: int
    """The offset of its key."""
    node: Node
    comma: int | None
    """The offset of the comma after it; None if it has no comma."""

    @property
    def end(self) -> int:
        """The end of its value."""
        return self.node.end


def parse(text: str, path: Path = ()) -> Node | None:
    """Parse a document; None if it contains only blanks and comments.

    Args:
        text: The document.
        path: The path of the edit. Objects that are not on it may have no members in the result.

    Raises:
        Unparsable: The text is not JSON with comments.
    """
    return _Parser(text).document(path)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_PLAIN: Final = json.JSONDecoder(parse_constant=_refuse_constant)
"""Parses values without comments, thirty times as fast: Claude Code's file has megabytes."""


class _Parser:
    """Parses a text from left to right."""

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
        """Parse a value; `path` is the rest of the path of the edit, None if it is not on it."""
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
            return None  # It has comments, or an error that our own parser describes better.
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
        """Take the closing bracket, if it comes; another value needs a comma before it."""
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
            raise self._fault("the string that begins here does not end on its line")
        token = self._matched(_STRING, "a string in double quotes")
        try:
            return json.loads(token)
        except ValueError as error:
            self._at = start
            raise self._fault("the string has an invalid escape sequence") from error

    def _matched(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._expected(what)
        self._at = found.end()
        return found[0]

    def _takes(self, mark: str) -> bool:
        is_next = self._text.startswith(mark, self._at)
        self._at += is_next
        return is_next

    def _skip(self) -> None:
        found = _TRIVIA.match(self._text, self._at)
        assert found  # It also matches the empty string.
        self._at = found.end()

    def _expected(self, what: str) -> Unparsable:
        if self._text.startswith("/*", self._at):
            return self._fault("the comment that begins here does not end")
        found = _WORD.match(self._text, self._at)
        seen = repr(found[0][:20]) if found else "the end of the file"
        return self._fault(f"expected {what}, but found {seen}")

    def _fault(self, message: str) -> Unparsable:
        line, column = position(self._text, self._at)
        return Unparsable(message, line=line, column=column)


# --- editing ------------------------------------------------------------------------------


_SAME_LINE_COMMENTS: Final = re.compile(r"(?:[ \t]*/\*[\s\S]*?\*/)*(?:[ \t]*//[^\r\n]*)?")
_COMMENT: Final = re.compile(r"//[^\r\n]*|/\*[\s\S]*?\*/")
_BLANKS: Final = " \t\r\n"
_DEFAULT_INDENT: Final = "  "


def read(text: str) -> dict[str, object]:
    """Read a document that is an object; a document of blanks and comments counts as empty.

    Raises:
        Unparsable: The text is not JSON with comments.
        CannotEdit: The document is not an object.
    """
    root = parse(text)
    return {} if root is None else _object(root, ())


def read_strict(text: str) -> dict[str, object]:
    """Read a document for a client that accepts only RFC 8259, without comments.

    Raises:
        Unparsable, CannotEdit: As `read`; or it has comments or a comma at an end.
    """
    document = read(text)
    try:
        json.loads(text if text.strip(_BLANKS) else "{}")
    except json.JSONDecodeError as error:
        raise Unparsable(
            f"this client accepts neither comments nor a comma at an end ({error.msg})",
            line=error.lineno,
            column=error.colno,
        ) from error
    return document


def set_value(text: str, path: Path, value: object) -> str:
    """Return the document with a value set at a path; missing objects are created.

    Raises:
        Unparsable: The text is not JSON with comments.
        CannotEdit: A value on the path is not an object.
    """
    node = parse(text, path)
    style = _Style.of(text, node)
    if node is None:
        return _first_value(text, style, nested(path, value))
    for depth, key in enumerate(path):
        member = _member(node, path[:depth], key)
        if member is None:
            return _inserted(text, style, node, key, nested(path[depth + 1 :], value))
        node = member.node
    if node.value == value:
        return text
    written = style.written(value, _indent_at(text, node.start))
    return spliced(text, (node.start, node.end, written))


def remove(text: str, path: Path) -> str:
    """Return the document without the member at a path; unchanged if it does not exist.

    If its object is empty then, that is removed too, unless it is the whole document.

    Raises:
        Unparsable: The text is not JSON with comments.
        CannotEdit: A value on the path is not an object.
    """
    while found := _find(text, path):  # A key may occur twice.
        holder, member = found
        text = _cut(text, holder, member)
    if len(path) > 1 and (found := _find(text, path[:-1])):
        holder, member = found
        inside = text[member.node.start + 1 : member.node.end - 1]
        if member.node.members == () and not inside.strip(_BLANKS):
            text = _cut(text, holder, member)
    return text


def _find(text: str, path: Path) -> tuple[Node, Member] | None:
    """Return the member at a path, and the object that it is in."""
    node = parse(text, path)
    found: tuple[Node, Member] | None = None
    for depth, key in enumerate(path):
        member = node and _member(node, path[:depth], key)
        if node is None or member is None:
            return None
        found, node = (node, member), member.node
    return found


def _member(node: Node, path: Path, key: str) -> Member | None:
    _object(node, path)
    same = [member for member in node.members or () if member.key == key]
    return same[-1] if same else None  # If a key occurs twice, parsers use the last value.


def _object(node: Node, path: Path) -> dict[str, object]:
    if not is_object(node.value):
        raise CannotEdit(f"{'.'.join(path) or 'the document'} is not an object in braces")
    return node.value


# --- inserting -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Style:
    """The layout of a document."""

    newline: str
    unit: str
    """The indentation of one level."""

    @classmethod
    def of(cls, text: str, root: Node | None) -> "_Style":
        first = root.members[0].start if root and root.members else 0
        unit = _indent_at(text, first)
        is_own_line = text[:first].endswith(("\n" + unit, "\r" + unit))
        return cls(newline_of(text), (unit if is_own_line else "") or _DEFAULT_INDENT)

    def written(self, value: object, indent: str) -> str:
        """Write a value on several lines, all but the first after `indent`."""
        lines = json.dumps(value, ensure_ascii=False, indent=self.unit)
        return lines.replace("\n", self.newline + indent)

    def on_own_line(self, key: str, value: object, indent: str) -> str:
        return f"{self.newline}{indent}{_quoted(key)}: {self.written(value, indent)}"


def _first_value(text: str, style: _Style, document: object) -> str:
    """Append a value to a text that contains only blanks and comments."""
    gap = "" if not text or text.endswith("\n") else style.newline
    return f"{text}{gap}{style.written(document, '')}{style.newline}"


def _inserted(text: str, style: _Style, node: Node, key: str, value: object) -> str:
    if not node.members:
        return _inserted_first(text, style, node, key, value)
    first, last = node.members[0], node.members[-1]
    # If the last member has a comma after it, the new one gets one, too.
    if last.comma is None:
        after, comma_before, comma_after = last.end, ",", ""
    else:
        after, comma_before, comma_after = last.comma + 1, "", ","
    if "\n" in text[node.start : first.start]:
        comments = _SAME_LINE_COMMENTS.match(text, after)
        assert comments  # It also matches the empty string.
        offset = comments.end()
        new = style.on_own_line(key, value, _indent_at(text, last.start))
    else:
        offset = after
        new = f" {_on_one_line(key, value)}"
    return spliced(text, (after, after, comma_before), (offset, offset, new + comma_after))


def _inserted_first(text: str, style: _Style, node: Node, key: str, value: object) -> str:
    inside = text[node.start + 1 : node.end - 1]
    offset = node.start + 1 + len(inside.rstrip(_BLANKS))
    if node.start > 0 and "\n" not in text.strip(_BLANKS):
        return spliced(text, (offset, offset, _on_one_line(key, value)))
    indent = _indent_at(text, node.start)
    new = style.on_own_line(key, value, indent + style.unit)
    if "\n" not in text[offset : node.end]:
        new += style.newline + indent
    return spliced(text, (offset, offset, new))


def _quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _on_one_line(key: str, value: object) -> str:
    return f"{_quoted(key)}: {json.dumps(value, ensure_ascii=False)}"


def _indent_at(text: str, offset: int) -> str:
    """Return the indentation of the line that contains an offset."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip(" \t"))]


# --- removing ------------------------------------------------------------------------------------


def _cut(text: str, node: Node, member: Member) -> str:
    members = node.members or ()
    index = members.index(member)
    before = members[index - 1] if index else None
    end = member.end
    cuts = [(member.start, member.end, "")]
    if member.comma is not None:
        end = member.comma + 1
        cuts.append((member.comma, end, ""))
    elif before and before.comma is not None:
        cuts.append((before.comma, before.comma + 1, ""))
    after = before.end if before else node.start + 1
    cuts.append((*_blanks_to_cut(text, after, member.start, end, is_first=before is None), ""))
    text = spliced(text, *cuts)
    return _close_braces(text, node.start) if len(members) == 1 else text


def _blanks_to_cut(
    text: str, after: int, start: int, end: int, *, is_first: bool
) -> tuple[int, int]:
    """Choose the blanks to remove with a member; return their start and end.

    Args:
        text: The document.
        after: The end of the member before it, or of the opening brace.
        start: The start of the member.
        end: The end of the member, with its comma.
        is_first: Whether it is the first member of its object.
    """
    blanks = len(text[:start].rstrip(_BLANKS))
    line_break = text.rfind("\n", blanks, start)
    if line_break < 0:
        return (end, _skipped(text, end, " \t")) if is_first else (blanks, start)
    comments = _SAME_LINE_COMMENTS.match(text, end)
    has_comment = comments is not None and comments.end() > end
    # The text that follows must not become part of a comment on the line before.
    before = [found for found in _COMMENT.finditer(text, after, blanks) if found.end() == blanks]
    follows_comment = bool(before) and before[-1][0].startswith("//")
    ends_line = text[_skipped(text, end, " \t\r") :].startswith("\n")
    if has_comment or (follows_comment and not ends_line):
        return start, start
    return line_break - (text[line_break - 1] == "\r"), start


def _close_braces(text: str, start: int) -> str:
    """Remove the blanks between braces, if nothing else is between them."""
    end = _skipped(text, start + 1, _BLANKS)
    return spliced(text, (start + 1, end, "")) if text.startswith("}", end) else text


def _skipped(text: str, offset: int, characters: str) -> int:
    while offset < len(text) and text[offset] in characters:
        offset += 1
    return offset
