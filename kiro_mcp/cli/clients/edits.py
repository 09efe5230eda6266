"""Changes one value in a JSON, TOML or YAML text; comments, order and layout stay. Pure.

Each format proposes texts. The first one that reads as it should, with everything that the old text
contained plus or minus the value, is the result. So no edit can damage a document::

    text ─▶ read ─▶ what the result should say ──┐
      └───▶ propose an edited text ─▶ read again ─┴─▶ equal: the result

JSON may contain `//` and `/* */` comments and a comma after the last member, as in the settings of
VS Code and Zed. A copy with blanks in their place is plain JSON with the same offsets: `json`
parses it, and `_find` finds the offsets of members in it. The original text is edited::

    "servers": {                       "servers": {
      "other": {…} // mine      ⇄        "other": {…}, // mine
    }                                    "kiro": {…}
                                       }

In TOML, a new table is appended to the document, and a table is changed or removed by its lines, so
that nothing else can change. Where that is not enough, tomlkit edits the whole document.

In YAML, ruamel.yaml tells where each value stands. A new member gets lines of its own after the
other members, and a removed member loses its lines. Values are written as JSON, which is YAML too.

Removing an inserted member restores the text exactly. Only comments inside the replaced or removed
part are lost.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeGuard

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a value from the top of a document."""

Document: TypeAlias = dict[str, object]

_BYTE_ORDER_MARK: Final = "\ufeff"
"""Editors on Windows put it at the start of a file. Some clients cannot read such a file."""


