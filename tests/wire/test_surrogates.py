"""Halves of surrogate pairs, joined where they meet and replaced where they stay alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from kiro_mcp.wire.json_values import (
    SurrogateJoiner,
    mend_escaped_surrogates,
    mend_surrogates,
)

# The first and the last character, and the first and last of each half.
PAIRS = {
    "\U00010000": "\ud800\udc00",
    "\U000103ff": "\ud800\udfff",
    "\U0010fc00": "\udbff\udc00",
    "\U0010ffff": "\udbff\udfff",
    "\U0001f600": "\ud83d\ude00",
}


@pytest.mark.parametrize(("character", "halves"), PAIRS.items(), ids=map(ascii, PAIRS))
def test_halves_that_meet_are_one_character(character: str, halves: str) -> None:
    """Unicode, section 3.9: every character beyond U+FFFF is one pair."""
    assert mend_surrogates(f"a{halves}b") == f"a{character}b"
    joiner = SurrogateJoiner()
    assert joiner.feed(f"a{halves[0]}") == "a"
    assert joiner.feed(f"{halves[1]}b") == f"{character}b"
    assert joiner.close() == ""


@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC00, 0xDFFF], ids=hex)
def test_a_half_that_stays_alone_is_replaced(code: int) -> None:
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
def test_pieces_say_what_the_whole_says(pieces: list[str]) -> None:
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
