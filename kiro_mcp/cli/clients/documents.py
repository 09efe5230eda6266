"""A client's configuration as text: lists its servers, adds one, removes one. Pure.

Each edited text is parsed again and compared before it is returned: it must contain everything
that the old text contained, plus or minus our entry.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

from kiro_mcp.cli.clients import jsonc
from kiro_mcp.cli.clients.known import Client, Entry, Format
from kiro_mcp.cli.clients.text import CannotEdit, Path, as_object, is_object, read_toml, value_at

_BYTE_ORDER_MARK: Final = "\ufeff"
"""Editors on Windows put it at the start of a file."""

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Editor:
    """The functions that read and edit one format."""

    read: Callable[[str], Document]
    set_value: Callable[[str, Path, object], str]
    remove: Callable[[str, Path], str]


_JSONC: Final = _Editor(read=jsonc.read, set_value=jsonc.set_value, remove=jsonc.remove)


def _set_toml(text: str, path: Path, value: object) -> str:
    from kiro_mcp.cli.clients.toml_edit import set_value  # Imports tomlkit; only edits need it.

    return set_value(text, path, value)


def _remove_toml(text: str, path: Path) -> str:
    from kiro_mcp.cli.clients.toml_edit import remove

    return remove(text, path)


_EDITORS: Final[Mapping[Format, _Editor]] = {
    "json": replace(_JSONC, read=jsonc.read_strict),
    "jsonc": _JSONC,
    "toml": _Editor(read=read_toml, set_value=_set_toml, remove=_remove_toml),
}


def servers(text: str, client: Client) -> dict[str, object]:
    """Return the servers of a configuration by name.

    Raises:
        Unparsable: The text breaks the rules of its format.
        CannotEdit: The document, or its member for the servers, is not an object.
    """
    document = _EDITORS[client.format].read(text.removeprefix(_BYTE_ORDER_MARK))
    found = document.get(client.key, {})
    if not is_object(found):
        raise CannotEdit(f"{client.key!r} is not an object")
    return found


def with_server(text: str, client: Client, name: str, entry: Entry) -> str:
    """Return the configuration with a server.

    In an existing entry, only the members of the new entry change. Other members and other
    variables of the user stay.

    Raises:
        Unparsable, CannotEdit: As `servers`; or the entry cannot be added safely.
    """
    editor = _EDITORS[client.format]
    # Some clients cannot read a file that begins with a byte order mark.
    changed = text.removeprefix(_BYTE_ORDER_MARK)
    wanted = editor.read(changed)
    for path, value in _values(wanted, (client.key, name), entry):
        changed = editor.set_value(changed, path, value)
        _put(wanted, path, value)
    _require_same(editor.read(changed), wanted)
    return changed


def without_server(text: str, client: Client, name: str) -> str:
    """Return the configuration without a server; unchanged if it has no server of this name.

    Raises:
        Unparsable, CannotEdit: As `with_server`.
    """
    if name not in servers(text, client):
        return text
    editor = _EDITORS[client.format]
    body = text.removeprefix(_BYTE_ORDER_MARK)
    wanted = editor.read(body)
    del as_object(wanted[client.key])[name]
    changed = editor.remove(body, (client.key, name))
    _require_same(editor.read(changed), wanted, may_lack=client.key)
    return changed


def _values(document: Document, path: Path, entry: Entry) -> list[tuple[Path, object]]:
    """Return the values to set, with their paths: the entry, or the members of an existing one."""
    if not is_object(value_at(document, path)):
        return [(path, dict(entry))]
    values: list[tuple[Path, object]] = []
    for key, value in entry.items():
        if is_object(value) and is_object(value_at(document, (*path, key))):
            values.extend(((*path, key, name), one) for name, one in value.items())
        else:
            values.append(((*path, key), value))
    return values


def _put(document: Document, path: Path, value: object) -> None:
    inside: Any = document
    for key in path[:-1]:
        inside = inside.setdefault(key, {})
    inside[path[-1]] = deepcopy(value)


def _require_same(document: Document, wanted: Document, *, may_lack: str = "") -> None:
    if may_lack and not wanted.get(may_lack):
        document, wanted = dict(document), dict(wanted)
        if not document.pop(may_lack, {}):
            wanted.pop(may_lack, None)
    if document != wanted:
        raise CannotEdit("its layout does not allow a safe change")