class Unparsable(ValueError):
    """A document breaks the rules of its format. Line and column count from 1."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class CannotEdit(ValueError):
    """A document is valid, but its layout does not allow a safe change."""


def is_object(value: object) -> TypeGuard[Document]:
    """Whether a value from a document is an object."""
    return isinstance(value, dict)


def as_object(value: object) -> Document:
    """Return the value if it is an object, else an empty object."""
    return value if is_object(value) else {}


def value_at(document: object, path: Iterable[str]) -> object:
    """Return the value at a path; None if the path does not exist."""
    for key in path:
        document = as_object(document).get(key)
    return document


@dataclass(frozen=True, slots=True)
class Format:
    """Reads and edits one format. A byte order mark is left out of the results.

    Raises:
        Unparsable: All methods: the text breaks the rules of its format.
        CannotEdit: All methods: the document is not an object. All but `read`: its layout does not
            allow a safe change.
    """

    _read: Callable[[str], Document]
    _set: Callable[[str, Path, object], Iterator[str]]
    _remove: Callable[[str, Path], Iterator[str]]

    def read(self, text: str) -> Document:
        """Parse a document; an empty text counts as an empty object."""
        return self._read(text.removeprefix(_BYTE_ORDER_MARK))

    def set_value(self, text: str, path: Path, value: object) -> str:
        """Return the document with a value set at a path; missing objects are created."""
        text = text.removeprefix(_BYTE_ORDER_MARK)
        wanted = self._read(text)
        if value_at(wanted, path) == value:
            return text
        holder = wanted
        for key in path[:-1]:
            holder[key] = holder = as_object(holder.get(key))
        holder[path[-1]] = value
        return self._first_right(self._set(text, path, value), path, wanted)

    def merge(self, text: str, path: Path, value: object) -> str:
        """Set a value at a path; in an object that is there already, set the members of the value.

        Other members of the object stay.
        """
        if not is_object(value) or not is_object(value_at(self.read(text), path)):
            return self.set_value(text, path, value)
        for key, one in value.items():
            text = self.merge(text, (*path, key), one)
        return text

    def remove(self, text: str, path: Path) -> str:
        """Return the document without the value at a path; unchanged if it does not exist."""
        body = text.removeprefix(_BYTE_ORDER_MARK)
        wanted = self._read(body)
        holder = as_object(value_at(wanted, path[:-1]))
        if path[-1] not in holder:
            return text
        del holder[path[-1]]
        return self._first_right(self._remove(body, path), path, wanted)

    def _first_right(self, proposals: Iterable[str], path: Path, wanted: Document) -> str:
        for proposal in proposals:
            try:
                found = self._read(proposal)
            except Unparsable:
                continue
            # In TOML and YAML, an object goes with its last member.
            if {path[0]: {}, **found} == {path[0]: {}, **wanted}:
                return proposal
        raise CannotEdit("its layout does not allow a safe change")


def _nested(path: Path, value: object) -> object:
    """Wrap a value into one object per key."""
    for key in reversed(path):
        value = {key: value}
    return value


def _newline_of(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


# --- JSON, with comments and with a comma after the last member ----------------------------------

_BLANKS: Final = " \t\r\n"
_SKIPPED: Final = re.compile(r"(?:[ \t\r\n]++|//[^\r\n]*+|/\*[\s\S]*?\*/)*+")
_COMMENTS_IN_LINE: Final = re.compile(r"(?:[ \t]*/\*[\s\S]*?\*/)*(?:[ \t]*//[^\r\n]*)?")
_STRING: Final = r'"[^"\\\r\n]*(?:\\.[^"\\\r\n]*)*"?'
_COMMENT_OR_STRING: Final = re.compile(_STRING + r"|//[^\r\n]*|/\*(?:[\s\S]*?\*/)?")
_COMMA_OR_STRING: Final = re.compile(
    # A comma that follows no value stays, and `json` reports it.
    _STRING + r"|[\[{,:][ \t\r\n]*,|,(?=[ \t\r\n]*[}\]])"
)
_DECODER: Final = json.JSONDecoder()


class _Member(NamedTuple):
    """A member of a JSON object, by offsets."""

    start: int
    value_start: int
    end: int
    comma: int | None
    """The comma after it; None if it has none."""


def _read_jsonc(text: str) -> Document:
    """Parse JSON with comments; only blanks and comments count as an empty object."""
    return _parse(text)[0]


def _read_json(text: str) -> Document:
    """Parse JSON for a client that allows neither comments nor a comma after the last member."""
    document = _read_jsonc(text)
    try:
        json.loads(text if text.strip(_BLANKS) else "{}")
    except json.JSONDecodeError as error:
        raise Unparsable(
            f"this client allows no comments and no comma after the last member ({error.msg})",
            line=error.lineno,
            column=error.colno,
        ) from error
    return document


def _parse(text: str) -> tuple[Document, str]:
    """Return the document, and the text as plain JSON with the same offsets."""
    plain = text
    try:
        try:
            document: object = json.loads(text)  # Claude Code's file has megabytes, no comments.
        except (ValueError, RecursionError):
            plain = _COMMENT_OR_STRING.sub(_blank_comment, text)
            plain = _COMMA_OR_STRING.sub(lambda m: " " if m[0] == "," else m[0], plain)
            document = json.loads(plain if plain.strip(_BLANKS) else "{}")
    except json.JSONDecodeError as error:
        raise Unparsable(error.msg, line=error.lineno, column=error.colno) from error
    except (ValueError, RecursionError) as error:
        raise Unparsable("it has a value that cannot be read", line=1, column=1) from error
    if not is_object(document):
        raise CannotEdit("the document is not an object in braces")
    return document, plain


def _blank_comment(found: re.Match[str]) -> str:
    piece = found[0]
    if piece.startswith('"'):
        return piece
    if piece == "/*":
        problem = "the comment that starts here has no end"
        raise json.JSONDecodeError(problem, found.string, found.start())
    return re.sub(r"[^\r\n]", " ", piece)


def _find(text: str, path: Path) -> tuple[int, list[_Member], int, int | None]:
    """Find a path in a valid document, or the beginning of the path.

    Returns:
        The start of the last object that exists, its members, the index in the path of the key
        that is looked for in it, and the index of that key's member; None if it has none.
    """
    plain = _parse(text)[1]
    start = _skip(text, 0)
    for depth, key in enumerate(path):
        if not text.startswith("{", start):
            raise CannotEdit(f"{'.'.join(path[:depth])} is not an object in braces")
        members: list[_Member] = []
        index: int | None = None
        at = _skip(text, start + 1)
        while text[at] != "}":
            name, name_end = _DECODER.raw_decode(plain, at)
            value_start = _skip(text, _skip(text, name_end) + 1)
            _, end = _DECODER.raw_decode(plain, value_start)
            after = _skip(text, end)
            comma = after if text[after] == "," else None
            if name == key:  # Parsers use the last of several members with the same key.
                index = len(members)
            members.append(_Member(at, value_start, end, comma))
            at = after if comma is None else _skip(text, comma + 1)
        if index is None or depth == len(path) - 1:
            return start, members, depth, index
        start = members[index].value_start
    raise AssertionError("a path has at least one key")


def _skip(text: str, offset: int, skipped: re.Pattern[str] = _SKIPPED) -> int:
    found = skipped.match(text, offset)
    assert found  # It also matches the empty string.
    return found.end()


def _indent_at(text: str, offset: int) -> str:
    """Return the indentation of the line that contains an offset."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _set_json(text: str, path: Path, value: object) -> Iterator[str]:
    newline = _newline_of(text)
    top = _skip(text, 0)
    if top == len(text):
        gap = "" if not text or text.endswith("\n") else newline
        text += f"{gap}{{}}{newline}"
        top = _skip(text, 0)
    start, members, depth, index = _find(text, path)
    first = _skip(text, top + 1)
    unit = _indent_at(text, first)  # How the document indents a level.
    unit = unit if unit and text.endswith(f"\n{unit}", 0, first) else "  "
    if index is not None:
        _, value_start, end, _ = members[index]
        own_line = newline + _indent_at(text, value_start)
        yield text[:value_start] + _written(value, unit, own_line) + text[end:]
        return
    # Add a member after the others, in their style.
    end = ""
    if members:
        last = members[-1]
        is_split = "\n" in text[start : members[0].start]
        own_line = newline + _indent_at(text, last.start) if is_split else ""
        at = last.end
        if last.comma is None:
            text = f"{text[:at]},{text[at:]}"
        else:  # The new one gets a comma after it, too.
            at, end = last.comma, ","
        at = _skip(text, at + 1, _COMMENTS_IN_LINE) if is_split else at + 1
        before = own_line or " "
    else:
        close = _skip(text, start + 1)
        at = start + 1 + len(text[start + 1 : close].rstrip(_BLANKS))
        is_split = start == top or "\n" in text.strip(_BLANKS)
        indent = newline + _indent_at(text, start)
        before = own_line = indent + unit if is_split else ""
        end = indent if is_split and "\n" not in text[at:close] else ""
    name = json.dumps(path[depth], ensure_ascii=False)
    member = _written(_nested(path[depth + 1 :], value), unit, own_line)
    yield f"{text[:at]}{before}{name}: {member}{end}{text[at:]}"


