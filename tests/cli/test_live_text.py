"""What is printed of an answer while it comes, and what at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.cli.ask import LiveText

TEXTS = st.text(alphabet="ab \n\u0301\U0001f600", max_size=20)


def printed(live: LiveText, pieces: list[tuple[int, str]], text: str) -> str:
    """All that reaches standard output."""
    return "".join(live.take(offset, piece) for offset, piece in pieces) + live.finish(text)


def with_offsets(pieces: list[str]) -> list[tuple[int, str]]:
    starts = [len("".join(pieces[:index])) for index in range(len(pieces))]
    return list(zip(starts, pieces, strict=True))


@given(pieces=st.lists(TEXTS), rest=TEXTS)
def test_the_printed_text_is_the_answer_and_a_newline(pieces: list[str], rest: str) -> None:
    """No matter how the text was cut, and how much of it came with the result."""
    text = "".join(pieces) + rest
    assert printed(LiveText(), with_offsets(pieces), text) == (
        text if text.endswith("\n") or not text else f"{text}\n"
    )


@given(pieces=st.lists(TEXTS.filter(bool), min_size=2), data=st.data())
def test_a_lost_piece_does_not_change_what_is_printed(
    pieces: list[str], data: st.DataObject
) -> None:
    """After a gap nothing is printed until the whole text is there."""
    lost = data.draw(st.integers(0, len(pieces) - 2))
    came = [piece for index, piece in enumerate(with_offsets(pieces)) if index != lost]
    text = "".join(pieces)
    assert printed(LiveText(), came, text).rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize(
    ("pieces", "text", "expected"),
    [
        ([(0, "One "), (0, "Another")], "Another one.", "One \nAnother one.\n"),
        ([(0, "One ")], "", "One \n"),
    ],
    ids=["answered anew", "failed"],
)
def test_a_replaced_text_starts_on_a_new_line(
    pieces: list[tuple[int, str]], text: str, expected: str
) -> None:
    """What has been printed cannot be taken back."""
    assert printed(LiveText(), pieces, text) == expected
