"""Change one value in a TOML document, and leave every other character as it is. Pure.

A document is cut into statements, which are lines but for values that go over several::

    # a comment                         comment
    [mcp_servers.other]                 header    mcp_servers.other
    args = [                            pair      mcp_servers.other.args
      "x",  # why
    ]

What a statement means is left to `tomllib`. A new table goes to the end, where it cannot become
part of another; whoever edits reads the outcome again and compares (`documents`).
"""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

from kiro_mcp.cli.clients.text import (
    CannotEdit,
    Path,
    Unparsable,
    as_object,
    is_object,
    looked_up,
    newline_of,
    spliced,
)

_TOKEN: Final = re.compile(
    r"""
      \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2}    # texts of several lines; two more quotes may end them
    | '''.*?''''{0,2}
    | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
    | \#[^\n]*
    | [ \t\r]+ | \n | [\[{] | [\]}] | =
    | [^\s"'\#\[\]{}=]+
    """,
    re.VERBOSE | re.DOTALL,
)
_PLACE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_TABLE_DEPTH: Final = 2
"""At this depth a new object becomes a table of its own; below it stands in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A line, or the lines of one value."""

    kind: Literal["header", "pair", "comment", "blank"]
    start: int
    """The beginning of its first line."""
    end: int
    """The end of its last line, with its line break."""
    table: Path
    """The table that it stands in; its own for a header."""
    path: Path = ()
    """What it defines: a table or a value."""
    value: tuple[int, int] = (0, 0)
    """Where the value of a pair stands."""


