"""A client's configuration as a text: what servers it has, and one put in or taken out. Pure.

No text leaves here that was not read again and compared: it holds what the old one held, plus or
minus our entry, or it is not returned.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

from kiro_mcp.cli.clients import jsonc
from kiro_mcp.cli.clients.known import Client, Entry, Format
from kiro_mcp.cli.clients.text import CannotEdit, Path, as_object, is_object, looked_up, read_toml

_MARK: Final = "\ufeff"
"""The byte order mark, which Windows' editors put before a text."""

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Editor:
    """How documents of one format are read and changed."""

    read: Callable[[str], Document]
    set_value: Callable[[str, Path, object], str]
    remove: Callable[[str, Path], str]


_JSONC: Final = _Editor(read=jsonc.read, set_value=jsonc.set_value, remove=jsonc.remove)


def _set_toml(text: str, path: Path, value: object) -> str:
    from kiro_mcp.cli.clients.toml_edit import set_value  # Imports tomlkit, for edits alone.

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
        CannotEdit: The text, or what should hold the servers, is no object.
    """
    document = _EDITORS[client.format].read(text.removeprefix(_MARK))
    found = document.get(client.key, {})
    if not is_object(found):
        raise CannotEdit(f"{client.key!r} is not an object")
    return found


def with_server(text: str, client: Client, name: str, entry: Entry) -> str:
    """Return the configuration with a server.

    Of an entry that is there already only what the new one says is changed: what else the user
    has set in it, and variables of other names, stay.

    Raises:
        Unparsable, CannotEdit: As `servers`; or there is no safe place for the entry.
    """
    editor = _EDITORS[client.format]
    changed = text.removeprefix(_MARK)  # Some clients cannot read a file that begins with it.
    wanted = editor.read(changed)
    for path, value in _values(wanted, (client.key, name), entry):
        changed = editor.set_value(changed, path, value)
        _put(wanted, path, value)
    _require_same(editor.read(changed), wanted)
    return changed


def without_server(text: str, client: Client, name: str) -> str:
    """Return the configuration without a server; where it has none of the name, as it is.

    Raises:
        Unparsable, CannotEdit: As `with_server`.
    """
    if name not in servers(text, client):
        return text
    editor = _EDITORS[client.format]
    body = text.removeprefix(_MARK)
    wanted = editor.read(body)
    del as_object(wanted[client.key])[name]
    changed = editor.remove(body, (client.key, name))
    _require_same(editor.read(changed), wanted, may_lack=client.key)
    return changed


def _values(document: Document, place: Path, entry: Entry) -> list[tuple[Path, object]]:
    """Name what has to be set: the entry, or only its parts where there is one already."""
    if not is_object(looked_up(document, place)):
        return [(place, dict(entry))]
    values: list[tuple[Path, object]] = []
    for key, value in entry.items():
        if is_object(value) and is_object(looked_up(document, (*place, key))):
            values.extend(((*place, key, name), one) for name, one in value.items())
        else:
            values.append(((*place, key), value))
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
        raise CannotEdit("its form leaves no safe place for the change")
