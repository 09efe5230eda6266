"""What a stranger gives, as JSON that can be sent."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from kiro_mcp.wire.json_values import (
    MAX_SENT_DEPTH,
    SurrogateJoiner,
    clean_text,
    json_text,
    mend_surrogates,
    plain_json,
    without_nulls,
)
from kiro_mcp.wire.large_json import (
    MAX_COMMAS,
    cut_long_texts,
    load_large_json,
    mend_escaped_surrogates,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("plain", "plain", id="ascii"),
        pytest.param("grüß 🙂", "grüß 🙂", id="beyond-ascii"),
        pytest.param("a\0b\0", "ab", id="nul"),
        pytest.param("a\ud800b", "ab", id="lone-high"),
        pytest.param("a\udc00b", "ab", id="lone-low"),
        pytest.param("\ud83d\ude42", "🙂", id="pair-in-halves"),
        pytest.param("\ud83d\0\ude42", "🙂", id="pair-around-nul"),
        pytest.param(FAMILY, FAMILY, id="joined-emoji"),
    ],
)
def test_text_is_cleaned(given: str, expected: str) -> None:
    """Observed: the service's JSON takes neither half surrogate pairs nor NUL."""
    assert clean_text(given) == expected
    assert clean_text(given).encode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (2**5000, None),
        (1.5, 1.5),
        (True, True),
        ((1, "\0"), [1, ""]),
        ({1: {"a\0": None}}, {"1": {"a": None}}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({"s": {3}}, {"s": "{3}"}),
    ],
)
def test_anything_becomes_json(given: object, expected: object) -> None:
    """Nothing after this step meets anything else."""
    plain = plain_json(given)
    assert plain == expected
    assert json.dumps(plain, allow_nan=False)


NESTS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda inner: [inner], "["),
    (lambda inner: {"a": inner}, "{"),
]


@pytest.mark.parametrize(("nest", "bracket"), NESTS)
def test_a_value_that_is_nested_too_deeply_becomes_text(
    nest: Callable[[Any], Any], bracket: str
) -> None:
    """Clients of MCP send at most 200 levels; all that is said in them reaches the model."""
    deep: Any = "bottom"
    for _ in range(200):
        deep = nest(deep)
    plain = plain_json(deep)
    levels = 0
    while isinstance(plain, dict | list):
        plain = next(iter(plain.values() if isinstance(plain, dict) else plain))
        levels += 1
    assert levels == MAX_SENT_DEPTH
    assert isinstance(plain, str)
    assert plain.count(bracket) == 200 - MAX_SENT_DEPTH
    assert "bottom" in plain


@pytest.mark.parametrize(("nest", "bracket"), NESTS)
def test_a_value_that_json_cannot_hold_is_left_out(
    nest: Callable[[Any], Any], bracket: str
) -> None:
    """Only a library's own objects nest like this: JSON readers give up before."""
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = nest(deep)
    assert json_text(plain_json(deep)).count(bracket) == MAX_SENT_DEPTH


def test_the_given_object_is_not_changed() -> None:
    """Callers keep what they hand over."""
    given = {"a": ["\0", {"b": None}]}
    plain = plain_json(given)
    assert isinstance(plain, Mapping)
    without_nulls(plain)
    assert given == {"a": ["\0", {"b": None}]}


def test_nulls_are_left_out_at_any_depth() -> None:
    """Observed: absent members are left out, never null."""
    given = plain_json({"a": None, "b": [None, {"c": None, "d": 1}], "e": "x"})
    assert without_nulls(given) == {"b": [{"d": 1}], "e": "x"}
    assert without_nulls(None) is None


def test_json_is_written_compactly_with_text_as_it_is() -> None:
    assert json_text({"a": ["ü", 1]}) == '{"a":["ü",1]}'


def dense(text: str) -> str:
    """Return a list of JSON and of so many commas that it is not parsed in one go."""
    return f'[{text},"{"," * MAX_COMMAS}"]'


