"""Changes one value in a TOML document and keeps its comments and its layout. Pure.

* A new table is appended to the document, so that nothing before it can change.
* A value in an existing table is changed in tomlkit's tree of the document.
* A removal is made in the tree, too. tomlkit assigns the comments above a table to the table
  before it and would remove them, so they are put back.

`documents` parses the result again and compares it.
"""

import difflib
import re
import tomllib
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item

from kiro_mcp.cli.clients.text import (
    CannotEdit,
    Path,
    as_object,
    is_object,
    nested,
    newline_of,
    read_toml,
    value_at,
)


def set_value(text: str, path: Path, value: object) -> str:
    """Return the document with a value set at a path; missing tables are created.

    Raises:
        Unparsable: The text is not TOML.
        CannotEdit: The layout does not allow a safe change.
    """
    document = read_toml(text)
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
    try:
        tree = tomlkit.parse(text)
        holder: Any = tree
        for key in path[:-1]:
            if key not in holder:
                holder[key] = tomlkit.inline_table() if holder is not tree else tomlkit.table()
            holder = holder[key]
        holder[path[-1]] = _item(value)
        changed = tomlkit.dumps(tree)
    except (TOMLKitError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise CannotEdit(f"{'.'.join(path)} cannot be set ({error})") from error
    return re.sub("\r?\n", newline_of(text), changed)


def remove(text: str, path: Path) -> str:
    """Return the document without the value at a path; unchanged if the path does not exist.

    Raises:
        Unparsable: The text is not TOML.
        CannotEdit: The layout does not allow a safe change.
    """
    if value_at(read_toml(text), path) is None:
        return text
    try:
        tree = tomlkit.parse(text)
        holder: Any = tree
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        shorter = tomlkit.dumps(tree)
    except (TOMLKitError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise CannotEdit(f"{'.'.join(path)} cannot be removed ({error})") from error
    return _restore_comments(text, shorter)


def _append_table(text: str, path: Path, value: object) -> str:
    """Append the table path[:2], after a blank line, with the keys below it."""
    table = as_object(nested(path[2:], value))
    lines = [f"[{tomlkit.key(path[:2]).as_string()}]"]
    lines += [
        f"{tomlkit.key(key).as_string()} = {_item(one).as_string()}" for key, one in table.items()
    ]
    newline = newline_of(text)
    block = newline.join(lines)
    if not text:
        return f"{block}{newline}"
    is_ended = text.endswith("\n")
    return f"{text}{newline}{block}{newline}" if is_ended else f"{text}{newline * 2}{block}"


def _item(value: object) -> Item:
    """Return a value as TOML writes it on one line."""
    if not is_object(value):
        return tomlkit.item(value)
    table = tomlkit.inline_table()
    for key, one in value.items():
        table[key] = _item(one)
    return table


def _restore_comments(text: str, shorter: str) -> str:
    """Put back the comments between a removed table and the next one, and blank lines."""
    before, after = text.splitlines(keepends=True), shorter.splitlines(keepends=True)
    kept: list[str] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind != "delete":
            kept += after[new_start:new_end]
            continue
        while end < len(before) and before[start] == before[end] and not before[start].strip():
            kept.append(before[start])
            start, end = start + 1, end + 1
        # One blank line goes with the table; comments behind it may be about the next one.
        rest = end
        while rest > start and before[rest - 1].lstrip()[:1] in ("", "#"):
            rest -= 1
        if kept and not kept[-1].strip() and (rest == len(before) or not before[rest].strip()):
            kept.pop()
        kept += before[rest:end]
    result = "".join(kept)
    is_open = not text.endswith("\n")
    return result.removesuffix("\n").removesuffix("\r") if is_open else result
