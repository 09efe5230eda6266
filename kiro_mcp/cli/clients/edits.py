"""Changes one value in a JSON, TOML or YAML text; comments, order and layout stay. Pure.

JSON may contain `//` and `/* */` comments and a comma after the last member, as in the settings of
VS Code and Zed. A copy with blanks in their place is plain JSON with the same offsets: `json`
parses it, and `_members` finds the offsets of members in it. The original text is edited::

    "servers": {                       "servers": {
      "other": {…} // mine      ⇄        "other": {…}, // mine
    }                                    "kiro": {…}
                                       }

In TOML, a new table is appended to the document, and a table is removed by its lines, so that
nothing else can change. tomlkit makes all other edits.

In YAML, ruamel.yaml tells where each value stands. A new member gets lines of its own after the
other members, and a removed member loses its lines. Values are written as JSON, which is YAML too.

Removing an inserted member restores the text exactly. Only comments inside the replaced or removed
part are lost. `config_file` parses the result again and compares it.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeGuard

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a value from the top of a document."""

Document: TypeAlias = dict[str, object]


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


def _nested(path: Path, value: object) -> object:
    """Wrap a value into one object per key."""
    for key in reversed(path):
        value = {key: value}
    return value


def _newline_of(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


# --- parsing JSON with comments -----------------------------------------------------------------

_BLANKS: Final = " \t\r\n"
_SKIPPED: Final = re.compile(r"[ \t\r\n]*")
_SKIPPED_IN_LINE: Final = re.compile(r"[ \t]*")
_STRING: Final = r'"[^"\\\r\n]*(?:\\.[^"\\\r\n]*)*"?'
_COMMENT_OR_STRING: Final = re.compile(_STRING + r"|//[^\r\n]*|/\*[\s\S]*?(?:\*/|\Z)")
_COMMA_OR_STRING: Final = re.compile(
    # A comma that follows no value stays, and `json` reports it.
    _STRING + r"|[\[{,:][ \t\r\n]*,|,(?=[ \t\r\n]*[}\]])"
)
_DECODER: Final = json.JSONDecoder()


class _Member(NamedTuple):
    """A member of an object, by offsets."""

    key: str
    start: int
    """The start of its key."""
    value_start: int
    end: int
    """The end of its value."""
    comma: int | None
    """The comma after it; None if it has none."""
    value: object


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


def _parse(text: str) -> tuple[Document, str, str]:
    """Return the document, the text as plain JSON, and that with the commas after last members."""
    plain = with_commas = text
    try:
        document: object = json.loads(text)  # Claude Code's file has megabytes and no comments.
    except (ValueError, RecursionError):
        with_commas = _COMMENT_OR_STRING.sub(_blank_comment, text)
        plain = _COMMA_OR_STRING.sub(lambda m: " " if m[0] == "," else m[0], with_commas)
        try:
            document = json.loads(plain if plain.strip(_BLANKS) else "{}")
        except json.JSONDecodeError as error:
            raise Unparsable(error.msg, line=error.lineno, column=error.colno) from error
        except (ValueError, RecursionError) as error:
            raise Unparsable("it has a value that cannot be read", line=1, column=1) from error
    if not is_object(document):
        raise CannotEdit("the document is not an object in braces")
    return document, plain, with_commas


def _blank_comment(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith('"'):
        return token
    if token.startswith("/*") and not (len(token) >= 4 and token.endswith("*/")):
        before = found.string[: found.start()]
        raise Unparsable(
            "the comment that starts here has no end",
            line=before.count("\n") + 1,
            column=found.start() - before.rfind("\n"),
        )
    return re.sub(r"[^\r\n]", " ", token)


def _members(plain: str, with_commas: str, start: int, path: Path) -> list[_Member]:
    """List the members of the object that starts at an offset."""
    if not plain.startswith("{", start):
        raise CannotEdit(f"{'.'.join(path) or 'the document'} is not an object in braces")
    members: list[_Member] = []
    at = _skip(plain, start + 1)
    while plain[at] != "}":
        key, key_end = _DECODER.raw_decode(plain, at)
        value_start = _skip(plain, _skip(plain, key_end) + 1)
        value, end = _DECODER.raw_decode(plain, value_start)
        after = _skip(with_commas, end)
        comma = after if with_commas[after] == "," else None
        members.append(_Member(key, at, value_start, end, comma, value))
        at = _skip(plain, end if comma is None else comma + 1)
    return members


def _deepest(plain: str, with_commas: str, path: Path) -> tuple[int, list[_Member], int]:
    """Find the last object on a path: its offset, its members, and its depth in the path."""
    start = _skip(plain, 0)
    for depth, key in enumerate(path[:-1]):
        members = _members(plain, with_commas, start, path[:depth])
        member = _last_of(members, key)
        if member is None:
            return start, members, depth
        start = member.value_start
    return start, _members(plain, with_commas, start, path[:-1]), len(path) - 1


def _last_of(members: Iterable[_Member], key: str) -> _Member | None:
    """Return the last member of a key: parsers use the last of several."""
    return {member.key: member for member in members}.get(key)


def _skip(text: str, offset: int, blanks: re.Pattern[str] = _SKIPPED) -> int:
    found = blanks.match(text, offset)
    assert found  # It also matches the empty string.
    return found.end()


# --- setting a value in JSON ---------------------------------------------------------------------

_SAME_LINE_COMMENTS: Final = re.compile(r"(?:[ \t]*/\*[\s\S]*?\*/)*(?:[ \t]*//[^\r\n]*)?")


def _set_json(text: str, path: Path, value: object) -> str:
    _, plain, with_commas = _parse(text)
    newline = _newline_of(text)
    at = _skip(plain, 0)
    if at == len(plain):
        gap = "" if not text or text.endswith("\n") else newline
        return f"{text}{gap}{_written(_nested(path, value), '  ', newline)}{newline}"
    start, members, depth = _deepest(plain, with_commas, path)
    first = _skip(plain, at + 1)
    indent = _indent_at(text, first)  # How the document indents a level.
    unit = (indent if text[:first].endswith(f"\n{indent}") else "") or "  "
    member = _last_of(members, path[depth])
    if member is None:
        rest = _nested(path[depth + 1 :], value)
        close = _skip(plain, start + 1)
        return _insert(text, start, close, members, path[depth], rest, unit, newline)
    if member.value == value:
        return text
    written = _written(value, unit, newline + _indent_at(text, member.value_start))
    return text[: member.value_start] + written + text[member.end :]


def _insert(
    text: str,
    start: int,
    close: int,
    members: list[_Member],
    key: str,
    value: object,
    unit: str,
    newline: str,
) -> str:
    """Add a member after the others of an object, in their style.

    The object begins at `start`. If it has no members, `close` is its closing brace. `unit` is the
    indentation of one level.
    """
    name = json.dumps(key, ensure_ascii=False)
    one_line = f"{name}: {json.dumps(value, ensure_ascii=False)}"
    if members:
        # If the last member has a comma after it, the new one gets one, too.
        comma = members[-1].comma
        after = members[-1].end if comma is None else comma + 1
        before_comma, after_comma = (",", "") if comma is None else ("", ",")
        there, new = after, f" {one_line}"
        if "\n" in text[start : members[0].start]:
            comments = _SAME_LINE_COMMENTS.match(text, after)
            assert comments  # It also matches the empty string.
            own_line = newline + _indent_at(text, members[-1].start)
            there, new = comments.end(), f"{own_line}{name}: {_written(value, unit, own_line)}"
        return text[:after] + before_comma + text[after:there] + new + after_comma + text[there:]
    there = start + 1 + len(text[start + 1 : close].rstrip(_BLANKS))
    if start > 0 and "\n" not in text.strip(_BLANKS):
        return text[:there] + one_line + text[there:]
    indent = newline + _indent_at(text, start)
    new = f"{indent}{unit}{name}: {_written(value, unit, indent + unit)}"
    if "\n" not in text[there:close]:
        new += indent
    return text[:there] + new + text[there:]


def _written(value: object, unit: str, own_line: str) -> str:
    """Format a value on several lines; `own_line` is a line ending with the indentation."""
    return json.dumps(value, ensure_ascii=False, indent=unit).replace("\n", own_line)


def _indent_at(text: str, offset: int) -> str:
    """Return the indentation of the line that contains an offset."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip(" \t"))]


# --- removing a member from JSON -----------------------------------------------------------------


def _remove_json(text: str, path: Path) -> str:
    while True:  # A key may occur twice.
        document, plain, with_commas = _parse(text)
        if path[-1] not in as_object(value_at(document, path[:-1])):
            return text
        start, members, _ = _deepest(plain, with_commas, path)
        text = _cut(text, start, members, path[-1])


def _cut(text: str, start: int, members: list[_Member], key: str) -> str:
    """Remove the last member of a key, with its comma, from the object that starts at `start`."""
    index = max(number for number, member in enumerate(members) if member.key == key)
    member = members[index]
    before = members[index - 1] if index else None
    cuts = [(member.start, member.end)]
    end = member.end
    if member.comma is not None:
        end = member.comma + 1
        cuts.append((member.comma, end))
    elif before and before.comma is not None:
        cuts.append((before.comma, before.comma + 1))
    # The blanks before it go, too, but what follows must not become part of a line comment.
    blanks = len(text[: member.start].rstrip(_BLANKS))
    line_break = text.rfind("\n", blanks, member.start)
    if line_break < 0 and before:
        cuts.append((blanks, member.start))
    elif line_break < 0:
        cuts.append((end, _skip(text, end, _SKIPPED_IN_LINE)))
    else:
        comments = _SAME_LINE_COMMENTS.match(text, end)
        has_comment = comments is not None and comments.end() > end
        line = text[text.rfind("\n", 0, blanks) + 1 : blanks]
        tokens = _COMMENT_OR_STRING.findall(line)
        follows_comment = any(token.startswith("//") for token in tokens)
        ends_line = text[_skip(text, end, _SKIPPED_IN_LINE) :].startswith(("\n", "\r\n"))
        if not has_comment and (ends_line or not follows_comment):
            cuts.append((line_break - (text[line_break - 1] == "\r"), member.start))
    for cut_start, cut_end in sorted(cuts, reverse=True):
        text = text[:cut_start] + text[cut_end:]
    if len(members) == 1:  # Remove the blanks between braces, if nothing else is between them.
        close = _skip(text, start + 1)
        if text.startswith("}", close):
            text = text[: start + 1] + text[close:]
    return text


# --- TOML ----------------------------------------------------------------------------------------

_TOML_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")


def _read_toml(text: str) -> Document:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _TOML_POSITION.search(message)
        last_line = text.count("\n") + 1
        line, column = (int(found[1]), int(found[2])) if found else (last_line, 1)
        raise Unparsable(_TOML_POSITION.sub("", message), line=line, column=column) from error


def _set_toml(text: str, path: Path, value: object) -> str:
    import tomlkit  # Only edits need it.

    document = _read_toml(text)
    if value_at(document, path) == value:
        return text
    if value_at(document, path[:2]) is None:
        longer = _append_table(text, path, value)
        try:
            tomllib.loads(longer)
        except tomllib.TOMLDecodeError:
            pass  # The parent cannot be extended: it is an inline table, for example.
        else:
            return longer

    def set_it(tree: Any) -> None:
        holder = tree
        for key in path[:-1]:
            if key not in holder:
                holder[key] = tomlkit.table() if holder is tree else tomlkit.inline_table()
            holder = holder[key]
        holder[path[-1]] = _toml_item(value)

    return re.sub("\r?\n", _newline_of(text), _with_tomlkit(text, path, set_it))


def _remove_toml(text: str, path: Path) -> str:
    wanted = _read_toml(text)
    if value_at(wanted, path) is None:
        return text
    del as_object(value_at(wanted, path[:-1]))[path[-1]]
    lines = text.splitlines(keepends=True)
    runs = _table_runs(lines, path)
    # What looks like a header may be in a string of several lines: then one of the runs is right.
    for chosen in ([run[0] for run in runs], *([one] for run in runs for one in run)):
        shorter = _cut_lines(lines, chosen)
        try:
            if {path[0]: {}, **tomllib.loads(shorter)} == {path[0]: {}, **wanted}:
                return shorter
        except tomllib.TOMLDecodeError:
            continue

    def remove_it(tree: Any) -> None:
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]

    return _with_tomlkit(text, path, remove_it)


def _table_runs(lines: list[str], path: Path) -> list[list[tuple[int, int]]]:
    """Find where tables at and below a path follow each other: their lines, from each header on.

    The comments after the last table of a run do not belong to it.
    """
    runs: list[list[tuple[int, int]]] = []
    starts: list[int] = []
    stop = 0
    for number, line in enumerate([*lines, "["]):
        mark = line.lstrip()[:1]
        if mark == "[":
            try:
                is_inside = value_at(tomllib.loads(line), path) is not None
            except tomllib.TOMLDecodeError:
                is_inside = False
            if is_inside:
                starts.append(number)
            elif starts:
                runs.append([(start, stop) for start in starts])
                starts = []
        if mark not in ("", "#"):
            stop = number + 1
    return runs


def _cut_lines(lines: list[str], runs: list[tuple[int, int]]) -> str:
    """Remove runs of lines, each with a blank line before it if another one follows."""
    left = list(lines)
    for start, stop in reversed(runs):
        is_apart = start > 0 and not left[start - 1].strip()
        is_apart = is_apart and (stop == len(left) or not left[stop].strip())
        del left[start - is_apart : stop]
    result = "".join(left)
    is_open = not lines[-1].endswith("\n")
    return result.removesuffix("\n").removesuffix("\r") if is_open else result


def _with_tomlkit(text: str, path: Path, change: Callable[[Any], None]) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        tree = tomlkit.parse(text)
        change(tree)
        return tomlkit.dumps(tree)
    except (TOMLKitError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise CannotEdit(f"{'.'.join(path)} cannot be changed ({error})") from error


def _append_table(text: str, path: Path, value: object) -> str:
    """Append the table path[:2], after a blank line; its keys are those below."""
    import tomlkit

    lines = [f"[{tomlkit.key(path[:2]).as_string()}]"]
    for key, one in as_object(_nested(path[2:], value)).items():
        lines.append(f"{tomlkit.key(key).as_string()} = {_toml_item(one).as_string()}")
    newline = _newline_of(text)
    block = newline.join(lines)
    if not text:
        return f"{block}{newline}"
    is_ended = text.endswith("\n")
    return f"{text}{newline}{block}{newline}" if is_ended else f"{text}{newline * 2}{block}"


def _toml_item(value: object) -> Any:
    """Return a value in the form that TOML has on one line."""
    import tomlkit

    if not is_object(value):
        return tomlkit.item(value)
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


def _set_yaml(text: str, path: Path, value: object) -> str:
    if value_at(_read_yaml(text), path) == value:
        return text
    holder, members = _yaml_members(text, path)
    newline = _newline_of(text)
    rest = _nested(path[len(members) :], value)
    if len(members) < len(path) and holder is not None:
        stop = _line_end(text, _yaml_end(text, *holder.value[-1]))
        return (
            text[:stop] + _yaml_text(rest, newline + " " * holder.start_mark.column) + text[stop:]
        )
    if not members:
        lines = _yaml_text(rest, newline)
        is_open = text and not text.endswith("\n")
        return text + lines if is_open else text + lines.removeprefix(newline) + newline
    key = members[-1][0]
    new = _yaml_text(rest, newline + " " * (key.start_mark.column + 2))
    stop = _yaml_end(text, *members[-1])
    after = _line_end(text, stop) if new.startswith(newline) else stop
    return f"{text[: key.end_mark.index]}:{text[stop:after]}{new}{text[after:]}"


def _remove_yaml(text: str, path: Path) -> str:
    """Remove a value, and each mapping that would be empty without it."""
    if value_at(_read_yaml(text), path) is None:
        return text
    _, members = _yaml_members(text, path)
    while len(members) > 1 and len(members[-2][1].value) == 1:
        members.pop()
    start = text.rfind("\n", 0, members[-1][0].start_mark.index)
    stop = _line_end(text, _yaml_end(text, *members[-1]))
    if start < 0:
        return text[stop:].removeprefix("\r").removeprefix("\n")
    return text[: start - text.endswith("\r", 0, start)] + text[stop:]


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
            return None, members
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


# --- the formats ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Format:
    """The functions that read and edit one format.

    Raises:
        Unparsable: All of them: the text breaks the rules of its format.
        CannotEdit: All of them: the document is not an object. The last two: its layout does not
            allow a safe change.
    """

    read: Callable[[str], Document]
    """Parses a document; an empty text counts as an empty object."""
    set_value: Callable[[str, Path, object], str]
    """Returns the document with a value set at a path; missing objects are created."""
    remove: Callable[[str, Path], str]
    """Returns the document without the value at a path; unchanged if the path does not exist."""


JSON: Final = Format(_read_json, _set_json, _remove_json)
JSONC: Final = Format(_read_jsonc, _set_json, _remove_json)
"""JSON that allows comments and a comma after the last member."""
TOML: Final = Format(_read_toml, _set_toml, _remove_toml)
YAML: Final = Format(_read_yaml, _set_yaml, _remove_yaml)