@given(VALUES, st.booleans())
def test_large_json_has_the_same_value_however_many_values_it_holds(
    value: Any, is_ascii: bool
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert load_large_json(text) == value
    assert load_large_json(dense(text))[0] == value


def test_half_characters_in_large_json_become_replacement_characters() -> None:
    """Clients cut texts in the middle of a character, and JavaScript writes such a half."""
    text = r'{"a\ud83d": ["\ud83d", "\ud83d\ude42"]}'
    expected = {"a\ufffd": ["\ufffd", "🙂"]}
    assert load_large_json(text) == expected
    assert load_large_json(dense(text))[0] == expected


def load_cut(text: str, long_text: int) -> Any:
    rest, cut = cut_long_texts(text.encode(errors="replace"), long_text)
    return load_large_json(rest.decode(), cut)


@given(VALUES, st.booleans(), st.integers(0, 3))
def test_json_has_the_same_value_when_long_texts_are_cut_out(
    value: Any, is_ascii: bool, long_text: int
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert load_cut(text, long_text) == value


@pytest.mark.parametrize(
    "text",
    [
        r'["long text", "cut0:0.", "cut1:0."]',
        r'["long text", "\u0063ut0:0."]',
        r'["\\", "long text\\", "long text", "\"long text"]',
        r'{"long text": "long text", "long text": ["long text"]}',
        json.dumps(["long text", *(f"cut{number}:0." for number in range(10))]),
    ],
)
def test_a_text_that_looks_like_a_mark_of_a_cut_one_stays(text: str) -> None:
    assert load_cut(text, 5) == json.loads(text)


@pytest.mark.parametrize("text", ["", "[1,]", '{"a":}', '"a', "[" * 5_000, "1" * 5_000])
def test_what_is_not_json_or_too_much_of_it_raises_the_errors_of_the_library(text: str) -> None:
    for large in (text, dense(text)):
        with pytest.raises((ValueError, RecursionError)):
            load_large_json(large)


# --- halves of surrogate pairs, joined where they meet and replaced where they stay alone -


# The first and the last character, and the first and last of each half.
PAIRS = {
    "\U00010000": "\ud800\udc00",
    "\U000103ff": "\ud800\udfff",
    "\U0010fc00": "\udbff\udc00",
    "\U0010ffff": "\udbff\udfff",
    "\U0001f600": "\ud83d\ude00",
}


@pytest.mark.parametrize(("character", "halves"), PAIRS.items(), ids=map(ascii, PAIRS))
def test_two_halves_of_a_character_are_joined(character: str, halves: str) -> None:
    """Unicode, section 3.9: every character beyond U+FFFF is one pair."""
    assert mend_surrogates(f"a{halves}b") == f"a{character}b"
    joiner = SurrogateJoiner()
    assert joiner.feed(f"a{halves[0]}") == "a"
    assert joiner.feed(f"{halves[1]}b") == f"{character}b"
    assert joiner.close() == ""


@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC00, 0xDFFF], ids=hex)
def test_a_lone_half_of_a_character_is_replaced(code: int) -> None:
    """No encoding takes it."""
    half = chr(code)
    assert mend_surrogates(half) == "\ufffd"
    joiner = SurrogateJoiner()
    assert joiner.feed(half) + joiner.feed("x") + joiner.close() == "\ufffdx"
    assert joiner.feed(half) + joiner.close() == "\ufffd"
    assert joiner.close() == ""


@given(
    st.lists(st.text(st.characters(codec=None, categories=None)) | st.sampled_from("\ud83d\ude00"))
)
def test_pieces_give_the_same_text_as_the_whole(pieces: list[str]) -> None:
    """Where the service cuts its text must not matter."""
    joiner = SurrogateJoiner()
    said = "".join([*map(joiner.feed, pieces), joiner.close()])
    assert said == mend_surrogates("".join(pieces))
    said.encode()


@given(
    st.lists(
        st.sampled_from(["\ud83d", "\ude00", "\\", "u", "ud83d", '"', "\n", "é", "a"]), max_size=12
    ),
    st.booleans(),
)
def test_json_with_halves_can_be_read_by_a_strict_parser(pieces: list[str], upper: bool) -> None:
    """A backslash that is itself escaped begins no escape."""
    text = "".join(pieces)
    written = json.dumps([text])
    if upper:
        written = written.replace("d83d", "D83D")
    (expected,) = json.loads(written)
    assert from_json(mend_escaped_surrogates(written)) == [mend_surrogates(expected)]


@pytest.mark.parametrize("spaces", range(2**20 - 12, 2**20 + 4))
def test_a_half_in_long_json_is_replaced_wherever_it_is(spaces: int) -> None:
    """Long JSON is searched piece by piece, and an escape may be cut."""
    written = '["\\n' + " " * spaces + '\\ud83d"]'
    assert mend_escaped_surrogates(written) == written.replace("d83d", "fffd")