def read(text: str) -> dict[str, object]:
    """Read a document.

    Raises:
        Unparsable: It is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _PLACE.search(message)
        last_line = text.count("\n") + 1
        line, column = (int(found[1]), int(found[2])) if found else (last_line, 1)
        raise Unparsable(_PLACE.sub("", message), line=line, column=column) from error


def set_value(text: str, path: Path, value: object) -> str:
    """Return the document with a value put at a path; tables on the way are made.

    Raises:
        Unparsable: It is no TOML.
        CannotEdit: Its form has no safe place for the value.
    """
    document = read(text)
    if looked_up(document, path) == value:
        return text
    statements = tuple(scan(text))
    for pair in _pairs(statements):
        if path[: len(pair.path)] == pair.path:
            inside = _with(looked_up(document, pair.path), path[len(pair.path) :], value)
            return spliced(text, (*pair.value, _written(inside)))
    if len(path) == _TABLE_DEPTH:
        return _with_table(text, path, value)
    holders = [one for one in statements if _belongs(one, path[:-1])]
    if holders:
        return _with_pair(text, statements, holders[-1], path, value)
    return set_value(text, path[:-1], {path[-1]: value})


def remove(text: str, path: Path) -> str:
    """Return the document without what is at a path; where there is nothing, as it is.

    Raises:
        Unparsable: It is no TOML.
        CannotEdit: It cannot be told apart from other values.
    """
    document = read(text)
    if looked_up(document, path) is None:
        return text
    statements = tuple(scan(text))
    for pair in _pairs(statements):
        if len(pair.path) < len(path) and path[: len(pair.path)] == pair.path:
            inside = _without(looked_up(document, pair.path), path[len(pair.path) :])
            return spliced(text, (*pair.value, _written(inside)))
    cuts = [(start, end, "") for start, end in _blocks(statements, path)]
    is_last = bool(cuts) and cuts[-1][1] == len(text)
    shorter = spliced(text, *cuts)
    if is_last and not text.endswith("\n"):
        return shorter.removesuffix("\n").removesuffix("\r")
    return shorter


# --- taking apart --------------------------------------------------------------------------------


def scan(text: str) -> Iterator[Statement]:
    """Cut a document that is known to be TOML into its statements, which together are all of it."""
    table: Path = ()
    start = 0
    while start < len(text):
        end, marks = _statement_end(text, start)
        content = text[start:end]
        stripped = content.strip()
        if not stripped or stripped.startswith("#"):
            kind = "comment" if stripped else "blank"
            yield Statement(kind=kind, start=start, end=end, table=table)
        elif stripped.startswith("["):
            table = _header_path(stripped)
            yield Statement(kind="header", start=start, end=end, table=table, path=table)
        else:
            equals, value_start, value_end = marks
            key = tomllib.loads(f"{text[start:equals]}= 0")
            path = (*table, *_only_path(key))
            yield Statement(
                kind="pair",
                start=start,
                end=end,
                table=table,
                path=path,
                value=(value_start, value_end),
            )
        start = end


def _statement_end(text: str, start: int) -> tuple[int, tuple[int, int, int]]:
    """Find the end of a statement, and in it the equals sign and where the value stands."""
    at, depth = start, 0
    equals = value_start = value_end = -1
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise CannotEdit(f"the text at character {at} could not be followed")
        mark = token[0]
        at = token.end()
        if mark == "\n" and depth == 0:
            break
        if mark == "=" and equals < 0:
            equals = token.start()
        elif not mark.isspace() and not mark.startswith("#"):
            depth += (mark in "[{") - (mark in "]}")
            if equals >= 0:
                value_start = token.start() if value_start < 0 else value_start
                value_end = at
    return at, (equals, value_start, value_end)


def _header_path(header: str) -> Path:
    return _only_path(tomllib.loads(header))


def _only_path(document: object) -> Path:
    """Follow a document that has one key at each level down to its last one."""
    path: list[str] = []
    while True:
        if isinstance(document, list):  # A table in an array of them.
            (document,) = cast("list[object]", document)
        inside = as_object(document)
        if not inside:
            return tuple(path)
        ((key, document),) = inside.items()
        path.append(key)


def _pairs(statements: Iterable[Statement]) -> Iterator[Statement]:
    return (one for one in statements if one.kind == "pair")


def _belongs(statement: Statement, table: Path) -> bool:
    """Whether a statement opens a table, or puts something into it from where that can be done."""
    if statement.kind == "header":
        return statement.path == table
    is_inside = statement.path[: len(table)] == table
    return is_inside and statement.table == table[: len(statement.table)]


def _blocks(statements: tuple[Statement, ...], path: Path) -> Iterator[tuple[int, int]]:
    """Yield the parts of a text that define what is at a path or below it.

    A table's part ends with its last value: comments after that may belong to the next one. One
    blank line before it goes, too.
    """
    place = 0
    while place < len(statements):
        first = statements[place]
        if not first.path or first.path[: len(path)] != path:
            place += 1
            continue
        last = place
        if first.kind == "header":
            for later in range(place + 1, len(statements)):
                if statements[later].kind == "header":
                    break
                if statements[later].kind == "pair":
                    last = later
        has_blank = first.kind == "header" and place > 0 and statements[place - 1].kind == "blank"
        yield statements[place - has_blank].start, statements[last].end
        place = last + 1


# --- putting together ----------------------------------------------------------------------------


def _with_table(text: str, path: Path, value: object) -> str:
    """Write a new table at the end, after a blank line."""
    newline = newline_of(text)
    lines = [
        f"[{_key(path)}]",
        *(f"{_key((key,))} = {_written(one)}" for key, one in as_object(value).items()),
    ]
    block = newline.join(lines)
    if not text:
        return block + newline
    if text.endswith("\n"):
        return f"{text}{newline}{block}{newline}"
    return f"{text}{newline}{newline}{block}"


def _with_pair(
    text: str, statements: tuple[Statement, ...], holder: Statement, path: Path, value: object
) -> str:
    """Write a new pair after the last one of the table that its path belongs to."""
    same_table = statements[statements.index(holder) :]
    last = holder
    for one in same_table:
        if one.table != holder.table:
            break
        last = one if one.kind == "pair" else last
    newline = newline_of(text)
    line = f"{_key(path[len(holder.table) :])} = {_written(value)}"
    if text[: last.end].endswith("\n"):
        return spliced(text, (last.end, last.end, line + newline))
    return spliced(text, (last.end, last.end, newline + line))


def _with(inside: object, path: Path, value: object) -> object:
    if not path:
        return value
    if not is_object(inside):
        raise CannotEdit(f"{path[0]} would belong to something that is no table")
    return {**inside, path[0]: _with(inside.get(path[0], {}), path[1:], value)}


def _without(inside: object, path: Path) -> object:
    table = as_object(inside)
    kept = {key: value for key, value in table.items() if key != path[0]}
    return kept if len(path) == 1 else {**table, path[0]: _without(table[path[0]], path[1:])}


def _key(path: Path) -> str:
    return ".".join(key if _BARE_KEY.fullmatch(key) else _text(key) for key in path)


def _text(text: str) -> str:
    # JSON's escapes are TOML's; but TOML wants one for DEL, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _written(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case list():
            return f"[{', '.join(_written(one) for one in cast('list[object]', value))}]"
        case dict():
            pairs = as_object(cast("object", value)).items()
            inside = ", ".join(f"{_key((key,))} = {_written(one)}" for key, one in pairs)
            return f"{{ {inside} }}" if inside else "{}"
        case _:
            raise CannotEdit(f"a value like {value!r} is not written anew")
