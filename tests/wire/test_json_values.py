"""What a stranger gives, as JSON that can be sent."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.wire.json_values import (
    MAX_JSON_DEPTH,
    clean_text,
    has_null,
    json_text,
    load_in_steps,
    object_without_nulls,
    plain_json,
    without_nulls,
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
def test_text_is_made_fit_to_send(given: str, expected: str) -> None:
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
def test_what_is_nested_too_deeply_becomes_text(nest: Callable[[Any], Any], bracket: str) -> None:
    """Clients of MCP send at most 200 levels; all that is said in them reaches the model."""
    deep: Any = "bottom"
    for _ in range(200):
        deep = nest(deep)
    plain = plain_json(deep)
    levels = 0
    while isinstance(plain, dict | list):
        plain = next(iter(plain.values() if isinstance(plain, dict) else plain))
        levels += 1
    assert levels == MAX_JSON_DEPTH
    assert isinstance(plain, str)
    assert plain.count(bracket) == 200 - MAX_JSON_DEPTH
    assert "bottom" in plain


@pytest.mark.parametrize(("nest", "bracket"), NESTS)
def test_what_no_json_writer_takes_is_left_out(nest: Callable[[Any], Any], bracket: str) -> None:
    """Only a library's own objects nest like this: JSON readers give up before."""
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = nest(deep)
    assert json_text(plain_json(deep)).count(bracket) == MAX_JSON_DEPTH


def test_the_given_object_is_not_changed() -> None:
    """Callers keep what they hand over."""
    given = {"a": ["\0", {"b": None}]}
    plain = plain_json(given)
    assert isinstance(plain, Mapping)
    object_without_nulls(plain)
    assert given == {"a": ["\0", {"b": None}]}


def test_nulls_are_found_and_left_out_at_any_depth() -> None:
    """Observed: absent members are left out, never null."""
    given = plain_json({"a": None, "b": [None, {"c": None, "d": 1}], "e": "x"})
    assert has_null(given)
    assert without_nulls(given) == {"b": [{"d": 1}], "e": "x"}
    assert not has_null(without_nulls(given))
    assert without_nulls(None) is None


def test_json_is_written_compactly_with_text_as_it_is() -> None:
    assert json_text({"a": ["ü", 1]}) == '{"a":["ü",1]}'


@given(VALUES, st.booleans())
def test_json_that_is_parsed_in_steps_has_the_same_value(value: Any, is_ascii: bool) -> None:
    assert load_in_steps(json.dumps(value, ensure_ascii=is_ascii)) == value


def test_half_characters_in_large_json_become_replacement_characters() -> None:
    """Clients cut texts in the middle of a character, and JavaScript writes such a half."""
    text = r'{"a\ud83d": ["\ud83d", "\ud83d\ude42"]}'
    assert load_in_steps(text) == {"a\ufffd": ["\ufffd", "🙂"]}


@pytest.mark.parametrize("text", ["", "[1,]", '{"a":}', '"a', "[" * 5_000, "1" * 5_000])
def test_what_is_not_json_or_too_much_of_it_raises_the_errors_of_the_library(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        load_in_steps(text)