def _written(value: object, unit: str, own_line: str) -> str:
    """Format a value; `own_line` is a line ending with the indentation, or "" for one line."""
    indent = unit if own_line else None
    return json.dumps(value, ensure_ascii=False, indent=indent).replace("\n", own_line)


def _remove_json(text: str, path: Path) -> Iterator[str]:
    start, members, _, index = _find(text, path)
    while index is not None:  # A key may occur twice.
        text = _cut(text, start, members, index)
        start, members, _, index = _find(text, path)
    yield text


def _cut(text: str, start: int, members: list[_Member], index: int) -> str:
    """Remove a member, with its comma, from the object that starts at an offset."""
    member = members[index]
    left, middle, right = text[: member.start], "", text[member.end :]
    if member.comma is not None:
        middle, right = text[member.end : member.comma], text[member.comma + 1 :]
    # The blanks before it go, too, but what follows must not become part of a line comment.
    bare = left.rstrip(_BLANKS)
    line_break = left.rfind("\n", len(bare))
    if line_break >= 0:
        has_comment = _skip(right, 0, _COMMENTS_IN_LINE) > 0
        tokens = _COMMENT_OR_STRING.findall(bare[bare.rfind("\n") + 1 :])
        follows_comment = any(token.startswith("//") for token in tokens)
        ends_line = right.lstrip(" \t").startswith(("\n", "\r\n"))
        if not has_comment and (ends_line or not follows_comment):
            left = left[:line_break].removesuffix("\r")
    elif index:
        left = bare
    else:
        right = right.lstrip(" \t")
    if index and member.comma is None:  # The member before it is the last one now.
        comma = members[index - 1].comma
        assert comma is not None
        left = left[:comma] + left[comma + 1 :]
    text = left + middle + right
    if len(members) == 1:  # Remove the blanks between braces, if nothing else is between them.
        rest = text[start + 1 :].lstrip(_BLANKS)
        text = text[: start + 1] + rest if rest.startswith("}") else text
    return text


# --- TOML ----------------------------------------------------------------------------------------

_TOML_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_TOML_LONG_STRING: Final = r'"""(?:\\[\s\S]|[^\\])*?"{3,5}|' r"'''[\s\S]*?'{3,5}"
_TOML_STRING_OR_COMMENT: Final = re.compile(
    rf"""({_TOML_LONG_STRING})|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#.*"""
)


