"""TOML: one table put in or taken out, and not a character besides."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.cli.clients.edits import TOML, CannotEdit, Unparsable, value_at

ENTRY = {"command": "C:\\uv\\uvx.exe", "args": ["kiro-mcp"], "env": {"KIRO_API_KEY": "ksk_\x7f"}}
PLACE = ("mcp_servers", "kiro")
moderate = settings(derandomize=True, max_examples=60, deadline=None)

BLOCK = """\
[mcp_servers.kiro]
command = "new"
args = []
"""


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a = 1\nb = ]", 2, "Invalid value"),
        ("a = [\n", 2, "Invalid value"),
        ("a = 1\na = 2", 2, "a"),
    ],
)
def test_a_toml_error_is_reported_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(Unparsable, match=says) as caught:
        TOML.read(text)
    assert caught.value.line == line
    assert "at line" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", BLOCK),
        ("# mine\n", f"# mine\n\n{BLOCK}"),
        ("a = 1", f"a = 1\n\n{BLOCK}".removesuffix("\n")),
        ("a = 1\r\n", f"a = 1\n\n{BLOCK}".replace("\n", "\r\n")),
        ('[mcp_servers]\nb.command = "x"\n', f'[mcp_servers]\nb.command = "x"\n\n{BLOCK}'),
        (
            'mcp_servers = { b = { c = "x" } } # mine\n',
            'mcp_servers = { b = { c = "x" }, kiro = {command = "new", args = []}} # mine\n',
        ),
    ],
)
def test_a_new_table_is_appended_with_the_files_line_endings(before: str, after: str) -> None:
    """At the end, it cannot become part of another table."""
    assert TOML.set_value(before, PLACE, {"command": "new", "args": []}) == after
    assert TOML.remove(after, PLACE) == before


ENTRIES = {
    "a table": '[mcp_servers.kiro]\n# why\ncommand = "old" # mine\n\n[other]\n',
    "quoted keys": "[ mcp_servers . 'kiro' ]\n\"command\" = 'old'\n",
    "one line": '[mcp_servers]\nkiro = { command = "old", tags = [1, 2.5, true] }\n',
    "dotted keys": '[mcp_servers]\nkiro.command = "old"\nb = { command = "old" }\n',
    "several lines": '[mcp_servers.kiro]\ncommand = """\nold"""\nargs = [\n  "x", # [b]\n]\n',
    "no table of its own": '[mcp_servers.kiro.tools.ask]\nmode = "old"\n[b]\n',
}


@pytest.mark.parametrize("before", ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize(
    ("path", "value"),
    [(("command",), "new"), (("args",), ["new"]), (("env", "A"), "new"), (("env",), {"A": "new"})],
    ids=lambda part: str(part),
)
def test_a_value_is_set_in_every_way_to_write_an_entry(
    before: str, path: tuple[str, ...], value: object
) -> None:
    """TOML has five ways to write the same table."""
    place = (*PLACE, *path)
    after = TOML.set_value(before, place, value)
    assert value_at(TOML.read(after), place) == value
    assert TOML.set_value(after, place, value) == after
    kept: Any = TOML.read(before)["mcp_servers"]
    found: Any = TOML.read(after)["mcp_servers"]
    assert found.keys() == kept.keys()
    rest = {key: held for key, held in kept["kiro"].items() if key != path[0]}
    assert {key: held for key, held in found["kiro"].items() if key != path[0]} == rest
    assert all(comment in after for comment in ("# why", "# mine") if comment in before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '[mcp_servers.kiro]\ncommand = "x"\n\n[mcp_servers.kiro.env]\nA = "1"\n# of b\n[b]\n',
            "# of b\n[b]\n",
        ),
        ('[a]\n\n[mcp_servers.kiro]\ncommand = "x"\n\n# of b\n[b]\n', "[a]\n\n# of b\n[b]\n"),
        (
            '[mcp_servers]\nkiro.command = "x" # y\nb.command = "z"\n',
            '[mcp_servers]\nb.command = "z"\n',
        ),
        ("[mcp_servers.kiro-2]\n", "[mcp_servers.kiro-2]\n"),
        ("", ""),
    ],
)
def test_removing_an_entry_keeps_the_comment_of_the_next_table(before: str, after: str) -> None:
    """A comment above a table is about that table."""
    assert TOML.remove(before, PLACE) == after


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_changing_an_entry_moves_no_other_table(newline: str) -> None:
    """Codex writes its own tables between those of the servers, in the order of their making."""
    before = (
        '[mcp_servers.kiro] # mine\ncommand = "old" # why\n\n[mcp_servers.kiro.env]\nA = "b"\n\n'
        '# Hooks\n[[hooks.stop]]\nrun = "x"\n\n[mcp_servers.other]\ncommand = "y"\n'
    ).replace("\n", newline)
    after = TOML.set_value(before, (*PLACE, "command"), "new")
    assert after == before.replace('"old"', '"new"')
    after = TOML.set_value(before, (*PLACE, "env", "C"), "d")
    assert after == before.replace('A = "b"', f'A = "b"{newline}C = "d"')


def test_an_inline_table_keeps_its_other_members() -> None:
    after = TOML.set_value("mcp_servers = { b = 1979-05-27 } # mine\n", PLACE, {"command": "new"})
    assert after == 'mcp_servers = { b = 1979-05-27,kiro = {command = "new"}} # mine\n'


def test_a_value_instead_of_a_table_is_refused() -> None:
    with pytest.raises(CannotEdit, match="cannot be changed"):
        TOML.set_value("mcp_servers = 1\n", PLACE, ENTRY)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_removing_an_entry_between_tables_keeps_all_comments(ending: str) -> None:
    """Codex keeps its own tables in the same file, and people write comments above them."""
    other = '# one\n[projects."/a"]\ntrust = "yes" # two\n\n'
    kiro = '[mcp_servers.kiro]\ncommand = "x"\nargs = []\n\n[mcp_servers.kiro.env]\nA = "x"\n\n'
    last = '# three\n\n# four\n[mcp_servers.b]\ncommand = "x"\nargs = []\n'
    before, after = ((other + text + last).replace("\n", ending) for text in (kiro, ""))
    assert TOML.remove(before, PLACE) == after


PIECES = (
    "# a comment [mcp_servers.kiro]",
    "",
    "a = '[mcp_servers.kiro]'",
    'b = """\n[mcp_servers.kiro]\n"""',
    "c = '''\nit''s\n[x]'''''",
    'd = "\\" # no comment"',
    "e.f . 'g=h' = [\n  [1, 2], # ]\n  {x = 1},\n]",
    '[mcp_servers.other] # "why"',
    'command = "x"',
    "[mcp_servers.other.env]",
    "[[list]]",
    "[ [ list ] ]",
    "  [list.inner]",
    "f = 2026-11-21T10:00:00Z",
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Statements in any order, as far as they make up a document."""
    pieces = draw(st.lists(st.sampled_from(PIECES), max_size=8))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    text = "\n".join(pieces) + draw(st.sampled_from(["", "\n", "\n\n", "\n  "]))
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        text = "\n".join(piece for piece in pieces if piece.startswith("#") or not piece)
    return text.replace("\n", newline)


@moderate
@given(documents())
def test_an_entry_is_added_to_and_removed_from_any_toml_document(text: str) -> None:
    """The old text stays in front, and removing restores it."""
    before = TOML.read(text)
    held: Any = before.get("mcp_servers", {})
    after = TOML.set_value(text, PLACE, ENTRY)
    assert TOML.read(after) == {**before, "mcp_servers": {**held, "kiro": ENTRY}}
    assert after.startswith(text)
    assert TOML.remove(after, PLACE) == text
