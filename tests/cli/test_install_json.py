"""JSON with comments: read with its faults told, edited without a character lost."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiro_mcp.cli.clients.edits import JSON, JSONC, CannotEdit, Unparsable

ENTRY = {"command": "/opt/uvx", "args": ["kiro-mcp"]}
PLACE = ("servers", "kiro")
moderate = settings(derandomize=True, max_examples=60, deadline=None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        (" // nothing\n/* at all */", {}),
        ('{"a": 1, /* one */ "b": [1, 2,], // two\n}', {"a": 1, "b": [1, 2]}),
        (
            '{"a": "// no comment", "b": "/* nor here */"}',
            {"a": "// no comment", "b": "/* nor here */"},
        ),
        (r'{"\u00e4\"": "\\"}', {'ä"': "\\"}),
        ('{"a": {"b": -1.5e3}, "a": null}', {"a": None}),
        ("{}\r\n//", {}),
    ],
)
def test_comments_and_trailing_commas_are_read(text: str, value: object) -> None:
    """VS Code and Zed: comments, and a comma after the last member."""
    assert JSONC.read(text) == value


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("{", 1, 2),
        ('{"a": 1\n "b": 2}', 2, 2),
        ('{"a" 1}', 1, 6),
        ("{a: 1}", 1, 2),
        ('{\r\n  "a": tru\r\n}', 2, 8),
        ('{"a": 01}', 1, 8),
        ("{,}", 1, 2),
        ("{} {}", 1, 4),
        ('{"a": [1 2]}', 1, 10),
        ('{"a": "x\ny"}', 1, 9),
        ("{} /* open", 1, 4),
        ("{}\n /*/", 2, 2),
    ],
)
def test_a_syntax_error_is_reported_with_its_position(text: str, line: int, column: int) -> None:
    """To correct a file of 400 lines, a user needs the line number."""
    with pytest.raises(Unparsable) as caught:
        JSONC.read(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    "text", [r'{"a": "\q"}', '{"a": 1,,}', "[" * 200_000, '{"a": ' * 200_000, '"/*' * 100_000]
)
def test_an_unreadable_document_is_refused_quickly(text: str) -> None:
    """A file may contain anything. The work depends only on its size."""
    with pytest.raises((Unparsable, CannotEdit)):
        JSONC.read(text)


def test_plain_json_with_a_comment_is_refused() -> None:
    """Claude Desktop does not read a file with a comment."""
    assert JSON.read("\n") == {}
    assert JSON.read('{"a": 1}') == {"a": 1}
    with pytest.raises(Unparsable, match="no comments") as caught:
        JSON.read('{\n  // mine\n  "a": 1}')
    assert (caught.value.line, caught.value.column) == (2, 3)


EDITS = {
    "nothing": ("", '{\n  "servers": {\n    "kiro": 1\n  }\n}\n'),
    "a comment alone": ("// mine", '// mine\n{\n  "servers": {\n    "kiro": 1\n  }\n}\n'),
    "an empty object": ("{}", '{\n  "servers": {\n    "kiro": 1\n  }\n}'),
    "a comment inside of one": (
        "{\n  // mine\n}\n",
        '{\n  // mine\n  "servers": {\n    "kiro": 1\n  }\n}\n',
    ),
    "other members, tabs": (
        '{\n\t"a": 1\n}\n',
        '{\n\t"a": 1,\n\t"servers": {\n\t\t"kiro": 1\n\t}\n}\n',
    ),
    "another server, Windows' lines": (
        '{\r\n    "servers": {\r\n        "b": {}\r\n    }\r\n}',
        '{\r\n    "servers": {\r\n        "b": {},\r\n        "kiro": 1\r\n    }\r\n}',
    ),
    "a comment after the last one": (
        '{\n  "servers": {\n    "b": {} // two\n    // three\n  }\n}',
        '{\n  "servers": {\n    "b": {}, // two\n    "kiro": 1\n    // three\n  }\n}',
    ),
    "a comma after the last one": (
        '{\n  "servers": {\n    "b": {}, // two\n  },\n}',
        '{\n  "servers": {\n    "b": {}, // two\n    "kiro": 1,\n  },\n}',
    ),
    "one line": ('{"a":1,"servers":{"b":{}}}', '{"a":1,"servers":{"b":{}, "kiro": 1}}'),
    "one line, no servers": ('{"a":1}', '{"a":1, "servers": {"kiro": 1}}'),
}


@pytest.mark.parametrize(("before", "after"), EDITS.values(), ids=EDITS)
def test_a_new_member_follows_the_others_in_their_style(before: str, after: str) -> None:
    """The change reads as if its owner had made it."""
    assert JSONC.set_value(before, PLACE, 1) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"servers": {"kiro": 1, "b": 2}}', '{"servers": {"b": 2}}'),
        ('{"servers": {"a": 1, "kiro": 1, "b": 2}}', '{"servers": {"a": 1, "b": 2}}'),
        ('{"servers": {"kiro": 1}, "c": 3}', '{"servers": {}, "c": 3}'),
        ('{"servers": {"kiro": 1}}', '{"servers": {}}'),
        ('{"kiro": 1, "servers": {"kiro": 1, "kiro": 2}}', '{"kiro": 1, "servers": {}}'),
        (
            '{\n  "servers": {\n    // why\n    "kiro": 1 // mine\n  }\n}',
            '{\n  "servers": {\n    // why\n     // mine\n  }\n}',
        ),
        (
            '{\n  "servers": {\n    "a": 1, // one\n    "kiro": 2, "b": 3\n  }\n}',
            '{\n  "servers": {\n    "a": 1, // one\n     "b": 3\n  }\n}',
        ),
        ('{"servers": {"b": 2}}', '{"servers": {"b": 2}}'),
        ('{"a": 1}', '{"a": 1}'),
        ("", ""),
    ],
)
def test_removing_a_member_keeps_the_comments_beside_it(before: str, after: str) -> None:
    assert JSONC.remove(before, PLACE) == after


def test_a_value_is_replaced_in_its_place() -> None:
    """A setting keeps its place and its comment."""
    before = '{\n  "servers": {"kiro": {"command": "old" /* why */, "mine": true}}\n}'
    after = JSONC.set_value(before, (*PLACE, "command"), "new")
    assert after == before.replace('"old"', '"new"')
    assert JSONC.set_value(after, (*PLACE, "command"), "new") == after


@pytest.mark.parametrize("text", ["[]", '"x"', '{"servers": []}', '{"servers": null}'])
def test_a_document_that_is_not_an_object_is_refused(text: str) -> None:
    """Replacing it would lose its content."""
    with pytest.raises(CannotEdit, match="not an object"):
        JSONC.set_value(text, PLACE, 1)


# --- for any document ----------------------------------------------------------------------------

BLANKS = ["", "", " ", "\n  ", "\r\n", "\t", "/* c */", "/* a\n b */", " // d\n", "//\r\n\t"]
KEYS = st.sampled_from(["a", "b", "servers", "kiro-not", 'qu"ote', "ü", ""])
SCALARS = st.sampled_from(["1", "-0.5", "true", "null", '"text"', '"{//"', '"\\u00e4"', "[]", "{}"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """An object with blanks and comments at every place where they may stand."""

    def blanks() -> str:
        return "".join(draw(st.lists(st.sampled_from(BLANKS), max_size=2)))

    def value(depth: int) -> str:
        kind = draw(
            st.sampled_from(["scalar", "scalar", "array", "object"] if depth else ["scalar"])
        )
        if kind == "array":
            return listed("[", [value(depth - 1) for _ in range(draw(st.integers(1, 3)))], "]")
        return members(depth) if kind == "object" else draw(SCALARS)

    def members(depth: int, servers: bool = False) -> str:
        keys = draw(st.lists(KEYS, max_size=4, unique=True))
        return listed("{", [member(key, depth, servers) for key in keys], "}")

    def member(key: str, depth: int, servers: bool) -> str:
        held = members(1) if servers and key == "servers" else value(depth - 1)
        return f"{json.dumps(key, ensure_ascii=False)}{blanks()}:{blanks()}{held}"

    def listed(begin: str, items: list[str], end: str) -> str:
        body = ",".join(f"{blanks()}{item}{blanks()}" for item in items)
        comma = "," if items and draw(st.booleans()) else ""
        return f"{begin}{body}{comma}{blanks()}{end}"

    return f"{blanks()}{members(3, servers=True)}{blanks()}"


def keeps_every_character(before: str, after: str) -> bool:
    """Whether the first text is the second one with some characters removed."""
    rest = iter(after)
    return all(character in rest for character in before)


@moderate
@given(documents())
def test_setting_an_entry_changes_nothing_else_in_any_document(text: str) -> None:
    """Users must be able to trust an installer with their configuration."""
    before = JSONC.read(text)
    held: Any = before.get("servers", {})
    after = JSONC.set_value(text, PLACE, ENTRY)
    assert JSONC.read(after) == {**before, "servers": {**held, "kiro": ENTRY}}
    assert keeps_every_character(text, after)


@moderate
@given(documents())
def test_removing_an_entry_restores_any_document(text: str) -> None:
    """Character by character, unless the object with the servers was empty or missing."""
    before = JSONC.read(text)
    back = JSONC.remove(JSONC.set_value(text, PLACE, ENTRY), PLACE)
    if before.get("servers"):
        assert back == text
    else:  # Nobody knows whether it was there before, so it stays.
        assert JSONC.read(back) == {**before, "servers": {}}


@moderate
@given(st.text(alphabet=st.sampled_from('{}[]:,"/*\\ \n\r\ta1.-etrufalsn'), max_size=40))
def test_any_text_is_read_or_refused_with_an_error(text: str) -> None:
    """Plain JSON is read as `json` reads it."""
    plain = plain_json(text)
    try:
        found: object = JSONC.read(text)
    except Unparsable:
        assert plain is None
    except CannotEdit:
        assert not isinstance(plain, dict)
    else:
        assert plain is None or found == plain


def plain_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