def _read_toml(text: str) -> Document:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _TOML_POSITION.search(message)
        last_line = text.count("\n") + 1
        line, column = (int(found[1]), int(found[2])) if found else (last_line, 1)
        raise Unparsable(_TOML_POSITION.sub("", message), line=line, column=column) from error


def _set_toml(text: str, path: Path, value: object) -> Iterator[str]:
    import tomlkit  # Only edits need it.

    newline = _newline_of(text)
    lines, is_inside = _lines_of_tables(text, path[:2])
    if value_at(_read_toml(text), path[:2]) is None:
        # It cannot be appended if its parent is an inline table, for example.
        members = {key: _toml_item(one) for key, one in as_object(_nested(path[2:], value)).items()}
        table = tomlkit.dumps({path[0]: {path[1]: members}}).replace("\n", newline)
        is_ended = not text or text.endswith("\n")
        gap = "" if not text else newline if is_ended else newline * 2
        yield text + gap + (table if is_ended else table.removesuffix(newline))
    elif True in is_inside:
        # tomlkit may move other tables, so it gets only these lines.
        start, stop = is_inside.index(True), len(lines) - is_inside[::-1].index(True)
        own = _with_tomlkit("".join(lines[start:stop]), path, _toml_item(value))
        own = re.sub("\r?\n", newline, own)
        yield "".join((*lines[:start], own, *lines[stop:]))
    yield re.sub("\r?\n", newline, _with_tomlkit(text, path, _toml_item(value)))


def _remove_toml(text: str, path: Path) -> Iterator[str]:
    lines, is_inside = _lines_of_tables(text, path)
    kept: list[str] = []
    for line, is_own, is_next_own, next_line in zip(
        lines, is_inside, [*is_inside[1:], False], [*lines[1:], ""], strict=True
    ):
        if not is_own:
            kept.append(line)
        # If there are blank lines before and after the tables, one of these goes, too.
        elif not (is_next_own or next_line.strip()) and kept and not kept[-1].strip():
            kept.pop()
    result = "".join(kept)
    yield result if text.endswith("\n") else result.removesuffix("\n").removesuffix("\r")
    yield _with_tomlkit(text, path, None)


def _lines_of_tables(text: str, path: Path) -> tuple[list[str], list[bool]]:
    """Return all lines, and whether each is in a table at or below a path.

    The blank lines and comments after the last statement of such tables are not.
    """
    # Within a string of several lines, a line may look like a header or a comment.
    masked = _TOML_STRING_OR_COMMENT.sub(
        lambda found: re.sub(r"\S", "x", found[0]) if found[1] else found[0], text
    )
    lines = text.splitlines(keepends=True)
    marks = [line.lstrip()[:1] for line in masked.splitlines()]
    is_inside: list[bool] = []
    is_own = False
    for line, mark in zip(lines, marks, strict=True):
        if mark == "[":
            with suppress(tomllib.TOMLDecodeError):  # It is a part of an array.
                is_own = value_at(tomllib.loads(line), path) is not None
        is_inside.append(is_own)
    is_own = False
    for index in reversed(range(len(lines))):
        is_own = is_inside[index] = is_inside[index] and (is_own or marks[index] not in ("", "#"))
    return lines, is_inside


