"""YAML: a member is added, changed or removed, and no other character changes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.cli.clients.edits import YAML, CannotEdit, Unparsable, as_object, value_at

PATH = ("extensions", "kiro")
ENTRY = {
    "cmd": "C:\\uv\\uvx.exe",
    "args": ["kiro-mcp"],
    "envs": {"A": 'x: # "é\U0001f600'},
    "enabled": True,
}
moderate = settings(derandomize=True, max_examples=60, deadline=None)

BLOCK = """\
  kiro:
    cmd: "new"
    args: []
"""


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [", 2, "expected the node content"),
        ("a: 1\n\tb: 2\n", 2, "found character"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("k: 1\nextensions:\n  API_KEY: hunter1\n  API_KEY: hunter2\n", 4, "duplicate key"),
        ("a: 2026-13-45\n", 1, "cannot be read"),
        ("[" * 100_000, 1, "cannot be read"),
        ("a: 1\nb: \0", 2, "special characters"),
    ],
)
def test_a_broken_document_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(Unparsable, match=message) as caught:
        YAML.read(text)
    assert caught.value.line == line
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"extensions:\n{BLOCK}"),
        ("# mine\n", f"# mine\nextensions:\n{BLOCK}"),
        ("---\n", f"---\nextensions:\n{BLOCK}"),
        ("a: 1", f"a: 1\nextensions:\n{BLOCK}".removesuffix("\n")),
        ("a: 1\r\n", f"a: 1\nextensions:\n{BLOCK}".replace("\n", "\r\n")),
        (
            "extensions:\n  dev: # mine\n    args:\n    - a # b\n\n# of c\nc: null\n",
            f"extensions:\n  dev: # mine\n    args:\n    - a # b\n{BLOCK}\n# of c\nc: null\n",
        ),
        (
            "extensions:\n    dev:\n        bundled: # none\n# of c\nc: |\n  x\n\n",
            "extensions:\n    dev:\n        bundled: # none\n    kiro:\n"
            '      cmd: "new"\n      args: []\n# of c\nc: |\n  x\n\n',
        ),
        ("a: |\n  x\n# of b\n", f"a: |\n  x\nextensions:\n{BLOCK}# of b\n"),
    ],
)
def test_a_new_yaml_member_follows_the_others_and_can_be_removed(before: str, after: str) -> None:
    assert YAML.set_value(before, PATH, {"cmd": "new", "args": []}) == after
    assert YAML.remove(after, PATH) == before


@pytest.mark.parametrize("empty", ["{}", "", " # none yet", "~"])
def test_an_empty_mapping_is_filled(empty: str) -> None:
    after = YAML.set_value(f"extensions: {empty}\nb: 1\n", PATH, ENTRY)
    assert YAML.read(after) == {"extensions": {"kiro": ENTRY}, "b": 1}
    assert YAML.read(YAML.remove(after, PATH)) == {"b": 1}


ENTRIES = {
    "as Goose writes it": "extensions:\n  kiro:\n    cmd: old\n    args:\n    - a\n    envs: {}\n",
    "with comments": "extensions:\n  kiro: # mine\n    # why\n    cmd: 'old' # mine\n\nb: 1\n",
    "on several lines": "extensions:\n  kiro:\n   cmd: >-\n      old\n   args: [a,\n     b]\n",
    "without values": "extensions:\n  kiro:\n    cmd: # why\n    args:\n    envs:\n",
}


@pytest.mark.parametrize("before", ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize(
    ("path", "value"),
    [(("cmd",), "new"), (("args",), ["new"]), (("envs", "A"), "new"), (("envs",), {"A": "new"})],
    ids=str,
)
def test_a_yaml_value_is_set_in_every_way_to_write_an_entry(
    before: str, path: tuple[str, ...], value: object
) -> None:
    after = YAML.set_value(before, (*PATH, *path), value)
    assert value_at(YAML.read(after), (*PATH, *path)) == value
    assert YAML.set_value(after, (*PATH, *path), value) == after
    old, new = (value_at(YAML.read(text), PATH) for text in (before, after))
    assert {**as_object(new), path[0]: 0} == {**as_object(old), path[0]: 0}
    assert all(comment in after for comment in ("# why", "# mine") if comment in before)


@pytest.mark.parametrize(
    "text",
    ["extensions: { dev: 1 }\n", "extensions: 1\n", "extensions:\n- 1\n", "- 1\n"],
)
def test_yaml_without_lines_for_a_member_is_refused(text: str) -> None:
    with pytest.raises(CannotEdit, match="mapping"):
        YAML.set_value(text, PATH, ENTRY)


def test_removing_a_yaml_member_keeps_all_comments() -> None:
    first = "# one\na: 1 # two\nextensions:\n  dev:\n    x: 1\n\n  # three\n"
    last = "  # four\n  z: {}\n# five\n"
    kiro = "  kiro: # its own\n    x: |\n      y\n"
    assert YAML.remove(first + kiro + last, PATH) == first + last
    assert YAML.remove(first + last, PATH) == first + last


@pytest.mark.parametrize("name", ["true", "123", "1e3", "-", "---", "null", "kiro-2"])
def test_a_name_that_yaml_reads_as_something_else_is_quoted(name: str) -> None:
    assert YAML.read(YAML.set_value("", ("extensions", name), 1)) == {"extensions": {name: 1}}


PIECES = (
    "# a comment: {",
    "",
    'a: "kiro: # x"',
    "b: |\n  kiro:\n    c: 1\n",
    "c: >-\n  folded\n\n  text",
    "d: 'it''s # x' # y",
    "e:\n- 1\n-\n  - 2\n- f: 3\n  g: 4 # h",
    "f: [1, {x: 2},\n  3]",
    "g:",
    "h: ~ # none",
    "i: 2026-11-21",
    "extensions:\n  kiro-2:\n    cmd: x # y\n    # z\n  last:\n    args:\n      - 1",
    "extensions: # none",
    "extensions: {}",
    "j: &j\n  k: 1",
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Members in any order, each key once."""
    pieces = draw(st.lists(st.sampled_from(PIECES), max_size=8, unique_by=lambda one: one[:3]))
    text = "\n".join(pieces) + draw(st.sampled_from(["", "\n", "\n\n"]))
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


@moderate
@given(documents())
def test_an_entry_is_added_to_and_removed_from_any_yaml_document(text: str) -> None:
    before = YAML.read(text)
    held: Any = before.get("extensions", {})
    after = YAML.set_value(text, PATH, ENTRY)
    assert YAML.read(after) == {**before, "extensions": {**held, "kiro": ENTRY}}
    lines = after.splitlines()
    assert [line for line in text.splitlines() if line not in lines] in ([], ["extensions: {}"])
    removed = YAML.remove(after, PATH)
    if held or "extensions" not in text:
        assert removed == text
    else:
        assert YAML.read(removed) == {one: it for one, it in before.items() if one != "extensions"}