def _with_tomlkit(text: str, path: Path, value: object) -> str:
    """Let tomlkit set a value, or remove it if the value is None."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        tree = tomlkit.parse(text)
        holder: Any = tree
        for key in path[:-1]:
            if key not in holder:
                holder[key] = tomlkit.table() if holder is tree else tomlkit.inline_table()
            holder = holder[key]
        if value is None:
            del holder[path[-1]]
        else:
            holder[path[-1]] = value
        return tomlkit.dumps(tree)
    except (TOMLKitError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise CannotEdit(f"{'.'.join(path)} cannot be changed ({error})") from error


def _toml_item(value: object) -> Any:
    """Return a value in the form that TOML has on one line."""
    import tomlkit

    if not is_object(value):
        return value
    table = tomlkit.inline_table()
    for key, one in value.items():
        table[key] = _toml_item(one)
    return table


# --- YAML ----------------------------------------------------------------------------------------


def _read_yaml(text: str) -> Document:
    """Parse a YAML document; its members without a value are left out."""
    document = _with_yaml("load", text) if text else None
    if document is not None and not is_object(document):
        raise CannotEdit("the document is not a mapping")
    return {key: value for key, value in as_object(document).items() if value is not None}


def _set_yaml(text: str, path: Path, value: object) -> Iterator[str]:
    holder, members = _yaml_members(text, path)
    newline = _newline_of(text)
    rest = _nested(path[len(members) :], value)
    if holder is not None:  # Add a member after the others.
        at = _line_end(text, _yaml_end(text, *holder.value[-1]))
        yield text[:at] + _yaml_text(rest, newline + " " * holder.start_mark.column) + text[at:]
    elif members:  # Replace the value of the last one.
        key = members[-1][0]
        new = _yaml_text(rest, newline + " " * (key.start_mark.column + 2))
        stop = _yaml_end(text, *members[-1])
        after = _line_end(text, stop) if new.startswith(newline) else stop
        yield f"{text[: key.end_mark.index]}:{text[stop:after]}{new}{text[after:]}"
    else:
        lines = _yaml_text(rest, newline)
        is_open = text and not text.endswith("\n")
        yield text + lines if is_open else text + lines.removeprefix(newline) + newline


def _remove_yaml(text: str, path: Path) -> Iterator[str]:
    """Remove a value, and each mapping that would be empty without it."""
    _, members = _yaml_members(text, path)
    if len(members) < len(path):
        return  # It comes from an anchor elsewhere.
    while len(members) > 1 and len(members[-2][1].value) == 1:
        members.pop()
    start = text.rfind("\n", 0, members[-1][0].start_mark.index)
    after = text[_line_end(text, _yaml_end(text, *members[-1])) :]
    if start < 0:
        yield after.removeprefix("\r").removeprefix("\n")
    else:
        yield text[:start].removesuffix("\r") + after


def _with_yaml(method: Literal["load", "compose"], text: str) -> Any:
    from ruamel.yaml import YAML, YAMLError  # Only one client has YAML.

    yaml: Any = YAML(typ="safe", pure=True)
    try:
        return yaml.load(text) if method == "load" else yaml.compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = mark.index if mark else getattr(error, "position", 0)
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise Unparsable(
            problem.partition(" with value ")[0],  # The values of a double key may be secret.
            line=text.count("\n", 0, at) + 1,
            column=at - text.rfind("\n", 0, at),
        ) from error
    except (ValueError, RecursionError) as error:
        raise Unparsable("it has a value that cannot be read", line=1, column=1) from error


def _yaml_members(text: str, path: Path) -> tuple[Any, list[tuple[Any, Any]]]:
    """Find the members on a path, each as the nodes of its key and its value.

    Returns:
        The mapping that has no member for the next key, None if it is missing or empty; and the
        members before.
    """
    node = _with_yaml("compose", text)
    members: list[tuple[Any, Any]] = []
    for depth, key in enumerate(path):
        if node is None or node.tag.endswith(":null") or (node.id == "mapping" and not node.value):
            break
        if node.id != "mapping" or node.flow_style:
            where = ".".join(path[:depth]) or "the document"
            raise CannotEdit(f"{where} is not a mapping with lines of its own")
        member = next((pair for pair in node.value if pair[0].value == key), None)
        if member is None:
            return node, members
        members.append(member)
        node = member[1]
    return None, members


def _yaml_end(text: str, key: Any, value: Any) -> int:
    """Return the end of a member, without the comments after it."""
    while value.id != "scalar" and value.value and not value.flow_style:
        last = value.value[-1]
        key, value = last if value.id == "mapping" else (key, last)
    if value.start_mark.index == value.end_mark.index:  # It has no value.
        return text.index(":", key.end_mark.index) + 1
    return len(text[: value.end_mark.index].rstrip())


def _yaml_text(value: object, own_line: str) -> str:
    """Format what comes after a key and its colon; `own_line` is as in `_written`."""
    if not is_object(value) or not value:
        return f" {json.dumps(value, ensure_ascii=False)}"
    lines = ""
    for key, one in value.items():
        name = key if _with_yaml("load", key) == key else json.dumps(key)
        lines += f"{own_line}{name}:{_yaml_text(one, own_line + '  ')}"
    return lines


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found - text.endswith("\r", 0, found)


JSON: Final = Format(_read_json, _set_json, _remove_json)
JSONC: Final = Format(_read_jsonc, _set_json, _remove_json)
"""JSON that allows comments and a comma after the last member."""
TOML: Final = Format(_read_toml, _set_toml, _remove_toml)
YAML: Final = Format(_read_yaml, _set_yaml, _remove_yaml)
